"""DeepLIFT's RevealCancel: the paper's examples by hand, its slow version, completeness on networks as they are written."""

import math

import pytest
import torch
from nets import inputs, make
from reference import rules as slow
from torch import nn
from torch.nn import functional as F

import torchwhy as tw

D = torch.double
SCALARS = {
    torch.relu: lambda v: max(v, 0.0),
    torch.tanh: math.tanh,
    torch.sigmoid: lambda v: 1 / (1 + math.exp(-v)),
    F.gelu: lambda v: v * (1 + math.erf(v / math.sqrt(2))) / 2,
}


def reveal(model, x, b, target=None, **options):
    return tw.DeepLIFT(model, rule="reveal_cancel", **options).attribute(x, target, baselines=b)


def affine(module, x):
    """A module that is affine in a row, as (w, b) of lists."""
    w, b = slow.matrix(module, x)
    return w.tolist(), b.tolist()


# --------------------------------------------------------------------------------------------------- worked by hand
X = torch.tensor([[3.0, 1.0], [1.0, 3.0]], dtype=D)
SPELLINGS = {
    "difference": lambda x: x[:, 0] - F.relu(x[:, 0] - x[:, 1]),
    "in_place": lambda x: x[:, 0] - x[:, 0].sub(x[:, 1]).relu_(),
    "negative": lambda x: x[:, 0] - (x[:, 0] + -x[:, 1]).clamp(min=0),
    "weighted_sum": lambda x: x[:, 0] - F.relu((x * torch.tensor([1.0, -1.0], dtype=D)).sum(1)),
    "matmul": lambda x: x[:, 0] - (x @ torch.tensor([[1.0], [-1.0]], dtype=D)).relu().flatten(),
    "linear": lambda x: x[:, 0] - F.relu(F.linear(x, torch.tensor([[1.0, -1.0]], dtype=D)))[:, 0],
    "mean": lambda x: x[:, 0] - F.relu(torch.stack([x[:, 0], -x[:, 1]], 1).mean(1) / 0.5),
    "subtracted": lambda x: x[:, 0] - F.relu(-(x[:, 1] - x[:, 0])),
}


@pytest.mark.parametrize("model", SPELLINGS.values(), ids=SPELLINGS)
def test_minimum_of_the_paper(model):
    """Section 3.5.3: min(i1, i2) = i1 - relu(i1 - i2). Rescale gives all to one input, RevealCancel half to each."""
    zero = torch.zeros(2, dtype=D)
    torch.testing.assert_close(reveal(model, X, zero), torch.full((2, 2), 0.5, dtype=D))
    rescaled = tw.DeepLIFT(model).attribute(X, baselines=zero)
    torch.testing.assert_close(rescaled, torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=D))


def test_and_of_the_paper():
    """AND as o = relu(i1 + i2 - 1), and saturation, min(1, i1 + i2) = 1 - relu(1 - i1 - i2), at i1 = i2 = 1 from zero."""
    one, zero = torch.ones(1, 2, dtype=D), torch.zeros(2, dtype=D)
    for model in (lambda x: F.relu(x.sum(1) - 1), lambda x: 1 - F.relu(1 - x[:, 0] - x[:, 1])):
        torch.testing.assert_close(reveal(model, one, zero), torch.full((1, 2), 0.5, dtype=D))
    # i1 rises by 2, i2 falls by 1: Δx⁺ = 2, Δx⁻ = -1, of relu(i1 + i2 - 1) from (0, 0): Δy⁺ = (1 + 0)/2, Δy⁻ = (0 - 1)/2
    found = reveal(lambda x: F.relu(x.sum(1) - 1), torch.tensor([[2.0, -1.0]], dtype=D), zero)
    torch.testing.assert_close(found, torch.tensor([[0.5, -0.5]], dtype=D))


def test_nonlinearity_of_a_nonlinearity():
    """relu(i1 - i2) at (3, 1): Δy⁺ = (3 + 2)/2, Δy⁻ = (0 - 1)/2; of these once more (2.5 + 2)/2 and (0 - 0.5)/2."""
    found = reveal(lambda x: F.relu(F.relu(x[:, 0] - x[:, 1])), X[:1], torch.zeros(2, dtype=D))
    torch.testing.assert_close(found, torch.tensor([[2.25, -0.25]], dtype=D))


