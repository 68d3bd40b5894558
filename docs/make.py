"""Write docs/methods.md, docs/metrics.md, docs/benchmarks.md, docs/reference/ and the README's table from the code.

``python docs/make.py [--pictures] [--only FAMILY]``; the pictures take minutes.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import json
import re
import runpy
import statistics
from pathlib import Path

import torchwhy as tw

README_METHODS = ["SmoothGrad", "IntegratedGradients", "LRP", "GradCAM", "Occlusion"]
PEERS = ("captum", "zennit", "torchcam", "pytorch-grad-cam", "shap", "lime", "shapiq", "quantus")
# the modules of metrics, in the order of the page
METRIC_MODULES = [
    "removal",
    "agreement",
    "robustness",
    "localisation",
    "complexity_metrics",
    "randomization",
    "axioms",
]
DOCS = Path(__file__).resolve().parent


def families() -> dict[str, list[type]]:
    """Return the methods by the package they live in."""
    found: dict[str, list[type]] = {}
    for method in tw.methods().values():
        found.setdefault(method.__module__.split(".")[1], []).append(method)
    return found


def markdown(docstring: str, arguments: str = "Settings") -> str:
    """Return a docstring as Markdown: mathematics, references to classes, lists of arguments; examples left out."""
    text = inspect.cleandoc(docstring)
    text = re.split(r"^>>> ", text, flags=re.M)[0].rstrip()
    text = re.sub(r":math:`([^`]*)`", lambda m: "$" + " ".join(m.group(1).split()) + "$", text, flags=re.S)
    text = re.sub(r":(?:class|meth|mod|func):`~?(?:\w+\.)*(\w+)`", r"`\1`", text)
    text = text.replace("``", "`").replace(r"\|", "|")
    text = re.sub(r"^Args:$", f"{arguments}:\n", text, flags=re.M)
    text = re.sub(r"^Returns:\n    ", "Returns: ", text, flags=re.M)
    text = re.sub(r"^Raises:$", "Raises:\n", text, flags=re.M)
    return re.sub(r"^    (\w[\w, ]*): ", r"- `\1`: ", text, flags=re.M)


def methods_page() -> str:
    """Return the page of all methods."""
    lines = [
        "# Methods",
        "",
        "Written by `python docs/make.py` from the classes. The pictures are of an EfficientNet-Lite0 and two "
        "photos; their captions give seconds, evaluations (rows through the model) and the completeness gap. "
        "Those of attention are of the small vision transformer that comes with torchwhy (`python docs/pictures.py`). "
        "What all methods share (`layer`, `batch_size`, `precision`, `progress`, ...) stands once, in "
        "[using.md](using.md).",
        "",
    ]
    for family, methods in families().items():
        about = inspect.cleandoc(importlib.import_module(f"torchwhy.{family}").__doc__ or "").split("\n\n")[0]
        lines += [f"## {family}", "", about, ""]
        if (DOCS / "pictures" / f"{family}.png").exists():
            lines += [f"![the methods of {family}](pictures/{family}.png)", ""]
        for method in methods:
            lines += [f"### `{method.__name__}`", "", markdown(method.__doc__ or ""), ""]
    return "\n".join(lines)


def metrics_page() -> str:
    """Return the page of all metrics: the table, then each with its equation, by the module it lives in."""
    from torchwhy.cli import metrics_table

    lines = [
        "# Metrics",
        "",
        "Written by `python docs/make.py` from the functions of `torchwhy.metrics`; `torchwhy metrics` prints the table. "
        "How they are called, and `tw.compare`: [using.md](using.md#is-it-true-twmetrics-and-twcompare). *asks*: what a "
        "metric needs; one that needs the method explains again, at other inputs or with other weights.",
        "",
        "![methods and metrics on images whose evidence is known](pictures/metrics.png)",
        "",
        "*`tw.compare` on 16 images whose evidence is known (`examples/compare.py`): means and their 95 % intervals, → where "
        "more is better, ← where less is; red the best, and what cannot be told from it. The last two rows know nothing of the "
        "network.*",
        "",
        metrics_table(),
        "",
        "## Options",
        "",
        markdown(tw.metrics.Options.__doc__ or "", "Options"),
        "",
        "## Curve",
        "",
        markdown(tw.metrics.Curve.__doc__ or ""),
        "",
    ]
    family = ""
    for function in sorted(
        (f for f in vars(tw.metrics).values() if hasattr(f, "needs")),
        key=lambda f: METRIC_MODULES.index(f.__module__.rsplit(".", 1)[1]),
    ):
        module = importlib.import_module(function.__module__)
        if module.__name__ != family:
            family = module.__name__
            heading = family.rsplit(".", 1)[1].removesuffix("_metrics")
            lines += [f"## {heading}", "", markdown(module.__doc__ or ""), ""]
        lines += [f"### `{function.__name__}`", "", markdown(function.__doc__ or "", "Arguments"), ""]
    return "\n".join(lines)


def times_beside() -> list[str]:
    """Return the times of all that was timed beside torchwhy, over torchwhy's, by script, device and library."""
    lines = ["| script | device | beside | cases | median | least | largest |", "|---|---|---|--:|--:|--:|--:|"]
    for path in sorted((DOCS / "benchmarks").glob("*.json")):
        found: dict[tuple[str, str], list[float]] = {}
        for r in json.loads(path.read_text()).get("results", []):
            seconds = r.get("seconds") if isinstance(r, dict) and "ratio" in r else None
            if not seconds or "torchwhy" not in seconds:
                continue
            for side, ratio in r["ratio"].items():
                if not side.startswith("torchwhy"):
                    library = side.split()[0].strip(",") if side.startswith(PEERS) else side
                    found.setdefault((r.get("device") or "cpu", library), []).append(ratio / r["ratio"]["torchwhy"])
        for (device, library), ratios in sorted(found.items()):
            numbers = " | ".join(f"{v:.2f}" for v in (statistics.median(ratios), min(ratios), max(ratios)))
            lines.append(
                f"| [{path.stem}](benchmarks/{path.stem}.md) | {device} | {library} | {len(ratios)} | {numbers} |"
            )
    return lines


