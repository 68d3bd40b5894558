"""Metrics of a few numbers, worked out by hand."""

import math

import pytest
import torch
from reference import metrics as ref

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


def test_maps_and_masks():
    heat = torch.tensor([[[4.0, 3, 2], [1, 0, -5]]])
    mask = torch.tensor([[[True, False, True], [False, False, True]]])
    assert M.pointing_game(heat, mask).item() == 1
    assert M.relevance_mass(heat, mask).item() == pytest.approx(6 / 10)
    assert M.relevance_mass(heat, mask, sign="absolute").item() == pytest.approx(11 / 15)
    assert M.relevance_rank(heat, mask).item() == pytest.approx(2 / 3)  # 4, 3, 2
    assert M.top_k_intersection(heat, mask, k=2).item() == pytest.approx(1 / 2)
    assert M.iou(heat, mask, threshold=0.5).item() == pytest.approx(1 / 4)  # 4 and 3 against three
    assert M.auc(heat, mask).item() == pytest.approx((3 + 2 + 0.5) / 9)  # of 4, 2, 0 against 3, 1, 0
    assert M.sparseness(heat).item() == pytest.approx(ref.gini(heat))
    shares = torch.tensor([[1.0, -1, 2, 0]])
    assert M.complexity(shares).item() == pytest.approx(1.5 * math.log(2))
    assert M.effective_complexity(shares, epsilon=0.6).item() == 1
    assert M.effective_complexity(shares).item() == 3


def test_fewer_features_than_steps():
    f = Linear(W)
    for metric in (M.deletion, M.insertion):
        few, many = metric(f, ONE, A, steps=3), metric(f, ONE, A)
        assert many.fractions.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
        torch.testing.assert_close(many.scores, few.scores)
        torch.testing.assert_close(many.auc, few.auc)
    # of three features, shares of 1, 5 and 10 % are none, 20 % is one, 50 % two: alone they score 1, 5, 6 of 4
    assert M.sufficiency(f, ONE, A).item() == pytest.approx((3 * 3 - 1 - 2) / 5)
    assert M.comprehensiveness(f, ONE, A).item() == pytest.approx((3 * 0 + 4 + 5) / 5)
    assert M.sufficiency(f, ONE, A, fractions=[1.0]).item() == 0
    assert M.comprehensiveness(f, ONE, A, fractions=[1.0]).item() == pytest.approx(3)


def test_shares_are_those_that_were_removed():
    x = torch.ones(1, 10, dtype=torch.double)
    curve = M.deletion(Linear([1.0] * 10), x, x, steps=3)
    assert curve.fractions.tolist() == pytest.approx([0, 0.3, 0.7, 1])
    torch.testing.assert_close(curve.scores, 11 - 10 * curve.fractions[None])


def test_large_numbers_do_not_overflow():
    a = torch.full((1, 4), 1e38)
    assert M.complexity(a).item() == pytest.approx(math.log(4))
    assert M.sparseness(a).item() == pytest.approx(0)
    assert M.complexity(torch.zeros(1, 4)).isnan().all()


@pytest.mark.parametrize("d", [7, 51, 60, 64, 99, 130])
def test_faithfulness_estimate_does_not_measure_the_sizes_of_its_groups(d):
    generator = torch.Generator().manual_seed(1)
    w, a = (0.9 + 0.2 * torch.rand(128, d, generator=generator) for _ in range(2))  # the map knows nothing of the model
    score = lambda z, w: (z * w).sum(1)  # noqa: E731
    x, steps = torch.ones(128, d), 5 if d == 7 else 50
    found = M.faithfulness_estimate(score, x, a, steps=steps, additional_forward_args=w)
    assert abs(float(found.mean())) < 0.1
    told = M.faithfulness_estimate(score, x, w * 2, steps=steps, additional_forward_args=w)
    torch.testing.assert_close(told, torch.ones(128), rtol=1e-3, atol=1e-3)
    flat = M.faithfulness_estimate(score, x, torch.ones(128, d), steps=steps, additional_forward_args=w)
    assert flat.isnan().all()


def test_a_feature_of_the_callers_mask_counts_as_one_whatever_its_size():
    """As in the paper: the attribution of a feature beside its loss; groups of them are of one size, or means of features."""
    generator = torch.Generator().manual_seed(2)
    sizes = torch.tensor([1, 2, 3, 5, 8, 13, 4, 4])
    mask = torch.arange(8).repeat_interleave(sizes)[None]
    x, w = torch.ones(16, 40), torch.randn(16, 40, generator=generator)
    losses = torch.zeros(16, 8).index_add(1, mask[0], w)
    score = lambda z, w: (z * w).sum(1)  # noqa: E731
    ask = lambda a, **o: M.faithfulness_estimate(score, x, a, feature_mask=mask, additional_forward_args=w, **o)  # noqa: E731

    def by_hand(a, b):
        return torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(a, b)])

    torch.testing.assert_close(ask(w), torch.ones(16))
    torch.testing.assert_close(ask(losses[:, mask[0]], whole_features=True), torch.ones(16))
    guess = torch.randn(16, 40, generator=generator)
    sums = torch.zeros(16, 8).index_add(1, mask[0], guess)
    torch.testing.assert_close(ask(guess), by_hand(sums, losses))
    torch.testing.assert_close(ask(torch.ones(16, 40)), by_hand(sizes.expand(16, 8).float(), losses))
    assert ask(torch.ones(16, 40), whole_features=True).isnan().all()  # features that are all worth the same

    order = losses.argsort(1)  # three groups of the eight features: of 3, 3 and 2, in their order
    cut = [torch.stack([losses[i, order[i, g]].mean() for i in range(16)]) for g in ([0, 1, 2], [3, 4, 5], [6, 7])]
    means = torch.stack(cut, 1)
    torch.testing.assert_close(ask(w * 2, steps=3), by_hand(means, means))
