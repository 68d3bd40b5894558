"""The ``torchwhy`` command: a demo, explaining an image file, and the tables of methods and metrics."""

from __future__ import annotations

import argparse
import ast
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from torchwhy.models import LoadedModel

DEMO_PHOTOS = ("chelsea", "coffee")
DEMO_MODEL = "efficientnet-lite0"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0, or 2 after a mistake in what was asked for."""
    args = _parser().parse_args(arguments)
    try:
        args.run(args)
    except (ValueError, LookupError, TypeError, OSError, ImportError, FloatingPointError) as error:
        print(f"torchwhy: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="torchwhy", description="Why did the model say that?")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="the methods for photos on a real network and two photos, on one figure")
    demo.add_argument("--out", type=Path, default=Path("torchwhy-demo.png"), help="the figure (default: %(default)s)")
    demo.add_argument("--text", action="store_true", help="a language model's answer instead, token by token")
    demo.add_argument("--methods", nargs="+", metavar="NAME", help="only these")
    demo.add_argument("--quick", action="store_true", help="an eighth of the samples and steps")
    demo.set_defaults(run=_demo)

    explain = commands.add_parser("explain", help="explain an image file")
    explain.add_argument("image", help="an image file, or the name of a bundled photo: chelsea, coffee, ...")
    explain.add_argument(
        "--model",
        default=DEMO_MODEL,
        help="a name (resnet18, timm:vit_small_patch16_224, shapes-resnet) or a "
        "file with a pickled model (default: %(default)s)",
    )
    explain.add_argument("--weights", help="a file with a state_dict for the named model, or DEFAULT to download")
    explain.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="the side of the picture (default: what a named model wants, 224 for a file)",
    )
    explain.add_argument("--trust", action="store_true", help="load a pickled model, which can run code")
    explain.add_argument(
        "--method", nargs="+", default=["IntegratedGradients"], metavar="NAME", help="see `torchwhy methods`"
    )
    explain.add_argument("--target", default="predicted", help="a label, an index, or 'predicted'")
    explain.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        dest="settings",
        help="settings, as n_steps=64",
    )
    explain.add_argument("--device", default="cpu")
    explain.add_argument("--out", type=Path, default=Path("explanation.png"), help="the figure (default: %(default)s)")
    explain.set_defaults(run=_explain_command)

    look = commands.add_parser("inspect", help="which methods apply to a model, what they cost, and what may go wrong")
    look.add_argument("image", help="an image file, or the name of a bundled photo")
    look.add_argument("--model", default=DEMO_MODEL, help="as for explain (default: %(default)s)")
    look.add_argument("--weights", help="as for explain")
    look.add_argument("--size", type=int, metavar="PIXELS", help="the side of the picture")
    look.add_argument("--trust", action="store_true", help="load a pickled model, which can run code")
    look.add_argument("--target", default="predicted", help="a label, an index, or 'predicted'")
    look.add_argument("--methods", nargs="+", metavar="NAME", help="only these")
    look.add_argument("--json", action="store_true", help="print it as JSON")
    look.set_defaults(run=_inspect_command)

    methods = commands.add_parser("methods", help="the table of methods")
    methods.set_defaults(run=_print_methods)
    metrics = commands.add_parser("metrics", help="the table of metrics")
    metrics.set_defaults(run=_print_metrics)
    return parser


def _print_methods(args: argparse.Namespace) -> None:
    print(methods_table())


def _print_metrics(args: argparse.Namespace) -> None:
    print(metrics_table())


def _demo(args: argparse.Namespace) -> None:
    if args.text:
        _demo_on_text(args)
        return
    import torch

    from torchwhy.demo import for_photos
    from torchwhy.models import load, photo

    _writable(args.out)
    loaded = load(DEMO_MODEL)
    x = torch.cat([loaded.preprocess(photo(name)) for name in DEMO_PHOTOS])
    _show_figure(
        loaded, x, "predicted", args.methods or for_photos(), args.out, {}, effort=0.125 if args.quick else 1.0
    )


def _demo_on_text(args: argparse.Namespace) -> None:
    """Print why a language model answers as it does, and write the figure of its answer's tokens.

    Raises:
        ImportError: the model is not installed.
        ValueError: a method was named.
    """
    from torchwhy.demo_text import STORY, explain_answer
    from torchwhy.models.language import load_smollm2

    if args.methods:
        raise ValueError("--methods: are for photos; leave them out with --text")
    _writable(args.out)
    print(f"{STORY} ...")
    for answer in explain_answer(load_smollm2(), effort=0.125 if args.quick else 1.0):
        said = answer.explanation.details.get("response")
        print(f"\n{answer.question}" + (f": {' '.join(said[0])}" if said else ""))
        print("\n".join(answer.lines[:5]), flush=True)
    answer.explanation.plot().savefig(args.out, dpi=110, bbox_inches="tight")
    print(f"\n{args.out}")


def _explain_command(args: argparse.Namespace) -> None:
    from torchwhy.demo import method_named
    from torchwhy.models import PHOTOS, find_label, load, photo, read_image

    for name in args.method:  # a mistake is said before anything slow
        method_named(name)
    settings = dict(_setting(text) for text in args.settings)
    if args.size is not None and args.size < 1:
        raise ValueError(f"--size: {args.size} is no number of pixels")
    _writable(args.out)
    picture = photo(args.image) if args.image in PHOTOS else read_image(args.image)
    loaded = load(args.model, weights=args.weights, trust=args.trust)
    if args.size is not None:
        loaded = replace(loaded, preprocess=replace(loaded.preprocess, size=args.size, resize=None))
    target = args.target if args.target == "predicted" else find_label(loaded.labels, args.target)
    try:
        loaded.model.to(args.device)
    except (RuntimeError, AssertionError) as error:  # no such word, or no such device here
        raise ValueError(f"--device {args.device}: {str(error).splitlines()[0]}") from None
    _show_figure(loaded, loaded.preprocess(picture).to(args.device), target, args.method, args.out, settings)


def _inspect_command(args: argparse.Namespace) -> None:
    import json

    from torchwhy.inspection import inspect
    from torchwhy.models import PHOTOS, find_label, load, photo, read_image

    picture = photo(args.image) if args.image in PHOTOS else read_image(args.image)
    loaded = load(args.model, weights=args.weights, trust=args.trust)
    if args.size is not None:
        loaded = replace(loaded, preprocess=replace(loaded.preprocess, size=args.size, resize=None))
    target = args.target if args.target == "predicted" else find_label(loaded.labels, args.target)
    found = inspect(loaded.model, loaded.preprocess(picture), target, methods=args.methods)
    print(json.dumps(found.to_dict(), indent=2) if args.json else found)


def _show_figure(
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


def _writable(out: Path) -> None:
    """Refuse a figure that could not be saved.

    Raises:
        ValueError: no such folder, or a kind of picture that is not known.
    """
    from matplotlib.figure import Figure

    if not out.parent.is_dir() or out.is_dir():
        raise ValueError(
            f"--out: '{out}' is " + ("a folder" if out.is_dir() else f"in '{out.parent}', which is no folder")
        )
    kinds = Figure().canvas.get_supported_filetypes()
    if out.suffix and out.suffix[1:].lower() not in kinds:
        raise ValueError(
            f"--out: '{out}' is of no known kind; expected one of {', '.join(f'.{k}' for k in sorted(kinds))}"
        )


def _setting(text: str) -> tuple[str, Any]:
    """Return the name and the value of a setting that was given as ``NAME=VALUE``.

    Raises:
        ValueError: there is no ``=``.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set: expected NAME=VALUE, got {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def methods_table() -> str:
    """Return the table of methods in Markdown, from the facts that their classes state."""
    from torchwhy import methods

    yes = {True: "✓", False: ""}
    lines = ["| method | what it is | gradient | × input | complete | paper |", "|---|---|:-:|:-:|:-:|---|"]
    for name, method in methods().items():
        lines.append(
            f"| `{name}` | {_what(method)} | {yes[method.needs_gradient]} | {yes[method.multiplies_by_input]} | "
            f"{yes[method.is_complete]} | {_link(method.paper)} |"
        )
    return "\n".join(lines)


def metrics_table() -> str:
    """Return the table of metrics in Markdown, from the facts on the functions."""
    from torchwhy import metrics

    better = {True: "higher", False: "lower", None: ""}
    asks = {"model": "the model", "maps": "the map", "mask": "the known pixels", "method": "the method again"}
    lines = ["| metric | what it is | better | from, to | asks | paper |", "|---|---|---|---|---|---|"]
    for name in metrics.__all__:
        function = getattr(metrics, name)
        if hasattr(function, "needs"):
            low, high = (f"{bound:g}".replace("inf", "∞").replace("-", "−") for bound in function.range)
            lines.append(
                f"| `{name}` | {_what(function)} | {better[function.higher_is_better]} | {low}, {high} | "
                f"{asks[function.needs]} | {_link(function.paper)} |"
            )
    return "\n".join(lines)


def _what(documented: object) -> str:
    """Return the first sentence of a docstring, without its equation and shape."""
    first = " ".join((documented.__doc__ or "").split("\n\n")[0].split())
    first = re.sub(r":(?:func|class):`~?(?:\w+\.)*(\w+)`", r"`\1`", first).replace("``", "`")
    return re.split(r",? (?:shape )?\(N,\)|:math:|\.(?: |$)", first)[0].rstrip(" :,.")


def _link(paper: str) -> str:
    """Return a paper, ``arXiv:NUMBER`` or ``doi:NUMBER``, as a Markdown link."""
    place, _, number = paper.rpartition(":")
    site = "https://arxiv.org/abs/" if place == "arXiv" else "https://doi.org/"
    return f"[{paper}]({site}{number})" if number else ""
