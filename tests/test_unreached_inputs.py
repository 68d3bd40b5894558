"""An input, or a layer, that no gradient reaches beside others that one does: zero, and said so by its name."""

import warnings

import pytest
import torch
from torch import nn

import torchwhy as tw


class Categories(nn.Module):
    """Categories as floats, cast inside, beside numbers: (N,), (N, 2) → (N, 2)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.e, self.l, self.o = nn.Embedding(4, 3), nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, cat, cont):
        return self.o(torch.relu(self.l(torch.cat([self.e(cat.long()), cont], 1))))


class Frozen(nn.Module):
    """A frozen backbone under no_grad beside another branch: (N, 3), (N, 3) → (N, 2)."""

    def __init__(self, how):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.o, self.how = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(8, 2), how

    def forward(self, x, y):
        if self.how == "no_grad":
            with torch.no_grad():
                h = self.a(x)
        else:
            h = self.a(x).detach()
        return self.o(torch.cat([h, self.b(y)], 1))


METHODS = [
    tw.Saliency,
    tw.InputXGradient,
    lambda m: tw.IntegratedGradients(m, n_steps=4),
    lambda m: tw.ExpectedGradients(m, n_samples=2, generator=0),
    lambda m: tw.GradientSHAP(m, n_samples=2, generator=0),
    lambda m: tw.SmoothGrad(m, n_samples=2, generator=0),
    lambda m: tw.GuidedIG(m, n_steps=3),
    tw.IDGI,
    tw.DeepLIFT,
    tw.DeepSHAP,
    tw.LRP,
    tw.GuidedBackprop,
    tw.DeconvNet,
    tw.ExcitationBackprop,
]
each = pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m(nn.Linear(1, 1))).__name__)
CAT, CONT = torch.tensor([3.0, 2.0]), torch.tensor([[0.5, -1.0], [2.0, 0.3]])


@each
def test_an_input_that_is_cast_is_named(method):
    net = Categories().eval()
    for given, name in (((CAT, CONT), "input 0"), ({"cat": CAT, "cont": CONT}, "input 'cat'")):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = method(net).attribute(given, 1)
        assert any(f"does not depend on {name} in a differentiable way" in str(w.message) for w in said)
        assert not any("cont" in str(w.message) or "input 1" in str(w.message) for w in said)
        cat, cont = found.values() if isinstance(found, dict) else found
        assert not cat.any()
        assert cont.any()


@pytest.mark.parametrize("how", ["no_grad", "detach"])
def test_a_branch_that_is_cut_off_is_named(how):
    net, (x, y) = Frozen(how), torch.randn(2, 2, 3)
    with pytest.warns(UserWarning, match="input 0 in a differentiable way.*perturbation method"):
        tw.IntegratedGradients(net).attribute((x, y), 1)
    with pytest.warns(UserWarning, match="does not depend on layer 'a' in a differentiable way"):
        tw.InputXGradient(net, layer=["a", "b"]).attribute((x, y), 1)
    with pytest.warns(UserWarning, match="does not depend on layer 'a' in a differentiable way"):
        tw.Conductance(net, layer=["a", "b"], n_steps=3).attribute((x, y), 1)
    with pytest.warns(UserWarning, match="input 0 in a differentiable way"):
        tw.Saliency(net).attribute_each((x, y), [0, 1])


@each
def test_nothing_is_said_where_gradients_reach_all(method):
    torch.manual_seed(0)
    a, b = nn.Linear(3, 4), nn.Linear(2, 4)

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.o = a, b, nn.Linear(4, 2)

        def forward(self, x, y):
            return self.o(torch.relu(self.a(x) + self.b(y)))

    with warnings.catch_warnings():
        warnings.filterwarnings("error", "the target does not depend")
        method(Both()).attribute((torch.randn(2, 3), torch.randn(2, 2)), 1)


def test_what_perturbation_sees_is_there():
    net = Categories().eval()
    found = tw.FeatureAblation(net).attribute((CAT, CONT), 1)
    torch.testing.assert_close(found[0], (net(CAT, CONT) - net(CAT * 0, CONT))[:, 1].detach())
