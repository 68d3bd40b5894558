"""On a GPU: the numbers of the CPU, the GPU's own memory, and nothing left behind."""

import pytest
import torch
from cases import PATCHES, each_case
from nets import inputs, make
from torch import nn
from traces import of_input, of_model, of_torch, same

import torchwhy as tw
from torchwhy import metrics as M
from torchwhy.engine.run.optimizations import CallOptimizations

pytestmark = pytest.mark.cuda


def both(kind="conv", dtype=torch.double):
    """The network and its inputs here, and the same there."""
    net, x = make(kind, dtype).cpu(), inputs(kind, dtype=dtype).cpu()
    return net, x, make(kind, dtype).cuda(), x.cuda()


@pytest.fixture
def draws_of_the_cpu(monkeypatch):
    monkeypatch.setattr("torchwhy.engine.run.randomness.DEVICES_THAT_DRAW", ())


@each_case
def test_equals_the_cpu(case, draws_of_the_cpu):
    net, x, there, y = both(case.net)
    here = case.make(net).attribute(x, target=1, **case.data)
    before = of_model(there), of_input(y), of_torch()
    found = case.make(there).attribute(y, target=1, **case.data)
    assert same(before, (of_model(there), of_input(y), of_torch()))
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), here, rtol=1e-6, atol=1e-9)


@each_case
def test_targets_baselines_and_masks_may_be_on_the_cpu(case):
    _, _, net, x = both(case.net)
    target = torch.tensor([1, 0, 1])
    data = dict(case.data)
    if case.method.uses_baselines and not case.method.baselines_are_rows and case.method is not tw.IDGI:
        data["baselines"] = torch.zeros(1, *x.shape[1:], dtype=x.dtype)
    moved = {k: v.cuda() for k, v in data.items()}
    torch.testing.assert_close(
        case.make(net).attribute(x, target, **data), case.make(net).attribute(x, target.cuda(), **moved)
    )


@each_case
def test_the_default_device_may_be_the_gpu(case):
    _, _, net, x = both(case.net)
    usual = case.make(net).attribute(x, target=1, **case.data)
    torch.set_default_device("cuda")
    try:
        found = case.make(net).attribute(x, target=1, **case.data)
        assert torch.get_default_device().type == "cuda"
    finally:
        torch.set_default_device(None)
    torch.testing.assert_close(found, usual)


@pytest.mark.parametrize("seed", [0, 1])
def test_its_own_draws_are_normal_repeatable_and_free_of_the_batch_size(seed):
    net, x, there, y = both()
    here = tw.SmoothGrad(net, n_samples=4000, stdevs=0.3, generator=seed).explain(x, 1)
    method = tw.SmoothGrad(there, n_samples=4000, stdevs=0.3, generator=seed)
    found = method.explain(y, 1)
    gap = (found.attributions.cpu() - here.attributions).abs()
    error = (found.standard_error.cpu().square() + here.standard_error.square()).sqrt()
    assert (gap > 3 * error).double().mean() < 0.02
    assert gap.max() > 0
    method.batch_size = 70
    torch.testing.assert_close(method.attribute(y, 1), found.attributions, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("method", [tw.Saliency, tw.RISE, tw.LRP, tw.GradCAM], ids=lambda m: m.__name__)
def test_an_input_elsewhere_than_the_model_is_refused(method):
    _, x, net, _ = both()
    with pytest.raises(ValueError, match="inputs: on cpu, but the model is on cuda"):
        method(net).attribute(x, 1)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("method", [tw.Saliency, tw.IntegratedGradients, tw.RISE, tw.Occlusion, tw.GradCAM])
def test_lower_precision_is_near(method, precision):
    _, _, net, x = both(dtype=torch.float)
    options = {"generator": 0} if "generator" in method.__dataclass_fields__ else {}
    options |= {"sliding_window_shapes": 3} if method is tw.Occlusion else {}
    exact = method(net, **options).attribute(x, 1)
    found = method(net, precision=precision, **options).attribute(x, 1)
    assert found.dtype == exact.dtype == torch.float
    assert torch.cosine_similarity(found.flatten(), exact.flatten(), 0) > 0.99
    assert not torch.equal(found, exact)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_have_gradients(kind):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = kind(5, 4, batch_first=True), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.rnn(x)[0][:, -1])

    torch.manual_seed(0)
    net, x = Net().double().eval(), torch.randn(2, 6, 5, dtype=torch.double)
    here = tw.IntegratedGradients(net, n_steps=10).attribute(x, 1)
    there = tw.IntegratedGradients(net.cuda(), n_steps=10).attribute(x.cuda(), 1)
    torch.testing.assert_close(there.cpu(), here)
    assert torch.backends.cudnn.enabled


