"""``torchwhy methods`` and ``torchwhy metrics``: the tables of what there is."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchwhy.cli.parser import Commands
    from torchwhy.methods_for import DataKind

KINDS = ("image", "text", "table", "black-box")


def add_listings(commands: Commands) -> None:
    """Add the two subcommands."""
    methods = commands.add_parser("methods", help="the table of methods")
    methods.add_argument(
        "--for", choices=KINDS, dest="kind", help="only those for such data, or for models that are no modules"
    )
    methods.set_defaults(run=_print_methods)
    metrics = commands.add_parser("metrics", help="the table of metrics")
    metrics.set_defaults(run=_print_metrics)


def _print_methods(args: argparse.Namespace) -> None:
    print(methods_table(args.kind))


def _print_metrics(args: argparse.Namespace) -> None:
    print(metrics_table())


def methods_table(kind: DataKind | None = None) -> str:
    """Return the table of methods in Markdown, from the facts that their classes state: of all, or of those for such data."""
    from torchwhy import methods
    from torchwhy.methods_for import methods_for

    yes = {True: "✓", False: ""}
    lines = ["| method | what it is | gradient | × input | complete | paper |", "|---|---|:-:|:-:|:-:|---|"]
    for name, method in (methods() if kind is None else methods_for(kind)).items():
        lines.append(
            f"| `{name}` | {_what(method)} | {yes[method.needs_gradient]} | {yes[method.multiplies_by_input]} | "
            f"{yes[method.is_complete]} | {_link(method.paper)} |"
        )
    return "\n".join(lines)


def metrics_table() -> str:
    """Return the table of metrics in Markdown, from the facts on the functions."""
    from torchwhy import metrics

    better = {True: "higher", False: "lower", None: ""}
    asks = {"model": "the model", "maps": "the map", "mask": "the known pixels", "method": "the method again"}
    lines = ["| metric | what it is | better | from, to | asks | paper |", "|---|---|---|---|---|---|"]
    for name in metrics.__all__:
        function = getattr(metrics, name)
        if hasattr(function, "needs"):
            low, high = (f"{bound:g}".replace("inf", "∞").replace("-", "−") for bound in function.range)
            lines.append(
                f"| `{name}` | {_what(function)} | {better[function.higher_is_better]} | {low}, {high} | "
                f"{asks[function.needs]} | {_link(function.paper)} |"
            )
    return "\n".join(lines)


def _what(documented: object) -> str:
    """Return the first sentence of a docstring, without its equation and shape."""
    first = " ".join((documented.__doc__ or "").split("\n\n")[0].split())
    first = re.sub(r":(?:func|class):`~?(?:\w+\.)*(\w+)`", r"`\1`", first).replace("``", "`")
    return re.split(r",? (?:shape )?\(N,\)|:math:|\.(?: |$)", first)[0].rstrip(" :,.")


def _link(paper: str) -> str:
    """Return a paper, ``arXiv:NUMBER`` or ``doi:NUMBER``, as a Markdown link."""
    place, _, number = paper.rpartition(":")
    site = "https://arxiv.org/abs/" if place == "arXiv" else "https://doi.org/"
    return f"[{paper}]({site}{number})" if number else ""
