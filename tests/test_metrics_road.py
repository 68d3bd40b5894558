"""ROAD: pixels are imputed from their neighbours."""

import pytest
import torch
from nets import inputs, make
from reference import metrics as ref

from torchwhy import metrics as M
from torchwhy.engine.images.filters import inpaint_linearly


def test_road_imputes_as_the_dense_system_does():
    net, x = make("conv"), inputs("conv")
    f = lambda z: net(z[None])[0, 1]  # noqa: E731
    a = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.double)
    found = M.road(net, x, a, 1, fractions=[0.0, 0.3, 0.9], noise=0.0)
    low = M.road(net, x, a, 1, fractions=[0.3], noise=0.0, remove="bottom")
    for n in range(3):
        order = a[n].flatten().argsort(descending=True)
        for k, gone in enumerate([order[:0], order[:19], order[:58]]):
            keep = torch.ones(64, dtype=torch.bool).index_fill(0, gone, False).view(8, 8)
            assert found.scores[n, k].item() == pytest.approx(f(ref.linear_imputation(x[n], keep)).item(), abs=1e-4)
        keep = torch.ones(64, dtype=torch.bool).index_fill(0, order[-19:], False).view(8, 8)
        assert low.scores[n, 0].item() == pytest.approx(f(ref.linear_imputation(x[n], keep)).item(), abs=1e-4)
    noisy = M.road(net, x, a, 1, fractions=[0.0, 0.3], noise=0.5).scores
    assert torch.equal(noisy[:, 0], found.scores[:, 0])
    assert not torch.allclose(noisy[:, 1], found.scores[:, 1])


def test_road_in_half_precision():
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).half()
    keep = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(1)) > 0.5
    found = inpaint_linearly(x, keep, most=200)
    torch.testing.assert_close(found.float(), inpaint_linearly(x.float(), keep), rtol=0, atol=1e-3)
    assert found.dtype == torch.half
