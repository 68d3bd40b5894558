"""Numbers in single precision are those in double precision, and none are in less."""

import pytest
import torch
from metric_cases import Scene, each_metric

from torchwhy import metrics as M


@each_metric
def test_single_precision_is_near(case):
    exact, found = case.measure(Scene.make()), case.measure(Scene.make(torch.float))
    assert exact.dtype == torch.double
    assert found.dtype == torch.float
    tolerance = 0.05 if case.metric is M.explanation_attack else 2e-3  # a search, which goes by signs
    torch.testing.assert_close(found.double(), exact, rtol=tolerance, atol=tolerance)


@each_metric
@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16], ids=str)
def test_low_precision_gives_numbers_in_single_precision(case, dtype):
    exact, found = case.measure(Scene.make()), case.measure(Scene.make(dtype))
    assert found.dtype == torch.float
    assert found.shape == exact.shape
    assert not found.isinf().any()
    if case.metric.needs in ("maps", "mask"):  # whose arithmetic is all ours
        torch.testing.assert_close(found.double(), exact, rtol=0.05, atol=0.05)
