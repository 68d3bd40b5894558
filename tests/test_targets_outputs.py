"""Targets for answers by a span, embeddings, detectors and segmenters give what a plain loop over rows gives."""

import functools
from types import SimpleNamespace

import pytest
import torch
from cases import in_turn
from torch import nn

import torchwhy as tw
from torchwhy.targets import Box, Region, Similarity, Span

ROWS = torch.arange(3)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def both(net, x, target, plain):
    """Check the scores of the rows against a loop, and the gradients of each row alone, whatever calls there are."""
    with torch.no_grad():
        assert target.for_rows(len(x))(net(x), torch.arange(len(x))).tolist() == pytest.approx(
            [float(plain(net(x[i : i + 1]), i)) for i in range(len(x))]
        )
    for method, options in ((tw.Saliency, {"signed": True}), (tw.IntegratedGradients, {"n_steps": 3})):
        alone = []
        for i in range(len(x)):
            row = functools.partial(lambda i, o: plain(o, i).reshape(1), i)
            alone.append(method(net, batch_size=1, **options).attribute(x[i : i + 1], row))
        for batch_size in (None, 1, 2):
            found = method(net, batch_size=batch_size, **options).attribute(x, target)
            torch.testing.assert_close(found, torch.cat(alone), rtol=1e-9, atol=1e-12)


# ---- spans and embeddings


class Answers(nn.Module):
    """Rows (N, 5) → where an answer starts and ends among 4 tokens."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.linear = kind, nn.Linear(5, 8).double()

    def forward(self, x):
        y = torch.tanh(self.linear(x)).view(-1, 4, 2) * 3
        start, end = y.unbind(2)
        kinds = {
            "tensor": y,
            "tuple": (start, end, y),
            "named": SimpleNamespace(loss=None, start_logits=start, end_logits=end),
        }
        return kinds[self.kind]


@pytest.mark.parametrize("kind", ["tensor", "tuple", "named"])
@pytest.mark.parametrize(("start", "end"), [(1, 2), ([0, 1, -2], [3, 1, -1]), (torch.tensor([2, 0, 1]), 3)], ids=str)
def test_the_log_probability_of_a_span(kind, start, end):
    net, x = Answers(kind), torch.randn(3, 5, generator=rng(), dtype=torch.double)
    starts, ends = (torch.as_tensor(v).expand(3).tolist() for v in (start, end))

    def plain(output, i):
        y = output
        s, e = {"tensor": lambda: y[0].unbind(1), "tuple": lambda: (y[0][0], y[1][0])}.get(
            kind, lambda: (y.start_logits[0], y.end_logits[0])
        )()
        return s.log_softmax(0)[starts[i]] + e.log_softmax(0)[ends[i]]

    both(net, x, Span(start, end), plain)


@pytest.mark.parametrize(("output", "per_row"), [(None, False), (None, True), ("text_embeds", True)], ids=str)
def test_similarity_to_an_embedding(output, per_row):
    torch.manual_seed(0)
    linear = nn.Linear(5, 4).double()
    e = torch.randn(*((3, 4) if per_row else (4,)), generator=rng(1), dtype=torch.double)

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = linear

        def forward(self, x):
            y = torch.tanh(self.linear(x))
            return y if output is None else {"image_embeds": x, "text_embeds": y}

    def plain(o, i):
        y, v = (o if output is None else o["text_embeds"])[0], e[i] if per_row else e
        return (y * v).sum() / (y.square().sum().sqrt() * v.square().sum().sqrt())

    x = torch.randn(3, 5, generator=rng(), dtype=torch.double)
    both(Encoder(), x, Similarity(e, output), plain)


# ---- boxes


def iou(a, b):
    """The intersection over union of two boxes, by hand."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both_ = width * height
    return both_ / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both_)


