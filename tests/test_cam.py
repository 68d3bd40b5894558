"""The class activation maps: against their second versions, pytorch-grad-cam and each other; grids, layers, bad input."""

import copy

import pytest
import torch
from nets import inputs, make
from reference import cam as slow
from reference import cam_masks as slow_masks
from torch import nn
from torch.nn import functional as F

import torchwhy as tw
from torchwhy.engine.randomness import generator_of, normal_draws

CLOSE = {"rtol": 1e-9, "atol": 1e-12}
TARGETS = [0, 2, 1]


def network():
    """(N, 3, 17, 13) → (N, 6), smooth above layer "3", whose grid is (6, 4); its second channel is always 0."""
    torch.manual_seed(0)
    below = [nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(inplace=True), nn.Conv2d(6, 5, 3), nn.ReLU()]
    above = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 4), nn.GELU(), nn.Linear(4, 6)]
    net = nn.Sequential(*below, *above).double().eval()
    with torch.no_grad():
        net[2].weight[1], net[2].bias[1] = 0, -1
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
    noise = normal_draws(X, generator_of(0))[torch.arange(5)]
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
    noise = normal_draws(X.new_empty(1, *shape), generator_of(0))[torch.arange(4 * 5)].view(4, 5, *shape)
    noise = noise[:, :, 0] if where == "mask" else noise
    expected = by_row(lambda i, k: slow_masks.sscam(score(k), X[i : i + 1], A[i], noise, 0.5, where=where))
    found = grid(tw.SSCAM, n_samples=4, stdev=0.5, where=where, generator=0)
    torch.testing.assert_close(found, expected, **CLOSE)


def test_score_cam_runs_a_channel_once_and_those_without_a_pattern_together():
    e = tw.ScoreCAM(NET, layer="3").explain(X, TARGETS)
    assert e.evaluations == 3 + 3 * 5  # the layer, and four channels and the one that is always 0
    without = tw.ScoreCAM(NET, layer="3", max_channels=2, upsample=False, relu=False)
    assert without.explain(X, TARGETS).evaluations == 3 + 3 * 2
    alone = torch.cat([without.attribute(X[i : i + 1], k) for i, k in enumerate(TARGETS)])
    torch.testing.assert_close(without.attribute(X, TARGETS), alone, **CLOSE)


def test_ablation():
    e = tw.AblationCAM(NET, layer="3", upsample=False, relu=False).explain(X, TARGETS)
    expected = by_row(lambda i, k: slow_masks.ablationcam(above(k), A[i], relu=False))
    torch.testing.assert_close(e.attributions, expected, **CLOSE)
    assert e.evaluations == 3 + 3 + 2 * 2 + 3 * 4  # scores, activations, the trial, the channels that are not 0


def test_ablation_runs_what_is_below_the_layer_on_one_row():
    seen = []
    handle = NET[0].register_forward_hook(lambda m, i, o: seen.append(len(o)))
    tw.AblationCAM(NET, layer="3").attribute(X, TARGETS)
    handle.remove()
    assert seen == [3, 3, 2, 1, 1]


