"""What every benchmark shares: sides interleaved in one process, medians, peak memory, a table, JSON and a plot.

A script makes a ``Benchmark``, adds cases, each with its sides (functions without arguments), and ends with ``finish()``:

    bench = Benchmark("gradient_speed", "Integrated gradients and SmoothGrad against their floor")
    bench.case("IG, resnet18", {"floor": floor, "torchwhy": ours, "captum": theirs}, base="floor")
    bench.finish()

``--quick`` keeps it under two minutes, ``--rounds`` is how often each side runs, ``--save`` also writes
``docs/benchmarks/NAME.json`` and ``.png``.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import platform
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measure import APART, cpuinfo, peak_growth, peaks_apart, timed

DOCS = Path(__file__).resolve().parent.parent / "docs" / "benchmarks"
PINNED = Path(__file__).with_name("versions.txt").read_text().splitlines()[1:]
PACKAGES = [line.partition("==")[0] for line in PINNED]


class Benchmark:
    """The cases of one script and what was measured.

    ``gpu``: the script can run its models on a GPU, by ``--device cuda``. The cases then carry the device in their names and
    are kept beside those of the CPU, and the memory that counts is the GPU's.
    """

    of_cases = True  # whether some of them can be measured anew, and the others kept

    def __init__(self, name: str, title: str, *, rounds: int = 5, gpu: bool = False) -> None:
        parser = argparse.ArgumentParser(description=title)
        parser.add_argument("--quick", action="store_true", help="small and short: under two minutes")
        parser.add_argument("--rounds", type=int, default=None)
        parser.add_argument("--threads", type=int, default=None)
        parser.add_argument("--save", action="store_true", help="write the results under docs/benchmarks")
        parser.add_argument("--only", default="", help="only cases whose name matches this regular expression")
        parser.add_argument("--device", default="cpu", choices=("cpu", "cuda") if gpu else ("cpu",))
        args = parser.parse_args()
        if args.only and args.save and not self.of_cases:
            parser.error("--only: this table is measured, and saved, as a whole")
        self.name, self.title, self.quick, self.save, self.only = name, title, args.quick, args.save, args.only
        self.rounds = args.rounds or (1 if args.quick else rounds)
        if args.threads:
            torch.set_num_threads(args.threads)
        self.results: list[dict[str, Any]] = []
        self.text = ""  # what the page of benchmarks says of them, in Markdown
        self.device = args.device
        self.sizes = (8, 16, 32) if self.device == "cpu" else (32, 128, 512)  # rows of the plain calls of a floor
        self.machine = self._machine()
        gc.freeze()  # what is imported by now is not looked through before each measurement
        print(f"# {title}\n{self.machine}\n")

    def _machine(self) -> str:
        """The machine and the versions, on one line."""
        versions = []
        for package in PACKAGES:
            try:
                versions.append(f"{package} {importlib.metadata.version(package)}")
            except importlib.metadata.PackageNotFoundError:
                continue
        processor = cpuinfo("model name") or platform.machine()
        device = "" if self.device == "cpu" else f"{torch.cuda.get_device_name()}, "
        threads = f"{torch.get_num_threads()} CPU threads"
        return f"{device}{threads}, {processor}, Python {platform.python_version()}, {', '.join(versions)}"

    def label(self, case: str) -> str:
        """What a case is called on this device."""
        return case if self.device == "cpu" else f"{case}, {self.device}"

    def wanted(self, *cases: str) -> bool:
        """Whether ``--only`` leaves any of these cases in."""
        return any(re.search(self.only, self.label(case)) for case in cases)

    def case(
        self,
        label: str,
        sides: dict[str, Callable[[], Any]],
        *,
        base: str,
        rounds: int | None = None,
        memory: bool = False,
        facts: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Run the sides in turn, round by round, to and fro; print and keep the median of each, and its ratio to the base's.

        ``memory`` is the peak growth in the first round. What is kept is returned, so that more can be added to it; nothing
        where ``--only`` leaves the case out.
        """
        label = self.label(label)
        if not self.wanted(label):
            return {}
        if self.device != "cpu":  # the first call of a kind chooses among algorithms
            for side in sides.values():
                side()
        times: dict[str, list[float]] = {name: [] for name in sides}
        ratios: dict[str, list[float]] = {name: [] for name in sides}
        peaks: dict[str, float | None] = {}
        for i in range(rounds or self.rounds):
            for name in list(sides)[:: -1 if i % 2 else 1]:  # so that no side always follows the same one
                run = lambda name=name: times[name].append(timed(sides[name]))  # noqa: E731
                if memory and i == 0:
                    peaks[name] = peak_growth(run, self.device == "cuda")
                else:
                    run()
            for name in sides:
                ratios[name].append(times[name][-1] / times[base][-1])
        result = {
            "case": label,
            "base": base,
            "rounds": rounds or self.rounds,
            **({} if self.device == "cpu" else {"device": self.device}),
            **(facts or {}),
            "seconds": {n: statistics.median(t) for n, t in times.items()},
            "ratio": {n: statistics.median(r) for n, r in ratios.items()},
        }
        if memory:
            result["peak_mib"] = peaks
        self._keep(result)
        print(f"{label}  (median of {result['rounds']})")
        unit, scale = ("ms", 1e3) if max(result["seconds"].values()) < 0.1 else ("s ", 1.0)
        for name in sides:
            extra = "" if not memory or result["peak_mib"][name] is None else f"   {result['peak_mib'][name]:8.0f} MiB"
            print(
                f"    {name:42} {result['seconds'][name] * scale:9.3f} {unit}  {result['ratio'][name]:7.3f} × {base}{extra}",
                flush=True,
            )
        return result

    def memory(
        self, label: str, calls: dict[str, str], model: str, side: int, rows: int = 1, prepare: str = "", before: str = APART,
        note: str = "",
    ) -> None:  # fmt: skip
        """Keep the peak growth of each call in a process of its own (see :func:`peaks_apart`), against the first one's."""
        if not self.wanted(label):
            return
        print(label)
        found = peaks_apart(calls, model, side, rows, prepare, before)
        base = next(iter(calls))
        ratio = {name: of.mib / found[base].mib for name, of in found.items()}
        print("    " + ", ".join(f"{name} {r:.2f} ×" for name, r in ratio.items() if name != base))
        seconds = {name: of.seconds for name, of in found.items() if of.seconds is not None}
        told = ({"seconds": seconds} if seconds else {}) | ({"note": note} if note else {})
        self._keep(
            {"case": label, "base": base, "peak_mib": {n: of.mib for n, of in found.items()}, "ratio": ratio, **told}
        )

    def _keep(self, result: dict[str, Any]) -> None:
        self.results.append(result)
        self.write(plot=False)  # a run that is cut off keeps what it has

    def finish(self) -> None:
        """Write what was measured, if asked to."""
        if self.save and self.results:
            self.write()
            print(f"written: docs/benchmarks/{self.name}.json and .png")

    def write(self, plot: bool = True) -> None:
        """Write JSON and the plot, if asked to."""
        if not self.save or not self.results:
            return
        DOCS.mkdir(parents=True, exist_ok=True)
        report = {"title": self.title, "machine": self.machine, "quick": self.quick}
        report |= self._with_others(report)
        text = self.markdown(report["results"]) or report.pop("markdown", "")
        report |= {"markdown": text} if text else {}
        report = json.loads(json.dumps(report), parse_constant=lambda _: None)  # NaN is no JSON
        (DOCS / f"{self.name}.json").write_text(json.dumps(report, indent=1) + "\n")
        if plot:
            self.plot(report["results"]).savefig(DOCS / f"{self.name}.png", dpi=110, bbox_inches="tight")

    def _with_others(self, report: dict[str, Any]) -> dict[str, Any]:
        """The machine and the results, with the kept cases that were not measured: of other devices, or left out by ``--only``.

        Those of another machine or other versions say so.
        """
        path = DOCS / f"{self.name}.json"
        before = json.loads(path.read_text()) if path.exists() else {}
        if not self.of_cases or any(before.get(fact) != report[fact] for fact in ("title", "quick")):
            return {"results": self.results}
        new, kept = {r["case"]: r for r in self.results}, []
        main = before["machine"] if self.device != "cpu" else report["machine"]  # the page's head is of the CPU
        for r in before["results"]:
            if r["case"] in new or self.only or r.get("device", "cpu") != self.device:
                machine = report["machine"] if r["case"] in new else r.pop("machine", before["machine"])
                kept.append({**new.pop(r["case"], r), **({} if machine == main else {"machine": machine})})
        elsewhere = {} if report["machine"] == main else {"machine": report["machine"]}
        results = kept + [{**r, **elsewhere} for r in new.values()]
        return {"machine": main, "results": results, "markdown": before.get("markdown", "")}

    def markdown(self, results: list[dict[str, Any]]) -> str:
        """What the page of benchmarks says of the results, besides the table of times."""
        return self.text

    def plot(self, results: list[dict[str, Any]]) -> Any:
        """Bars of every side's ratio to its base, a panel for each device."""
        from matplotlib.figure import Figure

        panels: dict[str, list[tuple[str, float, str]]] = {}
        for r in results:
            device = r.get("device", "cpu")
            for name, ratio in r["ratio"].items():
                if name != r["base"]:
                    label = r["case"].removesuffix(f", {device}")
                    label = label if label.endswith(f", {name}") else f"{label} — {name}"
                    panels.setdefault(device, []).append((label, ratio, name))
        figure = Figure(figsize=(8 * len(panels), 0.6 + 0.28 * max(map(len, panels.values()))), layout="constrained")
        for ax, (device, bars) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
            ours = ["#c44e52" if name.startswith("torchwhy") else "#8c9bb0" for *_, name in bars]
            wide = max(ratio for _, ratio, _ in bars) > 10  # then in powers of ten, from the base outwards
            ax.barh(range(len(bars)), [ratio - wide for _, ratio, _ in bars], left=float(wide), color=ours)
            ax.set_xscale("log" if wide else "linear")
            ax.set_yticks(range(len(bars)), [label for label, *_ in bars], fontsize=7)
            ax.axvline(1, color="black", linewidth=0.8)
            ax.margins(y=0.5 / len(bars))
            ax.invert_yaxis()
            ax.set_xlabel(f"× {results[0]['base']}")
            ax.set_title(self.title if len(panels) == 1 else f"{self.title}, {device}", fontsize=9)
        return figure


