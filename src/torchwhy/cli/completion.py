"""``torchwhy completion``: what a shell needs to complete the command's words."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchwhy.cli.parser import Commands

SHELLS = ("bash", "zsh", "tcsh")
COMPLETION_EXAMPLES = """examples:
  torchwhy completion bash >> ~/.local/share/bash-completion/completions/torchwhy
  torchwhy completion zsh > ~/.zfunc/_torchwhy
"""


def add_completion(commands: Commands) -> None:
    """Add the subcommand."""
    completion = commands.add_parser(
        "completion",
        help="print a script with which a shell completes the command",
        epilog=COMPLETION_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(run=_print_completion)


def _print_completion(args: argparse.Namespace) -> None:
    """Print the script.

    Raises:
        ImportError: there is no ``shtab``.
    """
    try:
        import shtab
    except ImportError as error:
        raise ImportError('completion: it is made by shtab: pip install "torchwhy[shell]"') from error
    from torchwhy.cli.parser import build_parser

    print(shtab.complete(_with_names(build_parser()), shell=args.shell))


def _with_names(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Return the parser with the names of methods and the places of files filled in, for completion alone."""
    import shtab

    from torchwhy import methods

    for subparsers in (a for a in parser._actions if isinstance(a, argparse._SubParsersAction)):
        for sub in subparsers.choices.values():
            for action in sub._actions:
                if action.dest in ("method", "methods"):
                    action.choices = ["all", *methods()]
                elif action.dest in ("inputs", "image", "out", "csv", "background", "weights", "model"):
                    action.complete = shtab.FILE  # type: ignore[attr-defined]
    return parser
