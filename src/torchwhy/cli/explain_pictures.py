"""``torchwhy explain photo.jpg folder/``: pictures, by one method or several."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torchwhy.cli.arguments import say, seconds_of, shows_progress
from torchwhy.cli.outputs import DEFAULT_FIGURE, NUMBERS, PAGE, check_outputs, is_figure, write_numbers
from torchwhy.cli.pictures import class_shares, expand_folders, load_as_asked, move_to_device
from torchwhy.cli.reading import PictureReader

if TYPE_CHECKING:
    from torch import Tensor

    from torchwhy.demo import Shown
    from torchwhy.engine.structure import Keywords
    from torchwhy.models import LoadedModel

MOST_ON_A_FIGURE = 8  # pictures; more go into a folder, a figure each
AT_A_TIME = 8  # pictures that are explained together
FOLDER = Path("explanations")


def explain_pictures(args: argparse.Namespace, settings: Keywords) -> None:
    """Explain the pictures that were named, and write what was found.

    Raises:
        ValueError: a mistake in what was asked for.
    """
    names = expand_folders(args.inputs)
    outs, folder = _places(args, names)
    check_outputs(outs, [*names, args.model, args.weights], folders=True)
    methods = methods_asked_for(args.method or ["IntegratedGradients"])
    pictures = PictureReader(names, args.range).read_all(names)
    loaded, target = load_as_asked(args)
    move_to_device(loaded, args.device)
    shown: list[Shown] = []
    rows: list[Keywords] = []
    short = different_names(names)
    for start in range(0, len(names), AT_A_TIME):
        part = slice(start, start + AT_A_TIME)
        some = [loaded.preprocess(picture).to(args.device) for picture in pictures[part]]
        found, facts = explain_some(args, loaded, some, target, methods, settings)
        rows += [{"file": file, "name": name, **f} for file, name, f in zip(names[part], short[part], facts)]
        shown = found if not shown else _with_more(shown, found)
        if folder is not None:
            _write_each(args, loaded, some, found, rows[part], folder)
    _write_all(args, loaded, pictures, shown, rows, [out for out in outs if out != folder])


def methods_asked_for(names: Sequence[str]) -> list[str]:
    """Return the names of methods, as they are written, ``module:Class`` as it stands; ``all`` is those for pictures.

    Raises:
        ValueError: there is no such one.
    """
    from torchwhy.demo import for_photos, method_named

    if [name.lower() for name in names] == ["all"]:
        return for_photos()
    found = [method_named(name) for name in names]
    return [name if ":" in name else method.__name__ for name, method in zip(names, found)]


def explain_some(
    args: argparse.Namespace,
    loaded: LoadedModel,
    some: Sequence[Tensor],
    target: int | str,
    methods: Sequence[str],
    settings: Keywords,
    effort: float = 1.0,
) -> tuple[list[Shown], list[Keywords]]:
    """Return what some pictures are explained by, and what is known of each: its class and its probability.

    Of ``--method all``, a method that refuses the model is said and left out.

    Raises:
        ValueError: the model does not give one score per class, or has no such class.
    """
    import torch

    from torchwhy.demo import explain_photos

    x = torch.cat(list(some))
    scores = class_shares(args, loaded, x)
    classes = scores.argmax(1).tolist() if isinstance(target, str) else [target] * len(x)
    if max(classes) >= scores.shape[1]:
        raise ValueError(
            f"--target: {max(classes)} is not the number of a class; they go from 0 to {scores.shape[1] - 1}"
        )
    labels = [loaded.labels[c] if loaded.labels else f"class {c}" for c in classes]
    facts: list[Keywords] = [
        {"target": c, "label": label, "probability": float(scores[i, c])}
        for i, (c, label) in enumerate(zip(classes, labels))
    ]
    say(args, f"{loaded.name} ({loaded.weights}): " + ", ".join(_titles(facts)))
    shown = []
    for name in methods:
        how = {"progress": shows_progress(args), **settings}
        try:
            answer = explain_photos([name], loaded.model, x, classes, effort=effort, **how)[0]
        except (TypeError, ValueError, LookupError, NotImplementedError, FloatingPointError) as error:
            if not (args.method and args.method[0].lower() == "all"):
                raise
            say(args, f"  {name:22} refused: {error}")
            continue
        say(args, f"  {answer.name:22} " + "   ".join(c.replace("\n", " · ") for c in answer.captions))
        shown.append(answer)
    return shown, facts


def draw(loaded: LoadedModel, x: Sequence[Tensor], shown: Sequence[Shown], rows: Sequence[Keywords], out: Path) -> None:
    """Write the figure of pictures ``(1, C, H, W)`` and what they are explained by."""
    from torchwhy.visualize import grid

    figure = grid(
        {s.name: s.explanation.shown for s in shown},
        images=[loaded.preprocess.to_image(row).transpose(2, 0, 1) for row in x],
        titles=_titles(rows),
        captions={s.name: s.captions for s in shown},
    )
    figure.savefig(out, dpi=110, bbox_inches="tight")


def _titles(rows: Sequence[Keywords]) -> list[str]:
    return [f"{row['label']} {row['probability']:.0%}" for row in rows]


def _places(args: argparse.Namespace, names: Sequence[str]) -> tuple[list[Path], Path | None]:
    """Return where to write, and the folder among these that gets a figure for each picture.

    Raises:
        ValueError: too many pictures for one figure.
    """
    outs = [_output_path(out) for out in args.out or ([DEFAULT_FIGURE] if len(names) <= MOST_ON_A_FIGURE else [FOLDER])]
    folders = [out for out in outs if out.is_dir() or out == FOLDER]
    if not args.out and folders:
        FOLDER.mkdir(exist_ok=True)
    figures = [out for out in outs if is_figure(out) and out not in folders]
    if len(folders) > 1 or (figures and len(names) > MOST_ON_A_FIGURE):
        raise ValueError(
            f"--out: {len(names)} pictures do not fit on one figure; give one folder that is there, which gets one each, "
            "or a file for the numbers (.npz, .json)"
        )
    return outs, folders[0] if folders else None


def _output_path(out: str | Path) -> Path:
    """Return a path to write to: ``"figures/"`` is a folder, made if there is none; a name without a suffix a figure's."""
    place = Path(out)
    if str(out).endswith("/") and place.parent.is_dir():
        place.mkdir(exist_ok=True)
    return place if place.suffix or place.is_dir() or place == FOLDER else place.with_suffix(".png")


