"""Operations of ATen, of which the graphs of ``torch.export`` are made, as the functions of torch that they are.

A rule stands at ``torch.conv2d``; a graph calls ``torch.ops.aten.conv2d.default``, or after ``run_decompositions`` even
``torch.ops.aten.convolution.default``. Here each is run as the function that a model written in Python would have called, so
that it finds its rule and its arguments have the names that the rule knows.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from torchwhy.engine.rules.operations import TorchFunction, operation
from torchwhy.engine.structure import AnyOutput, Keywords, Output
from torchwhy.engine.torch_internals import NATIVE_FUNCTIONS, arguments_of_operator

if TYPE_CHECKING:
    from torchwhy.engine.rules.mode import RuleMode

Run = Callable[[TorchFunction, tuple, Keywords], Output]


def run_operator(mode: RuleMode, operator: TorchFunction, args: tuple, kwargs: Keywords) -> Output:
    """Return what an operator of ATen gives, run under rules as the function of torch that it is."""

    def run(function: TorchFunction, args: tuple, kwargs: Keywords) -> AnyOutput:
        return mode.__torch_function__(function, (), args, kwargs)

    name = getattr(operator, "overloadpacket", operator).__name__
    if name in TRANSLATIONS:
        return TRANSLATIONS[name](run, arguments_of_operator(operator, args, kwargs))
    function = function_of_operator(name)
    return (
        mode.run_operation(operation(operator), operator, args, kwargs)
        if function is None
        else run(function, args, kwargs)
    )


@cache
def function_of_operator(name: str) -> TorchFunction | None:
    """Return the function of torch that takes the same arguments as an operator; None without one.

    Those that are written in C++ do; those written in Python may have others.
    """
    for space in (torch, NATIVE_FUNCTIONS, Tensor):
        found = getattr(space, name, None)
        if isinstance(found, (types.BuiltinFunctionType, types.MethodDescriptorType)):
            return found
    return None


# ------------------------------------------------------------------ operators that have other arguments than the function
def _convolution(run: Run, a: Keywords) -> Output:
    kind = f"{'conv_transpose' if a['transposed'] else 'conv'}{a['weight'].dim() - 2}d"
    names = ("output_padding", "groups", "dilation") if a["transposed"] else ("dilation", "groups")
    operands = (a[name] for name in ("input", "weight", "bias", "stride", "padding", *names))
    return run(getattr(F, kind), (*operands,), {})


def _batch_norm(run: Run, a: Keywords) -> Output:
    statistics = (a.get("running_mean"), a.get("running_var"), a["weight"], a["bias"])
    y = run(F.batch_norm, (a["input"], *statistics, a.get("training", False), a["momentum"], a["eps"]), {})
    return y, a["input"].new_empty(0), a["input"].new_empty(0)  # the statistics, for a backward pass of torch's own


def _layer_norm(run: Run, a: Keywords) -> Output:
    y = run(F.layer_norm, (a["input"], a["normalized_shape"], a["weight"], a["bias"], a["eps"]), {})
    return y, a["input"].new_empty(0), a["input"].new_empty(0)


def _group_norm(run: Run, a: Keywords) -> Output:
    y = run(F.group_norm, (a["input"], a["group"], a["weight"], a["bias"], a["eps"]), {})
    return y, a["input"].new_empty(0), a["input"].new_empty(0)


def _max_pool_operator(run: Run, a: Keywords) -> Output:
    names = ("self", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
    function = getattr(F, f"max_pool{len(a['kernel_size'])}d_with_indices")
    return run(function, tuple(a[name] for name in names), {"return_indices": True})


def _softmax(run: Run, a: Keywords) -> AnyOutput:
    return run(F.softmax, (a["self"], a["dim"]), {"dtype": torch.float} if a["half_to_float"] else {})


def _log_softmax(run: Run, a: Keywords) -> Output:
    return run(F.log_softmax, (a["self"], a["dim"]), {"dtype": torch.float} if a["half_to_float"] else {})


def _attention(run: Run, a: Keywords) -> Output:
    mask = a.get("attn_mask", a.get("attn_bias"))
    options = {"attn_mask": mask, "dropout_p": a["dropout_p"], "is_causal": a["is_causal"], "scale": a["scale"]}
    y = run(F.scaled_dot_product_attention, (a["query"], a["key"], a["value"]), options)
    return (y, *(None,) * 8)  # what torch's own backward pass would want


TRANSLATIONS: dict[str, Callable[[Run, Keywords], Output]] = {
    "convolution": _convolution,
    **dict.fromkeys(
        ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"), _batch_norm
    ),
    **dict.fromkeys(("max_pool2d_with_indices", "max_pool3d_with_indices"), _max_pool_operator),
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "_softmax": _softmax,
    "_log_softmax": _log_softmax,
    **dict.fromkeys(
        ("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_efficient_attention",
         "_scaled_dot_product_flash_attention"),
        _attention,
    ),
}  # fmt: skip
