"""Training data: the methods equal their slow versions, take data in every form, and leave the model as it was."""

import copy
import weakref

import pytest
import torch
import torch.nn.functional as F
from reference import influence as slow
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import torchwhy as tw
from torchwhy.influence.projection import RandomProjection
from torchwhy.influence.training_rows import RowsInBatches

CLOSE = {"rtol": 1e-6, "atol": 1e-9}


def net(seed=0):
    torch.manual_seed(seed)
    return (
        nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4)).double().eval()
    )


def rows(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(n, 1, 4, 4, generator=g, dtype=torch.double), torch.randint(4, (n,), generator=g)


def every(model):
    return list(model.parameters())


TRAIN, TEST = rows(17), rows(3, seed=1)


class Speaker(nn.Module):
    """Tokens ``(N, T)`` → logits ``(N, T, 7)``, position by position, with the mean of those before."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = nn.Embedding(7, 5), nn.Linear(5, 7)
        self.double().eval()

    def forward(self, input_ids, attention_mask=None):
        x = self.table(input_ids)
        count = torch.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None]
        return self.head(torch.tanh(x.cumsum(1) / count))


# ---- TracIn


@pytest.mark.parametrize("batch_size", [None, 1, 5])
def test_tracin_equals_brute_force(batch_size):
    states = [(net(seed).state_dict(), rate) for seed, rate in ((1, 0.1), (2, 0.03))]

    def build(state):
        model = net()
        model.load_state_dict(state)
        return model

    found = tw.TracIn(net(), checkpoints=states, batch_size=batch_size).fit(*TRAIN)
    expected = slow.tracin(build, states, F.cross_entropy, TEST, TRAIN, every)
    torch.testing.assert_close(found.explain(*TEST).attributions, expected, **CLOSE)
    themselves = slow.tracin(build, states, F.cross_entropy, TRAIN, TRAIN, every).diag()
    torch.testing.assert_close(found.self_influence(), themselves, **CLOSE)
    last = tw.TracIn(net(), checkpoints=states, layer="4").fit(*TRAIN).explain(*TEST).attributions
    expected = slow.tracin(
        build, states, F.cross_entropy, TEST, TRAIN, lambda m: list(m[4].parameters())
    )  # with the bias
    torch.testing.assert_close(last, expected, **CLOSE)


def test_the_model_as_it_is_is_a_checkpoint():
    model = net()
    expected = slow.tracin(lambda _: model, [(None, 1)], F.cross_entropy, TEST, TRAIN, every)
    torch.testing.assert_close(tw.TracIn(model).fit(*TRAIN).explain(*TEST).attributions, expected, **CLOSE)


@pytest.mark.parametrize("loss", [F.mse_loss, nn.SmoothL1Loss(), lambda out, y: (out - y).abs().sum(1)])
def test_losses_of_ones_own(loss):
    model, y = net(), torch.rand(17, 4, dtype=torch.double)
    found = tw.TracIn(model, loss=loss).fit(TRAIN[0], y).explain(TEST[0], y[:3]).attributions
    expected = slow.gradients(model, lambda o, t: loss(o, t).reshape(()), TEST[0], y[:3], every(model))
    others = slow.gradients(model, lambda o, t: loss(o, t).reshape(()), TRAIN[0], y, every(model))
    torch.testing.assert_close(found, expected @ others.T, **CLOSE)


@pytest.mark.parametrize("padded", [False, True])
def test_a_language_model_has_the_loss_of_its_next_tokens(padded):
    model, ids = Speaker(), torch.randint(7, (6, 5))
    mask = torch.ones(6, 5, dtype=torch.long)
    if padded:
        mask[2, 3:] = mask[5, 4:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask} if padded else ids
    method = tw.TracIn(model).fit(inputs)
    found = method.explain({k: v[:2] for k, v in inputs.items()} if padded else ids[:2]).attributions
    g = [
        torch.cat([t.flatten() for t in torch.autograd.grad(slow.next_token_loss(model, i, m), every(model))])
        for i, m in zip(ids, mask)
    ]
    torch.testing.assert_close(found, torch.stack(g[:2]) @ torch.stack(g).T, **CLOSE)
    only = torch.full_like(ids[:1], -100)
    only[0, 3] = ids[0, 3]  # the influence on one token
    one = tw.TracIn(model).fit(ids, ids).explain(ids[:1], only).attributions
    loss = -F.log_softmax(model(ids[:1])[0, 2], 0)[ids[0, 3]]
    own = torch.cat([t.flatten() for t in torch.autograd.grad(loss, every(model))])
    if not padded:
        torch.testing.assert_close(one[0], torch.stack(g) @ own, **CLOSE)


def test_projected_products_are_right_on_average():
    model = net()
    exact = tw.TracIn(model).fit(*TRAIN)
    true, own = exact.explain(*TEST).attributions, exact.self_influence()
    several = [tw.TracIn(model, dim=200, generator=i).fit(*TRAIN).explain(*TEST).attributions for i in range(30)]
    scale = (tw.TracIn(model).fit(*TEST).self_influence()[:, None] * own[None]).sqrt()
    error = (torch.stack(several).mean(0) - true) / scale
    assert error.abs().max() < 5 / (200 * 30) ** 0.5
    assert error.std() > 0.2 / (200 * 30) ** 0.5
    again = tw.TracIn(model, dim=200, generator=3, batch_size=2).fit(*TRAIN).explain(*TEST).attributions
    torch.testing.assert_close(again, several[3], **CLOSE)


def test_a_projection_that_is_not_kept_is_the_same(monkeypatch):
    from torchwhy.influence import projection

    monkeypatch.setattr(projection, "SIGNS_DRAWN", 40)
    kept = tw.TracIn(net(), dim=8).fit(*TRAIN).explain(*TEST).attributions
    monkeypatch.setattr(projection, "SIGNS_KEPT", 0)
    torch.testing.assert_close(tw.TracIn(net(), dim=8).fit(*TRAIN).explain(*TEST).attributions, kept)


@pytest.mark.parametrize(("total", "kept"), [(2**20, 1), (2**22, 0)])
def test_a_large_projection_is_not_kept(total, kept):
    large = RandomProjection(total, 64, 0)
    large._signs(0)
    assert len(large.kept) == kept  # 64 or 256 MiB in all


# ---- similarity


@pytest.mark.parametrize("measure", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize(("layer", "pool"), [("0", None), ("0", "grid"), (None, None)])
def test_similarity(measure, layer, pool):
    model = net()
    a, b = ((model[0](x) if layer else x).detach() for x, _ in (TEST, TRAIN))
    a, b = ((t.mean((2, 3)) if pool else t.flatten(1)) for t in (a, b))
    found = (
        tw.SimilarityInfluence(model, layer=layer, pool=pool, metric=measure).fit(*TRAIN).explain(TEST[0]).attributions
    )
    torch.testing.assert_close(found, slow.similarity(a, b, measure), **CLOSE)


def test_similarity_of_texts_is_over_their_tokens():
    model, ids = Speaker(), torch.randint(7, (6, 5))
    table = model.table(ids).mean(1).detach()
    found = (
        tw.SimilarityInfluence(model, layer="table", pool="tokens", metric="dot").fit(ids).explain(ids[:2]).attributions
    )
    torch.testing.assert_close(found, table[:2] @ table.T, **CLOSE)


# ---- nearest neighbours, and representer points


@pytest.mark.parametrize(("n", "k"), [(6, 2), (6, 1), (5, 5), (4, 7)])
def test_knn_shapley_equals_all_orders(n, k):
    x, y = rows(n, seed=3)
    x[3] = x[1]  # a tie
    found = tw.KNNShapley(net(), n_neighbors=k).fit(x, y % 2).explain(TEST[0], TEST[1] % 2).attributions
    distances = -slow.similarity(TEST[0].flatten(1), x.flatten(1), "euclidean")
    for line, d, label in zip(found, distances, TEST[1] % 2):
        torch.testing.assert_close(line, slow.knn_shapley(d, y % 2, label, k), **CLOSE)
        nearest = sorted(range(n), key=lambda i: (float(d[i]), i))[:k]
        assert float(line.sum()) == pytest.approx(sum(int(y[i] % 2 == label) for i in nearest) / k)


def test_knn_shapley_needs_labels():
    with pytest.raises(ValueError, match="data: KNNShapley needs a whole number"):
        tw.KNNShapley(net()).fit(TRAIN[0]).explain(*TEST)
    with pytest.raises(ValueError, match="labels: KNNShapley needs a whole number"):
        tw.KNNShapley(net()).fit(*TRAIN).explain(TEST[0])
    with pytest.raises(ValueError, match="inputs: 12 numbers a row at the layer, the training rows have 16"):
        tw.KNNShapley(net()).fit(*TRAIN).explain(TEST[0][:, :, :3], TEST[1])


@pytest.mark.parametrize("fit_to", ["model", "labels"])
@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_representer_points_sum_to_the_score(loss, fit_to):
    model = net()
    if loss == "squared_error":
        model[4] = nn.Linear(12, 1).double()
    method = tw.RepresenterPoints(model, loss=loss, fit_to=fit_to, penalty=0.01).fit(*TRAIN)
    labels = TEST[1] if loss == "cross_entropy" else TEST[1] * 0
    found = method.explain(TEST[0], labels).attributions
    features, own = (torch.cat([model[:4](x), torch.ones(len(x), 1)], 1).detach() for x in (TRAIN[0], TEST[0]))
    logits = model(TRAIN[0]).detach()
    if loss == "squared_error":
        wanted = logits if fit_to == "model" else TRAIN[1][:, None].double()
        weights = slow.ridge(features, wanted, 0.01)
        errors = features @ weights.T - wanted
    else:
        weights = (method.alphas.T @ features).requires_grad_()
        wanted = logits.softmax(1) if fit_to == "model" else F.one_hot(TRAIN[1], 4).double()
        value = F.cross_entropy(features @ weights.T, wanted) + 0.01 * weights.square().sum()
        assert torch.autograd.grad(value, weights)[0].abs().max() < 1e-7  # the least there is: the problem is convex
        errors = (features @ weights.T).softmax(1) - wanted
    by_hand = torch.stack([-errors[:, c] / (0.02 * 17) * (features @ f) for f, c in zip(own, labels)])
    torch.testing.assert_close(found, by_hand.detach(), rtol=1e-5, atol=1e-6)
    scores = (own @ weights.T).gather(1, labels[:, None])[:, 0].detach()
    torch.testing.assert_close(found.sum(1), scores, rtol=1e-5, atol=1e-6)
    themselves = method.explain(*TRAIN if loss == "cross_entropy" else (TRAIN[0], TRAIN[1] * 0)).attributions.diag()
    if loss == "cross_entropy":
        torch.testing.assert_close(method.self_influence(), themselves, **CLOSE)
        unlabelled = method.explain(TEST[0]).attributions
        predicted = method.explain(TEST[0], model(TEST[0]).argmax(1)).attributions
        assert torch.equal(unlabelled, predicted)


def test_a_small_penalty_leaves_the_model_as_it_is():
    gaps = [tw.RepresenterPoints(net(), penalty=p).fit(*TRAIN).gap for p in (1e-1, 1e-3, 1e-5)]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-2


def test_representer_points_need_the_last_layer():
    with pytest.raises(ValueError, match="is not the model's output"):
        tw.RepresenterPoints(nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Tanh()).double()).fit(*TRAIN)
    with pytest.raises(LookupError, match=r"runs no torch\.nn\.Linear"):
        tw.RepresenterPoints(nn.Sequential(nn.Conv2d(1, 4, 4), nn.Flatten()).double()).fit(*TRAIN)
    with pytest.raises(ValueError, match=r"must be a torch\.nn\.Linear"):
        tw.RepresenterPoints(net(), layer="0").fit(*TRAIN)
    with pytest.raises(ValueError, match="labels: the label 7 of row 1 is none of the outputs 0 to 3"):
        tw.RepresenterPoints(net()).fit(*TRAIN).explain(TEST[0], torch.tensor([0, 7, 1]))
    with pytest.raises(ValueError, match="needs one label for each row"):
        tw.RepresenterPoints(net(), fit_to="labels").fit(TRAIN[0])
    with pytest.warns(UserWarning, match="not learned to the end"):
        tw.RepresenterPoints(net(), max_steps=1).fit(*TRAIN)


# ---- data in every form, and what is left behind


class Dicts(torch.utils.data.Dataset):
    def __len__(self):
        return 17

    def __getitem__(self, i):
        return {"input": TRAIN[0][i], "label": TRAIN[1][i]}


@pytest.mark.parametrize(
    "data",
    [
        TRAIN,
        tuple(t.numpy() for t in TRAIN),
        TensorDataset(*TRAIN),
        DataLoader(TensorDataset(*TRAIN), batch_size=4),
        [(TRAIN[0][:9], TRAIN[1][:9]), (TRAIN[0][9:], TRAIN[1][9:])],
        Dicts(),
        DataLoader(Dicts(), batch_size=5),
    ],
    ids=["tensors", "arrays", "dataset", "loader", "batches", "dicts", "loader of dicts"],
)
def test_data_come_in_every_form(data):
    expected = tw.TracIn(net()).fit(*TRAIN).explain(*TEST)
    found = tw.TracIn(net()).fit(data).explain(DataLoader(TensorDataset(*TEST), batch_size=2))
    torch.testing.assert_close(found.attributions, expected.attributions, **CLOSE)
    assert torch.equal(found.training_labels, TRAIN[1])
    arrays = tw.TracIn(net()).fit(TRAIN[0].numpy(), TRAIN[1].numpy()).explain(TEST[0].numpy(), TEST[1].tolist())
    torch.testing.assert_close(arrays.attributions, expected.attributions, **CLOSE)
    assert torch.equal(found.labels, TEST[1])


class Scaled(nn.Linear):
    def forward(self, x, scale):
        return super().forward(x * (1 + scale))


def test_named_inputs_go_by_their_names():
    model, x, scale, y = Scaled(2, 3).double(), *torch.rand(2, 5, 2).double(), torch.tensor([0, 1, 2, 1, 0])
    expected = tw.TracIn(model).fit((x, scale), y).explain((x, scale), y).attributions
    named = {"scale": scale, "x": x}
    torch.testing.assert_close(tw.TracIn(model).fit(named, y).explain(named, y).attributions, expected, **CLOSE)


GRADIENT = {
    "TracIn": tw.TracIn,
    "InfluenceFunction": tw.InfluenceFunction,
    "TRAK": lambda model: tw.TRAK(model, dim=8),
    "EK-FAC": lambda model: tw.InfluenceFunction(model, hessian="ekfac"),
}
EVERY = {
    **GRADIENT,
    "KNNShapley": tw.KNNShapley,
    "RepresenterPoints": tw.RepresenterPoints,
    "SimilarityInfluence": lambda model: tw.SimilarityInfluence(model, layer="3"),
}
each = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
each_by_gradient = pytest.mark.parametrize("make", GRADIENT.values(), ids=GRADIENT)


def attention_kernels():
    kinds = ("flash", "mem_efficient", "math")
    return [getattr(torch.backends.cuda, f"{kind}_sdp_enabled")() for kind in kinds]


@each
def test_nothing_is_left_behind(make):
    model = net()
    model[0].weight.requires_grad_(False)
    model[4].bias.grad = torch.ones(4, dtype=torch.double)
    before, kernels = copy.deepcopy(model), attention_kernels()
    x, y = TRAIN[0].clone(), TRAIN[1].clone()
    method = make(model).fit(x, y)
    method.explain(*TEST)
    with pytest.raises(Exception, match=r".+") as caught:
        method.explain(TEST[0][:, :, :2], TEST[1])
    assert attention_kernels() == kernels, caught  # while the traceback holds its frames
    for (name, p), q in zip(model.named_parameters(), before.parameters()):
        assert torch.equal(p, q), name
        assert p.requires_grad == q.requires_grad
        assert (p.grad is None) == (name != "4.bias")
        assert type(p) is nn.Parameter
    assert bool((model[4].bias.grad == 1).all())
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), before.buffers()))
    assert not any(m._forward_hooks or m._forward_pre_hooks or m.training for m in model.modules())
    assert torch.equal(x, TRAIN[0])
    assert torch.is_grad_enabled()


def test_nothing_is_switched_between_chunks():
    kernels, method = attention_kernels(), tw.InfluenceFunction(net(), hessian="ekfac").fit(*TRAIN)
    rows = RowsInBatches(TRAIN)
    for chunks in (method._gradients().of_rows(rows), method.curvature._passes(rows, 0)):
        with torch.no_grad():
            next(chunks)
            assert attention_kernels() == kernels
            assert not torch.is_grad_enabled()


def test_the_callers_autocast_is_not_for_gradients():
    x, y = TRAIN[0].float(), TRAIN[1]
    expected = tw.TracIn(net().float()).fit(x, y).explain(x[:3], y[:3]).attributions
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(tw.TracIn(net().float()).fit(x, y).explain(x[:3], y[:3]).attributions, expected)


@each
def test_the_same_bits_again_and_under_any_mode(make):
    model = net()
    one = make(model).fit(*TRAIN).explain(*TEST).attributions
    assert torch.equal(make(model).fit(*TRAIN).explain(*TEST).attributions, one)
    with torch.no_grad():
        assert torch.equal(make(model).fit(*TRAIN).explain(*TEST).attributions, one)
    with torch.inference_mode():
        torch.testing.assert_close(make(model).fit(*TRAIN).explain(*TEST).attributions, one, **CLOSE)


def test_rows_one_at_a_time_where_they_cannot_be_mapped():
    class Asks(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, x):
            return self.net(x) * (2 if x.sum() > 8 else 1)

    model = Asks().eval()
    with pytest.warns(UserWarning, match=r"rows are taken one at a time.*vmap"):
        found = tw.TracIn(model).fit(*TRAIN).explain(*TEST).attributions
    expected = slow.tracin(lambda _: model, [(None, 1)], F.cross_entropy, TEST, TRAIN, every)
    torch.testing.assert_close(found, expected, **CLOSE)


def test_little_memory_takes_more_calls_and_gives_the_same(monkeypatch):
    expected = tw.TracIn(net()).fit(*TRAIN).explain(*TRAIN).attributions
    monkeypatch.setitem(tw.memory_budget, "cpu", 8000)
    torch.testing.assert_close(tw.TracIn(net()).fit(*TRAIN).explain(*TRAIN).attributions, expected, **CLOSE)


def test_out_of_memory_costs_time_only(monkeypatch):
    from torchwhy.influence import row_gradients

    expected, vmap, sizes = tw.TracIn(net()).fit(*TRAIN).explain(*TEST).attributions, row_gradients.vmap, []

    def small(function, **options):
        def run(parameters, parts, labels):
            sizes.append(len(labels))
            if len(labels) > 4:
                raise RuntimeError("out of memory")
            return vmap(function, **options)(parameters, parts, labels)

        return run

    monkeypatch.setattr(row_gradients, "vmap", small)
    found = tw.TracIn(net()).fit(*TRAIN).explain(*TEST).attributions
    torch.testing.assert_close(found, expected, **CLOSE)
    assert {3, 17, 8, 4, 1} == set(sizes)


class Watched:
    """Batches that are made when they are asked for, and how many of them there are at a time."""

    def __init__(self):
        self.made, self.most = [], 0

    def __iter__(self):
        for i in range(17):
            x, y = TRAIN[0][i : i + 1].clone(), TRAIN[1][i : i + 1].clone()
            self.made.append(weakref.ref(x))
            self.most = max(self.most, sum(ref() is not None for ref in self.made))
            yield x, y


@pytest.mark.parametrize("name", ["TracIn", "InfluenceFunction", "EK-FAC", "TRAK", "SimilarityInfluence"])
def test_only_a_batch_of_rows_is_in_memory(name):
    data = Watched()
    found = EVERY[name](net()).fit(data).explain(*TEST)
    torch.testing.assert_close(found.attributions, EVERY[name](net()).fit(*TRAIN).explain(*TEST).attributions, **CLOSE)
    assert data.most <= 3


def test_a_bar_where_it_is_asked_for(capsys):
    tw.TracIn(net(), progress=True, dim=4).fit(*TRAIN)
    assert "TracIn" in capsys.readouterr().err
    tw.TracIn(net(), dim=4).fit(*TRAIN)
    assert not capsys.readouterr().err


# ---- the result


def test_top_and_bottom():
    found = tw.TracIn(net()).fit(*TRAIN).explain(*TEST)
    values, indices = found.top(4)
    expected = found.attributions.sort(1, descending=True)
    assert torch.equal(values, expected.values[:, :4])
    assert torch.equal(indices, expected.indices[:, :4])
    assert torch.equal(found.bottom(2).values, found.attributions.sort(1).values[:, :2])
    assert found.top(99).values.shape == (3, 17)
    with pytest.raises(ValueError, match="k=0"):
        found.top(0)


def test_images_are_shown_and_other_rows_are_bars():
    found = tw.TracIn(net()).fit(*TRAIN).explain(*TEST)
    axes = found.plot(row=1, top=3).axes
    helped, harmed = (r.indices[1].tolist() for r in (found.top(3), found.bottom(3)))
    titles = [ax.get_title() for ax in axes if ax.images]
    named = [[f"train {i} ({int(TRAIN[1][i])})" for i in rows] for rows in (helped, harmed)]
    assert titles == [f"row 1 ({int(TEST[1][1])})", *named[0], f"row 1 ({int(TEST[1][1])})", *named[1]]
    first = [ax.get_title() for ax in found.plot().axes if ax.images]
    assert first[0] == f"row 0 ({int(TEST[1][0])})"
    assert [int(title.split()[1]) for title in first[1:6]] == found.top(5).indices[0].tolist()
    with pytest.raises(IndexError, match="row 3: there are 3"):
        found.plot(row=3)
    table = found.to_dataframe()
    assert len(table) == 3 * 17
    assert table["training row"][:3].tolist() == found.top(3).indices[0].tolist()
    flat = nn.Sequential(nn.Linear(16, 4)).double()
    bars = tw.TracIn(flat).fit(TRAIN[0].flatten(1), TRAIN[1]).explain(TEST[0].flatten(1), TEST[1]).plot(top=2)
    assert len(bars.axes[0].patches) == 4


# ---- what is refused


def shuffled():
    return DataLoader(TensorDataset(*TRAIN), shuffle=True)


@each
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.explain(*TEST), RuntimeError, r"no training rows yet; call fit\(data\)"),
        (lambda m: m.fit([]), ValueError, "no rows"),
        (lambda m: m.fit(DataLoader(TensorDataset(TRAIN[0][:0], TRAIN[1][:0]))), ValueError, "no rows"),
        (lambda m: m.fit(shuffled()), ValueError, "shuffle=False"),
        (lambda m: m.fit(iter([TRAIN])), TypeError, "once only"),
        (lambda m: m.fit(3), TypeError, "expected a DataLoader"),
        (lambda m: m.fit(TRAIN[0], TRAIN[1][:5]), ValueError, "each needs as many rows"),
        (lambda m: m.fit(DataLoader(TensorDataset(*TRAIN)), TRAIN[1]), TypeError, "holds its labels itself"),
        (lambda m: m.fit([(["a", "b"], TRAIN[1])]), TypeError, "no tensor"),
    ],
)
def test_bad_data(make, call, error, message):
    with pytest.raises(error, match=message):
        call(make(net()))


@each_by_gradient
@pytest.mark.filterwarnings("ignore:rows are taken")
def test_labels_are_needed(make):
    with pytest.raises(ValueError, match="labels: there are none, and the loss needs them"):
        make(net()).fit(TRAIN[0]).explain(*TEST)
    with pytest.raises(ValueError, match="labels: there are none"):
        make(net()).fit(*TRAIN).explain(TEST[0])
    with pytest.raises(IndexError, match="out of bounds"):
        make(net()).fit(*TRAIN).explain(TEST[0], TEST[1] + 4)
    ids = torch.randint(7, (3, 4))
    with pytest.raises(ValueError, match="row 0 has no token to predict"):
        make(Speaker()).fit({"input_ids": ids, "attention_mask": ids * 0}).explain(ids)


@each
def test_a_model_that_changed_or_draws_is_refused(make):
    model = net()
    method = make(model).fit(*TRAIN)
    with torch.no_grad():
        model[4].bias.add_(1)
    with pytest.raises(RuntimeError, match="changed since fit"):
        method.explain(*TEST)
    with pytest.raises(ValueError, match="training mode 1 make its output random"):
        method.fit(*TRAIN) if model.train() else None
    with pytest.raises(RuntimeError, match="no training rows"):  # nothing half-learned
        method.explain(*TEST) if model.eval() else None
    with pytest.raises(TypeError, match=r"needs a torch.nn.Module"):
        make(lambda x: x)


def test_checkpoints_from_files(tmp_path):
    from safetensors.torch import save_file

    states = [net(1).state_dict(), net(2).state_dict()]
    torch.save(states[0], tmp_path / "one.pt")
    save_file(states[1], tmp_path / "two.safetensors")
    found = tw.TracIn(net(), checkpoints=[(tmp_path / "one.pt", 0.1), (str(tmp_path / "two.safetensors"), 0.2)])
    expected = tw.TracIn(net(), checkpoints=list(zip(states, (0.1, 0.2))))
    found, expected = (m.fit(*TRAIN).explain(*TEST).attributions for m in (found, expected))
    assert torch.equal(found, expected)
    (tmp_path / "three.pt").write_bytes(b"nothing")
    for file in ("three.pt", "absent.pt"):
        with pytest.raises(ValueError, match=rf"checkpoints\[0\]: .*{file} cannot be read"):
            tw.TracIn(net(), checkpoints=[(tmp_path / file, 0.1)]).fit(*TRAIN)


def test_checkpoints_that_do_not_fit():
    state, wide = net().state_dict(), dict(net().state_dict())
    wide["4.weight"] = torch.zeros(5, 12)
    for given, message in (
        ({**state, "9.weight": torch.zeros(1)}, r"checkpoints\[0\]: does not fit the model: unknown 9.weight"),
        ({k: v for k, v in state.items() if k != "4.bias"}, r"checkpoints\[0\].*missing 4.bias"),
        (wide, r"of another shape 4.weight \(5, 12\) for \(4, 12\)"),
    ):
        with pytest.raises(ValueError, match=message):
            tw.TracIn(net(), checkpoints=[(given, 0.1)]).fit(*TRAIN)
    for given, error, message in (
        ([], ValueError, "the list is empty"),
        (state, TypeError, "expected a list of pairs"),
        ([state], TypeError, r"checkpoints\[0\]: expected a pair"),
        ([(3, 0.1)], TypeError, r"checkpoints\[0\]: expected a state dict or a file"),
    ):
        with pytest.raises(error, match=message):
            tw.TracIn(net(), checkpoints=given).fit(*TRAIN)


@pytest.mark.filterwarnings("ignore:rows are taken")
def test_settings_are_checked():
    for make, error, message in (
        (lambda: tw.TracIn(net(), loss=3), TypeError, "loss=3"),
        (lambda: tw.TracIn(net(), dim=0), ValueError, "dim=0"),
        (lambda: tw.TracIn(net(), layer="5").fit(*TRAIN), LookupError, "no such layer"),
        (lambda: tw.TracIn(net(), layer="2").fit(*TRAIN), ValueError, "no parameters"),
        (
            lambda: tw.TracIn(net(), loss=lambda o, y: o).fit(*TRAIN).explain(*TEST),
            ValueError,
            "one number for a batch",
        ),
        (lambda: tw.SimilarityInfluence(net(), layer="0", metric="cos"), ValueError, "metric='cos'"),
    ):
        with pytest.raises(error, match=message):
            make()
