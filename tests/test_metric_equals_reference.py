"""Every metric equals its second, slow version, in float64."""

import pytest
import torch
from metric_cases import METRIC_CASES, Scene, each_metric, each_metric_of_numbers
from reference import metrics as ref

from torchwhy import metrics as M


@each_metric
def test_equals_its_slow_version(case):
    scene = Scene.make()
    expected = torch.tensor(case.reference(scene), dtype=torch.double)
    torch.testing.assert_close(case.measure(scene), expected, rtol=case.tolerance, atol=case.tolerance)


@each_metric_of_numbers
def test_equals_it_on_rows_of_numbers(case):
    scene = Scene.make(kind="smooth")
    expected = torch.tensor(case.reference(scene), dtype=torch.double)
    torch.testing.assert_close(case.measure(scene), expected, rtol=case.tolerance, atol=case.tolerance)


@pytest.mark.parametrize("ties", [False, True])
def test_maps_with_ties(ties):
    scene = Scene.make()
    heat = (scene.a.abs() * 4).round() if ties else scene.a.abs()
    found = [(h.sum(0), m) for h, m in zip(heat, scene.mask)]
    torch.testing.assert_close(M.sparseness(heat), torch.tensor([ref.gini(h) for h in heat], dtype=torch.double))
    torch.testing.assert_close(M.complexity(heat), torch.tensor([ref.entropy(h) for h in heat], dtype=torch.double))
    expected = torch.tensor([ref.roc_area(h, m) for h, m in found], dtype=torch.double)
    torch.testing.assert_close(M.auc(heat, scene.mask), expected)


@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 2, 3])
def test_distances_from_the_mask(tolerance):
    scene = Scene.make()
    expected = [ref.pointing_game(heat, mask, tolerance) for heat, mask in scene.heats()]
    assert M.pointing_game(scene.a.abs(), scene.mask, tolerance=tolerance).tolist() == expected


def test_every_metric_is_in_the_table():
    known = {name for name in M.__all__ if isinstance(getattr(M, name), M.Metric)}
    assert {case.metric.name for case in METRIC_CASES} == known
    assert len(known) == 33
    assert all(case.reference for case in METRIC_CASES)