def test_a_sum_counts_a_nonlinearity_by_its_whole_change():
    """relu(h + i3), h = relu(i1 - i2) at (3, 1, -1): Δh = 2 and Δi3 = -1 give Δy⁺ = 3/2, Δy⁻ = -1/2; of Δh⁺ = 5/2, Δh⁻ = -1/2."""
    model = lambda x: F.relu(F.relu(x[:, 0] - x[:, 1]) + x[:, 2])  # noqa: E731
    found = reveal(model, torch.tensor([[3.0, 1.0, -1.0]], dtype=D), torch.zeros(3, dtype=D))
    torch.testing.assert_close(found, torch.tensor([[1.875, -0.375, -0.5]], dtype=D))


@pytest.mark.parametrize(
    "model", [lambda x: F.relu(x[:, 0] + x[:, 1]), lambda x: F.relu(x @ torch.ones(2, 1).double())]
)
def test_an_input_that_does_not_change_has_the_mean_of_both_multipliers(model):
    """relu(i1 + i2) at (0, 1): m⁺ = 1, m⁻ = (0 + 1)/2, the slopes at 0 and at 1; (m⁺ + m⁻)/2 for i1 (section 3.5.1)."""
    x, zero = torch.tensor([[0.0, 1.0]], dtype=D), torch.zeros(2, dtype=D)
    found = reveal(lambda v: model(v).flatten(), x, zero, multiply_by_inputs=False)
    torch.testing.assert_close(found, torch.tensor([[0.75, 1.0]], dtype=D))


