"""Integration with steps where they are needed: how many there are, and what is kept meanwhile."""

import pytest
import torch
from nets import inputs, make

import torchwhy as tw
from torchwhy.gradient import adaptive_steps as adaptive


@pytest.mark.filterwarnings("ignore:tolerance")
@pytest.mark.parametrize("most", [2, 5, 9, 10, 20])
def test_no_more_steps_than_allowed(most):
    net, x = make("conv"), inputs("conv")
    e = tw.IntegratedGradients(net, tolerance=1e-9, max_steps=most).explain(x, 1)
    assert max(e.details["n_steps"]) == most
    assert e.evaluations == 3 * most + 2 * 3


def test_few_lines_are_at_work_at_once(monkeypatch):
    net, x = make("conv"), inputs("conv", 6)
    method = tw.IntegratedGradients(net, tolerance=1e-3)
    expected = method.explain(x, 1)
    monkeypatch.setattr(adaptive, "MAX_GRADIENT_BYTES", 2 * 136 * x[0].numel() * x.element_size())
    lines, most, add = [], [], adaptive.AdaptiveLine.add

    def watch(line, *node):
        add(line, *node)
        lines.append(line)
        most.append(len({id(seen) for seen in lines if seen.gradients}))

    monkeypatch.setattr(adaptive.AdaptiveLine, "add", watch)
    found = method.explain(x, 1)
    assert max(most) == 2
    assert found.details == expected.details
    torch.testing.assert_close(found.attributions, expected.attributions)


def test_many_small_kinks_are_all_halved():
    """A saw of 150 irregular teeth, whose score changes by little in all: no interval can be left as it is."""
    at = torch.rand(150, generator=torch.Generator().manual_seed(0)).sort().values

    def saw(x):
        signs = torch.ones(150).cumsum(0) % 2 * 4 - 2
        return (signs * (x - at.to(x)).relu()).sum(1)

    ig = tw.IntegratedGradients(saw, tolerance=1e-3, max_steps=20_000)
    e = ig.explain(torch.ones(1, 1, dtype=torch.double))
    assert float(e.completeness_gap) <= 1e-3 * float((e.scores - e.base_scores).abs())
    assert e.details["n_steps"][0] > 300
    with pytest.warns(UserWarning, match=r"not reached with max_steps=150, for rows \[0\]"):
        tw.IntegratedGradients(saw, tolerance=1e-3, max_steps=150).attribute(torch.ones(1, 1, dtype=torch.double))
