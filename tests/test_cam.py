"""The class activation maps: against their second versions and each other; what all promise."""

import pytest
import torch
from reference import cam as slow
from reference import cam_masks as slow_masks
from torch import nn

import torchwhy as tw
from torchwhy.engine.run.randomness import make_generator, normal_draws

CLOSE = {"rtol": 1e-9, "atol": 1e-12}
TARGETS = [0, 2, 1]


def network():
    """(N, 3, 17, 13) → (N, 6), smooth above layer "3", whose grid is (6, 4); two of its channels are always 0."""
    torch.manual_seed(0)
    below = [nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(inplace=True), nn.Conv2d(6, 5, 3), nn.ReLU()]
    above = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 4), nn.GELU(), nn.Linear(4, 6)]
    net = nn.Sequential(*below, *above).double().eval()
    with torch.no_grad():
        net[2].weight[[1, 3]], net[2].bias[[1, 3]] = 0, -1
        net[8].bias += 1  # scores away from 0, of which Ablation-CAM takes shares
    return net.requires_grad_(False)


NET = network()
X = torch.randn(3, 3, 17, 13, dtype=torch.double, generator=torch.Generator().manual_seed(1))
A = NET[:4](X)


def above(k):
    return lambda a: NET[4:](a[None])[0, k]


def score(k):
    return lambda x: NET(x)[0, k]


def by_row(function):
    """``function(i, k)`` of each row and its target, as maps (N, 1, *grid)."""
    return torch.stack([function(i, k) for i, k in enumerate(TARGETS)])[:, None]


def grid(method, **options):
    return method(NET, layer="3", upsample=False, **options).attribute(X, TARGETS)


GRADIENT = {
    tw.GradCAM: slow.gradcam,
    tw.GradCAMPlusPlus: slow.gradcam_plusplus,
    tw.XGradCAM: slow.xgradcam,
    tw.HiResCAM: slow.hirescam,
    tw.LayerCAM: slow.layercam,
    tw.ShapleyCAM: slow.shapleycam,
    tw.EigenGradCAM: slow.eigengradcam,
}


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("method", GRADIENT, ids=lambda m: m.__name__)
def test_gradient_maps(method, relu):
    expected = by_row(lambda i, k: GRADIENT[method](above(k), A[i], relu=relu))
    torch.testing.assert_close(grid(method, relu=relu), expected, **CLOSE)


@pytest.mark.parametrize("method", GRADIENT, ids=lambda m: m.__name__)
def test_maps_are_brought_to_the_size_of_the_input(method):
    found = method(NET).attribute(X, TARGETS)  # layer "3" is the one that is found
    expected = by_row(lambda i, k: slow.upsample(GRADIENT[method](above(k), A[i]), (17, 13)))
    torch.testing.assert_close(found, expected, **CLOSE)


def test_elementwise():
    torch.testing.assert_close(
        grid(tw.ElementWiseCAM), by_row(lambda i, k: slow.elementwise_cam(above(k), A[i])), **CLOSE
    )
    expected = by_row(lambda i, k: slow.shapleycam(above(k), A[i], elementwise=True))
    torch.testing.assert_close(grid(tw.ShapleyCAM, elementwise=True), expected, **CLOSE)


@pytest.mark.parametrize("numerator", ["first", "second"])
def test_smoothgrad_plusplus(numerator):
    noise = normal_draws(X, make_generator(0))[torch.arange(5)]
    found = grid(tw.SmoothGradCAMPlusPlus, n_samples=5, stdevs=0.3, generator=0, numerator=numerator)

    def expected(i, k):
        x = X[i : i + 1]
        return slow.smoothgrad_cam_plusplus(lambda z: NET[:4](z)[0], above(k), x, noise, 0.3, numerator=numerator)

    torch.testing.assert_close(found, by_row(expected), **CLOSE)


@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("layer", ["1", "3"])  # with fewer channels than cells, and with more
def test_principal_components(centre, layer):
    a = NET[: int(layer) + 1](X)
    found = tw.EigenCAM(NET, layer=layer, upsample=False, centre=centre).attribute(X)
    torch.testing.assert_close(found, by_row(lambda i, k: slow.eigencam(a[i], centre=centre)), rtol=1e-7, atol=1e-9)
    wide = torch.randn(2, 30, 3, 2, dtype=torch.double, generator=torch.Generator().manual_seed(2))
    found = tw.EigenCAM(NET, centre=centre).project(wide).clamp(min=0)
    torch.testing.assert_close(found, torch.stack([slow.eigencam(m, centre=centre) for m in wide]), **CLOSE)


