"""Real architectures with random weights, made usable: batch norm that has seen data, no layer that is all zero."""

from collections.abc import Callable

import torch
from torch import nn

TORCHVISION = {
    "alexnet": 64, "vgg11": 32, "vgg11_bn": 32, "resnet18": 64, "resnet50": 64, "resnext50_32x4d": 64, "wide_resnet50_2": 64,
    "densenet121": 64, "googlenet": 64, "inception_v3": 96, "squeezenet1_1": 64, "shufflenet_v2_x0_5": 64, "mobilenet_v2": 64,
    "mobilenet_v3_small": 64, "mnasnet0_5": 64, "efficientnet_b0": 64, "efficientnet_v2_s": 64, "regnet_x_400mf": 64,
    "regnet_y_400mf": 64, "convnext_tiny": 64, "vit_b_16": 224, "swin_t": 64, "swin_v2_t": 64, "maxvit_t": 224,
}  # fmt: skip
TIMM = {
    "vit_tiny_patch16_224": 224, "deit_tiny_patch16_224": 224, "swin_tiny_patch4_window7_224": 224,
    "beit_base_patch16_224": 224, "mixer_s32_224": 224, "convnext_atto": 64, "resnet26d": 64, "efficientnet_b0": 64,
    "levit_128s": 224, "poolformer_s12": 64, "xcit_nano_12_p16_224": 224, "mobilevit_xxs": 64, "mobilevitv2_050": 64,
    "eca_resnet33ts": 64, "skresnet18": 64, "resnest14d": 64, "pvt_v2_b0": 64,
}  # fmt: skip


def _small_vgg(vgg) -> nn.Module:
    """Return VGG with few features between its linear layers, which have a hundred million weights in torchvision's."""
    with torch.device("meta"):  # which draws no weights
        net = vgg.VGG(nn.Identity(), num_classes=5, init_weights=False)
    net.features = vgg.make_layers([4, "M", 64, "M"], batch_norm=True)
    net.avgpool = nn.AdaptiveAvgPool2d(3)
    net.classifier = nn.Sequential(
        nn.Linear(64 * 9, 32),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(32, 32),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(32, 5),
    )
    return net


def _small() -> dict[str, Callable[[], tuple[nn.Module, int]]]:
    """The same families at a size for every run of the tests."""
    from torchvision import models as m
    from torchvision.models import convnext, densenet, swin_transformer, vision_transformer

    settings = [convnext.CNBlockConfig(8, 16, 1), convnext.CNBlockConfig(16, None, 1)]
    return {
        "small vgg": lambda: (_small_vgg(m.vgg), 32),
        "small resnet": lambda: (m.resnet.ResNet(m.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5), 32),
        "small densenet": lambda: (densenet.DenseNet(4, (2, 2), 8, num_classes=5), 32),
        "small mobilenet v3": lambda: (m.mobilenet_v3_small(num_classes=5, width_mult=0.3), 32),
        "small convnext": lambda: (convnext.ConvNeXt(settings, num_classes=5, layer_scale=0.5), 32),
        "small vit": lambda: (vision_transformer.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5), 32),
        "small swin": lambda: (swin_transformer.SwinTransformer([4, 4], 8, [2, 2], [2, 2], [2, 2], num_classes=5), 32),
    }


SMALL = _small()


class Recurrent(nn.Module):
    """A recurrent layer and a head on its last step."""

    def __init__(self, kind):
        super().__init__()
        self.rnn, self.head = kind(5, 8, 2, bidirectional=True, batch_first=True), nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


class Language(nn.Module):
    """A transformers model as a function of its token embeddings."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, embeddings):
        logits = self.model(inputs_embeds=embeddings).logits
        return logits if logits.dim() == 2 else logits[:, -1]


def language(name: str) -> nn.Module:
    import transformers as t

    size = {
        "vocab_size": 50,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    return Language(
        {
            "bert": lambda: t.BertForSequenceClassification(t.BertConfig(**size, num_labels=5)),
            "gpt2": lambda: t.GPT2LMHeadModel(
                t.GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, pad_token_id=0)
            ),
            "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**size, num_key_value_heads=2)),
        }[name]()
    )


RECURRENT = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
LANGUAGE = ("bert", "gpt2", "llama")
NAMES = [*TORCHVISION, *(f"timm {n}" for n in TIMM), *LANGUAGE]


def other_torchvision() -> dict[str, int]:
    """The rest of torchvision's classification architectures, with the side of the image each is tried with."""
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    fixed = ("vit", "maxvit")  # made for one size
    return {n: 224 if n.startswith(fixed) else 64 for n in names if n not in TORCHVISION}


def side_of(name: str) -> int:
    """The side of the image that one of torchvision's architectures is tried with."""
    return TORCHVISION.get(name) or other_torchvision()[name]


def live_class(model: nn.Module, x: torch.Tensor) -> int:
    """Class 1, or the largest where class 1 is cut off at zero, as SqueezeNet's last rectifier may do."""
    with torch.no_grad():
        scores = model(x)[0]
    return 1 if scores[1] != 0 else int(scores.argmax())


def build(name: str, *, biases: bool = True) -> tuple[nn.Module, torch.Tensor]:
    """A model in eval mode with frozen parameters, and one row for it."""
    torch.manual_seed(0)
    if name in SMALL:
        model, side = SMALL[name]()
    elif not name.startswith("timm ") and name not in (*LANGUAGE, *RECURRENT):
        import torchvision

        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        model, side = torchvision.models.get_model(name, **options), side_of(name)
    elif name.startswith("timm "):
        import timm

        model, side = timm.create_model(name[5:]), TIMM[name[5:]]
    else:
        model, side = (Recurrent(RECURRENT[name]) if name in RECURRENT else language(name)), None
    x = torch.randn(1, 4, 5 if name in RECURRENT else 32) if side is None else torch.randn(1, 3, side, side)
    _settle(model, None if side is None else torch.randn(8 if side < 100 else 2, 3, side, side))
    if not biases:
        _drop_biases(model)
    return model.eval().requires_grad_(False), x


def _settle(model: nn.Module, batch: torch.Tensor | None) -> None:
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        for p in model.parameters():
            if p.numel() > 1 and (not p.any() or (p.dim() > 1 and p.abs().max() < 1e-4)):  # heads that start at about 0
                nn.init.normal_(p, std=0.02)
            elif p.abs().max() < 1e-4:  # scales of layers at the start of their training
                nn.init.constant_(p, 0.5)
        for norm in norms:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
        # else contributions in EfficientNet-B7 cancel by 1e20, more than float64 has digits
        for block in model.modules():
            if getattr(block, "use_res_connect", False) and hasattr(block, "block"):
                block.block[-1][1].weight.mul_(0.2)
        if batch is not None and norms:
            model.eval()  # dropout and paths dropped at random stay off
            for norm in norms:
                norm.train()
                norm.momentum = 1.0
            model(batch)


def _drop_biases(model: nn.Module) -> None:
    """Set to zero what is added whatever the input: biases, means, positions, class tokens."""
    added = (
        "bias",
        "running_mean",
        "pos_embed",
        "class_token",
        "cls_token",
        "dist_token",
        "wpe",
        "position_embeddings",
        "token_type_embeddings",
    )
    with torch.no_grad():
        for name, value in (*model.named_parameters(), *model.named_buffers()):
            if any(word in name for word in added) and "relative" not in name and value.is_floating_point():
                value.zero_()
