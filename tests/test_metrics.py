"""The metrics that run the model on changed inputs, and those of the map alone."""

import itertools
import math

import pytest
import torch
from nets import inputs, make
from reference import metrics as ref

import torchwhy as tw
from torchwhy import metrics as M


class Linear(torch.nn.Module):
    """f(x) = w x + 1."""

    def __init__(self, w):
        super().__init__()
        self.w = torch.tensor(w, dtype=torch.double)

    def forward(self, x):
        return x.flatten(1) @ self.w + 1


W = [4.0, 1.0, -2.0]
ONE = torch.ones(1, 3, dtype=torch.double)
A = torch.tensor([W], dtype=torch.double)  # the right explanation of ONE


def test_deletion_and_insertion_by_hand():
    # 4 + 1 - 2 + 1 = 4; without 4: 0; without 1: -1; without -2: 1
    deleted = M.deletion(Linear(W), ONE, A, steps=3)
    assert deleted.scores.tolist() == [[4, 0, -1, 1]]
    assert deleted.fractions.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert deleted.auc.item() == pytest.approx((2 - 0.5 + 0) / 3)
    inserted = M.insertion(Linear(W), ONE, A, steps=3)
    assert inserted.scores.tolist() == [[1, 5, 6, 4]]
    wrong = M.insertion(Linear(W), ONE, -A, steps=3)
    assert wrong.scores.tolist() == [[1, -1, 0, 4]]


def test_the_area_is_the_mean_height():
    curve = M.Curve(torch.tensor([0.2, 0.3, 0.7]), torch.tensor([[1.0, 3.0, 0.0], [2.0, 2.0, 2.0]]))
    assert curve.auc.tolist() == pytest.approx([(0.1 * 2 + 0.4 * 1.5) / 0.5, 2])


def test_the_others_by_hand():
    f = Linear(W)
    # top third alone: 5, against 4; top two thirds alone: 6
    assert M.sufficiency(f, ONE, A, fractions=[1 / 3, 2 / 3]).item() == pytest.approx((-1 - 2) / 2)
    assert M.comprehensiveness(f, ONE, A, fractions=[1 / 3, 2 / 3]).item() == pytest.approx((4 + 5) / 2)
    # adding -2, 1, 4: down, up, up
    assert M.monotonicity(f, ONE, A).item() == pytest.approx(2 / 3)
    assert M.monotonicity(f, ONE, -A).item() == pytest.approx(2 / 3)  # adding 4, 1, -2: up, up, down
    # the positive part over its largest: (1, 1/4, 0): 4 + 1/4 + 1 = 5.25 rises above 4
    assert M.average_drop(f, ONE, A, softmax=False).item() == 0
    assert M.average_increase(f, ONE, A, softmax=False).item() == 1
    # of the negated map: (0, 0, 1): -2 + 1 = -1: lost 5 of 4
    assert M.average_drop(f, ONE, -A, softmax=False).item() == pytest.approx(5 / 4)
    segments = torch.tensor([[0, 0, 1]])  # means 2.5 and -2: scores 4, -1, 1
    assert M.irof(f, ONE, A, feature_mask=segments).item() == pytest.approx(1 - (1.5 + 0) / 2 / 4)
    # the right coefficients of a linear model leave nothing; off by one in the first, E I_0^2
    assert M.infidelity(f, ONE, A).item() < 1e-25
    off = A + torch.tensor([[1.0, 0, 0]])
    moved = torch.tensor([[1.0, 0, 0], [3, 1, 0]], dtype=torch.double)
    assert M.infidelity(f, ONE, off, perturb=lambda n, g: moved[:n], n_samples=2).item() == pytest.approx((1 + 9) / 2)
    assert M.faithfulness_correlation(f, ONE, A).item() == pytest.approx(1)
    assert M.faithfulness_correlation(f, ONE, -A).item() == pytest.approx(-1)
    assert M.faithfulness_estimate(f, ONE, A).item() == pytest.approx(1)
    assert M.sensitivity_n(f, ONE, A).scores.flatten().tolist() == pytest.approx([1, 1])


