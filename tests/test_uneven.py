"""Inputs whose rows have shapes of their own: each row gets what it gets alone."""

import functools

import pytest
import torch
from cases import CASES, PATCHES, thirds
from nets import make
from torch import nn

import torchwhy as tw

CLOSE = {"rtol": 1e-9, "atol": 1e-11}
SHAPES = [(8, 8), (6, 8), (8, 8)]
MASKS = [PATCHES, PATCHES[:6], PATCHES]


def pictures(dtype=torch.double):
    g = torch.Generator().manual_seed(1)
    return [torch.randn(3, *shape, generator=g).to(dtype) for shape in SHAPES]


def of_lists(net):
    """The network, for lists of pictures, as detectors are."""
    base = type(net)

    class OfLists(base):
        def forward(self, images):
            assert isinstance(images, list)
            return base.forward(self, torch.stack(images))

    net.__class__ = OfLists
    return net


@pytest.mark.parametrize("case", [c for c in CASES if c.wrap is not thirds], ids=str)
def test_a_list_of_pictures_gives_what_each_gives_alone(case):
    images, data = pictures(), {"feature_mask": MASKS} if case.data else {}
    net, target = of_lists(make(case.net)), [2, 0, 3]
    if not case.method.rows_are_independent:
        with pytest.raises(ValueError, match="depends on the others, and these have several shapes"):
            case.make(net).attribute(images, target, **data)
        return
    found = case.make(net).attribute(images, target, **data)
    assert isinstance(found, list)
    plain = case.make(make(case.net))
    for i, image in enumerate(images):
        alone = plain.attribute(image[None], target[i], **({"feature_mask": MASKS[i]} if data else {}))
        torch.testing.assert_close(found[i], alone[0], **CLOSE)
    if not case.maps and case.layer is None and case.shape is None:
        assert [t.shape for t in found] == [t.shape for t in images]