@pytest.mark.parametrize("kernel", ["sigmoid", "rbf", "poly", "linear"])
def test_kernel_components(kernel):
    found = grid(tw.KPCACAM, kernel=kernel, relu=False)
    expected = by_row(lambda i, k: slow.kpcacam(A[i], kernel, relu=False))
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


def test_score_cam_and_its_line():
    expected = by_row(lambda i, k: slow_masks.scorecam(score(k), X[i : i + 1], A[i]))
    torch.testing.assert_close(grid(tw.ScoreCAM), expected, **CLOSE)
    points = [1 / 3, 2 / 3, 1.0]
    expected = by_row(lambda i, k: slow_masks.iscam(score(k), X[i : i + 1], A[i], points))
    torch.testing.assert_close(grid(tw.ISCAM, n_steps=3), expected, **CLOSE)


@pytest.mark.parametrize("where", ["mask", "input"])
def test_score_cam_with_noise(where):
    shape = (1, 17, 13) if where == "mask" else (3, 17, 13)
    noise = normal_draws(X.new_empty(1, *shape), make_generator(0))[torch.arange(4 * 5)].view(4, 5, *shape)
    noise = noise[:, :, 0] if where == "mask" else noise
    expected = by_row(lambda i, k: slow_masks.sscam(score(k), X[i : i + 1], A[i], noise, 0.5, where=where))
    found = grid(tw.SSCAM, n_samples=4, stdev=0.5, where=where, generator=0)
    torch.testing.assert_close(found, expected, **CLOSE)


def test_score_cam_runs_a_channel_once_and_those_without_a_pattern_together():
    e = tw.ScoreCAM(NET, layer="3").explain(X, TARGETS)
    assert e.evaluations == 3 + 3 * 4  # the layer, three channels, and once for those that are always 0
    without = tw.ScoreCAM(NET, layer="3", max_channels=2, upsample=False, relu=False)
    assert without.explain(X, TARGETS).evaluations == 3 + 3 * 2
    alone = torch.cat([without.attribute(X[i : i + 1], k) for i, k in enumerate(TARGETS)])
    torch.testing.assert_close(without.attribute(X, TARGETS), alone, **CLOSE)

    def expected(i, k):
        kept = A[i].square().sum((1, 2)).topk(2).indices
        return slow_masks.scorecam(score(k), X[i : i + 1], A[i][kept], relu=False)

    torch.testing.assert_close(alone, by_row(expected), **CLOSE)


def test_ablation():
    e = tw.AblationCAM(NET, layer="3", upsample=False, relu=False).explain(X, TARGETS)
    expected = by_row(lambda i, k: slow_masks.ablationcam(above(k), A[i], relu=False))
    torch.testing.assert_close(e.attributions, expected, **CLOSE)
    assert e.evaluations == 3 + 3 + 2 * 2 + 3 * 3  # activations, scores, the trial, the channels that are not 0


def test_ablation_runs_what_is_below_the_layer_on_one_row():
    seen = []
    handle = NET[0].register_forward_hook(lambda m, i, o: seen.append(len(o)))
    tw.AblationCAM(NET, layer="3", check=False).attribute(X, TARGETS)
    handle.remove()
    assert seen == [3, 2, 1, 1, 1]  # the activations, the trial, the scores, the channels


class Around(nn.Module):
    """A path around layer "conv": what is below cannot be left out."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(torch.tanh(torch.relu(self.conv(x) + x).mean((2, 3))))


class RowsOfTheInput(nn.Module):
    """Relies, above layer "conv", on as many rows as the input has."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 3)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).view(len(x), 3, *x.shape[2:]).mean((2, 3)))


def test_ablation_runs_nothing_more_where_the_rows_below_are_needed():
    seen = []
    net = RowsOfTheInput().double().eval()
    handle = net.conv.register_forward_hook(lambda m, i, o: seen.append(len(o)))
    tw.AblationCAM(net, layer="conv", check=False).attribute(X, TARGETS)
    handle.remove()
    assert seen == [3, 2, 1, 3, 9]  # the activations, the trial with both rows and with one, the scores, the channels


@pytest.mark.parametrize("same", [False, True])
def test_ablation_with_a_path_around_the_layer(same):
    net = Around().double().eval()
    x = X[[0, 0, 1]] if same else X
    method = tw.AblationCAM(net, layer="conv", upsample=False, relu=False)
    alone = torch.cat([method.attribute(x[i : i + 1], 1) for i in range(3)])
    torch.testing.assert_close(method.attribute(x, 1), alone, **CLOSE)

    def rest(i):
        return lambda a: net.head(torch.tanh(torch.relu(a[None] + x[i : i + 1]).mean((2, 3))))[0, 1]

    expected = torch.stack([slow_masks.ablationcam(rest(i), net.conv(x)[i].detach(), relu=False) for i in range(3)])
    torch.testing.assert_close(alone[:, 0], expected, **CLOSE)


