"""Does memory grow with the number of steps? Peak growth of each setting, each in a process of its own."""

from __future__ import annotations

from harness import Benchmark


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
    bench.memory(f"{model}, one image", calls, model, side)
    bench.finish()


if __name__ == "__main__":
    main()
