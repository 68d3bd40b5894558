"""Rules find the operations of exported graphs, and see through hooks that only look on: as on the module itself."""

from functools import cache, partial

import pytest
import torch
import torch.nn.functional as F
from cases import in_turn
from nets import inputs, make
from torch import nn

import torchwhy as tw
from torchwhy.engine.rules.aten import run_operator
from torchwhy.engine.rules.mode import RuleMode

pytestmark = pytest.mark.filterwarnings("ignore:LRP. the Flat rule")
METHODS = {
    "LRP": tw.LRP,
    "gamma": lambda m: tw.LRP(m, composite="epsilon_gamma"),
    "flat": lambda m: tw.LRP(m, composite="epsilon_plus_flat"),
    "excitation": tw.ExcitationBackprop,
    "contrastive": lambda m: tw.ExcitationBackprop(m, contrastive=True),
    "guided": tw.GuidedBackprop,
    "deconvolution": tw.DeconvNet,
    "DeepLIFT": tw.DeepLIFT,
    "reveal_cancel": lambda m: tw.DeepLIFT(m, rule="reveal_cancel"),
    "DeepSHAP": tw.DeepSHAP,
}
each_method = pytest.mark.parametrize("name", METHODS)


class Layers(nn.Module):
    """Images (N, 3, 8, 8) → (N, 4): what core ATen has other names for."""

    def __init__(self):
        super().__init__()
        self.conv, self.up = nn.Conv2d(3, 4, 3, padding=1, groups=1), nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.norms = nn.ModuleList([nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm(4)])
        self.head = nn.Linear(4, 4)

    def forward(self, x):
        x = F.max_pool2d(self.norms[0](self.conv(x)).relu(), 2)
        x = F.adaptive_avg_pool2d(self.norms[1](self.up(x)).relu_(), 1).flatten(1)
        return F.softmax(self.head(F.gelu(self.norms[2](x))), 1)


def layers():
    torch.manual_seed(0)
    net = Layers().double().eval()
    nn.init.normal_(net.norms[0].running_mean)
    nn.init.uniform_(net.norms[0].running_var, 0.5, 2)
    return net


NETS = {"layers": layers, **{kind: partial(make, kind) for kind in ("conv", "attending", "smooth")}}


@cache
def exported(kind, core):
    """The network, and the graph of it, also decomposed into core ATen."""
    net, x = NETS[kind](), inputs("smooth" if kind == "smooth" else "conv")
    n = {} if kind == "attending" else {0: torch.export.Dim("n", min=1, max=4096)}  # its len(x) is 3 for good
    program = torch.export.export(net, (x,), dynamic_shapes=(n,))
    return net, (program.run_decompositions() if core else program).module(), x


@pytest.mark.parametrize("kind, name", in_turn(NETS, METHODS, len(METHODS) // 2))
@pytest.mark.parametrize("core", [False, True], ids=["export", "core"])
def test_an_exported_graph(kind, core, name):
    if name == "reveal_cancel" and kind == "attending":
        pytest.skip("for rectifiers")
    if core and kind == "attending":
        pytest.skip("core ATen takes attention and linear layers of tokens apart, into operations of other rules")
    net, graph, x = exported(kind, core)
    torch.testing.assert_close(graph(x), net(x))
    right, found = (METHODS[name](m).explain(x, 1) for m in (net, graph))
    torch.testing.assert_close(found.attributions, right.attributions, rtol=1e-6, atol=1e-9)
    if not core:  # where some operations have other names
        for details in (found.details, right.details):  # a graph drops a selection of everything
            details.get("operations_with_rule", {}).pop("getitem", None)
        assert found.details == right.details


@pytest.mark.parametrize("method", [tw.RawAttention, tw.AttentionRollout, tw.AttentionRelevance, tw.ALTI])
def test_attention_of_an_exported_graph(method):
    net, graph, x = exported("attending", False)
    torch.testing.assert_close(method(graph).attribute(x, 1), method(net).attribute(x, 1), rtol=1e-6, atol=1e-9)


def test_precision_keeps_the_head_of_an_exported_graph():
    net, x = make("conv", torch.float), inputs("conv", dtype=torch.float)
    graph = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=4096)},)).module()
    right, found = (tw.FeatureAblation(m, precision="bf16", layer=None).attribute(x, 1) for m in (net, graph))
    torch.testing.assert_close(found, right, rtol=0, atol=0)


@pytest.mark.parametrize(
    "operator, args",
    [
        (torch.ops.aten.relu.default, (torch.randn(3),)),
        (torch.ops.aten.relu, (torch.randn(3),)),
        (torch.ops.aten.add.Tensor, (torch.randn(3), 2)),
        (torch.ops.aten.slice.Tensor, (torch.randn(3), 0, 1, 2)),
        (torch.ops.aten._softmax.default, (torch.randn(2, 3), 1, False)),
        (torch.ops.aten._log_softmax.default, (torch.randn(2, 3), 1, False)),
        (torch.ops.aten.convolution.default,
         (torch.randn(1, 4, 5, 5), torch.randn(2, 2, 3, 3), None, [2, 1], [1, 0], [1, 2], False, [0, 0], 2)),
        (torch.ops.aten.convolution.default,
         (torch.randn(1, 4, 5), torch.randn(4, 3, 3), torch.randn(3), [2], [1], [1], True, [1], 1)),
        (torch.ops.aten._native_batch_norm_legit_no_training.default,
         (torch.randn(2, 3), torch.rand(3), torch.rand(3), torch.rand(3), torch.rand(3), 0.1, 1e-5)),
        (torch.ops.aten.native_group_norm.default, (torch.randn(2, 4, 3), torch.rand(4), torch.rand(4), 2, 4, 3, 2, 1e-5)),
        (torch.ops.aten.native_layer_norm.default, (torch.randn(2, 4), [4], torch.rand(4), None, 1e-5)),
        (torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
         (*(torch.randn(1, 2, 5, 4) for _ in range(3)), 0.0, True)),
    ],
    ids=lambda value: str(value) if not isinstance(value, tuple) else "",
)  # fmt: skip
def test_an_operator_is_the_function_that_it_is(operator, args):
    rules = RuleMode({})
    rules.tables = [{}]
    found, right = run_operator(rules, operator, args, {}), operator(*args)
    first = found[0] if isinstance(found, tuple) else found
    torch.testing.assert_close(first, right[0] if isinstance(right, (tuple, list)) else right)
    assert not isinstance(right, (tuple, list)) or len(found) >= len(right)


