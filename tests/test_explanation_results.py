"""What an explanation can be asked: its rows, its features and their names, its scores, tables, and where it comes from."""

import copy
import csv
import hashlib
import json
import pickle
from dataclasses import fields

import numpy as np
import pytest
import torch
from cases import CASES, each_case
from nets import inputs, make
from torch import nn

import torchwhy as tw
from torchwhy.engine.structure import flatten

W = torch.tensor([1.0, 2.0, 3.0, 4.0])
GROUPS = torch.tensor([0, 1, 1, 1])
PER_ROW = ("attributions", "inputs", "standard_error", "completeness_gap", "scores", "base_scores", "probabilities")


def linear(x):
    return x @ W


def explained(case, **options):
    model, given = case.setup()
    return case.make(model, **options).explain(given, [0, 1, 0], **case.data)


def equal(a, b):
    parts = zip(flatten(a)[0], flatten(b)[0], strict=True)
    return all((p is q is None) or torch.equal(torch.nan_to_num(p), torch.nan_to_num(q)) for p, q in parts)


# ---- rows


@each_case
def test_rows_are_those_of_the_whole_and_make_it_again(case):
    e = explained(case)
    parts = [e[0], e[1:]]
    assert [len(p) for p in (e, *parts)] == [3, 1, 2]
    for part, rows in zip(parts, (slice(0, 1), slice(1, 3))):
        assert part.target == [0, 1, 0][rows]
        for name in PER_ROW:
            if getattr(e, name) is not None:
                whole, some = flatten(getattr(e, name))[0], flatten(getattr(part, name))[0]
                assert all(torch.equal(w[rows].nan_to_num(), s.nan_to_num()) for w, s in zip(whole, some, strict=True))
    again = tw.concat(parts)
    assert all(equal(getattr(again, name), getattr(e, name)) for name in PER_ROW)
    assert again.target == e.target
    assert (again.method, again.settings) == (e.method, e.settings)
    assert str(again.provenance) == str(e.provenance)
    assert type(again.attributions) is type(e.attributions)


def test_ways_to_pick_rows():
    e = tw.Saliency(make("smooth")).explain(inputs("smooth", 3), [0, 1, 2])
    for index, rows in [(-1, [2]), (slice(None, None, -1), [2, 1, 0]), ([2, 0], [2, 0]), (np.int64(1), [1])]:
        assert torch.equal(e[index].attributions, e.attributions[rows])
        assert e[index].target == rows
    assert torch.equal(e[torch.tensor([True, False, True])].attributions, e.attributions[[0, 2]])
    assert [part.target for part in e] == [[0], [1], [2]]
    assert tw.Saliency(make("smooth")).explain(inputs("smooth", 3), 1)[2].target == 1


@pytest.mark.parametrize(
    ("index", "error", "said"),
    [
        (3, IndexError, "row 3: there are 3 rows, 0 to 2"),
        ([0, -4], IndexError, "row -4"),
        (slice(5, 9), IndexError, "picks none"),
        ([], (IndexError, TypeError), "rows"),
        (1.0, TypeError, "rows: 1.0; expected an int"),
        (torch.tensor([True, False]), IndexError, "2,"),
    ],
)
def test_rows_that_are_not_there(index, error, said):
    with pytest.raises(error, match=said):
        tw.Saliency(make("smooth")).explain(inputs("smooth", 3), 1)[index]


def test_what_each_row_has_of_its_own_goes_with_it():
    x = torch.rand(3, 4)
    masks = torch.tensor([[0, 0, 1, 1], [0, 1, 2, 3], [0, 1, 1, 1]])
    names = [["a", "b"], ["p", "q", "r", "s"], ["u", "v"]]
    e = tw.KernelSHAP(linear).explain(x, feature_mask=masks, names=names)
    assert [len(f) for f in e.features()] == [2, 4, 2]
    alone = e[2]
    assert torch.equal(alone.feature_mask, masks[2:])
    assert alone.to_dataframe().columns.tolist() == ["u", "v"]
    torch.testing.assert_close(alone.features()[0], torch.stack([x[2, 0], (W * x[2])[1:].sum()]))
    together = tw.concat([e[2], e[0], e[1]])
    assert torch.equal(together.feature_mask, masks[[2, 0, 1]])
    assert together.names == [names[i] for i in (2, 0, 1)]


