"""A target that is given ``(output, rows)`` knows which of the inputs it scores, however a method repeats and cuts them."""

import functools
from collections import OrderedDict
from dataclasses import make_dataclass
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from cases import PATCHES, each_case
from nets import inputs, make
from torch import nn

import torchwhy as tw
import torchwhy.metrics as M
from torchwhy.engine.structure import index_output

CLOSE = {"rtol": 1e-9, "atol": 1e-11}
WEIGHTS = torch.tensor([[1.0, -2, 0, 1], [0, 3, 1, 0], [-1, 0, 2, 1]], dtype=torch.double)
ONLY_CLASSES = (tw.FinerCAM,)  # explain a class, and no other target


def by_row(out, rows):
    """Each row weighs the outputs in its own way."""
    return (out * WEIGHTS[rows]).sum(1)


@pytest.mark.parametrize(
    "batch_sizes", [(None, 2), pytest.param((1, 3), marks=pytest.mark.slow)], ids=["any", "one and all"]
)
@each_case
def test_every_method_tells_a_target_its_rows(case, batch_sizes):
    if not case.method.rows_are_independent or case.method in ONLY_CLASSES:
        pytest.skip("the batch is what it draws from, or the target is a class")
    net, x = case.setup()
    data, wrapped = dict(case.data), case.wrap is not None
    if case.method.uses_feature_mask is True and not wrapped:  # few features, for speed
        data["feature_mask"] = PATCHES
    each = [lambda out, w=w: (out * w).sum(1) for w in WEIGHTS]
    expected = torch.cat([case.make(net).attribute(x[i : i + 1], each[i], **data) for i in range(3)])
    for batch_size in (None,) if wrapped else batch_sizes:
        found = case.make(net, batch_size=batch_size).attribute(x, target=by_row, **data)
        torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
@pytest.mark.parametrize(
    "method",
    [tw.Saliency, tw.SmoothGrad, tw.IntegratedGradients, tw.LRP, tw.DeepLIFT, tw.FeatureAblation, tw.ShapleySampling],
    ids=lambda m: m.__name__,
)
def test_every_size_of_a_call_tells_a_target_its_rows(method, batch_size):
    net, x = make("conv"), inputs("conv")
    options = {"generator": 0, "n_samples": 6} if hasattr(method, "generator") else {}
    data = {"feature_mask": PATCHES} if method.uses_feature_mask is True else {}
    each = [lambda out, w=w: out @ w for w in WEIGHTS]
    expected = torch.cat([method(net, **options).attribute(x[i : i + 1], each[i], **data) for i in range(3)])
    found = method(net, batch_size=batch_size, **options).attribute(x, by_row, **data)
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("method", [tw.Saliency, tw.IntegratedGradients, tw.FeatureAblation, tw.GradCAM])
def test_a_list_of_callables_is_one_for_each_row(method):
    net, x = make("conv"), inputs("conv")
    options = {tw.GradCAM: {"layer": "conv2"}, tw.IntegratedGradients: {"n_steps": 6}}.get(method, {})
    data = {"feature_mask": PATCHES} if method is tw.FeatureAblation else {}
    each = [lambda o, w=w: o @ w for w in WEIGHTS]
    expected = torch.cat([method(net, **options).attribute(x[i : i + 1], each[i], **data) for i in range(3)])
    for batch_size in (None, 1, 2):
        found = method(net, batch_size=batch_size, **options).attribute(x, each, **data)
        torch.testing.assert_close(found, expected, **CLOSE)


def test_a_list_may_mix_indices_callables_and_those_that_take_rows():
    net, x = make("conv"), inputs("conv")
    seen = []

    def last(out, rows):
        seen.append(rows.tolist())
        return out[:, 3]

    found = tw.IntegratedGradients(net, n_steps=4).attribute(x, [2, lambda o: o[:, 0], last])
    torch.testing.assert_close(found, tw.IntegratedGradients(net, n_steps=4).attribute(x, [2, 0, 3]), **CLOSE)
    assert {r for rows in seen for r in rows} == {2}


def test_a_callable_of_a_row_is_given_no_other_row():
    """Else what it does to the others, a logarithm of a negative number, would come back as NaN."""
    x = torch.tensor([[2.0, -1.0], [-1.0, 3.0]])
    found = tw.Saliency(nn.Identity()).attribute(x, [lambda o: o[:, 0].log(), lambda o: o[:, 1].log()])
    torch.testing.assert_close(found, torch.tensor([[0.5, 0], [0, 1 / 3]]))