CASES = list(itertools.product(["smooth", "conv"], [1, 2]))


def rows_of(kind, target):
    """A network, inputs, baselines, untied attributions, and the network as a function of one row."""
    net, x = make(kind), inputs(kind)
    g = torch.Generator().manual_seed(7)
    a, b = (torch.randn(x.shape, generator=g, dtype=torch.double) for _ in range(2))
    return net, x, b, a, lambda z: net(z[None])[0, target]


@pytest.mark.parametrize("kind,target", CASES)
def test_equal_to_the_reference(kind, target):
    net, x, b, a, f = rows_of(kind, target)
    each = list(zip(x, b, a))
    chance = lambda z: net(z[None]).softmax(1)[0, target]  # noqa: E731
    steps = 5
    pairs = [
        (M.deletion(net, x, a, target, baselines=b, steps=steps).scores, [ref.deletion(f, *r, steps) for r in each]),
        (M.insertion(net, x, a, target, baselines=b, steps=steps).scores, [ref.insertion(f, *r, steps) for r in each]),
        (
            M.deletion(net, x, a, target, baselines=b, steps=steps, softmax=True).scores,
            [ref.deletion(chance, *r, steps) for r in each],
        ),
        (
            M.sufficiency(net, x, a, target, baselines=b, fractions=[0.2, 0.6]),
            [ref.sufficiency(f, *r, [0.2, 0.6]) for r in each],
        ),
        (
            M.comprehensiveness(net, x, a, target, baselines=b, fractions=[0.2, 0.6]),
            [ref.comprehensiveness(f, *r, [0.2, 0.6]) for r in each],
        ),
        (M.monotonicity(net, x, a, target, baselines=b, steps=10**6), [ref.monotonicity(f, *r) for r in each]),
        (M.average_drop(net, x, a, target, baselines=b), [ref.average_drop(chance, *r)[0] for r in each]),
        (M.average_increase(net, x, a, target, baselines=b), [ref.average_drop(chance, *r)[1] for r in each]),
        (
            M.faithfulness_estimate(net, x, a, target, baselines=b, steps=10**6),
            [ref.faithfulness_estimate(f, *r, groups=r[0].numel()) for r in each],
        ),
        (
            M.faithfulness_estimate(net, x, a, target, baselines=b, steps=4),
            [ref.faithfulness_estimate(f, *r, groups=4) for r in each],
        ),
    ]
    for found, expected in pairs:
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.double), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind,target", CASES)
def test_infidelity_equals_the_reference_and_captum(kind, target):
    net, x, b, a, f = rows_of(kind, target)
    moved = 0.3 * torch.randn(4, *x.shape[1:], generator=torch.Generator().manual_seed(3), dtype=torch.double)
    options = {"perturb": lambda n, g: moved[:n], "n_samples": 4, "baselines": b}
    for normalize, product in itertools.product([False, True], repeat=2):
        found = M.infidelity(net, x, a, target, normalize=normalize, multiplied_by_inputs=product, **options)
        phi = a / (x - b) if product else a
        expected = [ref.infidelity(f, r, p, moved, normalize) for r, p in zip(x, phi)]
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.double), rtol=1e-9, atol=1e-10)
        from captum import metrics as captum

        def perturb(z, product=product):
            i = moved.repeat(len(x), *[1] * (x.dim() - 1))
            return (i / (z - b.repeat_interleave(4, 0)) if product else i), z - i

        theirs = captum.infidelity(net, perturb, x, a, target=target, n_perturb_samples=4, normalize=normalize)
        torch.testing.assert_close(found, theirs.double(), rtol=1e-5, atol=1e-6)


def watched(net, call):
    """What the call gives, and the inputs that it evaluates."""
    seen = []
    found = call(lambda z: (seen.append(z.clone()), net(z))[1])
    return found, torch.cat(seen)


