"""What users add from outside the package is accepted like what is there: rules and composites of LRP, methods of methods."""

import copy
import pickle
from dataclasses import dataclass, replace

import pytest
import torch
from reference import rules as slow
from torch import nn
from torch.nn import functional as F

import torchwhy as tw
from torchwhy.wrapper import attribute_at

D = torch.double


# ------------------------------------------------------------------------------------------------------------ LRP
@dataclass(frozen=True)
class Mixed(tw.lrp.LayerRule):
    """The ε rule and the z⁺ rule, averaged."""

    share: float = 0.5

    def multiplier(self, layer, m):
        epsilon, plus = tw.lrp.Epsilon(1e-9), tw.lrp.ZPlus()
        return self.share * epsilon.multiplier(layer, m) + (1 - self.share) * plus.multiplier(layer, m)


class Absolute(tw.lrp.InputRule):
    """Relevance in the proportions of the sizes of the weights."""

    def relevance(self, layer, m):
        weight, ones = layer.weight.abs(), torch.ones_like(layer.input)
        return layer.transpose(m * layer.output / layer.forward(ones, weight), weight)


MINE = tw.lrp.EPSILON_PLUS.replace(linear=Mixed(), first=Absolute(), by_name={"2": tw.lrp.Gamma(0.5)})


def mlp():
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)).to(D)


def mixed(w, b, x, r, share=0.5):
    return share * slow.epsilon(w, b, x, r, epsilon=1e-9) + (1 - share) * slow.zplus(w, b, x, r)


def absolute(w, b, x, r):
    return torch.stack([sum(w[k, j].abs() / w[k].abs().sum() * r[k] for k in range(len(r))) for j in range(len(x))])


def by_hand(net, x, target, rules):
    """Relevance from the output to the input, layer by layer."""
    seen = [x]
    for layer in net:
        seen.append(layer(seen[-1]))
    r = torch.zeros_like(seen[-1])
    r[target] = seen[-1][target]
    for layer, before in zip(reversed(net), reversed(seen[:-1])):
        if isinstance(layer, nn.Linear):
            r = rules.pop()(layer.weight, layer.bias, before, r)
    return r


@torch.no_grad()
def expected(net, x, target):
    gamma = lambda *a: slow.gamma(*a, gamma=0.5)  # noqa: E731
    return torch.stack([by_hand(net, row, target, [absolute, gamma, mixed]) for row in x])


def test_a_rule_and_a_composite_of_ones_own_equal_what_is_computed_by_hand():
    net, x = mlp(), torch.randn(3, 5, dtype=D)
    found = tw.LRP(net, composite=MINE).explain(x, 1)
    torch.testing.assert_close(found.attributions, expected(net, x, 1), rtol=1e-6, atol=1e-9)
    assert found.details["operations_with_rule"]["linear"] == 3
    by_type = tw.LRP(net, composite={nn.Linear: Mixed(), "2": tw.lrp.Gamma(0.5)}, first=Absolute()).attribute(x, 1)
    torch.testing.assert_close(by_type, found.attributions)


def test_other_methods_take_a_method_with_rules_of_ones_own():
    net, x = mlp(), torch.randn(3, 5, dtype=D)
    lrp = tw.LRP(net, composite=MINE)
    smooth = tw.SmoothGrad(net, of=lrp, n_samples=4, stdevs=0.0).attribute(x, 1)
    torch.testing.assert_close(smooth, lrp.attribute(x, 1))
    table = tw.compare(net, x, 1, {"mine": lrp, "theirs": tw.LRP(net)}, ["deletion"])
    assert "mine" in str(table)


def test_a_rule_may_be_mixed_with_batch_norm_convolutions_and_half_precision():
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)).to(D).eval()
    nn.init.normal_(net[1].running_mean)
    x = torch.rand(2, 2, 6, 6, dtype=D)
    composite = tw.lrp.Composite(convolution=Mixed(1.0), linear=Mixed(1.0))
    found = tw.LRP(net, composite=composite).attribute(x, 1)
    torch.testing.assert_close(found, tw.LRP(net, composite="epsilon", epsilon=1e-9).attribute(x, 1))
    half = tw.LRP(net.bfloat16(), composite=composite).attribute(x.bfloat16(), 1)
    assert (half.double() - found).norm() < 0.1 * found.norm()