def test_neurons_are_told_their_rows():
    net, x = make("conv"), inputs("conv")
    weights = torch.randn(3, 6, 8, 8, dtype=torch.double)
    found = tw.SmoothGrad(net, n_samples=3, generator=0, batch_size=2, of=tw.Saliency(net)).attribute(
        x, tw.Neuron("conv2", lambda a, rows: (a * weights[rows]).sum((1, 2, 3)))
    )
    for i in range(3):
        one = tw.Neuron("conv2", lambda a, i=i: (a * weights[i]).sum((1, 2, 3)))
        expected = tw.SmoothGrad(net, n_samples=3, generator=0, of=tw.Saliency(net)).attribute(x[i : i + 1], one)
        torch.testing.assert_close(found[i : i + 1], expected, **CLOSE)


@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_metrics_tell_a_target_its_rows(batch_size):
    net, x = make("conv"), inputs("conv")
    a = tw.InputXGradient(net).attribute(x, by_row)
    together = M.deletion(net, x, a, by_row, steps=5, batch_size=batch_size).scores
    again = M.sensitivity_max(tw.Saliency(net, batch_size=batch_size), x, by_row, n_samples=3)
    for i in range(3):
        target = lambda out, w=WEIGHTS[i]: out @ w  # noqa: E731
        torch.testing.assert_close(
            together[i : i + 1], M.deletion(net, x[i : i + 1], a[i : i + 1], target, steps=5).scores
        )
        torch.testing.assert_close(
            again[i : i + 1], M.sensitivity_max(tw.Saliency(net), x[i : i + 1], target, n_samples=3)
        )


def test_comparisons_tell_a_target_its_rows():
    net, x = make("conv"), inputs("conv")
    methods = {"gradient": tw.Saliency(net), "ablation": tw.FeatureAblation(net)}
    table = tw.compare(net, x, by_row, methods, metrics={"deletion": M.deletion})
    same = tw.compare(net, x, [lambda o, w=w: o @ w for w in WEIGHTS], methods, metrics={"deletion": M.deletion})
    assert str(table.values) == str(same.values)


def test_adaptive_steps_of_some_rows_only():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 2, 3, padding=1)).double()
    x = torch.randn(2, 1, 8, 8).double()
    x[0] *= 0.01  # done after a few steps, the other row goes on alone
    region = torch.zeros(2, 8, 8).double()
    region[0, :4] = region[1, 4:] = 1
    found = tw.IntegratedGradients(net, tolerance=1e-3, batch_size=2).attribute(
        x, lambda out, rows: (out[:, 1] * region[rows]).sum((1, 2))
    )
    for i in range(2):
        expected = tw.IntegratedGradients(net, tolerance=1e-3).attribute(
            x[i : i + 1], lambda out, i=i: (out[:, 1] * region[i]).sum((1, 2))
        )
        torch.testing.assert_close(found[i : i + 1], expected, **CLOSE)


def test_rows_of_shapes_of_their_own_keep_their_numbers():
    class Pooled(nn.Module):
        """A list of pictures (1, L, 2) → (M, 3), through a layer."""

        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 3)

        def forward(self, rows):
            return torch.tanh(self.layer(torch.stack([torch.tanh(row).sum((0, 1)) for row in rows])))

    torch.manual_seed(0)
    net, rows, weights = Pooled(), [torch.randn(1, length, 2) for length in (3, 2, 3, 4)], torch.randn(4, 3)
    for target, one in (
        (lambda o, r: (o * weights[r]).sum(1), lambda o, w: o @ w),
        (tw.Neuron("layer", lambda a, r: (a * weights[r]).sum(1)), lambda a, w: a @ w),
    ):
        found = tw.Saliency(net, signed=True).attribute(rows, target)
        for row, part, w in zip(rows, found, weights):
            alone = functools.partial(one, w=w)
            alone = tw.Neuron("layer", alone) if isinstance(target, tw.Neuron) else alone
            torch.testing.assert_close(part, tw.Saliency(net, signed=True).attribute([row], alone)[0])
    each = tw.Saliency(net).attribute_each(rows, [0, 1])
    assert all(map(torch.equal, each[1], tw.Saliency(net).attribute(rows, 1)))
    with pytest.raises(ValueError, match="list them"):
        tw.Saliency(net).explain_each(rows, "all")


# ---- which callables take rows


class Two(nn.Module):
    def forward(self, out, rows):
        return out[:, 0] * (rows + 1)


def with_more(out, rows, *more, scale=1.0, **other):
    return out[:, 0] * (rows + 1) * scale


