"""The arguments of the ``torchwhy`` command, and what its exit code is."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torchwhy.cli.completion import add_completion
from torchwhy.cli.demo import add_demo
from torchwhy.cli.explain import add_explain
from torchwhy.cli.explain_dataset import add_explain_dataset
from torchwhy.cli.inspect_model import add_inspect
from torchwhy.cli.listings import add_listings
from torchwhy.cli.report import add_report

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

COMMAND_EXAMPLES = """examples:
  torchwhy demo --quick
  torchwhy explain photo.jpg --method IntegratedGradients LRP --out why.png
  torchwhy inspect photo.jpg --model resnet18 --weights random
  torchwhy methods --for table
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0, or 2 after a mistake in what was asked for."""
    args = build_parser().parse_args(arguments)
    args.begun = time.perf_counter()
    try:
        args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # who reads, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's last flush fails too
    except (ValueError, LookupError, TypeError, OSError, ImportError, FloatingPointError, NotImplementedError) as error:
        print(f"torchwhy: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:  # the library's own words; those of torch and of models come with their traceback
        if not _is_ours(error):
            raise
        print(f"torchwhy: {error}", file=sys.stderr)
        return 2
    return 0


def _is_ours(error: BaseException) -> bool:
    """Say whether an error was raised by the library itself."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return at is not None and str(at.tb_frame.f_globals.get("__name__")).startswith("torchwhy.")


class PrintVersion(argparse.Action):
    """Print the versions that an answer comes from, and stop."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print them."""
        import torch

        import torchwhy

        print(f"torchwhy {torchwhy.__version__}, torch {torch.__version__}, Python {sys.version.split()[0]}")
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="torchwhy",
        description="Why did the model say that?",
        epilog=COMMAND_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=PrintVersion, nargs=0, help="print the versions, and stop")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (add_demo, add_explain, add_explain_dataset, add_report, add_inspect, add_listings, add_completion):
        add(commands)
    return parser
