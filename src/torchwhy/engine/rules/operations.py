"""The operations of torch by name: one name per operation, whichever of its spellings a model uses.

``F.relu``, ``torch.relu``, ``torch.relu_``, ``Tensor.relu``, ``Tensor.relu_`` and ``nn.ReLU(inplace=True)`` are all the
operation ``"relu"``; ``a + b``, ``a += b``, ``1 + a`` and ``torch.add(a, b)`` are all ``"add"``. Torch gives the functions
of one operation the same ``__name__``, up to underscores and a few synonyms, so that the name is read off the function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SYNONYMS = {
    "truediv": "div", "divide": "div", "true_divide": "div", "subtract": "sub", "multiply": "mul", "negative": "neg",
    "absolute": "abs", "clip": "clamp", "concat": "cat", "concatenate": "cat", "swapaxes": "transpose",
    "swapdims": "transpose", "moveaxis": "movedim", "special_expit": "sigmoid", "special_softmax": "softmax",
    "special_log_softmax": "log_softmax", "special_logsumexp": "logsumexp", "special_erf": "erf", "special_exp2": "exp2",
    "special_expm1": "expm1", "special_log1p": "log1p", "linalg_vector_norm": "vector_norm", "norm": "vector_norm",
    "special_erfc": "erfc", "linalg_matmul": "matmul", "__rtruediv__": "__rdiv__", "fix": "trunc",
    "max_pool1d_with_indices": "max_pool1d", "max_pool2d_with_indices": "max_pool2d",
    "max_pool3d_with_indices": "max_pool3d", "adaptive_max_pool1d_with_indices": "adaptive_max_pool1d",
    "adaptive_max_pool2d_with_indices": "adaptive_max_pool2d", "adaptive_max_pool3d_with_indices": "adaptive_max_pool3d",
}  # fmt: skip

# How the arguments of an operation are called, where a rule has to know: positional ones are bound to these names.
CONVOLUTION = "input weight bias stride padding dilation groups"
TRANSPOSED = "input weight bias stride padding output_padding groups dilation"
POOL = "input kernel_size stride padding dilation ceil_mode return_indices"
SIGNATURES = {
    "linear": "input weight bias",
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), CONVOLUTION),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), TRANSPOSED),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d"), POOL),
    **dict.fromkeys(
        ("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"), "input output_size return_indices"
    ),
    "batch_norm": "input running_mean running_var weight bias training momentum eps",
    "instance_norm": "input running_mean running_var weight bias use_input_stats momentum eps",
    "layer_norm": "input normalized_shape weight bias eps",
    "rms_norm": "input normalized_shape weight eps",
    "group_norm": "input num_groups weight bias eps",
    "softmax": "input dim dtype",
    "log_softmax": "input dim dtype",
    "logsumexp": "input dim keepdim",
    "scaled_dot_product_attention": "query key value attn_mask dropout_p is_causal scale enable_gqa",
    "dropout": "input p training inplace",
    "glu": "input dim",
    "amax": "input dim keepdim",
    "amin": "input dim keepdim",
    "max": "input dim keepdim",
    "min": "input dim keepdim",
    "vector_norm": "input p dim keepdim",
    "var": "input dim unbiased keepdim",
    "std": "input dim unbiased keepdim",
    "addmm": "input mat1 mat2 beta alpha",
    "baddbmm": "input batch1 batch2 beta alpha",
    "addcmul": "input tensor1 tensor2 value",
}
# functions of torch that share a name with another, but not the order of the arguments
OTHER_SIGNATURES: dict[Callable, str] = {
    torch.batch_norm: "input weight bias running_mean running_var training momentum eps cudnn_enabled",
    torch.instance_norm: "input weight bias running_mean running_var use_input_stats momentum eps cudnn_enabled",
    F.softmax: "input dim _stacklevel dtype",
    F.log_softmax: "input dim _stacklevel dtype",
    torch.conv_transpose1d: TRANSPOSED,
    torch.linalg.vector_norm: "input ord dim keepdim",
}

# Families. A name here says what the operation *is*; which rule it gets is the business of a method's table.
LINEAR_LAYERS = ("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
CONVOLUTIONS = LINEAR_LAYERS[1:]
RECTIFIERS = (
    "relu", "relu6", "hardtanh", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus",
    "hardswish", "threshold",
)  # fmt: skip
ACTIVATIONS = (*RECTIFIERS, "sigmoid", "hardsigmoid", "tanh", "logsigmoid", "log_sigmoid", "softsign", "tanhshrink",
               "hardshrink", "softshrink")  # fmt: skip
FUNCTIONS = (
    "exp", "exp2", "expm1", "log", "log1p", "log2", "log10", "sqrt", "rsqrt", "reciprocal", "square", "abs", "sin", "cos",
    "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "erf", "erfc", "clamp", "clamp_min",
    "clamp_max", "pow", "sinc", "logit", "special_ndtr", "special_log_ndtr", "lgamma",
)  # fmt: skip
POINTWISE = (*ACTIVATIONS, *FUNCTIONS)
PRODUCTS = ("mul", "matmul", "mm", "bmm", "mv", "dot", "inner", "outer", "einsum", "bilinear", "tensordot", "kron")
NORMS = ("layer_norm", "rms_norm", "group_norm", "instance_norm")
MAX_POOLS = ("max_pool1d", "max_pool2d", "max_pool3d",
             "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")  # fmt: skip
EXTREMES = ("amax", "amin", "max", "min", "maximum", "minimum", "fmax", "fmin")


def _name_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Move, copy or drop elements; nothing is computed.
STRUCTURAL = _name_set(
    "alias as_strided atleast_1d atleast_2d atleast_3d bfloat16 broadcast_tensors broadcast_to cat chunk clone "
    "column_stack contiguous cpu cuda detach diag diag_embed diagonal double dropout dropout1d dropout2d dropout3d "
    "alpha_dropout feature_dropout dsplit dstack embedding expand expand_as flatten flip fliplr flipud float gather "
    "getitem half hsplit hstack identity index index_select masked_select meshgrid movedim narrow narrow_copy pad permute "
    "pixel_shuffle pixel_unshuffle channel_shuffle ravel repeat repeat_interleave reshape reshape_as resolve_conj "
    "resolve_neg roll rot90 select slice split split_with_sizes squeeze stack swap t take take_along_dim tensor_split "
    "tile to transpose type type_as tril triu unbind unflatten unfold unsafe_chunk unsafe_split unsqueeze vsplit vstack "
    "view view_as where masked_fill pack_padded_sequence pad_packed_sequence requires_grad setitem im2col positive "
    "grad backward retain_grad register_hook"  # these are asked of a tensor, and compute nothing from it
)
# Linear in every signal they get (a sum of signals included): their gradient is their rule in every method.
LINEAR = STRUCTURAL | _name_set(
    "add addr sub rsub neg mean sum nansum cumsum diff trace avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d "
    "adaptive_avg_pool2d adaptive_avg_pool3d interpolate upsample fold col2im grid_sample affine_grid lerp index_add "
    "scatter scatter_add scatter_reduce segment_reduce fft_fft fft_rfft fft_fft2 fft_rfft2 fft_ifft fft_ifft2 fft_irfft "
    "fft_irfft2 real imag view_as_real view_as_complex stft istft embedding_bag unique index_copy copy conv_tbc "
    "masked_scatter batch_norm dropout index_put moveaxis trapezoid trapz cov"
) | frozenset(LINEAR_LAYERS)  # fmt: skip
NONNEGATIVE = frozenset(("relu", "relu6", "sigmoid", "hardsigmoid", "softmax", "abs", "square", "exp", "softplus"))
KEEPS_SIGN = frozenset(
    (*STRUCTURAL, *MAX_POOLS, "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
     "adaptive_avg_pool3d", "mean", "sum", "amax", "add", "mul", "cumsum")
) - {"pad", "masked_fill", "setitem", "masked_scatter"}  # fmt: skip


@dataclass(frozen=True)
class Operation:
    """What a torch function is: its operation's ``name``, whether it writes in place, and whether `b op a` is meant."""

    name: str
    in_place: bool = False
    reversed: bool = False
    signature: tuple[str, ...] = ()


