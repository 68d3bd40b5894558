"""Counterfactuals: every row flipped, near the boundary, within what may change, and rows together as rows alone."""

import pytest
import torch
from cases import in_turn
from torch import nn

import torchwhy as tw
from torchwhy import models


@pytest.fixture(scope="module")
def digits():
    data = models.digits()
    return data.model, data.x_test[::2]


@pytest.fixture(scope="module")
def linear():
    net = nn.Linear(4, 3).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1, 0.5, 0], [0, 0, 0, 2]]))
        net.bias.copy_(torch.tensor([0.5, 0, -1]))
    return net


def wanted(net, x):
    """For each row the class with the second largest score."""
    return net(x).topk(2).indices[:, 1]


def first_boundary(net, x, z, target, points=601):
    """A line search from x to z: the share of the way at which the row first gets the target."""
    steps = torch.linspace(0, 1, points, dtype=torch.double).to(x)
    with torch.no_grad():
        right = net(x + steps.view(-1, *[1] * x.dim()) * (z - x)).argmax(1) == target
    return steps[right.nonzero()[0, 0]].item()


@pytest.mark.parametrize("distance, hard", in_turn(["l2", "l1"], [False, True], 1))
def test_every_digit_flips_in_bounds_on_the_boundary(digits, distance, hard):
    net, x = digits[0], digits[1][::4]
    target = (net(x).argmax(1) + 3) % 10 if hard else wanted(net, x)
    found = tw.Counterfactual(net, distance=distance).generate(x, target)
    z = found.counterfactuals
    assert z.shape == x.shape
    assert bool(found.found.all())
    assert torch.equal(net(z).argmax(1), target)
    assert z.min() >= 0
    assert z.max() <= 1
    change = (z - x).flatten(1)
    expected = change.norm(dim=1) if distance == "l2" else change.abs().sum(1)
    assert torch.allclose(found.distance, expected, atol=1e-5)
    for i in range(0, len(x), 4):
        far = x[i] + 1.5 * (z[i] - x[i])  # beyond the boundary, along the same direction
        share = first_boundary(net, x[i], far, target[i]) * 1.5
        assert 1.1 * share >= 1
        assert share < 1.01


def test_l1_changes_few_pixels(digits):
    net, x = digits[0], digits[1][:30]
    target = wanted(net, x)
    sparse, dense = (tw.Counterfactual(net, distance=d).generate(x, target) for d in ("l1", "l2"))
    changed = [(f.counterfactuals - x).flatten(1).abs().gt(1e-4).sum(1).float().mean() for f in (sparse, dense)]
    assert changed[0] < 0.5 * changed[1]
    assert (sparse.counterfactuals - x).abs().sum() < (dense.counterfactuals - x).abs().sum()


def test_rows_together_are_rows_alone(digits):
    net, x = digits[0].double(), digits[1][:3].double()
    try:
        target = wanted(net, x)
        for options in ({}, {"n_diverse": 2}, {"distance": "l1"}):
            method = tw.Counterfactual(net, **options)
            together = method.generate(x, target)
            for i in range(3):
                alone = method.generate(x[i : i + 1], target[i : i + 1])
                assert torch.allclose(alone.counterfactuals[0], together.counterfactuals[i], atol=1e-6)
                assert torch.equal(alone.steps[0], together.steps[i])
            small = tw.Counterfactual(net, batch_size=2, **options).generate(x, target)
            assert torch.allclose(small.counterfactuals, together.counterfactuals, atol=1e-6)
    finally:
        net.float()


def test_linear_model_by_hand(linear):
    """f_1 - f_0 = x_1 + x_2 / 2 - x_0 - 1/2 rises by 1 along (-1, 1, 1/2) / 1.5: the nearest point of the boundary."""
    x = torch.zeros(1, 4, dtype=torch.double)
    found = tw.Counterfactual(linear, bounds=(-10, 10), step_size=0.02).generate(x, 1)
    w = torch.tensor([-1, 1, 0.5, 0], dtype=torch.double)
    assert torch.allclose(found.counterfactuals[0], 0.5 * w / w.square().sum(), atol=1e-3)
    assert found.distance.item() == pytest.approx(0.5 / 1.5, abs=1e-3)
    ahead = tw.Counterfactual(linear, bounds=(-10, 10), margin=1.0).generate(x, 1)
    scores = linear(ahead.counterfactuals)[0]
    assert (scores[1] - scores[0]).item() == pytest.approx(1.0, abs=1e-3)
    sparse = tw.Counterfactual(linear, bounds=(0, 1), distance="l1", distance_weight=0.0).generate(x, 1)
    assert torch.allclose(sparse.counterfactuals[0], torch.tensor([0, 0.5, 0, 0]).double(), atol=1e-5)