def test_opti_cam():
    expected = by_row(lambda i, k: slow_masks.opticam(score(k), X[i : i + 1], A[i], 7))
    torch.testing.assert_close(grid(tw.OptiCAM, n_steps=7), expected, **CLOSE)


@pytest.mark.parametrize("weighting", ["equal", "softmax"])
def test_finer_cam(weighting):
    def expected(i, k):
        y = NET(X[i : i + 1])[0]
        near = slow.similar_classes(y, k, 3)
        weights = y[near].softmax(0) if weighting == "softmax" else None
        return slow.finercam(lambda a: NET[4:](a[None])[0], A[i], k, near, 0.6, weights, base=slow.gradcam_plusplus)

    found = grid(tw.FinerCAM, weighting=weighting, of=tw.GradCAMPlusPlus(NET))
    torch.testing.assert_close(found, by_row(expected), **CLOSE)
    given = grid(tw.FinerCAM, references=[3, 4], strength=1.0, relu=False)
    expected = by_row(
        lambda i, k: slow.finercam(lambda a: NET[4:](a[None])[0], A[i], k, [3, 4], 1.0, relu=False),
    )
    torch.testing.assert_close(given, expected, **CLOSE)


def pooled(*between):
    torch.manual_seed(0)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 6)]
    below = [nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(inplace=True), nn.Conv2d(6, 5, 3)]
    return nn.Sequential(*below, *between, *head).double().eval().requires_grad_(False)


def test_cam():
    net = pooled()
    a = net[:3](X)
    found = tw.CAM(net, upsample=False).attribute(X, TARGETS)
    torch.testing.assert_close(found, by_row(lambda i, k: slow.cam(a[i], net[-1].weight[k])), **CLOSE)
    scores = net(X)[range(3), TARGETS] - net[-1].bias[TARGETS]
    torch.testing.assert_close(found.mean((1, 2, 3)), scores, **CLOSE)
    grad = tw.GradCAM(net, upsample=False, relu=False).attribute(X, TARGETS)
    torch.testing.assert_close(found, grad * found[0, 0].numel(), **CLOSE)
    rectified = pooled(nn.ReLU())
    below, after = (tw.CAM(rectified, layer=n, upsample=False).attribute(X, TARGETS) for n in ("2", "3"))
    torch.testing.assert_close(below, after, **CLOSE)
    with pytest.raises(ValueError, match="not followed by global average pooling"):
        tw.CAM(net, layer="1").attribute(X, 0)
    with pytest.raises(ValueError, match="not followed by global average pooling"):
        tw.CAM(NET).attribute(X, 0)
    with pytest.raises(TypeError, match="CAM explains a class"):
        tw.CAM(net).attribute(X, lambda y: y[:, 0])


def test_fullgrad():
    torch.manual_seed(0)
    first, norm, second = nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.Conv2d(6, 5, 3)
    dense, head = nn.Linear(20, 4), nn.Linear(4, 6)
    for t in (norm.running_mean, norm.weight.data, norm.bias.data):
        nn.init.normal_(t)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    parts = [first, norm, nn.ReLU(inplace=True), second, nn.ReLU(), pool, dense, nn.ReLU(), head]
    net = nn.Sequential(*parts).double().eval().requires_grad_(False)

    def shifted(k):
        def run(x, s):
            z = second(torch.relu(norm(first(x) + s[0]) + s[1])) + s[2]
            return (head(torch.relu(dense(pool(torch.relu(z))) + s[3])) + s[4])[0, k]

        return run

    adds = norm.bias - norm.running_mean * norm.weight / (norm.running_var + norm.eps).sqrt()
    biases = [first.bias, adds, second.bias, dense.bias, head.bias]
    shapes = [(1, 6, 8, 6), (1, 6, 8, 6), (1, 5, 6, 4), (1, 4), (1, 6)]
    e = tw.FullGrad(net).explain(X, TARGETS)
    expected = by_row(lambda i, k: slow.fullgrad(shifted(k), X[i : i + 1], biases, shapes))
    torch.testing.assert_close(e.attributions, expected, **CLOSE)
    assert (e.completeness_gap < 1e-12).all()
    mixer = nn.Sequential(
        nn.Conv2d(3, 5, 4, 4), nn.Flatten(2), nn.Linear(12, 5), nn.ReLU(), nn.Flatten(), nn.Linear(25, 2)
    )
    e = tw.FullGrad(mixer.double().eval()).explain(X[..., :16, :12], 1)  # a bias along the last axis
    assert (e.completeness_gap < 1e-12).all()
    assert (tw.FullGrad(NET).explain(X, TARGETS).completeness_gap > 1e-4).all()  # GELU is not piecewise linear
    with pytest.raises(ValueError, match="leave it out"):
        tw.FullGrad(net, layer="0").attribute(X, 0)
    with pytest.raises(TypeError, match="plain callable"):
        tw.FullGrad(lambda x: net(x)).attribute(X, 0)


