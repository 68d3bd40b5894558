"""ROAD: pixels are imputed from their neighbours."""

import pytest
import torch
from nets import inputs, make
from reference import metrics as ref
from reference.metrics import linear_imputation

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


@pytest.mark.parametrize("size", [(11,), (9, 10), (4, 5, 6)], ids=str)
def test_imputation_along_any_number_of_axes_is_the_dense_systems(size):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, *size, generator=g, dtype=torch.double)
    keep = torch.rand(4, 1, *size, generator=g) < torch.tensor([0.9, 0.5, 0.2, 0.1]).view(4, *(1,) * (1 + len(size)))
    keep[3].view(-1)[: keep[3].numel() // 2] = False  # nothing on one side
    keep[3].view(-1)[-2] = True
    found = inpaint_linearly(x, keep, tolerance=1e-9)
    for n in range(4):
        torch.testing.assert_close(found[n], linear_imputation(x[n], keep[n, 0]), rtol=1e-6, atol=1e-6)
    nothing = inpaint_linearly(x, torch.zeros_like(keep))
    torch.testing.assert_close(nothing, x.flatten(2).mean(2).view(4, 3, *(1,) * len(size)).expand_as(x))


@pytest.mark.parametrize(
    ("size", "place"),
    [((40,), (slice(12, 17),)), ((5, 8, 9), (slice(1, 3), slice(2, 5), slice(4, 8)))],
    ids=["series", "video"],
)
def test_road_tells_where_a_planted_signal_is(size, place):
    """Without the steps, or the part of some frames, that the score reads it falls at once; without others it does not."""
    g = torch.Generator().manual_seed(0)
    x = 0.1 * torch.rand(2, 2, *size, generator=g)
    x[(..., *place)] += 1
    f = lambda z: z[(..., *place)].flatten(1).mean(1)  # noqa: E731
    right = torch.zeros(2, 1, *size)
    right[(..., *place)] = 1
    fractions = [0.0, right[0].mean().item(), 0.5]
    good, bad = (M.road(f, x, a, fractions=fractions).scores for a in (right, -right))
    assert (good[:, 1:] < 0.35 * good[:, :1]).all()
    assert (bad[:, 1:] > 0.9 * bad[:, :1]).all()
    f_moved, order = lambda z: f(z.movedim(2, 1)), (0, 2, 1, *range(3, x.dim()))
    letters = {1: "NTF", 3: "NTCHW"}[len(size)]
    moved = M.road(f_moved, x.permute(order), right.permute(order), fractions=fractions, axes=letters).scores
    torch.testing.assert_close(moved, good)
    with pytest.raises(ValueError, match=r"inputs: road imputes images .* got \(2, 40\) of torch.float32"):
        M.road(lambda z: z.mean(1), torch.rand(2, 40), torch.rand(2, 40))
    assert M.road(lambda z: z.mean(1), torch.rand(2, 40), torch.rand(2, 40), axes="NT").scores.isfinite().all()


def test_road_in_half_precision():
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).half()
    keep = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(1)) > 0.5
    found = inpaint_linearly(x, keep, most=200)
    torch.testing.assert_close(found.float(), inpaint_linearly(x.float(), keep), rtol=0, atol=1e-3)
    assert found.dtype == torch.half