def test_forms_of_the_goal(linear):
    x = torch.zeros(2, 4, dtype=torch.double)
    method = tw.Counterfactual(linear, bounds=(-3, 3))
    other = method.generate(x)
    assert (linear(other.counterfactuals).argmax(1) != 0).all()
    higher = method.generate(x, lambda out: out[:, 2] - 1)
    assert torch.allclose(linear(higher.counterfactuals)[:, 2], torch.ones(2).double(), atol=1e-4)
    one = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)).double()
    sign = tw.Counterfactual(one, bounds=None).generate(x)
    assert (one(sign.counterfactuals).sign() == -one(x).sign()).all()


def test_attribute_is_the_change_and_says_what_did_not_flip(linear):
    x = torch.zeros(2, 4, dtype=torch.double)
    method = tw.Counterfactual(linear, bounds=(0, 1))
    assert torch.equal(method.attribute(x, 1), method.generate(x, 1).counterfactuals - x)
    stuck = tw.Counterfactual(linear, bounds=(0, 1), changeable=torch.tensor([False, False, True, False]), n_steps=50)
    with pytest.warns(UserWarning, match=r"rows \[0, 1\] did not flip"):
        change = stuck.attribute(x, 1)
    found = stuck.generate(x, 1)
    assert not found.found.any()
    assert found.distance.isnan().all()
    assert torch.equal(change, found.counterfactuals)
    assert change[:, 2].eq(1).all()  # as far as the bounds go


def test_only_what_may_change_changes(digits):
    net, x = digits[0], digits[1][:10]
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, 2:7, 1:7] = True
    found = tw.Counterfactual(net, changeable=mask).generate(x, wanted(net, x))
    change = found.counterfactuals - x
    assert found.found.all()
    assert change[:, ~mask].eq(0).all()
    with pytest.raises(ValueError, match="changeable: shape"):
        tw.Counterfactual(net, changeable=torch.ones(3, 3)).generate(x, wanted(net, x))


def table():
    """age 0..90 whole, income 0..1, job one-hot of 3; the loan goes to the old, the rich and job 2."""
    g = torch.Generator().manual_seed(0)
    age = torch.randint(20, 40, (40, 1), generator=g).double()
    job = nn.functional.one_hot(torch.randint(0, 2, (40,), generator=g), 3).double()
    x = torch.cat([age, 0.3 * torch.rand(40, 1, generator=g, dtype=torch.double), job], 1)
    net = nn.Sequential(nn.Linear(5, 1), nn.Flatten(0)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[0.05, 1.0, -0.5, 0.0, 1.5]]))
        net[0].bias.fill_(-3.2)
    return net, x, (torch.tensor([0.0, 0, 0, 0, 0]), torch.tensor([90.0, 1, 1, 1, 1]))


@pytest.mark.parametrize("n_diverse", [1, 3])
def test_whole_numbers_and_one_hot_columns_stay_so(n_diverse):
    net, x, bounds = table()
    options = {"bounds": bounds, "integers": [0], "one_hot": [[2, 3, 4]], "n_diverse": n_diverse}
    found = tw.Counterfactual(net, **options).generate(x)
    z = found.counterfactuals.reshape(-1, 5)
    assert found.found.all()
    assert (net(z) > 0).all()
    assert torch.equal(z[:, 0], z[:, 0].round())
    assert ((z[:, 2:] == 0) | (z[:, 2:] == 1)).all()
    assert (z[:, 2:].sum(1) == 1).all()
    assert ((z >= bounds[0]) & (z <= bounds[1])).all()
    fixed = tw.Counterfactual(net, changeable=torch.tensor([True, True, False, False, False]), **options).generate(x)
    kept = fixed.counterfactuals.reshape(40, n_diverse, 5)[..., 2:]
    assert fixed.found.all()
    assert torch.equal(kept, x[:, None, 2:].expand_as(kept))


