r"""The same values with less work: a model's operations as they would be written for one long evaluation.

* **Channels last.** Convolutions of images whose channels are last in memory need no reordering before and after each of
  them. The images are handed over in that format (:func:`channels_last`), and the weights are copied into it. On a CPU one
  with many weights for few pixels is slower so: it gets its images as they would be otherwise, which are small.
* **Folded batch norms.** A batch norm in eval mode is an affine map of each channel, :math:`y = s z + t`. Where its input is
  a convolution that nothing else looks at, the convolution is run with weights :math:`s w` and bias :math:`s b + t`, and the
  batch norm not at all.
* **Contiguous tokens.** ``nn.MultiheadAttention`` with its batch first hands its tokens on transposed. The projection of a few
  rows is then one small product for each token; of contiguous tokens it is a single one.

All happen at the operations, in a ``TorchFunctionMode``: the model keeps its own weights, and nothing is registered on it.
A convolution cannot know whether a batch norm follows. So it is *deferred*: it returns a tensor that knows its shape but has
no values yet. If a batch norm is what asks first, both are computed as one; whatever else asks gets the plain values.
:func:`choose_optimizations` decides, from shapes alone, whether that is worth it.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from torchwhy.engine import state
from torchwhy.engine.rules.operations import bind_arguments, operation
from torchwhy.engine.run.call_cost import CallCost
from torchwhy.engine.structure import Keywords, Model
from torchwhy.engine.torch_internals import (
    COMPILED_MARK,
    BatchNormModule,
    compiled_call,
    make_wrapper,
    version_of,
    without_torch_functions,
)

_SPATIAL_DIMENSIONS: dict[Any, int] = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}
_BATCH_NORMS = (F.batch_norm, torch.batch_norm)
CONVOLUTIONAL = 1 / 8  # of the bytes a call makes, by convolutions: those of a transformer's tokens are less
SHORT_CONVOLUTION = 2**16  # bytes that a convolution makes in a call; a shorter one is faster than what decides over it
NORMED = 1 / 4  # of the convolutions, that batch norms follow
SUMMED = 1 / 4  # of what convolutions make, whose groups of channels are summed: slow where these are last
HEAVY = (
    2**15
)  # weights for each pixel that a convolution makes of an image; of more, channels-last is the slower format
LIGHT = 2**17  # weights that are few for any image
HALF = (torch.half, torch.bfloat16)
LAST_ON_CPU = (torch.float, *HALF)  # of which torch has fast convolutions with their channels last
# what a batch norm asks of its input before it runs: a deferred convolution knows the answers
_OF_THE_SHAPE = (Tensor.dim, Tensor.size, Tensor.ndim.__get__, Tensor.shape.__get__)  # type: ignore[attr-defined]


def foresee_optimizations(model: Model, size: float, *, device: torch.device, calls: int) -> CallOptimizations | None:
    """Return the optimizations that a model's modules tell before a call of it was counted, None if they do not.

    They do of networks in float32 on a CPU that have batch norms in eval mode for their convolutions, and whose images are so
    large that what convolutions make of them is not short. Their first call can be as long and as fast as the others.
    :func:`choose_optimizations` has the last word, after it.

    Args:
        model: what is called.
        size: bytes of that call's inputs.
        device: of the inputs.
        calls: how many of these there are.
    """
    if not isinstance(model, nn.Module) or device.type != "cpu" or size < SHORT_CONVOLUTION or is_compiled(model):
        return None
    modules = list(model.modules())
    convolutions = [m for m in modules if isinstance(m, (nn.Conv2d, nn.Conv3d))]
    normed = sum(isinstance(m, BatchNormModule) and not m.training for m in modules)
    is_float = all(m.weight.dtype == torch.float for m in convolutions)
    if not convolutions or not is_float or normed < NORMED * len(convolutions):
        return None
    return CallOptimizations(calls=calls)


def choose_optimizations(
    model: Model, cost: CallCost, times: float, *, device: torch.device, graph: bool, calls: int = 1,
    foreseen: CallOptimizations | None = None,
) -> CallOptimizations | None:  # fmt: skip
    """Return the optimizations that pay for calls of a model, None if none do. All follows from shapes and types.

    A network is one of convolutions if these make a good part of all that a call makes, and not only small tensors. On a CPU
    it is run channels-last, in float32 and in half precision, and its batch norms are folded: convolutions for which this does
    not pay are left out one by one (:class:`CallOptimizations`). Of float64 torch has no fast convolutions with their channels
    last, and groups of channels (of split attention) are summed slowly there: then batch norms are folded for gradients only.
    On a GPU gradients are no faster by either, evaluations by folding; images with their channels last are for half precision
    there, which the units for it read in that format. Other models with ``nn.MultiheadAttention``, such as vision
    transformers, have contiguous tokens on a CPU. A compiled model is left as its compiler made it.

    Args:
        model: what is called.
        cost: of a call.
        times: how many times the rows of that call the other calls have.
        device: of the inputs.
        graph: whether gradients are computed.
        calls: how many of these there are.
        foreseen: what the counted call ran under, whose copies of weights are kept if it is chosen.
    """
    if is_compiled(model) or (graph and device.type == "cuda"):
        return None
    on_cpu = device.type != "cuda"
    made = cost.total / 2 if graph else cost.total  # by the forward half
    long = cost.convolved * times >= SHORT_CONVOLUTION * cost.convolutions
    convolves = cost.convolutions > 0 and long and cost.convolved >= CONVOLUTIONAL * made
    last = convolves and cost.dtype in (LAST_ON_CPU if on_cpu else HALF) and cost.summed < SUMMED * cost.convolved
    normed = foreseen is not None or cost.batch_norms >= NORMED * cost.convolutions
    fold = convolves and normed and cost.dtype not in HALF and (last or graph or not on_cpu)
    if foreseen is not None and last and fold:
        foreseen.calls, foreseen.cost = calls, None
        return foreseen
    if last or fold:
        return CallOptimizations(channels_last=last, fold=fold, calls=calls)
    attends = isinstance(model, nn.Module) and any(isinstance(m, nn.MultiheadAttention) for m in model.modules())
    return CallOptimizations(channels_last=False, fold=False) if attends and on_cpu else None


def is_compiled(model: Model) -> bool:
    """Return whether a model, or a module of it, was compiled by ``torch.compile`` or is TorchScript."""
    parts = model.modules() if isinstance(model, nn.Module) else [model]
    return any(
        isinstance(part, (torch.jit.ScriptModule, torch.jit.ScriptFunction))
        or (isinstance(part, nn.Module) and compiled_call(part) is not None)
        or hasattr(getattr(part, "forward", part), COMPILED_MARK)
        for part in parts
    )


class DeferredConvError(RuntimeError):
    """Something was done to a deferred convolution, or to its input, that would change its value."""


def channels_last(tensor: Tensor) -> Tensor:
    """Return a tensor of 4 or 5 dimensions with its channels last in memory, any other as it is.

    Images of one pixel are in both formats, and torch takes them for the other one: here they get strides that say which.
    """
    if tensor.dim() not in (4, 5) or tensor.shape[1] == 1:
        return tensor
    if math.prod(tensor.shape[2:]) == 1:
        return tensor.reshape(len(tensor), *[1] * (tensor.dim() - 2), -1).movedim(-1, 1)
    return tensor.contiguous(memory_format=torch.channels_last if tensor.dim() == 4 else torch.channels_last_3d)


class _DeferredConv(Tensor):
    """The output of a convolution that runs when its values are first asked for, or with the batch norm that follows.

    Args:
        run: compute it, with another weight and bias if given.
        x: the input.
        weight, bias: the model's own.
        shape: of the output.
        last: whether it runs with its channels last.
    """

    run: Callable[..., Tensor]
    input: Tensor
    weight: Tensor
    bias: Tensor | None
    last: bool
    input_state: tuple
    output: Tensor | None

    @staticmethod
    def __new__(
        cls,
        run: Callable[..., Tensor],
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        shape: tuple[int, ...],
        last: bool,
    ) -> _DeferredConv:
        made = make_wrapper(cls, x, shape)
        made.run, made.input, made.weight, made.bias, made.last = run, x, weight, bias, last
        made.input_state, made.output = _state(x), None
        return made

    def run_with(self, weight: Tensor, bias: Tensor) -> Tensor:
        """Run the convolution with this weight and bias."""
        self._check()
        return self.run(weight, bias)

    def materialize(self) -> Tensor:
        """Run the convolution as the model asked for it."""
        if self.output is None:
            self._check()
            self.output = self.run()
        return self.output

    def _check(self) -> None:
        if _state(self.input) != self.input_state:
            raise DeferredConvError(
                "a convolution's input was changed in place, or autograd switched, before its output was used"
            )

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return func(*_materialize(args), **_materialize(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # type: ignore[override]
        raise DeferredConvError(f"{func} was asked of a convolution's output where Python functions are not seen")


def _state(x: Tensor) -> tuple:
    """Return what may not change between a convolution and the use of its output."""
    with without_torch_functions():
        return version_of(x), torch.is_grad_enabled(), torch.is_autocast_enabled(x.device.type)


def _materialize(value: Any) -> Any:
    """Return ``value`` with the deferred convolutions in it run."""
    if isinstance(value, _DeferredConv):
        return value.materialize()
    if type(value) in (tuple, list):
        return type(value)(map(_materialize, value))
    if type(value) is dict:
        return {k: _materialize(v) for k, v in value.items()}
    return value


class CallOptimizations(TorchFunctionMode):
    """Run a model's operations optimized while the block lasts: ``with CallOptimizations(): y = model(x)``.

    Copies of weights are made once and kept for the next block; a weight that was written to meanwhile is copied anew.

    Args:
        channels_last: run convolutions in that format, but for those with many weights for few pixels.
        fold: fold batch norms into convolutions, but for images of one pixel: these are nothing to norm. Not while rules of
            modified backpropagation are active: these are of the operations that the model runs by itself.
        calls: of the model, of about the same number of rows, for which a copy is made once.

    Attributes:
        cost: what counts the calls, and is to count no copies; None if nothing does.
    """

    def __init__(self, *, channels_last: bool = True, fold: bool = True, calls: int = 1) -> None:
        super().__init__()
        self.channels_last, self.fold, self.calls = channels_last, fold, calls
        self.cost: CallCost | None = None
        self._folds_now = fold
        self._copies: dict[int, tuple[tuple, Any]] = {}  # by the id of the weight
        self._deferred: list[weakref.ref[_DeferredConv]] = []

    def __enter__(self) -> CallOptimizations:
        self._folds_now = self.fold and state.rules.mode is None
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        deferred, self._deferred = self._deferred, []
        for reference in () if any(error) else deferred:
            if (kept := reference()) is not None:  # by a hook, say, for later
                kept.materialize()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():  # a compiler reads the model, and is to see it as it is
            return func(*args, **kwargs)
        if func in _SPATIAL_DIMENSIONS:
            return self._convolution(func, *bind_arguments(operation(func), args, kwargs))
        if args and isinstance(args[0], _DeferredConv):
            if func in _BATCH_NORMS:
                return self._batch_norm(func, args[0], args, kwargs)
            if func in _OF_THE_SHAPE:
                with without_torch_functions():
                    return func(*args, **kwargs)
        if func is F.linear:  # of other strides it is one product for each row, with copies of the weights
            args = tuple(a.contiguous() if isinstance(a, Tensor) else a for a in args)
        elif func is F.multi_head_attention_forward:
            whole: dict[int, Tensor] = {}  # query, key and value are often the same
            args = tuple(whole.setdefault(id(a), a.contiguous()) for a in args[:3]) + args[3:]
        return func(*args, **kwargs)

    def _convolution(self, func: Callable, args: tuple, options: Keywords) -> Tensor:
        x, own, bias = _materialize(args[0]), options.pop("weight"), options.pop("bias", None)
        steps = (options.get("padding", 0), options.get("stride", 1), options.get("dilation", 1))
        shape = _output_shape(x.shape, own.shape, *(tuple(v) if type(v) is list else v for v in steps))
        # weights that the model has in that format already would bring the images back to it
        last = self.channels_last and (x.is_cuda or _is_light(own, shape) or not own.is_contiguous())
        if self.channels_last:
            x = channels_last(x) if last else x.contiguous()

        def run(weight: Tensor = own, bias: Tensor | None = bias) -> Tensor:
            if weight is own and last and _is_frozen(own) and self._pays(own, x.shape):
                weight = self._copy(channels_last, own)
            return func(x, weight, bias, **options)

        is_plain = type(x) is Tensor and x.dim() == _SPATIAL_DIMENSIONS[func] + 2
        is_exact = _is_frozen(own, bias) and own.dtype in (torch.float, torch.double)
        if not (self._folds_now and is_plain and is_exact) or x.is_inference():
            return run()
        if not self._pays(own, shape) or math.prod(shape[2:]) == 1:
            return run()
        deferred = _DeferredConv(run, x, own, bias, shape, last)
        self._deferred.append(weakref.ref(deferred))
        return deferred

    def _batch_norm(self, func: Callable, z: _DeferredConv, args: tuple, kwargs: dict[str, object]) -> Tensor:
        _, options = bind_arguments(operation(func), args, kwargs)
        mean, var, gain, shift = (options.get(name) for name in ("running_mean", "running_var", "weight", "bias"))
        is_affine = type(mean) is Tensor and _is_frozen(gain, shift) and not options.get("training")
        if z.output is not None or not is_affine:
            return func(z.materialize(), *args[1:], **kwargs)
        how = {"eps": options.get("eps", 1e-5), "last": z.last}
        weight, bias = self._copy(_fold, z.weight, z.bias, mean, var, gain, shift, **how)
        return z.run_with(weight, bias)

    def _pays(self, weight: Tensor, shape: tuple[int, ...]) -> bool:
        """Say whether the images of all calls have more pixels than an output channel has weights: worth a copy of these."""
        return self.calls * shape[0] * math.prod(shape[2:]) * len(weight) > weight.numel()

    def _copy(self, make: Callable, weight: Tensor, *others: Tensor | None, **options: object) -> Any:
        """Return ``make(weight, *others)``, made anew only where one of them was written to. One copy is kept of a weight."""
        sources = [t for t in (weight, *others) if t is not None]
        with without_torch_functions():
            # the tensors themselves are kept, so that no other one can have their ids
            state = make, options, tuple(map(id, sources)), [version_of(t) for t in sources], sources
            known = self._copies.get(id(weight))
            if known is None or known[0][:4] != state[:4]:
                with torch.no_grad(), nullcontext() if self.cost is None else self.cost.paused():
                    known = self._copies[id(weight)] = state, make(weight, *others, **options)
        return known[1]


def _fold(
    weight: Tensor, bias: Tensor | None, mean: Tensor, var: Tensor, gain: Tensor | None, shift: Tensor | None,
    eps: float, last: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the weight and bias of a convolution and the batch norm after it as one."""
    scale = (var + eps).rsqrt() if gain is None else gain * (var + eps).rsqrt()
    moved = (-mean if bias is None else bias - mean) * scale
    scaled = weight * scale.view(-1, *[1] * (weight.dim() - 1))
    return channels_last(scaled) if last else scaled, moved if shift is None else moved + shift


