"""What is special to the metrics that explain again: robustness, randomization, axioms."""

import copy
import types
from typing import ClassVar

import pytest
import torch
from metric_cases import Scene, metrics_that
from nets import inputs, make

import torchwhy as tw
from torchwhy import metrics as M
from torchwhy.metrics import reexplain


class Given(tw.Attribution):
    """A method that says what a function of the inputs says, blind to the model."""

    says: object = None
    needs_gradient: ClassVar[bool] = False

    def _attribute(self, problem):
        return (self.says(problem.x[0]),)


def edges(x):
    """Differences of neighbouring pixels."""
    return (x - x.roll(1, 3)).abs() + (x - x.roll(1, 2)).abs()


def state(net):
    return {k: v.clone() for k, v in net.state_dict().items()}


def test_sensitivity_and_lipschitz_by_hand():
    # A(x) = x: the change is the step itself
    x = torch.tensor([[3.0, 4.0, 0, 0, 0]], dtype=torch.double)
    net, settings = make("smooth"), {"radius": 0.5, "n_samples": 7, "generator": 3}
    same = Given(net, says=lambda x: x)
    problem = reexplain.make_problem(same, x, 1, 3, {})
    steps = reexplain.steps_in_ball(problem, 0.5)[0][torch.arange(7)].double()
    assert float(steps.abs().max()) <= 0.5 < float(steps.abs().max()) * 1.2
    assert M.local_lipschitz(same, x, 1, **settings).item() == pytest.approx(1)
    assert M.sensitivity_max(same, x, 1, **settings).item() == pytest.approx(steps.norm(dim=1).max().item() / 5)
    assert M.sensitivity_avg(same, x, 1, **settings).item() == pytest.approx(steps.norm(dim=1).mean().item() / 5)
    doubled = Given(net, says=lambda x: 2 * x)
    assert M.local_lipschitz(doubled, x, 1, **settings).item() == pytest.approx(2)
    generator = torch.Generator().manual_seed(3)  # a generator gives what its seed gives
    assert M.local_lipschitz(doubled, x, 1, radius=0.5, n_samples=7, generator=generator).item() == pytest.approx(2)


def test_continuity_by_hand():
    x = torch.tensor([[[[1.0, 2, 4, 8]]]], dtype=torch.double)
    # shifted by 1: 1 1 2 4, the difference 0 1 2 4; by -1: 2 4 8 8, the difference 1 2 4 0
    same = Given(lambda z: z.sum((1, 2, 3)), says=lambda x: x)
    assert M.continuity(same, x, shifts=[1]).item() == pytest.approx(7 / 21**0.5)
    assert M.continuity(same, x, shifts=[-1]).item() == pytest.approx(7 / 21**0.5)
    series = Given(lambda z: z.sum((1, 2)), says=lambda x: x)
    assert M.continuity(series, x[0], shifts=[1]).item() == pytest.approx(7 / 21**0.5)
    far = torch.tensor([0.0, 1, 3, 7])  # by 2 or more: 1 1 1 2, 1 1 1 1
    assert M.continuity(same, x, shifts=[3, 1]).item() == pytest.approx(max(7 / 21**0.5, float(far.sum() / far.norm())))


def test_an_attack_moves_further_than_chance_and_keeps_the_prediction():
    net, x = make("conv"), inputs("conv", 8)
    labels = net(x).argmax(1)
    method = tw.InputXGradient(net)
    found = M.explanation_attack(method, x, labels, radius=0.1, steps=10, n_samples=8, tolerance=1e6)
    start = method.attribute(x, labels)
    best = torch.zeros(8)
    for k in range(180):
        z = x + 0.1 * (2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(k), dtype=torch.double) - 1)
        kept = net(z).argmax(1) == labels
        apart = 1 - torch.cosine_similarity(method.attribute(z, labels).flatten(1), start.flatten(1))
        best = torch.where(kept, torch.maximum(best, apart), best)
    assert bool((found > 0).all())
    assert float(found.mean()) > 1.2 * float(best.mean())  # against as many random points
    none = M.explanation_attack(method, x, labels, radius=0.1, steps=3, n_samples=2, tolerance=0.0)
    assert none.tolist() == [0] * 8  # no point keeps the score exactly
    constant = Given(net, says=torch.ones_like)
    assert bool((M.explanation_attack(constant, x, labels, steps=2) < 1e-9).all())


