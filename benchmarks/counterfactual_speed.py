"""How much faster are counterfactuals of 64 rows together than one by one?"""

import torch
from harness import Benchmark
from measure import void
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


def run(method, x, target, rows):
    """A side: so many rows at a time."""
    return lambda: void([method.generate(x[i : i + rows], target[i : i + rows]) for i in range(0, len(x), rows)])


def main() -> None:
    bench = Benchmark(
        "counterfactual_speed", "Counterfactuals of many rows together, and one by one", rounds=3, gpu=True
    )
    rows = 8 if bench.quick else 64
    for name, (net, x) in networks().items():
        net, x = net.to(bench.device), x[:rows].to(bench.device)
        target = net(x).topk(2).indices[:, 1]
        method = tw.Counterfactual(net)
        found = method.generate(x, target).found.float().mean().item()
        bench.case(
            f"digits, {name}, {rows} rows",
            {"together": run(method, x, target, len(x)), "one by one": run(method, x, target, 1)},
            base="together",
            facts={"note": f"{found:.0%} of the rows get another answer"},
        )
    bench.finish()


if __name__ == "__main__":
    main()
