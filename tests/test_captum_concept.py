"""``torchwhy.captum.concept`` beside Captum's: the same calls, forms and sign counts."""

import warnings

import captum.concept as theirs
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from torchwhy.captum import concept as ours

N, D = 24, 6
torch.manual_seed(0)
NET = nn.Sequential(nn.Linear(D, D, bias=False), nn.Identity(), nn.Linear(D, 2, bias=False)).eval()
with torch.no_grad():  # the layer is the input, the score its first number less its second
    NET[0].weight.copy_(torch.eye(D))
    NET[2].weight.zero_()
    NET[2].weight[1, :2] = torch.tensor([1.0, -1.0])
X = torch.randn(10, D)


def sets(package):
    """Three concepts with the mean 3 in one of the numbers, in batches."""
    drawn = torch.Generator().manual_seed(1)
    rows = [torch.randn(N, D, generator=drawn) * 0.2 + 3 * torch.eye(D)[i] for i in range(3)]
    first, second, third = (package.Concept(i, f"number {i}", DataLoader(r, batch_size=5)) for i, r in enumerate(rows))
    return [[first, second], [first, second, third]]


@pytest.fixture
def captums(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it keeps examples in memory
        yield theirs.TCAV(NET, ["0", "1"], save_path=str(tmp_path)).interpret(X, sets(theirs), target=1)


def test_forms_and_sign_counts_are_captums(captums):
    found = ours.TCAV(NET, ["0", "1"]).interpret(X, sets(ours), target=1)
    assert list(found) == list(captums) == ["0-1", "0-1-2"]
    for name, layers in captums.items():
        assert list(found[name]) == list(layers) == ["0", "1"]
        for layer, scores in layers.items():
            assert set(found[name][layer]) == set(scores)
            for what, expected in scores.items():
                assert found[name][layer][what].shape == expected.shape
    for layer in ("0", "1"):  # the third concept has no clear sign
        assert found["0-1"][layer]["sign_count"].tolist() == captums["0-1"][layer]["sign_count"].tolist() == [1, 0]
        assert found["0-1-2"][layer]["sign_count"][:2].tolist() == [1, 0]
        assert found["0-1"][layer]["magnitude"].tolist() == pytest.approx([2**0.5, -(2**0.5)], rel=0.1)


def test_vectors_are_kept_by_set_and_layer():
    method = ours.TCAV(NET, "1")
    cavs = method.compute_cavs(sets(ours))
    assert method.cavs is cavs
    kept = cavs["0-1"]["1"]
    assert (kept.layer, kept.stats["classes"], float(kept.stats["accs"])) == ("1", [0, 1], 1.0)
    torch.testing.assert_close(kept.stats["weights"].norm(dim=1), torch.ones(2))
    assert float(kept.stats["weights"][0, 0]) > 0.5 > -0.5 > float(kept.stats["weights"][0, 1])


def test_a_concept_says_what_it_is():
    batches = [torch.zeros(2, D), (torch.ones(1, D), torch.ones(1))]  # of a pair the first
    concept = ours.Concept(3, "striped", batches)
    assert (concept.identifier, repr(concept)) == ("striped-3", "Concept(3, 'striped')")
    assert concept.examples().tolist() == torch.cat([batches[0], batches[1][0]]).tolist()


def test_what_there_is_not_is_refused_by_name():
    striped = ours.Concept(0, "striped", [X])
    with pytest.raises(NotImplementedError, match="layer_attr_method"):
        ours.TCAV(NET, "1", layer_attr_method=object())
    with pytest.raises(NotImplementedError, match="alpha"):
        ours.TCAV(NET, "1", alpha=0.1)
    with pytest.raises(NotImplementedError, match="n_steps"):
        ours.TCAV(NET, "1").interpret(X, sets(ours), 1, n_steps=5)
    with pytest.raises(ValueError, match="the set 0-0 have the same id"):
        ours.TCAV(NET, "1").interpret(X, [[striped, ours.Concept(0, "dotted", [X])]], 1)
    with pytest.raises(ValueError, match=r"Concept\(1, 'none'\) has no examples"):
        ours.TCAV(NET, "1").interpret(X, [[striped, ours.Concept(1, "none", None)]], 1)