def test_an_attack_stays_in_its_cube_and_reports_what_it_saw_there():
    net, x, seen = make("conv"), inputs("conv"), []
    says = lambda z: (seen.append(z.clone()), z**3)[1]  # noqa: E731
    score = net(x)[:, 1]
    given = {"radius": 0.3, "steps": 4, "n_samples": 3, "tolerance": 0.05}
    found = M.explanation_attack(Given(net, says=says), x, lambda out: out[:, 1], **given)
    points = torch.cat(seen).view(-1, *x.shape)
    assert len(points) == (2 * 4 + 1) * 3 + 4 + 2
    assert float((points - x).abs().max()) <= 0.3 + 1e-12
    kept = torch.stack([(net(p)[:, 1] - score).abs() <= 0.05 * score.abs() for p in points])
    apart = 1 - torch.cosine_similarity((points**3).flatten(2), (x**3).flatten(1)[None], dim=2)
    torch.testing.assert_close(found, torch.where(kept, apart, 0).amax(0))
    assert not bool(kept.all())


@pytest.mark.parametrize("mode", ["cascading", "independent"])
def test_randomization_tells_a_method_that_is_blind_to_the_weights(mode):
    net, x = make("conv"), inputs("conv")
    before = state(net)
    blind = M.model_randomization(Given(net, says=edges), x, 1, mode=mode)
    assert blind.scores.shape == (3, 5)  # conv1, conv2, norm, head
    torch.testing.assert_close(blind.scores, torch.ones_like(blind.scores))
    sees = M.model_randomization(tw.InputXGradient(net), x, 1, mode=mode, absolute=False)
    assert bool((sees.scores[:, 0] > 0.999999).all())
    assert float(sees.scores[:, 1:].mean()) < 0.6
    after = state(net)
    assert all(torch.equal(before[k], after[k]) for k in before)
    once_more = M.model_randomization(tw.InputXGradient(net), x, 1, mode=mode, absolute=False)
    assert torch.equal(sees.scores, once_more.scores)


@pytest.mark.parametrize("mode", ["cascading", "independent"])
def test_randomization_by_hand(mode):
    net, x = make("smooth"), inputs("smooth", 1)
    method = tw.Saliency(net, signed=True)
    curve = M.model_randomization(method, x, 1, layers=["last", "first"], mode=mode, absolute=False, generator=4)
    g, other, expected = torch.Generator().manual_seed(4), copy.deepcopy(net), [1.0]
    from scipy.stats import spearmanr

    for name in ("last", "first"):
        other = copy.deepcopy(net) if mode == "independent" else other
        with torch.no_grad():
            for p in other.get_submodule(name).parameters():
                p.copy_(p.mean() + torch.randn(p.shape, generator=g) * p.std(correction=0))
        there = tw.Saliency(other, signed=True).attribute(x, 1)
        expected.append(spearmanr(method.attribute(x, 1)[0], there[0]).statistic)
    assert curve.scores[0].tolist() == pytest.approx(expected)


def test_the_twin_is_cut_off_from_the_method():
    net = make("conv")
    method = tw.SmoothGrad(net, of=tw.Saliency(net, layer=net.conv2), generator=torch.Generator().manual_seed(1))
    other, _ = reexplain.copy_method(method, 1)
    assert other.model is not net
    assert other.of.model is other.model
    assert other.of.layer is other.model.conv2


def test_random_logit():
    net, x = make("conv"), inputs("conv")
    blind = M.random_logit(Given(net, says=edges), x, [0, 1, 2])
    torch.testing.assert_close(blind, torch.ones_like(blind))
    found = M.random_logit(tw.InputXGradient(net), x, [0, 1, 2], absolute=False)
    assert bool((found < 0.99).all())
    assert bool(M.random_logit(Given(net, says=torch.ones_like), x, 1).isnan().all())
    two = torch.nn.Sequential(torch.nn.Linear(5, 2).double())  # with two classes the other one is known
    with torch.no_grad():
        two[0].weight[1] = -two[0].weight[0]
    against = M.random_logit(tw.Saliency(two, signed=True), inputs("smooth"), 0, absolute=False)
    torch.testing.assert_close(against, -torch.ones_like(against))
    with pytest.raises(ValueError, match="target: random_logit"):
        M.random_logit(tw.Saliency(net), x, lambda out: out[:, 0])


