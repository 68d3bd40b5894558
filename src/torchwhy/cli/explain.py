"""``torchwhy explain``: why a model says what it says of pictures, a text or the rows of a table."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from torchwhy.cli.arguments import add_model_arguments, add_quiet, add_settings, parse_setting

if TYPE_CHECKING:
    from torchwhy.cli.parser import Commands

EXPLAIN_EXAMPLES = """examples:
  torchwhy explain photo.jpg --model resnet50 --weights DEFAULT --method IntegratedGradients SmoothGrad
  torchwhy explain scans/ --model net.pt --trust --out figures/ all.npz     a figure each, and all numbers
  torchwhy explain photo.jpg --method all --set n_steps=64 --target "tiger cat"
  torchwhy explain --text "Tom lives in Madrid. Where does Tom live? Tom lives in" --response " Madrid"
  torchwhy explain --text "What a lovely film" --model folder-of-a-classifier --target positive
  torchwhy explain --csv rows.csv --model forest.pkl --trust --target 1 --drop label --out why.png why.csv
"""


def add_explain(commands: Commands) -> None:
    """Add the subcommand."""
    explain = commands.add_parser(
        "explain",
        help="explain pictures, a text or the rows of a table",
        epilog=EXPLAIN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    explain.add_argument(
        "inputs",
        nargs="*",
        metavar="PICTURE",
        help="image files, folders of them, or bundled photos: chelsea, coffee, ...",
    )
    add_model_arguments(explain)
    explain.add_argument(
        "--method",
        nargs="+",
        metavar="NAME",
        help="see `torchwhy methods`; all: every one that applies; module:Class: one of your own (default: IntegratedGradients, "
        "of texts and tables KernelSHAP)",
    )
    add_settings(explain, "settings, as n_steps=64 signed=false", needs_inputs=False)
    explain.add_argument("--device", default="cpu")
    explain.add_argument(
        "--out",
        nargs="+",
        metavar="PATH",
        help="figures (.png, .pdf, .svg), numbers (.npz, .json, of tables .csv), a page (.html), or a folder for a figure "
        "of each picture (default: explanation.png)",
    )
    _add_text_arguments(explain)
    _add_table_arguments(explain)
    add_quiet(explain)
    explain.set_defaults(run=_explain)


def _add_text_arguments(explain: argparse.ArgumentParser) -> None:
    texts = explain.add_argument_group("a text instead of pictures")
    texts.add_argument(
        "--text", help="a prompt, or a text for a classifier; --model is smollm2 or a folder of transformers"
    )
    texts.add_argument("--response", help="what a language model says, to be explained (default: what it would say)")
    texts.add_argument(
        "--units", default="word", help="token, word, sentence or a regular expression (default: %(default)s)"
    )


def _add_table_arguments(explain: argparse.ArgumentParser) -> None:
    tables = explain.add_argument_group("a table instead of pictures")
    tables.add_argument(
        "--csv", metavar="FILE", help="its rows are explained; --model is a file, of scikit-learn or torch"
    )
    tables.add_argument("--rows", metavar="FROM:TO", help="only these rows, counted from 0")
    tables.add_argument("--drop", nargs="+", default=[], metavar="COLUMN", help="columns that the model is not given")
    tables.add_argument(
        "--background", metavar="FILE", help="rows that stand for what is absent (default: 100 of the table's)"
    )


def _explain(args: argparse.Namespace) -> None:
    given = [name for name, value in (("pictures", args.inputs), ("--text", args.text), ("--csv", args.csv)) if value]
    if len(given) != 1:
        raise ValueError(
            f"explain: expected one of pictures, --text and --csv, got {' and '.join(given) or 'none'}; see torchwhy explain -h"
        )
    settings = dict(parse_setting(text) for text in args.settings)
    if args.text:
        from torchwhy.cli.explain_text import explain_text

        explain_text(args, settings)
    elif args.csv:
        from torchwhy.cli.explain_table import explain_table

        explain_table(args, settings)
    else:
        from torchwhy.cli.explain_pictures import explain_pictures

        explain_pictures(args, settings)
