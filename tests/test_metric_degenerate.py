"""Maps without contrast: what cannot be said is NaN, never a silent number; what can be said is finite."""

import math

import pytest
import torch
from metric_cases import Scene, each_metric, metrics_that

import torchwhy as tw
from torchwhy import metrics as M


class Constant(tw.Attribution):
    """A method that gives every element one number."""

    value = 0.0
    needs_gradient = False

    def _attribute(self, problem):
        return tuple(torch.full_like(x, self.value) for x in problem.x)


class Ones(Constant):
    value = 1.0


def measured(case, value, **settings):
    scene = Scene.make()
    method = Ones if value else Constant
    attributions = torch.full_like(case.attributions(scene), value)
    return case.measure(scene, attributions=attributions, method=method, **settings)


def holds(found, kind):
    return bool(found.isnan().all() if kind == "nan" else found.isfinite().all())


@each_metric
def test_a_map_of_zeros(case):
    assert holds(measured(case, 0.0), case.zero)


@each_metric
@pytest.mark.parametrize("value", [1.0, 0.1])  # sums of 0.1 differ in their last digit
def test_a_constant_map(case, value):
    assert holds(measured(case, value), case.constant)


@metrics_that(need="mask")
def test_a_constant_map_scores_the_area_of_the_mask(case):
    area = Scene.make().mask.double().mean((1, 2))
    expected = torch.full_like(area, 0.5) if case.metric is M.auc else area
    settings = {"tolerance": 0.0} if case.metric is M.pointing_game else {}
    torch.testing.assert_close(measured(case, 0.1, **settings), expected)


@metrics_that(need="mask")
def test_the_mask_itself_is_the_best_map(case):
    scene, settings = Scene.make(), {"k": 5} if "k" in case.settings else {}
    found = case.measure(scene, attributions=scene.mask.double(), **settings)
    assert bool((found == 1).all())


def test_no_evidence_for_the_target_anywhere():
    scene = Scene.make()
    area = scene.mask.double().mean((1, 2))
    torch.testing.assert_close(M.pointing_game(-scene.a.abs(), scene.mask), area)


def test_the_complexity_of_a_constant_map():
    flat = torch.full((4, 9, 7), 0.1, dtype=torch.double)
    assert bool((M.sparseness(flat).abs() < 1e-12).all())
    torch.testing.assert_close(M.complexity(flat), torch.full((4,), math.log(63), dtype=torch.double))


def test_a_constant_map_scores_as_a_random_one():
    scene = Scene.make(n=1)
    zero = torch.zeros_like(scene.x)
    flat = [M.deletion(scene.net, scene.x, zero, 1, generator=k).auc.item() for k in range(4)]
    assert len(set(flat)) == 4  # no order is preferred
    assert M.deletion(scene.net, scene.x, zero, 1).auc.item() == flat[0]  # but it can be repeated


def test_nothing_relative_to_nothing():
    net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(50, 1))
    zero = torch.zeros(1, 50)
    assert M.sensitivity_max(tw.Saliency(net), zero, 0).isnan().all()
    assert M.sensitivity_avg(tw.Saliency(net), zero, 0).isnan().all()
    assert M.input_invariance(tw.InputXGradient(net), zero, 0).isnan().all()


def test_a_zero_map_foretells_nothing():
    x = torch.rand(3, 40, generator=torch.Generator().manual_seed(0)) * 4
    f = lambda z: z.sum(1)  # noqa: E731
    zero = torch.zeros_like(x)
    torch.testing.assert_close(M.infidelity(f, x, zero, normalize=True), M.infidelity(f, x, zero))
