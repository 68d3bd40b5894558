"""The work is cut to fit: after running out of memory, in the faster format, in lower precision, with a bar."""

import subprocess
import sys
import time
from contextlib import nullcontext

import pytest
import torch
from cases import each_case
from nets import inputs, make

import torchwhy as tw
from torchwhy.engine.run.batching import Batching


def limited(net, rows, error=RuntimeError, text="CUDA out of memory. Tried to allocate 2.00 GiB"):
    """The network fails above a number of rows; the calls that went well are listed."""
    calls = []

    def hook(module, args):
        if len(args[0]) > rows:
            raise error(text)
        calls.append(len(args[0]))

    net.register_forward_pre_hook(hook)
    return calls


@each_case
def test_running_out_of_memory_halves_the_batch_and_changes_nothing(case):
    net, x = case.setup()
    limited(net, 2)
    found = case.make(net).attribute(x, target=1, **case.data)
    torch.testing.assert_close(found, case.usual(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError, MemoryError])
def test_other_ways_to_say_so(error):
    net, x = make("conv"), inputs("conv")
    expected = tw.IntegratedGradients(net).attribute(x, 1)
    calls = limited(net, 5, error, "no more")
    torch.testing.assert_close(tw.IntegratedGradients(net).attribute(x, 1), expected)
    assert max(calls) <= 5


def test_one_row_that_does_not_fit_is_an_error():
    net, x = make("conv"), inputs("conv")
    limited(net, 0)
    with pytest.raises(RuntimeError, match="out of memory"):
        tw.IntegratedGradients(net).attribute(x, 1)


def test_other_errors_are_not_retried():
    calls = []

    def fails(x):
        calls.append(torch.is_grad_enabled())  # not where other numbers of rows are tried, for what the error may mean
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="multiplied"):
        tw.IntegratedGradients(tw.TorchModel(fails), check=False).attribute(torch.ones(4, 2))
    assert calls[0]
    assert not any(calls[1:])


def batching(*, images=False, **options):
    given = [torch.ones(1, 3, 64, 64) if images else torch.ones(1, 3)]
    return Batching(**{"batch_size": None, "inputs": given, "graph": True, "progress": False, "label": "x", **options})


def sizes_of(planned, total, work=lambda a, b: None):
    """The rows of each call."""
    sizes = []
    list(planned.run(total, lambda a, b: (sizes.append(b - a), work(a, b))[1]))
    assert sum(sizes) == total
    return sizes


def makes_1200_bytes_a_row(start, stop):
    return torch.ones(stop - start, 100) * torch.ones(100) + 1  # and 400 for both ones


@pytest.fixture
def budget(monkeypatch):
    return lambda **bytes_of: [monkeypatch.setitem(tw.memory_budget, *pair) for pair in bytes_of.items()]


def test_the_first_call_counts_what_a_row_costs(budget):
    budget(cpu=100 * 400)
    sizes = sizes_of(batching(), 400, makes_1200_bytes_a_row)
    assert sizes[0] == 4
    # 61 rows would fit, at 1300 / 2 bytes that a graph keeps of each, hence 56: eight calls, of equal size
    assert sizes[1:] == [50] * 4 + [49] * 4


def test_without_a_graph_few_tensors_are_held(budget):
    budget(cpu=100 * 400)
    assert max(sizes_of(batching(graph=False), 400, makes_1200_bytes_a_row)) == 24  # 4 × 400 bytes a row: 25 would fit


def test_the_budget_is_the_users(budget):
    found = []
    for bytes_of_a_call in (2**14, 2**15, 2**14):
        budget(cpu=bytes_of_a_call)
        found.append(sizes_of(batching(), 400, makes_1200_bytes_a_row))
    assert [max(sizes) for sizes in found] == [24, 44, 24]  # of 25, 50 and 25 that fit


@pytest.mark.parametrize("bytes_of_a_call", [0, -1, 1e9, "2 GiB", None])
def test_a_budget_that_is_none_is_refused(budget, bytes_of_a_call):
    budget(cpu=bytes_of_a_call)
    with pytest.raises(ValueError, match=r"memory_budget\['cpu'\]=.*: expected an int of at least 1"):
        sizes_of(batching(), 400)


def test_no_tensor_of_a_call_is_very_large(monkeypatch):
    monkeypatch.setattr("torchwhy.engine.run.batching.CPU_TENSOR", 47 * 400)
    sizes = sizes_of(batching(graph=False), 400, lambda a, b: torch.ones(b - a, 100))
    assert max(sizes) == 40  # of the 47 that would fit


