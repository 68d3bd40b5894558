"""Equal to Quantus, where it is installed and means the same (its Monotonicity, 0.6, never puts a feature back: always yes)."""

import numpy as np
import pytest
import torch
from nets import inputs, make

from torchwhy import metrics as M

pytestmark = pytest.mark.slow  # its import alone takes seconds
QUIET = {"disable_warnings": True, "display_progressbar": False}


@pytest.fixture(scope="module")
def quantus():
    return pytest.importorskip("quantus")


@pytest.fixture(scope="module")
def scene():
    net, x = make("conv", torch.float), inputs("conv", dtype=torch.float)
    g = torch.Generator().manual_seed(5)
    a = torch.randn(x.shape, generator=g)
    mask = torch.rand(3, 1, 8, 8, generator=g) < 0.3
    y = torch.tensor([0, 1, 2])
    data = {"model": net, "x_batch": x.numpy(), "y_batch": y.numpy(), "device": "cpu", "softmax": False}
    return net, x, a, y, mask, data


def same(ours, theirs):
    np.testing.assert_allclose(ours.numpy(), np.asarray(theirs, dtype=float), rtol=1e-4, atol=1e-5)


def test_faithfulness(quantus, scene):
    net, x, a, y, _, data = scene
    settings = {"perturb_baseline": 0.0, "normalise": False, "features_in_step": 16, **QUIET}
    flip = quantus.PixelFlipping(**settings)(a_batch=a.numpy(), **data)
    same(M.deletion(net, x, a, y, steps=12).scores[:, 1:], flip)
    estimate = quantus.FaithfulnessEstimate(**settings)(a_batch=a.numpy(), **data)
    same(M.faithfulness_estimate(net, x, a, y, steps=12), estimate)


def test_complexity(quantus, scene):
    _, _, a, _, _, data = scene
    for ours, theirs in ((M.sparseness, quantus.Sparseness), (M.complexity, quantus.Complexity)):
        same(ours(a.abs()), theirs(normalise=False, **QUIET)(a_batch=a.abs().numpy(), **data))


def test_localisation(quantus, scene):
    _, _, a, _, mask, data = scene
    heat = a.abs().sum(1, keepdim=True)
    pairs = [
        (M.pointing_game, quantus.PointingGame),
        (M.relevance_mass, quantus.RelevanceMassAccuracy),
        (M.relevance_rank, quantus.RelevanceRankAccuracy),
        (M.auc, quantus.AUC),
    ]
    for ours, theirs in pairs:
        found = theirs(normalise=False, **QUIET)(a_batch=heat.numpy(), s_batch=mask.numpy(), **data)
        same(ours(heat, mask).double(), found)
    k = quantus.TopKIntersection(k=10, normalise=False, **QUIET)
    same(M.top_k_intersection(heat, mask, k=10).double(), k(a_batch=heat.numpy(), s_batch=mask.numpy(), **data))