def test_neutral_values_go_with_their_rows():
    x = torch.rand(3, 1, 8, 8)
    e = tw.RISE(lambda z: z[..., :4].mean((1, 2, 3)), generator=0, n_samples=20).explain(x)
    for i in range(3):
        assert torch.equal(e[i].shown, e.shown[i : i + 1])
    assert torch.equal(tw.concat(list(e)).shown, e.shown)


def test_together_come_only_explanations_of_one_kind():
    net, x = make("smooth"), inputs("smooth", 3)
    e = tw.Saliency(net).explain(x, 1)
    for others, said in [
        ([], "no explanations"),
        ([e, tw.InputXGradient(net).explain(x, 1)], "number 1 has another method"),
        ([e, tw.Saliency(net, signed=True).explain(x, 1)], "number 1 has another settings"),
        ([e, e, tw.Saliency(linear).explain(torch.ones(1, 4))], "number 2 has another shapes of a row"),
    ]:
        with pytest.raises(ValueError, match=said):
            tw.concat(others)
    with pytest.raises(TypeError, match="expected explanations, got Tensor"):
        tw.concat([x])


def test_targets_and_what_some_do_not_know_go_together():
    net, x = make("smooth"), inputs("smooth", 3)
    ig = tw.IntegratedGradients(net)
    both = tw.concat([ig.explain(x, 1), ig.explain(x[:1], [2])])
    assert both.target == [1, 1, 1, 2]
    first = ig.explain(x, 1)
    first.completeness_gap = first.inputs = None
    mixed = tw.concat([first, ig.explain(x[:1], 1)])
    assert mixed.target == 1
    assert mixed.inputs is None
    assert mixed.completeness_gap.isnan().tolist() == [True, True, True, False]


# ---- scores


def test_the_scores_are_the_models():
    net, x = make("smooth"), inputs("smooth", 3)
    background = torch.randn(4, 5, dtype=torch.double)
    labels = [0, 2, 1]
    for e in (
        tw.Saliency(net).explain(x, labels),
        tw.IntegratedGradients(net).explain(x, labels, baselines=tw.Distribution(background)),
        tw.FeatureAblation(net).explain(x, labels, baselines=tw.Distribution(background)),
    ):
        out = net(x).detach()
        torch.testing.assert_close(e.scores, out[range(3), labels])
        torch.testing.assert_close(e.probabilities, out.softmax(1)[range(3), labels])
        assert not e.scores.requires_grad
        if e.method == "Saliency":
            assert e.base_scores is None
        else:
            torch.testing.assert_close(e.base_scores, net(background).detach().mean(0)[labels])


def test_a_complete_method_goes_from_the_base_score_to_the_score():
    net, x = make("smooth"), inputs("smooth", 3)
    for kind in (tw.IntegratedGradients, tw.DeepLIFT, tw.ExactShapley, tw.KernelSHAP, tw.BlurIG):
        given = inputs("conv", 2) if kind is tw.BlurIG else x
        e = kind(make("conv") if kind is tw.BlurIG else net).explain(given, 1)
        change = e.scores - e.base_scores
        torch.testing.assert_close(
            (e.attributions.flatten(1).sum(1) - change).abs(), e.completeness_gap, rtol=0, atol=1e-9
        )


@pytest.mark.parametrize(
    ("model", "target"),
    [
        (linear, None),
        (nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (2, 3))), (1, 2)),
        (nn.Linear(4, 1), 0),
        (nn.Linear(4, 3), lambda o: o[:, 0]),
    ],
)
def test_what_is_no_class_has_no_probability(model, target):
    e = tw.Saliency(model).explain(torch.ones(2, 4), target)
    assert e.probabilities is None
    assert e.scores.shape == (2,)


def test_probabilities_are_not_put_through_softmax_again():
    net = nn.Sequential(nn.Linear(4, 3), nn.Softmax(1))
    x = torch.randn(3, 4)
    e = tw.Saliency(net).explain(x, [0, 1, 2])
    torch.testing.assert_close(e.probabilities, net(x).detach().diagonal())


def test_a_probability_that_is_explained_is_the_probability():
    net, x = make("smooth"), inputs("smooth", 3)
    e = tw.Saliency(net).explain(x, tw.targets.Probability([0, 2, 1]))
    torch.testing.assert_close(e.probabilities, net(x).detach().softmax(1)[range(3), [0, 2, 1]])
    assert torch.equal(e.probabilities, e.scores)


def test_a_method_that_needs_no_score_has_none():
    e = tw.EigenCAM(make("conv"), layer="conv2").explain(inputs("conv"))
    assert e.scores is None
    assert e.probabilities is None