def test_short_work_is_one_call():
    assert sizes_of(batching(images=True), 21) == [21]
    assert sizes_of(batching(images=True), 22) == [1, 21]
    assert sizes_of(batching(), 64) == [64]  # rows of three numbers
    assert sizes_of(batching(), 65) == [2, 63]
    assert sizes_of(batching(inputs=[torch.ones(1, 3, dtype=torch.long)]), 16) == [1, 15]  # tokens may become much


@pytest.mark.parametrize(
    "row", [torch.ones(1, 600, dtype=torch.long), torch.ones(1, 1, 104, 104, 104)], ids=["prompt", "volume"]
)
def test_of_large_rows_even_two_are_counted(row, budget):
    """Else the few steps of a long prompt would be one call, whatever memory it takes."""
    assert sizes_of(batching(inputs=[row]), 2) == [1, 1]
    assert sizes_of(batching(inputs=[row[..., :50]]), 2) == [2]
    budget(cpu=4 * 400)
    assert max(sizes_of(batching(inputs=[row], graph=True), 8, makes_1200_bytes_a_row)) == 2


def test_calls_are_cut_alike_however_long_they_take():
    """Neither a slow machine nor what ran before changes the rows of a call or what it runs under."""
    model, found = make("conv"), []
    for seconds in (0, 0.03, 0):
        planned, ran = batching(images=True, batch_size=10, model=model), []

        def work(start, stop, planned=planned, ran=ran, seconds=seconds):
            ran.append((start, stop, type(planned.plan.optimizations)))
            time.sleep(seconds)
            return convolves(start, stop)

        list(planned.run(100, work))
        found.append(ran)
    assert found[0] == found[1] == found[2]


def convolves(start, stop):
    """What a call of a small convolutional network would do."""
    x = torch.ones(stop - start, 3, 4, 4)
    for _ in range(4):
        x = torch.conv2d(x, torch.ones(3, 3, 3, 3), padding=1)
    return x


def test_calls_are_optimized_once_one_was_counted(optimized):
    planned, formats = batching(images=True, batch_size=10), []

    def work(start, stop):
        x = planned.format(torch.ones(2, 3, 4, 4))
        formats.append(x.is_contiguous(memory_format=torch.channels_last))
        with planned.plan.optimizations or nullcontext():
            return convolves(start, stop)

    with optimized():
        list(planned.run(30, work))
        assert formats == [False, True, True, True]
        assert planned.plan.optimizations.calls == 3
        with planned.without_optimizations():
            work(0, 2)
        work(0, 2)
        assert formats[4:] == [False, True]


def test_a_model_that_cannot_take_channels_last(optimized):
    seen, weight = [], torch.nn.Parameter(torch.eye(3).double()[..., None, None])

    def model(x):
        seen.append(x.is_contiguous())
        return torch.conv2d(x, weight).contiguous().square().sum((1, 2, 3)) + 0 * x.view(len(x), -1).sum(1)

    x = inputs("conv", 4)
    for check, trials in ((False, 0), (True, 4)):  # two rows alone and together, whether it draws at random
        seen.clear()
        with optimized():
            method = tw.IntegratedGradients(model, n_steps=20, check=check)
            torch.testing.assert_close(method.attribute(x), x.square())
        assert seen[trials:] == [True, False, True]  # counted, optimized, as it is


def test_methods_of_methods_share_what_was_found(optimized, monkeypatch):
    net, x = make("conv"), inputs("conv", 1)
    made, start = [], Batching.__init__
    monkeypatch.setattr(Batching, "__init__", lambda self, *a, **k: (made.append(self), start(self, *a, **k))[1])
    with optimized():
        tw.SmoothGrad(net, n_samples=200).attribute(x, 1)
    assert len({id(p.plan.optimizations) for p in made}) == 1
    assert len(made) > 2


def test_the_batch_size_of_the_whole_holds_inside():
    net, x, calls = make("conv"), inputs("conv", 1), []
    net.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    tw.SmoothGrad(net, of=tw.IntegratedGradients(net, n_steps=30), n_samples=10, batch_size=7).attribute(x, 1)
    assert max(calls) == 7


@each_case
def test_what_is_faster_changes_nothing(case, optimized):
    net, x = case.setup(n=16)
    expected = case.make(net).attribute(x, target=1, **case.data)
    with optimized():
        found = case.make(net).attribute(x, target=1, **case.data)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_precision(precision):
    net, x = make("conv", torch.float), inputs("conv", dtype=torch.float)
    seen = []
    net.conv2.register_forward_hook(lambda m, i, o: seen.append(o.dtype))
    found = tw.IntegratedGradients(net, precision=precision).attribute(x, 1)
    assert found.dtype == torch.float
    assert set(seen) == {torch.bfloat16 if precision == "bf16" else torch.half}
    exact = tw.IntegratedGradients(net).attribute(x, 1)
    assert torch.cosine_similarity(found.flatten(), exact.flatten(), 0) > 0.99


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_keeps_the_digits_of_the_scores(precision):
    pooled = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1))
    net = torch.nn.Sequential(pooled, torch.nn.Flatten(), torch.nn.Linear(8, 2))
    with torch.no_grad():
        net[-1].bias.fill_(300)  # where bfloat16 has steps of 2, and half of 1/4
    x = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    found, exact = (
        tw.Occlusion(net, sliding_window_shapes=4, strides=4, precision=p).attribute(x, 1) for p in (precision, None)
    )
    assert (found - exact).norm() < 0.1 * exact.norm()


