"""Several targets at once give what a loop over them gives, at the cost of one run where they can share it."""

import pytest
import torch
from cases import CASES, PATCHES, Case, each_case
from language import WordTokenizer
from language import make as language_model
from nets import inputs, make
from torch import nn

import torchwhy as tw
from torchwhy.engine.run.shared_runner import SharedQuestions

ONLY_CLASSES = (tw.FinerCAM,)  # explain a class, and no other target
WEIGHTS = torch.tensor([[1.0, -2, 0, 1], [0, 3, 1, 0], [-1, 0, 2, 1]], dtype=torch.double)
TARGETS = [1, [2, 0, 3], lambda o: o[:, 1] - o[:, 2], lambda o, rows: (o * WEIGHTS[rows]).sum(1)]


def evaluations(net):
    """The rows that a network is given from now on, in a list of one number."""
    seen = [0]
    net.register_forward_pre_hook(lambda m, args: seen.__setitem__(0, seen[0] + len(args[0])))
    return seen


def asked(case):
    """The network, inputs, targets and data of a case, with few features for speed."""
    data = dict(case.data)
    if case.method.uses_feature_mask is True and case.wrap is None:
        data["feature_mask"] = PATCHES
    return (*case.setup(), TARGETS[:2] if case.method in ONLY_CLASSES else TARGETS, data)


