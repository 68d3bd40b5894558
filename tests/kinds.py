"""The table of kinds of models: one network in the forms that people have it in, used by ``test_model_kinds.py``."""

import copy
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial

import torch
from nets import Conv, inputs, make
from torch import nn
from torch.func import functional_call, vmap
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

import torchwhy as tw


@dataclass(frozen=True, eq=False)
class Kind:
    """A form of a model, and what is expected of the methods there.

    ``refuses`` and ``says`` are, by trait of a method (see ``traits``), what the error or the warning matches, None for nothing;
    the first trait counts. Else the numbers are those of the plain module. ``differs`` is, by trait, the least cosine of what is
    another number with good reason.
    """

    build: Callable  # (plain module, rows) → model, or (model, module to compare with)
    prefix: str = ""  # of the names of layers
    plain_prefix: str = ""  # of those of the module to compare with
    target: object = 1
    dtype: torch.dtype = torch.double
    inputs: Callable = lambda x: x
    rtol: float = 1e-7  # of the largest value
    cosine: float | None = None  # compared by it where numbers are coarse
    refuses: dict[str, str] = field(default_factory=dict)
    says: dict[str, str] = field(default_factory=dict)
    differs: dict[str, float] = field(default_factory=dict)

    @cache  # noqa: B019 - kinds live as long as the tests
    def models(self, net):
        """The model of this kind, and the module that it has to equal."""
        plain = make(net, self.dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch says of its old ways
            built = self.build(plain, self.rows(net))
        return built if isinstance(built, tuple) else (built, make(net))

    @cache  # noqa: B019
    def rows(self, net):
        return self.inputs(inputs(net, dtype=self.dtype))


RULES = (
    tw.GuidedBackprop,
    tw.DeconvNet,
    tw.LRP,
    tw.ExcitationBackprop,
    tw.DeepLIFT,
    tw.DeepSHAP,
    tw.GuidedGradCAM,
    tw.DirectLogitAttribution,
)


def traits(case):
    """What decides how a method fares with a model that is no plain module."""
    name = case.method.__name__
    found = {name, str(case), family(case), "any"}
    if case.layer or case.method.layer or case.method in (tw.FullGrad, tw.GuidedGradCAM, tw.NeuronConductance):
        found.add("layers")
    if case.layer or {"neuron", "layer"} & case.options.keys() or family(case) == "circuits":
        found |= {"layers", "named layer"}
    if "tolerance" in case.options:
        found.add("tolerance")
    if case.method in RULES or family(case) == "attention":
        found.add("rules")
    if case.method in RULES:
        found.add("rules of gradients")
    if case.method.needs_gradient:
        found.add("gradient")
    if case.options.get("composite") != "epsilon" and case.method is tw.LRP:
        found.add("first layer")
    return found


def family(case):
    """The room of a method, ``"layers"`` for what the room of gradients has of them."""
    room = case.method.__module__.split(".")[1]
    return "layer gradients" if room == "gradient" and (case.layer or "neuron" in case.options) else room


def at(case, prefix):
    """The case with the names of its layers behind a prefix."""
    options = {name: behind(value, prefix) for name, value in case.options.items() if name in ("neuron", "layer")}
    wrap = case.wrap and (lambda model: {name: behind(value, prefix) for name, value in case.wrap(model).items()})
    return replace(case, layer=behind(case.layer, prefix), options=case.options | options, wrap=wrap)


def behind(place, prefix):
    """A name of a layer, or what holds such names, behind a prefix; anything else as it is."""
    if isinstance(place, str):
        return prefix + place
    if isinstance(place, list):
        return [behind(one, prefix) for one in place]
    if isinstance(place, (tw.Neuron, tw.Layer, tw.circuits.Component)):
        names = {tw.Neuron: ("layer",), tw.Layer: ("module",)}.get(type(place), ("reads", "writes"))
        return replace(place, **{name: behind(getattr(place, name), prefix) for name in names})
    return place


# what is said, by the reason
COMPILED = {"rules": "compiled, so that its operations cannot be given rules; use"}
GRAPH = {
    "FullGrad": "is a graph, scripted, traced or exported, in which no layer runs by itself.*give the nn.Module",
    "layers": "is a graph, scripted, traced or exported, in which no layer runs by itself; give the nn.Module",
}
SCRIPT = {
    "FullGrad": GRAPH["FullGrad"],
    "layers": "TorchScript, whose layers cannot be watched; give the nn.Module",
    "rules": "is TorchScript, whose operations cannot be given rules; use the nn.Module",
}
CALLABLE = {"layers": "a plain callable( and)? has no layers"}
NO_GRADIENT = (
    r"(in a differentiable way|no gradient pass|nothing can be differentiated).*(perturbation method|AttentionRollout)"
)
OF_GRADIENTS = {"gradient": NO_GRADIENT, "rules of gradients": NO_GRADIENT}
LAYER_AGAIN = r"torch.utils.checkpoint\), where nothing can be read or changed; switch that off"
REENTRANT = r"use_reentrant=False, or switch it off|in a differentiable way|as far as gradients say; name a layer"
INT8 = r"no gradient, as those of int8 models.*perturbation method|no layer passes a grid.*name a layer"
OF_INT8 = {
    "gradient": INT8,
    "cam": INT8,
    "ExcitationBackprop": INT8,
    "ALTI": "choose other layers=, or AttentionRollout",
}
MAPPED = {
    "attention": "no attention, .* that can be seen; use a gradient method, LRP or a CAM",
    "FullGrad": "inside a transform of torch.func, such as vmap.*choose a layer outside",
    "cam": "no layer passes a grid .*; name a layer",
    "layers": "inside a transform of torch.func, such as vmap.*choose a layer outside",
}
CHECKPOINTED = {
    **dict.fromkeys(("LayerActivation", "ExcitationBackprop", "FullGrad", "ActivationPatching")),
    **dict.fromkeys(("DirectLogitAttribution", "LogitLens", "TunedLens")),
    **dict.fromkeys(("EigenCAM", "KPCACAM", "ScoreCAM", "SSCAM", "ISCAM", "AblationCAM", "OptiCAM")),
    "named layer": LAYER_AGAIN,
    "cam": LAYER_AGAIN,
}
INFERENCE = "made under torch.inference_mode.*copy.deepcopy"
OF_INFERENCE = {
    **dict.fromkeys(("LRP", "ExcitationBackprop", "DirectLogitAttribution")),
    "gradient": INFERENCE,
    "cam": INFERENCE,
}
CONTRAST = {"ExcitationBackprop": 0.7}  # a difference of two maps
OPAQUE = "kept the plain gradient, as rules do not reach what is inside autograd Functions"

KINDS: dict[str, Kind] = {}


def kind(**how):
    """A kind by the function that makes it."""

    def add(build):
        KINDS[build.__name__] = Kind(build, **how)
        return build

    return add


class Around(nn.Module):
    """A module around the network."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


def around(forward):
    """A class of modules around a network with a forward pass of its own: ``forward(self, x)``."""
    return lambda net, *_: type("Around", (Around,), {"forward": forward})(net).to(next(net.parameters()).dtype).eval()


# ------------------------------------------------------------------------------------------------ compiled, and graphs
@kind(prefix="_orig_mod.", refuses=COMPILED)
def compiled_eager(net, x):
    return torch.compile(net, backend="eager")


@kind(prefix="_orig_mod.", refuses=COMPILED)
def compiled_aot_eager(net, x):
    return torch.compile(net, backend="aot_eager")


@kind(refuses=COMPILED)
def compiled_in_place(net, x):
    net.compile(backend="eager")
    return net


@kind(refuses=COMPILED)
def compiled_forward(net, x):
    net.forward = torch.compile(net.forward, backend="eager")
    return net


@kind(refuses=COMPILED)
def compiled_part(net, x):
    net.conv2 = torch.compile(net.conv2, backend="eager")
    return net


@kind(refuses=CALLABLE)
def compiled_function(net, x):
    return torch.compile(lambda x: net(x), backend="eager")


def program(net, x):
    several = {} if hasattr(net, "qkv") else {0: torch.export.Dim("n", min=1, max=4096)}  # its len(x) is 3 for good
    return torch.export.export(net, (x,), dynamic_shapes=(several,))


@kind(refuses=GRAPH, says={"attention": "made for a number of rows"})
def exported(net, x):
    return program(net, x).module()


@kind(
    refuses={**GRAPH, "ALTI": "choose other layers=, or AttentionRollout"},
    says={"attention": "made for a number of rows"},
)
def exported_core(net, x):
    return program(net, x).run_decompositions().module()


@kind()
def symbolically_traced(net, x):
    return torch.fx.symbolic_trace(net) if not hasattr(net, "qkv") else net


def script(net, x):
    return torch.jit.script(net) if isinstance(net, Conv) else torch.jit.trace(net, x)


@kind(refuses=SCRIPT)
def scripted(net, x):
    return script(net, x)


@kind(refuses=SCRIPT)
def traced(net, x):
    return torch.jit.trace(net, x)


@kind(refuses=SCRIPT)
def frozen_script(net, x):
    return torch.jit.freeze(script(net, x))


# -------------------------------------------------------------------------------------------------------------- hooks
def out_of_place(net):
    """Without in-place operations on what a hooked module gives, which torch refuses; and such a one to compare with."""
    if hasattr(net, "relu"):
        net.relu.inplace = False
    return net


@kind()
def forward_hooks(net, x):
    for module in net.modules():
        module.register_forward_hook(lambda *_: None)
        module.register_forward_pre_hook(lambda m, args, kwargs: None, with_kwargs=True)
    return net


@kind()
def forward_hooks_that_replace(net, x):
    right, cut = copy.deepcopy(net), nn.Hardtanh(-0.3, 0.3)
    net.conv2.register_forward_hook(lambda m, args, out: cut(out))
    net.head.register_forward_pre_hook(lambda m, args: (args[0].tanh(),))
    right.conv2, right.head = nn.Sequential(right.conv2, cut), nn.Sequential(nn.Tanh(), right.head)
    return net, right


class OutOfPlace(nn.Module):
    """``nets.Conv`` without in-place operations."""

    def __init__(self, net):
        super().__init__()
        self.conv1, self.conv2, self.norm, self.head = net.conv1, net.conv2, net.norm, net.head
        self.relu = nn.ReLU()

    def forward(self, x):
        a = self.relu(self.conv1(x))
        b = self.norm(self.conv2(a))
        return self.head(F.relu(b + a).mean((2, 3)))


def without_writing(net):
    return OutOfPlace(net).eval() if hasattr(net, "relu") else net


@kind()
def backward_hooks(net, x):
    net = without_writing(net)
    for module in net.modules():
        module.register_full_backward_hook(lambda *_: None)
    return net


@kind()
def backward_pre_hooks(net, x):
    net = without_writing(net)
    for module in net.modules():
        module.register_full_backward_pre_hook(lambda *_: None)
    return net


@kind(prefix="net.")
def tensor_hooks(net, x):
    def forward(self, x):
        y = self.net(x)
        if y.requires_grad:
            y.register_hook(lambda g: None)
        return y

    return around(forward)(net)


# ------------------------------------------------------------------------------------------------------- parametrized
def weighted(net):
    return [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]


def with_weights_of(net):
    """A plain network with the weights that a parametrized one computes."""
    right = make("attending" if hasattr(net, "qkv") else "conv")
    with torch.no_grad():
        for mine, its in zip(weighted(right), weighted(net)):
            mine.weight.copy_(its.weight)
    return right


@kind()
def weight_norm(net, x):
    for module in weighted(net):
        parametrizations.weight_norm(module)
    return net


@kind()
def weight_norm_by_hooks(net, x):
    for module in weighted(net):
        torch.nn.utils.weight_norm(module)
    return net


@kind()
def spectral_norm(net, x):
    for module in weighted(net):
        parametrizations.spectral_norm(module)
    return net.eval(), with_weights_of(net)


@kind()
def pruned(net, x):
    for module in weighted(net):
        prune.l1_unstructured(module, "weight", amount=0.3)
    return net, with_weights_of(net)


class LoRA(nn.Module):
    """A linear layer and a product of two thin matrices beside it."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.randn(2, base.in_features, dtype=base.weight.dtype) / 4)
        self.up = nn.Parameter(torch.randn(base.out_features, 2, dtype=base.weight.dtype) / 4)

    def forward(self, x):
        return self.base(x) + x @ self.down.T @ self.up.T


@kind(rtol=1e-4, differs={"ExcitationBackprop": -1.0})  # excitation splits a sum of layers, and their sum, otherwise
def lora(net, x):
    right = copy.deepcopy(net)
    net.head = LoRA(net.head)
    with torch.no_grad():
        right.head.weight += net.head.up @ net.head.down
    return net.eval(), right


# -------------------------------------------------------------------------------- the forward pass, in another way
@kind(prefix="net.", refuses=CHECKPOINTED)
def checkpointed(net, x):
    return around(lambda self, x: checkpoint(self.net, x, use_reentrant=False))(net)


@kind(prefix="net.", refuses={"gradient": REENTRANT, "rules of gradients": REENTRANT, "cam": REENTRANT})
def checkpointed_reentrant(net, x):
    return around(lambda self, x: checkpoint(self.net, x, use_reentrant=True))(net)


@kind(
    prefix="net.",
    refuses=MAPPED,
    says={
        "DeepLIFT": "score changes by .* relu",
        "DeepSHAP": "score changes by .* relu",
        "rules": f"{OPAQUE}|runs none",
    },
    differs={"rules": -1.0},
)
def vmapped(net, x):
    return around(lambda self, x: vmap(lambda row: self.net(row[None])[0])(x))(without_writing(net))


@kind(prefix="net.")
def called_with_other_parameters(net, x):
    other = {name: p.detach().clone() for name, p in net.named_parameters()}
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    return around(lambda self, x: functional_call(self.net, other, (x,)))(net)


class Rectify(torch.autograd.Function):
    """A rectifier written by hand."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, g):
        return g * (ctx.saved_tensors[0] > 0)


class Twist(torch.autograd.Function):
    """The identity, written by hand."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return g


@kind(prefix="net.", says={"DeepLIFT": "", "DeepSHAP": "", "rules of gradients": OPAQUE})
def own_function(net, x):
    return around(lambda self, x: Twist.apply(self.net(x)))(net)


@kind(prefix="net.")
def views(net, x):
    return around(lambda self, x: self.net(x.transpose(2, 3).flatten(2).unflatten(2, (8, 8)).mT.chunk(1)[0]))(net)


@kind(prefix="net.")
def written_in_place(net, x):
    return around(lambda self, x: self.net(x).mul_(2).div_(2))(net)


@kind(
    prefix="net.", says={"first layer": "rule is for linear layers that see the input"}, differs={"first layer": -1.0}
)
def put_into_slices(net, x):
    def forward(self, x):
        z = torch.zeros_like(x)
        z[:, :, :4] = x[:, :, :4]
        z[:, :, 4:] = x[:, :, 4:]
        return self.net(z)

    return around(forward)(net)


@kind(prefix="module.", refuses={"rules": "DataParallel, which runs on threads.*use its `.module`"})
def data_parallel(net, x):
    return nn.DataParallel(net)


@kind(prefix="module.")
def averaged(net, x):
    return torch.optim.swa_utils.AveragedModel(net).eval()


@kind(prefix="net.")
def own_call(net, x):
    class Calls(Around):
        def __call__(self, x):
            return super().__call__(x)

    return Calls(net).eval()


@kind(prefix="0.inner.net.")
def nested(net, x):
    return nn.Sequential(Holds(net)).eval()


class Holds(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.inner = Around(net)

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs)


@kind()
def pickled(net, x):
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@kind(refuses=CALLABLE)
def function(net, x):
    return lambda x: net(x)


@kind(refuses=CALLABLE)
def partial_function(net, x):
    return partial(lambda net, x: net(x), net)


@kind()
def bound_method(net, x):
    return net.forward


# ------------------------------------------------------------------------------------------------------------ outputs
@kind(prefix="net.", target=lambda output: output[0][:, 1], refuses={"FinerCAM": "give an int"})
def tuple_output(net, x):
    return around(lambda self, x: (self.net(x), x.sum()))(net)


@kind(prefix="net.", target=lambda output: output["scores"][0][:, 1], refuses={"FinerCAM": "give an int"})
def dict_of_lists_output(net, x):
    return around(lambda self, x: {"other": x, "scores": [self.net(x), None]})(net)


@dataclass
class Outputs:
    """What a model gives."""

    logits: torch.Tensor
    hidden: torch.Tensor | None = None


@kind(prefix="net.")
def dataclass_output(net, x):
    return around(lambda self, x: Outputs(self.net(x)))(net)


# ---------------------------------------------------------------------------------------------------- modes and grads
@kind()
def training_mode(net, x):
    net.train()
    net.norm.eval()
    return net


@kind()
def frozen_parameters(net, x):
    return net.requires_grad_(False)


@kind(refuses=OF_INFERENCE)
def inference_parameters(net, x):
    with torch.inference_mode():
        return copy.deepcopy(net)


@kind(prefix="net.", refuses=OF_GRADIENTS)
def forward_without_grad(net, x):
    return around(torch.no_grad()(lambda self, x: self.net(x)))(net)


@kind(prefix="net.", refuses=OF_GRADIENTS)
def forward_in_inference_mode(net, x):
    return around(torch.inference_mode()(lambda self, x: self.net(x)))(net)


@kind(prefix="net.", refuses={"named layer": "runs more than once .* choose the call"})
def part_without_grad(net, x):
    def forward(self, x):
        y = self.net(x)
        with torch.no_grad():
            other = self.net.head(self.net.conv2(self.net.conv1(x[:1] + 1)).mean((2, 3)))
        return y + 0 * other

    return around(forward)(net)


@kind(prefix="net.")
def detached_part(net, x):
    return around(lambda self, x: self.net(x) + 0 * x.detach().mean())(net)


@kind(prefix="net.", refuses={"rules": "computes a gradient inside.*use a method without rules"})
def gradient_inside(net, x):
    def forward(self, x):
        with torch.enable_grad():
            z = torch.ones(2, dtype=x.dtype, requires_grad=True)
            (g,) = torch.autograd.grad(z.square().sum(), z)
        return self.net(x) * (g.sum() / 4)

    return around(forward)(net)


@kind(prefix="net.")
def no_autocast_inside(net, x):
    def forward(self, x):
        with torch.autocast("cpu", enabled=False):
            return self.net(x)

    return around(forward)(net)


@kind(prefix="net.", dtype=torch.float, cosine=0.9, says={"tolerance": "not reached"}, differs=CONTRAST)
def autocast_inside(net, x):
    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.net(x)

    return around(forward)(net)


# -------------------------------------------------------------------------------------------------------------- types
@kind(dtype=torch.float, cosine=0.99999)
def single_precision(net, x):
    return net


@kind(dtype=torch.half, cosine=0.99, differs=CONTRAST)
def float16(net, x):
    return net


# places for the disc that the ascent begins with score alike but for rounding
@kind(dtype=torch.bfloat16, cosine=0.9, says={"tolerance": "not reached"}, differs={"ExtremalPerturbation": 0.85})
def bfloat16(net, x):
    return net


@kind(inputs=lambda x: x.contiguous(memory_format=torch.channels_last))
def channels_last(net, x):
    return net.to(memory_format=torch.channels_last)


@kind(dtype=torch.float, rtol=1e-4, refuses=OF_INT8)
def int8_dynamic(net, x):
    q = torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)
    return q, copy.deepcopy(q)


