"""Pictures and their models, as the command line names them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torchwhy.cli.arguments import DEFAULT_MODEL

if TYPE_CHECKING:
    from torch import Tensor

    from torchwhy.models import LoadedModel


def expand_folders(names: Sequence[str]) -> list[str]:
    """Return the names with a folder's pictures in the place of each folder, in the order of their names.

    Raises:
        ValueError: a folder without a picture.
    """
    from PIL import Image

    Image.init()
    kinds = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    found: list[str] = []
    for name in names:
        if not Path(name).is_dir():
            found.append(name)
            continue
        inside = sorted(
            str(p) for p in Path(name).iterdir() if p.suffix.lower() in kinds and (p.is_file() or p.is_symlink())
        )
        if not inside:
            raise ValueError(f"'{name}': no picture in this folder")
        found += inside
    return found


def load_as_asked(args: argparse.Namespace) -> tuple[LoadedModel, int | str]:
    """Return the model of ``--model`` and what goes with it, and what ``--target`` is for it.

    Raises:
        ValueError: a size of no pixels, an unknown model or label, a name for two classes.
    """
    from torchwhy.models import find_label, load

    if args.size is not None and args.size < 1:
        raise ValueError(f"--size: {args.size} is no number of pixels")
    if args.classes and len(set(args.classes)) < len(args.classes):
        raise ValueError(f"--classes: two are called the same in {' '.join(args.classes)}")
    try:
        loaded = load(args.model or DEFAULT_MODEL, weights=args.weights, trust=args.trust)
    except ValueError as error:
        raise ValueError(str(error).replace("Pass trust=True", "Pass --trust")) from error
    wanted = loaded.preprocess
    if args.size is not None:
        wanted = replace(wanted, size=args.size, resize=None)
    mean, std = (_numbers_asked_for(args, name, wanted.channels) for name in ("mean", "std"))
    wanted = replace(wanted, mean=wanted.mean if mean is None else mean, std=wanted.std if std is None else std)
    loaded = replace(loaded, preprocess=wanted, labels=tuple(args.classes or loaded.labels))
    if args.target == "predicted":
        return loaded, "predicted"
    try:
        return loaded, find_label(loaded.labels, args.target)
    except ValueError as error:
        raise ValueError(f"{error}" + ("" if loaded.labels else ", or the names by --classes")) from error


def _numbers_asked_for(args: argparse.Namespace, name: str, channels: int) -> tuple[float, ...] | None:
    """Return the numbers of ``--mean`` or ``--std``; None where it is not given.

    Raises:
        ValueError: neither one number nor one for each channel.
    """
    given = getattr(args, name)
    if given is not None and len(given) not in (1, channels):
        raise ValueError(f"--{name}: {len(given)} numbers for {channels} channels; give one, or one for each")
    return None if given is None else tuple(given)


def move_to_device(loaded: LoadedModel, device: str) -> None:
    """Move a model.

    Raises:
        ValueError: there is no such device.
    """
    try:
        if device.split(":")[0] == "meta":
            raise RuntimeError("there are no numbers on it")
        loaded.model.to(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # no such word, or no such device here
        raise ValueError(f"--device {device}: {str(error).splitlines()[0]}") from None


def class_shares(args: argparse.Namespace, loaded: LoadedModel, x: Tensor) -> Tensor:
    """Return the probability of each class, ``(N, classes)``.

    Raises:
        ValueError: the model cannot take such pictures, or gives something else, or another number of classes is named.
    """
    import torch

    from torchwhy.targets import find_logits

    try:
        with torch.no_grad():
            output = loaded.model(x)
    except Exception as error:  # whatever the code of a model raises
        raise ValueError(
            f"--model: {loaded.name} cannot take a picture of {x.shape[3]} × {x.shape[2]} pixels; --size gives another "
            f"side ({type(error).__name__}: {error})"
        ) from error
    scores = find_logits(output)
    if scores.dim() != 2 or len(scores) != len(x):
        raise ValueError(f"--model: {loaded.name} gives {tuple(scores.shape)} for a picture, not one score per class")
    if args.classes and len(args.classes) != scores.shape[1]:
        raise ValueError(f"--classes: {len(args.classes)} names, and {loaded.name} has {scores.shape[1]} classes")
    return scores.softmax(1)
