"""The slow references of the CAM family, on a 2 x 2 case worked by hand and against Captum, scikit-learn and torch."""

import math

import pytest
import torch
from reference import cam, cam_masks
from reference.gradient import gradient
from torch import nn
from torch.nn import functional as F

A = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[4.0, -3.0], [2.0, 1.0]]], dtype=torch.float64)
G = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 2.0], [0.0, -5.0]]], dtype=torch.float64)


def above(a):
    """Linear, with gradient G."""
    return (G * a).sum()


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, torch.as_tensor(b, dtype=a.dtype), rtol=tolerance, atol=tolerance)


@pytest.fixture
def layers():
    """x (1, 2, 6, 5) -> activations (1, 4, 6, 5) after two layers -> one number."""
    torch.manual_seed(0)
    first, second, head = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 3, 3), nn.Linear(3, 1)
    for module in (first, second, head):
        module.double().requires_grad_(False)
    return [first, torch.relu, second, torch.relu, lambda z: head(z.mean((2, 3)))]


@pytest.fixture
def x():
    torch.manual_seed(1)
    return torch.randn(1, 2, 6, 5, dtype=torch.float64)


def run(layers, x):
    for layer in layers:
        x = layer(x)
    return x


# --- gradients ------------------------------------------------------------------------------------


def test_gradient_maps_by_hand():
    """Mean gradients 1/2 and -1; sums of A 10 and 4."""
    signed = {"relu": False}
    close(cam.gradcam(above, A), [[0.0, 4.0], [0.0, 1.0]])
    close(cam.gradcam(above, A, **signed), [[-3.5, 4.0], [-0.5, 1.0]])
    close(cam.cam(A, [0.5, -1.0]), [[-3.5, 4.0], [-0.5, 1.0]])
    close(cam.xgradcam(above, A, **signed), [[-14.5, 12.25], [-6.0, -1.75]])
    close(cam.hirescam(above, A, **signed), [[-3.0, -6.0], [0.0, -1.0]])
    close(cam.hirescam(above, A), [[0.0, 0.0], [0.0, 0.0]])
    close(cam.elementwise_cam(above, A), [[1.0, 0.0], [0.0, 4.0]])
    close(cam.layercam(above, A, **signed), [[1.0, -6.0], [0.0, 4.0]])
    close(cam.layercam(above, A), [[1.0, 0.0], [0.0, 4.0]])
    # alpha: 1 / (2 + 10) twice; 4 / (8 + 4 * 8) = 1/10, times relu(g) = 2
    close(cam.gradcam_plusplus(above, A, **signed), (A[0] / 6 + A[1] / 5))


def test_xgradcam_of_a_channel_that_adds_up_to_zero():
    zero = torch.stack([A[0], torch.tensor([[1.0, -1.0], [2.0, -2.0]], dtype=torch.float64)])
    close(cam.xgradcam(above, zero, relu=False), A[0] / 2)


