"""Means and variances over samples are right for every row, in calls of any size."""

import pytest
import torch

import torchwhy as tw

X = torch.zeros(3, 4)


def steep(x):
    """A slope of a million that changes by one."""
    return (1e6 * x + 0.5 * x**2).sum(1)


@pytest.mark.parametrize("batch_size", [None, pytest.param(2, marks=pytest.mark.slow), 3, 8])
def test_a_small_variance_beside_a_large_mean(batch_size):
    given = {"n_samples": 400, "generator": 0, "batch_size": batch_size}
    noise = {**given, "stdevs": 1.0}
    error = tw.SmoothGrad(steep, **noise).explain(X).standard_error
    torch.testing.assert_close(error, torch.full_like(X, 0.05), rtol=0.15, atol=0)
    assert torch.equal(error[0], error[-1])
    torch.testing.assert_close(tw.VarGrad(steep, **noise).attribute(X), torch.ones_like(X), rtol=0.3, atol=0)
    path = tw.ExpectedGradients(steep, **given).explain(X + 1, baselines=0.0).standard_error
    torch.testing.assert_close(path, torch.full_like(X, (1 / 12 / 400) ** 0.5), rtol=0.15, atol=0)


@pytest.mark.parametrize("batch_size", [None, 3, 6, 2])
def test_two_inputs_that_get_one_gradient_have_sums_of_their_own(batch_size):
    """Of a sum autograd hands one tensor to both of its terms."""
    x, y, b, c = torch.rand(4, 3, 4, dtype=torch.double)
    method = tw.DeepSHAP(lambda s, t: (s + t).square().sum(1), multiply_by_inputs=False, batch_size=batch_size)
    found = method.attribute((x, y), baselines=(b, c))
    slope = x + y + (b + c).mean(0)  # that of the square is the sum of its ends
    torch.testing.assert_close(found, (slope, slope))
