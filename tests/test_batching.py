"""The work is cut to fit: after running out of memory, in the faster format, in lower precision, with a bar."""

import subprocess
import sys

import pytest
import torch
from cases import each_case
from nets import inputs, make

import torchwhy as tw
from torchwhy.engine.run.batching import TRIAL_ROWS, Batching


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
    expected = case.make(net).attribute(x, target=1, **case.data)
    limited(net, 2)
    torch.testing.assert_close(case.make(net).attribute(x, target=1, **case.data), expected, rtol=1e-9, atol=1e-11)


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
        calls.append(1)
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="multiplied"):
        tw.IntegratedGradients(fails).attribute(torch.ones(4, 2))
    assert len(calls) == 1


def plan(*, images=False, **options):
    given = [torch.ones(1, 3, 4, 4) if images else torch.ones(1, 3)]
    return Batching(**{"batch_size": None, "inputs": given, "graph": True, "progress": False, "label": "x", **options})


def test_the_first_call_measures_what_a_row_costs(monkeypatch):
    monkeypatch.setattr("torchwhy.engine.run.batching.CPU_GRAPH", 100 * 400)
    sizes = []

    def work(start, stop):
        sizes.append(stop - start)
        return torch.ones(stop - start, 100) * torch.ones(100) + 1  # 3 × 400 bytes a row, halved

    list(plan().run(400, work))
    assert sizes[0] == TRIAL_ROWS // 2
    assert sum(sizes) == 400
    assert max(sizes[1:]) <= 64  # 66 would fit: whole multiples of the first call
    assert max(sizes[1:]) - min(sizes[1:]) <= 1


def test_no_tensor_of_a_call_is_very_large(monkeypatch):
    monkeypatch.setattr("torchwhy.engine.run.batching.CPU_TENSOR", 47 * 400)
    sizes = []
    list(plan(graph=False).run(400, lambda a, b: (sizes.append(b - a), torch.ones(b - a, 100))[1]))
    assert max(sizes) == 40  # of the 47 that would fit
    assert sum(sizes) == 400