def test_random_sets_are_of_the_size_and_the_reference_agrees():
    net, x, b, a, f = rows_of("conv", 1)
    ask = lambda net: M.faithfulness_correlation(net, x[:1], a[:1], 1, baselines=b[:1], subset_size=30, n_samples=20)  # noqa: E731
    found, seen = watched(net, ask)
    sets = [(z != x[0]).flatten().nonzero()[:, 0].tolist() for z in seen]
    assert [len(s) for s in sets] == [0] + 20 * [30]
    assert len({tuple(s) for s in sets}) == 21
    assert found.item() == pytest.approx(ref.faithfulness_correlation(f, x[0], b[0], a[0], sets[1:]))


def test_where_there_are_few_sets_each_is_evaluated_once():
    net, x, b, a, f = rows_of("smooth", 1)
    ask = lambda net: M.faithfulness_correlation(net, x[:1], a[:1], 1, baselines=b[:1], subset_size=2, n_samples=20)  # noqa: E731
    found, seen = watched(net, ask)
    assert len(seen) == 1 + 10
    every = list(itertools.combinations(range(5), 2))
    assert found.item() == pytest.approx(ref.faithfulness_correlation(f, x[0], b[0], a[0], every))
    curve = M.sensitivity_n(net, x[:1], a[:1], 1, baselines=b[:1], sizes=[2, 3], n_samples=20)
    assert curve.fractions.tolist() == pytest.approx([0.4, 0.6])
    assert curve.scores[0, 0].item() == pytest.approx(found.item())


def test_extreme_sets_are_corrected_for_their_range():
    net, x, b, a, f = rows_of("conv", 1)
    options = {"baselines": b[:1], "subset_size": 30, "n_samples": 9, "oversample": 10}
    found, seen = watched(net, lambda net: M.faithfulness_correlation(net, x[:1], a[:1], 1, **options))
    assert len(seen) == 10
    sets = [(z != x[0]).flatten().nonzero()[:, 0].tolist() for z in seen[1:]]
    assert {len(s) for s in sets} == {30}
    said = sorted(ref.set_sums(a[0], sets))
    mean, spread = ref.moments_of_sets(a[0], 30)
    assert said[3] < mean - spread < mean + spread < said[4]
    assert found.item() == pytest.approx(ref.corrected_correlation(f, x[0], b[0], a[0], sets))
    rows = [
        M.faithfulness_correlation(net, x[i], a[i], 1, **{**options, "baselines": b[i]})
        for i in map(slice, range(3), (1, 2, 3))
    ]
    torch.testing.assert_close(torch.cat(rows), M.faithfulness_correlation(net, x, a, 1, **{**options, "baselines": b}))


def test_extreme_sets_are_worth_four_times_the_random_ones():
    g = torch.Generator().manual_seed(0)
    w, other = torch.randn(2, 1, 400, generator=g, dtype=torch.double)
    x, a = torch.ones_like(w), 0.3 * w + other
    truth = float(torch.corrcoef(torch.cat([w, a]))[0, 1])
    ask = lambda seed, **o: M.faithfulness_correlation(Linear(w[0].tolist()), x, a, generator=seed, **o).item() - truth  # noqa: E731
    few = torch.tensor([ask(s, n_samples=25, oversample=10) for s in range(150)])
    many = torch.tensor([ask(s, n_samples=100) for s in range(150)])
    assert few.square().mean() < 1.25 * many.square().mean()
    assert few.mean().abs() < 0.03


def test_irof_equals_the_reference():
    net, x, b, a, _ = rows_of("conv", 1)
    chance = lambda z: net(z[None]).softmax(1)[0, 1]  # noqa: E731
    segments = (torch.arange(8)[:, None] // 3 * 3 + torch.arange(8) // 3).expand(1, 3, 8, 8)
    found = M.irof(net, x, a, 1, baselines=b, feature_mask=segments, softmax=True)
    expected = [ref.irof(chance, *r, segments[0]) for r in zip(x, b, a)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.double))


