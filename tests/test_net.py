"""What every method promises, on drawn networks and questions: a few examples of each here, many under ``-m slow``."""

import warnings
from itertools import product

import pytest
import torch
from cases import CASES
from drawn import CONTEXTS, Question, questions
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from traces import of_input, of_model, of_torch, same

import torchwhy as tw

# what the docstrings of the methods name
DOCUMENTED = (ValueError, TypeError, LookupError, IndexError, FloatingPointError, NotImplementedError)
MANY = 2000
DOUBLE = {"dtype": st.just(torch.double)}
INDEPENDENT = [i for i, case in enumerate(CASES) if case.method.rows_are_independent]
COMPLETE = [i for i, case in enumerate(CASES) if "complete" in case.laws]


def check_documented(error):
    """An error is one that a method documents, with words of ours: no ``KeyError`` of a dict, no error of torch."""
    if type(error) not in DOCUMENTED or len(str(error)) < 20:
        raise AssertionError(repr(error)) from error


def answer(question, **options):
    """The attributions, or the documented error that there was in their place."""
    case, net, x, data = question.setup()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return question.method(case, net, **options).attribute(x, **data)
        except DOCUMENTED as error:
            check_documented(error)
            return error


def assert_near(a, b, rtol=1e-6):
    """Both are errors of one type, or numbers that differ by rounding."""
    if isinstance(a, Exception) or isinstance(b, Exception):
        assert type(a) is type(b), (a, b)
        return
    assert a.shape == b.shape
    assert float((a - b).abs().max()) <= rtol * float(a.abs().max()) + 1e-10


# ------------------------------------------------------------------------------------------------------- properties
def leaves_no_trace_and_raises_what_is_documented(question):
    case, net, x, data = question.setup()
    given_baselines = data.get("baselines")
    before = of_model(net), of_input(x), of_torch()
    with warnings.catch_warnings(), CONTEXTS[question.context]():
        warnings.simplefilter("ignore")
        inside = of_torch()
        try:
            found = question.method(case, net).attribute(x, **data)
        except DOCUMENTED as error:
            check_documented(error)
        else:
            assert bool(found.isfinite().all())
            assert found.dtype == x.dtype
            assert len(found) == len(x)
            assert not found.requires_grad
        assert same(of_torch(), inside)
    assert same(before, (of_model(net), of_input(x), of_torch()))
    assert data.get("baselines") is given_baselines