def benchmark_page(script: Path) -> str | None:
    """Return the page of the results that are kept of a script: its machine, its tables, its plot; None if none are."""
    path = DOCS / "benchmarks" / f"{script.stem}.json"
    if not path.exists():
        if not path.with_suffix(".png").exists():
            return None
        about = ast.get_docstring(ast.parse(script.read_text())) or script.stem  # a plot is all that it keeps
        title, plot = f"# {about.splitlines()[0]}", f"![{script.stem}]({script.stem}.png)"
        return "\n".join([title, "", f"`benchmarks/{script.name}`", "", plot, ""])
    report = json.loads(path.read_text())
    lines = [
        f"# {report['title']}",
        "",
        f"`benchmarks/{path.stem}.py`" + (" (quick)" if report.get("quick") else "") + f"; {report['machine']}",
        "",
    ]
    if "markdown" in report:
        lines += [report["markdown"].rstrip(), ""]
    results = [r for r in report.get("results", []) if isinstance(r, dict) and "ratio" in r]
    if results:
        lines += ["| case | side | seconds | × base | peak MiB |", "|---|---|--:|--:|--:|"]
    for r in results:
        for side, ratio in r["ratio"].items():
            seconds, peak = r.get("seconds", {}).get(side), r.get("peak_mib", {}).get(side)
            case = r["case"] + (" (one round)" if r.get("rounds") == 1 else "")
            lines.append(
                f"| {case} | {side} | {'' if seconds is None else f'{seconds:.3g}'} | {ratio:.3g} | "
                f"{'' if peak is None else f'{peak:.0f}'} |"
            )
    for r in results:
        rows = ", ".join(f"{side} {n / r['images']:.0f}" for side, n in r.get("evaluated", {}).items())
        told = [f"rows through the network for an image: {rows}"] if rows else []
        told += [r["note"]] if r.get("note") else []
        lines += ["", f"{r['case']}: {'; '.join(told)}."] if told else []
    for machine in dict.fromkeys(r["machine"] for r in results if "machine" in r):
        of_it = [r for r in results if r.get("machine") == machine]
        device = of_it[0].get("device")
        all_of_device = device and of_it == [r for r in results if r.get("device") == device]
        cases = f"those with *{device}* in their names" if all_of_device else "; ".join(r["case"] for r in of_it)
        lines += ["", f"Measured on {machine}: {cases}."]
    if path.with_suffix(".png").exists():
        lines += ["", f"![{report['title']}]({path.stem}.png)"]
    lines.append("")
    return "\n".join(lines)


