"""A look at a model before the work: what it says is so, and nothing is changed by it."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import torchwhy as tw


class Net(nn.Module):
    """A small picture classifier with everything that an inspection is to notice, each if asked for."""

    def __init__(self, *, noise=False, mix=False, count=False, odd=False):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 3)
        self.noise, self.mix, self.count, self.odd = noise, mix, count, odd
        self.register_buffer("seen", torch.zeros(()))
        self.eval()

    def forward(self, x):
        h = self.conv(x).relu().mean((2, 3))
        if self.odd:
            h = h.cumprod(1)
        if self.noise:
            h = h + torch.randn_like(h)
        if self.mix:
            h = h - h.mean(0)
        if self.count:
            self.seen += len(x)
        return self.head(h)


X = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(0))
FEW = ["Saliency", "IntegratedGradients", "GradCAM", "FeatureAblation", "LRP", "DeepLIFT"]


def test_a_clean_model_is_found_clean():
    found = tw.inspect(Net(), X, methods=FEW)
    assert (found.is_random, found.rows_depend, found.written_buffers, found.training) == (False, False, (), ())
    assert found.inputs == ((3, 1, 6, 6),)
    assert found.output == (3, 3)
    assert found.target == "predicted"
    assert found.parameters == 55
    assert found.layers == {"auto": "conv"}
    assert found.rows_per_call["scores"] >= found.rows_per_call["gradients"] > 0
    assert found.operations["LRP"]["plain_operations"] == {}
    assert all(v.applies for v in found.methods.values())
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("what", "fact"),
    [
        ({"noise": True}, "is_random"),
        ({"mix": True}, "rows_depend"),
        ({"count": True}, "written_buffers"),
    ],
)
def test_what_a_model_does_is_noticed(what, fact):
    clean, found = (tw.inspect(Net(**options), X, 1, methods=["Saliency"]) for options in ({}, what))
    assert not getattr(clean, fact)
    assert getattr(found, fact)


def test_modules_in_training_mode_are_named():
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.Dropout(0.5), nn.Linear(4, 2)).train()
    found = tw.inspect(net, X, 1, methods=["Saliency"])
    assert found.training == ("2",)
    assert found.is_random
    assert any("training mode" in warning for warning in found.warnings)


def test_operations_without_a_rule_are_named():
    found = tw.inspect(Net(odd=True), X, 1, methods=["LRP", "DeepLIFT", "GuidedBackprop"])
    assert all(counts["plain_operations"].get("cumprod") == 1 for counts in found.operations.values())
    assert set(found.operations) == {"LRP", "DeepLIFT", "GuidedBackprop"}
    assert "LRP: cumprod" in str(found)


# the cost that is forecast, and what the method then takes with its default settings
COSTS = ["Saliency", "InputXGradient", "IntegratedGradients", "SmoothGrad", "ExpectedGradients", "GuidedIG", "BlurIG", "GradCAM",
         "FeatureAblation", "KernelSHAP", "LRP", "DeepLIFT", "ScoreCAM", "OptiCAM", "Conductance"]  # fmt: skip


def test_the_cost_is_what_a_method_then_takes():
    net = Net()
    found = tw.inspect(net, X, 1, methods=COSTS)
    for name in COSTS:
        verdict = found.methods[name]
        assert verdict.applies, f"{name}: {verdict.reason}"
        method = tw.methods()[name](net, **verdict.settings, check=False)
        taken = method.explain(X[:1], 1).evaluations
        assert abs(verdict.evaluations - taken) <= 0.1 * taken + 3, (name, verdict.evaluations, taken)


def test_methods_that_do_not_apply_say_why():
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
    found = tw.inspect(net, torch.rand(2, 5), 1)
    assert set(found.methods) == set(tw.methods())
    no = {name: v.reason for name, v in found.methods.items() if not v.applies}
    assert "no layer passes a grid" in no["GradCAM"] or "layer" in no["GradCAM"]
    assert "attention" in no["AttentionRollout"]
    assert no["OwenValues"] == "OwenValues: groups is needed, as OwenValues(model, groups=...)"
    assert not any("__init__" in reason for reason in no.values())
    assert "TCAV" in no["TCAV"]
    assert all(no.values())
    for name in ("Saliency", "LRP", "DeepLIFT", "KernelSHAP", "ExactShapley", "LIME", "FeatureAblation", "Occlusion"):
        assert found.methods[name].applies, (name, found.methods[name].reason)
    assert all(v.evaluations >= 1 for v in found.methods.values() if v.applies)


@pytest.mark.parametrize("target", [None, 1])
def test_methods_of_several_rows_or_another_answer_are_tried_with_those(target):
    net, x = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)), torch.rand(3, 5)
    found = tw.inspect(net, x, target, methods=["FeaturePermutation", "Counterfactual"]).methods
    assert all(v.applies for v in found.values()), found
    taken = tw.FeaturePermutation(net).explain(x, 1).evaluations
    assert abs(found["FeaturePermutation"].evaluations - taken / 3) <= 1
    alone = tw.inspect(net, x[:1], 1, methods=["FeaturePermutation"]).methods["FeaturePermutation"]
    assert "one row" in alone.reason


@pytest.mark.parametrize("name", ["SmoothGrad", "VarGrad"])
def test_noise_is_tried_at_the_embeddings(name):
    net = nn.Sequential(nn.Embedding(20, 4), nn.Flatten(), nn.Linear(20, 3))
    found = tw.inspect(net, torch.randint(0, 20, (2, 5)), 1, methods=[name]).methods[name]
    assert found.applies
    assert found.settings["layer"] == "embeddings"


@pytest.mark.parametrize("name", ["FullGrad", "GuidedGradCAM"])
def test_what_takes_no_embedding_layer_does_not_advise_it(name):
    net = nn.Sequential(nn.Embedding(20, 4), nn.Flatten(), nn.Linear(20, 3))
    found = tw.inspect(net, torch.randint(0, 20, (2, 5)), 1, methods=[name]).methods[name]
    assert "pass their embeddings as the inputs" in found.reason


def test_token_ids_are_explained_by_the_embeddings():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(20, 4), nn.Flatten(), nn.Linear(20, 3))
    found = tw.inspect(
        net, torch.randint(0, 20, (2, 5)), methods=["Saliency", "IntegratedGradients", "FeatureAblation"]
    )
    assert found.layers["embeddings"] == "0"
    assert found.methods["Saliency"].settings == {"layer": "embeddings"}
    assert found.methods["IntegratedGradients"].applies
    assert found.methods["FeatureAblation"].evaluations <= 7


def test_black_boxes_are_looked_at_too():
    found = tw.inspect(lambda x: x.numpy().sum(1), torch.rand(2, 4), methods=["Saliency", "KernelSHAP", "GradCAM"])
    assert found.layers == {}
    assert not found.methods["Saliency"].applies
    assert found.methods["KernelSHAP"].applies
    assert found.rows_depend is False


@pytest.mark.parametrize("form", ["array", "tensor", "frame"])
def test_tables_and_labels_are_looked_at_too(form):
    import pandas
    from sklearn.ensemble import RandomForestClassifier

    rows = np.random.default_rng(0).normal(size=(30, 3))
    data = pandas.DataFrame(rows, columns=list("abc")) if form == "frame" else rows
    model = RandomForestClassifier(3, random_state=0).fit(data, np.array(["no", "yes"])[(rows[:, 0] > 0).astype(int)])
    some = {"array": rows[:4], "tensor": torch.tensor(rows[:4]), "frame": data[:4] if form == "frame" else None}[form]
    for target in ("yes", "predicted", None):
        found = tw.inspect(model, some, target, methods=["Saliency", "KernelSHAP", "LIME"])
        assert found.model == "RandomForestClassifier"
        assert (found.inputs, found.output) == (((4, 3),), (4, 2))
        assert found.methods["KernelSHAP"].applies
        assert found.methods["LIME"].applies
        assert not found.methods["Saliency"].applies
    with pytest.raises(ValueError, match="target='maybe': the model's classes are"):
        tw.inspect(model, some, "maybe")


def test_many_features_are_put_together():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    found = tw.inspect(net, torch.rand(1, 3, 32, 32), 1, methods=["FeatureAblation", "KernelSHAP"])
    assert found.methods["FeatureAblation"].features == 64
    assert 64 <= found.methods["FeatureAblation"].evaluations <= 67
    assert found.rows_depend is None


def test_nothing_is_changed():
    net = Net(count=True)
    net.head.weight.requires_grad_(False)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    random, x = torch.get_rng_state(), X.clone()
    tw.inspect(net, X, 1)
    assert all(value.equal(state[name]) for name, value in net.state_dict().items())
    assert torch.get_rng_state().equal(random)
    assert X.equal(x)
    assert [p.requires_grad for p in net.parameters()] == [True, True, False, True]
    assert all(p.grad is None for p in net.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_it_is_printed_as_html_and_as_a_dict():
    found = tw.inspect(Net(), X, 1, methods=FEW)
    text, page = str(found), found._repr_html_()
    for name in FEW:
        assert name in text
        assert f"<th>{name}</th>" in page
    assert "51 evaluations" in text or "50 evaluations" in text
    as_dict = json.loads(json.dumps(found.to_dict()))
    assert as_dict["methods"]["LRP"]["applies"] is True
    assert as_dict["layers"] == {"auto": "conv"}
    assert as_dict["target"] == 1
    escaped = tw.Inspection(**{**vars(found), "model": "<b>"})._repr_html_()
    assert "<b>" not in escaped
    assert "&lt;b&gt;" in escaped


def test_a_method_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match=r"there is no 'GradCam'; the nearest are.*GradCAM"):
        tw.inspect(Net(), X, methods=["GradCam"])


def test_several_inputs_and_further_arguments():
    def forward(a, b, scale):
        return (F.relu(a) * scale + b).sum(1)

    found = tw.inspect(
        forward,
        (torch.rand(2, 3), torch.rand(2, 3)),
        additional_forward_args=torch.rand(2, 3),
        methods=["Saliency", "DeepLIFT"],
    )
    assert found.methods["Saliency"].applies
    assert found.methods["DeepLIFT"].applies
    assert found.inputs == ((2, 3), (2, 3))


def test_the_command_prints_it(capsys):
    from torchwhy.cli import main

    command = [
        "inspect",
        "chelsea",
        "--model",
        "shapes-resnet",
        "--size",
        "64",
        "--target",
        "1",
        "--methods",
        "Saliency",
        "LRP",
    ]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "ShapesResNet" in printed
    assert "LRP" in printed
    assert "yes: 1 evaluations a row, with gradients" in printed
    assert main([*command, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["methods"]) == {"Saliency", "LRP"}
    assert main(["inspect", "chelsea", "--model", "shapes-resnet", "--methods", "Salincy"]) == 2
    assert "the nearest are" in capsys.readouterr().err
