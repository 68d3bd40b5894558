"""Which training rows an answer comes from, and which have a wrong label. python examples/influence.py

Digits of scikit-learn, a tenth of them with a wrong label; a minute.
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import torchwhy as tw

N = 600


def data() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return images and labels to train on, which labels are wrong, and images and labels to explain."""
    found, generator = load_digits(), torch.Generator().manual_seed(0)
    x, y = torch.tensor(found.images / 16, dtype=torch.float32)[:, None], torch.tensor(found.target)
    order = torch.randperm(len(y), generator=generator)
    x, y = x[order], y[order]
    wrong = torch.zeros(N, dtype=torch.bool)
    wrong[torch.randperm(N, generator=generator)[: N // 10]] = True
    labels = torch.where(wrong, (y[:N] + torch.randint(1, 10, (N,), generator=generator)) % 10, y[:N])
    return x[:N], labels, wrong, x[N : N + 200], y[N : N + 200]


def train(x: Tensor, y: Tensor) -> tuple[nn.Module, list[tuple[dict[str, Tensor], float]]]:
    """Return a trained network, and checkpoints with their learning rates."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 32), nn.ReLU(),
        nn.Linear(32, 10),
    )  # fmt: skip
    optimizer, checkpoints = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9), []
    for epoch in range(30):
        for rows in torch.randperm(len(x)).split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
        if epoch % 10 == 4:
            checkpoints.append(({k: v.clone() for k, v in model.state_dict().items()}, 0.05))
    return model.eval(), checkpoints


def main() -> tw.influence.Influences:
    x, y, wrong, x_test, y_test = data()
    model, checkpoints = train(x, y)
    right = (model(x_test).argmax(1) == y_test).float().mean()
    print(f"{N} digits, {int(wrong.sum())} of them with a wrong label; {right:.0%} of the test digits are right")

    for name, method in {
        "TracIn, 3 checkpoints": tw.TracIn(model, checkpoints=checkpoints),
        "InfluenceFunction, last layer": tw.InfluenceFunction(model),
        "InfluenceFunction, EK-FAC": tw.InfluenceFunction(model, hessian="ekfac"),
        "TRAK": tw.TRAK(model, dim=256),
        "RepresenterPoints": tw.RepresenterPoints(model, fit_to="labels"),
    }.items():
        shown = method.fit(x, y).self_influence()
        first = wrong[shown.argsort(descending=True)[:60]].sum()
        print(f"{name}: {first} of the first 60 are wrong, area {tw.influence.mislabelled_auc(shown, wrong):.3f}")
    worth = tw.KNNShapley(model, layer="3").fit(x, y).explain(x_test, y_test).attributions.mean(0)
    print(f"KNNShapley on {len(x_test)} test digits: area {tw.influence.mislabelled_auc(-worth, wrong):.3f}")

    found = tw.InfluenceFunction(model, hessian="ekfac").fit(x, y).explain(x_test[:8], y_test[:8])
    harmful = found.bottom(5).indices
    print(f"of the rows that harm an answer most, {wrong[harmful].float().mean():.0%} are wrong")
    found.plot(row=0).savefig("influence.png")
    return found


if __name__ == "__main__":
    main()