@cache
def operation(function: Callable) -> Operation:
    """Return the operation that a torch function is one spelling of.

    >>> operation(torch.relu_).name, operation(torch.relu_).in_place
    ('relu', True)
    >>> operation(torch.Tensor.__rsub__).name, operation(torch.Tensor.__rsub__).reversed
    ('sub', True)
    """
    raw = getattr(function, "__name__", str(function))
    raw = SYNONYMS.get(raw, raw)
    if raw == "__get__":  # a property: x.T, x.mT, x.real, x.shape, x.grad_fn
        return Operation("view")
    bare = raw.strip("_")
    dunder = raw.startswith("__") and raw.endswith("__")
    in_place = bare == "setitem" or (raw.endswith("_") and not dunder)
    swapped = False
    if dunder and bare not in ("getitem", "setitem"):
        for prefix in ("i", "r"):
            if bare[:1] == prefix and hasattr(Tensor, f"__{bare[1:]}__") and bare not in ("rshift", "invert", "index"):
                in_place, swapped, bare = prefix == "i", prefix == "r", bare[1:]
                break
        swapped = swapped or bare == "rdiv"
        bare = {"rdiv": "div"}.get(bare, bare)
    name = SYNONYMS.get(bare, bare)
    signature = OTHER_SIGNATURES.get(function) or SIGNATURES.get(name, "")
    return Operation(name, in_place, swapped, tuple(signature.split()))


@cache
def out_of_place(name: str, function: Callable) -> Callable:
    """Return the out-of-place function of the operation `name`, of which `function` is one spelling."""
    original = getattr(function, "__name__", "")
    for space in (torch, F, Tensor, torch._C._nn):
        found = getattr(space, name, None)
        if found is not None and callable(found):
            return found
    raise NotImplementedError(f"no out-of-place twin of torch's {original!r} is known")


def bind_arguments(op: Operation, args: tuple, kwargs: Mapping[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Give the positional arguments after the first their names, where the operation's signature is known."""
    names = op.signature
    if not names:
        return args, dict(kwargs)
    bound = dict(zip(names[1:], args[1:]))
    if op.name in ("max", "min") and isinstance(bound.get("dim"), Tensor):  # of two tensors
        bound["other"] = bound.pop("dim")
    bound.update(kwargs)
    first = args[:1] if args else (bound.pop(names[0]),)
    bound.pop("_stacklevel", None)
    return first, bound