def test_gradcam_equals_captum(layers, x):
    attr = pytest.importorskip("captum.attr")
    net = nn.Sequential(layers[0], nn.ReLU(), layers[2], nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    expected = attr.LayerGradCam(net, net[1]).attribute(x, target=1, relu_attributions=True)[0, 0]
    activations = run(layers[:2], x)[0]
    close(cam.gradcam(lambda a: net[2:](a[None])[0, 1], activations), expected.detach(), 1e-10)


def test_plusplus_weights_are_the_true_derivatives_of_the_exponential():
    """alpha = Y'' / (2 Y'' + (sum A) Y''') by autograd, for Y = exp(S), entry by entry; eq. 19 uses powers of S'."""
    a, g = A.abs() / 4, G / 5
    weights = []
    for k in range(2):
        weight = 0.0
        for i in range(2):
            for j in range(2):

                def score(t, at=(k, i, j)):
                    shifted = a.clone()
                    shifted[at] = t
                    return torch.exp((g * shifted).sum())

                t = a[k, i, j].clone().requires_grad_()
                d1 = torch.autograd.grad(score(t), t, create_graph=True)[0]
                d2 = torch.autograd.grad(d1, t, create_graph=True)[0]
                d3 = torch.autograd.grad(d2, t)[0] if d2.requires_grad else torch.zeros(())
                bottom = 2 * d2 + a[k].sum() * d3
                weight += (d2 / bottom * d1.clamp(min=0)).item() if bottom != 0 else 0.0
        weights.append(weight)
    factor = math.exp((g * a).sum())  # of dY/dA, which the reference leaves out
    close(cam.weighted_map(a, weights), factor * cam.gradcam_plusplus(lambda b: (g * b).sum(), a), 1e-10)


def test_smoothgrad_plusplus(layers, x):
    def below(t):
        return run(layers[:2], t)[0]

    def rest(a):
        return run(layers[2:], a[None])

    quiet, loud = torch.zeros(2, 2, 6, 5, dtype=torch.float64), torch.randn(3, 2, 6, 5, dtype=torch.float64)
    plain = cam.gradcam_plusplus(rest, below(x), relu=False)
    close(cam.smoothgrad_cam_plusplus(below, rest, x, quiet, 1.0, relu=False), plain)
    close(cam.smoothgrad_cam_plusplus(below, rest, x, loud, 0.0, relu=False), plain)
    # one channel of one cell: y = a^2, a = x = 1, noise +-1 at sigma 1/2: g = 3 and 1, means 2, 5, 14
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    arguments = (lambda t: t[0], lambda a: a.pow(2).sum(), one, torch.cat([one, -one]), 0.5)
    close(cam.smoothgrad_cam_plusplus(*arguments), [[2 * 5 / (10 + 14)]])
    close(cam.smoothgrad_cam_plusplus(*arguments, numerator="first"), [[2 * 2 / (10 + 14)]])


def test_shapleycam_by_hand():
    """Linear: Grad-CAM. y = sum A^2: g - H A / 2 = A, complete element by element. y = sum A^3: zero."""
    close(cam.shapleycam(above, A), cam.gradcam(above, A))
    close(cam.shapleycam(above, A, elementwise=True, relu=False), cam.hirescam(above, A, relu=False))
    close(cam.shapleycam(lambda a: a.pow(2).sum(), A, relu=False), 2.5 * A[0] + A[1])
    close(cam.shapleycam(lambda a: a.pow(2).sum(), A, elementwise=True), (A**2).sum(0))
    close(cam.shapleycam(lambda a: a.pow(3).sum(), A), torch.zeros(2, 2))
    # a Hessian with entries off the diagonal: y = A0(0,0) A1(1,1), H A = g, so half of Grad-CAM
    mixed = (lambda a: a[0, 0, 0] * a[1, 1, 1], A)
    close(cam.shapleycam(*mixed), cam.gradcam(*mixed) / 2)


def test_finercam_by_hand():
    """Scores y = (G.A, sum A0, sum A1): the gradient of y0 - strength (3 y1 + y2) / 4."""

    def scores(a):
        return torch.stack([(G * a).sum(), a[0].sum(), a[1].sum()])

    expected = (0.5 - 0.8 * 0.75) * A[0] + (-1 - 0.8 * 0.25) * A[1]
    close(cam.finercam(scores, A, 0, [1, 2], 0.8, weights=[3, 1], relu=False), expected)
    close(cam.finercam(scores, A, 0, [1, 2], 0.8, relu=False), (0.5 - 0.4) * A[0] + (-1 - 0.4) * A[1])
    close(cam.finercam(scores, A, 0, [1], 0.0, base=cam.layercam), cam.layercam(above, A))
    assert cam.similar_classes(torch.tensor([5.0, 1.0, 7.0, 4.0, 6.0]), 0, 3) == [3, 4, 2]


# --- principal components -------------------------------------------------------------------------


def test_eigencam_by_hand():
    """Rows (channel pairs) on the line t (2, 1), t = 0, 1, 2, 5: the projection is sqrt(5) (t - 2)."""
    t = torch.tensor([[0.0, 1.0], [2.0, 5.0]], dtype=torch.float64)
    close(cam.eigencam(torch.stack([2 * t, t]), relu=False), 5**0.5 * (t - 2))
    close(cam.eigencam(torch.stack([2 * t, t]), centre=False), 5**0.5 * t)
    close(cam.eigencam(-torch.stack([2 * t, t])), (5**0.5 * (2 - t)).clamp(min=0))
    close(cam.eigencam(torch.ones(3, 2, 2, dtype=torch.float64)), torch.zeros(2, 2))
    weights = torch.tensor([2.0, 1.0], dtype=torch.float64).reshape(2, 1, 1)
    close(cam.eigengradcam(lambda a: (weights * a).sum(), torch.stack([t, t]), relu=False), 5**0.5 * (t - 2))


@pytest.mark.parametrize("name", ["linear", "rbf", "sigmoid", "poly"])
def test_kpcacam_equals_scikit_learn_up_to_the_sign(name):
    decomposition = pytest.importorskip("sklearn.decomposition")
    torch.manual_seed(0)
    a = torch.rand(5, 3, 4, dtype=torch.float64)
    points = a.reshape(5, -1).T
    points = (points - points.mean(0)).numpy()
    expected = decomposition.KernelPCA(n_components=1, kernel=name).fit_transform(points)[:, 0]
    ours = cam.kpcacam(a, name, relu=False)
    close(ours.abs(), torch.tensor(expected).reshape(3, 4).abs(), 1e-8)
    assert (ours * a.sum(0)).sum() > 0
    close(cam.kpcacam(a, name), ours.clamp(min=0))


def test_kpcacam_with_a_linear_kernel_is_eigencam():
    torch.manual_seed(0)
    a = torch.randn(5, 3, 4, dtype=torch.float64)
    close(cam.kpcacam(a, "linear", relu=False), cam.eigencam(a, relu=False), 1e-8)


# --- masks ----------------------------------------------------------------------------------------


def test_scorecam_by_hand():
    """The grid is the picture's: masks (A0 - 1) / 3 and (A1 + 3) / 7, f their weighted sums."""
    w = torch.tensor([[1.0, -1.0], [0.5, 2.0]], dtype=torch.float64)
    x = torch.full((1, 1, 2, 2), 3.0, dtype=torch.float64)
    s0 = -1 * 1 + 0.5 * 2 + 2 * 3
    s1 = 3 / 7 * (1 * 7 - 0 + 0.5 * 5 + 2 * 4)
    p = math.exp(s0) / (math.exp(s0) + math.exp(s1))
    f = lambda t: (w * t).sum()  # noqa: E731
    expected = p * A[0] + (1 - p) * A[1]
    close(cam_masks.scorecam(f, x, A, relu=False), expected)
    close(cam_masks.iscam(f, x, A, [1.0], relu=False), expected)
    quiet = torch.zeros(2, 2, 2, 2, dtype=torch.float64)
    close(cam_masks.sscam(f, x, A, quiet, 1.0, relu=False), expected)
    half = math.exp(0.75 * s0) / (math.exp(0.75 * s0) + math.exp(0.75 * s1))
    close(cam_masks.iscam(f, x, A, [0.5, 1.0], relu=False), half * A[0] + (1 - half) * A[1])


def test_scorecam_survives_large_scores():
    x = torch.ones(1, 1, 2, 2, dtype=torch.float64)
    close(cam_masks.scorecam(lambda t: 1000 * t[0, 0, 0, 0], x, A), A[1].clamp(min=0))


def test_sscam_by_hand():
    """f = sum of squares, one cell, masks 0 (constant maps): noise alone speaks, (2 s)^2 = s^2 * 4 against 0."""
    x, a = torch.full((1, 1, 1, 1), 2.0, dtype=torch.float64), torch.ones(2, 1, 1, dtype=torch.float64)
    noise = torch.tensor([[1.0, 0.0], [3.0, 0.0]], dtype=torch.float64).reshape(2, 2, 1, 1)
    square = lambda t: t.pow(2).sum()  # noqa: E731
    a[1] = 5.0
    s = (1 + 9) / 2 * 0.25
    for where, score in [("mask", 4 * s), ("input", s)]:
        p = math.exp(score) / (math.exp(score) + 1)
        e = noise if where == "mask" else noise[:, :, None]
        close(cam_masks.sscam(square, x, a, e, 0.5, where), [[p + 5 * (1 - p)]])


def test_ablationcam_by_hand():
    """y = 5 - 15 = -10 with drops 5 and -15 (linear); shifted by 30: y = 20."""
    close(cam_masks.ablationcam(above, A, relu=False), -0.5 * A[0] + 1.5 * A[1])
    close(cam_masks.ablationcam(lambda a: above(a) + 30, A, relu=False), 0.25 * A[0] - 0.75 * A[1])
    with pytest.raises(ZeroDivisionError, match="score is 0"):
        cam_masks.ablationcam(lambda a: 0 * a.sum(), A)


def test_adam_equals_torch():
    def objective(u):
        return -((u - torch.tensor([1.0, -2.0, 0.5])) ** 4).sum()

    u = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([u], lr=0.05, maximize=True)
    for _ in range(20):
        optimizer.zero_grad()
        objective(u).backward()
        optimizer.step()
    close(cam_masks.adam(objective, torch.zeros(3, dtype=torch.float64), 20, 0.05), u.detach(), 1e-10)


def test_opticam_turns_to_the_channel_that_keeps_the_score():
    """f sums the left column: channel 0 is there, channel 1 elsewhere. No step: equal weights."""
    a = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 0.5]]], dtype=torch.float64)
    x = torch.ones(1, 1, 4, 4, dtype=torch.float64)
    left = lambda t: t[..., :2].sum() - t[..., 2:].sum()  # noqa: E731
    close(cam_masks.opticam(left, x, a, 0), a.mean(0))
    found = cam_masks.opticam(left, x, a, 60, lr=0.1)
    assert found[0, 0] > 0.95
    assert found[0, 1] < 0.05
    constant = cam_masks.opticam(left, x, torch.ones_like(a), 3)
    close(constant, torch.ones(2, 2))