class Packed(nn.Module):
    """Steps of several series behind one another (total, 3), and their lengths (N,) → (N, 4)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(3, 5), nn.Linear(5, 4)

    def forward(self, x, lengths):
        assert len(x) == int(lengths.sum())
        row = torch.arange(len(lengths)).repeat_interleave(lengths)
        place = torch.cat([torch.linspace(0, 1, n) for n in lengths.tolist()])
        h = torch.tanh(self.a(x)) * (1 + place[:, None])
        return self.b(torch.zeros(len(lengths), 5).to(h).index_add(0, row, h))


SIZES = [2, 4, 2, 3]
METHODS = [c for c in CASES if c.net == "conv" and c.layer is None and not (c.maps or c.shape) and c.wrap is not thirds]
# those that need pictures, other rows or a layer of the other network
SKIPPED = (tw.BlurIG, tw.GuidedGradCAM, tw.Occlusion, tw.FeaturePermutation, tw.NeuronConductance)


def series():
    g = torch.Generator().manual_seed(3)
    return torch.randn(sum(SIZES), 3, generator=g).double(), torch.tensor(SIZES)


@pytest.mark.filterwarnings("ignore:LIME")
@pytest.mark.parametrize("case", [c for c in METHODS if c.method not in SKIPPED], ids=str)
def test_a_ragged_input_gives_what_each_row_gives_alone(case):
    net, (x, lengths) = Packed().double(), series()
    method = case.make(net, low=-5.0, high=5.0) if "low" in case.options else case.make(net)
    target = [1, 0, 3, 2]
    found = method.attribute(tw.Ragged(x, SIZES), target, additional_forward_args=lengths)
    assert isinstance(found, tw.Ragged)
    assert found.tensor.shape == x.shape
    assert tuple(found.sizes) == tuple(SIZES)
    for i, part in enumerate(x.split(SIZES)):
        alone = method.attribute(tw.Ragged(part, [len(part)]), target[i], additional_forward_args=lengths[[i]])
        torch.testing.assert_close(found[i], alone.tensor, **CLOSE)


@pytest.mark.parametrize("batch_size", [None, 1, 3])
def test_a_ragged_input_is_what_a_row_of_the_model_gives(batch_size):
    net, (x, lengths) = Packed().double(), series()
    e = tw.IntegratedGradients(net, n_steps=16, batch_size=batch_size).explain(
        {"x": tw.Ragged(x, SIZES)}, 1, additional_forward_args={"lengths": lengths}
    )
    starts = [0, 2, 6, 8]
    for i, (start, size) in enumerate(zip(starts, SIZES)):
        one = lengths[[i]]

        def of_row(z, one=one):
            return net(z.flatten(0, 1), one.expand(len(z)))

        alone = tw.IntegratedGradients(of_row, n_steps=16).explain(x[None, start : start + size], 1)
        torch.testing.assert_close(e.attributions["x"][i], alone.attributions[0], **CLOSE)
        torch.testing.assert_close(e.completeness_gap[i], alone.completeness_gap[0])
        torch.testing.assert_close(e.scores[i], alone.scores[0])
        torch.testing.assert_close(e.base_scores[i], alone.base_scores[0])
    dropped = tw.ExactShapley(net).attribute(
        tw.Ragged(x[:2], [2]), 1, baselines=0.5, additional_forward_args=lengths[:1]
    )
    change = net(x[:2], lengths[:1]) - net(torch.full_like(x[:2], 0.5), lengths[:1])
    torch.testing.assert_close(dropped.tensor.sum(), change[0, 1].detach())


STEP = torch.tensor([0.1, 0.2, 0.3]).double()
BASELINES = {
    "a number": (0.5, lambda rows: [torch.full_like(r, 0.5) for r in rows]),
    "by name": ("mean", lambda rows: [r.mean(1, keepdim=True).expand_as(r) for r in rows]),
    "of a step": (STEP, lambda rows: [STEP.expand_as(r) for r in rows]),
    "ragged": (lambda x: tw.Ragged(x.flip(0), SIZES), lambda rows: torch.cat(rows).flip(0).split(SIZES)),
    "behind one another": (lambda x: x.flip(0), lambda rows: torch.cat(rows).flip(0).split(SIZES)),
    "a list": (lambda x: list(x.flip(0).split(SIZES)), lambda rows: torch.cat(rows).flip(0).split(SIZES)),
}


@pytest.mark.parametrize("kind", BASELINES)
@pytest.mark.parametrize("name", ["IntegratedGradients", "FeatureAblation", "DeepLIFT", "ExpectedGradients"])
def test_baselines_of_ragged_rows(name, kind):
    net, (x, lengths) = Packed().double(), series()
    given, right = BASELINES[kind]
    given = given(x) if callable(given) else given
    if name == "ExpectedGradients" and isinstance(given, torch.Tensor) and given.dim() == 1:
        pytest.skip("rows to draw from")
    options = {"n_samples": 4, "generator": 0} if name == "ExpectedGradients" else {}
    method = getattr(tw, name)(net, **options)
    found = method.attribute(tw.Ragged(x, SIZES), 1, baselines=given, additional_forward_args=lengths)
    for i, (row, base) in enumerate(zip(x.split(SIZES), right(list(x.split(SIZES))))):
        one = tw.Ragged(row, [len(row)])
        alone = method.attribute(one, 1, baselines=[base], additional_forward_args=lengths[[i]])
        torch.testing.assert_close(found[i], alone.tensor, **CLOSE)


@pytest.mark.parametrize("method", [tw.FeatureAblation, tw.ExactShapley, tw.KernelSHAP], ids=lambda m: m.__name__)
def test_features_of_ragged_rows(method):
    net, (x, lengths) = Packed().double(), series()
    steps = torch.cat([torch.arange(n) for n in SIZES])[:, None]
    options = {"generator": 0, "n_samples": 20} if method is tw.KernelSHAP else {}
    masks = (tw.Ragged(steps.expand(-1, 3), SIZES), steps.expand(-1, 3), list(steps.split(SIZES)))
    found = [
        method(net, **options).explain(tw.Ragged(x, SIZES), 1, feature_mask=m, additional_forward_args=lengths)
        for m in masks
    ]
    for e in found[1:]:
        assert torch.equal(e.attributions.tensor, found[0].attributions.tensor)
    assert found[0].attributions.tensor.std(1).max() < 1e-12
    assert [len(v) for v in found[0].features()] == SIZES
    for i, (row, values) in enumerate(zip(found[0].attributions, found[0].features())):
        torch.testing.assert_close(values, row[:, 0])
        if method is tw.FeatureAblation:
            part = x.split(SIZES)[i]
            right = [
                net(part, lengths[[i]])[0, 1] - net(part * (torch.arange(len(part)) != j)[:, None], lengths[[i]])[0, 1]
                for j in range(len(part))
            ]
            torch.testing.assert_close(values, torch.stack(right).detach())
    shared = torch.zeros(3, dtype=torch.long)  # of each step: one feature
    e = method(net, **options).explain(tw.Ragged(x, SIZES), 1, feature_mask=shared, additional_forward_args=lengths)
    assert [len(v) for v in e.features()] == [1] * 4


class Graph(nn.Module):
    """Nodes (n, 3), edges (2, E) and the graph of each node → one score for each graph, or node."""

    def __init__(self, by_node=False):
        super().__init__()
        torch.manual_seed(0)
        self.l, self.o, self.by_node = nn.Linear(3, 5), nn.Linear(5, 2), by_node

    def forward(self, x, edges, graph):
        h = torch.relu(self.l(x.index_add(0, edges[1], x[edges[0]])))
        out = self.o(h.index_add(0, edges[1], h[edges[0]]))
        return out if self.by_node else torch.zeros(int(graph.max()) + 1, 2).to(out).index_add(0, graph, out)


NODES, EDGES = [4, 3], torch.tensor([[0, 1, 2, 3, 1, 4, 5, 6], [1, 2, 3, 0, 0, 5, 6, 4]])
GRAPH = torch.tensor([0, 0, 0, 0, 1, 1, 1])


@functools.cache
def gradients_on_the_way():
    """Nodes, and their integrated gradients along 200 steps."""
    net, x, right = Graph().double(), torch.randn(7, 3).double(), 0
    for k in range(200):
        z = (x * (k + 0.5) / 200).requires_grad_()
        right = right + x * torch.autograd.grad(net(z, EDGES, GRAPH)[:, 1].sum(), z)[0] / 200
    return x, right


@pytest.mark.parametrize(
    ("by_name", "batch_size"),
    [
        (True, None),
        (True, 1),
        (False, 3),
        *(pytest.param(*o, marks=pytest.mark.slow) for o in ((True, 3), (False, None), (False, 1))),
    ],
)
def test_graphs_as_rows(by_name, batch_size):
    net, (x, right) = Graph().double(), gradients_on_the_way()
    further = {
        "edges": tw.Ragged(EDGES, [5, 3], points_into="x"),
        "graph": tw.Ragged(GRAPH, NODES, points_into="rows"),
    }
    given = (tw.Ragged(x, NODES), tuple(further.values())) if not by_name else ({"x": tw.Ragged(x, NODES)}, further)
    method = tw.IntegratedGradients(net, n_steps=200, batch_size=batch_size)
    e = method.explain(given[0], 1, additional_forward_args=given[1])
    found = e.attributions["x"] if by_name else e.attributions
    torch.testing.assert_close(found.tensor, right, rtol=1e-3, atol=1e-3)
    assert e.completeness_gap.max() < 0.01


def test_the_score_of_the_nodes_of_a_graph():
    net, x = Graph(by_node=True).double(), torch.randn(7, 3).double()
    further = {"edges": tw.Ragged(EDGES, [8], points_into="x"), "graph": tw.Ragged(GRAPH, [7])}

    def node_2(output, rows):
        return output.view(len(rows), 7, 2)[:, 2, 1]

    found = tw.Saliency(net, signed=True).attribute({"x": tw.Ragged(x, [7])}, node_2, additional_forward_args=further)
    leaf = x.clone().requires_grad_()
    (right,) = torch.autograd.grad(net(leaf, EDGES, GRAPH)[2, 1], leaf)
    torch.testing.assert_close(found["x"].tensor, right)


def test_several_inputs_of_several_forms():
    def net(x, images, z):
        return torch.stack([i.mean() for i in images])[:, None] * x.view(len(z), -1, 3).sum(1) * z

    x, z = torch.randn(6, 3).double(), torch.randn(3, 3).double()
    images = pictures()
    given = {"x": tw.Ragged(x, [2, 2, 2]), "images": images, "z": z}
    for method in (tw.Saliency(net, signed=True), tw.IntegratedGradients(net, n_steps=8)):
        e = method.explain(given, [0, 1, 2])
        assert isinstance(e.attributions["x"], tw.Ragged)
        assert [t.shape for t in e.attributions["images"]] == [t.shape for t in images]
        assert e.attributions["z"].shape == z.shape
        as_tuple = method.attribute(tuple(given.values()), [0, 1, 2])
        assert torch.equal(as_tuple[2], e.attributions["z"])
    found = tw.InputXGradient(net).attribute(given, [0, 1, 2])
    score = net(x, images, z)[torch.arange(3), torch.arange(3)]
    torch.testing.assert_close(found["z"].sum(1), score)
    torch.testing.assert_close(torch.stack([r.sum() for r in found["x"]]), score)
    torch.testing.assert_close(torch.stack([r.sum() for r in found["images"]]), score)


def test_methods_of_methods_and_several_targets():
    net, (x, lengths) = Packed().double(), series()
    given, more = tw.Ragged(x, SIZES), {"additional_forward_args": lengths}
    inner = tw.IntegratedGradients(net, n_steps=8)
    torch.testing.assert_close(
        tw.Processed(net, of=inner).attribute(given, 1, **more).tensor, inner.attribute(given, 1, **more).tensor
    )
    smooth = tw.SmoothGrad(net, of=inner, n_samples=3, generator=0).attribute(given, 1, **more)
    assert smooth.tensor.shape == x.shape
    for method in (tw.Saliency(net), tw.FeatureAblation(net)):
        each = method.attribute_each(given, [0, 1], **more)
        for t, found in enumerate(each):
            assert torch.equal(found.tensor, method.attribute(given, t, **more).tensor)


def test_a_list_of_arguments_stays_one():
    def two(a, b):
        return a.sum((1, 2)) * b.square().sum((1, 2))

    a, b = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    found = tw.Saliency(two).attribute([a, b])
    assert isinstance(found, tuple)
    assert found[0].shape == a.shape
    found = tw.Saliency(of_lists(make("conv").float()), signed=True).attribute([torch.randn(3, 8, 8)] * 3, 1)
    assert isinstance(found, list)
    assert torch.equal(found[0], found[1])


def test_the_predicted_class_of_each():
    images, net = pictures(), of_lists(make("conv"))
    e = tw.Saliency(net).explain(images, "predicted")
    right = [int(make("conv")(i[None]).argmax(1)) for i in images]
    assert e.target == right
    for i in range(3):
        torch.testing.assert_close(e.attributions[i], tw.Saliency(make("conv")).attribute(images[i][None], right[i])[0])
    for target in (torch.tensor(right), lambda out, rows: out[torch.arange(len(rows)), torch.tensor(right)[rows]]):
        again = tw.Saliency(net).attribute(images, target)
        assert all(torch.equal(a, b) for a, b in zip(again, e.attributions))


@pytest.mark.parametrize(
    "given, error, message",
    [
        ({"x": tw.Ragged(torch.zeros(5, 3), [2, 3]), "lengths": torch.zeros(3)}, ValueError, "there are 2, 3"),
        (tw.Ragged(torch.zeros(5, 3), [5, 0]), ValueError, r"row 1 is empty, shape \(0, 3\)"),
        (tw.Ragged(torch.zeros(5, dtype=torch.long), [2, 3], "x"), TypeError, "point into 'x' are no features"),
        (tw.Ragged(torch.full((5, 3), torch.nan), [2, 3]), ValueError, "NaN"),
        ({"x": [1.0, 2.0]}, TypeError, "lists with one tensor for each row; got list"),
        ({"x": [], "lengths": torch.zeros(3)}, ValueError, "there are 0, 3"),
    ],
)
def test_ragged_inputs_that_make_no_sense(given, error, message):
    with pytest.raises(error, match=message):
        tw.Saliency(Packed()).attribute(given, 1)


def test_what_does_not_fit_ragged_inputs():
    net, (x, lengths) = Packed().double(), series()
    given, more = tw.Ragged(x, SIZES), {"additional_forward_args": lengths}
    with pytest.raises(ValueError, match="baselines: 2 given for 4 rows"):
        tw.IntegratedGradients(net).attribute(given, 1, baselines=[x[:2], x[:4]], **more)
    with pytest.raises(ValueError, match=r"baselines: row 0 has shape \(4, 3\), .* \(2, 3\)"):
        tw.IntegratedGradients(net).attribute(given, 1, baselines=tw.Ragged(x, [4, 2, 2, 3]), **more)
    with pytest.raises(ValueError, match="feature_mask: 1 given for 4 rows"):
        tw.FeatureAblation(net).attribute(given, 1, feature_mask=[torch.zeros(2, 3).long()], **more)
    with pytest.raises(ValueError, match="target: 2 indices given for 4 rows"):
        tw.Saliency(net).attribute(given, [0, 1], **more)
    with pytest.raises(ValueError, match="attributions: of 11 rows, the inputs have 4"):
        tw.metrics.deletion(net, given, x, 1, **more)


@pytest.mark.parametrize("form", ["ragged", "list", "dict"])
def test_an_explanation_of_rows_of_their_own(form, tmp_path):
    if form == "list":
        given, net, more = pictures(), of_lists(make("conv")), None
    else:
        net, (x, more) = Packed().double(), series()
        given = tw.Ragged(x, SIZES) if form == "ragged" else {"x": tw.Ragged(x, SIZES)}
        more = more if form == "ragged" else {"lengths": more}
    e = tw.ExpectedGradients(net, n_samples=4, generator=0).explain(given, 1, additional_forward_args=more)
    rows = e.attributions["x"] if form == "dict" else e.attributions
    n = 3 if form == "list" else 4
    assert len(e) == n
    assert [len(v) for v in e.features()] == [r.numel() for r in rows]
    assert "shape" in e.summary()
    if form != "dict":
        assert e.plot() is not None
        assert e.plot(row=1) is not None
    table = e.to_dataframe(long=True)
    assert len(table) == sum(r.numel() for r in rows)
    assert table["standard_error"].notna().all()
    assert len(e.to_dataframe()) == n
    part = e[1:3]
    picked = part.attributions["x"] if form == "dict" else part.attributions
    assert isinstance(picked, type(rows))
    assert len(part) == 2
    assert all(torch.equal(a, b) for a, b in zip(picked, list(rows)[1:]))
    assert torch.equal(part.scores, e.scores[1:3])
    e.save(tmp_path / "e.safetensors")
    back = tw.Explanation.load(tmp_path / "e.safetensors")
    for name in ("attributions", "inputs", "standard_error"):
        a, b = getattr(e, name), getattr(back, name)
        assert type(a) is type(b)
        a, b = (v["x"] if form == "dict" else v for v in (a, b))
        assert len(a) == len(b)
        assert all(torch.equal(i, j) for i, j in zip(a, b))
    named = e.with_names([[f"{i}, {j}" for j in range(r.numel())] for i, r in enumerate(rows)])
    assert named.to_dataframe(long=True)["feature"][0] == "0, 0"
    with pytest.raises(ValueError, match=r"names: rows have features of their own; give \d lists"):
        e.with_names(["a", "b"])


@pytest.mark.parametrize("target", [[0, 1], [0, 1, 1, 0]])
def test_as_many_targets_as_ragged_rows(target):
    """A list of another length is refused, not cut to the rows; each row has its own target."""
    x = [torch.rand(3, 4 + i, 5) for i in range(3)]
    score = lambda rows: torch.stack([torch.stack([r.sum(), (2 * r).square().sum()]) for r in rows])  # noqa: E731
    with pytest.raises(ValueError, match=f"{len(target)} indices given for 3 rows"):
        tw.Saliency(score, signed=True).attribute(x, target)
    found = tw.Saliency(score, signed=True).attribute(x, [0, 1, 0])
    for row, values, label in zip(x, found, [0, 1, 0], strict=True):
        torch.testing.assert_close(values, 8 * row if label else torch.ones_like(row))
