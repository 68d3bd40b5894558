"""What a model raises reaches the caller, at whichever call: no trial takes it for something else."""

import pytest
import torch
from cases import in_turn
from torch import nn

import torchwhy as tw


class Mine(Exception):
    """An error of the user's own."""


class Fails(nn.Module):
    """Images (N, 3, 8, 8) → (N, 3), with an error at one of its calls."""

    def __init__(self, at=0, error=None):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.conv2, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)
        self.at, self.error, self.calls = at, error, 0

    def forward(self, x):
        self.calls += 1
        if self.calls == self.at:
            raise self.error("the disk with the weights is gone")
        return self.head(self.conv2(self.conv(x).relu()).relu().mean((2, 3)))


METHODS = {
    "AblationCAM": lambda m: tw.AblationCAM(m, layer="conv", batch_size=2),
    "ScoreCAM": lambda m: tw.ScoreCAM(m, layer="conv", batch_size=2),
    "auto": tw.GradCAM,
    "ablation": lambda m: tw.FeatureAblation(m, layer="conv2", batch_size=16),
    "Saliency": lambda m: tw.Saliency(m, batch_size=1),
    "LRP": lambda m: tw.LRP(m, composite="epsilon", batch_size=1),
    "RISE": lambda m: tw.RISE(m, n_samples=6, grid=3, batch_size=3, generator=0),
}


@pytest.mark.parametrize("name, error", in_turn(METHODS, [OSError, Mine, ZeroDivisionError, KeyboardInterrupt], 2))
def test_it_is_raised(name, error):
    x = torch.rand(3, 3, 8, 8)
    method, net = METHODS[name], Fails()
    method(net).attribute(x, 1)
    for at in range(1, min(net.calls, 20) + 1):
        with pytest.raises(error, match="the disk with the weights is gone"):
            method(Fails(at, error)).attribute(x, 1)


@pytest.mark.parametrize("score", [lambda o: o[:, 1] * 1j, lambda o: torch.complex(o[:, 1], o[:, 0])])
@pytest.mark.parametrize("method", [*METHODS.values(), tw.IntegratedGradients, tw.DeepLIFT, tw.FeatureAblation])
def test_complex_scores_are_refused(method, score):
    with pytest.raises(TypeError, match="target: the scores are complex; choose real ones"):
        method(Fails()).attribute(torch.rand(2, 3, 8, 8), score)


def test_a_network_with_complex_outputs():
    net = nn.Linear(4, 2, dtype=torch.complex64)
    x = torch.rand(2, 4)

    def model(x):
        return net(x.to(torch.complex64))

    for method in (tw.IntegratedGradients(model), tw.Saliency(model), tw.KernelSHAP(model, n_samples=32, generator=0)):
        with pytest.raises(TypeError, match="complex"):
            method.attribute(x, 1)
    found = tw.FeatureAblation(model).attribute(x, lambda output: output[:, 1].real)
    torch.testing.assert_close(found, x * net.weight[1].real)
    with pytest.raises(TypeError, match="complex"):
        tw.metrics.infidelity(model, x, torch.rand(2, 4), 1)


PICTURES = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
METHODS_OF_PICTURES = [tw.Saliency, tw.IntegratedGradients, tw.GradCAM, tw.LRP, tw.FeatureAblation, tw.KernelSHAP]


@pytest.mark.parametrize("method", METHODS_OF_PICTURES)
def test_an_image_that_is_no_batch_is_said(method):
    state = torch.get_rng_state()
    with pytest.raises(
        (RuntimeError, ValueError), match=r"\(3, 8, 8\); the first dimension must be the rows: give inputs\[None\]"
    ):
        method(PICTURES).attribute(torch.ones(3, 8, 8), 1)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_list_of_rows_is_said():
    with pytest.raises(TypeError, match=r"2 tensors are as many inputs of the model; .*torch.stack\(inputs\)"):
        tw.Saliency(nn.Linear(3, 2)).attribute([torch.ones(4, 3), torch.ones(4, 3)], 1)


def test_an_error_of_the_model_alone_has_no_hint():
    with pytest.raises(RuntimeError) as error:
        tw.Saliency(PICTURES).attribute(torch.ones(2, 4, 8, 8), 1)
    assert "Mind" not in str(error.value)


# ---- models whose number of rows is fixed


