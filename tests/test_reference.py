"""The slow references of the gradient and path methods, on cases worked by hand and against Captum and SciPy."""

import pytest
import torch
from reference import gradient as ref
from reference import path
from torch import nn

RULES = ["gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid"]
W = torch.tensor([[2.0, -3.0, 0.5]], dtype=torch.float64)
X = torch.tensor([[1.0, 2.0, -4.0]], dtype=torch.float64)
B = torch.tensor([[0.5, 0.0, 1.0]], dtype=torch.float64)


def linear(x):
    return (W * x).sum() + 7


def cubic(x):
    """x0^3 + x0 x1^2: gradient (3 x0^2 + x1^2, 2 x0 x1); of degree 3 along any line."""
    return x[0, 0] ** 3 + x[0, 0] * x[0, 1] ** 2


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, torch.as_tensor(b, dtype=a.dtype), rtol=tolerance, atol=tolerance)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Softplus(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 1)).double()


@pytest.fixture
def rows():
    torch.manual_seed(1)
    return torch.randn(1, 6, dtype=torch.float64), torch.randn(1, 6, dtype=torch.float64)


# --- gradients and noise --------------------------------------------------------------------------


def test_gradient_of_a_cubic():
    x = torch.tensor([[2.0, 3.0]], dtype=torch.float64)
    close(ref.gradient(cubic, x), [[21.0, 12.0]])
    close(ref.input_x_gradient(cubic, x), [[42.0, 36.0]])
    assert not x.requires_grad


def test_saliency_and_its_channel_reductions():
    close(ref.saliency(linear, X), [[2.0, 3.0, 0.5]])
    close(ref.saliency(linear, X, signed=True), [[2.0, -3.0, 0.5]])
    weights = torch.tensor([-4.0, 3.0], dtype=torch.float64).reshape(1, 2, 1, 1)
    x = torch.ones(1, 2, 2, 2, dtype=torch.float64)
    for channels, expected in [("max", 4.0), ("norm", 5.0), ("sum", 7.0)]:
        close(ref.saliency(lambda t: (weights * t).sum(), x, channels), torch.full((1, 1, 2, 2), expected))
    close(ref.saliency(lambda t: (weights * t).sum(), x, "sum", signed=True), torch.full((1, 1, 2, 2), -1.0))
    with pytest.raises(ValueError, match="signed"):
        ref.saliency(linear, X, "max", signed=True)


def test_noise_methods_on_a_square():
    """f = x^2 at 3, noise +-1 times sigma 0.5: gradients 7 and 5, mean 6, mean square 37, variance 1."""
    x, noise = torch.tensor([[3.0]], dtype=torch.float64), torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    arguments = (lambda t: t[0, 0] ** 2, x, noise, 0.5)
    close(ref.smoothgrad(*arguments), [[6.0]])
    close(ref.squaregrad(*arguments), [[37.0]])
    close(ref.vargrad(*arguments), [[1.0]])
    assert ref.relative_sigma(X, 0.1) == pytest.approx(0.6)


def test_smoothgrad_of_another_method():
    """f = x^2 at 0: the signed gradients +-1 cancel, their absolute values do not."""
    x, noise = torch.zeros(1, 1, dtype=torch.float64), torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    close(ref.smoothgrad(lambda t: t[0, 0] ** 2, x, noise, 0.5), [[0.0]])
    close(ref.smoothgrad(lambda t: t[0, 0] ** 2, x, noise, 0.5, of=ref.saliency), [[1.0]])
    close(ref.smoothgrad(linear, X, torch.ones(3, 3), 0.0, of=ref.saliency), ref.saliency(linear, X))


# --- straight lines -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [*RULES, "trapezoid"])
def test_integrated_gradients_of_a_linear_function(method):
    """w (x - b), but for Captum's trapezoid, whose weights add up to (n - 1)/n."""
    expected = W * (X - B) * (3 / 4 if method == "riemann_trapezoid" else 1)
    close(ref.integrated_gradients(linear, X, B, 4, method), expected)
    close(ref.integrated_gradients(linear, X, B, 4, method, multiply_by_inputs=False), expected / (X - B))