@pytest.mark.parametrize("diversity", ["determinant", "distance"])
def test_diverse_ones_differ(digits, diversity):
    net, x = digits[0], digits[1][:4]
    target = wanted(net, x)
    spread = []
    for weight in (0.0, 0.6):
        method = tw.Counterfactual(net, n_diverse=4, diversity=diversity, diversity_weight=weight)
        found = method.generate(x, target)
        assert found.counterfactuals.shape == (4, 4, 1, 8, 8)
        assert found.history.shape[1:] == found.found.shape == (4, 4)
        assert found.found.all()
        z = found.counterfactuals.flatten(2)
        spread.append(torch.cdist(z, z).mean())
    assert spread[1] > 1.2 * spread[0]
    assert method.attribute(x, target).shape == x.shape


def test_plausible_ones_lie_nearer_to_the_data(digits):
    net, x, real = digits[0], digits[1][:20], digits[1][100:]
    target = wanted(net, x)
    real = real[net(real).argmax(1)[:, None].eq(target).any(1)]
    _, _, v = torch.linalg.svd(real.flatten(1) - real.flatten(1).mean(0), full_matrices=False)

    def autoencoder(z):
        flat = z.flatten(1) - real.flatten(1).mean(0)
        return (flat @ v[:12].T @ v[:12] + real.flatten(1).mean(0)).view_as(z)

    def gap(z):
        return torch.cdist(z.flatten(1), real.flatten(1)).min(1).values.mean()

    def error(z):
        return (z - autoencoder(z)).square().sum()

    plain = tw.Counterfactual(net).generate(x, target).counterfactuals
    for plausible, measure in ((real, gap), (autoencoder, error)):
        method = tw.Counterfactual(net, plausible=plausible, plausible_weight=0.7)
        found = method.generate(x, target)
        assert found.found.all()
        assert measure(found.counterfactuals) < measure(plain)


def test_own_distance_and_history(linear):
    """A distance that makes the second column dear moves the others."""
    x = torch.zeros(1, 4, dtype=torch.double)
    price = torch.tensor([1, 100, 1, 1], dtype=torch.double)

    def distance(x, z):
        return ((z - x).square() @ price).sqrt()

    found = tw.Counterfactual(linear, bounds=(-1, 1), distance=distance, distance_weight=0.9).generate(x, 1)
    plain = tw.Counterfactual(linear, bounds=(-1, 1)).generate(x, 1)
    assert found.distance.item() == pytest.approx(distance(x, found.counterfactuals).item())
    assert found.distance < distance(x, plain.counterfactuals)
    assert plain.history.shape == (int(plain.steps) + 1, 1)
    assert plain.history[0].item() == pytest.approx(0.5)
    assert plain.history[-1] < 0 <= plain.history[-2]


def test_bad_questions_are_refused(linear):
    x = torch.full((2, 4), 0.1, dtype=torch.double)
    with pytest.raises(ValueError, match=r"rows \[0, 1\] get the wanted answer already"):
        tw.Counterfactual(linear).generate(x, 0)
    with pytest.raises(ValueError, match=r"exclude the inputs \(8 values; the first is 0.1 in row 0\)"):
        tw.Counterfactual(linear, bounds=(0.5, 1)).generate(x, 1)
    with pytest.raises(ValueError, match="expected 'l2', 'l1'"):
        tw.Counterfactual(linear, distance="l3").generate(x, 1)
    with pytest.raises(ValueError, match="no whole number"):
        tw.Counterfactual(linear, integers=[0]).generate(x, 1)
    with pytest.raises(ValueError, match="not different columns"):
        tw.Counterfactual(linear, integers=[7]).generate(x, 1)
    for bounds in (1, (0, 1, 2), (1, 0), (0, float("nan"))):
        with pytest.raises(ValueError, match=r"^bounds="):
            tw.Counterfactual(linear, bounds=bounds).generate(x, 1)
    for columns in ({"integers": 0}, {"one_hot": [0, 1]}):
        with pytest.raises(ValueError, match=r"^(integers|one_hot)=.*: expected a list of"):
            tw.Counterfactual(linear, **columns).generate(x, 1)
    with pytest.raises(ValueError, match="changeable: no value may change"):
        tw.Counterfactual(linear, changeable=torch.zeros(4)).generate(x, 1)
    for distance, got in ((lambda a, b: (a - b).norm(), r"\(\)"), (lambda a, b: 0.0, "float")):
        with pytest.raises(ValueError, match=rf"distance: .* shape \(2,\), not {got}"):
            tw.Counterfactual(linear, distance=distance).generate(x, 1)
    for plausible in (torch.rand(5, 3), torch.rand(0, 4), lambda z: z[:, :2], "near"):
        with pytest.raises(ValueError, match=r"^plausible"):
            tw.Counterfactual(linear, plausible=plausible).generate(x, 1)
    with pytest.raises(ValueError, match=r"distance_weight=-0\.1: expected a number of at least 0"):
        tw.Counterfactual(linear, distance_weight=-0.1).generate(x, 1)
    with pytest.raises(ValueError, match="less than 1"):
        tw.Counterfactual(linear, distance_weight=2).generate(x, 1)
    with pytest.raises(ValueError, match="out of range"):
        tw.Counterfactual(linear).generate(x, 5)
    with pytest.raises(ValueError, match="needs \\(N, classes\\)"):
        tw.Counterfactual(nn.Unflatten(1, (2, 2)).double()).generate(x, 1)
    with pytest.raises(ValueError, match="n_diverse"):
        tw.Counterfactual(linear, n_diverse=0).generate(x, 1)