def _with_more(before: Sequence[Shown], more: Sequence[Shown]) -> list[Shown]:
    """Return explanations of the pictures of both, by the methods that explained both."""
    import torchwhy
    from torchwhy.demo import Shown

    later = {s.name: s.explanation for s in more}
    return [
        Shown(s.name, torchwhy.concat([s.explanation, later[s.name]]))
        for s in before if s.name in later
    ]  # fmt: skip


def _write_each(
    args: argparse.Namespace,
    loaded: LoadedModel,
    some: Sequence[Tensor],
    shown: Sequence[Shown],
    rows: Sequence[Keywords],
    folder: Path,
) -> None:
    """Write a figure for each picture into a folder, called after it."""
    from torchwhy.demo import Shown

    for i, row in enumerate(rows):
        place = folder / f"{row['name']}-why.png"
        draw(loaded, some[i : i + 1], [Shown(s.name, s.explanation[i : i + 1]) for s in shown], [row], place)
        say(args, f"{place}")


def different_names(files: Sequence[str]) -> list[str]:
    """Return names of the files without folders and suffixes, numbered where they would be the same."""
    found: list[str] = []
    for file in files:
        name, number = Path(file).stem, 2
        while name in found:
            name, number = f"{Path(file).stem}-{number}", number + 1
        found.append(name)
    return found


def _write_all(
    args: argparse.Namespace,
    loaded: LoadedModel,
    pictures: Sequence[object],
    shown: Sequence[Shown],
    rows: Sequence[Keywords],
    outs: Sequence[Path],
) -> None:
    """Write one figure, page or file of numbers of all pictures."""
    from torchwhy.visualize import page

    if not shown:
        raise ValueError("--method all: every method refused this model")
    explanations = {s.name: s.explanation.with_names(classes=loaded.labels or None) for s in shown}
    for out in outs:
        if out.suffix.lower() in NUMBERS:
            write_numbers(out, explanations, rows, {"model": loaded.name, "weights": loaded.weights})
        elif out.suffix.lower() == PAGE:
            page(explanations, out, title=loaded.name)
        elif is_figure(out):
            draw(loaded, [loaded.preprocess(p) for p in pictures], shown, rows, out)  # type: ignore[arg-type]
        else:
            raise ValueError(f"--out: '{out}' is for tables (--csv)")
        say(args, f"{out}: {len(shown)} methods, {seconds_of(args):.0f} s")
