"""What methods of methods keep of the other one: its completeness gap; and what ``Processed`` may change."""

import pytest
import torch
from torch import nn

import torchwhy as tw

NET = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
METHODS = {
    "IntegratedGradients": lambda: tw.IntegratedGradients(NET, n_steps=3),
    "Conductance": lambda: tw.Conductance(NET, layer="0", n_steps=3),
    "DeepLIFT": lambda: tw.DeepLIFT(NET),
    "LRP": lambda: tw.LRP(NET, composite="epsilon"),
    "KernelSHAP": lambda: tw.KernelSHAP(NET, n_samples=8, generator=0),
}


@pytest.mark.parametrize("name", METHODS)
def test_processed_has_the_gap_of_the_other_method(name):
    of = METHODS[name]()
    expected = of.explain(X, 1).completeness_gap
    assert expected is not None
    torch.testing.assert_close(tw.Processed(NET, of=of).explain(X, 1).completeness_gap, expected)
    after = tw.Processed(NET, of=of, after=torch.abs).explain(X, 1)
    assert after.completeness_gap is None
    torch.testing.assert_close(after.details["of"]["completeness_gap"], expected)
    nested = tw.Processed(NET, of=tw.Processed(NET, of=of)).explain(X, 1)
    torch.testing.assert_close(nested.completeness_gap, expected)
    for target, one in zip((0, 1), tw.Processed(NET, of=of).explain_each(X, [0, 1])):
        torch.testing.assert_close(one.completeness_gap, of.explain(X, target).completeness_gap)


@pytest.mark.parametrize("kind", [tw.SmoothGrad, tw.SquareGrad, tw.VarGrad])
def test_the_mean_gap_over_the_noisy_inputs_is_kept(kind):
    of = METHODS["IntegratedGradients"]()
    still = kind(NET, of=of, n_samples=3, stdevs=0.0, generator=0).explain(X, 1)
    torch.testing.assert_close(still.details["of"]["completeness_gap"], of.explain(X, 1).completeness_gap)
    noisy = kind(NET, of=of, n_samples=3, generator=0)
    assert noisy.explain(X, 1).details["of"]["completeness_gap"].shape == (4,)
    assert torch.equal(noisy.explain(X, 1).attributions, noisy.attribute(X, 1))


def test_methods_without_a_gap_ask_for_no_more():
    for of in (tw.Saliency(NET), METHODS["LRP"](), METHODS["KernelSHAP"]()):
        alone, wrapped = of.explain(X, 1), tw.Processed(NET, of=of).explain(X, 1)
        assert wrapped.evaluations == alone.evaluations
        assert "coalitions" not in wrapped.details


@pytest.mark.parametrize("change", [lambda v: v[:, :1], lambda v: v.double(), lambda v: torch.cat([v, v], 1)])
@pytest.mark.parametrize("name", ["IntegratedGradients", "DeepLIFT", "KernelSHAP"])
def test_another_shape_or_type_is_refused_where_baselines_are_of_the_old_one(change, name):
    method = tw.Processed(NET, of=METHODS[name](), before=change)
    with pytest.raises(
        ValueError, match=r"^before: it returned .*baselines are those of the inputs as they were given"
    ):
        method.attribute(X, 1)


def test_another_shape_is_taken_where_nothing_is_of_the_old_one():
    narrow = nn.Linear(1, 2)
    found = tw.Processed(narrow, of=tw.Saliency(narrow), before=lambda v: v[:, :1]).attribute(X, 1)
    assert torch.equal(found, tw.Saliency(narrow).attribute(X[:, :1], 1))


def test_what_writes_to_its_argument_leaves_the_callers_tensor():
    x = X.clone()
    found = tw.Processed(NET, of=tw.Saliency(NET), before=lambda v: v.mul_(2), after=lambda a: a.neg_()).attribute(x, 1)
    assert torch.equal(x, X)
    assert torch.equal(found, -tw.Saliency(NET).attribute(2 * X, 1))
