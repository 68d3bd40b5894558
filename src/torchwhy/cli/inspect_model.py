"""``torchwhy inspect``: which methods apply to a model, what they cost, and what may go wrong."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from torchwhy.cli.arguments import add_model_arguments
from torchwhy.cli.pictures import load_as_asked
from torchwhy.cli.reading import PictureReader

if TYPE_CHECKING:
    from torchwhy.cli.parser import Commands


def add_inspect(commands: Commands) -> None:
    """Add the subcommand."""
    look = commands.add_parser("inspect", help="which methods apply to a model, what they cost, and what may go wrong")
    look.add_argument("image", help="an image file, or the name of a bundled photo")
    add_model_arguments(look)
    look.add_argument("--methods", nargs="+", metavar="NAME", help="only these")
    look.add_argument("--json", action="store_true", help="print it as JSON")
    look.set_defaults(run=_print_inspection)


def _print_inspection(args: argparse.Namespace) -> None:
    import json

    from torchwhy.inspection import inspect

    picture = PictureReader([args.image], args.range).read_all([args.image])[0]
    loaded, target = load_as_asked(args)
    found = inspect(loaded.model, loaded.preprocess(picture), target, methods=args.methods)
    print(json.dumps(found.to_dict(), indent=2) if args.json else found)