class FourRows(nn.Module):
    """Takes four rows and no other number."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(x.view(4, -1).tanh())


class Session:
    """Takes the fixed number of rows of an exported file, and raises what a library of its own raises."""

    class InvalidArgument(Exception):
        pass

    def __init__(self, n=4):
        self.n, self.head = n, FourRows().head

    def __call__(self, a):
        if len(a) != self.n:
            raise self.InvalidArgument(f"Got: {len(a)} Expected: {self.n}.\n")
        return self.head(torch.as_tensor(a)).detach().numpy()


class ByName(FourRows):
    def forward(self, left, right):
        return super().forward(torch.cat([left, right], 1))


def exported(rows):
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).eval()
    return torch.export.export(net, (torch.zeros(rows, 6),)).module()


FIXED = {
    "view": FourRows,
    "export": lambda: exported(4),
    "trace": lambda: torch.jit.trace(FourRows(), torch.zeros(4, 6)),
    "file": Session,
}
ASKING = {
    "IntegratedGradients": lambda model, x: tw.IntegratedGradients(model, n_steps=5).attribute(x, 1),
    "Occlusion": lambda model, x: tw.Occlusion(model, sliding_window_shapes=1).attribute(x, 1),
    "KernelSHAP": lambda model, x: tw.KernelSHAP(model).explain(x, 1),
    "LIME": lambda model, x: tw.LIME(model, n_samples=9).attribute_each(x, [0, 1]),
    "deletion": lambda model, x: tw.metrics.deletion(model, x, x, 1),
    "inspect": lambda model, x: tw.inspect(model, x[:3], 1),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:the model runs on all rows")
@pytest.mark.parametrize("rows", [2, 4, 5])
@pytest.mark.parametrize("ask, model", in_turn(ASKING, FIXED, 2))
def test_a_fixed_number_of_rows_is_said(model, ask, rows):
    ask, model = ASKING[ask], FIXED[model]
    said = r"Mind: the model runs on 4 rows and not on (?!4 )\d+, so its number of rows is fixed, .*dynamic first dimension"
    with pytest.raises((ValueError, RuntimeError), match=said) as error:
        ask(model(), torch.randn(rows, 6, generator=torch.Generator().manual_seed(0)))
    assert ".. Mind" not in str(error.value)
    assert "\n. Mind" not in str(error.value)


@pytest.mark.parametrize("model", [lambda: exported(1), lambda: Session(1)], ids=["export", "file"])
def test_a_model_of_one_row_is_run_row_by_row_where_told(model):
    model, x = model(), torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"the model runs on one row and not on .* or give batch_size=1"):
        tw.Occlusion(model, sliding_window_shapes=1).attribute(x, 1)
    found = tw.Occlusion(model, sliding_window_shapes=1, batch_size=1).attribute(x, 1)
    drop = lambda i: model(x[i : i + 1])[:, 1] - model(x[i : i + 1] * (torch.arange(6) != 2))[:, 1]  # noqa: E731
    torch.testing.assert_close(found[:, 2], torch.cat([torch.as_tensor(drop(i)) for i in range(3)]))


def test_inputs_by_name_of_a_fixed_number_of_rows_are_told_too():
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    with pytest.raises(RuntimeError, match="the model runs on 4 rows and not on"):
        tw.FeatureAblation(ByName()).attribute({"left": x[:, :2], "right": x[:, 2:]}, 1)


def test_a_model_that_fails_for_another_reason_is_not_told_of_its_rows():
    """What is put in the place of the inputs may be refused by the model, whatever the number of rows."""

    def picky(x):
        if (x == 0).any():
            raise ValueError("zeros")
        return x.sum(1)

    with pytest.raises(ValueError, match=r"^zeros$"):
        tw.FeatureAblation(picky, check=False).attribute(torch.ones(3, 4))
    with pytest.raises(KeyError, match=r"^'no'$"):
        tw.FeatureAblation(lambda x: {}["no"]).attribute(torch.ones(3, 4))


@pytest.mark.parametrize("method", [tw.DeepLIFT, tw.DeepSHAP, tw.GuidedBackprop], ids=lambda m: m.__name__)
def test_what_an_error_may_mean_is_looked_for_without_the_rules_of_its_call(method):
    """Rules that compare two runs met the model's trial runs, and their own error hid the model's."""
    with torch.inference_mode():
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).double()
    x = torch.rand(3, 3, 8, 8, dtype=torch.double)
    with pytest.raises(ValueError, match="inference"):
        method(net.eval()).attribute(x, 1)