class TableBenchmark(Benchmark):
    """A benchmark whose result is a ``tw.compare`` of methods, kept as a table, and with its figure."""

    of_cases = False
    table: Any

    def finish(self) -> None:
        """As all benchmarks do."""
        self.results = self.table.rows()
        super().finish()

    def plot(self, results: list[dict[str, Any]]) -> Any:
        """A panel for each metric."""
        return self.table.plot()


class CurveBenchmark(Benchmark):
    """A benchmark whose result is an error against the evaluations: panels of lines, both axes logarithmic."""

    of_cases = False
    ylabel = "error"

    def panel(self, name: str, counts: list[int], lines: dict[str, list[float]], note: str = "") -> None:
        """Print and keep one panel: a line of values at the counts for each side, and what follows from them."""
        width = max(map(len, lines)) + 2
        print(f"\n{name}\n{'evaluations':{width}}" + "".join(f"{n:>9}" for n in counts))
        for side, values in lines.items():
            print(f"{side:{width}}" + "".join(f"{v:9.4f}" for v in values))
        print(note, flush=True)
        self.results.append({"panel": name, "evaluations": counts, self.ylabel: lines, "note": note})
        table = [["evaluations", *map(str, counts)], ["---", *["--:"] * len(counts)]]
        table += [[side, *(f"{v:.4f}" for v in values)] for side, values in lines.items()]
        rows = "\n".join(f"| {' | '.join(row)} |" for row in table)
        self.text += f"{name}: {self.ylabel}\n\n{rows}\n\n" + (f"{note}\n\n" if note else "")

    def plot(self, results: list[dict[str, Any]]) -> Any:
        """A panel each."""
        from matplotlib import colormaps
        from matplotlib.figure import Figure
        from matplotlib.ticker import NullFormatter

        sides = list(dict.fromkeys(side for r in results for side in r[self.ylabel]))
        colours = {side: colormaps["tab20"](2 * i % 20 + 2 * i // 20) for i, side in enumerate(sides)}
        rows = -(-len(sides) // 4)
        figure = Figure(figsize=(max(4.2 * len(results), 6), 3.6 + 0.18 * rows), layout="constrained")
        drawn = {}
        for ax, r in zip(figure.subplots(1, len(results), squeeze=False)[0], results):
            for side, values in r[self.ylabel].items():
                style, y = "-" if side.startswith("torchwhy") else "--", [max(v, 1e-6) for v in values]
                (drawn[side],) = ax.loglog(r["evaluations"], y, style, marker="o", markersize=3, color=colours[side])
            ax.set(title=r["panel"], xlabel="evaluations", ylabel=self.ylabel)
            ax.set_xticks(r["evaluations"], [f"{n:,}" for n in r["evaluations"]], fontsize=8)
            ax.xaxis.set_minor_formatter(NullFormatter())
        figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=min(4, len(sides)), fontsize=7)
        return figure
