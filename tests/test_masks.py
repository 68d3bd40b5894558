"""The mask engine: features, masks, the stream of scores, running means."""

import pytest
import torch

import torchwhy as tw
from torchwhy.engine.features.masks import SlidingWindows, blend_with_fill, evaluate_masks
from torchwhy.engine.features.numbering import number_features
from torchwhy.engine.features.statistics import RunningMean, relative_error, sampling_rounds
from torchwhy.engine.run.randomness import Draws
from torchwhy.problem import Problem


class Spy(tw.FeatureAblation):
    """A method that hands out its problem."""

    def _attribute(self, problem: Problem):
        self.seen = self.look(problem)
        return problem.x


def inside(look, x, model=lambda x: x.flatten(1).sum(1), batch_size=None, **data):
    """What ``look(problem)`` finds."""
    spy = Spy(model, batch_size=batch_size)
    spy.look = look
    spy.attribute(x, **data)
    return spy.seen


def test_features_are_counted_through_the_tensors():
    features = number_features((torch.zeros(2, 3), torch.zeros(2, 2, 2)))
    assert features.d == 7
    assert features.shared
    assert features.ids[1].tolist() == [[[3, 4], [5, 6]]]


def test_a_number_in_two_tensors_is_one_feature():
    x = torch.zeros(2, 3), torch.zeros(2, 2)
    features = number_features(x, [torch.tensor([0, 0, 1]), torch.tensor([[1, 2]])])
    keep = features.element_masks(torch.tensor([[True, False, True]]), torch.tensor([0]))
    assert [k.tolist() for k in keep] == [[[True, True, False]], [[False, True]]]
    values = features.to_elements(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), x)
    assert [v.tolist() for v in values] == [[[1, 1, 2], [4, 4, 5]], [[2, 3], [5, 6]]]


def test_features_of_each_row():
    features = number_features((torch.zeros(2, 3),), [torch.tensor([[0, 1, 1], [2, 1, 0]])])
    assert features.d == 3
    assert features.count.tolist() == [2, 3]
    assert [(rows.tolist(), d) for rows, d in features.groups()] == [([0], 2), ([1], 3)]
    keep = features.leave_one_out_masks(torch.tensor([0, 2, 2]), torch.tensor([0, 0, 1]))[0]
    assert keep.tolist() == [[True] * 3, [True, False, False], [True, False, True]]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.tensor([-1, 0, 1]), "holds -1"),
        (torch.tensor([0, 1]), "does not broadcast"),
        (torch.zeros(3, 3, dtype=torch.long), "does not broadcast"),
        (torch.tensor([0.0, 1.0, 2.0]), "expected integers"),
    ],
)
def test_bad_feature_masks(mask, message):
    with pytest.raises(ValueError, match=f"feature_mask.*{message}"):
        tw.FeatureAblation(lambda x: x.sum(1)).attribute(torch.ones(2, 3), feature_mask=mask)


SEGMENTS = torch.tensor([[0, 7, 7, 15], [15, 15, 15, 15], [3, 15, 3, 10**12]])  # classes of a segmentation


@pytest.mark.parametrize(
    "method",
    [
        lambda f: tw.FeatureAblation(f),
        lambda f: tw.KernelSHAP(f),
        lambda f: tw.ExactShapley(f),
        lambda f: tw.LIME(f, generator=0, alpha=0.0),
    ],
    ids=["ablation", "kernel", "exact", "lime"],
)
def test_numbers_that_a_row_leaves_out_are_passed_over(method):
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double()
    f = lambda z: (z**3).sum(1) + z[:, 0] * z[:, 3]  # noqa: E731
    without = torch.tensor([[0, 1, 1, 2], [0, 0, 0, 0], [0, 1, 0, 2]])
    found, expected = (method(f).explain(x, feature_mask=m) for m in (SEGMENTS, without))
    assert torch.equal(found.attributions, expected.attributions)
    assert [len(v) for v in found.features()] == [3, 1, 3]
    for a, b in zip(found.features(), expected.features()):
        assert torch.equal(a, b)
    same = torch.tensor([[5, 2, 2, 9]])
    plain = torch.tensor([[1, 0, 0, 2]])
    assert torch.equal(*(method(f).attribute(x, feature_mask=m) for m in (same, plain)))


