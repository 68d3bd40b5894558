"""``torchwhy demo``: the methods on a real network and two photos, or on a language model's answer."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from torchwhy.cli.outputs import refuse_figure
from torchwhy.cli.pictures import DEFAULT_MODEL, show_figure

if TYPE_CHECKING:
    from torchwhy.cli.parser import Commands

DEMO_PHOTOS = ("chelsea", "coffee")


def add_demo(commands: Commands) -> None:
    """Add the subcommand."""
    demo = commands.add_parser("demo", help="the methods for photos on a real network and two photos, on one figure")
    demo.add_argument("--out", type=Path, default=Path("torchwhy-demo.png"), help="the figure (default: %(default)s)")
    demo.add_argument("--text", action="store_true", help="a language model's answer instead, token by token")
    demo.add_argument("--methods", nargs="+", metavar="NAME", help="only these")
    demo.add_argument("--quick", action="store_true", help="an eighth of the samples and steps")
    demo.set_defaults(run=_demo)


def _demo(args: argparse.Namespace) -> None:
    if args.text:
        _demo_on_text(args)
        return
    import torch

    from torchwhy.demo import for_photos
    from torchwhy.models import load, photo

    refuse_figure(args.out)
    loaded = load(DEFAULT_MODEL)
    x = torch.cat([loaded.preprocess(photo(name)) for name in DEMO_PHOTOS])
    show_figure(loaded, x, "predicted", args.methods or for_photos(), args.out, {}, effort=0.125 if args.quick else 1.0)


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
    refuse_figure(args.out)
    print(f"{STORY} ...")
    for answer in explain_answer(load_smollm2(), effort=0.125 if args.quick else 1.0):
        said = answer.explanation.details.get("response")
        print(f"\n{answer.question}" + (f": {' '.join(said[0])}" if said else ""))
        print("\n".join(answer.lines[:5]), flush=True)
    answer.explanation.plot().savefig(args.out, dpi=110, bbox_inches="tight")
    print(f"\n{args.out}")