def test_nothing_depends_on_a_clock_in_deterministic_mode(monkeypatch):
    monkeypatch.setattr("torchwhy.engine.run.batching.SLOW", 0.0)
    torch.use_deterministic_algorithms(True)
    try:
        sizes = []
        list(plan(images=True).run(4000, lambda a, b: sizes.append(b - a)))
    finally:
        torch.use_deterministic_algorithms(False)
    assert sizes == [TRIAL_ROWS // 2, 3996]


def test_channels_last_is_tried_and_kept_where_it_is_faster(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("torchwhy.engine.run.batching.SLOW", 0.0)
    monkeypatch.setattr("torchwhy.engine.run.batching._seconds", lambda device: clock[0])
    for speed, expected in ((0.5, True), (1.0, False)):
        p, formats = plan(images=True, batch_size=10), []

        def work(start, stop, p=p, formats=formats, speed=speed):
            formats.append(p.channels_last)
            clock[0] += (stop - start) * (speed if p.channels_last else 1.0)

        list(p.run(100, work))
        assert formats[:3] == [False, True, expected]
        assert p.channels_last is expected


@pytest.mark.parametrize(("speed", "remembered"), [(0.5, True), (0.93, False)])
def test_what_was_clearly_faster_is_remembered_of_the_model(monkeypatch, speed, remembered):
    clock, formats = [0.0], []
    monkeypatch.setattr("torchwhy.engine.run.batching.SLOW", 0.0)
    monkeypatch.setattr("torchwhy.engine.run.batching._seconds", lambda device: clock[0])

    def run(model, refuses=False, **kind):
        p = plan(images=True, batch_size=10, model=model, **kind)
        formats.clear()

        def work(start, stop):
            formats.append(p.channels_last)
            clock[0] += (stop - start) * (speed if p.channels_last else 1.0)
            if refuses and p.channels_last:
                raise RuntimeError("view size is not compatible")

        list(p.run(100, work))
        return formats[0]

    model, other = make("conv"), make("conv")
    assert not run(model)
    assert run(model) is remembered
    assert not run(other)
    assert not run(model, label="other work")
    if remembered:
        run(model, refuses=True)
        assert formats == [True] + [False] * 10
        assert not run(model)


def test_the_rows_of_a_call_are_remembered_too(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("torchwhy.engine.run.batching.SLOW", 0.0)
    monkeypatch.setattr("torchwhy.engine.run.batching._seconds", lambda device: clock[0])
    monkeypatch.setattr("torchwhy.engine.run.batching.CPU_TENSOR", 16 * 400)
    monkeypatch.setattr("torchwhy.engine.run.batching.CPU_TENSOR_LAST", 32 * 400)
    model = make("conv")

    def run(graph=True, most=1000, **options):
        p, sizes = plan(images=True, model=model, graph=graph, **options), []

        def work(start, stop):
            if stop - start > most:
                raise MemoryError
            sizes.append(stop - start)
            clock[0] += (stop - start) * (0.5 if p.channels_last else 1.0)
            return torch.ones(stop - start, 100)

        list(p.run(140, work))
        return sizes

    assert run() == [4, 8, 32, 32, 32, 32]
    assert run() == [28, 28, 28, 28, 28]  # no trial, nothing measured
    assert run(graph=False) == [4, 8, *[16] * 8]  # without a backward pass, only what was large before
    assert run(graph=False, batch_size=20) == [20] * 7
    assert max(run(most=20)) == 14  # less memory now: forgotten, and measured anew
    assert run() == [4, 8, 32, 32, 32, 32]
    assert run(kind="bf16")[:2] == [4, 8]
    assert run(inputs=[torch.ones(1, 3, 4, 4).double()])[:2] == [4, 8]


def test_a_model_that_cannot_take_channels_last(monkeypatch):
    monkeypatch.setattr("torchwhy.engine.run.batching.SLOW", 0.0)
    monkeypatch.setattr("torchwhy.engine.run.batching.FIRST_CUDA", 8)
    seen = []

    def model(x):
        seen.append(x.is_contiguous())
        return x.view(len(x), -1).square().sum(1)

    x = inputs("conv", 4)
    torch.testing.assert_close(tw.IntegratedGradients(model, n_steps=20).attribute(x), x.square())
    assert False in seen
    assert seen[-1]


@pytest.mark.parametrize("first", [5.0, 1.0])
def test_shortcuts_are_tried_and_kept(monkeypatch, first):
    monkeypatch.setattr("torchwhy.engine.run.batching.SLOW", 3.0)
    clock, taken = [0.0], []
    monkeypatch.setattr("torchwhy.engine.run.batching._seconds", lambda device: clock[0])
    p = plan()

    def work(start, stop):
        taken.append(p.fast)
        clock[0] += first

    list(p.run(4 * TRIAL_ROWS, work))
    assert taken == [False, first > 3]


def test_short_work_is_tried_with_few_rows(monkeypatch):
    monkeypatch.setattr("torchwhy.engine.run.batching.SLOW", 0.0)
    sizes = []
    list(plan(images=True).run(16, lambda a, b: sizes.append(b - a)))
    assert sizes == [2, 8, 6]


def test_methods_of_methods_take_the_shortcuts_of_the_whole(monkeypatch):
    monkeypatch.setattr("torchwhy.engine.run.batching.SLOW", 0.0)
    net, x = make("conv"), inputs("conv", 1)
    made, fast = [], []
    start, run = Batching.__init__, Batching.run
    monkeypatch.setattr(Batching, "__init__", lambda self, *a, **k: (made.append(self), start(self, *a, **k))[1])
    monkeypatch.setattr(Batching, "run", lambda self, *a: (fast.append(self.fast), run(self, *a))[1])
    tw.SmoothGrad(net, n_samples=200).attribute(x, 1)
    assert len({p.shortcuts for p in made}) == 1
    assert fast[-1]
    assert not fast[1]


@each_case
def test_what_is_faster_changes_nothing(case, monkeypatch):
    net, x = case.setup(n=16)
    expected = case.make(net).attribute(x, target=1, **case.data)
    monkeypatch.setattr("torchwhy.engine.run.batching.SLOW", 0.0)
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
    assert "IntegratedGradients" in capsys.readouterr().err


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
def test_work_that_is_a_call_of_other_work_takes_its_rows(monkeypatch, inner):
    """What the outer calls cost was measured with the inner ones in them: those are not measured again in each."""
    monkeypatch.setattr("torchwhy.engine.run.batching.CPU_GRAPH", 2**20)
    calls, net, x = [], make("conv"), inputs("conv", 1)
    method = tw.SmoothGrad(net, of=inner(net), n_samples=200, generator=0)
    usual = method.attribute(x, 1)
    net.conv1.register_forward_hook(lambda m, i, o: calls.append(len(o)))
    torch.testing.assert_close(method.attribute(x, 1), usual)
    assert min(calls[2:]) > 8
