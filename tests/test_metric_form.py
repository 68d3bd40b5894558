"""The forms of what a metric is given, and of what it gives back."""

import pytest
import torch
from metric_cases import Scene, each_metric, metrics_that
from nets import inputs, make

import torchwhy as tw
from torchwhy import metrics as M

INF = float("inf")
FACTS = {  # what the papers say: whether more is better, and what a value may be
    (
        True,
        0,
        1,
    ): """auc average_increase energy_pointing_game iou monotonicity pointing_game relevance_mass relevance_rank
        sparseness top_k_intersection""",
    (False, 0, 1): "non_sensitivity",
    (False, 0, 2): "explanation_attack",
    (
        False,
        0,
        INF,
    ): """average_drop completeness_gap complexity continuity effective_complexity infidelity input_invariance
        local_lipschitz sensitivity_avg sensitivity_max""",
    (True, -1, 1): "faithfulness_correlation faithfulness_estimate sensitivity_n",
    (False, -1, 1): "model_randomization random_logit",
    (True, -INF, INF): "comprehensiveness insertion irof",
    (False, -INF, INF): "deletion road sufficiency",
}
CURVES = ("deletion", "insertion", "road", "sensitivity_n", "model_randomization")


def number(found):
    return found.scores if isinstance(found, M.Curve) else found


@each_metric
def test_one_number_or_one_curve_for_each_row(case):
    found = case.measure(Scene.make())
    assert found.dim() == (2 if case.metric.name in CURVES else 1)
    assert len(found) == 3
    low, high = case.metric.range
    assert bool(((found >= low - 1e-9) & (found <= high + 1e-9)).all())


def test_facts():
    right = {name: facts for facts, names in FACTS.items() for name in names.split()}
    metrics = {name: getattr(M, name) for name in M.__all__ if isinstance(getattr(M, name), M.Metric)}
    assert {name: (m.higher_is_better, *m.range) for name, m in metrics.items()} == right
    for name in M.__all__:
        thing = getattr(M, name)
        if isinstance(thing, M.Metric):
            assert thing.higher_is_better in (True, False, None), name
            assert thing.range[0] < thing.range[1]
            assert thing.needs in ("model", "maps", "mask", "method")
            assert thing.paper.startswith(("arXiv:", "doi:")), name


@metrics_that(need="model maps mask")
def test_attributions_in_other_forms(case):
    scene = Scene.make()
    expected, a = case.measure(scene), case.attributions(scene)
    forms = [a.numpy(), (a,), [a], {"x": a}, a.clone().requires_grad_()]
    for form in forms:
        torch.testing.assert_close(case.measure(scene, attributions=form), expected, rtol=0, atol=0)


@metrics_that(need="model maps mask")
def test_an_explanation_stands_for_what_it_shows(case):
    scene = Scene.make()
    e = tw.RISE(scene.net, n_samples=20, generator=0).explain(scene.x, scene.target)  # its maps have a neutral value
    expected = case.measure(scene, attributions=e.shown)
    for form in (e, e.shown.numpy(), e.shown[:, 0]):
        torch.testing.assert_close(case.measure(scene, attributions=form), expected)


@metrics_that(need="mask")
def test_forms_of_masks(case):
    scene = Scene.make()
    expected, a, mask = case.measure(scene), case.attributions(scene), scene.mask
    for form in (mask[:, None], mask.float(), mask.long(), mask.numpy()):
        torch.testing.assert_close(case.metric(a, form, **case.settings), expected, rtol=0, atol=0)


@metrics_that(need="mask")
def test_channels_are_summed(case):
    scene = Scene.make()
    heat = scene.a.abs().sum(1)
    thirds = torch.stack([heat / 2, heat / 4, heat / 4], 1)
    torch.testing.assert_close(case.measure(scene, attributions=thirds), case.measure(scene, attributions=heat))