def test_integrated_gradients_of_a_cubic_is_exact_with_two_gauss_points():
    """From 0 to (2, 3): x0 * int 21 a^2 = 14 and x1 * int 12 a^2 = 12; together f = 8 + 18."""
    x, b = torch.tensor([[2.0, 3.0]], dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
    ig = ref.integrated_gradients(cubic, x, b, 2)
    close(ig, [[14.0, 12.0]])
    assert ref.completeness_gap(cubic, x, b, ig) < 1e-12
    # by hand, two pieces each: 21 a^2 at 0 and 1/2, then at 1/2 and 1, then at 1/4 and 3/4
    close(ref.integrated_gradients(cubic, x, b, 2, "riemann_left")[:, :1], [[2 * (0 + 21 / 4) / 2]])
    close(ref.integrated_gradients(cubic, x, b, 2, "riemann_right")[:, :1], [[2 * (21 / 4 + 21) / 2]])
    close(ref.integrated_gradients(cubic, x, b, 2, "riemann_middle")[:, :1], [[2 * (21 / 16 + 21 * 9 / 16) / 2]])
    close(ref.integrated_gradients(cubic, x, b, 2, "riemann_trapezoid")[:, :1], [[2 * (0 + 21) / 4]])
    close(ref.integrated_gradients(cubic, x, b, 2, "trapezoid")[:, :1], [[2 * (0 + 21) / 2]])


@pytest.mark.parametrize("method", RULES)
def test_rules_equal_captum(method, net, rows):
    """Captum rounds the step sizes of IntegratedGradients to float32, so 1e-6; its alphas of a layer are exact."""
    attr = pytest.importorskip("captum.attr")
    x, b = rows
    f, below, above = (lambda t: net(t)), net[:3], net[3:]
    captum = attr.IntegratedGradients(net).attribute(x, b, n_steps=7, method=method)
    close(ref.integrated_gradients(f, x, b, 7, method), captum.detach(), 1e-6)
    captum = attr.LayerConductance(net, net[2]).attribute(x, b, n_steps=7, method=method)
    close(ref.conductance(below, above, x, b, 7, method), captum.detach(), 1e-10)
    captum = attr.InternalInfluence(net, net[2]).attribute(x, b, n_steps=7, method=method)
    close(ref.internal_influence(below, above, x, b, 7, method), captum.detach(), 1e-6)


def test_several_baselines_and_explicit_draws():
    """f = x^2: the share is (x - b)(b + a (x - b)) 2. Draws (b, a): (0, 1/2) and (1, 1/4) at x = 3."""
    x, b = torch.tensor([[3.0]], dtype=torch.float64), torch.tensor([[0.0], [1.0]], dtype=torch.float64)

    def square(t):
        return t[0, 0] ** 2

    close(ref.averaged_integrated_gradients(square, x, b, 3), [[(9.0 + 8.0) / 2]])
    close(ref.expected_gradients(square, x, b, [0.5, 0.25]), [[(3 * 3 + 2 * 3) / 2]])
    noise = torch.tensor([[1.0], [0.0]], dtype=torch.float64)  # x becomes 3.5 in the first draw
    close(ref.gradient_shap(square, x, b, [0.5, 0.25], noise, 0.5), [[(3.5 * 3.5 + 2 * 3) / 2]])
    close(ref.gradient_shap(square, x, b, [0.5, 0.25], noise, 0.5, multiply_by_inputs=False), [[(3.5 + 3) / 2]])
    close(ref.gradient_shap(linear, X, torch.cat([B, -B]), [0.1, 0.9]), W * X)


def test_conductance_tends_to_its_definition_and_is_complete(net, rows):
    """sum_i (x_i - b_i) int dF/dy_j dy_j/dx_i: the definition, by the Jacobian at 40 Gauss points."""
    x, b = rows
    below, above = net[:3], net[3:]
    definition = torch.zeros(1, 5, dtype=torch.float64)
    for alpha, weight in zip(*ref.integration_rule("gausslegendre", 40)):
        p = b + alpha * (x - b)
        jacobian = torch.autograd.functional.jacobian(lambda t: below(t)[0], p)[:, 0]  # (5, 6)
        definition += weight * ref.gradient(above, below(p)) * (jacobian @ (x - b)[0])
    errors = [
        (ref.conductance(below, above, x, b, n, "riemann_trapezoid") - definition).abs().max().item()
        for n in (100, 400)
    ]
    assert errors[1] < 1e-3
    assert errors[1] < 0.3 * errors[0]
    assert definition.sum().item() == pytest.approx(ref.value(net, x) - ref.value(net, b), abs=1e-9)


def test_conductance_and_influence_by_hand():
    """y = 2x, F = y^2, from 0 to 1, alphas 0, 1/2, 1: dF/dy 0 and 2, y moves by 1: 2. Influence: mean of 2y."""
    x, b = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    arguments = (lambda t: 2 * t, lambda y: y[0, 0] ** 2, x, b)
    close(ref.conductance(*arguments, 2, "riemann_trapezoid"), [[2.0]])
    close(ref.internal_influence(*arguments, 4, "riemann_left"), [[(0.0 + 1 + 2 + 3) / 4]])


# --- other paths ----------------------------------------------------------------------------------


def test_path_sum_and_idgi_by_hand():
    """f = x0^2 + 2 x1 over (0,0) -> (1,0) -> (1,1)."""

    def f(t):
        return t[0, 0] ** 2 + 2 * t[0, 1]

    points = [torch.tensor([p], dtype=torch.float64) for p in ([0.0, 0.0], [1.0, 0.0], [1.0, 1.0])]
    close(ref.path_sum(f, points), [[0.0, 2.0]])
    close(ref.path_sum(f, points, "right"), [[2.0, 2.0]])
    close(ref.path_sum(f, points, "middle"), [[1.0, 2.0]])
    close(ref.path_sum(f, points, "trapezoid"), [[1.0, 2.0]])
    # change 1 with gradient (0, 2): all to x1; change 2 with gradient (2, 2): halves
    close(ref.idgi(f, points), [[1.0, 2.0]])


def test_idgi_is_complete_on_any_path_and_safe_at_a_flat_point(net, rows):
    x, b = rows
    points = [b, torch.randn(1, 6, dtype=torch.float64), x]
    assert ref.completeness_gap(net, x, b, ref.idgi(net, points)) < 1e-12
    x, b = torch.ones(1, 2, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
    close(ref.idgi(cubic, [b, x]), [[0.0, 0.0]])


def test_straight_path_gives_the_left_riemann_sum(net, rows):
    x, b = rows
    points = ref.straight_path(x, b, 9)
    close(ref.path_sum(net, points), ref.integrated_gradients(net, x, b, 9, "riemann_left"))


@pytest.mark.parametrize("boundary", ["constant", "nearest", "reflect"])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5])
def test_blur_equals_scipy(sigma, boundary):
    ndimage = pytest.importorskip("scipy.ndimage")
    x = torch.rand(1, 2, 5, 6, dtype=torch.float64)
    expected = ndimage.gaussian_filter(x[0].numpy(), [0, sigma, sigma], mode=boundary)
    close(path.gaussian_blur(x, sigma, boundary=boundary)[0], torch.tensor(expected))
    assert torch.equal(path.gaussian_blur(x, 0), x)


