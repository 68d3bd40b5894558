"""Every private name of torch that this package uses, in one place.

What torch does not promise may change in any release. So it is used here alone, under a name that says what is relied on,
and ``tests/test_torch_internals.py`` has a test of each: a release that changes one of them fails there first.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from functools import cache
from operator import attrgetter, methodcaller
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.nn.modules import _functions
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd
from torch.utils._python_dispatch import TorchDispatchMode

# What a module has itself: parameters, buffers and modules, and what it calls instead of itself after module.compile().
OwnParts = tuple[dict[str, nn.Parameter | None], dict[str, Tensor | None], dict[str, nn.Module | None], object]
TensorSubclass = TypeVar("TensorSubclass", bound=Tensor)

# The classes of modules that differ in their number of dimensions only.
BatchNormModule = _BatchNorm  # BatchNorm1d to 3d and SyncBatchNorm
NormModule = _NormBase  # these, and InstanceNorm1d to 3d
ConvModule = _ConvNd  # convolutions, transposed ones among them
DropoutModule = _DropoutNd
AdaptiveAvgPoolModule, AdaptiveMaxPoolModule = _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd
AvgPoolModule, MaxPoolModule = _AvgPoolNd, _MaxPoolNd

BackwardHookFunction = _functions.BackwardHookFunction  # the identity, that full backward hooks put into the graph
BackwardHookNode: type = BackwardHookFunction._backward_cls  # type: ignore[attr-defined] # of its nodes in the graph

# What a module that torch.compile made has, and no other: the module that it was made from.
COMPILED_ATTRIBUTE = "_orig_mod"
COMPILED_MARK = "_torchdynamo_orig_callable"  # what a function that it made has: the function that it was made from
# What a module calls instead of itself after module.compile(), None before.
compiled_call: Callable[[nn.Module], object] = attrgetter("_compiled_call_impl")

DispatchMode = TorchDispatchMode  # sees every operation that torch computes, below autograd
OPERATORS = (
    torch._ops.OpOverload,
    torch._ops.OpOverloadPacket,
)  # such as torch.ops.aten.relu.default, torch.ops.aten.relu
NATIVE_FUNCTIONS = torch._C._nn  # where the functions of torch.nn.functional that are not written in Python are


def is_graph(module: object) -> bool:
    """Say whether a module calls no module for a layer: TorchScript, or a graph of operators, as ``torch.export`` makes it."""
    nodes = module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ()
    return isinstance(module, torch.jit.ScriptModule) or any(isinstance(node.target, OPERATORS) for node in nodes)


# How many torch function modes are open on this thread; a default device other than the CPU is one.
count_function_modes: Callable[[], int] = torch._C._len_torch_function_stack
# While open, operations go to no torch function mode, and to no subclass's ``__torch_function__``.
without_torch_functions = torch._C.DisableTorchFunction


def _always() -> bool:
    return True


NOT_KNOWN = (None, None)  # in the place of hooks on saved tensors: torch 2.4 cannot say which there are


def _not_known(_peek: bool) -> tuple[object, object] | None:
    return None if torch._C._are_functorch_transforms_active() else NOT_KNOWN  # in transforms there can be none


# Whether the backward pass that is running was asked to retain its graph; True where torch cannot say.
backward_keeps_graph: Callable[[], bool] = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", _always)
# The number of the backward pass that is running on this thread, -1 without one.
running_backward_pass: Callable[[], int] = torch._C._current_graph_task_id
# The node of the graph that it has come to.
running_node: Callable[[], torch.autograd.graph.Node] = torch._C._current_autograd_node
# The parameters, buffers and modules that a module has itself, by name, some of them None: dicts, where the public ways walk.
own_parts: Callable[[nn.Module], OwnParts] = attrgetter("_parameters", "_buffers", "_modules", "_compiled_call_impl")
own_buffers: Callable[[nn.Module], dict[str, Tensor | None]] = attrgetter("_buffers")
own_modules: Callable[[nn.Module], dict[str, nn.Module | None]] = attrgetter("_modules")
# The torch.autograd.Function that a node of the graph, a BackwardCFunction, is the backward pass of.
function_of_node: Callable[[object], type] = attrgetter("_forward_cls")
# What a tensor is a view of, None for one that has its own memory.
base_of_view: Callable[[Tensor], Tensor | None] = Tensor._base.__get__  # type: ignore[union-attr]
# What autograd hands the tensors to that it keeps for the backward pass, as (pack, unpack); None where it keeps them itself,
# NOT_KNOWN where torch cannot say.
hooks_on_saved_tensors: Callable[[bool], tuple[object, object] | None] = getattr(
    torch._C._autograd, "_top_saved_tensors_default_hooks", _not_known
)
# What torch.nn.utils' weight norms compute of (v, g, dim): v g / |v|. Its second derivative is wrong (torch 2.14).
weight_norm: Callable[[Tensor, Tensor, int], Tensor] = torch._weight_norm
# How often a tensor's memory was written to: two equal numbers mean that it was not in between.
version_of: Callable[[Tensor], int] = Tensor._version.__get__  # type: ignore[attr-defined]


# Whether a transform of torch.func (vmap, grad, jvp) is running on this thread: its tensors stand for others.
transforms_are_active: Callable[[], bool] = torch._C._are_functorch_transforms_active


def unwrap_transformed(tensor: Tensor) -> Tensor:
    """Return the tensor that one in transforms of ``torch.func`` stands for, outside of them all."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def arguments_of_operator(
    operator: Callable[..., object], args: tuple, kwargs: Mapping[str, object]
) -> dict[str, object]:
    """Return the arguments of an operator, such as ``torch.ops.aten.convolution.default``, by the names in its schema."""
    schema = getattr(operator, "default", operator)._schema.arguments  # type: ignore[union-attr]
    given = dict(zip((a.name for a in schema), args))
    return {**{a.name: a.default_value for a in schema}, **given, **kwargs}


