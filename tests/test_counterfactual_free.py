"""Counterfactuals without gradients: trees, pipelines, whole numbers and categories, under the same constraints."""

import numpy as np
import pytest
import torch
from cases import in_turn
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from torch import nn

import torchwhy as tw


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(300, 5))
    return x, (x[:, 0] + x[:, 1] > 1).astype(int)


MODELS = {
    "boosting": GradientBoostingClassifier(n_estimators=30, random_state=0),
    "forest": RandomForestClassifier(20, random_state=0),
}


@pytest.mark.parametrize("name, distance", in_turn(MODELS, ["l2", "l1"], 1))
def test_trees_flip_near_the_row(data, name, distance):
    x, y = data
    model = MODELS[name].fit(x, y)
    rows, target = torch.tensor(x[:8]), torch.tensor(1 - model.predict(x[:8]))
    found = tw.Counterfactual(model, distance=distance).generate(rows, target)
    assert found.found.all()
    z = found.counterfactuals
    assert (model.predict(z.numpy()) == target.numpy()).all()
    assert ((z >= 0) & (z <= 1)).all()
    for j in range(5):  # no element can be taken back
        back = torch.where(torch.arange(5) == j, rows, z)
        chance = torch.tensor(model.predict_proba(back.numpy())).gather(1, target[:, None])[:, 0]
        assert (chance[z[:, j] != rows[:, j]] < 0.5 + 1e-9).all()
    brute = torch.rand(4000, 5, generator=torch.Generator().manual_seed(0)).double()
    flips = torch.tensor(model.predict(brute.numpy()))
    order = 2.0 if distance == "l2" else 1.0
    for i in range(8):
        nearest = torch.linalg.vector_norm(brute[flips == target[i]] - rows[i], order, 1).min()
        assert found.distance[i] < nearest
    alone = tw.Counterfactual(model, distance=distance).generate(rows[5:6], target[5:6])
    torch.testing.assert_close(alone.counterfactuals, z[5:6])


@pytest.mark.usefixtures("few_steps_back")
def test_the_constraints_hold(data):
    x = torch.cat([torch.rand(12, 2), torch.randint(0, 5, (12, 1)).float(), torch.eye(3).repeat(4, 1)], 1)
    f = lambda a: np.stack([np.zeros(len(a)), a[:, 0] + a[:, 2] + 3 * a[:, 4] - a[:, 5] - 4.0], 1)  # noqa: E731
    rows = x[f(x.numpy())[:, 1] < 0]
    low, high = torch.tensor([0.0, 0, 0, 0, 0, 0]), torch.tensor([1.0, 1, 5, 1, 1, 1])
    mask = torch.tensor([True, False, True, True, True, True])
    method = tw.Counterfactual(
        tw.NumPyModel(f), bounds=(low, high), changeable=mask, integers=[2], one_hot=[[3, 4, 5]], n_diverse=2
    )
    found = method.generate(rows, 1)
    z = found.counterfactuals
    assert found.found.all()
    assert z.shape == (len(rows), 2, 6)
    assert torch.equal(z[..., 1], rows[:, None, 1].expand(-1, 2))
    assert torch.equal(z[..., 2], z[..., 2].round())
    assert torch.equal(z[..., 3:].sum(-1), torch.ones(len(rows), 2))
    assert ((z >= low) & (z <= high)).all()
    assert (f(z.flatten(0, 1).numpy())[:, 1] > 0).all()
    torch.testing.assert_close(method.attribute(rows, 1), method.explain(rows, 1).attributions)


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(4, 3)
        self.head = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 2))

    def forward(self, num, cat):
        return self.head(torch.cat([num, self.table(cat[:, 0])], 1))


def test_numbers_and_categories():
    net, num, cat = Both().eval(), torch.rand(10, 2), torch.randint(0, 4, (10, 1))
    with torch.no_grad():
        target = 1 - net(num, cat).argmax(1)
        found = tw.Counterfactual(net, search="free", bounds=((-3.0, 0), (3.0, 3))).generate((num, cat), target)
        a, b = found.counterfactuals
        assert b.dtype == torch.long
        assert ((b >= 0) & (b <= 3)).all()
        assert found.found.float().mean() > 0.5
        flipped = found.found
        assert torch.equal(net(a, b).argmax(1)[flipped], target[flipped])
    with pytest.raises(TypeError, match="integers have no gradient; search without one, search='free', or"):
        tw.Counterfactual(net, bounds=None).generate((num, cat), target)


@pytest.mark.usefixtures("few_steps_back")
def test_columns_by_name(data):
    pandas = pytest.importorskip("pandas")
    x, y = data
    frame = pandas.DataFrame(x, columns=["income", "debt", "age", "rent", "years"])
    model = RandomForestClassifier(20, random_state=0).fit(frame, y)
    rows = frame[y == 0][:4]
    method = tw.Counterfactual(model, changeable=["income", "debt"])
    found = method.generate(rows, 1)
    assert found.found.all()
    pandas.testing.assert_frame_equal(found.counterfactuals.iloc[:, 2:], rows.iloc[:, 2:])
    with pytest.raises(ValueError, match="changeable: no column 'wage'; there are 'income', 'debt'"):
        tw.Counterfactual(model, changeable=["wage"]).generate(rows, 1)
    with pytest.raises(ValueError, match="changeable: 'income' is a name, but the inputs have none"):
        method.generate(torch.tensor(x[:2]), 1)


@pytest.mark.usefixtures("few_steps_back")
def test_real_rows_are_tried_first_and_bad_settings_refused(data):
    x, y = data
    model = MODELS["forest"].fit(x, y)
    rows = torch.tensor(x[y == 0][:5])
    found = tw.Counterfactual(model, plausible=torch.tensor(x), n_steps=1).generate(rows, 1)
    assert found.found.all()
    assert (found.steps == 0).all()
    with pytest.raises(ValueError, match="plausible: the search without gradients takes real rows"):
        tw.Counterfactual(model, plausible=lambda z: z)
    with pytest.raises(ValueError, match="search='tree'"):
        tw.Counterfactual(model, search="tree")


@pytest.mark.parametrize(
    "dtype, settings",
    in_turn(
        [torch.half, torch.bfloat16, torch.float32],
        [{}, {"search": "free"}, {"distance": "l1"}, {"n_diverse": 2}],
        2,
    ),
    ids=str,
)
def test_models_in_half_precision(dtype, settings):
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2)).to(dtype).eval(), torch.rand(10, 6).to(dtype)
    with torch.no_grad():
        target = 1 - net(x).argmax(1)
        found = tw.Counterfactual(net, bounds=None, **settings).generate(x, target)
        z = found.counterfactuals.reshape(-1, 6)
        assert z.dtype == dtype
        assert found.found.float().mean() > 0.8
        wanted = target.repeat_interleave(len(z) // 10)[found.found.flatten()]
        assert (net(z[found.found.flatten()]).argmax(1) == wanted).float().mean() > 0.9


def test_a_scaled_column_is_no_whole_number(data):
    x = torch.tensor(data[0][:6])
    with pytest.raises(ValueError, match=r"integers: column 3 holds .* in row 0, which is no whole number"):
        tw.Counterfactual(lambda z: z.sum(1), integers=[3], bounds=(x.amin(0), x.amax(0))).generate(x)