# --------------------------------------------------------------------------------------------------- hooks that look on
HOOKS = {
    "backward": lambda m: m.register_full_backward_hook(lambda *_: None),
    "backward pre": lambda m: m.register_full_backward_pre_hook(lambda *_: None),
    "forward": lambda m: m.register_forward_hook(lambda *_: None),
    "both": lambda m: (HOOKS["backward"](m), HOOKS["backward pre"](m)),
}


def hookable():
    """Without in-place operations on what a hooked module gives, which torch refuses."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Sigmoid(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(16, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3),
    ).double().eval()  # fmt: skip
    for m in (net[1], net[8]):
        nn.init.normal_(m.running_mean)
        nn.init.uniform_(m.running_var, 0.5, 2)
    return net


def flat_first():
    """A fully connected layer that sees the input rearranged."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).double().eval()


@pytest.mark.parametrize("hook, name", in_turn(HOOKS, METHODS, len(METHODS) // 2))
@pytest.mark.parametrize("make_net", [hookable, flat_first])
def test_hooks_that_look_on_change_nothing(make_net, hook, name):
    net, x = make_net(), inputs("conv")
    right = METHODS[name](net).explain(x, 1)
    for module in [*net, net]:  # also around them all: hooks upon hooks
        HOOKS[hook](module)
    found = METHODS[name](net).explain(x, 1)
    torch.testing.assert_close(found.attributions, right.attributions, rtol=1e-9, atol=1e-12)
    assert found.details == right.details


@pytest.mark.parametrize("hook", ["backward", "backward pre"])
def test_a_norm_behind_a_reshape_is_not_folded(hook):
    """What a hook gives is a view: of the layer's result itself, not of that in another shape."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.fc, self.norm, self.head = nn.Linear(192, 12), nn.BatchNorm1d(3), nn.Linear(12, 3)
            nn.init.normal_(self.norm.running_mean)

        def forward(self, x):
            return self.head(self.norm(self.fc(x.flatten(1)).view(-1, 3, 4)).flatten(1))

    net, x = Net().double().eval(), inputs("conv")
    right = tw.LRP(net, composite="epsilon_gamma").attribute(x, 1)
    HOOKS[hook](net.norm)
    torch.testing.assert_close(tw.LRP(net, composite="epsilon_gamma").attribute(x, 1), right)


def test_rules_by_hand_under_hooks():
    net, x = flat_first(), inputs("conv").requires_grad_()
    right = tw.LRP(net, composite="epsilon_plus_flat", first="flat").attribute(x.detach(), 1)
    for module in (*net, net):
        HOOKS["both"](module)
    with tw.LRP.rules("epsilon_plus_flat", first="flat") as rules:
        y = net(x)
    (found,) = torch.autograd.grad(y[:, 1].sum(), x)
    assert rules.returns_relevance
    torch.testing.assert_close(found, right)


# ------------------------------------------------------------------------------------- operations without a gradient
@each_method
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("n", [1, 3])
def test_int8_layers_are_refused(n, name):
    net, x = make("conv", torch.float), inputs("conv", n, torch.float)
    int8 = torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(
        ValueError, match=r"an operation in between has no gradient, as those of int8 models.*perturbation"
    ):
        METHODS[name](int8).attribute(x, 1)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    "method", [tw.Saliency, tw.IntegratedGradients, tw.GradCAM, lambda m: tw.GradCAM(m, layer="conv1")]
)
@pytest.mark.parametrize("n", [1, 3])
def test_int8_layers_of_other_methods(method, n):
    net, x = make("conv", torch.float), inputs("conv", n, torch.float)
    int8 = torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(ValueError, match=r"no gradient|no layer passes a grid"):
        method(int8).attribute(x, 1)
    channels = torch.arange(3).view(3, 1, 1)  # methods without gradients take them
    found, near = (tw.FeatureAblation(m).attribute(x, 1, feature_mask=channels) for m in (int8, net))
    assert (found - near).norm() < 0.3 * near.norm()


# ------------------------------------------------------------------------------- where no layer runs by itself
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: nn.Sequential(m, nn.Linear(4, 4).double())])
@pytest.mark.parametrize("kind", ["traced", "scripted", "exported"])
def test_fullgrad_refuses_graphs_whose_biases_it_cannot_read(kind, wrap):
    net, graph, x = exported("conv", False)
    if kind != "exported":
        graph = torch.jit.trace(net, x) if kind == "traced" else torch.jit.script(net)
    with pytest.raises(TypeError, match=r"in which no layer runs by itself.*give the nn.Module"):
        tw.FullGrad(wrap(graph)).attribute(x, 1)
    tw.FullGrad(wrap(net)).attribute(x, 1)
    tw.FullGrad(torch.fx.symbolic_trace(hookable())).attribute(x, 1)  # calls its modules
