r"""The same values with less work: a model's operations as they would be written for one long evaluation.

* **Channels last.** Convolutions of images whose channels are last in memory need no reordering before and after each of
  them. The images are handed over in that format (:func:`channels_last`), and the weights are copied into it.
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

import weakref
from collections.abc import Callable
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
    compiled_call,
    make_wrapper,
    version_of,
    without_torch_functions,
)

_SPATIAL_DIMENSIONS: dict[Any, int] = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}
_BATCH_NORMS = (F.batch_norm, torch.batch_norm)
MANY_CONVOLUTIONS = 4  # a network with fewer is none of convolutions: one, say, makes the tokens of a transformer
SHORT_CONVOLUTION = 2**21  # multiply-adds in a call; a shorter one is faster than what decides over it
LARGE_OUTPUT = 2**19  # bytes that a convolution makes in a call; a smaller output stays in the cache
LARGE_OUTPUT_OF_MUCH_WORK = 3 * 2**19  # the same where each byte takes many multiply-adds
MUCH_WORK = 64  # multiply-adds for each byte: in wide layers the weights are larger than the images
JOINED = 0.3  # of what convolutions make, that networks join: each branch goes through channels that lie together
REARRANGED = 2 / 3  # the same: in networks that join or shuffle more, channels-last pays no more
FEW_GROUPED = 0.1  # of the convolutions
# what a batch norm asks of its input before it runs: a deferred convolution knows the answers
_OF_THE_SHAPE = (Tensor.dim, Tensor.size, Tensor.ndim.__get__, Tensor.shape.__get__)  # type: ignore[attr-defined]


def choose_optimizations(
    model: Model, cost: CallCost, times: float, *, device: torch.device, graph: bool, calls: int = 1
) -> CallOptimizations | None:
    """Return the optimizations that pay for calls of a model, None if none do. All follows from shapes and types.

    A convolutional network, seen by its many convolutions, is run channels-last on a CPU if these are long enough, if it does not
    join or shuffle channels all the time, and for evaluations if its images are large enough for what is done with them
    (:func:`_least_output`); and folded, but for evaluations of small images. On a GPU gradients are no faster by either,
    evaluations by folding; images with their channels last are for half precision there, which the units for it read in that
    format. Other models with ``nn.MultiheadAttention``, such as vision transformers, have contiguous tokens on a CPU. A compiled
    model is left as its compiler made it.

    Args:
        model: what is called.
        cost: of a call.
        times: how many times the rows of that call the other calls have.
        device: of the inputs.
        graph: whether gradients are computed.
        calls: how many of these there are.
    """
    if is_compiled(model) or (graph and device.type == "cuda"):
        return None
    on_cpu, many = device.type != "cuda", max(cost.convolutions, 1)
    few = cost.convolutions < MANY_CONVOLUTIONS or cost.multiply_adds * times < SHORT_CONVOLUTION * many
    output = cost.convolved * times / many
    small = on_cpu and not graph and output < _least_output(cost)
    if few or small or cost.rearranged > REARRANGED * cost.convolved:
        attends = isinstance(model, nn.Module) and any(isinstance(m, nn.MultiheadAttention) for m in model.modules())
        return CallOptimizations(channels_last=False, fold=False) if attends and on_cpu else None
    last = on_cpu or cost.dtype in (torch.half, torch.bfloat16)
    return CallOptimizations(channels_last=last, fold=not on_cpu or graph or output >= LARGE_OUTPUT, calls=calls)


def _least_output(cost: CallCost) -> int:
    """Return the bytes that a convolution makes in a call from which on evaluations are faster with their channels last.

    To reorder the images is what others cost. It is much beside light convolutions, and where branches are joined; little beside
    wide ones, for which the other order is the faster one as long as the images are small.
    """
    joined = cost.rearranged > JOINED * cost.convolved
    if cost.multiply_adds > MUCH_WORK * cost.convolved and not joined:
        return LARGE_OUTPUT_OF_MUCH_WORK
    return LARGE_OUTPUT if cost.grouped > FEW_GROUPED * cost.convolutions else 0


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
    """Return a tensor of 4 or 5 dimensions with its channels last in memory, any other as it is."""
    if tensor.dim() not in (4, 5) or tensor.shape[1] == 1:
        return tensor
    return tensor.contiguous(memory_format=torch.channels_last if tensor.dim() == 4 else torch.channels_last_3d)


class _DeferredConv(Tensor):
    """The output of a convolution that runs when its values are first asked for, or with the batch norm that follows.

    Args:
        run: compute it, with another weight and bias if given.
        x: the input.
        weight, bias: the model's own.
        shape: of the output.
    """

    run: Callable[..., Tensor]
    input: Tensor
    weight: Tensor
    bias: Tensor | None
    input_state: tuple
    output: Tensor | None

    @staticmethod
    def __new__(
        cls, run: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor | None, shape: tuple[int, ...]
    ) -> _DeferredConv:
        made = make_wrapper(cls, x, shape)
        made.run, made.input, made.weight, made.bias = run, x, weight, bias
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
        channels_last: copy the weights of convolutions into that format. The images have to be in it already.
        fold: fold batch norms into convolutions. Not while rules of modified backpropagation are active: these are of the
            operations that the model runs by itself.
        calls: of the model, of about the same number of rows, for which a copy is made once.
    """

    def __init__(self, *, channels_last: bool = True, fold: bool = True, calls: int = 1) -> None:
        super().__init__()
        self.channels_last, self.fold, self.calls = channels_last, fold, calls
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
        x, options = _materialize(args[0]), dict(options)
        own, bias = options.pop("weight"), options.pop("bias", None)

        def run(weight: Tensor = own, bias: Tensor | None = bias) -> Tensor:
            if weight is own and self.channels_last and _is_frozen(own) and self._pays(x, own):
                weight = self._copy(channels_last, own)
            return func(x, weight, bias, **options)

        padding = options.get("padding", 0)
        is_plain = type(x) is Tensor and x.dim() == _SPATIAL_DIMENSIONS[func] + 2 and not isinstance(padding, str)
        is_exact = _is_frozen(own, bias) and own.dtype in (torch.float, torch.double)
        if not (self._folds_now and is_plain and is_exact) or x.is_inference():
            return run()
        shape = _output_shape(x, own, padding, options.get("stride", 1), options.get("dilation", 1))
        deferred = _DeferredConv(run, x, own, bias, shape)
        self._deferred.append(weakref.ref(deferred))
        return deferred

    def _batch_norm(self, func: Callable, z: _DeferredConv, args: tuple, kwargs: dict[str, object]) -> Tensor:
        _, options = bind_arguments(operation(func), args, kwargs)
        mean, var, gain, shift = (options.get(name) for name in ("running_mean", "running_var", "weight", "bias"))
        is_affine = type(mean) is Tensor and _is_frozen(gain, shift) and not options.get("training")
        with without_torch_functions():
            pays = self._pays(z, z.weight)
        if z.output is not None or not is_affine or not pays:
            return func(z.materialize(), *args[1:], **kwargs)
        weight, bias = self._copy(self._fold, z.weight, z.bias, mean, var, gain, shift, eps=options.get("eps", 1e-5))
        return z.run_with(weight, bias)

    def _fold(
        self, weight: Tensor, bias: Tensor | None, mean: Tensor, var: Tensor, gain: Tensor | None, shift: Tensor | None,
        eps: float,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return the weight and bias of a convolution and the batch norm after it as one."""
        scale = (var + eps).rsqrt() if gain is None else gain * (var + eps).rsqrt()
        moved = (-mean if bias is None else bias - mean) * scale
        scaled = weight * scale.view(-1, *[1] * (weight.dim() - 1))
        return channels_last(scaled) if self.channels_last else scaled, moved if shift is None else moved + shift

    def _pays(self, images: Tensor, weight: Tensor) -> bool:
        """Say whether the images of all calls have more pixels than an output channel has weights: worth a copy of these."""
        return self.calls * len(images) * images.shape[2:].numel() > weight[0].numel()

    def _copy(self, make: Callable, weight: Tensor, *others: Tensor | None, **options: object) -> Any:
        """Return ``make(weight, *others)``, made anew only where one of them was written to. One copy is kept of a weight."""
        sources = [t for t in (weight, *others) if t is not None]
        with without_torch_functions():
            # the tensors themselves are kept, so that no other one can have their ids
            state = make, options, tuple(map(id, sources)), [version_of(t) for t in sources], sources
            known = self._copies.get(id(weight))
            if known is None or known[0][:4] != state[:4]:
                with torch.no_grad():
                    known = self._copies[id(weight)] = state, make(weight, *others, **options)
        return known[1]


def _is_frozen(*tensors: Tensor | None) -> bool:
    """Return whether all of these are frozen parameters (or left out), which stay what they are from call to call."""
    return all(t is None or (type(t) is nn.Parameter and not t.requires_grad) for t in tensors)


def _output_shape(x: Tensor, weight: Tensor, padding: Any, stride: Any, dilation: Any) -> tuple[int, ...]:
    """Return the shape of a convolution's output."""
    sizes = []
    for i, (n, k) in enumerate(zip(x.shape[2:], weight.shape[2:])):
        p, s, d = (v[i % len(v)] if isinstance(v, (tuple, list)) else v for v in (padding, stride, dilation))
        sizes.append((n + 2 * p - d * (k - 1) - 1) // s + 1)
    return (len(x), len(weight), *sizes)
