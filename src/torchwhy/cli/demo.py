"""``torchwhy demo``: the methods on a real network and two photos, or on a language model's answer."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from torchwhy.cli.arguments import DEFAULT_MODEL, add_quiet, say, seconds_of
from torchwhy.cli.outputs import check_outputs

if TYPE_CHECKING:
    from torchwhy.cli.parser import Commands

DEMO_PHOTOS = ("chelsea", "coffee")


def add_demo(commands: Commands) -> None:
    """Add the subcommand."""
    demo = commands.add_parser("demo", help="the methods for photos on a real network and two photos, on one figure")
    demo.add_argument("--out", type=Path, default=Path("torchwhy-demo.png"), help="the figure (default: %(default)s)")
    demo.add_argument("--text", action="store_true", help="a language model's answer instead, token by token")
    demo.add_argument("--methods", nargs="+", metavar="NAME", dest="method", help="only these")
    demo.add_argument("--quick", action="store_true", help="an eighth of the samples and steps")
    add_quiet(demo)
    demo.set_defaults(run=_demo, classes=None)


def _demo(args: argparse.Namespace) -> None:
    check_outputs([args.out], [])
    if args.text:
        _demo_on_text(args)
        return
    from torchwhy.cli.explain_pictures import draw, explain_some, methods_asked_for
    from torchwhy.models import load, photo

    loaded = load(DEFAULT_MODEL)
    x = [loaded.preprocess(photo(name)) for name in DEMO_PHOTOS]
    methods = methods_asked_for(args.method or ["all"])
    shown, rows = explain_some(args, loaded, x, "predicted", methods, {}, effort=0.125 if args.quick else 1.0)
    draw(loaded, x, shown, rows, args.out)
    say(args, f"{args.out}: {len(shown)} methods, {seconds_of(args):.0f} s")


def _demo_on_text(args: argparse.Namespace) -> None:
    """Print why a language model answers as it does, and write the figure of its answer's tokens.

    Raises:
        ImportError: the model is not installed.
        ValueError: a method was named.
    """
    from torchwhy.demo_text import STORY, explain_answer
    from torchwhy.models.language import load_smollm2

    if args.method:
        raise ValueError("--methods: are for photos; leave them out with --text")
    say(args, f"{STORY} ...")
    for answer in explain_answer(load_smollm2(), effort=0.125 if args.quick else 1.0):
        said = answer.explanation.details.get("response")
        say(args, f"\n{answer.question}" + (f": {' '.join(said[0])}" if said else ""), *answer.lines[:5])
    answer.explanation.plot().savefig(args.out, dpi=110, bbox_inches="tight")
    say(args, f"\n{args.out}")
