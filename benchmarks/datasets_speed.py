"""What does ``tw.explain_dataset`` cost, against the bare loop?

A small CNN, images of 32 × 32, batches of 32. The bare loop calls ``method.explain`` for each batch and keeps the results in
memory; the job also hashes the data, writes the attributions and the images to files, and has each of them on the disk before it
counts. Saliency is the cheapest method that there is, integrated gradients is a usual one. Two processes are started by torchrun.
The memory is the largest of a process of its own, with ten times as many rows. The C library is told to keep what is freed, on
both sides: otherwise pages that the system takes back and gives again, in one run and not in the next, are what is measured.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import torch
from harness import Benchmark
from measure import peak_growth
from torch import Tensor, nn

import torchwhy as tw

BATCH = 32
METHODS: dict[str, Callable[[nn.Module], tw.Attribution]] = {
    "Saliency": tw.Saliency,
    "IG, 16 steps": lambda model: tw.IntegratedGradients(model, n_steps=16),
}


def network() -> nn.Module:
    """Return a small convolutional network."""
    torch.manual_seed(0)
    blocks: list[nn.Module] = []
    for before, after in ((3, 16), (16, 32), (32, 32)):
        blocks += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(512, 10)).eval()


def batches(rows: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and labels, made when they are asked for."""
    generator = torch.Generator().manual_seed(0)
    for first in range(0, rows, BATCH):
        yield torch.rand(BATCH, 3, 32, 32, generator=generator), torch.arange(first, first + BATCH) % 10


def bare(method: tw.Attribution, rows: int) -> list[tw.Explanation]:
    """Explain this process's batches."""
    rank, size = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    return [method.explain(x, y) for k, (x, y) in enumerate(batches(rows)) if k % size == rank]


def measured(side: str, method: tw.Attribution, rows: int) -> dict[str, float]:
    """Return the wall-clock and CPU seconds of one side; the removal of the files does not count."""
    with tempfile.TemporaryDirectory() as own:
        folder = os.environ.get("FOLDER", own)  # that of several processes
        wall, cpu = time.perf_counter(), time.process_time()
        if side == "torchwhy":
            tw.explain_dataset(method, batches(rows), folder, target="label")
        else:
            bare(method, rows)
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


SIDES = ("the bare loop", "torchwhy")
ROWS = {"Saliency": 10240, "IG, 16 steps": 1280}  # so many that what is done once for a job counts little
KEEP_FREED = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32)}


def as_child(side: str, name: str, rows: int, processes: int) -> dict[str, float]:
    """Return the CPU seconds of some processes together, the longest of their times, and the largest growth of their memory."""
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **({"FOLDER": folder} if processes > 1 else {})}
        if processes == 1:  # whose memory is measured
            environment = {name: value for name, value in environment.items() if name not in KEEP_FREED}
        command = [sys.executable, *start, __file__, "child", side, name, str(rows)]
        said = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment, check=True
        )
    found = [json.loads(told) for told in re.findall(r"\{.*?\}", said.stdout)]  # two may have come in one line
    assert len(found) == processes
    return {
        "cpu": sum(f["cpu"] for f in found),
        "wall": max(f["wall"] for f in found),
        "mib": max(f["mib"] for f in found),
    }


def child(side: str, name: str, rows: str) -> None:
    """Measure one side here, after a first batch that does not count."""
    torch.set_num_threads(1)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        torch.distributed.init_process_group("gloo")  # before either side is measured
    method, found = METHODS[name](network()), {}
    bare(method, 2 * BATCH)
    mib = peak_growth(lambda: found.update(measured(side, method, int(rows))))
    print(json.dumps({**found, "mib": mib}), flush=True)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def compare(bench: Benchmark, label: str, rounds: int, run: Callable[[str], dict[str, float]]) -> None:
    """Run both sides in turn, and keep the medians of their CPU and wall-clock seconds."""
    if not bench.wanted(label):
        return
    times = [{side: run(side) for side in SIDES[:: -1 if i % 2 else 1]} for i in range(rounds)]
    base = SIDES[0]
    for what in ("cpu", "wall"):
        seconds = {side: statistics.median(t[side][what] for t in times) for side in SIDES}
        ratio = {side: statistics.median(t[side][what] / t[base][what] for t in times) for side in SIDES}
        case = f"{label}, {'CPU' if what == 'cpu' else 'wall-clock'} seconds"
        bench.results.append({"case": case, "base": base, "rounds": rounds, "seconds": seconds, "ratio": ratio})
        print(
            f"{case} (median of {rounds}): " + ", ".join(f"{s} {seconds[s]:.3f} s, {ratio[s]:.3f} ×" for s in SIDES),
            flush=True,
        )


def main() -> None:
    if KEEP_FREED.items() - os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEP_FREED})
    bench = Benchmark("datasets_speed", "Whole data sets, against the bare loop", rounds=5)
    torch.set_num_threads(1)
    for name, make in METHODS.items():
        method, rows = make(network()), 320 if bench.quick else ROWS[name]
        bare(method, 2 * BATCH)
        compare(bench, f"{name}, {rows} rows", bench.rounds, lambda side, m=method, n=rows: measured(side, m, n))
        label = f"{name}, {rows} rows, two processes"
        compare(bench, label, min(3, bench.rounds), lambda side, k=name, n=rows: as_child(side, k, n, 2))
    few, many = (as_child("torchwhy", "Saliency", n, 1)["mib"] for n in (1024, 2048 if bench.quick else 10240))
    print(f"memory: {few:.0f} MiB for 1024 rows, {many:.0f} MiB for ten times as many")
    bench.text = (
        "CPU seconds are of all threads and processes together; waiting for the disk and for a core is a part of wall-clock "
        "time. A thread brings files to the disk while the next batches are explained, so that where it has a core to itself "
        "only hashing and copying delay them; two processes on two cores have none left for it. The share of the bare loop's "
        "rows per second is 1 / the ratio. "
        f"Memory grew by {few:.0f} MiB for 1024 rows and by {many:.0f} MiB for 10240, in a process of its own each."
    )
    bench.finish()


if __name__ == "__main__":
    child(*sys.argv[2:]) if sys.argv[1:2] == ["child"] else main()