def benchmark_pages() -> dict[str, str]:
    """Return the pages of the scripts of which results are kept, by their names."""
    found = {path.stem: benchmark_page(path) for path in sorted((DOCS.parent / "benchmarks").glob("*.py"))}
    return {name: page for name, page in found.items() if page is not None}


def benchmarks_page() -> str:
    """Return the short page: how is measured, the times beside others, and the pages of the scripts."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `python docs/make.py` from the results that `python benchmarks/NAME.py --save` keeps. All sides of "
        "a comparison run in turn in one process, and the ratios are medians of the rounds, where it is not said that there was "
        "one; the seconds are of the machine that is named and "
        "not to be compared between machines. *floor*: the evaluations that a method needs × the time per row of plain batched "
        "calls of the best size. Peak memory is how far it grows, on a GPU the GPU's; in cases called *memory*, in a process of "
        "its own. With `--device cuda` the scripts that can run on a GPU do. On the CPU the "
        'versions of what is timed are those of `pip install -c benchmarks/versions.txt -e ".[bench,demo]"`; a GPU\'s machine '
        "has its own, which are named.",
        "",
    ]
    lines += [
        "## In short",
        "",
        "The time of what stands beside torchwhy over torchwhy's own, over the cases of each script: above 1, torchwhy is the "
        "faster. *floor* is plain calls of the model as it is, for as many rows as the method evaluates: torchwhy can be faster, "
        "as it may run channels-last, fold batch norms into convolutions, and run only the part of the model that changes.",
        "",
        *times_beside(),
        "",
    ]
    pages = benchmark_pages()
    lines += ["## One by one", ""]
    for name, page in pages.items():
        lines.append(f"- [{page.splitlines()[0].removeprefix('# ')}](benchmarks/{name}.md)")
    scripts = sorted((DOCS.parent / "benchmarks").glob("*.py"))
    missing = [p for p in scripts if p.stem not in pages and "from harness import" in p.read_text()]
    if missing:
        lines += ["", f"No results are kept of {', '.join(f'`benchmarks/{p.name}`' for p in missing)}."]
    lines += ["", "```{toctree}", ":hidden:", "", *(f"benchmarks/{name}" for name in pages), "```", ""]
    return "\n".join(lines)


def readme_with_table(text: str) -> str:
    """Return the README with today's table of methods below its heading."""
    from torchwhy.cli import methods_table

    return re.sub(
        r"(?<=^## Methods\n\n).*?(?=\n\n`torchwhy methods`)", lambda m: methods_table(), text, flags=re.M | re.S
    )


def picture(family: str) -> None:
    """Draw the family's methods side by side on the two photos of the demo."""
    from torchwhy.cli import main
    from torchwhy.demo import for_photos

    names = (
        README_METHODS if family == "readme" else [m.__name__ for m in families()[family] if m.__name__ in for_photos()]
    )
    if not names:
        return
    (DOCS / "pictures").mkdir(exist_ok=True)
    if main(["demo", "--out", str(DOCS / "pictures" / f"{family}.png"), "--methods", *names]):
        raise SystemExit(2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", action="store_true", help="render the pictures too: minutes")
    parser.add_argument("--only", help="one family's picture")
    args = parser.parse_args()
    if args.pictures:
        for family in [args.only] if args.only else ["readme", *families()]:
            picture(family)
    (DOCS / "methods.md").write_text(methods_page())
    (DOCS / "metrics.md").write_text(metrics_page())
    (DOCS / "benchmarks.md").write_text(benchmarks_page())
    for name, text in benchmark_pages().items():
        (DOCS / "benchmarks" / f"{name}.md").write_text(text)
    runpy.run_path(str(DOCS / "reference_pages.py"))["write"]()
    readme = DOCS.parent / "README.md"
    readme.write_text(readme_with_table(readme.read_text()))