def test_gaps_across_two_tensors():
    x = (torch.randn(2, 3).double(), torch.randn(2, 2).double())
    f = lambda a, b: a.sum(1) * 2 + b.prod(1) + a[:, 0] * b[:, 1]  # noqa: E731
    gaps = (torch.tensor([[0, 4, 4], [9, 9, 2]]), torch.tensor([[4, 8], [2, 2]]))
    plain = (torch.tensor([[0, 1, 1], [1, 1, 0]]), torch.tensor([[1, 2], [0, 0]]))
    for a, b in zip(*(tw.ExactShapley(f).attribute(x, feature_mask=m) for m in (gaps, plain))):
        torch.testing.assert_close(a, b)


def test_blend_is_exact_for_booleans_and_linear_between():
    x, fill = torch.tensor([0.1, 0.2, torch.inf]), torch.tensor([9.0, 9.0, 9.0])
    assert blend_with_fill(torch.tensor([True, False, False]), x, fill).tolist() == [x[0].item(), 9, 9]
    assert blend_with_fill(torch.tensor([0.5, 1.0]), torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0])).tolist() == [
        1,
        3,
    ]


@pytest.mark.parametrize("batch_size", [1, 2, 5, None])
def test_the_stream_comes_in_units_and_in_order(batch_size):
    x = torch.tensor([[1.0, 10.0], [2.0, 20.0]])
    background = torch.tensor([[0.0, 0.0], [4.0, 8.0]])

    def look(problem):
        masks = lambda index, rows: ((index[:, None] == torch.tensor([[0, 1]])).to(rows.device),)  # noqa: E731
        return list(evaluate_masks(problem, masks, (0, 6), unit=3))

    stream = inside(look, x, batch_size=batch_size, baselines=tw.Distribution(background))
    assert [first for first, _ in stream] == [0, 3][: len(stream)]
    assert all(len(s) % 3 == 0 for _, s in stream)
    # mask 0 keeps the first element, mask 1 the second, the others none; means over the two background rows
    none = 6.0
    expected = [[1 + 4.0, 2 + 4.0], [10 + 2.0, 20 + 2.0]] + [[none, none]] * 4
    assert torch.cat([s for _, s in stream]).tolist() == expected


def test_windows_cover_every_element_and_are_cut_off_at_the_edge():
    windows = SlidingWindows((5, 4), (2, 4), (2, 1))
    assert windows.counts == (3, 1)
    keep = windows.keep(torch.tensor([-1, 0, 2, 3]), torch.device("cpu"))
    assert keep[:, :, 0].tolist() == [[True] * 5, [False, False, True, True, True], [True] * 4 + [False], [True] * 5]
    values = windows.mean_over(torch.tensor([[1.0, 2.0, 3.0]]))
    assert values[0, :, 1].tolist() == [1, 1, 2, 2, 3]


def test_windows_side_by_side_are_not_rounded_by_one_another():
    mean = SlidingWindows((5,), (2,), (2,)).mean_over(torch.tensor([[1e17, 1.0, 3.0]], dtype=torch.double))
    assert mean.tolist() == [[1e17, 1e17, 1.0, 1.0, 3.0]]


def test_overlapping_windows_are_averaged():
    assert SlidingWindows((4,), (3,), (1,)).mean_over(torch.tensor([[1.0, 3.0]])).tolist() == [[1, 2, 2, 3]]


def test_two_kinds_of_draws_do_not_mix():
    def both(size):
        generator = torch.Generator().manual_seed(0)
        a, b = (Draws(lambda n, g: torch.rand(n, generator=g), generator, 2) for _ in range(2))
        parts = [(a[k], b[k]) for k in torch.arange(12).split(size)]
        return torch.stack([torch.cat(t) for t in zip(*parts)])

    assert torch.equal(both(1), both(12))
    assert not torch.equal(*both(12))


def test_running_mean_in_parts_is_that_of_the_whole():
    samples = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.double) + 1e6
    mean = RunningMean()
    for part in samples.split([1, 20, 29]):
        mean.add(part)
    torch.testing.assert_close(mean.mean, samples.mean(0))
    torch.testing.assert_close(mean.standard_error, samples.std(0) / 50**0.5, rtol=1e-9, atol=0)


def test_one_sample_says_nothing_about_its_error():
    mean = RunningMean()
    mean.add(torch.ones(1, 2))
    assert mean.standard_error.tolist() == [torch.inf, torch.inf]


def test_relative_error_is_that_of_the_worst_row():
    values, error = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    assert relative_error(values, error) == pytest.approx(0.2)


def test_rounds_grow_up_to_the_most():
    assert list(sampling_rounds(10, 30)) == [(0, 10), (10, 15), (15, 23), (23, 30)]
