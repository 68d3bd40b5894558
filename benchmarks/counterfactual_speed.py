"""How much faster are counterfactuals of 64 rows together than one by one?  python benchmarks/counterfactual_speed.py"""

import argparse
import time

import torch
from sklearn.datasets import load_digits
from torch import nn

import torchwhy as tw


def digits_network(seed: int = 0) -> tuple[nn.Module, torch.Tensor]:
    data = load_digits()
    x, y = torch.tensor(data.images / 16, dtype=torch.float32)[:, None], torch.tensor(data.target)
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(10):
        for rows in torch.randperm(1400).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimiser.step()
    return net.eval(), x[1400:]


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
    net, x = digits_network()
    net, x = net.to(options.device), x[: options.rows].to(options.device)
    target = net(x).topk(2).indices[:, 1]
    method = tw.Counterfactual(net)
    method.generate(x[:2], target[:2])  # warm up
    together = min(seconds(lambda: method.generate(x, target), options.device) for _ in range(options.repeats))
    alone = seconds(lambda: [method.generate(x[i : i + 1], target[i : i + 1]) for i in range(len(x))], options.device)
    found = method.generate(x, target).found.float().mean().item()
    print(f"{len(x)} rows on {options.device}, {torch.get_num_threads()} threads: {found:.0%} flipped")
    print(f"together {together * 1e3:.0f} ms, one by one {alone * 1e3:.0f} ms: {alone / together:.1f} times faster")


if __name__ == "__main__":
    main()
