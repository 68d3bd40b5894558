"""TRAK against its slow version, and the numbers that say whether influences foretell what training again gives."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from reference import influence as slow
from scipy.stats import pearsonr, spearmanr
from test_influence import CLOSE, TEST, TRAIN, Speaker, every, net
from torch import nn

import torchwhy as tw


def margins(model):
    """A function from rows to the gradients of their margins, and their probabilities."""

    def of(x, y):
        found, p = [], []
        for a, b in zip(x, y):
            chance = model(a[None])[0].softmax(0)[b]
            g = torch.autograd.grad((chance / (1 - chance)).log(), every(model))
            found.append(torch.cat([t.flatten() for t in g]))
            p.append(chance.detach())
        return torch.stack(found), torch.stack(p)

    return of


@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_trak_equals_its_slow_version(damping):
    models = [net(1), net(2)]
    method = tw.TRAK(net(), checkpoints=[m.state_dict() for m in models], dim=6, damping=damping).fit(*TRAIN)
    p = sum(q.numel() for q in net().parameters())
    matrices = [projection(torch.eye(p, dtype=torch.double)) for projection in method.projections]
    assert not torch.equal(*matrices)
    expected = slow.trak([margins(m) for m in models], TEST, TRAIN, matrices, damping)
    torch.testing.assert_close(method.explain(*TEST).attributions, expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(method.self_influence(), method.explain(*TRAIN).attributions.diag(), **CLOSE)


def test_trak_of_losses_has_the_products_of_their_gradients():
    model = net()
    method = tw.TRAK(model, dim=6, output="loss", damping=0.1).fit(*TRAIN)
    (projection,) = method.projections
    a, b = (projection(slow.gradients(model, F.cross_entropy, *d, every(model))) for d in (TEST, TRAIN))
    expected = a @ torch.linalg.inv(b.T @ b + 0.1 * torch.eye(6)) @ b.T
    torch.testing.assert_close(method.explain(*TEST).attributions, expected, **CLOSE)


def test_trak_refuses():
    with pytest.raises(ValueError, match="17 training rows with dim=40 give a matrix without an inverse"):
        tw.TRAK(net(), dim=40, damping=0.0).fit(*TRAIN)
    with pytest.raises(ValueError, match=r"checkpoints\[1\]: does not fit the model"):
        tw.TRAK(net(), checkpoints=[net().state_dict(), Speaker().state_dict()]).fit(*TRAIN)
    with pytest.raises(TypeError, match="expected a list of state dicts"):
        tw.TRAK(net(), checkpoints=net().state_dict())


# ---- measured by training again


def test_the_linear_datamodeling_score_of_what_adds_up_is_1():
    g = torch.Generator().manual_seed(0)
    worth = torch.randn(4, 30, generator=g)
    subsets = tw.influence.draw_subsets(30, 20)
    assert (subsets.sum(1) == 15).all()
    assert not torch.equal(subsets[0], subsets[1])
    outcomes = tw.influence.retrain(lambda rows: worth[:, rows].sum(1).exp(), subsets)
    perfect = tw.influence.linear_datamodeling_score(worth, subsets, outcomes)
    assert perfect.mean == pytest.approx(1)
    assert perfect.interval == pytest.approx((1, 1))
    wrong = tw.influence.linear_datamodeling_score(-worth, subsets, outcomes)
    assert wrong.mean == pytest.approx(-1)
    noisy = worth + 1.5 * torch.randn(4, 30, generator=g)
    found = tw.influence.linear_datamodeling_score(noisy, subsets, outcomes)
    for n in range(4):
        expected = spearmanr((subsets.double() @ noisy[n].double()).numpy(), outcomes[:, n].numpy()).statistic
        assert float(found.each[n]) == pytest.approx(expected)
    assert found.interval[0] < found.mean < found.interval[1]
    assert found.mean == pytest.approx(float(found.each.mean()))


def test_leave_one_out_correlation():
    g = torch.Generator().manual_seed(0)
    worth, outcome, noise = (torch.randn(*s, generator=g) for s in ((3, 12), (3,), (8, 3)))
    left = [0, 2, 3, 5, 7, 8, 9, 11]
    exact = outcome - worth[:, left].T
    assert tw.influence.leave_one_out_correlation(worth, left, exact, outcome).mean == pytest.approx(1)
    found = tw.influence.leave_one_out_correlation(worth, left, exact + noise, outcome)
    for n in range(3):
        drop = (outcome[n] - (exact + noise)[:, n]).numpy()
        assert float(found.each[n]) == pytest.approx(pearsonr(worth[n, left].numpy(), drop).statistic, rel=1e-5)


def test_the_area_of_mislabelled_rows_by_hand():
    wrong = torch.tensor([True, False, True, False])
    for scores, expected in (([4, 1, 3, 2], 1), ([1, 4, 2, 3], 0), ([3, 1, 2, 2], 0.875), ([1, 1, 1, 1], 0.5)):
        assert tw.influence.mislabelled_auc(torch.tensor(scores), wrong) == pytest.approx(expected)


def test_mislabelled_digits_are_found():
    data = pytest.importorskip("sklearn.datasets").load_digits()
    x, y = torch.tensor(data.images[:600] / 16, dtype=torch.float32)[:, None], torch.tensor(data.target[:600])
    g = torch.Generator().manual_seed(0)
    wrong = torch.zeros(600, dtype=torch.bool)
    wrong[torch.randperm(600, generator=g)[:60]] = True
    y = torch.where(wrong, (y + torch.randint(1, 10, (600,), generator=g)) % 10, y)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer, checkpoints = torch.optim.Adam(model.parameters(), 3e-3), []
    for epoch in range(30):
        for rows in torch.randperm(600, generator=g).split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
        if epoch % 10 == 9:
            checkpoints.append(({k: v.clone() for k, v in model.state_dict().items()}, 3e-3))
    for method in (
        tw.TracIn(model, checkpoints=checkpoints),
        tw.InfluenceFunction(model),
        tw.RepresenterPoints(model, fit_to="labels"),
    ):
        found = tw.influence.mislabelled_auc(method.fit(x, y).self_influence(), wrong)
        assert found >= 0.9, method


SAID = {  # in the words of each method: what the benchmark found of the CNN, and of the language model
    tw.TracIn: ("TracIn, 5 checkpoints", "TracIn, the model as it is", "TracIn, projected to 256"),
    tw.InfluenceFunction: (
        "InfluenceFunction, exact, last layer",
        "InfluenceFunction, EK-FAC",
        "InfluenceFunction, EK-FAC and CG",
        "InfluenceFunction, EK-FAC and CG, damping chosen: 0.1",
        "InfluenceFunction, Arnoldi",
    ),
    tw.TRAK: ("TRAK, 5 models", "TRAK, 1 model"),
    tw.KNNShapley: ("KNNShapley",),
    tw.RepresenterPoints: ("RepresenterPoints",),
    tw.SimilarityInfluence: ("baseline: similarity at 'hidden'", "baseline: similarity at 'norm3'"),
}


@pytest.mark.parametrize("method", SAID)
def test_each_method_says_how_it_stands_beside_its_baseline(method):
    kept = Path(__file__).parent.parent / "docs" / "benchmarks" / "influence.json"
    if not kept.exists():
        pytest.skip("the kept benchmarks are not here")
    worlds = [world["scores"] for world in json.loads(kept.read_text())["results"]]
    said, baselines = " ".join(method.__doc__.split()), ("baseline: similarity at 'hidden'", "baseline: BM25")
    for scores, baseline in zip(worlds, baselines):
        own = [scores[label] for label in SAID[method] if label in scores]
        for found in [*own, *([scores[baseline]] if own else [])]:
            assert f"{found['mean']:.2f} ({found['low']:.2f} … {found['high']:.2f})" in said
        beats = [found["low"] > scores[baseline]["mean"] for found in own]
        if not all(beats) and method is not tw.SimilarityInfluence:
            assert "**" in said  # it says so


def test_what_the_measures_refuse():
    worth, subsets = torch.randn(2, 6), tw.influence.draw_subsets(6, 4)
    outcomes = torch.randn(4, 2)
    for call, message in (
        (lambda: tw.influence.draw_subsets(6, 4, fraction=1.0), "fraction=1.0: of 6 rows that is 6"),
        (lambda: tw.influence.retrain(lambda rows: torch.zeros(2, 1), subsets), "train: for subset 0"),
        (lambda: tw.influence.retrain(lambda rows: torch.full((2,), torch.nan), subsets), "expected finite numbers"),
        (lambda: tw.influence.linear_datamodeling_score(worth, subsets[:, :5], outcomes), r"subsets: .*\(4, 6\)"),
        (lambda: tw.influence.linear_datamodeling_score(worth, subsets, outcomes.T), "subsets: expected shape"),
        (lambda: tw.influence.linear_datamodeling_score(worth, subsets[:2], outcomes[:2]), "at least 3"),
        (lambda: tw.influence.linear_datamodeling_score(worth[0], subsets, outcomes), "influences: expected"),
        (lambda: tw.influence.leave_one_out_correlation(worth, [0, 1, 6], outcomes[:3], worth[:, 0]), "0 to 5"),
        (lambda: tw.influence.leave_one_out_correlation(worth, [0, 1, 2], outcomes, worth[:, 0]), "outcomes: exp"),
        (lambda: tw.influence.mislabelled_auc(worth[0], torch.ones(6)), "some rows with a wrong label"),
        (lambda: tw.influence.mislabelled_auc(worth[0], torch.ones(5)), "mislabelled: expected shape"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
