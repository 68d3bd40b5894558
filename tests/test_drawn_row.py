"""What is remembered about a model's layers depends on no row that came before, and not on the first of the rows beside it."""

import copy

import pytest
import torch
from torch import nn

import torchwhy as tw

DARK = torch.zeros(1, 3, 8, 8)
X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class DeadInTheDark(nn.Module):
    """The later layer is dead for a dark picture, the earlier one is not."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.early, self.late, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(8, 2)
        with torch.no_grad():
            for p in self.late.parameters():
                p.abs_()
            self.early.bias.fill_(1.0)
            self.late.bias.fill_(-4 * 3 * 3 * float(self.late.weight.mean()) * 4)
            self.early.weight.abs_().mul_(40)

    def forward(self, x):
        early = self.early(x)
        return self.head(torch.cat([early.mean((2, 3)), self.late(early).relu().mean((2, 3))], 1))


class InWindows(nn.Module):
    """Cells in windows of 2 by 2, a batch of short sequences, dead for a dark picture."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cells, self.inside, self.head = nn.Conv2d(3, 5, 1), nn.Linear(5, 5), nn.Linear(5, 2)
        with torch.no_grad():
            self.cells.weight.abs_()
            self.cells.bias.fill_(-0.05)

    def forward(self, x):
        t = self.cells(x).relu().unflatten(2, (-1, 2)).unflatten(4, (-1, 2))  # (n, c, 4, 2, 4, 2)
        t = self.inside(t.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(0, 2))
        return self.head(t.relu().unflatten(0, (len(x), -1)).mean((1, 2)))


class LearnedQueries(nn.Module):
    """Queries, as many as a grid has cells, of which each looks at the whole picture; dead for a dark one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cells, self.norm, self.head = nn.Conv2d(3, 8, 2, 2, bias=False), nn.LayerNorm(8), nn.Linear(8, 2)
        self.queries = nn.Parameter(torch.randn(1, 16, 8))
        nn.init.normal_(self.norm.bias)

    def forward(self, x):
        t = self.cells(x).relu().flatten(2).mT
        read = (self.queries @ t.mT).softmax(2) @ t
        return self.head(self.norm(read * self.queries).mean(1))


class TwoViews(nn.Module):
    """A layer that passes the first views of all rows before the second ones."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.look, self.head = nn.Conv2d(3, 4, 3), nn.Linear(8, 2)

    def forward(self, x):
        views = self.look(torch.cat([x, -x], 0)).relu().mean((2, 3))
        return self.head(views.unflatten(0, (2, -1)).movedim(0, 1).flatten(1))


def cam(net, x, **options):
    return tw.GradCAM(net, relu=False, **options).explain(x, 1)


def windows(net, x):
    return tw.GradCAM(net, layer="inside", relu=False).explain(x, 1)


def views(net, x):
    return tw.LayerActivation(net, layer="look").explain(x)


@pytest.mark.parametrize(
    ("kind", "ask"),
    [(DeadInTheDark, cam), (InWindows, windows), (TwoViews, views)],
    ids=lambda v: v.__name__,
)
def test_an_answer_depends_on_no_call_before(kind, ask):
    net = kind().eval()
    expected = ask(copy.deepcopy(net), X)
    ask(net, DARK)
    found = ask(net, X)
    assert found.details.get("layer") == expected.details.get("layer")
    torch.testing.assert_close(found.attributions, expected.attributions, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("kind", "ask"),
    [(DeadInTheDark, cam), (InWindows, windows), (TwoViews, views)],
    ids=lambda v: v.__name__,
)
def test_an_answer_depends_on_no_row_before(kind, ask):
    together = ask(kind().eval(), torch.cat([DARK, X])).attributions
    torch.testing.assert_close(together[1:], ask(kind().eval(), X).attributions)


def test_a_callable_target_has_the_layer_of_its_rows_whichever_is_first():
    net = DeadInTheDark().eval()
    score = lambda outputs: outputs[:, 1]  # noqa: E731
    e = tw.GradCAM(net, relu=False).explain(torch.cat([DARK, X]), score)
    assert e.details["layer"] == "late"


def test_learned_queries_are_refused_whatever_came_before():
    net = LearnedQueries().eval()
    for x in (DARK, X):
        with pytest.raises(ValueError, match="no cells of the inputs"):
            tw.GradCAM(net, layer="norm").attribute(x, 1)


def test_the_relu_before_a_linear_head_is_seen_whichever_row_is_first():
    """All that a light row passes is above 0, which does not say that there is no ReLU."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        net[0].bias.copy_(-net[0](X)[:1].mean((0, 2, 3)))
        net[0].weight *= net[0].weight.sum((1, 2, 3), keepdim=True).sign()
    light = torch.full_like(DARK, 40.0)
    assert (net[0](light) > 0).all()
    assert (net[0](X) < 0).any()
    method = tw.CAM(net, layer="0", upsample=False)
    torch.testing.assert_close(method.attribute(torch.cat([light, X]), 1)[1:], method.attribute(X, 1))


def test_fullgrad_of_learned_queries_is_the_same_beside_a_dark_row():
    net = LearnedQueries().eval()
    torch.testing.assert_close(
        tw.FullGrad(net).attribute(torch.cat([DARK, X]), 1)[1:], tw.FullGrad(net).attribute(X, 1)
    )


class TakesTheIds(nn.Module):
    """Which of two convolutions a picture goes through is said by an id."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x, ids):
        return self.head((self.b(x) if bool(ids[0, 0]) else self.a(x)).relu().mean((2, 3)))


@pytest.mark.parametrize("length", [1, 40])
@pytest.mark.parametrize("way", ["argument", "shared", "input"])
def test_what_is_not_drawn_is_part_of_what_is_remembered(way, length):
    """Whole numbers and further arguments say which layer is the last; a layer found for others is not taken again."""
    net = TakesTheIds().eval()
    for i in (0, 1, 0):
        ids = torch.full((2, length), i)
        given = {"argument": ids, "shared": tw.Shared(ids[:1])}.get(way)
        x, extra = (X, {"additional_forward_args": given}) if given is not None else ((X, ids), {})
        e = tw.LayerActivation(net, layer="auto").explain(x, 1, **extra)
        assert e.details["layer"] == "ab"[i]


class NoBoxesError(Exception):
    """What a model of somebody's own may raise."""


class BoxesInOrder(nn.Module):
    """Refuses numbers that are no boxes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.c, self.head = nn.Conv1d(4, 4, 1), nn.Linear(4, 2)

    def forward(self, boxes):
        if bool((boxes[:, 2:] < boxes[:, :2] + 1).any()):
            raise NoBoxesError
        return self.head(self.c(boxes).relu().mean(2))


def test_a_model_that_takes_no_drawn_numbers_is_asked_with_the_first_row():
    boxes = torch.rand(3, 4, 6)
    boxes[:, 2:] += 3
    e = tw.GradCAM(BoxesInOrder().eval()).explain(boxes, 1)
    assert e.details["layer"] == "c"
    assert e.attributions.shape == (3, 1, 6)
