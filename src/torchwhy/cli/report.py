"""``torchwhy report folder/``: one page for many pictures; ``torchwhy serve``: a page on which they are tried."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torchwhy.cli.arguments import add_model_arguments, add_quiet, add_settings, parse_setting, say, seconds_of
from torchwhy.cli.explain_pictures import AT_A_TIME, different_names, explain_some, methods_asked_for
from torchwhy.cli.outputs import check_outputs
from torchwhy.cli.pictures import class_shares, expand_folders, load_as_asked, move_to_device
from torchwhy.cli.reading import PictureReader

if TYPE_CHECKING:
    from torch import Tensor

    from torchwhy.cli.parser import Commands
    from torchwhy.engine.structure import Keywords
    from torchwhy.explanation import Explanation
    from torchwhy.models import LoadedModel

REPORT_EXAMPLES = """examples:
  torchwhy report scans/ --model net.pt --trust --method GradCAM LRP --out report.html
  torchwhy report scans/ --model net.pt --trust --range 0 4095 --classes healthy lesion --out pages/     a page each
  torchwhy report chelsea coffee --metrics deletion complexity
"""


def add_report(commands: Commands) -> None:
    """Add the subcommands."""
    report = commands.add_parser(
        "report",
        help="one page for many pictures, to read and to print",
        epilog=REPORT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_shared(report)
    report.add_argument(
        "--metrics", nargs="*", default=["insertion", "deletion"], metavar="NAME",
        help="see `torchwhy metrics`; without a name none (default: insertion deletion)",
    )  # fmt: skip
    report.add_argument("--title", help="above everything (default: the model)")
    report.add_argument(
        "--out", type=Path, default=Path("report.html"), metavar="PATH",
        help="a page (.html), or a folder that is there for a page of each picture (default: %(default)s)",
    )  # fmt: skip
    add_quiet(report)
    report.set_defaults(run=_write_report)
    serve = commands.add_parser(
        "serve", help="a page on this machine, on which pictures are tried; needs torchwhy[app]"
    )
    _add_shared(serve)
    serve.add_argument("--port", type=int, help="of the server, at 127.0.0.1 (default: one that is free)")
    serve.set_defaults(run=_serve_pictures)


def _add_shared(parser: argparse.ArgumentParser) -> None:
    """Add what both take: pictures, a model, methods and their settings."""
    parser.add_argument("inputs", nargs="+", metavar="PICTURE", help="image files, folders of them, or bundled photos")
    add_model_arguments(parser)
    parser.add_argument(
        "--method",
        nargs="+",
        metavar="NAME",
        default=["GradCAM"],
        help="see `torchwhy methods`; or module:Class, one of your own",
    )
    add_settings(parser, "settings; PICTURE comes before")
    parser.add_argument("--device", default="cpu")


def _write_report(args: argparse.Namespace) -> None:
    """Explain the pictures, and write the report.

    Raises:
        ValueError: a mistake in what was asked for.
    """
    import torch

    import torchwhy

    names = expand_folders(args.inputs)
    if args.out.suffix.lower() != ".html" and not args.out.is_dir():
        raise ValueError(
            f"--out: '{args.out}'; a report is a page, .html, or a folder that is there, for a page of each picture"
        )
    check_outputs([args.out], [*names, args.model, args.weights], folders=True)
    methods, settings = methods_asked_for(args.method), dict(parse_setting(text) for text in args.settings)
    pictures = PictureReader(names, args.range).read_all(names)
    loaded, target = load_as_asked(args)
    move_to_device(loaded, args.device)
    parts: dict[str, list[Explanation]] = {}
    shown, facts = [], []
    for start in range(0, len(names), AT_A_TIME):
        some = [loaded.preprocess(p).to(args.device) for p in pictures[start : start + AT_A_TIME]]
        found, told = explain_some(args, loaded, some, target, methods, settings)
        facts += told
        shown += [torch.as_tensor(loaded.preprocess.to_image(x)).permute(2, 0, 1) for x in some]
        for answer in found:
            parts.setdefault(answer.name, []).append(answer.explanation)
    whole = {name: torchwhy.concat(p) for name, p in parts.items() if sum(map(len, p)) == len(names)}
    if not whole:
        raise ValueError("--method all: every method refused this model")
    if loaded.labels:
        whole = {name: e.with_names(classes=loaded.labels) for name, e in whole.items()}
    _write_pages(args, loaded, names, torch.stack(shown), whole)
    say(args, f"{args.out}: {len(names)} pictures, {seconds_of(args):.0f} s")


def _write_pages(
    args: argparse.Namespace,
    loaded: LoadedModel,
    names: Sequence[str],
    images: Tensor,
    found: Mapping[str, Explanation],
) -> None:
    """Write the page of all pictures, or into a folder a page of each, called after it."""
    import torchwhy

    pages = {args.out: slice(None)}
    if args.out.is_dir():
        pages = {args.out / f"{name}.html": slice(i, i + 1) for i, name in enumerate(different_names(names))}
    measured: Keywords = {"model": loaded.model, "metrics": args.metrics} if args.metrics else {}
    for page, part in pages.items():
        rows = [Path(name).name for name in names[part]]
        title = args.title or (rows[0] if args.out.is_dir() else loaded.name)
        of_page = {name: e[part] for name, e in found.items()}
        torchwhy.report(of_page, page, title=title, rows=rows, images=images[part], **measured)


def _serve_pictures(args: argparse.Namespace) -> None:
    """Open the page of the model, with the pictures as rows."""
    import torch

    from torchwhy.app import explore
    from torchwhy.demo import make

    args.quiet = False
    names = expand_folders(args.inputs)
    pictures = PictureReader(names, args.range).read_all(names)
    loaded, target = load_as_asked(args)
    move_to_device(loaded, args.device)
    x = torch.cat([loaded.preprocess(p).to(args.device) for p in pictures])
    if args.classes:
        class_shares(args, loaded, x[:1])  # refuses another number of names
    settings: Keywords = dict(parse_setting(text) for text in args.settings)
    made = [make(name, loaded.model, **settings) for name in methods_asked_for(args.method)]
    methods = {type(method).__name__: method for method in made}
    say(args, "at 127.0.0.1, for this machine alone; Ctrl+C ends it")
    explore(loaded.model, x, methods, target=target, classes=loaded.labels or None, port=args.port)
