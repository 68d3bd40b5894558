"""What moves by rounding only has not moved."""

import pytest
import torch

from torchwhy import metrics as M


def always_one(x):
    """A score that depends on nothing, but for its rounding."""
    return x.flatten(1).softmax(1).sum(1)


X = torch.rand(3, 40, generator=torch.Generator().manual_seed(0)) * 4

A = torch.randn(3, 40, generator=torch.Generator().manual_seed(1))


def test_a_score_that_never_changes_has_no_correlation_with_anything():
    scores = M.deletion(always_one, X, A, steps=40).scores
    assert 0 < float((scores - 1).abs().max()) < 1e-6  # there is rounding to be taken in
    assert M.faithfulness_correlation(always_one, X, A).isnan().all()
    assert M.faithfulness_estimate(always_one, X, A).isnan().all()
    assert M.sensitivity_n(always_one, X, A).scores.isnan().all()


def test_a_score_that_never_changes_never_falls_and_has_no_use_for_a_feature():
    assert M.monotonicity(always_one, X, A, steps=40).tolist() == [1, 1, 1]
    assert M.non_sensitivity(always_one, X, torch.zeros_like(X)).tolist() == [0, 0, 0]
    assert M.non_sensitivity(always_one, X, A).tolist() == [1, 1, 1]


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16], ids=str)
def test_the_rounding_is_that_of_the_models_answers(dtype):
    f = lambda z: (z.to(dtype).softmax(1) * 3.3).sum(1)  # noqa: E731
    for x in (X.to(dtype), X.double()):
        assert M.faithfulness_correlation(f, x, A).isnan().all()
        assert M.non_sensitivity(f, x, torch.zeros_like(A)).tolist() == [0, 0, 0]
        assert M.monotonicity(f, x, A, steps=40).tolist() == [1, 1, 1]


def test_nothing_changed_is_no_increase():
    net = torch.nn.Sequential(torch.nn.Linear(300, 200), torch.nn.ReLU(), torch.nn.Linear(200, 7))
    for seed in range(8):
        x = torch.randn(5, 300, generator=torch.Generator().manual_seed(seed))
        for size in (2, 3, 4):
            assert M.average_increase(net, x, torch.ones(5, 300), 1, batch_size=size).tolist() == [0] * 5