def test_road_imputes_as_the_dense_system_does():
    net, x, _, _, f = rows_of("conv", 1)
    a = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.double)
    found = M.road(net, x, a, 1, fractions=[0.0, 0.3, 0.9], noise=0.0)
    low = M.road(net, x, a, 1, fractions=[0.3], noise=0.0, remove="bottom")
    for n in range(3):
        order = a[n].flatten().argsort(descending=True)
        for k, gone in enumerate([order[:0], order[:19], order[:58]]):
            keep = torch.ones(64, dtype=torch.bool).index_fill(0, gone, False).view(8, 8)
            assert found.scores[n, k].item() == pytest.approx(f(ref.linear_imputation(x[n], keep)).item(), abs=1e-4)
        keep = torch.ones(64, dtype=torch.bool).index_fill(0, order[-19:], False).view(8, 8)
        assert low.scores[n, 0].item() == pytest.approx(f(ref.linear_imputation(x[n], keep)).item(), abs=1e-4)
    noisy = M.road(net, x, a, 1, fractions=[0.0, 0.3], noise=0.5).scores
    assert torch.equal(noisy[:, 0], found.scores[:, 0])
    assert not torch.allclose(noisy[:, 1], found.scores[:, 1])


def test_a_map_of_one_channel_replaces_whole_pixels():
    net, x = make("conv"), inputs("conv")
    a = torch.randn(3, 1, 8, 8, dtype=torch.double)
    pixels = torch.arange(64).view(1, 8, 8)
    one = M.deletion(net, x, a, 1, steps=8).scores
    torch.testing.assert_close(one, M.deletion(net, x, a.expand_as(x), 1, feature_mask=pixels, steps=8).scores)
    corr = M.faithfulness_correlation(net, x, a, 1)
    torch.testing.assert_close(corr, M.faithfulness_correlation(net, x, a.expand_as(x) / 3, 1, feature_mask=pixels))


def test_several_inputs_and_tokens():
    two, x = make("two"), inputs("two")
    method = tw.InputXGradient(two)
    a = method.attribute(x, 1)
    for metric in (M.deletion, M.faithfulness_correlation, M.infidelity, M.monotonicity):
        found = metric(two, x, a, 1)
        assert len(found.scores if isinstance(found, M.Curve) else found) == 3
    tokens, ids = make("tokens"), inputs("tokens")
    says = torch.randn(3, 4, dtype=torch.double)
    curve = M.deletion(tokens, ids, says, 1, steps=4, additional_forward_args={"attention_mask": torch.ones_like(ids)})
    assert curve.scores.shape == (3, 5)
    torch.testing.assert_close(curve.scores[:, 0], tokens(ids).logits[:, 1].float())
    with pytest.raises(TypeError, match="integers"):
        M.infidelity(tokens, ids, says, 1)
    with pytest.raises(TypeError, match="integers"):
        M.average_drop(tokens, ids, says, 1)


ON_MODEL = [
    M.deletion,
    M.insertion,
    M.sufficiency,
    M.comprehensiveness,
    M.monotonicity,
    M.average_drop,
    M.average_increase,
    M.infidelity,
    M.faithfulness_correlation,
    M.faithfulness_estimate,
    M.sensitivity_n,
]
IS_CORRELATION = (M.faithfulness_correlation, M.faithfulness_estimate, M.sensitivity_n)


def number(found):
    return found.scores if isinstance(found, M.Curve) else found