def test_guided_grad_cam():
    layers = [NET[0], torch.relu, NET[2], torch.relu, *NET[4:7]]
    net = nn.Sequential(*NET[:7]).eval()
    found = tw.GuidedGradCAM(net, layer="3").attribute(X, TARGETS)

    def expected(i, k):
        guided = slow.guided_backprop([*layers, lambda y: y[:, k].sum()], X[i : i + 1])
        return slow.guided_gradcam(guided, slow.gradcam(lambda a: net[4:](a[None])[0, k], A[i]))

    torch.testing.assert_close(found, torch.cat([expected(i, k) for i, k in enumerate(TARGETS)]), **CLOSE)
    by_name = tw.GuidedGradCAM(net).attribute({"input": X}, TARGETS)
    torch.testing.assert_close(by_name["input"], found, **CLOSE)


# --- what all of them promise ---------------------------------------------------------------------


MAPS = [
    m for m in tw.methods().values() if m.__module__.startswith("torchwhy.cam.") and m not in (tw.CAM, tw.GuidedGradCAM)
]


@pytest.mark.parametrize("method", [tw.EigenCAM, tw.EigenGradCAM, tw.KPCACAM], ids=lambda m: m.__name__)
def test_cells_that_are_all_the_same_have_no_component(method):
    net = pooled()
    with torch.no_grad():
        net[2].weight.zero_()
    for centre in (True, False) if method is tw.KPCACAM else (True,):
        assert (method(net, layer="2", centre=centre).attribute(X, 1) == 0).all()


@pytest.mark.parametrize("method", [m for m in MAPS if m is not tw.FullGrad], ids=lambda m: m.__name__)
def test_a_constant_input_gives_finite_maps(method):
    net = pooled()
    options = {"generator": 0} if "generator" in method.__dataclass_fields__ else {}
    options |= {"n_steps": 2} if "n_steps" in method.__dataclass_fields__ else {}
    with torch.no_grad():
        net[2].weight.zero_()
        net[2].bias.zero_()
    found = method(net, layer="2", **options).attribute(X[:1], 1)
    assert (found == 0).all()


def test_several_layers():
    one, two = (tw.GradCAM(NET, layer=name).attribute(X, TARGETS) for name in ("1", "3"))
    coarse = [tw.GradCAM(NET, layer=name, upsample=False).attribute(X, TARGETS) for name in ("1", "3")]
    peaks = [c.amax((1, 2, 3), keepdim=True) for c in coarse]
    assert (peaks[0] > 0).all()
    expected = (one / peaks[0] + torch.where(peaks[1] > 0, two / peaks[1], 0)) / 2
    torch.testing.assert_close(tw.GradCAM(NET, layer=["1", "auto"]).attribute(X, TARGETS), expected, **CLOSE)
    both = tw.AblationCAM(NET, layer=["1", "3"]).attribute(X, TARGETS)
    assert both.shape == (3, 1, 17, 13)
    with pytest.raises(ValueError, match="give one layer"):
        tw.GradCAM(NET, layer=["1", "3"], upsample=False).attribute(X, 0)


def test_nothing_below_the_layer_is_differentiated_and_one_pass_is_enough():
    net, below, passes = network(), [], []
    net[0].register_forward_hook(lambda m, i, o: below.append(o.requires_grad))
    net[6].register_forward_hook(lambda m, i, o: passes.append(o.requires_grad))
    tw.GradCAM(net, layer="3", check=False).attribute(X, TARGETS)
    assert below == [False]
    assert passes == [True]


def test_what_passes_a_layer_is_read_before_it_is_changed_in_place():
    a = tw.LayerActivation(NET, layer="0").attribute(X, 0)
    torch.testing.assert_close(a, NET[0](X), **CLOSE)
    a = tw.EigenCAM(NET, layer=["0", "1"]).attribute(X)
    assert torch.isfinite(a).all()


def test_a_model_that_writes_to_its_input_leaves_the_caller_s_alone():
    class Writes(nn.Module):
        def forward(self, x):
            return NET(x.mul_(0.5))

    x = X.clone()
    tw.Saliency(Writes(), batch_size=1).attribute(x, 0)
    tw.IntegratedGradients(Writes(), n_steps=2, batch_size=1).explain(x, 0)
    assert torch.equal(x, X)
