"""Nonsense is refused by the name of the argument."""

import math

import pytest
import torch
from metric_cases import Scene, each_metric, metrics_that
from nets import inputs, make

import torchwhy as tw
from torchwhy import metrics as M


@metrics_that(need="model maps mask")
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_attributions_that_are_no_numbers(case, bad):
    scene = Scene.make()
    a = case.attributions(scene).clone()
    a[1, 0, 3, 4] = bad
    with pytest.raises(ValueError, match="attributions: NaN or infinite in row 1"):
        case.measure(scene, attributions=a)


@metrics_that(need="model method")
def test_inputs_that_are_no_numbers(case):
    scene = Scene.make()
    scene.x = scene.x.clone().index_fill_(0, torch.tensor([1]), math.nan)
    with pytest.raises(ValueError, match="inputs: row 1 holds NaN"):
        case.measure(scene)


@metrics_that(need="model mask")
def test_attributions_of_another_shape(case):
    scene = Scene.make()
    if case.metric is M.completeness_gap:  # whose sum counts, whatever their shape
        with pytest.raises(ValueError, match="attributions: 2 rows"):
            case.measure(scene, attributions=case.attributions(scene)[:2])
        return
    with pytest.raises(ValueError, match=r"attributions: shape|mask: shape"):
        case.measure(scene, attributions=case.attributions(scene)[..., :5])


@metrics_that(need="model maps mask")
@pytest.mark.parametrize("bad", ["A", None, 3.0, ()], ids=str)
def test_what_is_no_attributions(case, bad):
    with pytest.raises(TypeError, match="attributions: expected a tensor"):
        case.measure(Scene.make(), attributions=[] if bad is None else bad)


@metrics_that(need="model method")
def test_an_option_that_does_not_exist(case):
    with pytest.raises(TypeError, match="baseline: unknown"):
        case.measure(Scene.make(), baseline=0)


@metrics_that(need="method")
def test_what_is_no_method(case):
    scene = Scene.make()
    with pytest.raises(TypeError, match="method: expected a method with its settings"):
        case.measure(scene, method=scene.net)


@each_metric
def test_rows_that_do_not_fit(case):
    scene = Scene.make()
    scene.mask = scene.mask[:2]
    if case.metric.needs == "mask":
        with pytest.raises(ValueError, match="mask: shape"):
            case.measure(scene)
    elif case.metric.needs != "maps":
        scene.target = scene.target[:2]
        with pytest.raises(ValueError, match="target"):
            case.measure(scene)


class Linear(torch.nn.Module):
    """f(x) = w x + 1."""

    def __init__(self, w):
        super().__init__()
        self.w = torch.tensor(w, dtype=torch.double)

    def forward(self, x):
        return x.flatten(1) @ self.w + 1


F = Linear([4.0, 1.0, -2.0])
ONE = torch.ones(1, 3, dtype=torch.double)
A = torch.tensor([[4.0, 1.0, -2.0]], dtype=torch.double)
NET, X = make("conv"), inputs("conv")
TOKENS, IDS = make("tokens"), inputs("tokens")
X5 = inputs("smooth")


@pytest.mark.parametrize(
    "call,error,match",
    [
        (lambda: M.deletion(F, ONE, A, steps=0), ValueError, "steps=0"),
        (lambda: M.deletion(F, ONE, (A, A)), ValueError, "2 tensors given for 1"),
        (lambda: M.deletion(F, ONE, torch.zeros(1, 4)), ValueError, "attributions: shape"),
        (lambda: M.irof(F, ONE, A), TypeError, "feature_mask"),
        (lambda: M.sufficiency(F, ONE, A, fractions=[0.5, 0.2]), ValueError, "fractions"),
        (lambda: M.comprehensiveness(F, ONE, A, fractions=[0.0]), ValueError, "the share 0"),
        (lambda: M.road(F, ONE, A), ValueError, "images"),
        (lambda: M.road(NET, X, X, 1), ValueError, "whole pixels"),
        (lambda: M.road(NET, X, X, 1, baselines=0), ValueError, "baselines"),
        (lambda: M.road(NET, X, X[:, :1], 1, remove="tops"), ValueError, "remove='tops'"),
        (lambda: M.faithfulness_correlation(F, ONE, A, subset_size=3), ValueError, "subset_size=3"),
        (lambda: M.faithfulness_correlation(F, ONE, A, subset_size=2, oversample=2), ValueError, "oversample=2"),
        (lambda: M.faithfulness_correlation(F, ONE, A, oversample=0), ValueError, "oversample=0"),
        (lambda: M.sensitivity_n(F, ONE, A, sizes=[1]), ValueError, "sizes"),
        (lambda: M.infidelity(F, ONE, A, perturb=lambda n, g: torch.zeros(n, 2)), ValueError, "perturb"),
        (lambda: M.infidelity(F, ONE, A, stdev=0.0), ValueError, "stdev=0.0"),
        (lambda: M.infidelity(TOKENS, IDS, IDS, 1), TypeError, "integers"),
        (lambda: M.average_drop(TOKENS, IDS, IDS, 1), TypeError, "integers"),
        (lambda: M.average_drop(Linear([-4.0, 1, 1]), ONE, A, softmax=False), ValueError, "softmax=True"),
        (lambda: M.average_drop(F, ONE, A), ValueError, "softmax=True: needs a class"),
        (lambda: M.average_drop(torch.nn.Linear(3, 1).double(), ONE, A, 0), ValueError, "1 everywhere"),
        (lambda: M.non_sensitivity(F, ONE, A, tolerance=1), ValueError, "tolerance"),
        (lambda: M.completeness_gap(F, ONE.expand(3, 3), A.expand(2, 3)), ValueError, "2 rows"),
    ],
)
def test_of_the_metrics_that_run_the_model(call, error, match):
    with pytest.raises(error, match=match):
        call()


