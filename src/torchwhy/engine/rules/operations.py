"""The operations of torch by name: one name per operation, whichever of its spellings a model uses.

``F.relu``, ``torch.relu``, ``torch.relu_``, ``Tensor.relu``, ``Tensor.relu_`` and ``nn.ReLU(inplace=True)`` are all the
operation ``"relu"``; ``a + b``, ``a += b``, ``1 + a`` and ``torch.add(a, b)`` are all ``"add"``. Torch gives the functions
of one operation the same ``__name__``, up to underscores and a few synonyms, so that the name is read off the function.

:class:`OpCall` is an operation as a model called it, with its arguments: what a rule gets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchwhy.engine.structure import AnyOutput, Keywords
from torchwhy.engine.torch_internals import NATIVE_FUNCTIONS

TorchFunction = Callable[..., AnyOutput]

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
    "arccos": "acos", "arccosh": "acosh", "arcsin": "asin", "arcsinh": "asinh", "arctan": "atan", "arctanh": "atanh",
    "arctan2": "atan2", "special_sinc": "sinc", "special_logit": "logit", "special_gammaln": "lgamma",
    "special_digamma": "digamma", "special_psi": "digamma", "special_erfinv": "erfinv", "special_i0": "i0",
    "special_polygamma": "polygamma", "special_multigammaln": "mvlgamma", "special_gammainc": "igamma",
    "special_gammaincc": "igammac", "special_xlogy": "xlogy", "special_round": "round", "mod": "remainder",
    "floordiv": "floor_divide", "greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le",
    "not_equal": "ne", "ger": "outer", "row_stack": "vstack", "constant_pad_nd": "pad", "linalg_diagonal": "diagonal",
    "native_channel_shuffle": "channel_shuffle", "linalg_cross": "cross", "linalg_inv": "inverse",
    "linalg_pinv": "pinverse", "linalg_det": "det", "linalg_slogdet": "slogdet", "linalg_svd": "svd", "linalg_lu": "lu",
    "linalg_matrix_exp": "matrix_exp", "linalg_matrix_power": "matrix_power", "linalg_lu_solve": "lu_solve",
    "linalg_multi_dot": "chain_matmul", "linalg_householder_product": "orgqr",
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
SOFTMAXES = ("softmax", "log_softmax", "logsumexp")
SPREADS = ("var", "std", "vector_norm")
RATIOS = ("div",)


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
    # copies, in spellings that models rarely use
    "adjoint alias_copy as_strided_copy as_strided_scatter autocast_to_full_precision autocast_to_reduced_precision "
    "block_diag cartesian_prod cdouble cfloat chalf coalesce combinations dequantize detach_copy diagflat diagonal_copy "
    "diagonal_scatter expand_copy feature_alpha_dropout fw_primal_copy ipu make_dual_copy mtia native_dropout "
    "permute_copy reshape_alias_copy resize resize_as reversed select_copy select_scatter slice_copy slice_inverse "
    "slice_scatter sparse_mask split_copy split_with_sizes_copy squeeze_copy t_copy to_dense to_mkldnn to_sparse "
    "transpose_copy unbind_copy unfold_copy unsafe_split_with_sizes unsqueeze_copy values values_copy view_copy xpu "
    "unsafe_view to_copy lift_fresh_copy mT mH numpy_T matrix_H "  # of ATen
    "pin_memory record_stream register_post_accumulate_grad_hook share_memory "
    "grad backward retain_grad register_hook"  # these are asked of a tensor, and compute nothing from it
)
# Linear in every signal they get (a sum of signals included): their gradient is their rule in every method.
LINEAR = STRUCTURAL | _name_set(
    "add sub rsub neg mean sum nansum cumsum diff trace avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d "
    "adaptive_avg_pool2d adaptive_avg_pool3d interpolate upsample fold col2im grid_sample affine_grid index_add "
    "scatter scatter_add scatter_reduce segment_reduce fft_fft fft_rfft fft_fft2 fft_rfft2 fft_ifft fft_ifft2 fft_irfft "
    "fft_irfft2 real imag view_as_real view_as_complex stft istft embedding_bag unique index_copy copy conv_tbc "
    "masked_scatter batch_norm dropout index_put moveaxis trapezoid trapz "
    "affine_grid_generator complex conj conj_copy conj_physical cumulative_trapezoid deg2rad fft_fftn fft_fftshift "
    "fft_hfft fft_hfft2 fft_hfftn fft_ifftn fft_ifftshift fft_ihfft fft_ihfft2 fft_ihfftn fft_irfftn fft_rfftn fill "
    "fill_diagonal gradient grid_sampler grid_sampler_2d grid_sampler_3d index_fill max_unpool1d max_unpool2d "
    "max_unpool3d nanmean neg_view_copy put rad2deg sum_to_size unique_consecutive view_as_complex_copy "
    "view_as_real_copy"
) | frozenset(LINEAR_LAYERS)  # fmt: skip
# Linear in the first argument only, or in both but not in their product: by the names of the two.
BILINEAR = {**dict.fromkeys(LINEAR_LAYERS, ("input", "weight")), "grid_sample": ("input", "grid")}
# Compute gradients, or prepare for it.
GRADIENTS = ("grad", "backward", "retain_grad", "register_hook")
# Ask something of a tensor, or return what no gradient passes: comparisons, indices, integers, quantized tensors.
NOT_DIFFERENTIABLE = _name_set(
    # comparisons, logic, bits
    "all allclose and any bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor contains "
    "eq equal ge gt invert is_nonzero isclose isfinite isin isinf isnan isneginf isposinf isreal le logical_and "
    "logical_not logical_or logical_xor lshift lt ne or rshift signbit xor "
    # indices, counts, integers
    "argmax argmin argsort argwhere bincount bool bucketize byte ccol_indices ccol_indices_copy char col_indices "
    "col_indices_copy count_nonzero crow_indices crow_indices_copy gcd hash_tensor histc indices indices_copy int lcm "
    "linalg_matrix_rank long multinomial nonzero nonzero_static one_hot row_indices row_indices_copy searchsorted short "
    "unravel_index "
    # what a tensor is: its size, its memory, its kind; "attribute" is all that is read without a call, such as x.shape
    "attribute const_data_ptr data_ptr dense_dim dim dimI dimV dim_order element_size get_device is_coalesced is_complex is_conj "
    "is_contiguous is_distributed is_floating_point is_inference is_neg is_pinned is_same_size is_set_to is_shared "
    "is_signed is_view len ndimension nelement nested_tensor_size nested_tensor_storage_offsets nested_tensor_strides nnz "
    "numel size sparse_dim storage storage_offset storage_type untyped_storage coalesced "
    # symbolic sizes
    "sym_acos sym_asin sym_atan sym_cos sym_cosh sym_float sym_int sym_ite sym_max sym_min sym_not sym_sin sym_sinh "
    "sym_sqrt sym_sum sym_tan sym_tanh "
    # leave torch, or come from elsewhere; write where autograd refuses
    "apply array array_wrap assert_async clear_non_serializable_cached_data deepcopy dlpack dlpack_device format "
    "functional_assert_async item map map2 module_load numpy reduce_ex repr resize_as_sparse set setstate sparse_resize "
    "sparse_resize_and_clear tolist "
    # between processes
    "all_gather all_gather_coalesced all_gather_single all_reduce all_reduce_coalesced all_to_all all_to_all_single "
    "broadcast irecv isend recv reduce reduce_scatter reduce_scatter_single send "
    # quantized tensors
    "choose_qparams_optimized fbgemm_linear_quantize_weight fbgemm_pack_gemm_matrix_fp16 fbgemm_pack_quantized_matrix "
    "int_repr q_per_channel_axis q_per_channel_scales q_per_channel_zero_points q_scale q_zero_point qscheme "
    "quantize_per_channel quantize_per_tensor quantize_per_tensor_dynamic quantized_batch_norm quantized_gru_cell "
    "quantized_lstm_cell quantized_max_pool1d quantized_max_pool2d quantized_max_pool3d quantized_rnn_relu_cell "
    "quantized_rnn_tanh_cell rowwise_prune wrapped_linear_prepack wrapped_quantized_linear_prepacked "
    # special functions without a derivative in torch
    "special_airy_ai special_bessel_j0 special_bessel_j1 special_bessel_y0 special_bessel_y1 "
    "special_chebyshev_polynomial_t special_chebyshev_polynomial_u special_chebyshev_polynomial_v "
    "special_chebyshev_polynomial_w special_hermite_polynomial_h special_hermite_polynomial_he "
    "special_laguerre_polynomial_l special_legendre_polynomial_p special_modified_bessel_i0 special_modified_bessel_i1 "
    "special_modified_bessel_k0 special_modified_bessel_k1 special_scaled_modified_bessel_k0 "
    "special_scaled_modified_bessel_k1 special_shifted_chebyshev_polynomial_t special_shifted_chebyshev_polynomial_u "
    "special_shifted_chebyshev_polynomial_v special_shifted_chebyshev_polynomial_w special_spherical_bessel_j0"
)
# Make a tensor anew, or write over one: of what they are given they take the shape, or what to draw from.
FACTORIES = _name_set(
    "bernoulli binomial cauchy constant empty empty_like exponential full_like geometric kaiming_uniform log_normal normal "
    "ones_like poisson random uniform zero zeros_like"
)
# Everything else that a gradient passes. No method has a rule for it: it is counted, and refused in strict mode.
WITHOUT_RULE = _name_set(
    # functions of one element, steps among them
    "angle ceil digamma erfinv floor frac frexp i0 mvlgamma nan_to_num polygamma round sgn sign special_entr "
    "special_erfcx special_i0e special_i1 special_i1e special_ndtri trunc "
    # functions of two
    "atan2 copysign float_power floor_divide fmod heaviside igamma igammac ldexp logaddexp2 "
    "nextafter polar remainder special_xlog1py special_zeta xlogy "
    # products of matrices and sums with them, in spellings that are rare
    "addbmm addmv chain_matmul cross dsmm hsmm saddmm smm sparse_broadcast_to_copy sparse_mask_projection "
    "sspaddmm vdot "
    # over a dimension: order, products, spread
    "aminmax corrcoef cov cummax cummin cumprod frobenius_norm histogram histogramdd index_reduce kthvalue linalg_matrix_norm "
    "linalg_norm logcumsumexp median mode msort nanmedian nanquantile native_norm norm_except_dim nuclear_norm "
    "quantile renorm sort std_mean topk var_mean "
    # pools and activations with chance or powers in them
    "fractional_max_pool2d fractional_max_pool2d_with_indices fractional_max_pool3d fractional_max_pool3d_with_indices "
    "gumbel_softmax lp_pool1d lp_pool2d lp_pool3d "
    # losses and distances
    "binary_cross_entropy binary_cross_entropy_with_logits cross_entropy "
    "ctc_loss gaussian_nll_loss hinge_embedding_loss linear_cross_entropy "
    "margin_ranking_loss multi_margin_loss multilabel_margin_loss multilabel_soft_margin_loss nll_loss "
    "pdist poisson_nll_loss soft_margin_loss "
    "triplet_margin_with_distance_loss "
    # linear algebra
    "cholesky_inverse cholesky_solve det geqrf inverse linalg_cholesky linalg_cholesky_ex linalg_cond linalg_eig "
    "linalg_eigh linalg_eigvals linalg_eigvalsh linalg_inv_ex linalg_ldl_factor linalg_ldl_factor_ex linalg_ldl_solve "
    "linalg_lstsq linalg_lu_factor linalg_lu_factor_ex linalg_matrix_sqrth linalg_polar linalg_qr linalg_solve "
    "linalg_solve_ex linalg_solve_triangular linalg_svdvals linalg_tensorinv linalg_tensorsolve linalg_vander lobpcg "
    "logdet lu lu_solve lu_unpack matrix_exp matrix_power orgqr ormqr pca_lowrank pinverse slogdet svd svd_lowrank "
    "triangular_solve "
    # layers as torch's own code calls them: for other devices, in parts, with quantization in their training
    "batch_norm_backward_elemt batch_norm_backward_reduce batch_norm_elemt batch_norm_gather_stats "
    "batch_norm_gather_stats_with_counts batch_norm_stats batch_norm_update_stats convolution "
    "fake_quantize_per_channel_affine fake_quantize_per_tensor_affine fbgemm_linear_fp16_weight "
    "fbgemm_linear_fp16_weight_fp32_activation fbgemm_linear_int8_weight fbgemm_linear_int8_weight_fp32_activation "
    "fused_moving_avg_obs_fake_quant fused_rms_norm miopen_batch_norm miopen_convolution miopen_convolution_add_relu "
    "miopen_convolution_relu miopen_convolution_transpose miopen_depthwise_convolution miopen_rnn native_batch_norm "
    "native_batch_norm_legit native_group_norm native_layer_norm"
)
# Properties of operations that have a family of their own.
NONNEGATIVE = frozenset(("relu", "relu6", "sigmoid", "hardsigmoid", "softmax", "abs", "square", "exp", "softplus"))
KEEPS_SIGN = frozenset(
    (*STRUCTURAL, *MAX_POOLS, "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
     "adaptive_avg_pool3d", "mean", "sum", "amax", "add", "mul", "cumsum")
) - {"pad", "masked_fill", "setitem", "masked_scatter"}  # fmt: skip


@dataclass(frozen=True)
class Operation:
    """What a torch function is.

    Args:
        name: the operation's name.
        in_place: whether it writes into its first argument.
        reversed: whether ``b op a`` is meant.
        asks: whether it only asks something, so that nothing that a gradient passes comes out, and nothing is written.
        signature: the names of its arguments, where a rule has to know them.
    """

    name: str
    in_place: bool = False
    reversed: bool = False
    asks: bool = False
    signature: tuple[str, ...] = ()


@cache
def operation(function: TorchFunction) -> Operation:
    """Return the operation that a torch function is one spelling of.

    >>> operation(torch.relu_).name, operation(torch.relu_).in_place
    ('relu', True)
    >>> operation(torch.Tensor.__rsub__).name, operation(torch.Tensor.__rsub__).reversed
    ('sub', True)
    """
    raw = getattr(getattr(function, "overloadpacket", function), "__name__", str(function))
    raw = SYNONYMS.get(raw, raw)
    if raw == "__get__":  # an attribute: x.T, x.mT, x.real, x.shape, x.grad_fn
        attribute = getattr(getattr(function, "__self__", None), "__name__", "")
        same_elements = attribute in ("T", "H", "mT", "mH", "real", "imag", "data")
        return Operation("view") if same_elements else Operation("attribute", asks=True)
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
    asks = (name in NOT_DIFFERENTIABLE or name in GRADIENTS) and not in_place
    return Operation(name, in_place, swapped, asks, tuple(signature.split()))


@cache
def out_of_place(name: str, function: TorchFunction) -> TorchFunction:
    """Return the out-of-place function of the operation ``name``, of which ``function`` is one spelling."""
    original = getattr(function, "__name__", "")
    for space in (torch, F, Tensor, NATIVE_FUNCTIONS):
        found = getattr(space, name, None)
        if found is not None and callable(found):
            return found
    raise NotImplementedError(f"no out-of-place twin of torch's {original!r} is known")


def bind_arguments(op: Operation, args: tuple, kwargs: Mapping[str, object]) -> tuple[tuple, Keywords]:
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


class OpCall:
    """One operation as the model called it.

    Args:
        mode: the rules at work, of whichever kind the method made.
        op: the operation.
        function: a function that computes it out of place.
        args: its arguments: the first one, and those whose names are not known.
        kwargs: its other arguments by name.
        in_place: whether the model wants the result in the place of the first argument, and the rule writes it by itself.

    ``x`` is the first argument; ``base`` is the same call in the recorded run beside this one, where there is one (see
    :mod:`~torchwhy.engine.rules.paired_run`).
    """

    __slots__ = ("args", "base", "function", "in_place", "kwargs", "mode", "name", "x")
    base: OpCall
    x: Any  # a Tensor, but for operations on lists of them
    mode: Any

    def __init__(
        self,
        mode: object,
        op: Operation,
        function: TorchFunction,
        args: tuple,
        kwargs: Keywords,
        *,
        in_place: bool = False,
    ) -> None:
        self.mode, self.name, self.function, self.in_place = mode, op.name, function, in_place
        self.args, self.kwargs = bind_arguments(op, args, kwargs)
        self.x = self.args[0] if self.args else None

    def __call__(self, *args: object) -> AnyOutput:
        """Evaluate the operation; ``args`` stand in for its first positional arguments."""
        return self.function(*args, *self.args[len(args) :], **self.kwargs)

    def as_called(self, x: Tensor) -> Tensor:
        """Evaluate a pointwise operation at x as the model asked for it: in place if so."""
        if not self.in_place:
            return self(x)
        in_place = getattr(torch, f"{self.name}_", None)
        return x.copy_(self(x)) if in_place is None else in_place(x, *self.args[1:], **self.kwargs)

    def value(self) -> AnyOutput:
        """Evaluate the operation without autograd."""
        with torch.no_grad():
            return self.function(*self.args, **self.kwargs)

    def second(self, *names: str) -> AnyOutput:
        """Return the second argument: by its place, else by the first of these names that it has; None if it is not given."""
        if len(self.args) > 1:
            return self.args[1]
        return next((self.kwargs[name] for name in names if name in self.kwargs), None)

    def with_args(self, args: tuple, kwargs: Keywords) -> OpCall:
        """Return the same operation with other arguments, and no recorded one beside it."""
        other = object.__new__(OpCall)
        other.mode, other.name, other.function, other.in_place = self.mode, self.name, self.function, self.in_place
        other.args, other.kwargs, other.x = args, kwargs, args[0] if args else None
        return other


OpRule = Callable[[OpCall], object]
RuleTable = Mapping[str, OpRule]
