"""Inputs (N,), one number a row: explained, or refused by name where a map would need a picture."""

import pytest
import torch
from torch import nn

import torchwhy as tw


class Pair(nn.Module):
    """A network of two columns that are handed over one by one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, age, income):
        return self.body(torch.stack([age, income], 1))


X = {"age": torch.tensor([1.0, 2.0, -1.0]), "income": torch.tensor([3.0, 5.0, 0.5])}


@pytest.mark.parametrize(
    "make",
    [
        lambda net: tw.LRP(net, composite="epsilon"),
        lambda net: tw.LRP(net, composite="epsilon", unit=True),
        tw.DeepLIFT,
        lambda net: tw.DeepSHAP(net),
    ],
)
def test_modified_backpropagation(make):
    net = Pair()
    options = (
        {"baselines": {"age": torch.zeros(2), "income": torch.ones(2)}} if isinstance(make(net), tw.DeepSHAP) else {}
    )
    found = make(net).explain(X, 1, **options)
    matrix = torch.stack(list(X.values()), 1)
    if options:
        options = {"baselines": torch.tensor([[0.0, 1.0], [0.0, 1.0]])}
    together = make(net.body).explain(matrix, 1, **options).attributions
    torch.testing.assert_close(torch.stack(list(found.attributions.values()), 1), together)


def test_counterfactuals():
    net = Pair()
    found = tw.Counterfactual(net, n_steps=200, bounds=(-6.0, 6.0)).generate(X)
    together = tw.Counterfactual(net.body, n_steps=200, bounds=(-6.0, 6.0)).generate(torch.stack(list(X.values()), 1))
    changed = torch.stack(list(found.counterfactuals.values()), 1)
    torch.testing.assert_close(changed, together.counterfactuals)


def test_maps_need_a_picture():
    for method in (tw.GradCAM, tw.LayerCAM, tw.ScoreCAM):
        with pytest.raises(ValueError, match=r"inputs: a map needs a picture"):
            method(Pair(), layer="body.0").attribute(X, 1)
    with pytest.raises(ValueError, match=r"inputs: a map needs a picture"):
        tw.FullGrad(Pair()).attribute(X, 1)
