"""Does memory grow with the number of steps? Peak growth of each setting, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harness import Benchmark

HERE = Path(__file__).resolve().parent

CODE = """
import sys, torch, torchwhy as tw
sys.path.insert(0, {here!r})
from harness import peak_growth
from torchvision.models import get_model
model = get_model({model!r}).eval()
x = torch.randn(1, 3, {side}, {side})
with torch.no_grad(): model(x)
print("MIB", peak_growth(lambda: {call}))
"""


def main() -> None:
    bench = Benchmark("gradient_memory", "Peak memory growth against the number of steps")
    model, side = ("resnet18", 96) if bench.quick else ("resnet50", 224)
    few, many = (16, 64) if bench.quick else (32, 512)
    calls = {
        f"torchwhy IG, {n} steps": f"tw.IntegratedGradients(model, n_steps={n}).attribute(x, 0)" for n in (few, many)
    }
    calls |= {
        f"torchwhy SmoothGrad, {n} samples": f"tw.SmoothGrad(model, n_samples={n}).attribute(x, 0)" for n in (few, many)
    }
    calls["captum IG, its default (50 steps)"] = (
        "__import__('captum.attr', fromlist=['x']).IntegratedGradients(model).attribute(x, target=0)"
    )
    found = {}
    for name, call in calls.items():
        code = CODE.format(here=str(HERE), model=model, side=side, call=call)
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
        lines = [line for line in done.stdout.splitlines() if line.startswith("MIB")]
        if not lines:
            print(f"{name:40} left out: {done.stderr.strip().splitlines()[-1]}")
            continue
        found[name] = float(lines[0].split()[1])
        print(f"{name:40} {found[name]:8.0f} MiB", flush=True)
    base = f"torchwhy IG, {few} steps"
    bench.results.append(
        {
            "case": f"{model}, one image",
            "base": base,
            "peak_mib": found,
            "ratio": {n: v / found[base] for n, v in found.items()},
        }
    )
    bench.finish()


if __name__ == "__main__":
    main()