def test_explanations_know_the_settings_and_what_was_found(linear):
    x = torch.zeros(2, 4, dtype=torch.double)
    low, high = -torch.ones(4), torch.ones(4)
    method = tw.Counterfactual(linear, bounds=(low, high), margin=0.1)
    e = method.explain(x, 1)
    assert set(e.settings) == {"bounds", "margin"}
    assert e.details["found"].all()
    assert torch.equal(e.attributions, method.attribute(x, 1))
    assert "margin=0.1" in repr(method)
    assert e.evaluations > 2


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_half_way_leaves_no_trace(digits, error):
    net, x = digits[0], digits[1][:4]
    calls = []

    def fails(module, args):
        calls.append(1)
        if len(calls) == 6:
            raise error

    target = wanted(net, x)
    handle = net[0].register_forward_pre_hook(fails)
    with pytest.raises(error):
        tw.Counterfactual(net).generate(x, target)
    handle.remove()
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert torch.is_grad_enabled()
    assert tw.Counterfactual(net).generate(x, target).found.all()


def test_nothing_is_printed_and_the_model_is_as_before(linear, capsys):
    before = [p.clone() for p in linear.parameters()]
    x = torch.zeros(2, 4, dtype=torch.double)
    tw.Counterfactual(linear, n_diverse=2).generate(x, 1)
    assert capsys.readouterr() == ("", "")
    assert all(torch.equal(a, b) and b.grad is None and b.requires_grad for a, b in zip(before, linear.parameters()))
    assert x.eq(0).all()


def test_diverse_ones_of_a_row_do_not_depend_on_the_bounds_of_another():
    w = torch.tensor([[1.0, -1, 2, -1], [-1, 1, -1, 1]], dtype=torch.double)
    net = lambda z: z @ w.T  # noqa: E731
    x = torch.rand(3, 4, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    target = 1 - net(x).argmax(1)
    bounds = (torch.zeros(3, 4).double(), torch.tensor([[1.0], [5.0], [9.0]]).double().expand(3, 4))
    found = tw.Counterfactual(net, n_diverse=3, bounds=bounds).generate(x, target)
    assert found.found.all()
    whole = found.counterfactuals
    for i in range(3):
        own = tuple(b[i : i + 1] for b in bounds)
        alone = tw.Counterfactual(net, n_diverse=3, bounds=own).generate(x[i : i + 1], target[i : i + 1])
        torch.testing.assert_close(alone.counterfactuals, whole[i : i + 1])


def test_what_was_found_is_beyond_rounding(digits):
    net, x = digits[0], digits[1][:16]
    target = wanted(net, x)
    found = tw.Counterfactual(net).generate(x, target)
    gap = (net(found.counterfactuals) - net(found.counterfactuals).gather(1, target[:, None])).scatter(
        1, target[:, None], -torch.inf
    )
    assert bool((gap.amax(1)[found.found] < -1e-6).all())
