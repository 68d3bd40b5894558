"""The difference of two explanations: why this answer and not that one, in a method that is linear and in any."""

import pytest
import torch
from language import WordTokenizer, make
from nets import inputs
from nets import make as make_net
from test_prompts import log_probs
from test_samples import shapley

import torchwhy as tw

TEXT = "Dave lives in Palm Coast"
A, B = "a lawyer", "Berlin ."


@pytest.fixture(scope="module")
def llama():
    return make("llama")


def prompt(response, **options):
    return tw.Prompt(WordTokenizer(), TEXT, response, **{"absent": "remove", **options})


def test_why_this_long_answer_and_not_that_one(llama):
    words = TEXT.split()

    def value(there):
        shown = " ".join(w for i, w in enumerate(words) if i in there)
        return float(log_probs(llama, shown, A).sum() - log_probs(llama, shown, B).sum())

    method = tw.ExactShapley(llama)
    e = method.explain(prompt(A)) - method.explain(prompt(B))
    torch.testing.assert_close(e.attributions[0], shapley(value, len(words)), atol=1e-5, rtol=1e-5)
    assert float(e.scores) == pytest.approx(value(range(5)), abs=1e-5)
    assert float(e.base_scores) == pytest.approx(value([]), abs=1e-5)
    assert float(e.completeness_gap) < 1e-5
    assert e.details["response"] == [["a lawyer − Berlin ."]]
    assert e.names == [words]
    assert e.evaluations == 64
    assert e.plot() is not None


def score_of(words):
    return lambda texts: torch.tensor(
        [float(sum(len(t) ** (1 + k % 2) for k, t in enumerate(s.split()))) * words for s in texts]
    )


def test_kernel_shap_of_the_same_coalitions_is_that_of_the_difference():
    f, g = score_of(2.0), lambda texts: torch.tensor([float(t.count("a")) ** 2 for t in texts])
    words = tw.Prompt(None, "a few words that are as long as a line of a page", absent="remove")

    def explained(model):
        return tw.KernelSHAP(model, n_samples=40, generator=3).explain(words)

    direct, e = explained(lambda texts: f(texts) - g(texts)), explained(f) - explained(g)
    torch.testing.assert_close(e.attributions, direct.attributions, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(e.scores, direct.scores)
    assert bool((e.standard_error >= direct.standard_error * (1 - 1e-4)).all())


@pytest.mark.parametrize("make_method", [tw.IntegratedGradients, tw.InputXGradient, tw.FeatureAblation])
def test_of_a_method_that_is_linear_it_explains_the_contrast(make_method):
    net, x = make_net("smooth"), inputs("smooth")
    method = make_method(net)
    e, direct = (
        method.explain(x, 1) - method.explain(x, [0, 0, 2]),
        method.explain(x, tw.targets.Contrast(1, [0, 0, 2])),
    )
    torch.testing.assert_close(e.attributions, direct.attributions, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(e.scores, direct.scores)
    if direct.completeness_gap is not None:
        torch.testing.assert_close(e.completeness_gap, direct.completeness_gap, atol=1e-6, rtol=1e-5)
    assert e.target[2] == {"this": 1, "less": 2}
    assert e[2:].target == [{"this": 1, "less": 2}]
    assert e.probabilities is None


def test_each_token_less_each_token(llama, tmp_path):
    method = tw.FeatureAblation(llama)
    a, b = (method.explain(prompt(r), target="each") for r in (A, B))
    e = a - b
    assert torch.equal(e.attributions, a.attributions - b.attributions)
    assert e.details["response"] == [["a − Berlin", "lawyer − ."]]
    assert e.plot().axes[0].get_yticklabels()[0].get_text() == "a − Berlin"
    e.save(tmp_path / "e.safetensors")
    assert torch.equal(tw.Explanation.load(tmp_path / "e.safetensors").attributions, e.attributions)


def test_only_details_that_both_have_are_kept():
    e, other = (PLAIN.explain(X, k) for k in (0, 1))
    parts = {"layer": "fc", "levels": ["a", 1], "drawn": [torch.ones(2), torch.zeros(2)]}
    e.details, other.details = {**parts, "radius": 1.0}, {**parts, "radius": 2.0}
    assert (e - other).details == {"layer": "fc", "levels": ["a", 1]}


def test_missing_values_are_alike():
    x = torch.tensor([[1.0, float("nan")]])
    method = tw.FeatureAblation(lambda x: x.nan_to_num(3.0))
    assert (method.explain(x, 1) - method.explain(x, 0)).attributions.tolist() == [[-1.0, 3.0]]


X = torch.tensor([[1.0, 2.0, 3.0]])
PLAIN = tw.FeatureAblation(torch.nn.Identity())
OTHERS = {
    "another method": lambda: tw.InputXGradient(torch.nn.Identity()).explain(X, 0),
    "another shapes of a row": lambda: PLAIN.explain(X[:, :2], 0),
    "another number of rows": lambda: PLAIN.explain(X.expand(2, 3), 0),
    "another list of names": lambda: PLAIN.explain(X, 0, names=["a", "b", "c"]),
    "another baseline": lambda: PLAIN.explain(X, 0, baselines=1.0),
    "other feature_mask": lambda: PLAIN.explain(X, 0, feature_mask=torch.tensor([0, 0, 1])),
    "other inputs": lambda: PLAIN.explain(X + 1, 0),
}


@pytest.mark.parametrize("message", OTHERS)
def test_what_is_not_of_the_same_features_is_refused(message):
    with pytest.raises(ValueError, match=f"difference: number 1 has {message}"):
        PLAIN.explain(X, 0) - OTHERS[message]()


def test_other_things_are_no_explanations():
    with pytest.raises(TypeError, match="unsupported operand"):
        PLAIN.explain(X, 0) - X