class Wide(nn.Module):
    """Images (N, 3, 64, 64) → (N, 4), with 64 MiB a row between."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4096, 1), nn.Linear(4096, 4)
        self.rows = []

    def forward(self, x):
        self.rows.append(len(x))
        return self.head(self.conv(x).relu().mean((2, 3)))


@pytest.fixture
def little_memory():
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(3 * 2**30 / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.mark.parametrize(
    "method",
    [
        lambda net: tw.IntegratedGradients(net, n_steps=100),
        lambda net: tw.RISE(net, n_samples=100, generator=0),
        lambda net: tw.SmoothGrad(net, n_samples=100, generator=0),
    ],
    ids=["IntegratedGradients", "RISE", "SmoothGrad"],
)
@pytest.mark.parametrize("batch_size", [None, 100])
def test_memory_that_runs_out_only_costs_time(method, batch_size, little_memory):
    torch.manual_seed(0)
    net = Wide().cuda().eval()
    x = torch.randn(1, 3, 64, 64, device="cuda")
    m = method(net)
    m.batch_size = 4
    few = m.attribute(x, 1)
    net.rows.clear()
    m.batch_size = batch_size
    with torch.no_grad():
        found = m.attribute(x, 1)
    assert max(net.rows) > 40  # of which the first try holds more than there is
    torch.testing.assert_close(found, few, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "method, options", [(tw.RISE, {"generator": 0, "n_samples": 400}), (tw.IntegratedGradients, {"n_steps": 300})]
)
def test_what_is_faster_changes_nothing(optimized, monkeypatch, method, options):
    _, _, net, x = both()
    usual = method(net, **options).attribute(x, 1)
    entered, enter = [], CallOptimizations.__enter__
    monkeypatch.setattr(CallOptimizations, "__enter__", lambda self: (entered.append(self), enter(self))[1])
    with optimized():
        found = method(net, **options).attribute(x, 1)
    assert bool(entered) == (method is tw.RISE)  # gradients are no faster by them
    assert not any(made.channels_last for made in entered)
    torch.testing.assert_close(found, usual, rtol=1e-8, atol=1e-10)


@each_case
def test_two_equal_calls_give_equal_bits_in_deterministic_mode(case):
    _, _, net, x = both(case.net, torch.float)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        first, *later = [case.make(net).attribute(x, target=1, **case.data) for _ in range(3)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(first, again) for again in later)


def test_the_rows_of_a_call_do_not_depend_on_what_is_free():
    rows = []
    for held in (0, 2**29):
        net, x = Wide().cuda().eval(), torch.randn(1, 3, 64, 64, device="cuda")
        other = torch.empty(held, device="cuda")
        tw.RISE(net, n_samples=400, generator=0).attribute(x, 1)
        rows.append(net.rows)
        del other
    assert rows[0] == rows[1]


def test_memory_bounds_the_rows():
    torch.manual_seed(0)
    net = Wide().cuda().eval()
    x = torch.randn(1, 3, 64, 64, device="cuda")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    tw.RISE(net, n_samples=3000, generator=0).attribute(x, 1)
    assert torch.cuda.max_memory_allocated() < 0.75 * torch.cuda.get_device_properties(0).total_memory
    assert max(net.rows) >= 32  # and yet fills the machine


def test_an_explanation_is_saved_shown_and_read(tmp_path):
    _, _, net, x = both()
    e = tw.SmoothGrad(net, n_samples=4, generator=0).explain(x, 1)
    e.save(tmp_path / "e.safetensors")
    again = tw.Explanation.load(tmp_path / "e.safetensors")
    torch.testing.assert_close(again.attributions.cpu(), e.attributions.cpu())
    e.plot()


@pytest.mark.parametrize(
    "metric",
    [M.deletion, M.insertion, M.road, M.irof, M.infidelity, M.sensitivity_n, M.faithfulness_correlation,
     M.faithfulness_estimate, M.monotonicity, M.average_drop, M.sufficiency, M.comprehensiveness, M.non_sensitivity],
    ids=lambda m: m.__name__,
)  # fmt: skip
def test_metrics_equal_the_cpu(metric, draws_of_the_cpu):
    net, x, there, y = both()
    a = tw.Saliency(net).attribute(x, 1).sum(1, keepdim=True)
    options = {"feature_mask": PATCHES} if metric is M.irof else {}
    here, found = metric(net, x, a, 1, **options), metric(there, y, a.cuda(), 1, **options)
    if isinstance(here, M.Curve):
        here, found = here.scores, found.scores
    torch.testing.assert_close(found.cpu(), here, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("metric", [M.sensitivity_max, M.local_lipschitz, M.random_logit, M.model_randomization])
def test_metrics_that_explain_again_equal_the_cpu(metric, draws_of_the_cpu):
    net, x, there, y = both()
    here, found = metric(tw.Saliency(net), x, 1), metric(tw.Saliency(there), y, 1)
    if isinstance(here, M.Curve):
        here, found = here.scores, found.scores
    torch.testing.assert_close(found.cpu(), here, rtol=1e-6, atol=1e-8)


def test_a_comparison():
    _, _, net, x = both()
    table = tw.compare(
        net, x, 1, {"Saliency": tw.Saliency(net), "IG": tw.IntegratedGradients(net)}, ["deletion", "sparseness"]
    )
    assert "Saliency" in str(table)