@pytest.mark.parametrize(
    ("function", "rows"),
    [
        (lambda out, rows: out[:, 0] * (rows + 1), True),
        (with_more, True),
        (Two(), True),
        (Two().forward, True),
        (lambda out: out[:, 0], False),
        (lambda out, i=0: out[:, i], False),
        (lambda *outs: outs[0][:, 0], False),
        (lambda out, *, scale=1.0: out[:, 0] * scale, False),
        (nn.Flatten(0), False),
        (torch.flatten, False),
    ],
    ids=["two", "more", "module", "method", "one", "default", "star", "keyword", "torch module", "torch function"],
)
def test_a_second_parameter_without_a_default_is_the_rows(function, rows):
    x = torch.ones(3, 1)
    found = tw.Saliency(nn.Identity()).attribute(x, function)
    assert found[:, 0].tolist() == ([1, 2, 3] if rows else [1, 1, 1])


@pytest.mark.parametrize(
    "function",
    [lambda: 0, lambda a, b, c: a, lambda out, *, rows: out, Two.forward],
    ids=["none", "three", "keyword", "unbound"],
)
def test_another_arity_is_refused(function):
    with pytest.raises(TypeError, match=r"takes \(output\) or \(output, rows\)"):
        tw.Saliency(nn.Identity()).attribute(torch.ones(3, 1), function)


# ---- errors


def test_a_callable_that_counts_rows_is_told_what_it_overlooked():
    net, x = make("smooth"), inputs("smooth", 3)
    labels = torch.tensor([0, 1, 2])
    counted = lambda out: out.softmax(1)[torch.arange(3), labels]  # noqa: E731
    with pytest.raises(IndexError, match=r"rows of one call.*target\(output, rows\)"):
        tw.IntegratedGradients(net, n_steps=5, batch_size=2).attribute(x, counted)
    with pytest.raises(RuntimeError, match=r"size of tensor.*target\(output, rows\)"):
        tw.IntegratedGradients(net, n_steps=5).attribute(x, lambda out: (out * WEIGHTS[:, :3]).sum(1))
    with pytest.raises(ValueError, match=r"shape \(1,\); it returned \(3,\).*target\(output, rows\)"):
        tw.Saliency(net, batch_size=1).attribute(x, lambda out: (out * WEIGHTS[:, :3]).sum(1))
    with pytest.raises(IndexError, match=r"^index 3 is out of bounds"):  # its own business
        tw.Saliency(net).attribute(x, lambda out, rows: out[:, 3])


def test_a_callable_that_counts_rows_is_given_no_others_of_their_number():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 2, 3, padding=1)).double()
    x = torch.randn(2, 1, 8, 8).double()
    x[0] *= 0.01  # done after a few steps: the calls of two rows are then of the other one, twice
    region = torch.zeros(2, 8, 8).double()
    region[0, :4] = region[1, 4:] = 1
    counted = lambda out: (out[:, 1] * region).sum((1, 2))  # noqa: E731
    by_row = lambda out, rows: (out[:, 1] * region[rows]).sum((1, 2))  # noqa: E731
    with pytest.raises(ValueError, match=r"scores 2 rows and not 3.*inputs \[(0, 0|1, 1)\].*target\(output, rows\)"):
        tw.IntegratedGradients(net, tolerance=1e-3, batch_size=2).attribute(x, counted)
    in_order = tw.IntegratedGradients(net, n_steps=4, batch_size=2)  # each call has the two rows
    torch.testing.assert_close(in_order.attribute(x, counted), in_order.attribute(x, by_row))
    noisy = tw.SmoothGrad(net, n_samples=3, batch_size=2, generator=0)
    torch.testing.assert_close(noisy.attribute(x, counted), noisy.attribute(x, by_row))


@pytest.mark.parametrize(
    "target",
    [
        lambda out: out.squeeze()[:, 1],  # fits no single row
        lambda out: out[:, 1] - torch.tensor([0.5]).double(),
        lambda out: (out * WEIGHTS[0, :3]).sum(1),  # as many classes as rows
        tw.Neuron("first", lambda a: a[:, 0]),
    ],
)
def test_a_callable_that_counts_no_rows_scores_them_in_any_order(target):
    net, x = make("smooth").double(), inputs("smooth", 3).double()
    method = tw.IntegratedGradients(net, tolerance=1e-4, batch_size=3)  # calls of three rows, in any order
    found = method.attribute(x, target)
    given = target if isinstance(target, tw.Neuron) else lambda out, rows: target(out)
    torch.testing.assert_close(found, method.attribute(x, given), rtol=0, atol=0)