class Around(nn.Module):
    """A path around layer "conv": what is below cannot be left out."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(torch.tanh(torch.relu(self.conv(x) + x).mean((2, 3))))


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
    tw.GradCAM(net, layer="3").attribute(X, TARGETS)
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


# --- grids and layers ------------------------------------------------------------------------------


def test_one_and_three_dimensions():
    torch.manual_seed(0)
    line = nn.Sequential(
        nn.Conv1d(2, 4, 3, stride=2), nn.BatchNorm1d(4), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten()
    )
    assert tw.GradCAM(line.eval()).attribute(torch.randn(2, 2, 21), 1).shape == (2, 1, 21)
    assert tw.ScoreCAM(line, upsample=False).attribute(torch.randn(2, 2, 21), 1).shape == (2, 1, 10)
    block = nn.Sequential(nn.Conv3d(2, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten()).eval()
    e = tw.GradCAM(block).explain(torch.randn(2, 2, 7, 9, 11), 1)
    assert e.attributions.shape == (2, 1, 7, 9, 11)
    assert e.details["layer"] == "1"
    assert tw.AblationCAM(block, upsample=False).attribute(torch.randn(2, 2, 7, 9, 11), 1).shape == (2, 1, 3, 4, 5)


class Tokens(nn.Module):
    """Pictures → tokens, with others before them; the class is read from the first token or from the mean."""

    def __init__(self, extra=1, first=True, rows_first=True, blocks=2):
        super().__init__()
        self.patch, self.first = nn.Conv2d(3, 8, 4, 4), first
        self.others = nn.Parameter(torch.randn(1, extra, 8))
        self.blocks = nn.Sequential(
            *(nn.TransformerEncoderLayer(8, 2, 16, norm_first=True, batch_first=rows_first) for _ in range(blocks))
        )
        self.norm, self.head, self.rows_first = nn.LayerNorm(8), nn.Linear(8, 3), rows_first

    def forward(self, x):
        t = self.patch(x).flatten(2).mT
        t = torch.cat([self.others.expand(len(t), -1, -1), t], 1)
        t = self.blocks(t) if self.rows_first else self.blocks(t.transpose(0, 1)).transpose(0, 1)
        t = self.norm(t)
        return self.head(t[:, 0] if self.first else t.mean(1))


def tokens(**options):
    torch.manual_seed(0)
    return Tokens(**options).double().eval().requires_grad_(False)


PICTURE = torch.randn(2, 3, 16, 24, dtype=torch.double, generator=torch.Generator().manual_seed(3))  # 4 x 6 patches


@pytest.mark.parametrize("rows_first", [True, False])
@pytest.mark.parametrize("extra", [1, 5])
def test_tokens(extra, rows_first):
    net = tokens(extra=extra, rows_first=rows_first)
    e = tw.GradCAM(net, upsample=False).explain(PICTURE, 1)
    assert e.details["layer"] == "blocks.1.norm1"  # above it only the first token is read
    assert e.attributions.shape == (2, 1, 4, 6)

    def reshape(t):
        t = t if rows_first else t.transpose(0, 1)
        return t[:, extra:].mT.unflatten(2, (4, 6))

    by_hand = tw.GradCAM(net, layer="blocks.1.norm1", reshape=reshape, upsample=False).attribute(PICTURE, 1)
    torch.testing.assert_close(e.attributions, by_hand, **CLOSE)
    assert tw.GradCAM(tokens(extra=1, first=False)).explain(PICTURE, 1).details["layer"] == "norm"
    with pytest.raises(ValueError, match="class or register tokens only"):
        tw.GradCAM(net, layer="norm").attribute(PICTURE, 1)
    for method in (tw.ShapleyCAM, tw.AblationCAM) if rows_first else (tw.ShapleyCAM,):
        by_hand, found = (method(net, upsample=False, reshape=r).attribute(PICTURE, 1) for r in (reshape, None))
        torch.testing.assert_close(found, by_hand, **CLOSE)
    if not rows_first:
        with pytest.raises(ValueError, match="rows in its first dimension"):
            tw.AblationCAM(net).attribute(PICTURE, 1)


def test_channels_last_and_tokens_last():
    class Last(nn.Module):
        def __init__(self, shape):
            super().__init__()
            self.conv, self.shape, self.place = nn.Conv2d(3, 8, 4, 4), shape, nn.Identity()

        def forward(self, x):
            a = self.conv(x)
            if self.shape == "last":
                return self.place(a.permute(0, 2, 3, 1)).square().sum((1, 2))
            return self.place(a.flatten(2)).square().sum(2)

    for shape in ("last", "flat"):
        torch.manual_seed(0)
        net = Last(shape).double().eval()
        for method in (tw.GradCAM, tw.AblationCAM):
            e = method(net, upsample=False, relu=False).explain(PICTURE, 1)
            assert e.details["layer"] == "place"
            plain = method(net, layer="conv", upsample=False, relu=False).attribute(PICTURE, 1)
            torch.testing.assert_close(e.attributions, plain, **CLOSE)


def test_auto_skips_attention_between_tokens():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch, self.drop = nn.Conv2d(3, 8, 4, 4), nn.Dropout(0.1)

        def forward(self, x):
            t = nn.Identity()(self.patch(x)).flatten(2).mT
            t = self.norm(t) if hasattr(self, "norm") else t
            w = self.drop((t @ t.mT).softmax(-1)[:, None])  # (N, 1, T, T)
            return (w[:, 0] @ t).mean(1)

    net = Attends()
    net.norm = nn.LayerNorm(8)
    e = tw.GradCAM(net.double().eval()).explain(PICTURE[..., :16], 1)
    assert e.details["layer"] == "norm"


def test_auto_for_other_methods_and_where_there_is_none():
    assert tw.IntegratedGradients(NET, layer="auto", n_steps=3).attribute(X, TARGETS).shape == A.shape
    a = tw.LayerActivation(NET, layer="auto").attribute(X)
    torch.testing.assert_close(a, A, **CLOSE)
    e = tw.GradCAM(NET).explain(X, TARGETS)
    assert e.evaluations == 3  # found once for a model and a shape
    e = tw.GradCAM(NET).explain(X, lambda y: y[:, 0])
    assert e.evaluations == 4  # not with a target that may read anything
    with pytest.raises(ValueError, match="no layer passes a grid"):
        tw.GradCAM(make("smooth")).attribute(inputs("smooth"), 1)
    with pytest.raises(ValueError, match="one answer a row"):
        tw.GradCAM(nn.Conv2d(3, 2, 3).double()).attribute(X, (1, 2, 3))
    with pytest.raises(TypeError, match="plain callable"):
        tw.GradCAM(lambda x: x.sum((2, 3))).attribute(X, 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half])
def test_half_precision(dtype):
    net, x = make("conv", dtype), inputs("conv", dtype=dtype)
    for method in (tw.GradCAM, tw.EigenCAM, tw.ScoreCAM):
        exact = method(make("conv"), relu=False).attribute(x.double(), 1)
        found = method(net, relu=False).attribute(x, 1)
        assert found.dtype == dtype
        assert torch.cosine_similarity(found.double().flatten(), exact.flatten(), 0) > 0.95


# --- bad input -------------------------------------------------------------------------------------


def test_bad_input():
    with pytest.raises(LookupError, match="nearest names"):
        tw.GradCAM(NET, layer="layer4").attribute(X, 0)
    with pytest.raises(ValueError, match=r"no grid of cells over inputs of 17 × 13"):
        tw.GradCAM(NET, layer="6").attribute(X, 0)
    with pytest.raises(ValueError, match="give layer="):
        tw.GradCAM(NET, layer=None).attribute(X, 0)
    with pytest.raises(ValueError, match="2 indices given for 3 rows"):
        tw.GradCAM(NET).attribute(X, [0, 1])
    with pytest.raises(ValueError, match="target does not depend"):
        tw.GradCAM(NET, layer="3").attribute(X, lambda y: 0 * NET[0](X).sum((1, 2, 3)) + torch.ones(3))
    with pytest.raises(ValueError, match="expected a result"):
        tw.GradCAM(NET, layer="3", reshape=lambda a: a.flatten(1)).attribute(X, 0)
    with pytest.raises(ValueError, match="only rearrange"):
        tw.AblationCAM(NET, layer="3", reshape=lambda a: 2 * a).attribute(X, 0)
    with pytest.raises(ValueError, match="score of row 0 is 0"):
        tw.AblationCAM(NET, layer="3").attribute(X, lambda y: 0 * y[:, 0])
    with pytest.raises(ValueError, match="max_channels"):
        tw.ScoreCAM(NET, max_channels=0).attribute(X, 0)
    with pytest.raises(ValueError, match="n_samples"):
        tw.SSCAM(NET, n_samples=0).attribute(X, 0)
    for method, option in ((tw.KPCACAM, "kernel"), (tw.SSCAM, "where"), (tw.FinerCAM, "weighting")):
        with pytest.raises(ValueError, match=f"{option}='no'"):
            method(NET, **{option: "no"}).attribute(X, 0)
    with pytest.raises(ValueError, match="references"):
        tw.FinerCAM(NET, references=[0, 1]).attribute(X, 0)
    with pytest.raises(TypeError, match="compares classes"):
        tw.FinerCAM(NET).attribute(X, lambda y: y[:, 0])


class Twice(nn.Module):
    """One layer that runs twice."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3).double()

    def forward(self, x):
        return F.relu(self.conv(self.conv(x))).mean((2, 3))


