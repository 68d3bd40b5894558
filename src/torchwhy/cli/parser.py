"""The arguments of the ``torchwhy`` command, and what its exit code is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torchwhy.cli.demo import add_demo
from torchwhy.cli.explain import add_explain
from torchwhy.cli.inspect_model import add_inspect
from torchwhy.cli.listings import add_listings

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0, or 2 after a mistake in what was asked for."""
    args = build_parser().parse_args(arguments)
    try:
        args.run(args)
    except (ValueError, LookupError, TypeError, OSError, ImportError, FloatingPointError) as error:
        print(f"torchwhy: {error}", file=sys.stderr)
        return 2
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all subcommands."""
    parser = argparse.ArgumentParser(prog="torchwhy", description="Why did the model say that?")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (add_demo, add_explain, add_inspect, add_listings):
        add(commands)
    return parser