# ------------------------------------------------------------------------------------------------------------ buffers
@kind()
def writes_buffers(net, x):
    net.register_buffer("seen", torch.zeros(()))
    forward = type(net).forward

    class Counts(type(net)):
        def forward(self, x):
            self.seen += len(x)
            return forward(self, x)

    net.__class__ = Counts
    return net


@kind()
def lazily_initialised(net, x):
    right, lazy = make("attending" if hasattr(net, "qkv") else "conv"), nn.LazyLinear(4, dtype=torch.double)
    net.head = lazy
    net(x)
    right.head.load_state_dict(net.head.state_dict())
    return net.eval(), right


@kind()
def shared_module(net, x):
    net.again = net.head
    net.list = nn.ModuleList([net.conv1, net.conv2, net.conv1])
    return net


@kind()
def tied_weights(net, x):
    net.twin = nn.Linear(6, 4).double()
    net.twin.weight = net.head.weight
    return net


@kind(prefix="net.", plain_prefix="net.")
def runs_twice(net, x):
    model = around(lambda self, x: self.head(self.head(self.net(x))))(net)
    model.head = nn.Linear(4, 4).double()
    right = around(lambda self, x: self.b(self.a(self.net(x))))(copy.deepcopy(net))
    right.a, right.b = copy.deepcopy(model.head), copy.deepcopy(model.head)
    return model.eval(), right.eval()


class Tagged(torch.Tensor):
    """A subclass with a ``__torch_function__`` that passes everything on."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return super().__torch_function__(func, types, args, kwargs or {})


@kind(inputs=lambda x: x.as_subclass(Tagged))
def subclass_inputs(net, x):
    return net


@kind()
def subclass_parameters(net, x):
    for module in weighted(net):
        module.weight = nn.Parameter(module.weight.detach().as_subclass(Tagged))
    return net
