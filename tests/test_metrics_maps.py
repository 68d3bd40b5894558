"""The metrics of a map alone, or of a map and the pixels that are known to matter."""

import math

import pytest
import torch
from reference import metrics as ref

from torchwhy import metrics as M

G = torch.Generator().manual_seed(11)
HEAT = torch.rand(4, 9, 7, generator=G, dtype=torch.double)
MASK = torch.rand(4, 9, 7, generator=G) < 0.2
LOCAL = [
    M.pointing_game,
    M.relevance_mass,
    M.energy_pointing_game,
    M.relevance_rank,
    M.top_k_intersection,
    M.auc,
    M.iou,
]


def test_by_hand():
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


def test_equal_to_the_reference():
    for heat in (HEAT, (HEAT * 4).round()):  # without and with ties
        torch.testing.assert_close(M.sparseness(heat), torch.tensor([ref.gini(h) for h in heat], dtype=torch.double))
        torch.testing.assert_close(M.complexity(heat), torch.tensor([ref.entropy(h) for h in heat], dtype=torch.double))
        expected = torch.tensor([ref.roc_area(h, m) for h, m in zip(heat, MASK)], dtype=torch.double)
        torch.testing.assert_close(M.auc(heat, MASK), expected)
    for tolerance in (0, 1, 1.5, 2, 3):
        expected = [ref.pointing_game(h, m, tolerance) for h, m in zip(HEAT, MASK)]
        assert M.pointing_game(HEAT, MASK, tolerance=tolerance).tolist() == expected


@pytest.mark.parametrize("metric", LOCAL, ids=lambda m: m.__name__)
def test_forms_of_maps_and_masks(metric):
    k = {"k": 5} if metric is M.top_k_intersection else {}
    expected = metric(HEAT, MASK, **k)
    thirds = torch.stack([HEAT / 2, HEAT / 4, HEAT / 4], 1)
    torch.testing.assert_close(metric(thirds, MASK[:, None], **k), expected)
    torch.testing.assert_close(metric(HEAT.float(), MASK.float(), **k).double(), expected, rtol=1e-5, atol=1e-6)
    rows = torch.cat([metric(HEAT[i : i + 1], MASK[i : i + 1], **k) for i in range(4)])
    torch.testing.assert_close(rows, expected)
    perfect = metric(MASK.double(), MASK, **k)
    assert bool((perfect == 1).all())


def test_a_constant_map_says_nothing():
    flat, area = torch.full_like(HEAT, 0.1), MASK.double().mean((1, 2))
    for metric in (M.pointing_game, M.relevance_mass, M.relevance_rank):
        torch.testing.assert_close(metric(flat, MASK), area)
    torch.testing.assert_close(M.top_k_intersection(flat, MASK, k=5), area)
    torch.testing.assert_close(M.auc(flat, MASK), torch.full_like(area, 0.5))
    torch.testing.assert_close(M.iou(flat, MASK), area)
    assert bool((M.sparseness(flat).abs() < 1e-12).all())
    torch.testing.assert_close(M.complexity(flat), torch.full((4,), math.log(63), dtype=torch.double))


def test_a_map_of_zeros_is_not_a_silent_zero():
    zero, area = torch.zeros_like(HEAT), MASK.double().mean((1, 2))
    for metric in (M.relevance_mass, M.energy_pointing_game, M.iou):
        assert bool(metric(zero, MASK).isnan().all())
    for metric in (M.sparseness, M.complexity, M.effective_complexity):
        assert bool(metric(zero).isnan().all())
    torch.testing.assert_close(M.pointing_game(zero, MASK), area)
    torch.testing.assert_close(M.pointing_game(-HEAT, MASK), area)  # no evidence for the target anywhere


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
def test_refusals_name_the_argument(call, match):
    with pytest.raises(ValueError, match=match):
        call()
