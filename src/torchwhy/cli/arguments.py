"""Arguments that several subcommands share, and what their words stand for."""

from __future__ import annotations

import argparse
import ast
import sys
import time

DEFAULT_MODEL = "efficientnet-lite0"
WORDS = {"true": True, "false": False, "none": None}  # as a shell's user writes them


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says which model, and how it is shown a picture."""
    parser.add_argument(
        "--model",
        help="a name (resnet18, timm:vit_small_patch16_224, shapes-resnet) or a "
        f"file with a pickled model (default: {DEFAULT_MODEL})",
    )
    parser.add_argument("--weights", help="a file with a state_dict for the named model, or DEFAULT to download")
    parser.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="the side of the picture (default: what a named model wants, 224 for a file)",
    )
    for name, what in (("--mean", "subtracted from the colours"), ("--std", "that they are divided by")):
        parser.add_argument(
            name, nargs="+", type=float, metavar="NUMBER", help=f"{what}, in [0, 1]: one for all channels, or one each"
        )
    parser.add_argument(
        "--range",
        nargs=2,
        type=float,
        metavar=("BLACK", "WHITE"),
        help="of pictures with 16 or 32 bits, 0 4095 for scans of 12; others stay as they are (default: 0 65535, and 0 1 for "
        "floats)",
    )
    parser.add_argument("--trust", action="store_true", help="load a pickled model, which can run code")
    parser.add_argument(
        "--classes", nargs="+", metavar="NAME", help="of the model's classes in their order, where it comes with none"
    )
    parser.add_argument("--target", default="predicted", help="a label, an index, or 'predicted'")


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Add the switch that leaves nothing to be printed but mistakes."""
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but mistakes")


def say(args: argparse.Namespace, *lines: str) -> None:
    """Print lines, unless it is to be quiet."""
    if not args.quiet:
        print(*lines, sep="\n", flush=True)


def seconds_of(args: argparse.Namespace) -> float:
    """Return for how long the command has been at work."""
    return time.perf_counter() - float(args.begun)


def shows_progress(args: argparse.Namespace) -> bool:
    """Say whether a bar is shown: where somebody looks, a terminal, and it is not to be quiet."""
    return not args.quiet and sys.stderr.isatty()


def add_settings(parser: argparse.ArgumentParser, help: str, *, needs_inputs: bool = True) -> None:
    """Add ``--set``, the settings of methods; where the command needs inputs, words that are no settings may be these."""
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        type=setting_in_words if needs_inputs else str,
        default=[],
        metavar="NAME=VALUE",
        dest="settings",
        help=help,
    )


def setting_in_words(text: str) -> str:
    """Return what ``--set`` was given, where it can be a setting; the shell's words after it are taken for settings too.

    Raises:
        argparse.ArgumentTypeError: it has no ``=``.
    """
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}; what is explained comes before --set")
    return text


def parse_setting(text: str) -> tuple[str, object]:
    """Return the name and the value of a setting that was given as ``NAME=VALUE``.

    Raises:
        ValueError: there is no ``=``, or the name is ``model``, which is no setting here.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set: expected NAME=VALUE, got {text!r}")
    if name == "model":
        raise ValueError("--set model=...: the model is given by --model")
    if value.lower() in WORDS:
        return name, WORDS[value.lower()]
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, _as_number(value)


def _as_number(value: str) -> float | str:
    """Return ``nan``, ``inf`` and their kind as numbers, which no literal of Python is; anything else as it is."""
    try:
        return float(value)
    except ValueError:
        return value
