"""What holds for any perturbation or Shapley method: functions of arrays, random fills, wrong rows, long series."""

import numpy as np
import pytest
import torch

import torchwhy as tw
from torchwhy.engine.features.masks import SlidingWindows
from torchwhy.engine.run.call_cost import CallCost

WEIGHTS = np.random.default_rng(0).normal(size=(16, 2))
SAMPLES = {"n_samples": 40, "generator": 0}


def of_arrays(z):
    if not isinstance(z, np.ndarray):
        raise TypeError("arrays only")
    return np.tanh(z.reshape(len(z), -1) @ WEIGHTS)


def of_tensors(z):
    return torch.tanh(z.flatten(1) @ torch.from_numpy(WEIGHTS))


@pytest.mark.filterwarnings("ignore:LIME")
@pytest.mark.parametrize(
    "method",
    [
        tw.FeatureAblation(None),
        tw.FeaturePermutation(None, n_repeats=2, generator=0),
        tw.Occlusion(None, sliding_window_shapes=2),
        tw.RISE(None, grid=2, **SAMPLES),
        tw.LIME(None, kernel_width=1.0, **SAMPLES),
        tw.KernelSHAP(None, **SAMPLES),
        tw.ShapleySampling(None, **SAMPLES),
        tw.OwenValues(None, groups=torch.arange(16) // 4, **SAMPLES),
    ],
    ids=lambda m: type(m).__name__,
)
def test_a_function_of_arrays_is_explained_like_one_of_tensors(method):
    x = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    mask = {"feature_mask": torch.arange(16).view(1, 4, 4)} if method.uses_feature_mask else {}
    found, expected = (type(method)(f, **method.settings()).explain(x, 1, **mask) for f in (of_arrays, of_tensors))
    torch.testing.assert_close(found.attributions, expected.attributions)
    assert found.evaluations == expected.evaluations
    assert found.attributions.abs().max() > 0


@pytest.mark.parametrize("fill", [tw.Noise, tw.Uniform])
@pytest.mark.parametrize(
    "method",
    [tw.FeatureAblation(None), tw.Occlusion(None, sliding_window_shapes=2), tw.RISE(None, n_samples=8, generator=0)],
    ids=lambda m: type(m).__name__,
)
def test_random_fills_can_be_repeated(method, fill):
    x = torch.rand(2, 1, 8, 8, dtype=torch.double)
    method = type(method)(lambda z: z.flatten(1).cos().sum(1), **method.settings())
    one, same, other, rows = (
        method.attribute(x, baselines=fill(k=2, generator=0)),
        method.attribute(x, baselines=fill(k=2, generator=torch.Generator().manual_seed(0))),
        method.attribute(x, baselines=fill(k=2, generator=1)),
        torch.cat([method.attribute(row, baselines=fill(k=2, generator=0)) for row in x.split(1)]),
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    torch.testing.assert_close(one, rows)


def test_rise_of_every_output_takes_a_row_of_outputs_for_each_row():
    x = torch.rand(1, 1, 8, 8, dtype=torch.double)
    both = lambda z: torch.stack([z.mean((1, 2, 3)), z.amax((1, 2, 3))], 1)  # noqa: E731
    options = {"n_samples": 40, "grid": 3, "generator": 0, "batch_size": 10}
    with pytest.raises(ValueError, match=r"given \d+ rows and returned an output of shape"):
        tw.RISE(lambda z: both(z)[: max(1, len(z) // 2)], targets="all", **options).attribute(x)
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        tw.RISE(lambda z: both(z) / 0 - torch.inf, targets="all", **options).attribute(x)
    one = lambda z: both(z)[:, 1]  # noqa: E731
    assert torch.equal(tw.RISE(one, targets="all", **options).attribute(x), tw.RISE(one, **options).attribute(x))


def test_calls_that_ran_out_of_memory_are_not_counted():
    def small(z):
        if len(z) > 6:
            raise MemoryError
        return z.flatten(1)[:, :2]

    x = torch.rand(2, 1, 8, 8, dtype=torch.double)
    for method in (tw.RISE(small, n_samples=30, targets="all"), tw.RISE(small, n_samples=30)):
        assert method.explain(x, 1).evaluations == 60


def test_a_long_series_takes_no_memory_of_its_square():
    n, score = 6000, lambda z: z[:, 0, :100].sum(1)
    with CallCost() as made:
        found = tw.RISE(score, n_samples=10, batch_size=10, generator=0).attribute(torch.ones(1, 1, n))
    assert made.largest < n**2  # not as many numbers, of 8 bytes, nor a fourth of it
    assert found.shape == (1, 1, n)
    windows = SlidingWindows((n,), (8,), (4,))
    with CallCost() as made:
        keep = windows.keep(torch.tensor([0, 1498]), torch.device("cpu"))
        mean = windows.mean_over(torch.arange(1499, dtype=torch.double)[None])
    assert made.largest <= 100 * n
    assert keep.logical_not().nonzero().tolist() == [[0, i] for i in range(8)] + [[1, i] for i in range(5992, n)]
    assert mean[0, [0, 3, 4, 7, 8, 5996]].tolist() == [0, 0, 0.5, 0.5, 1.5, 1498]