def test_the_advice_hides_no_lack_of_memory():
    def full(out):
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError, match=r"^out of memory$"):
        tw.Saliency(make("smooth"), batch_size=1).attribute(inputs("smooth"), full)


@pytest.mark.parametrize("n", [2, 4])
def test_as_many_callables_as_rows(n):
    with pytest.raises(ValueError, match=f"{n} targets given for 3 rows"):
        tw.Saliency(make("smooth")).attribute(inputs("smooth"), [lambda o: o[:, 0]] * n)


# ---- parts of outputs


class Pair(NamedTuple):
    logits: torch.Tensor
    name: str


Data = make_dataclass("Data", ["logits", "count"], frozen=True)


@pytest.mark.parametrize(
    ("make_output", "read"),
    [
        (lambda t: t, lambda o: o),
        (lambda t: {"logits": t, "n": 4}, lambda o: o["logits"]),
        (lambda t: OrderedDict(a=(t, t + 1)), lambda o: o["a"][0]),
        (lambda t: (t, "x"), lambda o: o[0]),
        (lambda t: Pair(t, "x"), lambda o: o.logits),
        (lambda t: SimpleNamespace(logits=t, cache=object()), lambda o: o.logits),
        (lambda t: Data(t, 4), lambda o: o.logits),
        (lambda t: [{"boxes": row} for row in t], lambda o: torch.stack([d["boxes"] for d in o])),
    ],
    ids=["tensor", "dict", "nested", "tuple", "named tuple", "object", "dataclass", "detector"],
)
def test_the_part_of_an_output_that_belongs_to_rows(make_output, read):
    t = torch.arange(12.0).view(4, 3)
    output, at = make_output(t), torch.tensor([2, 0])
    found = index_output(output, at, 4)
    assert type(found) is type(output)
    assert read(found).equal(t[at])
    assert read(output).equal(t)


def test_outputs_of_transformers_are_cut_into_rows():
    outputs = pytest.importorskip("transformers.modeling_outputs")
    whole = outputs.QuestionAnsweringModelOutput(start_logits=torch.arange(6.0).view(3, 2), end_logits=torch.ones(3, 2))
    part = index_output(whole, torch.tensor([1]), 3)
    assert part.start_logits.tolist() == part["start_logits"].tolist() == [[2, 3]]
    assert whole.start_logits.shape == (3, 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda m: tw.IntegratedGradients(m, n_steps=8),
        lambda m: tw.Saliency(m, batch_size=10),
        lambda m: tw.Saliency(m, batch_size=1),
        lambda m: tw.KernelSHAP(m),
        lambda m: tw.GradientSHAP(m, generator=0),
        lambda m: tw.LIME(m, generator=0, n_samples=40),
    ],
    ids=["path", "pieces", "one by one", "coalitions", "draws", "LIME"],
)
def test_what_fits_any_number_of_rows_and_goes_by_their_places_is_refused(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, x = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).eval(), torch.rand(24, 4)
    y = torch.arange(24) % 3
    repeated = lambda out: out[torch.arange(len(out)), y.repeat(len(out) // 24 + 1)[: len(out)]]  # noqa: E731
    with pytest.raises(ValueError, match="scores a row by its place in the call, as if a call had all 24 inputs"):
        make(net).attribute(x, repeated)
    with pytest.raises(ValueError, match="by its place in the call"):
        make(net).attribute(x, lambda out: out[:, 1] * torch.arange(len(out)) if len(out) > 1 else out[:, 1] * y[0])
    own = lambda out, rows: out[torch.arange(len(out)), y[rows]]  # noqa: E731
    torch.testing.assert_close(make(net).attribute(x, own), make(net).attribute(x, y))


def test_in_order_what_goes_by_places_is_right():
    net, x, y = nn.Linear(4, 3).eval(), torch.rand(9, 4), torch.arange(9) % 3
    found = tw.Saliency(net).attribute(x, lambda out: out[torch.arange(len(out)), y[: len(out)]])
    torch.testing.assert_close(found, tw.Saliency(net).attribute(x, y))


def test_a_target_may_write_to_the_numbers_of_its_rows():
    x = torch.rand(3, 4, dtype=torch.double)

    def writes(out, rows):
        return (out * WEIGHTS[rows.mul_(1)]).sum(1) + 0 * rows.fill_(0)

    for _ in range(2):
        found = tw.Saliency(lambda z: z * 2).attribute(x, writes)
        torch.testing.assert_close(found, 2 * WEIGHTS.abs())