def make_wrapper(cls: type[TensorSubclass], like: Tensor, shape: tuple[int, ...]) -> TensorSubclass:
    """Return a tensor of a subclass that has a shape, the type and the device of ``like``, and no memory."""
    return Tensor._make_wrapper_subclass(cls, shape, dtype=like.dtype, device=like.device)  # type: ignore[return-value]


def makes_new_memory(operation: torch._ops.OpOverload) -> bool:
    """Return whether an operation of a dispatch mode writes its result to new memory: it is no view, nor in place."""
    return not any(result.alias_info for result in operation._schema.returns)


def saved_input(node: torch.autograd.graph.Node) -> Tensor:
    """Return the input that a node of the graph keeps for its backward pass; those of batch and instance norm have one."""
    return node._saved_input  # type: ignore[attr-defined]


# The number of the node of a tensor that is still there, as :func:`sequence_number` tells it.
number_of_node: Callable[[torch.autograd.graph.Node], int] = methodcaller("_sequence_nr")


def sequence_number(node: torch.autograd.graph.Node) -> int:
    """Return how many nodes of the graph were made before one, on its thread: later ones have larger numbers.

    -1 for the node of an autograd Function that is in no graph any more, of which torch 2.4 cannot be asked.
    """
    if isinstance(node, BackwardCFunction):
        try:
            node.name()
        except RuntimeError:
            return -1
    return number_of_node(node)


# The number that the next node of the graph gets, on this thread.
next_sequence_number: Callable[[], int] = torch._C._autograd._get_sequence_nr


@cache
def body_without_dispatch(function: Callable[..., object]) -> Callable[..., object] | None:
    """Return one of torch's Python functions that does not hand itself to a mode, while what it calls does.

    Functions of ``torch.nn.functional`` begin with ``if has_torch_function(...)``: in the twin's globals all functions whose
    name begins so say no. None for functions that are not written in Python.
    """
    if not isinstance(function, types.FunctionType):
        return None

    def says_no(*_: object) -> bool:
        return False

    names = [name for name in function.__globals__ if name.startswith("has_torch_function")]
    space = {**function.__globals__, **dict.fromkeys(names, says_no)}
    twin = types.FunctionType(function.__code__, space, function.__name__, function.__defaults__, function.__closure__)
    twin.__kwdefaults__ = function.__kwdefaults__
    return twin