# --- back to the input ----------------------------------------------------------------------------


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("shape, size", [((5,), (13,)), ((3, 4), (7, 9)), ((2, 3, 3), (5, 6, 4)), ((6, 5), (3, 2))])
def test_upsample_equals_torch(shape, size, align_corners):
    m = torch.randn(*shape, dtype=torch.float64)
    mode = ["linear", "bilinear", "trilinear"][len(shape) - 1]
    close(
        cam.upsample(m, size, align_corners),
        F.interpolate(m[None, None], size, mode=mode, align_corners=align_corners)[0, 0],
    )


def test_guided_backprop_by_hand_and_against_captum(layers, x):
    """y = -relu(x0) + relu(2 x1) - relu(x2): gradient (-1, 2, 0) at (1, 1, -1), of which only 2 gets through."""
    w = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)
    v = torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64)
    short = [lambda t: w * t, torch.relu, lambda t: (v * t).sum()]
    close(cam.guided_backprop(short, torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)), [0.0, 2.0, 0.0])
    attr = pytest.importorskip("captum.attr")
    mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net = nn.Sequential(layers[0], nn.ReLU(), layers[2], nn.ReLU(), mean)
    expected = attr.GuidedBackprop(net).attribute(x.clone().requires_grad_(), target=1).detach()
    guided = cam.guided_backprop([*layers[:4], lambda z: mean(z)[0, 1]], x)
    close(guided, expected, 1e-10)
    assert not torch.allclose(guided, gradient(lambda t: net(t)[0, 1], x))
    grad_map = torch.rand(3, 2, dtype=torch.float64)
    resized = F.interpolate(grad_map[None, None], x.shape[2:], mode="bilinear")
    close(cam.guided_gradcam(guided, grad_map), guided * resized)