@each_case
def test_each_of_several_targets_gives_what_it_gives_alone(case):
    net, x, targets, data = asked(case)
    expected = [case.make(net).attribute(x, t, **data) for t in targets]
    seen = []
    net.register_forward_pre_hook(lambda m, args: seen.append(len(args[0])))
    for batch_size, first in ((None, 0), (2, -2)):  # in small calls the last two, for speed
        seen.clear()
        found = case.make(net, batch_size=batch_size).attribute_each(x, targets[first:], **data)
        assert max(seen) <= (batch_size or 4096)
        for a, b in zip(found, expected[first:], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@each_case
def test_several_targets_cost_what_one_costs(case):
    net, x, targets, data = asked(case)
    method = case.make(net)
    method.attribute(x, targets[0], **data)  # finds its layer
    seen = evaluations(net)
    method.attribute(x, targets[0], **data)
    one, seen[0] = seen[0], 0
    method.attribute_each(x, targets, **data)
    if method.searches:
        assert one * len(targets) * 0.5 < seen[0]  # tolerance: not all take as many steps
    else:
        assert seen[0] <= one + 1 + len(
            targets
        )  # where a layer has its rows; whether all targets mean one layer="auto"


@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("case", [c for c in CASES if c.wrap is None and not c.options], ids=str)
def test_no_call_is_larger_than_batch_size(case, batch_size):
    net, x, targets, data = asked(case)
    seen = []
    net.register_forward_pre_hook(lambda m, args: seen.append(len(args[0])))
    case.make(net, batch_size=batch_size).attribute_each(x, targets, **data)
    assert max(seen) <= batch_size


# ---- explanations


@pytest.mark.parametrize(
    "case",
    [
        Case(tw.IntegratedGradients, {"n_steps": 5}),
        Case(tw.IDGI, wrap=lambda m: {"of": tw.BlurIG(m, n_steps=3)}),
        Case(tw.ExpectedGradients, {"n_samples": 4, "generator": 0}),
        Case(tw.DeepLIFT),
        Case(tw.LRP),
        Case(
            tw.SmoothGrad, {"n_samples": 3, "generator": 0}, wrap=lambda m: {"of": tw.IntegratedGradients(m, n_steps=3)}
        ),
        Case(tw.RISE, {"n_samples": 20, "grid": 3, "generator": 0}),
        Case(tw.RISE, {"n_samples": 20, "grid": 3, "generator": 0, "targets": "all"}),
        Case(tw.LIME, {"n_samples": 30, "generator": 0}, data={"feature_mask": PATCHES}),
        Case(tw.KernelSHAP, {"n_samples": 30, "generator": 0, "interactions": True}, data={"feature_mask": PATCHES}),
        Case(tw.ExactShapley, {"interactions": True}, data={"feature_mask": PATCHES}),
        Case(tw.GradCAM),
        Case(tw.FullGrad),
        Case(tw.GuidedIG, {"n_steps": 5}),
    ],
    ids=str,
)
def test_explanations_of_several_targets_say_what_those_of_one_say(case):
    net, x = case.setup()
    expected = [case.make(net).explain(x, t, **case.data) for t in TARGETS]
    for a, b in zip(case.make(net).explain_each(x, TARGETS, **case.data), expected, strict=True):
        assert a.target == b.target
        assert a.method == b.method
        for name in ("attributions", "completeness_gap", "standard_error", "scores", "base_scores", "probabilities"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-9, atol=1e-11)
        assert set(a.details) == set(b.details)
        for name, value in b.details.items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(a.details[name], value, rtol=1e-9, atol=1e-11)
            elif name == "of":
                torch.testing.assert_close(a.details["of"]["completeness_gap"], value["completeness_gap"])
            elif "operations" not in name:  # which are those of the whole run
                assert a.details[name] == value


def test_evaluations_are_those_of_the_run():
    net, x = make("conv"), inputs("conv")
    one = tw.FeatureAblation(net).explain(x, 0, feature_mask=PATCHES)
    each = tw.FeatureAblation(net).explain_each(x, [0, 1, 2], feature_mask=PATCHES)
    assert [e.evaluations for e in each] == [one.evaluations] * 3
    assert len({e.seconds for e in each}) == 1


# ---- forms


@pytest.mark.parametrize("method", [tw.Saliency, tw.FeatureAblation, tw.GuidedIG], ids=lambda m: m.__name__)
def test_all_classes(method):
    net, x = make("smooth"), inputs("smooth")
    method = method(net, **({"n_steps": 6} if method is tw.GuidedIG else {}))
    expected = [method.attribute(x, k) for k in range(3)]
    for targets in ("all", range(3), torch.arange(3), (0, 1, 2), [0, 1, 2]):
        for a, b in zip(method.attribute_each(x, targets), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_several_inputs_baselines_masks_and_arguments():
    net = make("two")
    x = {"left": torch.randn(3, 5).double(), "right": torch.randn(3, 2, 3).double()}
    masks = {"left": torch.tensor([[0, 0, 1, 1, 2], [0, 1, 1, 2, 2], [0, 1, 2, 2, 2]]), "right": torch.tensor(3)}
    baselines = {"left": torch.randn(3, 5).double(), "right": 0.5}
    for method, data in (
        (tw.IntegratedGradients(net, n_steps=4), {"baselines": baselines}),
        (tw.KernelSHAP(net, generator=0), {"baselines": baselines, "feature_mask": masks}),
        (tw.DeepLIFT(net), {"baselines": {"left": tw.Distribution(torch.randn(4, 5).double())}}),
    ):
        expected = [method.attribute(x, t, **data) for t in (0, [2, 1, 0], 2)]
        for a, b in zip(method.attribute_each(x, (0, [2, 1, 0], 2), **data), expected, strict=True):
            for name in x:
                torch.testing.assert_close(a[name], b[name], rtol=1e-9, atol=1e-11)
    smooth, rows, scale = make("smooth"), inputs("smooth"), torch.rand(3, 7).double()
    for method in (tw.IntegratedGradients(smooth, n_steps=4, batch_size=2), tw.FeatureAblation(smooth, batch_size=2)):
        found = method.attribute_each(rows, [0, 2], additional_forward_args=scale)
        for a, k in zip(found, (0, 2), strict=True):
            torch.testing.assert_close(a, method.attribute(rows, k, additional_forward_args=scale))


def test_masks_of_each_row():
    net, x = make("conv"), inputs("conv")
    masks = torch.stack([PATCHES, PATCHES.T, PATCHES.clamp(max=3)])[:, None]  # rows of 6, 6 and 4 features
    for method in (tw.ExactShapley(net), tw.FeatureAblation(net), tw.LIME(net, n_samples=20, generator=0)):
        expected = [method.attribute(x, t, feature_mask=masks) for t in TARGETS]
        for a, b in zip(method.attribute_each(x, TARGETS, feature_mask=masks), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("method", [tw.Saliency, tw.IntegratedGradients, tw.GradCAM], ids=lambda m: m.__name__)
def test_layers(method):
    net, x = make("conv"), inputs("conv")
    expected = [method(net, layer="conv1").attribute(x, t) for t in TARGETS]
    for a, b in zip(method(net, layer="conv1", batch_size=2).attribute_each(x, TARGETS), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


class Heads(nn.Module):
    """Two heads, of which each sees a layer of its own."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3)

    def forward(self, x):
        y = self.stem(x).relu()
        return torch.stack([self.a(y).relu().mean((1, 2, 3)), self.b(y).relu().mean((1, 2, 3))], 1)


def test_targets_that_mean_different_layers_take_a_run_each():
    torch.manual_seed(0)
    net, x = Heads(), torch.randn(2, 3, 8, 8)
    method = tw.GradCAM(net, relu=False)
    each = method.explain_each(x, [0, 1])
    assert [e.details["layer"] for e in each] == ["a", "b"]
    for e, k in zip(each, (0, 1), strict=True):
        torch.testing.assert_close(e.attributions, method.attribute(x, k))


class Swapped(nn.Module):
    """A layer whose tensor has the rows second, with as many entries before as there are rows."""

    def __init__(self):
        super().__init__()
        self.first, self.mix, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):  # (N, 3, 4) → (3, N, 6)
        return self.head(torch.tanh(self.mix(torch.tanh(self.first(x.transpose(0, 1))))).mean(0))


def test_a_layer_with_the_rows_second():
    torch.manual_seed(0)
    net, x = Swapped().double(), torch.randn(3, 3, 4).double()
    grid = dict(layer="mix", reshape=lambda t: t.permute(1, 2, 0), upsample=False, relu=False)
    for method in (tw.GradCAM(net, **grid), tw.HiResCAM(net, **grid), tw.AblationCAM(net, **grid)):
        expected = [method.attribute(x, k) for k in range(3)]
        for a, b in zip(method.attribute_each(x, "all"), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_neurons_and_outputs_together():
    net, x = make("conv"), inputs("conv")
    targets = [1, tw.Neuron("conv1", (0, 0, 0)), tw.Neuron("conv2", lambda a, rows: a[:, 0, 0, 0] * rows)]
    for method in (tw.Saliency(net), tw.FeatureAblation(net)):
        for a, t in zip(method.attribute_each(x, targets), targets, strict=True):
            torch.testing.assert_close(a, method.attribute(x, t))


def test_targets_with_names_and_predicted_ones():
    net, x = make("conv"), inputs("conv")
    targets = ["predicted", tw.targets.Probability(), tw.targets.Contrast(0, [1, 2, 3]), [lambda o: o[:, 0]] * 3]
    for method in (
        tw.InputXGradient(net),
        tw.SmoothGrad(net, n_samples=2, generator=0),
        tw.RISE(net, n_samples=8, grid=2, generator=0),
    ):
        for a, t in zip(method.attribute_each(x, targets), targets, strict=True):
            torch.testing.assert_close(a, method.attribute(x, t), rtol=1e-6, atol=1e-8)


def test_one_target():
    net, x = make("conv"), inputs("conv")
    (found,) = tw.LRP(net).attribute_each(x, [2])
    assert found.equal(tw.LRP(net).attribute(x, 2))


def test_a_score_without_a_gradient_is_refused_as_by_one():
    net, x = make("conv"), inputs("conv")
    for method in (tw.Saliency(net), tw.GradCAM(net), tw.LRP(net)):
        with pytest.raises(ValueError, match="does not depend on the"):
            method.attribute_each(x, [0, lambda o: o.detach()[:, 0]])


# ---- methods of one's own


class Doubled(tw.Attribution):
    """Asks everything that there is to ask."""

    def _attribute(self, problem):
        run, x, rows = problem.run, problem.x, problem.rows
        total = torch.zeros_like(x[0])
        for c in run.evaluate_points(2, lambda rows, k: tuple(t[rows] * (k[:, None, None, None] + 1) for t in x)):
            total.index_add_(0, c.rows, c.gradients[0])
        scores = run.concatenated(problem.n, lambda a, b: run.scores([t[a:b] for t in x], rows[a:b]))
        return (total + run.all_gradients(x)[0] + scores[:, None, None, None],)


class Ascent(tw.Attribution):
    """Follows the gradient, without saying that it searches."""

    def _attribute(self, problem):
        z = problem.x[0]
        for _ in range(3):
            z = z + problem.run.all_gradients((z,))[0]
        return ((z - problem.x[0]) * problem.run.all_scores((z,))[:, None, None, None],)


class FromBatch(tw.Attribution):
    """Compares with the mean of the batch."""

    rows_are_independent = False

    def _attribute(self, problem):
        return (problem.x[0] - problem.x[0].cumsum(0) * problem.run.all_scores(problem.x)[:, None, None, None],)


@pytest.mark.parametrize("method", [Doubled, Ascent, FromBatch])
@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_methods_of_ones_own(method, batch_size):
    net, x = make("conv"), inputs("conv")
    seen = []
    net.register_forward_pre_hook(lambda m, args: seen.append(len(args[0])))
    expected = [method(net).attribute(x, t) for t in TARGETS]
    seen.clear()
    for a, b in zip(method(net, batch_size=batch_size).attribute_each(x, TARGETS), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    assert max(seen) <= (batch_size or 12)
    if method is Doubled:
        assert sum(seen) == 3 * 4
    if method is Ascent:
        assert sum(seen) == 3 * (1 + 4 * 3)  # the first step is at one point


def test_what_is_shared():
    z = torch.tensor([[1.0], [1], [1], [2], [2], [1], [1], [1]])
    shared = SharedQuestions.find([z], torch.tensor([0, 1, 2, 3, 4, 0, 1, 5]), 3)
    assert shared.first.tolist() == [0, 3, 5, 7]  # another point, the first target again, another row
    assert shared.group.tolist() == [0, 0, 0, 1, 1, 2, 2, 3]
    assert shared.which.tolist() == [0, 1, 2, 0, 1, 0, 1, 2]
    assert SharedQuestions.find([z], torch.tensor([0, 3, 6, 9, 12, 15, 18, 21]), 3) is None  # eight rows
    assert SharedQuestions.find([torch.arange(3.0)[:, None]], torch.arange(3), 3) is None  # three points
    assert SharedQuestions.find([torch.full((3, 1), torch.nan)], torch.arange(3), 3) is None
    assert SharedQuestions.find([z.requires_grad_()], torch.arange(8), 8) is None


# ---- samples and further arguments


@pytest.mark.parametrize(
    "method", [tw.KernelSHAP, tw.FeatureAblation, tw.InputXGradient, tw.LRP], ids=lambda m: m.__name__
)
def test_the_tokens_of_a_response_share_a_run(method):
    model = language_model("gpt2")
    options = {"check": False} | ({"generator": 0} if method is tw.KernelSHAP else {})
    seen = []
    model.register_forward_hook(lambda m, args, out: seen.append(len(out.logits)))
    method(model, **options).explain(tw.Prompt(WordTokenizer(), "Dave lives in Palm Coast", response="golf"))
    one = sum(seen)
    seen.clear()
    prompt = tw.Prompt(WordTokenizer(), "Dave lives in Palm Coast", response="a lawyer golf")
    ready, _ = prompt.asked(model, "each")
    each = method(model, **options).explain_each(ready, ready.each_target())
    assert [e.attributions.shape for e in each] == [(1, 5)] * 3
    assert sum(seen) == one
    targets = [tw.targets.LogProb("golf"), tw.targets.Contrast("golf", "lawyer"), tw.targets.LogProb("a", -2)]
    for a, t in zip(method(model, **options).attribute_each(prompt, targets), targets, strict=True):
        torch.testing.assert_close(a, method(model, **options).attribute(prompt, t), rtol=1e-5, atol=1e-6)


def test_arguments_follow_the_rows_of_several_targets():
    torch.manual_seed(0)
    gru, x, state = nn.GRU(3, 4, batch_first=True), torch.randn(3, 2, 3), torch.randn(1, 3, 4)

    def model(x, state, scale):
        return gru(x, state)[0][:, -1] * scale

    data = {"additional_forward_args": (tw.PerRow(state, dim=1), tw.Shared(torch.tensor([1.0, 2, 3, 4])))}
    for method in (tw.Saliency(model, batch_size=2), tw.FeatureAblation(model, batch_size=2), tw.DeepLIFT(model)):
        for a, k in zip(method.attribute_each(x, "all", **data), range(4), strict=True):
            torch.testing.assert_close(a, method.attribute(x, k, **data))


# ---- what makes no sense


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        ([], ValueError, "one or more targets"),
        (torch.arange(0), ValueError, "one or more targets"),
        ("each", ValueError, "targets='each': the only word is 'all'"),
        (1, TypeError, "targets=1: expected a list of targets"),
        ([0, 9], ValueError, "index 9 is out of range"),
        ([0, [1, 2]], ValueError, "2 indices given for 3 rows"),
        ([0, None], ValueError, "more than one score per row"),
    ],
    ids=str,
)
def test_nonsense_is_refused(targets, error, message):
    for method in (tw.Saliency, tw.FeatureAblation, tw.GuidedIG):
        with pytest.raises(error, match=message):
            method(make("smooth")).attribute_each(inputs("smooth"), targets)


def test_all_needs_classes():
    with pytest.raises(
        ValueError, match=r"targets='all': needs an output \(N, classes\), this one has shape \(1, 3, 4\)"
    ):
        tw.FeatureAblation(nn.Identity()).attribute_each(torch.zeros(2, 3, 4), "all")