HEAT = torch.rand(4, 9, 7, generator=torch.Generator().manual_seed(11), dtype=torch.double)
MASK = torch.rand(4, 9, 7, generator=torch.Generator().manual_seed(12)) < 0.2


@pytest.mark.parametrize(
    "call,match",
    [
        (lambda: M.pointing_game(HEAT, MASK[:, :4]), "mask: shape"),
        (lambda: M.pointing_game(HEAT, torch.zeros_like(MASK)), "mask: row 0 has no pixel"),
        (lambda: M.auc(HEAT, torch.ones_like(MASK)), "mask: covers a whole row"),
        (lambda: M.relevance_mass(HEAT, 0.5 * torch.ones_like(HEAT)), "mask: expected True or 1"),
        (lambda: M.relevance_mass(HEAT / 0, MASK), "NaN or infinite in row 0"),
        (lambda: M.relevance_mass(HEAT[0, 0], MASK), "attributions: expected maps"),
        (lambda: M.relevance_mass(HEAT, MASK, sign="both"), "sign='both'"),
        (lambda: M.pointing_game(HEAT, MASK, tolerance=-1), "tolerance"),
        (lambda: M.top_k_intersection(HEAT, MASK, k=64), "63 pixels"),
        (lambda: M.iou(HEAT, MASK, threshold=1.0), "threshold"),
        (lambda: M.effective_complexity(HEAT, epsilon=1.0), "epsilon"),
        (lambda: M.sparseness(HEAT / 0), "NaN or infinite"),
    ],
)
def test_of_the_metrics_of_maps(call, match):
    with pytest.raises(ValueError, match=match):
        call()


class Frozen(torch.nn.Module):
    """A network without weights."""

    def forward(self, x):
        return x.square()


class Plain(tw.Attribution):
    """A method that needs no gradient."""

    needs_gradient = False

    def _attribute(self, problem):
        return problem.x


@pytest.mark.parametrize(
    "call,error,match",
    [
        (lambda m, x: M.sensitivity_max(m, x, 1, radius=0), ValueError, "radius=0"),
        (lambda m, x: M.sensitivity_max(m, x, 1, n_samples=0), ValueError, "n_samples=0"),
        (lambda m, x: M.continuity(m, x, 1), ValueError, "images"),
        (lambda m, x: M.model_randomization(m, x, "predicted"), ValueError, "predicted"),
        (lambda m, x: M.model_randomization(m, x, 1, mode="up"), ValueError, "mode='up'"),
        (lambda m, x: M.model_randomization(m, x, 1, layers=["foo"]), LookupError, "no layer 'foo'.*first"),
        (lambda m, x: M.model_randomization(Plain(lambda z: z), x, 1), TypeError, "no weights"),
        (lambda m, x: M.model_randomization(tw.Saliency(Frozen()), x, 1), ValueError, "the model: no weights"),
        (lambda m, x: M.sensitivity_max(tw.FeaturePermutation(m.model), x, 1), ValueError, "depends on the batch"),
        (lambda m, x: M.sensitivity_max(Plain(m.model), x.long(), 1), TypeError, "integers"),
        (lambda m, x: M.random_logit(m, x, lambda out: out[:, 0]), ValueError, "target: random_logit"),
        (lambda m, x: M.sensitivity_max(m, x, 1, softmax=True), TypeError, "softmax: unknown"),
        (lambda m, x: M.random_logit(m, x, 1, batch_size=2), TypeError, "batch_size: unknown"),
        (lambda m, x: M.sensitivity_max(m, x, 1, baselines=0), TypeError, "baselines: Saliency has no use"),
        (lambda m, x: M.random_logit(m, x, (1, 2)), ValueError, "target: 2 indices"),
        (lambda m, x: M.model_randomization(m, x, 1, layers=[]), ValueError, "layers: none"),
        (lambda m, x: M.explanation_attack(m, x, 1, tolerance=-1.0), ValueError, "tolerance=-1.0"),
        (lambda m, x: M.input_invariance(m, x, 1, shift=torch.ones(3, 5)), ValueError, "shift: shape"),
        (lambda m, x: M.input_invariance(m, x, 1, shift=torch.ones(7)), ValueError, "shift: shape"),
        (lambda m, x: M.continuity(m, x, 1, shifts=(1, 0)), ValueError, r"^shifts=.1, 0.: expected one or more"),
        (lambda m, x: M.continuity(m, x, 1), ValueError, "^inputs: expected images"),
        (lambda m, x: M.continuity(m, x, 1, shifts=1), ValueError, "^shifts=1: expected a list of .an int"),
    ],
)
def test_of_the_metrics_that_explain_again(call, error, match):
    with pytest.raises(error, match=match):
        call(tw.Saliency(make("smooth")), X5)


def test_weights_that_are_all_alike_cannot_be_randomized():
    net = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    net = net.double().eval()
    with pytest.raises(ValueError, match=r"layers: 1: no weights that could be made random"):
        M.model_randomization(tw.InputXGradient(net), X5, 1, layers=["1"])
    assert M.model_randomization(tw.InputXGradient(net), X5, 1).scores.shape == (3, 3)  # before, the last, the first


def test_a_radius_that_rounding_swallows():
    net = torch.nn.Linear(4, 1)
    x = torch.full((1, 4), 30000.0)  # where single precision tells 1/512 apart
    with pytest.raises(ValueError, match="too small to change row 0"):
        M.sensitivity_max(tw.InputXGradient(net), x, 0, radius=1e-4)