def test_a_rule_that_returns_another_shape_is_refused():
    class Wrong(tw.lrp.LayerRule):
        def multiplier(self, layer, m):
            return m

    with pytest.raises(ValueError, match=r"the Wrong rule returned the shape \(3, 2\) .* shape \(3, 6\)"):
        tw.LRP(mlp(), composite=tw.lrp.Composite(linear=Wrong())).attribute(torch.randn(3, 5, dtype=D), 1)


def test_a_rule_without_its_method_is_refused():
    class Empty(tw.lrp.LayerRule):
        pass

    with pytest.raises(TypeError, match="multiplier"):
        Empty()


def test_a_rule_for_the_input_stands_at_the_input_only():
    with pytest.raises(ValueError, match=r"the Absolute rule .* Give it as first="):
        tw.LRP(mlp(), composite={"2": Absolute()}).attribute(torch.randn(3, 5, dtype=D), 1)


# -------------------------------------------------------------------------------------------------- composites
NAMED = {name: getattr(tw.lrp, name.upper()) for name in (
    "epsilon", "epsilon_plus", "epsilon_plus_flat", "epsilon_gamma", "epsilon_gamma_box", "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat", "excitation", "attention",
)}  # fmt: skip


def conv():
    layers = nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)
    return nn.Sequential(*layers).to(D)


@pytest.mark.parametrize("name", NAMED)
def test_named_composites_are_what_their_names_are_with_the_settings_of_the_method(name):
    net, x = conv(), torch.randn(2, 2, 6, 6, dtype=D)
    settings = {"epsilon": 0.1, "gamma": 0.7, "low": -4.0, "high": 4.0}
    by_name = tw.LRP(net, composite=name, **settings).attribute(x, 1)
    torch.testing.assert_close(tw.LRP(net, composite=NAMED[name], **settings).attribute(x, 1), by_name, rtol=0, atol=0)


def test_a_changed_composite_gives_its_own_rule_to_a_module():
    net, x = conv(), torch.randn(2, 2, 6, 6, dtype=D)
    changed = tw.lrp.EPSILON_PLUS.replace(by_name={"2": tw.lrp.Gamma(0.25)})
    found = tw.LRP(net, composite=changed).attribute(x, 1)
    same = tw.LRP(net, composite={nn.Conv2d: "zplus", "2": "gamma"}, gamma=0.25).attribute(x, 1)
    torch.testing.assert_close(found, same, rtol=0, atol=0)
    assert not torch.allclose(found, tw.LRP(net, composite="epsilon_plus").attribute(x, 1))


COMPOSITES = {
    **NAMED,
    "mine": MINE,
    "box": tw.lrp.Composite(first=tw.lrp.ZBox(torch.zeros(5), 1.0)),
    "groups": tw.lrp.Composite(by_operation={F.conv2d: "norm"}, by_type={(nn.Linear, nn.Conv1d): Mixed(0.1)}),
}


@pytest.mark.parametrize("name", COMPOSITES)
@pytest.mark.parametrize("twin", [copy.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c)), replace])
def test_composites_are_values(name, twin):
    composite = COMPOSITES[name]
    other = twin(composite)
    assert other == composite
    assert hash(other) == hash(composite)
    assert repr(other) == repr(composite)
    assert tw.LRP(mlp, composite=other, low=0.0, high=1.0) == tw.LRP(mlp, composite=composite, low=0.0, high=1.0)
    assert other.replace(linear=Mixed(0.123)) != composite
    with pytest.raises(AttributeError):
        other.linear = "gamma"


def test_a_composite_says_what_it_is():
    shown = repr(tw.LRP(mlp, composite=COMPOSITES["groups"]))
    rules = "by_operation={conv2d: 'norm'}, by_type={Linear: Mixed(share=0.1), Conv1d: Mixed(share=0.1)}"
    assert shown == f"LRP(mlp, composite=Composite(convolution='epsilon', linear='epsilon', {rules}))"