def test_scores_cost_one_pass_at_most_and_none_is_counted_twice():
    seen = []
    net, x = make("conv"), inputs("conv")
    net.register_forward_hook(lambda m, i, o: seen.append(len(o)))
    e = tw.IntegratedGradients(net, n_steps=20, check=False).explain(x, 1)
    assert sum(seen) == e.evaluations
    seen.clear()
    e = tw.Saliency(net, check=False).explain(x, 1)
    assert sum(seen) == e.evaluations + len(x)
    seen.clear()
    tw.Saliency(net, check=False).attribute(x, 1)
    assert sum(seen) == len(x)


# ---- features and names


def test_a_group_of_columns_is_one_feature():
    e = tw.KernelSHAP(linear).explain(torch.ones(1, 4), feature_mask=GROUPS, names=["age", "emp"])
    torch.testing.assert_close(e.features()[0], torch.tensor([1.0, 9.0]))
    assert e.to_dataframe().columns.tolist() == ["age", "emp"]
    columns = e.with_names(["age", "emp=a", "emp=b", "emp=c"])
    assert columns.to_dataframe().columns.tolist() == ["age", "emp=a, emp=b, emp=c"]
    parts = tw.Explanation(attributions=W[None], feature_mask=GROUPS)  # shares, as gradients have them
    assert parts.features()[0].tolist() == [1.0, 9.0]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_methods_with_features_say_whether_elements_have_the_whole_value(case):
    model, _ = case.setup()
    method = case.make(model)
    expected = method.uses_feature_mask or isinstance(method, tw.Occlusion)
    assert method.gives_whole_features == expected


def test_a_feature_across_two_inputs_counts_once():
    a, b = torch.ones(2, 2), torch.ones(2, 3)
    method = tw.FeatureAblation(lambda x, y: x.sum(1) + 10 * y.sum(1))
    masks = (torch.tensor([0, 1]), torch.tensor([1, 2, 2]))
    e = method.explain((a, b), feature_mask=masks)
    for row in e.features():
        torch.testing.assert_close(row, torch.tensor([1.0, 11.0, 20.0]))
    assert e.to_dataframe(["p", "q", "r"]).loc[0].tolist() == [1.0, 11.0, 20.0]
    each = method.explain({"x": a, "y": b})
    assert each.to_dataframe().columns.tolist() == ["x, 0", "x, 1", "y, 0", "y, 1", "y, 2"]
    torch.testing.assert_close(each.features()[1], torch.tensor([1.0, 1, 10, 10, 10]))


def test_tokens_are_features_where_their_embeddings_are_explained():
    net, ids = make("tokens"), torch.tensor([[1, 2, 3], [4, 5, 6]])
    e = tw.InputXGradient(net, layer="embeddings").explain(ids, 1, names=[["a", "b", "c"], ["d", "e", "f"]])
    assert e.attributions.shape == (2, 3, 6)
    torch.testing.assert_close(torch.stack(e.features()), e.attributions.sum(2))
    long = e.to_dataframe(long=True)
    assert long["feature"].tolist() == list("abcdef")
    assert long["value"].tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("said", [{"names": list("abc")}, {"tokens": list("abc")}])
def test_tokens_are_called_what_the_picture_is_told(said):
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    e = tw.InputXGradient(make("tokens"), layer="embeddings").explain(ids, 1)
    for row in (None, 0, 1):
        shown = [t.get_text().strip() for ax in e.plot(row, **said).get_axes() for t in ax.texts]
        assert shown[:3] == list("abc")
    assert shown != [t.get_text().strip() for ax in e.plot(1).get_axes() for t in ax.texts]


def test_superpixels_have_one_value():
    x, mask = torch.ones(1, 3, 4, 4), torch.arange(4).view(2, 2).repeat_interleave(2, 0).repeat_interleave(2, 1)
    e = tw.FeatureAblation(lambda z: 10 * z[:, :, :2, :2].mean((1, 2, 3))).explain(x, feature_mask=mask)
    torch.testing.assert_close(e.features()[0], torch.tensor([10.0, 0, 0, 0]))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a", "b", "c"], r"names: 3 given, there are 2 features \(or 4, one for each element\)"),
        ([["a", "b"]] * 2, "lists for 2 rows given, there are 1"),
        ([list("abcde")], "5 given for a row of 4"),
    ],
)
def test_names_of_the_wrong_number(names, said):
    with pytest.raises(ValueError, match=said):
        tw.KernelSHAP(linear).explain(torch.ones(1, 4), feature_mask=GROUPS, names=names)
    e = tw.KernelSHAP(linear).explain(torch.ones(1, 4), feature_mask=GROUPS)
    for call in (e.with_names, e.to_dataframe):
        with pytest.raises(ValueError, match=said):
            call(names)


