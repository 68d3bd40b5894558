"""How many evaluations does integrated gradients need on a real network until its map adds up?

Equal steps against steps that are added where the integral is off (``tolerance=``), on EfficientNet-Lite0 and photos.
"""

from __future__ import annotations

import json

from harness import DOCS, Benchmark

import torchwhy as tw
from torchwhy.models import load, photo
from torchwhy.visualize import convergence


def main() -> None:
    bench = Benchmark("ig_convergence", "Integrated gradients on a real network: gap against evaluations")
    try:
        loaded = load("efficientnet-lite0")
    except ImportError as error:
        print(f"left out: {error}")
        return
    gaps: dict[str, list[float]] = {}
    counts: dict[str, list[int]] = {}
    for name in ("chelsea",) if bench.quick else ("chelsea", "coffee"):
        x = loaded.preprocess(photo(name))
        target = loaded.model(x).argmax(1).tolist()
        change = (loaded.model(x) - loaded.model(0 * x))[0, target[0]].abs().item()
        for rule in ("gausslegendre", "riemann_trapezoid"):
            steps = (16, 64, 128) if bench.quick else (16, 32, 64, 128, 300, 600)
            label = f"{name}, {rule}"
            for n in steps:
                e = tw.IntegratedGradients(loaded.model, n_steps=n, method=rule).explain(x, target)
                counts.setdefault(label, []).append(e.evaluations)
                gaps.setdefault(label, []).append(e.completeness_gap.item() / change)
        label = f"{name}, tolerance"
        for tolerance in (0.1, 0.01) if bench.quick else (0.1, 0.03, 0.01, 0.003):
            e = tw.IntegratedGradients(loaded.model, tolerance=tolerance).explain(x, target)
            counts.setdefault(label, []).append(e.evaluations)
            gaps.setdefault(label, []).append(e.completeness_gap.item() / change)
    for label, found in gaps.items():
        print(f"{label:28}" + "  ".join(f"{n}: {g:7.2%}" for n, g in zip(counts[label], found)), flush=True)
    table = "| steps | evaluations: gap / change of the score |\n|---|---|\n" + "".join(
        f"| {label} | {', '.join(f'{n}: {g:.2%}' for n, g in zip(counts[label], found))} |\n"
        for label, found in gaps.items()
    )
    if bench.save:
        DOCS.mkdir(parents=True, exist_ok=True)
        report = {"title": bench.title, "machine": bench.machine, "quick": bench.quick, "markdown": table}
        report |= {"evaluations": counts, "gap over change": gaps}
        (DOCS / "ig_convergence.json").write_text(json.dumps(report, indent=1) + "\n")
        figure = None
        for label in gaps:
            ax = None if figure is None else figure.get_axes()[0]
            figure = convergence(
                counts[label],
                {label: gaps[label]},
                tolerance=None if ax is not None else 0.01,
                ax=ax,
                xlabel="evaluations",
                ylabel="gap / change of the score",
            )
        figure.savefig(DOCS / "ig_convergence.png", dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