@pytest.mark.parametrize("composite", [MINE, {nn.Linear: "gamma", "2": Mixed()}, "epsilon_gamma"], ids=str)
def test_explanations_by_composites_are_saved(composite, tmp_path):
    found = tw.LRP(mlp(), composite=composite).explain(torch.randn(1, 5, dtype=D), 1)
    found.save(tmp_path / "explanation")
    loaded = tw.Explanation.load(tmp_path / "explanation")
    torch.testing.assert_close(loaded.attributions, found.attributions, rtol=0, atol=0)
    assert "amma" in loaded.settings["composite"]


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: tw.lrp.Composite(linear="epsilno"), ValueError, "linear='epsilno'.*epsilon"),
        (lambda: tw.lrp.Composite(convolution=None), ValueError, "convolution=None: expected a rule"),
        (lambda: tw.lrp.Composite(first="pass"), ValueError, "first='pass': expected a rule of linear layers"),
        (lambda: tw.lrp.Composite(linear=tw.lrp.Norm()), ValueError, "linear=Norm.*: expected a rule of linear layers"),
        (lambda: tw.lrp.Composite(by_name={nn.Linear: "gamma"}), ValueError, "is no module name"),
        (lambda: tw.lrp.Composite(by_type={"fc": "gamma"}), ValueError, "'fc' is no module type"),
        (lambda: tw.lrp.Composite(by_operation={nn.Linear: "gamma"}), ValueError, "is no operation"),
        (lambda: tw.lrp.Composite(by_type={nn.Linear: Mixed}), ValueError, "expected a rule of tw.lrp"),
        (lambda: tw.lrp.EPSILON.replace(by_nmae={}), TypeError, "by_nmae"),
        (lambda: tw.LRP.rules({"fc": "gamma"}), TypeError, "need a model that is a module"),
        (lambda: tw.LRP(mlp, composite="epsilon_pluss"), ValueError, "composite='epsilon_pluss'.*epsilon_plus"),
        (lambda: tw.LRP(mlp, composite={"fc": "gama"}), ValueError, "'gama'.*gamma"),
        (lambda: tw.LRP(mlp, first=Mixed), ValueError, "first=.*expected a rule of tw.lrp"),
    ],
)
def test_composites_that_make_no_sense_are_refused(make, error, match):
    with pytest.raises(error, match=match):
        make()


# ------------------------------------------------------------------------------------------------------ by hand
@pytest.mark.parametrize("name", COMPOSITES)
def test_rules_by_hand_give_what_the_method_gives(name):
    net, x = mlp(), torch.rand(3, 5, dtype=D)
    settings = {"low": 0.0, "high": 1.0} if name == "epsilon_gamma_box" else {}
    leaf = x.clone().requires_grad_()
    with tw.LRP.rules(COMPOSITES[name], net, **settings) as rules:
        score = net(leaf)[:, 1]
    score.sum().backward()  # without the rules: some have one for sums
    found = leaf.grad if rules.returns_relevance else x * leaf.grad
    expected = tw.LRP(net, composite=COMPOSITES[name], **settings).attribute(x, 1)
    torch.testing.assert_close(found, expected)
    assert all(p.grad is None for p in net.parameters())


# ------------------------------------------------------------------------------------------------ methods of methods
class Asked(tw.Wrapper):
    """What the other method says."""

    def _attribute(self, problem):
        return attribute_at(self.of, problem, problem.x, problem.rows)


def test_a_wrapper_of_ones_own_says_what_the_other_method_says():
    net, x = mlp(), torch.randn(3, 5, dtype=D)
    ig = tw.IntegratedGradients(net, n_steps=5)
    torch.testing.assert_close(Asked(net, of=ig).attribute(x, 1), ig.attribute(x, 1))
    found, expected = Asked(net, of=ig).explain(x, 1), ig.explain(x, 1)
    assert found.evaluations == expected.evaluations
    torch.testing.assert_close(found.completeness_gap, expected.completeness_gap)


def test_a_wrapper_without_a_method_is_refused():
    net, x = mlp(), torch.randn(3, 5, dtype=D)
    with pytest.raises(ValueError, match="of=None: expected a method"):
        Asked(net).attribute(x, 1)
    with pytest.raises(TypeError, match="of=3: expected a method"):
        Asked(net, of=3)


@pytest.mark.parametrize("returned", [None, 1.0])
def test_a_rule_that_returns_no_tensor_is_refused(returned):
    class Wrong(tw.lrp.LayerRule):
        def multiplier(self, layer, m):
            return returned

    net = nn.Linear(6, 2)
    with pytest.raises(ValueError, match=f"the Wrong rule returned {type(returned).__name__} at a 'linear'"):
        tw.LRP(net, composite=tw.lrp.Composite(linear=Wrong())).attribute(torch.randn(3, 6), 0)


def test_a_misspelt_part_of_a_composite_names_the_nearest():
    with pytest.raises(TypeError, match="Composite has no 'by_nam'; did you mean 'by_name'"):
        tw.lrp.EPSILON.replace(by_nam={"0": "gamma"})