def test_axioms():
    net, x = make("conv"), inputs("conv")
    b = torch.full_like(x, 0.3)
    ig = tw.IntegratedGradients(net, n_steps=40)
    e = ig.explain(x, 1, baselines=b)
    gap = M.completeness_gap(net, x, e.attributions, 1, baselines=b)
    torch.testing.assert_close(gap, e.completeness_gap)
    torch.testing.assert_close(
        M.completeness_gap(net, x, e.attributions + 1 / 192, 1, baselines=b), gap + 1, atol=0.1, rtol=0
    )
    f = lambda z: 2 * z[:, 0] - z[:, 1]  # noqa: E731
    one = torch.ones(1, 4, dtype=torch.double)
    right, wrong = (torch.tensor([v], dtype=torch.double) for v in ([2.0, -1, 0, 0], [0.0, -1, 1, 0]))
    assert M.non_sensitivity(f, one, right).item() == 0
    assert M.non_sensitivity(f, one, wrong).item() == 2 / 4
    assert M.non_sensitivity(f, one, 0 * wrong).item() == 2 / 4
    smooth, z = make("smooth"), inputs("smooth")
    before = state(smooth)
    assert float(M.input_invariance(tw.Saliency(smooth), z, 1, shift=2.0).max()) < 1e-9
    moved = M.input_invariance(tw.InputXGradient(smooth), z, 1, shift=2.0)
    g = tw.Saliency(smooth, signed=True).attribute(z, 1)
    torch.testing.assert_close(moved, (2 * g).norm(dim=1) / (z * g).norm(dim=1))
    assert all(torch.equal(before[k], v) for k, v in state(smooth).items())
    assert "forward" not in vars(smooth)
    two = make("two"), inputs("two")
    assert float(M.input_invariance(tw.Saliency(two[0]), two[1], 1).max()) < 1e-9


def test_a_methods_own_samples_are_the_same_at_every_call():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()
    twice = lambda x: net(x).expand(-1, 2)  # noqa: E731 (two classes, one answer)
    x = torch.rand(3, 4, dtype=torch.double)
    for of in (None, tw.InputXGradient(twice)):
        method = tw.SmoothGrad(twice, n_samples=4, noise_level=0.5, of=of)
        torch.testing.assert_close(M.random_logit(method, x, 0), torch.ones(3, dtype=torch.double))
        assert M.sensitivity_max(method, x, 0, radius=1e-6).max() < 1e-4
        assert method.generator is None
    kernel = tw.IntegratedGradients(twice, n_steps=4)
    assert reexplain.with_fixed_seed(kernel) is not kernel


class Idle(torch.nn.Module):
    """A layer that the score does not depend on."""

    def __init__(self):
        super().__init__()
        self.used, self.idle = torch.nn.Linear(5, 3), torch.nn.Linear(5, 3)

    def forward(self, x):
        self.idle(x)
        return self.used(x).tanh()


@pytest.mark.parametrize("baselines", ["noise", tw.Uniform(), tw.Noise(generator=torch.Generator().manual_seed(1))])
def test_baselines_are_drawn_once_for_all_explanations(baselines):
    net, x = Idle().double(), inputs("smooth")
    method = tw.IntegratedGradients(net, n_steps=4)
    found = M.model_randomization(method, x, 1, layers=["idle"], baselines=baselines).scores
    torch.testing.assert_close(found, torch.ones_like(found))


def test_a_generator_of_the_method_is_read_once():
    net, x = Idle().double(), inputs("smooth")
    made = lambda: tw.SmoothGrad(net, n_samples=3, generator=torch.Generator().manual_seed(3))  # noqa: E731
    assert float(M.sensitivity_max(made(), x, 1, radius=1e-7).max()) < 1e-5
    assert float(M.explanation_attack(made(), x, 1, radius=1e-7, steps=2, n_samples=2, tolerance=1.0).max()) < 1e-5
    found = M.model_randomization(made(), x, 1, layers="idle").scores
    torch.testing.assert_close(found, torch.ones_like(found))