def test_full_gradients_are_complete_and_fullgrad_by_hand(layers, x):
    first, second = layers[0], layers[2]

    def f(t, shifts):
        z = torch.relu(first(t) + shifts[0])
        z = torch.relu(second(z) + shifts[1])
        return layers[4](z) + shifts[2].sum()

    biases = [first.bias, second.bias, torch.tensor([0.7], dtype=torch.float64)]
    shapes = [(1, 4, 6, 5), (1, 3, 4, 3), (1, 1)]
    input_term, terms = cam.full_gradients(f, x, biases, shapes)
    head_bias = layers[4](torch.zeros(1, 3, 1, 1, dtype=torch.float64)).item()
    total = input_term.sum() + sum(t.sum() for t in terms)
    # the head's own bias is not among `biases`, a shift of gradient 1 and "bias" 0.7 is
    assert total.item() == pytest.approx(run(layers, x).item() - head_bias + 0.7, abs=1e-12)
    assert [t.shape for t in terms] == [torch.Size(s) for s in shapes]

    # y = sum w x + a bias map of slope v: |x w| and |b v| brought to [0, 1], added up;
    # a layer with a constant term and one without a grid add nothing
    w = torch.tensor([[0.0, 1.0], [-2.0, 4.0]], dtype=torch.float64)
    v = torch.tensor([[1.0, 2.0], [3.0, 5.0]], dtype=torch.float64)
    ones = torch.ones(1, 1, 2, 2, dtype=torch.float64)
    found = cam.fullgrad(
        lambda t, s: (w * t).sum() + (v * s[0]).sum() + s[1].sum() + (v[0] * s[2]).sum(),
        ones,
        [torch.tensor(b, dtype=torch.float64) for b in ([-3.0], [2.0], [1.0, 5.0])],
        [(1, 1, 2, 2), (1, 1, 2, 2), (1, 2)],
    )
    close(found, [[0.0, 0.25 + 0.25], [0.5 + 0.5, 2.0]])
