"""Pictures and their models, as the command line names them, and the figure of what explains them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from torchwhy.models import LoadedModel

DEFAULT_MODEL = "efficientnet-lite0"


def picture_named(name: str) -> Image:
    """Return a bundled photo, or the picture in a file."""
    from torchwhy.models import PHOTOS, photo, read_image

    return photo(name) if name in PHOTOS else read_image(name)


def load_as_asked(args: argparse.Namespace) -> tuple[LoadedModel, int | str]:
    """Return the model of ``--model``, ``--weights``, ``--size`` and ``--trust``, and what ``--target`` is for it.

    Raises:
        ValueError: a size of no pixels, an unknown model or label.
    """
    from torchwhy.models import find_label, load

    if args.size is not None and args.size < 1:
        raise ValueError(f"--size: {args.size} is no number of pixels")
    loaded = load(args.model, weights=args.weights, trust=args.trust)
    if args.size is not None:
        loaded = replace(loaded, preprocess=replace(loaded.preprocess, size=args.size, resize=None))
    return loaded, args.target if args.target == "predicted" else find_label(loaded.labels, args.target)


def show_figure(
    loaded: LoadedModel,
    x: Tensor,
    target: int | str,
    names: Sequence[str],
    out: Path,
    settings: dict[str, object],
    effort: float = 1.0,
) -> None:
    """Explain the images by the methods, print a line for each, and write the figure.

    Raises:
        ValueError: the model does not give one score per class, or has no such class.
    """
    from torchwhy.demo import explain_photos
    from torchwhy.models import to_image
    from torchwhy.visualize import grid

    begun, scores = time.perf_counter(), _shares(loaded, x)
    classes = scores.argmax(1).tolist() if isinstance(target, str) else [target] * len(x)
    if max(classes) >= scores.shape[1]:
        raise ValueError(
            f"--target: {max(classes)} is not the number of a class; they go from 0 to {scores.shape[1] - 1}"
        )
    names_of = [loaded.labels[c] if loaded.labels else f"class {c}" for c in classes]
    titles = [f"{name} {scores[i, c]:.0%}" for i, (name, c) in enumerate(zip(names_of, classes))]
    print(f"{loaded.name} ({loaded.weights}): " + ", ".join(titles))
    shown = []
    for name in names:
        answer = explain_photos([name], loaded.model, x, classes, effort=effort, **{"progress": True, **settings})[0]
        print(f"  {answer.name:22} " + "   ".join(c.replace("\n", " · ") for c in answer.captions), flush=True)
        shown.append(answer)
    mean, std = loaded.preprocess.mean, loaded.preprocess.std
    pictures = [to_image(row, mean, std).transpose(2, 0, 1) for row in x]
    figure = grid(
        {s.name: s.explanation.shown for s in shown},
        images=pictures,
        titles=titles,
        captions={s.name: s.captions for s in shown},
    )
    figure.savefig(out, dpi=110, bbox_inches="tight")
    print(f"{out}: {len(shown)} methods, {time.perf_counter() - begun:.0f} s")


def _shares(loaded: LoadedModel, x: Tensor) -> Tensor:
    """Return the probability of each class, ``(N, classes)``.

    Raises:
        ValueError: the model cannot take such pictures, or gives something else.
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
    return scores.softmax(1)