def _is_light(weight: Tensor, shape: tuple[int, ...]) -> bool:
    """Return whether a convolution to images of this shape has so few weights that channels-last is the faster format."""
    return weight.numel() <= max(LIGHT, HEAVY * math.prod(shape[2:]))


def _is_frozen(*tensors: Tensor | None) -> bool:
    """Return whether all of these are frozen parameters (or left out), which stay what they are from call to call."""
    return all(t is None or (type(t) is nn.Parameter and not t.requires_grad) for t in tensors)


@lru_cache(maxsize=4096)
def _output_shape(images: torch.Size, weight: torch.Size, padding: Any, stride: Any, dilation: Any) -> tuple[int, ...]:
    """Return the shape of a convolution's output."""
    sizes, kernel = images[2:], weight[2:]
    if padding == "same":
        return (images[0], weight[0], *sizes)
    options = (_for_each(value, len(sizes)) for value in (0 if padding == "valid" else padding, stride, dilation))
    each = zip(sizes, kernel, *options)
    return (images[0], weight[0], *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, p, s, d in each))


def _for_each(value: Any, dimensions: int) -> tuple[int, ...]:
    """Return an option of a convolution for each dimension of the images."""
    if isinstance(value, int):
        return (value,) * dimensions
    return value if len(value) == dimensions else tuple(value) * dimensions