# ------------------------------------------------------------------------------------------------ the slow version
@pytest.mark.parametrize("f", SCALARS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("multiply", [True, False])
def test_equals_the_slow_version(f, multiply):
    first, second, third = nn.Linear(4, 6).double(), nn.Linear(6, 5).double(), nn.Linear(5, 2).double()
    x, b = torch.randn(2, 3, 4, dtype=D)
    found = reveal(lambda v: third(f(second(f(first(v))))), x, b, 1, multiply_by_inputs=multiply)
    for i in range(3):
        units = [affine(m, torch.zeros(m.in_features, dtype=D)) for m in (first, second, third)]
        layers = [units[0], SCALARS[f], units[1], SCALARS[f], units[2]]
        m = torch.tensor(slow.reveal_cancel(layers, x[i].tolist(), b[i].tolist(), [0.0, 1.0]), dtype=D)
        torch.testing.assert_close(found[i], m * (x[i] - b[i]) if multiply else m)


def folded(kind):
    conv = {
        "conv2d": lambda: nn.Conv2d(2, 3, 3, padding=1, stride=2),
        "groups": lambda: nn.Conv2d(2, 4, 2, groups=2, bias=False),
        "transposed": lambda: nn.ConvTranspose2d(2, 3, 2, stride=2),
    }[kind]()
    norm = nn.BatchNorm2d(conv.out_channels)
    for t in (norm.running_mean, norm.weight, norm.bias):  # scales of both signs
        nn.init.normal_(t)
    nn.init.normal_(conv.weight)
    return nn.Sequential(conv, norm, nn.Dropout(0.5, inplace=True)).double().eval()


@pytest.mark.parametrize("kind", ["conv2d", "groups", "transposed"])
def test_what_is_linear_is_folded(kind):
    below, pool = folded(kind), nn.AvgPool2d(2, stride=1)
    x, b = torch.randn(2, 2, 2, 4, 5, dtype=D)
    b[:, 0, 0] = x[:, 0, 0]  # some inputs do not change
    y = below(x)
    above = nn.Linear(pool(y)[0].numel(), 1).double()
    found = reveal(nn.Sequential(below, pool, nn.Flatten(), nn.ReLU(inplace=True), above), x, b, 0)
    means = affine(pool, y[0])[:1]
    layers = [affine(below, x[0]), means, SCALARS[torch.relu], affine(above, torch.zeros(above.in_features, dtype=D))]
    for i in range(2):
        m = torch.tensor(slow.reveal_cancel(layers, x[i].flatten().tolist(), b[i].flatten().tolist(), [1.0]), dtype=D)
        torch.testing.assert_close(found[i].flatten(), m * (x[i] - b[i]).flatten())


@pytest.mark.parametrize("in_place", [True, False])
def test_skip_connections_are_terms_of_a_sum(in_place):
    w = nn.Linear(4, 4).double().requires_grad_(False)

    def model(x):
        y = w(x)
        y += x
        return F.relu(y, inplace=in_place).sum(1)

    x, b = torch.randn(2, 3, 4, dtype=D)
    found = reveal(model, x, b)
    matrix, bias = affine(w, torch.zeros(4, dtype=D))
    both = [[*row, *(1.0 if i == k else 0.0 for i in range(4))] for k, row in enumerate(matrix)]  # on x twice
    for i in range(3):
        twice = slow.reveal_cancel(
            [(both, bias), SCALARS[torch.relu], ([[1.0] * 4], [0.0])],
            [*x[i].tolist()] * 2, [*b[i].tolist()] * 2, [1.0],
        )  # fmt: skip
        m = torch.tensor(twice, dtype=D).view(2, 4).sum(0)
        torch.testing.assert_close(found[i], m * (x[i] - b[i]))


@pytest.mark.parametrize(
    ("write", "plain"),
    [
        (lambda y, z: y.add_(z), lambda y, z: y + z),
        (lambda y, z: y.sub_(y.flip(1), alpha=2), lambda y, z: y.sub(y.flip(1), alpha=2)),
        (lambda y, z: y.add_(y), lambda y, z: y + y),
    ],
    ids=["linear", "signals", "itself"],
)
def test_a_sum_may_overwrite_what_no_linear_operation_made(write, plain):
    f, g, h = (nn.Linear(4, 4).double().requires_grad_(False) for _ in range(3))

    def model(x, add):
        y = f(x).relu()
        return h(add(y, g(y)).relu()).sum(1)

    x, b = torch.randn(2, 3, 4, dtype=D)
    found, expected = (reveal(lambda v, add=add: model(v, add), x, b) for add in (write, plain))
    torch.testing.assert_close(found, expected)


# --------------------------------------------------------------------------------------------------- as a method
class Written(nn.Module):
    """What models do between a linear operation and a nonlinearity, and to tensors that are still needed."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        y = self.a(x)
        z = self.b(y)
        y.relu_()  # after `b` has read it
        up, down = (z - y).view(-1, 2, 4).unbind(1)
        both = torch.cat([up, -down], 1).div_(2).transpose(0, 1).t() * 3 + 1
        q, k = self.a(x).split(4, 1)
        gate = F.glu(torch.cat([q * k, both], 1))
        return self.c(torch.cat([F.silu(both)[:, :2], gate], 1)).softmax(1)


@pytest.mark.parametrize("f", [Written, *(pytest.param(k, id=k) for k in ("conv",))])
def test_completeness(f):
    if f == "conv":
        net, x = make("conv"), inputs("conv", 3)
    else:
        net, x = f().double().requires_grad_(False), torch.randn(3, 6, dtype=D)
    b = torch.randn_like(x)
    e = tw.DeepLIFT(net, rule="reveal_cancel").explain(x, 1, baselines=b)
    assert e.completeness_gap.max() < 1e-12
    assert not e.details["plain_operations"]
    near = reveal(net, x, x + 1e-7 * b, 1, multiply_by_inputs=False)
    torch.testing.assert_close(near, tw.Saliency(net, signed=True).attribute(x, 1), rtol=1e-4, atol=1e-5)


def test_deepshap_averages_over_baselines():
    net, x = make("conv"), inputs("conv", 3)
    baselines = torch.randn(4, *x.shape[1:], dtype=D)
    each = torch.stack([reveal(net, x, b, 1) for b in baselines])
    found = tw.DeepSHAP(net, rule="reveal_cancel").attribute(x, 1, baselines=baselines)
    torch.testing.assert_close(found, each.mean(0))


def test_unknown_rule():
    with pytest.raises(ValueError, match=r"rule='reveal-cancel': expected 'rescale' or 'reveal_cancel'"):
        tw.DeepLIFT(lambda x: x.sum(1), rule="reveal-cancel").attribute(torch.ones(1, 2))


@pytest.mark.parametrize("function", [torch.tanh, torch.sigmoid, F.gelu, lambda v: v**3])
@pytest.mark.parametrize("way", [math.inf, -math.inf])
def test_a_difference_of_rounding_has_the_slope_of_the_middle(function, way):
    """For the parts that go up and down as for the whole: a quotient of two differences of rounding is none."""
    weight, b = torch.tensor([[1.0, -2.0, 0.5]], dtype=D), torch.tensor([[0.9, 0.2, 0.4]], dtype=D)
    x = torch.cat([torch.nextafter(b[:, :1], torch.tensor(way, dtype=D)), b[:, 1:]], 1)
    found = reveal(lambda t: function(F.linear(t, weight))[:, 0], x, b)
    at = (b @ weight.T).requires_grad_()
    (slope,) = torch.autograd.grad(function(at).sum(), at)
    torch.testing.assert_close(found / (x - b)[:, :1], torch.tensor([[1.0, 0.0, 0.0]], dtype=D) * slope)
