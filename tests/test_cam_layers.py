"""The class activation maps: their layers and grids, bad input, and pytorch-grad-cam."""

import copy

import pytest
import torch
from nets import inputs, make
from test_cam import CLOSE, NET, TARGETS, A, X
from torch import nn
from torch.nn import functional as F

import torchwhy as tw


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
    for method in (tw.ShapleyCAM, tw.AblationCAM):
        by_hand, found = (method(net, upsample=False, reshape=r).attribute(PICTURE, 1) for r in (reshape, None))
        torch.testing.assert_close(found, by_hand, **CLOSE)


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
    with pytest.raises(TypeError, match="FinerCAM explains a class"):
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
    signs = (1, -1) if name == "EigenCAM" else (1,)
    found = PEER[name](net, layer="0", relu=False, upsample=False).attribute(X, TARGETS)
    maps = [F.interpolate((sign * found).clamp(min=0), (17, 13), mode="bilinear")[:, 0] for sign in signs]
    for i, other in enumerate(expected.double()):
        both = [torch.corrcoef(torch.stack([m[i].flatten(), other.flatten()]))[0, 1] for m in maps if bool(m[i].any())]
        assert not both or max(both) > (0.99 if name == "ScoreCAM" else 0.999)


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


def test_cells_may_see_as_many_neighbours_as_there_are():
    from torchwhy.engine.layers.dependence import _expected_ratios

    share = torch.tensor([0.1, 0.2, 0.3, 0.5, 0.9])
    near = (torch.arange(5)[:, None] - torch.arange(5)).abs()
    for reach, found in enumerate(_expected_ratios(share)):
        seen = (near <= reach).float()
        torch.testing.assert_close(found, ((seen @ share) / seen.sum(1)).logit() / 2)
    assert reach == 2