@pytest.mark.parametrize("metric", ON_MODEL, ids=lambda m: m.__name__)
def test_a_batch_equals_its_rows_and_batch_size_does_not_matter(metric):
    net, x, b, a, _ = rows_of("smooth", 1)
    whole = number(metric(net, x, a, [0, 1, 2], baselines=b))
    one = torch.cat([number(metric(net, x[i : i + 1], a[i : i + 1], i, baselines=b[i : i + 1])) for i in range(3)])
    torch.testing.assert_close(whole, one)
    torch.testing.assert_close(whole, number(metric(net, x, a, [0, 1, 2], baselines=b, batch_size=2)))
    single = number(metric(net.float(), x.float(), a.float(), [0, 1, 2], baselines=b.float()))
    assert single.dtype == torch.float
    torch.testing.assert_close(single.double(), whole, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("metric", ON_MODEL, ids=lambda m: m.__name__)
def test_degenerate_maps(metric):
    net, x = make("smooth"), inputs("smooth")
    for fill in (0.0, 0.1):  # sums of 0.1 differ in their last digit
        found = number(metric(net, x, torch.full_like(x, fill), 1))
        assert bool(found.isnan().all() if metric in IS_CORRELATION else found.isfinite().all())
    for bad in (math.nan, math.inf):
        a = torch.zeros_like(x)
        a[1, 2] = bad
        with pytest.raises(ValueError, match="attributions: NaN or infinite in row 1"):
            metric(net, x, a, 1)
    with pytest.raises(ValueError, match="attributions: shape"):
        metric(net, x, torch.zeros(3, 4), 1)
    with pytest.raises(TypeError, match="baseline: unknown"):
        metric(net, x, x, 1, baseline=0)


def test_a_constant_map_scores_as_a_random_one():
    net, x = make("conv"), inputs("conv", 1)
    flat = [M.deletion(net, x, torch.zeros_like(x), 1, generator=k).auc.item() for k in range(4)]
    assert len(set(flat)) == 4  # no order is preferred
    assert M.deletion(net, x, torch.zeros_like(x), 1).auc.item() == flat[0]  # but it can be repeated


def test_relative_metrics_refuse_scores_that_are_not_positive():
    with pytest.raises(ValueError, match="softmax=True"):
        M.average_drop(Linear([-4.0, 1, 1]), ONE, A, softmax=False)
    with pytest.raises(ValueError, match="softmax=True: needs a class"):
        M.average_drop(Linear(W), ONE, A)


@pytest.mark.parametrize(
    "call,match",
    [
        (lambda: M.deletion(Linear(W), ONE, A, steps=0), "steps=0"),
        (lambda: M.irof(Linear(W), ONE, A), "feature_mask"),
        (lambda: M.sufficiency(Linear(W), ONE, A, fractions=[0.5, 0.2]), "fractions"),
        (lambda: M.comprehensiveness(Linear(W), ONE, A, fractions=[0.0]), "the share 0"),
        (lambda: M.road(Linear(W), ONE, A), "images"),
        (lambda: M.road(make("conv"), inputs("conv"), inputs("conv"), 1), "whole pixels"),
        (lambda: M.road(make("conv"), inputs("conv"), inputs("conv"), 1, baselines=0), "baselines"),
        (lambda: M.faithfulness_correlation(Linear(W), ONE, A, subset_size=3), "subset_size=3"),
        (lambda: M.faithfulness_correlation(Linear(W), ONE, A, subset_size=2, oversample=2), "oversample=2"),
        (lambda: M.faithfulness_correlation(Linear(W), ONE, A, oversample=0), "oversample=0"),
        (lambda: M.sensitivity_n(Linear(W), ONE, A, sizes=[1]), "sizes"),
        (lambda: M.infidelity(Linear(W), ONE, A, perturb=lambda n, g: torch.zeros(n, 2)), "perturb"),
        (lambda: M.deletion(Linear(W), ONE, "A"), "attributions"),
        (lambda: M.deletion(Linear(W), ONE, (A, A)), "2 tensors given for 1"),
    ],
)
def test_refusals_name_the_argument(call, match):
    with pytest.raises((ValueError, TypeError), match=match):
        call()


def test_facts_are_on_the_functions():
    for name in M.__all__:
        thing = getattr(M, name)
        if isinstance(thing, M.Metric):
            assert thing.higher_is_better in (True, False, None), name
            assert thing.range[0] < thing.range[1]
            assert thing.needs in ("model", "maps", "mask", "method")
            assert thing.paper, name


def test_probabilities_are_not_made_probabilities_again():
    net, x, _, a, _ = rows_of("smooth", 1)
    chance = lambda z: net(z).softmax(1).numpy()  # noqa: E731 (a classifier of arrays gives probabilities)
    for metric in (M.deletion, M.average_drop):
        same = [metric(model, x, a, 1, softmax=True) for model in (net, chance)]
        same = [found.scores if isinstance(found, M.Curve) else found for found in same]
        torch.testing.assert_close(*same)