def test_a_layer_that_runs_twice():
    net = Twice().eval()
    for method in (tw.GradCAM, tw.EigenCAM, tw.AblationCAM):
        with pytest.raises(LookupError, match="more than once"):
            method(net, layer="conv").attribute(X, 0)
        found = method(net).attribute(X, 0)  # finds its last call
        torch.testing.assert_close(found, method(net, layer=tw.Layer("conv", call=1)).attribute(X, 0), **CLOSE)


# --- pytorch-grad-cam ------------------------------------------------------------------------------


PEER = {
    "GradCAM": tw.GradCAM,
    "XGradCAM": tw.XGradCAM,
    "HiResCAM": tw.HiResCAM,
    "LayerCAM": tw.LayerCAM,
    "GradCAMElementWise": tw.ElementWiseCAM,
    "GradCAMPlusPlus": tw.GradCAMPlusPlus,  # it adds 1e-6 to the denominator: scores are scaled up below
    "ScoreCAM": tw.ScoreCAM,  # it interpolates its masks from corner to corner
    "AblationCAM": tw.AblationCAM,  # it sets channels to -1e7 where none is 0
    "EigenCAM": tw.EigenCAM,  # its sign is open
}


@pytest.mark.parametrize("name", PEER)
def test_pytorch_grad_cam(name):
    peer = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    torch.manual_seed(0)
    net = nn.Sequential(copy.deepcopy(NET[:4]), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 6)).double().eval()
    net.requires_grad_(True)
    with torch.no_grad():
        net[3].weight *= 1000 if name == "GradCAMPlusPlus" else 1
    theirs = getattr(peer, name)(net, [net[0]])
    expected = torch.as_tensor(theirs(input_tensor=X, targets=[ClassifierOutputTarget(k) for k in TARGETS]))
    found = PEER[name](net, layer="0").attribute(X, TARGETS)[:, 0]
    for ours, other in zip(found, expected):
        both = torch.corrcoef(torch.stack([ours.flatten(), other.flatten().double()]))
        if bool(ours.any()):
            assert (both[0, 1].abs() if name == "EigenCAM" else both[0, 1]) > (0.99 if name == "ScoreCAM" else 0.999)


@pytest.mark.parametrize("name", ["GradCAM", "HiResCAM", "LayerCAM", "XGradCAM"])
def test_pytorch_grad_cam_on_tokens(name):
    peer = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    net, x = tokens().requires_grad_(True), PICTURE[..., :16]
    reshape = lambda t: t[:, 1:].mT.unflatten(2, (4, 4))  # noqa: E731
    theirs = getattr(peer, name)(net, [net.blocks[1].norm1], reshape_transform=reshape)
    expected = torch.as_tensor(theirs(input_tensor=x, targets=[ClassifierOutputTarget(1)] * 2))
    found = PEER[name](net).attribute(x, 1)[:, 0]
    for ours, other in zip(found, expected):
        both = torch.corrcoef(torch.stack([ours.flatten(), other.flatten().double()]))
        assert both[0, 1] > 0.999