def test_progress(capsys):
    net, x = make("conv"), inputs("conv")
    tw.IntegratedGradients(net, progress=True).attribute(x, 1)
    shown = capsys.readouterr().err
    assert "IntegratedGradients" in shown
    assert shown.endswith("\r"), "the bar is wiped out at its end"


GROWTH = """
import ctypes, torch, torchwhy as tw
from pathlib import Path
from torchvision.models import resnet18

def kib(name):
    return int(next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(name)).split()[1])

torch.set_num_threads(1)
net, x = resnet18().eval(), torch.randn(1, 3, 224, 224)
tw.Saliency(net).attribute(x, 1)
ctypes.CDLL("libc.so.6").malloc_trim(0)
Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
before = kib("VmRSS")
CALL
print(kib("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("call", ["IntegratedGradients(net, n_steps={})", "SmoothGrad(net, n_samples={})"])
def test_memory_does_not_grow_with_the_number_of_steps(call):
    few, many = (
        int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        # by 128 a call has the size that it keeps
        for code in (GROWTH.replace("CALL", f"tw.{call.format(n)}.attribute(x, 1)") for n in (128, 512))
    )
    assert many < 1.2 * few, (few, many)


def test_one_row_through_batch_norm_and_an_activation_in_place():
    norm = torch.nn.BatchNorm2d(4)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), norm, torch.nn.ReLU(inplace=True), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    net, x = net.double().eval(), torch.randn(2, 3, 8, 8, dtype=torch.double)
    both = tw.Saliency(net).attribute(x, 1)
    torch.testing.assert_close(tw.Saliency(net).attribute(x[:1], 1), both[:1])


class Tokens(torch.nn.Module):
    """Batch norm whose gradient comes transposed, the channels innermost, as from the tokens of a vision transformer."""

    def __init__(self, linear):
        super().__init__()
        self.conv, self.norm, self.scale = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.randn(36, 4)
        self.head = torch.nn.Linear(4, 4) if linear else None
        torch.nn.init.uniform_(self.norm.running_var, 0.5, 2)

    def forward(self, x):
        tokens = self.norm(torch.nn.functional.gelu(self.conv(x))).flatten(2).transpose(1, 2)
        return torch.nn.functional.gelu(self.head(tokens) if self.head else tokens * self.scale.to(x)).sum(1)


@pytest.mark.parametrize("function", [False, True])
@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize(
    "method",
    [
        tw.Saliency,
        tw.GuidedBackprop,
        tw.DeconvNet,
        tw.LRP,
        lambda m: tw.LRP(m, composite="epsilon"),
        lambda m: tw.LRP(m, composite={torch.nn.functional.batch_norm: "norm"}),
        lambda m: tw.LRP(m, composite={torch.nn.BatchNorm2d: "norm"} if isinstance(m, Tokens) else "epsilon"),
        tw.DeepLIFT,
        lambda m: tw.DeepLIFT(m, rule="reveal_cancel"),
        tw.ExcitationBackprop,
    ],
)
def test_batch_norm_of_one_row_with_a_transposed_gradient(method, function, linear):
    net = Tokens(linear).double().eval().requires_grad_(False)
    method = method((lambda x: net(x)) if function else net)
    x = torch.randn(3, 3, 8, 8, dtype=torch.double)
    torch.testing.assert_close(torch.cat([method.attribute(row[None], 1) for row in x]), method.attribute(x, 1))


@pytest.mark.parametrize("inner", [tw.Saliency, lambda m: tw.IntegratedGradients(m, n_steps=9)], ids=["one", "nine"])
def test_work_that_is_a_call_of_other_work_takes_its_rows(budget, inner):
    """What is counted once, in the outer calls or in the inner ones, is not counted again in each."""
    budget(cpu=2**20)
    calls, net, x = [], make("conv"), inputs("conv", 1)
    method = tw.SmoothGrad(net, of=inner(net), n_samples=200, generator=0)
    net.conv1.register_forward_hook(lambda m, i, o: calls.append(len(o)))
    usual = method.attribute(x, 1)
    calls.clear()
    torch.testing.assert_close(method.attribute(x, 1), usual)
    assert min(calls[2:]) > 8