def test_blur_ig_by_hand():
    """f = sum(w x): one step from sigma 0 gives -w (blur(h) - x)/h * max_sigma."""
    x, w = torch.rand(1, 1, 3, 3, dtype=torch.float64), torch.rand(1, 1, 3, 3, dtype=torch.float64)
    slope = (path.gaussian_blur(x, 0.5) - x) / 0.5
    close(path.blur_ig(lambda t: (w * t).sum(), x, [0.0, 2.0], grad_step=0.5), -w * slope * 2)
    assert path.blur_sigmas(4, 4) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert path.blur_sigmas(4, 4, sqrt=True) == [0.0, 2.0, 4 * 0.5**0.5, 4 * 0.75**0.5, 4.0]


def test_blur_ig_is_complete_in_the_limit():
    torch.manual_seed(0)
    x, w = torch.rand(1, 2, 4, 5, dtype=torch.float64), torch.randn(1, 2, 4, 5, dtype=torch.float64)

    def f(t):
        return torch.tanh((w * t).sum())

    sigmas = path.blur_sigmas(1.5, 400)
    attributions = path.blur_ig(f, x, sigmas, 1e-5, radius=8)
    wide = path.gaussian_blur(x, 1.5, radius=8)
    assert ref.completeness_gap(f, x, wide, attributions) < 0.01
    points = path.blur_path(x, sigmas, radius=8)
    close(points[0], wide)
    close(points[-1], x)
    close(ref.path_sum(f, points), attributions, 0.02)


