"""``torchwhy explain``: why a model says what it says of an image."""

from __future__ import annotations

import argparse
import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchwhy.cli.outputs import refuse_figure
from torchwhy.cli.pictures import DEFAULT_MODEL, load_as_asked, picture_named, show_figure

if TYPE_CHECKING:
    from torchwhy.cli.parser import Commands


def add_explain(commands: Commands) -> None:
    """Add the subcommand."""
    explain = commands.add_parser("explain", help="explain an image file")
    explain.add_argument("image", help="an image file, or the name of a bundled photo: chelsea, coffee, ...")
    explain.add_argument(
        "--model",
        default=DEFAULT_MODEL,
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


def _explain_command(args: argparse.Namespace) -> None:
    from torchwhy.demo import method_named

    for name in args.method:  # a mistake is said before anything slow
        method_named(name)
    settings = dict(_setting(text) for text in args.settings)
    refuse_figure(args.out)
    picture = picture_named(args.image)
    loaded, target = load_as_asked(args)
    try:
        loaded.model.to(args.device)
    except (RuntimeError, AssertionError) as error:  # no such word, or no such device here
        raise ValueError(f"--device {args.device}: {str(error).splitlines()[0]}") from None
    show_figure(loaded, loaded.preprocess(picture).to(args.device), target, args.method, args.out, settings)


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