def test_named_inputs_of_any_mapping():
    f = torch.nn.Linear(2, 3).double()

    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.f = f

        def forward(self, p, q):
            return self.f(p).tanh() * self.f(q)

    g = torch.Generator().manual_seed(0)
    x = {
        "q": torch.randn(3, 2, generator=g, dtype=torch.double),
        "p": torch.randn(3, 2, generator=g, dtype=torch.double),
    }
    assert float(M.input_invariance(tw.Saliency(Two()), types.MappingProxyType(x), 1).max()) < 1e-9


def test_in_inference_mode_and_of_a_unit_of_a_layer():
    net, x = make("conv"), inputs("conv")
    unit = tw.Neuron(net.conv1, (1, 2, 2))
    for metric in (M.model_randomization, M.input_invariance):
        plain, there = metric(tw.Saliency(net), x, 1), metric(tw.Saliency(net), x, tw.Neuron("conv1", (1, 2, 2)))
        with torch.inference_mode():
            other = metric(tw.Saliency(net), x, 1)
        there = [there, metric(tw.Saliency(net), x, unit)]
        for a, b in ((plain, other), there):
            torch.testing.assert_close(*(f.scores if isinstance(f, M.Curve) else f for f in (a, b)))


def test_the_step_is_the_one_that_was_taken():
    net = torch.nn.Linear(4, 1)
    x = torch.full((1, 4), 30000.0)  # where single precision tells 1/512 apart
    steepest = float(net.weight.detach().abs().max())
    assert float(M.local_lipschitz(tw.InputXGradient(net), x, 0, radius=0.002)) <= steepest * 1.001
    with pytest.raises(ValueError, match="too small to change row 0"):
        M.sensitivity_max(tw.InputXGradient(net), x, 0, radius=1e-4)


def test_an_attack_keeps_the_class_only_where_there_are_classes():
    net, x = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Unflatten(1, (2, 3))).double(), inputs("smooth")
    given = {"radius": 1.0, "steps": 3, "n_samples": 4, "tolerance": 1e6}
    found = M.explanation_attack(tw.InputXGradient(net), x, (0, 1), **given)
    torch.testing.assert_close(
        found, M.explanation_attack(tw.InputXGradient(net), x, lambda out: out[:, 0, 1], **given)
    )


def test_a_shift_of_another_type():
    net, x = make("conv").float(), inputs("conv").float()
    assert float(M.input_invariance(tw.Saliency(net), x, 1, shift=torch.ones(8, dtype=torch.double)).max()) < 1e-4


@metrics_that(need="method")
def test_data_reach_the_method(case):
    scene = Scene.make()
    method = tw.IntegratedGradients(scene.net, n_steps=6)
    plain = case.measure(scene, method=method)
    told = case.measure(scene, method=method, baselines=scene.b)
    assert not torch.allclose(plain, told)


@pytest.mark.parametrize("metric", [M.sensitivity_max, M.random_logit, M.continuity], ids=lambda m: m.__name__)
@pytest.mark.parametrize("rows", [3, 5])
def test_rows_of_data_as_baselines_of_the_method_that_is_asked_again(metric, rows):
    net, x = make("conv"), inputs("conv")
    data = torch.randn(rows, *x.shape[1:], generator=torch.Generator().manual_seed(1), dtype=torch.double)
    method = tw.ExpectedGradients(net, n_samples=4, generator=0)
    found = metric(method, x, 1, baselines=data)
    torch.testing.assert_close(found, metric(method, x, 1, baselines=tw.Distribution(data)))
    smooth = tw.SmoothGrad(net, of=method, n_samples=2, generator=0)
    torch.testing.assert_close(
        smooth.attribute(x, 1, baselines=data), smooth.attribute(x, 1, baselines=tw.Distribution(data))
    )


def test_a_mask_of_one_row_is_not_taken_by_rows():
    net, x = torch.nn.Linear(4, 2).double(), torch.randn(4, 4, dtype=torch.double)
    mask = torch.tensor([0, 0, 1, 1])  # as many elements as there are rows
    found = M.sensitivity_max(tw.FeatureAblation(net), x, 0, feature_mask=mask)
    torch.testing.assert_close(found, M.sensitivity_max(tw.FeatureAblation(net), x, 0, feature_mask=mask[None]))
