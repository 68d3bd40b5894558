"""How well do the rules hold on real architectures? Every method of modified backpropagation on every family.

For each model (random weights, batch norm settled, untouched code) the gap of each method, as a part of the change of the
score: DeepLIFT's completeness, |sum - (f(x) - f(0))| / |f(x) - f(0)|, and LRP-ε's conservation with all biases at zero,
|sum - f(x)| / |f(x)|. The others only have to run: a tick is finite, not zero, not the plain gradient.

    python benchmarks/architectures.py --save
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from harness import DOCS, Benchmark

import torchwhy as tw

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import zoo

RUN = {
    "Guided": lambda m: tw.GuidedBackprop(m),
    "Deconv": lambda m: tw.DeconvNet(m),
    "LRP auto": lambda m: tw.LRP(m),
    "LRP γ": lambda m: tw.LRP(m, composite="epsilon_gamma"),
    "LRP α2β1": lambda m: tw.LRP(m, composite="epsilon_alpha2_beta1"),
    "LRP attention": lambda m: tw.LRP(m, composite="attention"),
    "Excitation": lambda m: tw.ExcitationBackprop(m),
}
GAPS = ("DeepLIFT gap", "DeepLIFT gap, float64", "LRP-ε gap, no biases")
COLUMNS = ["model", *GAPS, *RUN, "operations without a rule"]
ABOUT = """float32 but for one column. What remains in float32, where weights are random and contributions of both signs cancel
(LeViT: by a factor of ten thousand), is rounding; Llama's norms compute in float32 whatever they are given. Recurrent layers
have no rectifiers, and GPT-2 writes its GELU by hand, with tanh, hence the plain gradient."""


def relative(gap: torch.Tensor, whole: torch.Tensor) -> float:
    """The largest gap as a part of what should have been explained."""
    return float(gap.max() / whole.abs().max())


def deeplift(model: Any, x: torch.Tensor) -> tuple[tw.Explanation, float]:
    """The explanation and its gap."""
    e = tw.DeepLIFT(model).explain(x, 1)
    with torch.no_grad():
        change = (model(x) - model(torch.zeros_like(x)))[0, 1]
    return e, relative(e.completeness_gap, change)


def row(name: str) -> tuple[list[str], dict[str, float]]:
    """The cells of a model's row of the table, and the numbers among them."""
    model, x = zoo.build(name)
    gradient = tw.Saliency(model, signed=True).attribute(x, 1)
    e, gap = deeplift(model, x)
    _, exact = deeplift(zoo.build(name)[0].double(), x.double())
    bare, _ = zoo.build(name, biases=False)
    conserved = tw.LRP(bare, composite="epsilon", epsilon=1e-12).explain(x, 1)
    with torch.no_grad():
        gaps = dict(zip(GAPS, (gap, exact, relative(conserved.completeness_gap, bare(x)[0, 1]))))
    cells = [name, *(f"{value:.0e}" for value in gaps.values())]
    for make in RUN.values():
        found = make(model).attribute(x, 1)
        plain = any(((found - p).norm() / p.norm()) < 1e-6 for p in (gradient, x * gradient))
        cells.append("plain gradient" if plain else "✓" if found.isfinite().all() and found.any() else "✗")
    return [*cells, ", ".join(e.details["plain_operations"]) or "none"], gaps


class Architectures(Benchmark):
    """A benchmark of numbers without times, whose table is a page of its own."""

    of_cases = False

    def plot(self, results: list[dict[str, Any]]) -> Any:
        """The gaps of each model, on a logarithmic axis."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 1 + 0.16 * len(results)))
        ax = figure.subplots()
        for gap, colour in zip(GAPS, ("#8c9bb0", "#4c72b0", "#c44e52")):
            values = [max(r["gaps"][gap], 1e-17) for r in results]
            ax.plot(values, range(len(values)), "o", markersize=3.5, color=colour, label=gap)
        ax.set(xscale="log", xlabel="gap / change of the score (nothing: at the left edge)")
        ax.set_yticks(range(len(results)), [r["case"] for r in results], fontsize=6)
        ax.invert_yaxis()
        ax.grid(linewidth=0.3)
        ax.set_title(self.title, fontsize=9)
        ax.legend(fontsize=7)
        return figure


def main() -> None:
    bench = Architectures("architectures", "Modified backpropagation on real architectures")
    warnings.simplefilter("ignore")
    names = [*zoo.SMALL, *zoo.RECURRENT] if bench.quick else [*zoo.NAMES, *zoo.RECURRENT]
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    print("\n".join(lines))
    for name in names:
        if not bench.wanted(name):
            continue
        begun = time.perf_counter()
        try:
            cells, gaps = row(name)
        except ImportError as error:
            print(f"{name}: left out, {error}", file=sys.stderr)
            continue
        bench.results.append({"case": name, "gaps": gaps, "cells": dict(zip(COLUMNS, cells))})
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], f"{time.perf_counter() - begun:.1f} s", flush=True)
    bench.text = "The table is on [a page of its own](architectures.md)."
    bench.finish()
    if bench.save:
        language = importlib.util.find_spec("transformers")
        versions = bench.machine + (f", transformers {importlib.metadata.version('transformers')}" if language else "")
        about, table = (__doc__ or "").split("\n\n")[1], "\n".join(lines)
        (DOCS.parent / "architectures.md").write_text(
            f"# {bench.title}\n\n{about}\n\nMade by `benchmarks/architectures.py`; {versions}; {ABOUT}\n\n{table}\n\n"
            "![the gaps](benchmarks/architectures.png)\n"
        )


if __name__ == "__main__":
    main()