def test_a_string_is_no_list_of_names():
    with pytest.raises(TypeError, match="names='abcd'"):
        tw.KernelSHAP(linear).explain(torch.ones(1, 4), names="abcd")


# ---- tables


def test_the_table_has_a_line_a_row_and_a_column_a_feature():
    x = torch.tensor([[1.0, 2, 3, 4], [0, 1, 0, 1]])
    e = tw.FeatureAblation(linear).explain(x, names=list("abcd"))
    table = e.to_dataframe()
    assert table.columns.tolist() == list("abcd")
    assert torch.equal(torch.tensor(table.to_numpy()), e.attributions.double())
    facts = e.to_dataframe(facts=True)
    assert facts["score"].tolist() == [30.0, 6.0]
    assert facts["base_score"].tolist() == [0.0, 0.0]
    long = e.to_dataframe(long=True)
    assert len(long) == 8
    assert long[long.row == 1]["attribution"].tolist() == [0.0, 2.0, 0.0, 4.0]
    assert long["value"].tolist() == x.flatten().tolist()


def test_the_long_table_has_the_standard_errors():
    net, x = make("smooth"), inputs("smooth", 2)
    e = tw.KernelSHAP(net, generator=0, n_samples=16).explain(x, 1)
    torch.testing.assert_close(
        torch.tensor(e.to_dataframe(long=True)["standard_error"].to_numpy()), e.standard_error.flatten().double()
    )


