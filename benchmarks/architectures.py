"""How well do the rules hold on real architectures? Every method of modified backpropagation on every family.

For each model (random weights, batch norm settled, untouched code) the gap of each method, as a part of the change of the
score: DeepLIFT's completeness, |sum - (f(x) - f(0))| / |f(x) - f(0)|, and LRP-ε's conservation with all biases at zero,
|sum - f(x)| / |f(x)|. The others only have to run: a tick is finite, not zero, not the plain gradient.

    python benchmarks/architectures.py [--quick] [--save]

``--save`` writes the table to docs/architectures.md.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import zoo  # noqa: E402

import torchwhy as tw  # noqa: E402

RUN = {
    "Guided": lambda m: tw.GuidedBackprop(m),
    "Deconv": lambda m: tw.DeconvNet(m),
    "LRP auto": lambda m: tw.LRP(m),
    "LRP γ": lambda m: tw.LRP(m, composite="epsilon_gamma"),
    "LRP α2β1": lambda m: tw.LRP(m, composite="epsilon_alpha2_beta1"),
    "LRP attention": lambda m: tw.LRP(m, composite="attention"),
    "Excitation": lambda m: tw.ExcitationBackprop(m),
}
COLUMNS = ["model", "DeepLIFT gap", "DeepLIFT gap, float64", "LRP-ε gap, no biases", *RUN, "operations without a rule"]


def relative(gap: torch.Tensor, whole: torch.Tensor) -> str:
    return f"{float(gap.max() / whole.abs().max()):.0e}"


def deeplift(model: Any, x: torch.Tensor) -> tuple[tw.Explanation, list[str]]:
    """The explanation and its gap."""
    e = tw.DeepLIFT(model).explain(x, 1)
    with torch.no_grad():
        change = (model(x) - model(torch.zeros_like(x)))[0, 1]
    return e, [relative(e.completeness_gap, change)]


def row(name: str) -> list[str]:
    model, x = zoo.build(name)
    gradient = tw.Saliency(model, signed=True).attribute(x, 1)
    e, cells = deeplift(model, x)
    _, exact = deeplift(zoo.build(name)[0].double(), x.double())
    cells = [name, *cells, *exact]
    bare, _ = zoo.build(name, biases=False)
    conserved = tw.LRP(bare, composite="epsilon", epsilon=1e-12).explain(x, 1)
    with torch.no_grad():
        cells.append(relative(conserved.completeness_gap, bare(x)[0, 1]))
    for make in RUN.values():
        found = make(model).attribute(x, 1)
        plain = any(((found - p).norm() / p.norm()) < 1e-6 for p in (gradient, x * gradient))
        cells.append("plain gradient" if plain else "✓" if found.isfinite().all() and found.any() else "✗")
    cells.append(", ".join(e.details["plain_operations"]) or "none")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small models only")
    parser.add_argument("--save", action="store_true", help="write docs/architectures.md")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    names = [*zoo.SMALL, *zoo.RECURRENT] if options.quick else [*zoo.NAMES, *zoo.RECURRENT]
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    print("\n".join(lines))
    for name in names:
        begun = time.perf_counter()
        try:
            cells = row(name)
        except ImportError as error:
            print(f"{name}: skipped, {error}", file=sys.stderr)
            continue
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], f"{time.perf_counter() - begun:.1f} s", flush=True)
    if options.save:
        text = (__doc__ or "").split("\n\n")
        (ROOT / "docs" / "architectures.md").write_text(
            "# Modified backpropagation on real architectures\n\n" + text[1] + "\n\nMade by `benchmarks/architectures.py`, "
            f"torch {torch.__version__}, float32 but for one column: what remains in float32, where weights are random and "
            "contributions of both signs cancel (LeViT: by a factor of ten thousand), is rounding. GPT-2 and recurrent layers "
            "have no rectifiers, hence the plain gradient.\n\n"
            + "\n".join(lines) + "\n"
        )  # fmt: skip


if __name__ == "__main__":
    main()
