"""``layer="auto"`` on the architectures that people use, with random weights."""

import pytest
import torch
from torch import nn

import torchwhy as tw

TORCHVISION = {
    "alexnet": ("features", (6, 6)),
    "vgg11": ("features", (7, 7)),
    "squeezenet1_1": ("classifier.2", (13, 13)),
    "densenet121": ("features", (7, 7)),
    "googlenet": ("inception5b", (7, 7)),
    "inception_v3": ("Mixed_7c", (5, 5)),
    "shufflenet_v2_x0_5": ("conv5", (7, 7)),
    "mobilenet_v2": ("features", (7, 7)),
    "mobilenet_v3_small": ("features", (7, 7)),
    "mnasnet0_5": ("layers", (7, 7)),
    "efficientnet_b0": ("features", (7, 7)),
    "regnet_y_400mf": ("trunk_output", (7, 7)),
    "resnet18": ("layer4", (7, 7)),
    "convnext_tiny": ("features", (7, 7)),
    "vit_b_32": ("encoder.layers.encoder_layer_11.ln_1", (7, 7)),
    "swin_t": ("permute", (7, 7)),
    "swin_v2_t": ("permute", (7, 7)),
    "maxvit_t": ("blocks.3", (7, 7)),
}
TIMM = {
    "vit_tiny_patch16_224": ("blocks.11.norm1", (14, 14)),
    "deit_tiny_distilled_patch16_224": ("blocks.11.norm1", (14, 14)),
    "vit_small_patch14_reg4_dinov2": ("blocks.11.norm1", (16, 16)),
    "vit_tiny_r_s16_p8_224": ("blocks.11.norm1", (7, 7)),
    "swin_tiny_patch4_window7_224": ("norm", (7, 7)),
    "convnext_atto": ("norm_pre", (7, 7)),
    "mixer_s32_224": ("norm", (7, 7)),
    "pvt_v2_b0": ("stages", (7, 7)),
    "levit_128s": ("stages", (4, 4)),
    "coatnet_nano_rw_224": ("norm", (7, 7)),
}


def heads_that_speak(model):
    """Some heads begin at zero: nothing would depend on anything."""
    for p in model.parameters():
        if p.dim() > 1 and not p.any():
            torch.nn.init.normal_(p, std=0.02)
    return model.eval()


def found(model, x):
    e = tw.GradCAM(heads_that_speak(model), upsample=False).explain(x, 0)
    return e.details["layer"], tuple(e.attributions.shape[2:])


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n != "resnet18" else n for n in TORCHVISION]
)
def test_torchvision(name):
    models = pytest.importorskip("torchvision.models")
    options = {"init_weights": False, "aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    model = getattr(models, name)(weights=None, **options)
    assert found(model, torch.randn(1, 3, 224, 224)) == TORCHVISION[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    timm = pytest.importorskip("timm")
    options = {"img_size": 224} if "dinov2" in name else {}
    assert found(timm.create_model(name, **options), torch.randn(1, 3, 224, 224)) == TIMM[name]


@pytest.mark.parametrize("kind", ["ViT", "Swin", "Dinov2WithRegisters"])
def test_transformers(kind):
    transformers = pytest.importorskip("transformers")
    common = {"image_size": 64, "num_labels": 3}
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 16}
    config, expected = {
        "ViT": (small | {"intermediate_size": 64}, ("layernorm_before", (4, 4))),
        "Swin": (
            {"patch_size": 4, "embed_dim": 16, "depths": [1, 2], "num_heads": [2, 2], "window_size": 4},
            ("layernorm", (8, 8)),
        ),
        "Dinov2WithRegisters": (small, ("layernorm", (4, 4))),
    }[kind]
    model = getattr(transformers, f"{kind}ForImageClassification")(
        getattr(transformers, f"{kind}Config")(**common, **config)
    )
    layer, grid = found(model, torch.randn(2, 3, 64, 64))
    assert (layer.split(".")[-1], grid) == expected


class TwoBranches(torch.nn.Module):
    """Each answer has a last convolution of its own."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (torch.nn.Conv2d(3, 4, 3) for _ in range(2))
        self.heads = torch.nn.ModuleList(torch.nn.Linear(4, 1) for _ in range(2))

    def forward(self, x):
        return torch.cat([h(c(x).relu().mean((2, 3))) for h, c in zip(self.heads, (self.a, self.b))], 1)


def test_the_layer_is_that_of_the_target():
    torch.manual_seed(0)
    net, x = TwoBranches().eval(), torch.rand(2, 3, 8, 8)
    for target in (0, 1, [1, 1], torch.tensor([0, 0])):
        expected = tw.GradCAM(net, layer="ab"[int(torch.as_tensor(target).flatten()[0])]).attribute(x, target)
        torch.testing.assert_close(tw.GradCAM(net).attribute(x, target), expected)


class Pooled(nn.Module):
    """As many tokens as the cells' grid has lines, made of the picture as a whole."""

    def __init__(self, tokens):
        super().__init__()
        torch.manual_seed(0)
        self.c, self.o = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4)
        self.l, self.q = nn.Linear(8, 8), nn.Parameter(torch.randn(1, tokens, 8))

    def forward(self, x):
        whole = self.c(x).relu().mean((2, 3))
        return self.o(torch.tanh(self.l(self.q * whole[:, None])).mean(1))


@pytest.mark.parametrize("tokens", [4, 9, 16, 17])
def test_tokens_as_many_as_lines_of_cells_hide_no_picture(tokens):
    e = tw.GradCAM(Pooled(tokens).eval(), upsample=False).explain(torch.rand(1, 3, 16, 16), 1)
    assert e.details["layer"] == "c"
    assert e.attributions.shape == (1, 1, 16, 16)


def test_attention_between_tokens_is_no_grid():
    class Attends(Pooled):
        def __init__(self):
            super().__init__(16)
            self.patches, self.norm, self.heads = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8), nn.Dropout(0.1)

        def forward(self, x):
            t = self.norm(self.patches(x).flatten(2).mT)
            a = self.heads((t[:, None] @ t[:, None].mT).softmax(-1))
            return self.o(torch.tanh(a[:, 0] @ t).mean(1))

    e = tw.GradCAM(Attends().eval()).explain(torch.rand(1, 3, 16, 16), 1)
    assert e.details["layer"] == "norm"