def test_csv_needs_no_pandas_and_says_the_same(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    e = tw.FeatureAblation(linear).explain(torch.ones(2, 4), names=["a,b", 'say "c"', "ü", "d"])
    e.to_csv(tmp_path / "e.csv")
    with (tmp_path / "e.csv").open(newline="", encoding="utf-8") as file:
        head, *lines = csv.reader(file)
    assert head == ["a,b", 'say "c"', "ü", "d"]
    assert [list(map(float, line)) for line in lines] == [[1, 2, 3, 4]] * 2
    with pytest.raises(ImportError, match="pandas"):
        e.to_dataframe()
    with pytest.raises(OSError, match="nowhere"):
        e.to_csv(tmp_path / "nowhere" / "e.csv")


def test_arrays_and_devices():
    e = tw.Saliency(make("two")).explain(inputs("two"), 1)
    a, b = e.numpy()
    assert isinstance(a, np.ndarray)
    assert np.array_equal(b, e.attributions[1].numpy())
    moved = e.to("meta")
    assert moved.attributions[0].device.type == moved.scores.device.type == moved.inputs[1].device.type == "meta"
    assert e.attributions[0].device.type == "cpu"


# ---- where it comes from


@pytest.mark.parametrize("case", [c for c in CASES if "generator" in c.options], ids=str)
def test_the_seed_that_was_drawn_repeats_the_draws(case):
    drawn = explained(case, generator=None)
    seed = drawn.provenance["seed"]
    assert isinstance(seed, int)
    assert equal(explained(case, generator=seed).attributions, drawn.attributions)


def test_seeds():
    net, x = make("smooth"), inputs("smooth")
    assert tw.KernelSHAP(net, generator=7).explain(x, 1).provenance["seed"] == 7
    assert tw.KernelSHAP(net, generator=torch.Generator()).explain(x, 1).provenance["seed"] is None
    assert tw.Saliency(net).explain(x, 1).provenance["seed"] is None
    e = tw.IntegratedGradients(net).explain(x, 1, baselines=tw.Noise())
    again = tw.IntegratedGradients(net).explain(x, 1, baselines=tw.Noise(generator=e.provenance["seed"]))
    assert torch.equal(e.attributions, again.attributions)


def test_the_provenance_says_what_was_used():
    e = tw.IntegratedGradients(make("smooth")).explain(inputs("smooth"), 1, baselines=tw.Noise(std=0.5))
    assert e.provenance["torchwhy"] == tw.__version__
    assert e.provenance["torch"] == torch.__version__
    assert e.provenance["model"] == "nets.Smooth"
    assert "std=0.5" in e.provenance["baselines"]
    assert e.provenance["date"].endswith("+00:00")
    both = tw.FeatureAblation(make("two")).explain(
        dict(zip(("left", "right"), inputs("two"))),
        1,
        baselines={"left": 0.5, "right": tw.Distribution(torch.zeros(9, 2, 3))},
    )
    assert both.provenance["baselines"] == "{'left': 0.5, 'right': Distribution(tensor (9, 2, 3) of torch.float32)}"
    rows = tw.IntegratedGradients(make("smooth")).explain(inputs("smooth"), 1, baselines=torch.zeros(1, 5))
    assert rows.provenance["baselines"].startswith("tensor([[0.")


def test_the_hash_is_that_of_the_parameters_and_buffers():
    net, x = make("conv"), inputs("conv")
    twin = copy.deepcopy(net)
    e, same = tw.Saliency(net).explain(x, 1), tw.Saliency(twin).explain(x, 1)
    digest = hashlib.sha256()
    for name, t in [*net.named_parameters(), *net.named_buffers()]:
        digest.update(f"{name} {t.dtype} {tuple(t.shape)};".encode() + t.detach().numpy().tobytes())
    assert e.model_hash == same.model_hash == digest.hexdigest()
    late = tw.Saliency(net).explain(x, 1)
    with torch.no_grad():
        net.head.bias.add_(1)
    assert late.model_hash is None  # of what there was, nothing is known any more
    assert tw.Saliency(net).explain(x, 1).model_hash not in (None, e.model_hash)
    assert tw.Saliency(linear).explain(torch.ones(1, 4)).model_hash is None


def test_an_explanation_keeps_no_model_alive():
    import gc
    import weakref

    net = make("smooth")
    e, alive = tw.Saliency(net).explain(inputs("smooth"), 1), weakref.ref(net)
    del net
    gc.collect()
    assert alive() is None
    assert e.model_hash is None


# ---- saved


@each_case
def test_what_is_saved_comes_back(case, tmp_path):
    e = explained(case)
    e.save(tmp_path / "e.safetensors")
    back = tw.Explanation.load(tmp_path / "e.safetensors")
    for name in (*PER_ROW, "feature_mask"):
        assert equal(getattr(back, name), getattr(e, name)), name
    assert back.model_hash == e.model_hash
    assert back.provenance == e.provenance
    assert back.whole_features == e.whole_features
    assert len(back[1:]) == 2
    assert torch.equal(back.features()[2], e.features()[2])


def test_neutral_values_that_the_first_version_wrote_as_numbers_are_rows_again(tmp_path):
    from safetensors.torch import save_file

    facts = {
        "target": 1, "method": "RISE", "settings": {}, "evaluations": 3, "seconds": 0.1,
        "details": {"neutral": [[0.1], [0.2]]},
        "forms": {"attributions": "Tensor", "inputs": "Tensor", "completeness_gap": "NoneType", "standard_error": "NoneType"},
    }  # fmt: skip
    maps = torch.rand(2, 1, 4, 4, dtype=torch.double)
    tensors = {"attributions.0": maps, "inputs.0": torch.zeros(2, 3, 4, 4)}
    save_file(tensors, str(tmp_path / "e"), metadata={"torchwhy": json.dumps(facts)})
    e = tw.Explanation.load(tmp_path / "e")
    torch.testing.assert_close(e[1].shown, maps[1:] - 0.2, rtol=0, atol=1e-15)


def test_names_and_classes_are_saved_and_inputs_left_out(tmp_path):
    e = tw.FeatureAblation(nn.Linear(4, 2)).explain(torch.rand(2, 4), 1, names=list("abcd"))
    e.with_names(classes=["no", "yes"]).save(tmp_path / "e.safetensors", inputs=False)
    back = tw.Explanation.load(tmp_path / "e.safetensors")
    assert back.inputs is None
    assert (back.names, back.classes) == (list("abcd"), ["no", "yes"])
    assert back[0].to_dataframe(long=True).columns.tolist() == ["row", "feature", "attribution"]
    assert not any(name.startswith("inputs") for name in keys_in(tmp_path / "e.safetensors"))


def keys_in(path):
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        return list(file.keys())


def test_pickles_and_copies():
    net = make("smooth")
    e = tw.IntegratedGradients(net).explain(inputs("smooth"), 1, names=list("abcde"))
    for back in (pickle.loads(pickle.dumps(e)), copy.deepcopy(e)):
        assert torch.equal(back.attributions, e.attributions)
        assert back.model_hash == e.model_hash is not None
        assert {f.name for f in fields(back)} == {f.name for f in fields(e)}
