"""Layers inside attention windows, and sequences before rows, become grids: as by hand, and as row by row."""

import pytest
import torch
from test_cam import CLOSE
from test_cam_layers import tokens
from torch import nn

import torchwhy as tw
from torchwhy.engine.layers.grid_layout import find_grid
from torchwhy.engine.layers.layer import ResolvedLayer

SIDE = 2  # of a window
X = torch.randn(5, 3, 20, 24, dtype=torch.double, generator=torch.Generator().manual_seed(4))  # 5 x 6 patches
TARGETS = [0, 2, 1, 1, 0]


def partition(t, side, shift):
    """(N, H, W, C) → (N * windows, side², C), rolled and padded."""
    t = t.roll((-shift, -shift), (1, 2))
    t = nn.functional.pad(t, (0, 0, 0, -t.shape[2] % side, 0, -t.shape[1] % side))
    n, h, w, c = t.shape
    return t.view(n, h // side, side, w // side, side, c).transpose(2, 3).reshape(-1, side * side, c)


def together(t, n, size, side, shift):
    """Back to (N, H, W, C), the padding cut off."""
    h, w = (-(-s // side) for s in size)
    t = t.view(n, h, w, side, side, -1).transpose(2, 3).reshape(n, h * side, w * side, -1)
    return t[:, : size[0], : size[1]].roll((shift, shift), (1, 2))


class Windowed(nn.Module):
    """Pictures → attention in shifted windows → classes; ``windows_first`` puts the rows of one window together."""

    def __init__(self, shift=1, width=8, windows_first=False):
        super().__init__()
        self.patch, self.norm, self.shift = nn.Conv2d(3, width, 4, 4), nn.LayerNorm(width), shift
        self.qkv, self.proj, self.windows_first = nn.Linear(width, 3 * width), nn.Linear(width, width), windows_first
        self.norm2, self.mlp, self.head = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, 3)

    def forward(self, x):
        t = self.patch(x).permute(0, 2, 3, 1)
        w, (n, *size, c) = partition(self.norm(t), SIDE, self.shift), t.shape
        if self.windows_first:
            w = w.unflatten(0, (n, -1)).transpose(0, 1).flatten(0, 1)
        q, k, v = self.qkv(w).chunk(3, -1)
        w = self.proj((q @ k.mT / c**0.5).softmax(-1) @ v)
        if self.windows_first:
            w = w.unflatten(0, (-1, n)).transpose(0, 1).flatten(0, 1)
        t = t + together(w, n, size, SIDE, self.shift)
        t = t + self.mlp(self.norm2(t)).tanh()
        return self.head(t.square().mean((1, 2)))


def windowed(**options):
    torch.manual_seed(0)
    return Windowed(**options).double().eval().requires_grad_(False)


def compare(net, layer, reshape, x, targets, methods=(tw.GradCAM, tw.AblationCAM)):
    for method in methods:

        def cam(method=method, **options):
            return method(net, layer=layer, relu=False, upsample=False, **options)

        found = cam().attribute(x, targets)
        assert found.abs().amax((1, 2, 3)).min() > 1e-8
        torch.testing.assert_close(found, cam(reshape=reshape).attribute(x, targets), **CLOSE)
        rows = [cam().attribute(x[i : i + 1], k) for i, k in enumerate(targets)]
        torch.testing.assert_close(found, torch.cat(rows), **CLOSE)
        torch.testing.assert_close(found, cam(batch_size=2).attribute(x, targets), **CLOSE)


METHODS = (tw.GradCAM, tw.LayerCAM, tw.EigenCAM, tw.ShapleyCAM, tw.ScoreCAM, tw.AblationCAM)


@pytest.mark.parametrize(
    "width, rows",  # six, as many as cells in a row: it could be the grid's
    [  # four, as many as tokens in a window: it could be a sequence before rows
        (8, 2), (8, 4), (6, 4), (6, 5),
        pytest.param(8, 5, marks=pytest.mark.slow), pytest.param(6, 2, marks=pytest.mark.slow),
    ],
)  # fmt: skip
@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("layer", ["qkv", "proj"])
def test_windows(layer, shift, width, rows):
    def reshape(t):
        return together(t, len(t) // 9, (5, 6), SIDE, shift).permute(0, 3, 1, 2)

    # a shift is all that their cells add to it; and so many rows as there are of something else, once of each
    methods = METHODS if shift and (width, rows) not in ((8, 2), (6, 4)) else METHODS[::5]
    compare(windowed(shift=shift, width=width), layer, reshape, X[:rows], TARGETS[:rows], methods)


def test_windows_are_found_once_and_leave_the_model_alone():
    net = windowed()
    cam = tw.GradCAM(net, layer="proj")
    assert [cam.explain(X, TARGETS).evaluations for _ in range(2)] == [7, 5]
    assert not any(p.requires_grad for p in net.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_windows_that_cannot_be_placed():
    net = windowed(windows_first=True)
    with pytest.raises(ValueError, match="the block around this one"):
        tw.GradCAM(net, layer="proj").attribute(X, TARGETS)


def test_a_layer_that_its_parent_runs_by_itself():
    swin = pytest.importorskip("torchvision.models").swin_transformer
    net = swin.SwinTransformer([4, 4], 8, [2], [2], [2, 2], num_classes=3).eval()
    with pytest.raises(LookupError, match=r"did not run.*name that one, 'features.1.1.attn'"):
        tw.GradCAM(net, layer="features.1.1.attn.qkv").attribute(torch.randn(1, 3, 32, 32), 0)
    assert tw.GradCAM(net, layer="features.1.1.attn").attribute(torch.randn(1, 3, 32, 32), 0).shape == (1, 1, 32, 32)


# --- models of other libraries ----------------------------------------------------------------------


def lively(net):
    """Norms that begin at zero, as those of Swin v2, would let nothing depend on anything."""
    torch.manual_seed(1)
    for m in net.modules():
        if isinstance(m, nn.LayerNorm):
            nn.init.uniform_(m.weight, 0.5, 1.5)
    return net.double().eval().requires_grad_(False)


PICTURES = torch.randn(2, 3, 32, 32, dtype=torch.double, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("layer", ["qkv", "proj"])
@pytest.mark.parametrize("block", [0, 1])
def test_timm_swin(block, layer):
    timm = pytest.importorskip("timm.models.swin_transformer")
    torch.manual_seed(0)
    net = timm.SwinTransformer(32, 4, num_classes=3, embed_dim=8, depths=(2,), num_heads=(2,), window_size=4)
    shift = 2 * block

    def reshape(t):
        return together(t, len(t) // 4, (8, 8), 4, shift).permute(0, 3, 1, 2)

    assert net.layers[0].blocks[block].shift_size == (shift, shift)
    compare(lively(net), f"layers.0.blocks.{block}.attn.{layer}", reshape, PICTURES, [0, 1])


MAXVIT_LAYERS = ["attn_layer.0", "attn_layer.1.to_qkv", "attn_layer.1", "attn_layer.2", "mlp_layer.1"]


@pytest.mark.parametrize(
    "part, layer",
    [
        ("window", "attn_layer.1"),
        ("grid", "attn_layer.1.to_qkv"),
        *(pytest.param(p, layer, marks=pytest.mark.slow) for p in ("window", "grid") for layer in MAXVIT_LAYERS),
    ],
)
def test_torchvision_maxvit(part, layer):
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    # 16 windows of 16 tokens of 16 channels: only what depends on what can tell them apart
    net = models.MaxVit((64, 64), 16, 4, [16], [1], head_dim=8, stochastic_depth_prob=0.0, num_classes=3)

    def reshape(t):  # (N, windows, tokens, C); every fourth row and column for a grid
        t = t.transpose(1, 2) if part == "grid" else t
        return together(t.reshape(-1, 16, t.shape[3]), len(t), (16, 16), 4, 0).permute(0, 3, 1, 2)

    layer = f"blocks.0.layers.0.layers.{part}_attention.{layer}"
    compare(
        lively(net),
        layer,
        reshape,
        nn.functional.interpolate(PICTURES, (64, 64)),
        [0, 1],
        (tw.HiResCAM, tw.AblationCAM),
    )


@pytest.mark.parametrize("block", [0, 1])
def test_transformers_swin(block):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.SwinConfig(
        image_size=24, num_labels=3, patch_size=4, embed_dim=8, depths=[2], num_heads=[2], window_size=4
    )
    net = lively(transformers.SwinForImageClassification(config))  # 6 x 6 cells in windows of 4 x 4
    name = f"swin.encoder.layers.0.blocks.{block}.attention"

    def reshape(t):  # padded before it is rolled
        t = together(t, len(t) // 4, (8, 8), 4, 2 * block)
        return t[:, :6, :6].permute(0, 3, 1, 2)

    compare(net, name, reshape, PICTURES[..., :24, :24], [0, 1])


# --- sequences before rows --------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 2, 3, 25])  # 25: as many as tokens
def test_sequences_before_rows(rows):
    net = tokens(first=False, rows_first=False)
    x = torch.randn(rows, 3, 16, 24, dtype=torch.double, generator=torch.Generator().manual_seed(rows))
    targets = [i % 3 for i in range(rows)]

    def reshape(t):
        return t.transpose(0, 1)[:, 1:].mT.unflatten(2, (4, 6))

    compare(net, "blocks.1", reshape, x, targets, METHODS if rows < 25 else METHODS[::5])


def test_full_grad_adds_up_windows_and_sequences_row_by_row():
    for net in (windowed(), tokens(first=False, rows_first=False)):
        x = X[:4, :, :16] if net.__class__.__name__ == "Tokens" else X[:4]
        e = tw.FullGrad(net).explain(x, TARGETS[:4])
        rows = [tw.FullGrad(net).explain(x[i : i + 1], k) for i, k in enumerate(TARGETS[:4])]
        torch.testing.assert_close(e.attributions, torch.cat([r.attributions for r in rows]), **CLOSE)
        torch.testing.assert_close(e.completeness_gap, torch.cat([r.completeness_gap for r in rows]), **CLOSE)


class Norm(nn.LayerNorm):
    """As libraries have them."""


def test_full_grad_of_norms_with_the_channels_last():
    """The norm's bias counts like that of the plain norm."""

    class Last(nn.Module):
        def __init__(self, norm):
            super().__init__()
            torch.manual_seed(0)
            self.patch, self.norm, self.head = nn.Conv2d(3, 8, 4, 4), norm(8), nn.Linear(8, 3)
            nn.init.normal_(self.norm.bias)

        def forward(self, x):
            return self.head(self.norm(self.patch(x).permute(0, 2, 3, 1)).relu().mean((1, 2)))

    found, plain = (tw.FullGrad(Last(norm).double().eval()).explain(X, TARGETS) for norm in (Norm, nn.LayerNorm))
    torch.testing.assert_close(found.attributions, plain.attributions, **CLOSE)
    torch.testing.assert_close(found.completeness_gap, plain.completeness_gap, **CLOSE)


def test_full_grad_of_sequences():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 18, 3)).double().eval()
    e = tw.FullGrad(net).explain(X[..., 0], TARGETS)
    assert e.attributions.shape == (5, 1, 20)
    assert e.completeness_gap.max() < 1e-12


def test_a_grid_of_windows_is_no_grid_of_cells():
    """MaxViT's first stage has 64 windows of 49 tokens of 64 channels: nearly square."""
    torch.manual_seed(0)
    norm = nn.LayerNorm(64)
    place = ResolvedLayer("norm", norm, None, None, False)
    assert not find_grid(place, torch.zeros(1, 64, 49, 64), 1, (224, 224)).sure
    assert find_grid(place, torch.zeros(1, 56, 56, 64), 1, (224, 224)).sure
    assert not find_grid(place, torch.zeros(1, 64, 64, 64), 1, (256, 256)).sure  # or windows of 8 x 8


def test_other_methods_take_sequences_before_rows():
    x, layer = X[:2, :, :16], "blocks.0"
    before, after = tokens(first=False, rows_first=False), tokens(first=False, rows_first=True)
    after.load_state_dict(before.state_dict())
    for method, how in ((tw.Saliency, {}), (tw.IntegratedGradients, {"n_steps": 4})):
        found, expected = (method(net, layer=layer, **how).attribute(x, 1) for net in (before, after))
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("method", [tw.GradCAM, tw.AblationCAM, tw.GuidedGradCAM])
def test_a_layer_that_the_target_does_not_depend_on(method):
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.aside, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

        def forward(self, x):
            self.aside(x)
            return self.head(self.conv(x).mean((2, 3)))

    with pytest.raises(ValueError, match="does not depend on the layer 'aside'"):
        method(Aside().double().eval(), layer="aside").attribute(X, TARGETS)
