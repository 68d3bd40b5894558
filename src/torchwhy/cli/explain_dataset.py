"""``torchwhy explain-dataset``: every picture of a folder, or every row of a table, into a folder of explanations."""

from __future__ import annotations

import argparse
import csv
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from torchwhy.cli.arguments import (
    add_model_arguments,
    add_quiet,
    add_settings,
    parse_setting,
    say,
    seconds_of,
    shows_progress,
)
from torchwhy.cli.pictures import expand_folders, load_as_asked, move_to_device
from torchwhy.cli.reading import PictureReader

if TYPE_CHECKING:
    from torch import Tensor

    from torchwhy.attribution import Attribution
    from torchwhy.cli.parser import Commands
    from torchwhy.datasets import ExplainedDataset
    from torchwhy.engine.structure import AnyForm, InForm, Keywords
    from torchwhy.models import LoadedModel
    from torchwhy.targets import TargetLike

TABLE_KINDS = (".csv", ".parquet")
SECONDS_UNTOLD = 60.0  # between two lines that say how far the work is, where nobody sees a bar
ROWS_FILE = "rows.csv"  # of pictures: which file each row is
EXAMPLES = """examples:
  torchwhy explain-dataset scans/ --model net.pt --trust --method LRP --out explained/
  torchwhy explain-dataset rows.parquet --model forest.pkl --trust --label answer --out explained/
  torchrun --nproc-per-node=2 -m torchwhy explain-dataset scans/ --model net.pt --trust --out explained/

The same command goes on where it was stopped. In Python, tw.load_dataset("explained/") reads what is there.
"""


