"""captum.influence with the import changed: the same numbers, a model that is left as it was."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import torchwhy as tw
from torchwhy.captum import influence as ours

theirs = pytest.importorskip("captum.influence")

X, Y = torch.rand(20, 5, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3
DATA = TensorDataset(X, Y)
TEST = (X[:4] + 0.1, Y[:4])
CLOSE = {"rtol": 1e-4, "atol": 1e-6}
SUM = nn.CrossEntropyLoss(reduction="sum")


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).eval()


def files(folder):
    for seed in (1, 2):
        torch.save(net(seed).state_dict(), folder / f"{seed}.pt")
    return [str(folder / "1.pt"), str(folder / "2.pt")]


def load(model, path):
    model.load_state_dict(torch.load(path))
    return 0.1


def test_tracin(tmp_path):
    call = {"loss_fn": SUM, "batch_size": 5, "sample_wise_grads_per_batch": True}
    found, expected = (m.TracInCP(net(), DATA, files(tmp_path), load, **call) for m in (ours, theirs))
    torch.testing.assert_close(found.influence(TEST), expected.influence(TEST), **CLOSE)
    torch.testing.assert_close(found.self_influence(), expected.self_influence(), **CLOSE)
    torch.testing.assert_close(found.self_influence(TEST), expected.self_influence(TEST), **CLOSE)
    for proponents in (True, False):
        one, other = (m.influence(TEST, k=3, proponents=proponents) for m in (found, expected))
        assert torch.equal(one.indices, other.indices)
        torch.testing.assert_close(one.influence_scores, other.influence_scores, **CLOSE)
    torch.testing.assert_close(found.influence(TEST, aggregate=True), expected.influence(TEST, aggregate=True), **CLOSE)
    loader = DataLoader(TensorDataset(*TEST), batch_size=3)
    torch.testing.assert_close(found.influence(loader), expected.influence(loader), **CLOSE)
    only, other = (m.TracInCP(net(), DATA, files(tmp_path), load, ["2"], **call) for m in (ours, theirs))
    torch.testing.assert_close(only.influence(TEST), other.influence(TEST), **CLOSE)


def test_the_fast_one_has_its_bias(tmp_path):
    found = ours.TracInCPFast(net(), "2", DATA, files(tmp_path), load, SUM).influence(TEST)
    whole = theirs.TracInCP(
        net(), DATA, files(tmp_path), load, ["2"], SUM, batch_size=5, sample_wise_grads_per_batch=True
    )
    torch.testing.assert_close(found, whole.influence(TEST), **CLOSE)
    model = net()
    fast = theirs.TracInCPFast(model, model[2], DATA, files(tmp_path), load, SUM, batch_size=5).influence(TEST)
    assert (found - fast).abs().max() > 1e-3
    drawn = ours.TracInCPFastRandProj(net(), "2", DATA, files(tmp_path), load, SUM, projection_dim=4000)
    torch.testing.assert_close(drawn.influence(TEST), found, rtol=0.1, atol=0.01)


def test_influence_functions(tmp_path):
    path = files(tmp_path)[0]
    call = {"loss_fn": SUM, "hessian_reg": 0.5, "batch_size": 20, "sample_wise_grads_per_batch": True, "layers": ["2"]}
    found, expected = (m.NaiveInfluenceFunction(net(), DATA, path, load, **call) for m in (ours, theirs))
    torch.testing.assert_close(found.influence(TEST), expected.influence(TEST), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found.self_influence(), expected.self_influence(), rtol=1e-3, atol=1e-5)


def test_arnoldi(tmp_path):
    from captum.influence._core.arnoldi_influence_function import ArnoldiInfluenceFunction

    path = files(tmp_path)[0]
    call = {"loss_fn": SUM, "hessian_reg": 0.5, "batch_size": 20, "sample_wise_grads_per_batch": True, "layers": ["2"]}
    call |= {"arnoldi_dim": 15, "projection_dim": 15, "arnoldi_tol": 1e-6}
    found, expected = (
        m(net(), DATA, path, load, **call) for m in (ours.ArnoldiInfluenceFunction, ArnoldiInfluenceFunction)
    )
    whole = ours.NaiveInfluenceFunction(net(), DATA, path, load, loss_fn=SUM, hessian_reg=0.5, layers=["2"])
    torch.testing.assert_close(found.influence(TEST), whole.influence(TEST), rtol=1e-3, atol=1e-4)
    both = torch.stack([found.influence(TEST).flatten(), expected.influence(TEST).flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.99


def cosine_similarity(a, b):
    return F.normalize(a) @ F.normalize(b).T


def euclidean_distance(a, b):
    return torch.cdist(a, b)


def test_similarity():
    for metric, direction in ((cosine_similarity, "max"), (euclidean_distance, "min")):
        for k in (1, 3):
            method = ours.SimilarityInfluence(
                net(), ["0", "1"], X, similarity_metric=metric, similarity_direction=direction
            )
            for layer, (indices, values) in method.influence(TEST[0], top_k=k).items():
                part = net()[: int(layer) + 1]
                pairs = metric(part(TEST[0]), part(X)).detach()
                best = pairs.topk(k, 1, largest=direction == "max")
                assert torch.equal(indices, best.indices)
                torch.testing.assert_close(values, best.values, **CLOSE)


def test_the_model_is_left_as_it_was(tmp_path):
    model = net()
    before = copy.deepcopy(model.state_dict())
    ours.TracInCP(model, DATA, files(tmp_path), loss_fn=F.cross_entropy).influence(TEST)
    ours.NaiveInfluenceFunction(model, DATA, files(tmp_path)[0], layers=["2"], loss_fn=SUM, hessian_reg=1.0)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_what_is_not_translated_says_so(tmp_path):
    for call, message in (
        (lambda: ours.TracInCP(net(), DATA, files(tmp_path), loss_fn=SUM, test_loss_fn=F.mse_loss), "test_loss_fn"),
        (lambda: ours.NaiveInfluenceFunction(net(), DATA, files(tmp_path)[0], hessian_dataset=DATA), "hessian_dataset"),
        (lambda: ours.SimilarityInfluence(net(), "0", X, similarity_metric=torch.dot), "the cosine or the distance"),
        (lambda: ours.DataInfluence(), "captum.influence.DataInfluence has no counterpart in torchwhy: methods derive"),
    ):
        with pytest.raises(NotImplementedError, match=message):
            call()
    assert isinstance(ours.TracInCP(net(), DATA, files(tmp_path)).method, tw.TracIn)
