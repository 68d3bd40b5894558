"""What texts and tables are explained by, printed and written."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torchwhy.cli.arguments import say, seconds_of, shows_progress
from torchwhy.cli.outputs import DEFAULT_FIGURE, NUMBERS, PAGE, write_numbers

if TYPE_CHECKING:
    from torchwhy.attribution import Attribution
    from torchwhy.engine.structure import Keywords
    from torchwhy.explanation import Explanation
    from torchwhy.methods_for import DataKind


def outputs_asked_for(args: argparse.Namespace) -> list[Path]:
    """Return where to write: a figure, where nothing is said."""
    return [Path(out) for out in args.out] if args.out else [DEFAULT_FIGURE]


def methods_named(names: Sequence[str] | None, kind: DataKind) -> dict[str, type[Attribution]]:
    """Return methods by name, ``KernelSHAP`` where none is named; ``all`` is those for such data.

    Raises:
        ValueError: there is no such one.
    """
    from torchwhy.demo import method_named
    from torchwhy.methods_for import methods_for

    if names and [name.lower() for name in names] == ["all"]:
        return methods_for(kind)
    found = [method_named(name) for name in names or ["KernelSHAP"]]
    return {method.__name__: method for method in found}


def explain_by_each(
    args: argparse.Namespace,
    methods: Mapping[str, type[Attribution]],
    model: object,
    settings: Keywords,
    ask: Callable[[Attribution], Explanation],
) -> dict[str, Explanation]:
    """Return what each method finds; of ``--method all``, one that refuses is said and left out.

    Raises:
        ValueError: all of them refuse.
    """
    found: dict[str, Explanation] = {}
    for name, method in methods.items():
        how: Keywords = {"progress": shows_progress(args), **settings}
        if hasattr(method, "generator") and "generator" not in how:
            how["generator"] = 0
        try:
            found[name] = ask(method(model, **how))
        except (TypeError, ValueError, LookupError, NotImplementedError, FloatingPointError) as error:
            if len(methods) == 1 or not (args.method and args.method[0].lower() == "all"):
                raise
            say(args, f"  {name:22} refused: {error}")
    if not found:
        raise ValueError("--method all: every method refused this model")
    return found


def write_found(
    args: argparse.Namespace,
    found: Mapping[str, Explanation],
    rows: Sequence[Keywords],
    facts: Keywords,
    outs: Sequence[Path],
) -> None:
    """Write what was found to each of some paths: figures, tables, pages, numbers; of several methods a figure each."""
    from torchwhy.visualize import page

    for out in outs:
        places = [out]
        if out.suffix.lower() in NUMBERS:
            write_numbers(out, found, rows, facts)
        elif out.suffix.lower() == PAGE:
            page(found, out, title=str(facts.get("model", "Why?")))
        else:
            places = [out] if len(found) == 1 else [out.with_name(f"{out.stem}-{name}{out.suffix}") for name in found]
            for place, e in zip(places, found.values()):
                _write_one(e, place)
        say(args, *(f"{place}: {seconds_of(args):.0f} s" for place in places))


def _write_one(e: Explanation, place: Path) -> None:
    """Write a table, or a figure: of one row its features, of several rows each feature's values."""
    if place.suffix.lower() == ".csv":
        e.to_csv(place)
        return
    from torchwhy.engine.structure import SINGLE, flatten

    several = len(e) > 1 and flatten(e.attributions)[1] is SINGLE
    figure = e.plot(kind="beeswarm") if several else e.plot()
    figure.savefig(place, dpi=110, bbox_inches="tight")