def test_a_map_of_one_channel_replaces_whole_pixels():
    net, x = make("conv"), inputs("conv")
    a = torch.randn(3, 1, 8, 8, dtype=torch.double)
    pixels = torch.arange(64).view(1, 8, 8)
    one = M.deletion(net, x, a, 1, steps=8).scores
    torch.testing.assert_close(one, M.deletion(net, x, a.expand_as(x), 1, feature_mask=pixels, steps=8).scores)
    for metric in (M.infidelity, M.faithfulness_correlation, M.faithfulness_estimate):
        torch.testing.assert_close(metric(net, x, a, 1), metric(net, x, a, 1, feature_mask=pixels))
    corr = M.faithfulness_correlation(net, x, a, 1)
    torch.testing.assert_close(corr, M.faithfulness_correlation(net, x, a.expand_as(x) / 3, 1, feature_mask=pixels))


def test_several_inputs():
    two, x = make("two"), inputs("two")
    a = tw.InputXGradient(two).attribute(x, 1)
    for metric in (M.deletion, M.faithfulness_correlation, M.infidelity, M.monotonicity):
        assert len(number(metric(two, x, a, 1))) == 3
    assert float(M.input_invariance(tw.Saliency(two), x, 1).max()) < 1e-9


def test_tokens():
    tokens, ids = make("tokens"), inputs("tokens")
    says = torch.randn(3, 4, dtype=torch.double)
    curve = M.deletion(tokens, ids, says, 1, steps=4, additional_forward_args={"attention_mask": torch.ones_like(ids)})
    assert curve.scores.shape == (3, 5)
    torch.testing.assert_close(curve.scores[:, 0], tokens(ids).logits[:, 1].float())


def test_named_attributions_are_matched_by_name():
    f = lambda a, b: (3 * a - 5 * b).sum(1)  # noqa: E731
    x = {"a": torch.ones(2, 3), "b": 2 * torch.ones(2, 3)}
    maps = {"b": -5 * x["b"], "a": 3 * x["a"]}
    torch.testing.assert_close(M.faithfulness_correlation(f, x, maps), torch.ones(2), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="the inputs are a, b"):
        M.faithfulness_correlation(f, x, {"a": maps["a"], "c": maps["b"]})


def test_probabilities_are_not_made_probabilities_again():
    net, x = make("smooth"), inputs("smooth")
    a = torch.randn(x.shape, generator=torch.Generator().manual_seed(7), dtype=torch.double)
    chance = lambda z: net(z).softmax(1).numpy()  # noqa: E731 (a classifier of arrays gives probabilities)
    for metric in (M.deletion, M.average_drop):
        torch.testing.assert_close(*(number(metric(model, x, a, 1, softmax=True)) for model in (net, chance)))


def test_probabilities_in_low_precision():
    chances = (torch.randn(400, 5, generator=torch.Generator().manual_seed(0)).bfloat16() * 2).softmax(1)
    found = M.deletion(lambda z: z, chances, chances, 1, steps=1, softmax=True).scores[:, 0]
    torch.testing.assert_close(found, chances[:, 1].float())


def test_the_area_is_the_mean_height():
    curve = M.Curve(torch.tensor([0.2, 0.3, 0.7]), torch.tensor([[1.0, 3.0, 0.0], [2.0, 2.0, 2.0]]))
    assert curve.auc.tolist() == pytest.approx([(0.1 * 2 + 0.4 * 1.5) / 0.5, 2])
    assert M.Curve(torch.tensor([0.5]), torch.tensor([[3.0], [1.0]])).auc.tolist() == [3, 1]  # one point: its height
    net, x = make("conv"), inputs("conv")
    curve = M.road(net, x, x.sum(1, keepdim=True), 1, fractions=[0.5])
    torch.testing.assert_close(curve.auc, curve.scores[:, 0])


def test_what_is_removed_first_turns_round_what_is_better():
    of = tw.metrics.road.higher_is_better_with
    assert of({}) is of({"remove": "top"}) is of({"steps": "bottom"}) is False
    assert of({"remove": "bottom"}) is True
    assert tw.metrics.deletion.higher_is_better_with({"remove": "bottom"}) is False
    assert tw.metrics.complexity.higher_is_better_with({"remove": "bottom"}) is tw.metrics.complexity.higher_is_better