def test_guided_ig_by_hand():
    """f = 4 x0 + x1, x = (1, 1), b = 0, two steps, free: x1 (smaller gradient) first, then x0."""
    x, b = torch.ones(1, 2, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
    close(path.guided_ig(lambda t: 4 * t[0, 0] + t[0, 1], x, b, 2, 0.25, 1.0), [[4.0, 1.0]])

    def f(t):  # gradient (x1 + 2, x0): at (0, 0) x1 moves to 1; at (0, 1) x1 is done, x0 moves with gradient 3
        return t[0, 0] * t[0, 1] + 2 * t[0, 0]

    close(path.guided_ig(f, x, b, 2, 0.5, 1.0), [[3.0, 0.0]])
    # one anchor: (0,0) -> (0,1/2) -> anchor (1/2,1/2) with gradients 0 and 2.5, then x1 (0.5) -> and x0 (3)
    close(path.guided_ig(f, x, b, 4, 0.25, 1.0, anchors=1), [[2.75, 0.25]])
    # may lead by 1/4: in step 1 x1 goes to 3/4, x0 to 1/4 with gradient 2; in step 2, x0 2.75, x1 0.25
    close(path.guided_ig(f, x, b, 2, 0.25, 0.25), [[0.25 * 2 + 0.75 * 2.75, 0.25 * 0.25]])


def test_guided_ig_by_hand_with_laggards_and_several_at_once():
    """f = x0/10 + x1 + 3 x2 + x1 x2 from 0 to 1: the order of the gradients (1/10, 1 + x2, 3 + x1) never changes.

    Four steps, one feature at a time, bound 1/4: the positions (1/2, 1/4, 0), (3/4, 1/2, 1/4), (1, 3/4, 1/2), all 1,
    where from step 2 on x2 is first pulled up to the bound. Two steps, two at a time, free: (3/4, 3/4, 0), (1, 1, 1).
    """
    x, b = torch.ones(1, 3, dtype=torch.float64), torch.zeros(1, 3, dtype=torch.float64)

    def f(t):
        return t[0, 0] / 10 + t[0, 1] + 3 * t[0, 2] + t[0, 1] * t[0, 2]

    third = (3.25 + 3.5 + 3.75 + 3.75) / 4
    close(path.guided_ig(f, x, b, 4, 0.0, 0.25), [[0.1, (1 + 1 + 1.25 + 1.5) / 4, third]])
    close(path.guided_ig(f, x, b, 2, 0.5, 1.0), [[0.1, 1.0, 3.75]])


def test_guided_ig_between_integrated_gradients_and_completeness(net, rows):
    x, b = rows
    b[0, 2] = x[0, 2]
    close(path.guided_ig(net, x, b, 11, 0.25, 0.0), ref.integrated_gradients(net, x, b, 11, "riemann_left"))
    for max_dist, anchors in [(1.0, 0), (0.05, 0), (1.0, 4)]:
        attributions = path.guided_ig(net, x, b, 1000, 0.25, max_dist, anchors)
        assert attributions[0, 2] == 0
        assert ref.completeness_gap(net, x, b, attributions) < 0.01
    close(path.guided_ig(linear, X, B, 10, 0.3, 0.1), W * (X - B))
    with pytest.raises(ValueError, match="anchors"):
        path.guided_ig(net, x, b, 10, anchors=2)
