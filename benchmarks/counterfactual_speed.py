"""How much faster are counterfactuals of 64 rows together than one by one?  python benchmarks/counterfactual_speed.py"""

import argparse
import time

import torch
from torch import nn

import torchwhy as tw
from torchwhy.models import digits


def networks() -> dict[str, tuple[nn.Module, torch.Tensor]]:
    """The convolutional network of the package, and a perceptron that is trained to answer as it does."""
    data = digits()
    perceptron = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    student = tw.SurrogateNetwork(data.model, network=perceptron, n_epochs=10).fit(data.x_train).student
    return {"convolutional": (data.model, data.x_test), "perceptron": (student, data.x_test)}


def seconds(function, device: str) -> float:
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    synchronize()
    begun = time.perf_counter()
    function()
    synchronize()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    for name, (net, x) in networks().items():
        net, x = net.to(options.device), x[: options.rows].to(options.device)
        target = net(x).topk(2).indices[:, 1]
        method = tw.Counterfactual(net)
        method.generate(x[:2], target[:2])  # warm up
        together = min(seconds(lambda: method.generate(x, target), options.device) for _ in range(options.repeats))
        one = lambda: [method.generate(x[i : i + 1], target[i : i + 1]) for i in range(len(x))]  # noqa: E731
        alone = min(seconds(one, options.device) for _ in range(2))
        found = method.generate(x, target).found.float().mean().item()
        print(f"{name}, {len(x)} rows on {options.device}, {torch.get_num_threads()} threads: {found:.0%} flipped")
        print(
            f"  together {together * 1e3:.0f} ms, one by one {alone * 1e3:.0f} ms: {alone / together:.1f} times faster"
        )


if __name__ == "__main__":
    main()