class Detector(nn.Module):
    """Rows (N, 6) → five boxes of three classes in each, as torchvision or as DETR gives them."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.place, self.logits = kind, nn.Linear(6, 20).double(), nn.Linear(6, 20).double()

    def forward(self, x):
        place, logits = self.place(x).sigmoid().view(-1, 5, 4), self.logits(x).view(-1, 5, 4) * 2
        low, size = place[..., :2] * 0.5, place[..., 2:] * 0.5
        boxes = torch.cat([low, low + size], -1)
        if self.kind == "torchvision":
            labels = torch.tensor([0, 1, 2, 1, 0])
            scores = logits.softmax(-1)[:, torch.arange(5), labels]
            return [{"boxes": b * 100, "labels": labels, "scores": s} for b, s in zip(boxes, scores)]
        centred = torch.cat([low + size / 2, size], -1)
        if self.kind == "names":
            return {"pred_logits": logits, "pred_boxes": centred}
        return SimpleNamespace(logits=logits, pred_boxes=centred, loss=None)


BOXES = torch.tensor([[0.1, 0.2, 0.5, 0.7], [0.3, 0.1, 0.6, 0.5], [0.2, 0.2, 0.9, 0.4]], dtype=torch.double)


LABELS = [None, 1, [0, 2, 1], [(0, 1), 2, (1, 2)], torch.tensor([1, 1, 0])]


@pytest.mark.parametrize("kind, labels", in_turn(["torchvision", "names", "detr", "sigmoid"], LABELS, 3), ids=str)
@pytest.mark.parametrize("one", [True, False], ids=["one box", "a box each"])
def test_the_best_detection_of_a_box(kind, one, labels):
    net, x = Detector(kind), torch.randn(3, 6, generator=rng(), dtype=torch.double)
    scale = 100 if kind == "torchvision" else 1
    target = Box((BOXES[0] if one else BOXES) * scale, labels, "sigmoid" if kind == "sigmoid" else "softmax")
    each = labels if isinstance(labels, list) else torch.as_tensor(-1 if labels is None else labels).expand(3).tolist()
    wanted = [range(4) if k == -1 else (k if isinstance(k, tuple) else (k,)) for k in each]

    def detections(o):
        if kind == "torchvision":
            return [(b, s, int(k)) for b, s, k in zip(o[0]["boxes"], o[0]["scores"], o[0]["labels"])]
        logits = (o["pred_logits"] if kind == "names" else o.logits)[0]
        boxes = (o["pred_boxes"] if kind == "names" else o.pred_boxes)[0]
        found = []
        for (x, y, w, h), row in zip(boxes, logits):
            corners = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
            chances = row.sigmoid() if kind == "sigmoid" else row.softmax(0)[:3]  # the last one is no object
            found += [(corners, p, k) for k, p in enumerate(chances)]
        return found

    def plain(o, i):
        box = (BOXES[0 if one else i] * scale).tolist()
        scores = [iou(b, box) * p for b, p, k in detections(o) if k in wanted[i]]
        return max(scores)

    both(net, x, target, plain)


def test_a_picture_without_a_detection_of_the_label_has_score_and_gradient_zero():
    class None_(nn.Module):
        def forward(self, x):
            none = x.flatten(1)[:, :0]
            return [
                {"boxes": n.view(0, 4), "labels": torch.zeros(0, dtype=torch.long), "scores": n} if i else
                {"boxes": r.flatten()[:4].view(1, 4), "labels": torch.tensor([1]), "scores": r.flatten()[4:5]}
                for i, (n, r) in enumerate(zip(none, x))
            ]  # fmt: skip

    x = torch.tensor([[0.0, 0, 2, 2, 0.5], [0, 0, 2, 2, 0.5]])
    found = tw.Saliency(None_()).attribute(x, Box([0, 0, 2, 1], 1))
    assert found[0, 4] == 0.5  # the overlap
    assert (found[1] == 0).all()
    assert (tw.Saliency(None_()).attribute(x, Box([0, 0, 2, 1], 2)) == 0).all()


def test_torchvision_detectors():
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

    torch.manual_seed(0)
    net = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64, rpn_post_nms_top_n_test=20
    ).eval()
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        found = net(x)
    boxes = torch.stack([d["boxes"][0] for d in found]) + torch.tensor([0.5, 0, 0, 0])
    labels = [int(d["labels"][0]) for d in found]
    target = Box(boxes, labels)
    expected = [
        max(
            iou(b.tolist(), box.tolist()) * float(s)
            for b, s, k in zip(d["boxes"], d["scores"], d["labels"])
            if k == label
        )
        for d, box, label in zip(found, boxes, labels)
    ]
    with torch.no_grad():
        assert target(net(x), torch.arange(2)).tolist() == pytest.approx(expected, rel=1e-5)
    together = tw.Saliency(net, signed=True).attribute(x, target)
    alone = torch.cat(
        [tw.Saliency(net, signed=True).attribute(x[i : i + 1], Box(boxes[i], labels[i])) for i in range(2)]
    )
    assert bool(together.flatten(1).any(1).all())
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4 * float(alone.abs().max()))


# ---- regions


@pytest.mark.parametrize("label", [1, [0, 2, 1], torch.tensor([2, 2, 0])], ids=str)
@pytest.mark.parametrize("mask", ["one", "each", "weights"])
@pytest.mark.parametrize("wrap", [lambda y: y, lambda y: {"out": y, "aux": y * 2}, lambda y: {"logits": y, "h": y}])
def test_the_class_score_over_a_region(label, mask, wrap):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh()).double()
    model = nn.Module()
    model.net, model.forward = net, lambda x: wrap(net(x))
    masks = torch.rand(3, 5, 6, generator=rng()).double()
    masks = {"one": masks[0] > 0.5, "each": masks > 0.5, "weights": masks}[mask]
    labels = torch.as_tensor(label).expand(3).tolist()
    x = torch.randn(3, 1, 5, 6, generator=rng(2), dtype=torch.double)

    def plain(o, i):
        y = o if not isinstance(o, dict) else o.get("out", o.get("logits"))
        m = masks if masks.dim() == 2 else masks[i]
        return sum(float(m[r, c]) * y[0, labels[i], r, c] for r in range(5) for c in range(6))

    target = Region(label, masks)
    with torch.no_grad():
        scores = target.for_rows(3)(wrap(net(x)), ROWS).tolist()
        assert scores == pytest.approx([float(plain(wrap(net(x[i : i + 1])), i)) for i in range(3)])
    alone = [tw.Saliency(net).attribute(x[i : i + 1], lambda o, i=i: plain(o, i).reshape(1)) for i in range(3)]
    for batch_size in (None, 2):
        torch.testing.assert_close(tw.Saliency(model, batch_size=batch_size).attribute(x, target), torch.cat(alone))


def test_regions_of_outputs_without_classes_and_of_other_dimensions():
    x, masks = torch.rand(3, 1, 4, 5), torch.rand(3, 4, 5) > 0.5
    expected = (x[:, 0] * masks).sum((1, 2))
    for out, target in ((x, Region(None, masks)), (x[:, 0], Region(None, masks)), (x, Region(0, masks))):
        torch.testing.assert_close(target.for_rows(3)(out, ROWS), expected)
    torch.testing.assert_close(Region(None, masks[0])(x, ROWS), (x[:, 0] * masks[0]).sum((1, 2)))
    series, volume = torch.rand(3, 2, 7), torch.rand(3, 2, 2, 3, 4)
    torch.testing.assert_close(
        Region(1, series[:, 0] > 0.5)(series, ROWS), (series[:, 1] * (series[:, 0] > 0.5)).sum(1)
    )
    one = torch.rand(2, 3, 4) > 0.3
    torch.testing.assert_close(Region(1, one)(volume, ROWS), (volume[:, 1] * one).flatten(1).sum(1))


# ---- what makes no sense


TENSOR, FOUND = torch.rand(3, 4), [{"boxes": torch.rand(0, 4), "labels": torch.ones(0), "scores": torch.rand(0)}] * 3
DETR = {"logits": torch.rand(3, 5, 4), "pred_boxes": torch.rand(3, 5, 4)}
MAPS = torch.rand(3, 2, 4, 4)
MASKS = torch.ones(3, 4, 4)


@pytest.mark.parametrize(
    ("output", "target", "error", "message"),
    [
        (TENSOR, Span(2, 1), ValueError, "end=1: before start=2"),
        (TENSOR, Span([0, 1], 1), ValueError, "start: 2 given for 3 rows"),
        (TENSOR, Span(0.5, 1), TypeError, "start=0.5: expected an int"),
        (TENSOR, Span(0, 1), ValueError, "Span needs an output with start_logits and end_logits"),
        (torch.rand(3, 4, 2), Span(0, 4), ValueError, "end=4: the output has 4 positions"),
        (torch.rand(3, 4, 2), Span(-5, -1), ValueError, "start=-5: the output has 4 positions"),
        (TENSOR, Similarity([1.0, 2]), TypeError, "embedding: expected a tensor .* got list"),
        (TENSOR, Similarity(torch.ones(4, dtype=torch.long)), TypeError, "got torch.int64"),
        (TENSOR, Similarity(torch.ones(2, 4)), ValueError, "embedding: 2 given for 3 rows"),
        (TENSOR, Similarity(torch.zeros(4)), ValueError, "of length 0"),
        (TENSOR, Similarity(torch.ones(5)), ValueError, r"shape \(5,\), but the output has \(3, 4\)"),
        ({"a": TENSOR, "b": 1}, Similarity(torch.ones(4), "c"), ValueError, "output='c': .*it has a$"),
        (FOUND, Box(torch.rand(5, 4) + torch.tensor([0, 0, 1, 1])), ValueError, "boxes: 5 given for 3 rows"),
        (FOUND, Box(torch.rand(2, 4) + torch.tensor([0, 0, 1, 1])), ValueError, "boxes: 2 given for 3 rows"),
        (FOUND, Box([0, 0, 1, 1], [1, 2]), ValueError, "labels: 2 given for 3 rows"),
        (FOUND, Box([0, 0, 1, 1], [(1, 2), 3]), ValueError, "labels: 2 given for 3 rows"),
        (FOUND, Box([0, 0, 1, 1], [1, (), 2]), ValueError, "labels: an empty tuple"),
        (FOUND, Box([0, 0, 1, 1], "cat"), TypeError, "labels='cat'"),
        (FOUND, Box([0, 0, 1]), ValueError, r"boxes: shape \(3,\); expected \(x1, y1, x2, y2\)"),
        (FOUND, Box([[[0, 0, 1, 1]]] * 3), ValueError, r"boxes: shape \(3, 1, 4\)"),
        (FOUND, Box([0, 2, 1, 1]), ValueError, "boxes: empty"),
        (FOUND, Box("left"), TypeError, "boxes: expected"),
        (FOUND[:2], Box([0, 0, 1, 1]), ValueError, "given 3 rows and returned 2 dicts"),
        (DETR, Box([0, 0, 50, 60]), ValueError, "boxes: 60 is a pixel, but this model's boxes are shares"),
        (DETR, Box([0, 0, 1, 1], 3), ValueError, "out of range, the output has 3 classes"),
        (DETR, Box([0, 0, 1, 1], activation="relu"), ValueError, "activation='relu'"),
        (TENSOR, Box([0, 0, 1, 1]), ValueError, "Box needs the output of a detector"),
        (MAPS, Region(0, MASKS[:2]), ValueError, "masks: 2 given for 3 rows"),
        (MAPS, Region(0, torch.ones(5, 4, 4)), ValueError, "masks: 5 given for 3 rows"),
        (MAPS, Region([0, 1], MASKS), ValueError, "label: 2 given for 3 rows"),
        (MAPS, Region(2, MASKS), ValueError, "label=2: out of range, the output has 2 classes"),
        (MAPS, Region(-1, MASKS), ValueError, "label=-1: out of range"),
        (
            MAPS,
            Region(0, torch.ones(8, 8)),
            ValueError,
            r"masks: shape \(8, 8\), but the output's pixels are \(4, 4\); resize",
        ),
        (MAPS, Region(0, MASKS * torch.tensor([1, 0, 1])[:, None, None]), ValueError, "nothing in the region of row 1"),
        (MAPS, Region(0, [[1]]), TypeError, "masks: expected a tensor"),
        (MAPS, Region(0, MASKS.to(torch.cfloat)), TypeError, "masks: torch.complex64"),
        (torch.rand(3), Region(0, MASKS), ValueError, r"Region needs an output \(N, classes, \*spatial\)"),
    ],
)
def test_nonsense_is_refused(output, target, error, message):
    with pytest.raises(error, match=message):
        target.for_rows(3)(output, ROWS)


def test_a_region_of_a_series_is_along_its_steps():
    mask = torch.tensor([True, False, True, False, False])
    model = lambda x: torch.stack([x, 2 * x], 1)  # noqa: E731 - (N, L) → (N, 2, L)
    found = tw.InputXGradient(model).attribute(torch.ones(2, 5), tw.targets.Region(1, mask))
    assert (found != 0).equal(mask.expand(2, 5))
