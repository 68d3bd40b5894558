"""What a side of a benchmark is and takes: seconds, peak memory, and the plain calls that are its floor."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch


class Apart(NamedTuple):
    """What a call took in a process of its own: memory, and seconds where the process says them."""

    mib: float
    seconds: float | None


def timed(side: Callable[[], Any]) -> float:
    """Seconds of one run; a side that returns a number (as a floor does) states its own."""
    gc.collect()
    _synchronize()
    begun = time.perf_counter()
    stated = side()
    _synchronize()
    return float(stated) if isinstance(stated, float) else time.perf_counter() - begun


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_growth(side: Callable[[], Any], cuda: bool = False) -> float | None:
    """MiB by which memory, the GPU's or the process's, grows at most while a side runs; None where that cannot be read."""
    gc.collect()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        side()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
        before = _status("VmRSS")
        side()
        return (_status("VmHWM") - before) / 2**10
    except OSError:
        return None


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def cpuinfo(name: str) -> str:
    """What Linux says of the processor; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


APART = """
import sys, torch, torchwhy as tw
sys.path.insert(0, {here!r})
from measure import peak_growth
from torchvision.models import get_model
model = get_model({model!r}).eval()
x = torch.randn({rows}, 3, {side}, {side})
with torch.no_grad(): model(x)
{prepare}
print("MIB", peak_growth(lambda: {call}))
"""


def peaks_apart(
    calls: dict[str, str], model: str, side: int, rows: int = 1, prepare: str = "", before: str = APART
) -> dict[str, Apart]:
    """MiB by which memory grows at most in each call (of ``model`` on ``x``), each in a process of its own; and print them.

    ``before`` is what each process runs, for other models and inputs than pictures; it may print the seconds, too.

    Freed memory is given back at once there, so that, as on a GPU, the figure is of what is held and not of what the C
    library keeps for later.
    """
    found, at_once = {}, {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**18), "CUDA_VISIBLE_DEVICES": ""}
    for name, call in calls.items():
        here = str(Path(__file__).resolve().parent)
        code = before.format(here=here, model=model, side=side, rows=rows, prepare=prepare, call=call)
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=at_once, capture_output=True, text=True)
        said = dict(
            line.split(maxsplit=1) for line in done.stdout.splitlines() if line.startswith(("MIB ", "SECONDS "))
        )
        if "MIB" not in said:
            print(f"{name:42} left out: {done.stderr.strip().splitlines()[-1]}")
            continue
        found[name] = Apart(float(said["MIB"]), float(said["SECONDS"]) if "SECONDS" in said else None)
        time_taken = "" if found[name].seconds is None else f"{found[name].seconds:10.1f} s"
        print(f"{name:42} {found[name].mib:8.0f} MiB{time_taken}", flush=True)
    return found


def void(value: object) -> None:
    """Drop a result, so that a side returns none."""


def floor(
    run: Callable[[int], Any], evaluations: int, batch_sizes: tuple[int, ...] = (8, 16, 32)
) -> Callable[[], float]:
    """A side: evaluations × the time per row of ``run(rows)``, plain batched calls, at the best of the sizes.

    A size's time is the mean of three calls: the lucky moments of a shared machine would be no floor for a long run.
    """

    def per_row(rows: int) -> float:
        calls = max(1, min(3, evaluations // rows))
        return timed(lambda: void([run(rows) for _ in range(calls)])) / (calls * rows)

    def side() -> float:
        return evaluations * min(per_row(b) for b in {min(b, evaluations) for b in batch_sizes})

    return side


def forward_backward(model: Any, x: torch.Tensor) -> Callable[[int], None]:
    """A plain forward and backward pass to the input of ``rows`` copies of x's first row; the parameters must be frozen."""

    def run(rows: int) -> None:
        z = x[:1].expand(rows, *x.shape[1:]).clone().requires_grad_()
        torch.autograd.grad(model(z)[:, 0].sum(), z)

    return run


def forward(model: Any, x: torch.Tensor) -> Callable[[int], None]:
    """A plain forward pass of ``rows`` copies of x's first row, without autograd."""

    def run(rows: int) -> None:
        with torch.inference_mode():
            model(x[:1].expand(rows, *x.shape[1:]).contiguous())

    return run


def lower_precisions(device: str = "cpu") -> tuple[str, ...]:
    """The precisions that the GPU or the processor computes in, and does not only imitate; says so where there is none."""
    if device == "cuda":
        return ("bf16", "fp16")
    if re.search("bf16", cpuinfo("flags") or cpuinfo("Features")):  # oneDNN also imitates it, slowly
        return ("bf16",)
    print("this processor has no bf16: left out")
    return ()


def blind_maps(x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Maps of images ``x`` ``(N, C, H, W)`` that know nothing of the network."""
    grey = x.mean(1, keepdim=True)
    down, across = (torch.linspace(-1, 1, n) for n in x.shape[2:])
    return {
        "(random)": torch.rand(grey.shape, generator=torch.Generator().manual_seed(0)),
        "(edges)": (grey - grey.roll(1, 3)).abs() + (grey - grey.roll(1, 2)).abs(),
        "(centre)": (2 - down[:, None].square() - across.square()).expand_as(grey),
    }