def rows_are_as_if_alone(question):
    case, net, x, data = question.setup()
    together = answer(question)
    if isinstance(together, Exception):
        return
    for i in range(question.n):
        mine = dict(data)
        if isinstance(data["target"], list):
            mine["target"] = data["target"][i]
        if question.target == "a function of rows":  # which row it is, is told by its place in the call
            mine["target"] = lambda output, rows, i=i: output[:, i % 4]
        if isinstance(mine.get("baselines"), torch.Tensor) and len(mine["baselines"]) == question.n > 1:
            mine["baselines"] = mine["baselines"][i : i + 1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            alone = question.method(case, net).attribute(x[i : i + 1], **mine)
        assert_near(together[i : i + 1], alone)


def batch_size_changes_rounding_only(question):
    assert_near(answer(question), answer(question, batch_size=question.n + 2))


def the_same_call_gives_the_same_bits(question):
    first, second = answer(question), answer(question)
    assert type(first) is type(second)
    assert isinstance(first, Exception) or torch.equal(first, second)


def the_gap_is_what_is_missing(question):
    case, net, x, data = question.setup()
    data.pop("feature_mask", None)  # with which every element has the whole value of its feature
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            e = question.method(case, net, **case.exact).explain(x, **data)
        except DOCUMENTED as error:
            check_documented(error)
            return
    change = e.scores - e.base_scores
    missing = (e.attributions.flatten(1).sum(1) - change).abs()
    size = e.attributions.abs().flatten(1).sum(1) + e.scores.abs() + e.base_scores.abs()
    torch.testing.assert_close(e.completeness_gap.double(), missing.double(), rtol=1e-5, atol=1e-8 * float(size.max()))
    if case.method in (tw.ExactShapley, tw.KernelSHAP, tw.ShapleySampling, tw.OwenValues):
        assert bool((e.completeness_gap <= 1e-6 * size).all())


def subsets(d):
    return torch.tensor(list(product([False, True], repeat=d)))


def values_of_game(net, x, b, mask, score):
    """The scores of one row with each subset of its features present, (2^d,)."""
    keep = subsets(int(mask.max()) + 1)[:, mask]
    with torch.no_grad():
        return score(net(torch.where(keep, x, b)))


def small_games_are_right(question):
    """Shapley and Banzhaf values and ablation, against all subsets of at most four features."""
    _, net, x, data = question.setup()
    d = 1 + question.seed % 4
    mask = (torch.arange(192).view(3, 8, 8) * 7 + question.seed) % d
    b = data.get("baselines")
    row = {"a number": torch.full_like(x[:1], 0.3), "none": torch.zeros_like(x[:1])}.get(question.baselines, b)
    if not isinstance(row, torch.Tensor):
        return
    sets = subsets(d)
    count, bits = sets.sum(1), 2 ** torch.arange(d - 1, -1, -1)
    index = (sets * bits).sum(1)
    methods = {
        "shapley": tw.ExactShapley(net, batch_size=question.batch_size),
        "kernel": tw.KernelSHAP(net, n_samples=64, generator=0, batch_size=question.batch_size),
        "banzhaf": tw.Banzhaf(net, n_samples=64, generator=0, batch_size=question.batch_size),
        "ablation": tw.FeatureAblation(net, batch_size=question.batch_size),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {k: m.attribute(x, 1, baselines=b, feature_mask=mask) for k, m in methods.items()}
    for i in range(question.n):
        base = row[i if len(row) > 1 else 0]
        v = values_of_game(net, x[i : i + 1], base[None], mask, lambda output: output[:, 1])
        for j in range(d):
            without = index[~sets[:, j]]
            gains, size = v[without + bits[j]] - v[without], count[without]
            ways = torch.lgamma(size + 1.0) + torch.lgamma(d - size.double()) - torch.lgamma(torch.tensor(d + 1.0))
            scale = max(1.0, float(v.abs().max()))
            rights = {
                "shapley": (ways.double().exp() * gains).sum(),
                "kernel": (ways.double().exp() * gains).sum(),
                "banzhaf": gains.mean(),
                "ablation": v[-1] - v[-1 - int(bits[j])],
            }
            for name, right in rights.items():
                value = found[name][i][mask == j]
                assert float((value - value[0]).abs().max()) < 1e-9 * scale
                assert float((value[0] - right).abs()) < 1e-5 * scale, (name, i, j)


EXPLAINS = CASES.index(next(case for case in CASES if case.method is tw.ExactShapley))
PROPERTIES = {  # (check, questions, examples in every run)
    "no trace": (leaves_no_trace_and_raises_what_is_documented, questions(), 48),
    "rows": (rows_are_as_if_alone, questions(INDEPENDENT, n=st.integers(2, 3), **DOUBLE), 20),
    "batch size": (batch_size_changes_rounding_only, questions(**DOUBLE), 24),
    "same bits": (the_same_call_gives_the_same_bits, questions(), 24),
    "gap": (the_gap_is_what_is_missing, questions(COMPLETE, **DOUBLE), 12),
    "games": (small_games_are_right, questions([EXPLAINS], **DOUBLE), 16),
}


def run(name, examples, **how):
    """Put a property to the question with drawn examples."""
    check, drawn, _ = PROPERTIES[name]
    how = {"phases": [Phase.explicit, Phase.generate, Phase.shrink], **how}
    settled = settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck), **how
    )
    settled(given(drawn)(check))()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PROPERTIES)
def test_property(name):
    run(name, PROPERTIES[name][2], derandomize=True)


EVEN = {"steps": (), "head": "mean", "seed": 0, "values": "zero", "context": "nothing", "dtype": torch.double}
DISCARDS = [i for i, case in enumerate(CASES) if "discard_ratio" in case.options]


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("values", ["zero", "equal rows"])
@pytest.mark.parametrize("case", DISCARDS)
def test_what_rounding_alone_sets_apart_is_not_sorted(case, values, n):
    """All patches alike: which attention is among the smallest was another for each size of a batch."""
    asked = {**EVEN, "case": case, "values": values, "target": "predicted", "baselines": "none"}
    rows_are_as_if_alone(Question(**asked, n=n, batch_size=2))
    batch_size_changes_rounding_only(Question(**asked, n=n, batch_size=1))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PROPERTIES)
def test_property_at_length(name):
    run(name, MANY)