@dataclass
class _Batches:
    """Batches that are made when their turn comes.

    Args:
        make: the batch of a slice of the rows.
        rows: how many there are.
        size: of a batch.
    """

    make: Callable[[slice], InForm]
    rows: int
    size: int

    def __len__(self) -> int:
        return -(-self.rows // self.size)

    def __iter__(self) -> Iterator[InForm]:
        return (self.make(slice(a, a + self.size)) for a in range(0, self.rows, self.size))


class _Work(NamedTuple):
    """What is asked of :func:`torchwhy.explain_dataset`."""

    method: Attribution
    data: _Batches
    target: TargetLike
    arguments: Keywords
    rows: int
    files: list[str] | None = None  # that the rows are, of pictures


def add_explain_dataset(commands: Commands) -> None:
    """Add the subcommand."""
    command = commands.add_parser(
        "explain-dataset",
        help="explain all pictures of a folder, or all rows of a table, into a folder",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "inputs",
        nargs="+",
        metavar="DATA",
        help="folders of pictures and pictures, or a table: one .csv or .parquet; before --set and other lists",
    )
    add_model_arguments(command)
    command.add_argument(
        "--method",
        metavar="NAME",
        help="one, or module:Class, one of your own (default: IntegratedGradients, of tables KernelSHAP)",
    )
    add_settings(command, "settings of the method; DATA comes before")
    command.add_argument("--out", required=True, metavar="FOLDER", help="where the explanations are kept")
    command.add_argument(
        "--batch-size", type=int, default=32, metavar="ROWS", help="rows of a file (default: %(default)s)"
    )
    command.add_argument(
        "--on-error",
        choices=("raise", "record"),
        default="raise",
        help="a row that cannot be explained ends the work, or is noted (default: %(default)s)",
    )
    command.add_argument("--no-resume", action="store_true", help="refuse a folder that holds explanations")
    command.add_argument("--device", default="cpu")
    tables = command.add_argument_group("of a table")
    tables.add_argument("--label", metavar="COLUMN", help="the class that each row is explained for; not an input")
    tables.add_argument("--drop", nargs="+", default=[], metavar="COLUMN", help="columns that the model is not given")
    tables.add_argument("--background", metavar="FILE", help="rows for what is absent (default: 100 of the table's)")
    add_quiet(command)
    command.set_defaults(run=_explain_dataset)


def _explain_dataset(args: argparse.Namespace) -> None:
    import torchwhy as tw
    from torchwhy.datasets.store import Store

    if args.no_resume and Store(args.out).finished():
        raise ValueError(
            f"--out {args.out}: holds explanations; give another folder, or leave --no-resume out to go on"
        )
    if args.batch_size < 1:
        raise ValueError(f"--batch-size: {args.batch_size} is no number of rows")
    if int(os.environ.get("RANK", "0")) > 0:  # one of several processes speaks
        args.quiet = True
    settings = dict(parse_setting(text) for text in args.settings)
    is_table = [Path(name).suffix.lower() in TABLE_KINDS for name in args.inputs]
    if any(is_table) and len(args.inputs) > 1:
        raise ValueError("explain-dataset: expected pictures and folders, or one table")
    work = _of_table(args, settings) if is_table[0] else _of_pictures(args, settings)
    say(args, f"{type(work.method).__name__}: {work.rows} rows into {args.out}")
    counts, told = [0, 0, 0], [seconds_of(args)]
    if there := sum(entry.rows for entry in Store(args.out).finished().values()):
        say(args, f"  {there} rows are there, and are checked")

    def count(report: tw.datasets.Progress) -> None:
        if work.files is not None and not any(counts):  # the job has begun: the folder is one for these rows
            _write_files(Path(args.out), work.files)
        counts[:] = report[1:]
        if seconds_of(args) > told[0] + SECONDS_UNTOLD and not shows_progress(args):
            told[0] = seconds_of(args)
            say(args, f"  {sum(counts)} of {work.rows} rows, {told[0]:.0f} s")

    found = tw.explain_dataset(
        work.method,
        work.data,
        args.out,
        target=work.target,
        on_error=args.on_error,
        resume=not args.no_resume,
        progress=shows_progress(args),
        callback=count,
        **work.arguments,
    )
    _tell(args, found, *counts)


def _tell(args: argparse.Namespace, found: ExplainedDataset, explained: int, failed: int, before: int) -> None:
    """Say what was done, and what failed."""
    for row in found.failed[:10]:
        say(args, f"  row {row.row}: {row.error}")
    if len(found.failed) > 10:
        say(args, f"  and {len(found.failed) - 10} rows more that failed")
    done = f"{explained} rows explained, {failed} failed" + (f", {before} were there before" if before else "")
    gone = len(found.failed) - failed
    if before and gone and os.environ.get("WORLD_SIZE", "1") == "1":  # else others know of theirs
        done += f", {gone} of which had failed and are not tried again"
    say(args, f"{done}: {args.out}, {seconds_of(args):.0f} s")


def _of_pictures(args: argparse.Namespace, settings: Keywords) -> _Work:
    """Return the work for pictures, which are read when their turn comes.

    Raises:
        ValueError: a mistake in what was asked for.
    """
    import torch

    from torchwhy.datasets.batches import PartlyRead
    from torchwhy.demo import data_for_photos, make

    for name in ("label", "drop", "background"):
        if getattr(args, name):
            raise ValueError(f"--{name}: is for tables")
    if any(Path(name).is_dir() and Path(name).resolve() == Path(args.out).resolve() for name in args.inputs):
        raise ValueError(f"--out {args.out}: is the folder of the pictures; give another one")
    names = expand_folders(args.inputs)
    reader = PictureReader(names, args.range)
    loaded, target = load_as_asked(args)
    move_to_device(loaded, args.device)
    method = make(args.method or "IntegratedGradients", loaded.model, **settings)

    def read(part: slice) -> Tensor:
        return torch.cat([_read_picture(args, loaded, reader, name)[0] for name in names[part]])

    def read_and_tell(part: slice) -> PartlyRead:
        found = [_read_picture(args, loaded, reader, name) for name in names[part]]
        reader.tell()
        return PartlyRead(torch.cat([x for x, _ in found]), {i: why for i, (_, why) in enumerate(found) if why})

    _check_files(Path(args.out), names)
    arguments = data_for_photos(type(method), read(slice(1)), 1.0)
    batches = _Batches(read_and_tell, len(names), args.batch_size)
    return _Work(method, batches, target, arguments, len(names), names)


def _read_picture(
    args: argparse.Namespace, loaded: LoadedModel, reader: PictureReader, name: str
) -> tuple[Tensor, str]:
    """Return a picture ``(1, C, H, W)``, and why it cannot be read, if it cannot and that is to be noted: then it is NaN.

    Raises:
        ValueError, OSError: it cannot be read.
    """
    import torch

    wanted = loaded.preprocess
    try:
        return wanted(reader(name)).to(args.device), ""
    except (ValueError, OSError) as error:
        if args.on_error == "raise":
            raise
        why = str(error) if Path(name).name in str(error) else f"'{name}': {error}"
        blank = torch.full((1, wanted.channels, wanted.size, wanted.size), torch.nan, device=args.device)
        return blank, f"{type(error).__name__}: {why}"


def _check_files(folder: Path, names: list[str]) -> None:
    """Refuse other files than those that the finished rows of a folder are of; more of them may follow.

    They are told by their names, without the folders that these are in, which may be named from elsewhere.

    Raises:
        ValueError: the files are others, or fewer.
    """
    from torchwhy.datasets.store import Store

    path = folder / ROWS_FILE
    if not path.is_file() or not Store(folder).finished():
        return
    with path.open(newline="", encoding="utf-8") as file:
        before = [line[1] for line in csv.reader(file) if len(line) == 2][1:]
    for row, name in enumerate(before):
        now = names[row] if row < len(names) else None
        if now is None or Path(now).name != Path(name).name:
            there = "there is no such row" if now is None else f"it is {now!r}"
            raise ValueError(
                f"{folder} holds explanations of other files: row {row} was {name!r}, and now {there}; give another folder"
            )


def _write_files(folder: Path, names: list[str]) -> None:
    """Write which file each row is, beside the explanations."""
    from torchwhy.datasets.store import write_whole

    table = io.StringIO(newline="")
    csv.writer(table).writerows([("row", "file"), *enumerate(names)])
    contents = table.getvalue().encode()
    path = folder / ROWS_FILE
    if not path.is_file() or path.read_bytes() != contents:
        write_whole(path, contents)


def _of_table(args: argparse.Namespace, settings: Keywords) -> _Work:
    """Return the work for the rows of a table.

    Raises:
        ValueError: a mistake in what was asked for.
    """
    import torchwhy as tw
    from torchwhy.cli.explain_table import (
        background_rows,
        load_table_model,
        read_background,
        read_table,
        takes_several,
        target_of_table,
    )
    from torchwhy.demo import method_named

    if args.model is None:
        raise ValueError("--model: name the file of the model, of scikit-learn or torch")
    model, labels = load_table_model(Path(args.model), args.trust)
    whole = read_table(args.inputs[0], args.drop)
    answers = None
    if args.label is not None:
        if args.label not in whole.columns:
            raise ValueError(f"--label: no column {args.label!r}; there are {', '.join(map(repr, whole.columns))}")
        answers = whole[args.label].tolist()
        whole = whole.drop(columns=[args.label])
    kind = method_named(args.method or "KernelSHAP")
    seed: Keywords = {"generator": 0} if hasattr(kind, "generator") else {}
    method = kind(model, **{**seed, **settings})
    background = whole if args.background is None else read_background(args.background, whole)
    arguments: Keywords = {"names": list(map(str, whole.columns))}
    if takes_several(method):
        arguments["baselines"] = tw.Distribution(background_rows(background))

    def rows(part: slice) -> AnyForm:
        return whole.iloc[part] if answers is None else (whole.iloc[part], answers[part])

    target = target_of_table(args, labels, model) if answers is None else "label"
    return _Work(method, _Batches(rows, len(whole), args.batch_size), target, arguments, len(whole))
