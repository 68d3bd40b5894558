r"""The same values with less work: what a model's operations would be if it had been written for one long evaluation.

* Batch norm in eval mode is an affine map of each channel, :math:`y = s z + t`. Where its input is a convolution that nothing
  else looks at, the convolution is run with weights :math:`s w` and bias :math:`s b + t`, and the batch norm not at all.
* Convolutions of large images in the channels-last format get their weights in that format too, and linear maps contiguous
  inputs.

Seen at the operations, as rules are: the model keeps its own weights, and nothing is registered on it. Results differ by
rounding only.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from torchwhy.engine.rules.operations import bind_arguments, operation

_CONVOLUTIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}  # with their dimensions
_KEEPS_WAITING = (Tensor.dim,)  # what batch norm asks of its input


class MustNotWait(RuntimeError):
    """Something was done to a convolution that waits, or to its input, that the wait would change."""


def last_format(tensor: Tensor) -> Tensor:
    """A tensor of 4 or 5 dimensions with its channels last in memory; any other as it is."""
    if tensor.dim() not in (4, 5) or tensor.shape[1] == 1:
        return tensor
    return tensor.contiguous(memory_format=torch.channels_last if tensor.dim() == 4 else torch.channels_last_3d)


class _Waiting(Tensor):
    """A convolution that runs when its value is first asked for, or with the batch norm that follows it."""

    run: Callable[..., Tensor]  # with other weights and another bias, if given
    weight: Tensor
    bias: Tensor | None
    pixels: int  # of its output, over all rows
    input: Tensor
    state: tuple  # what its value depends on besides
    value: Tensor | None

    @staticmethod
    def __new__(
        cls, run: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor | None, shape: tuple[int, ...]
    ) -> _Waiting:
        made = Tensor._make_wrapper_subclass(cls, shape, dtype=x.dtype, device=x.device)
        made.run, made.weight, made.bias, made.value = run, weight, bias, None
        made.pixels = shape[0] * torch.Size(shape[2:]).numel()
        made.input, made.state = x, _state(x)
        return made

    def folded(self, weight: Tensor, bias: Tensor) -> Tensor:
        """The convolution with these weights."""
        self._check()
        return self.run(weight, bias)

    def ready(self) -> Tensor:
        """The convolution as the model asked for it."""
        if self.value is None:
            self._check()
            self.value = self.run()
        return self.value

    def _check(self) -> None:
        if _state(self.input) != self.state:
            raise MustNotWait(
                "a convolution's input was changed in place, or autograd switched, before its output was used"
            )

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return func(*_real(args), **_real(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise MustNotWait(f"{func} was asked of a convolution's output where Python functions are not seen")


def _state(x: Tensor) -> tuple:
    """What may not change between a convolution and the use of its output."""
    with torch._C.DisableTorchFunction():
        return x._version, torch.is_grad_enabled(), torch.is_autocast_enabled(x.device.type)


def _real(value: Any) -> Any:
    """``value`` with the convolutions in it run."""
    if isinstance(value, _Waiting):
        return value.ready()
    if type(value) in (tuple, list):
        return type(value)(map(_real, value))
    return {k: _real(v) for k, v in value.items()} if type(value) is dict else value


class Shortcuts(TorchFunctionMode):
    """While open, operations take the shortcuts above.

    Args:
        fold: whether batch norms are folded.
    """

    def __init__(self, *, fold: bool = True) -> None:
        super().__init__()
        self.fold, self.channels_last = fold, False
        self._made: dict[tuple, tuple[tuple, Any]] = {}
        self._waiting: list[weakref.ref[_Waiting]] = []

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        waiting, self._waiting = self._waiting, []
        for reference in () if any(error) else waiting:
            if (kept := reference()) is not None:  # by a hook, say
                kept.ready()

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func in _CONVOLUTIONS:
            return self._convolution(func, *bind_arguments(operation(func), args, kwargs))
        if func in (F.batch_norm, torch.batch_norm) and args and isinstance(args[0], _Waiting):
            return self._batch_norm(func, args, kwargs)
        if func in _KEEPS_WAITING and isinstance(args[0], _Waiting):
            with torch._C.DisableTorchFunction():
                return func(*args)
        args, kwargs = _real(args), _real(kwargs)
        if func is F.linear:  # of other strides it is one product for each row, with copies of the weights
            args = tuple(a.contiguous() if isinstance(a, Tensor) else a for a in args)
        elif func is F.multi_head_attention_forward:
            whole: dict[int, Tensor] = {}  # query, key and value are often the same
            args = tuple(whole.setdefault(id(a), a.contiguous()) for a in args[:3]) + args[3:]
        return func(*args, **kwargs)

    def _convolution(self, func: Callable, args: tuple, options: dict[str, Any]) -> Tensor:
        x, options = _real(args[0]), dict(options)
        own, bias = options.pop("weight"), options.pop("bias", None)

        def run(weight: Tensor = own, bias: Tensor | None = bias) -> Tensor:
            large = len(x) * x.shape[2:].numel() > own[0].numel()  # small images are worth no copy of many weights
            if self.channels_last and weight is own and _frozen(own) and large:
                weight = self._once(last_format, own)
            return func(x, weight, bias, **options)

        padding = options.get("padding", 0)
        plain = type(x) is Tensor and x.dim() == _CONVOLUTIONS[func] + 2 and not isinstance(padding, str)
        kept = _frozen(own, bias) and own.dtype in (torch.float, torch.double)
        if not (self.fold and plain and kept) or x.is_inference():
            return run()
        shape = _shape(x, own, padding, options.get("stride", 1), options.get("dilation", 1))
        waiting = _Waiting(run, x, own, bias, shape)
        self._waiting.append(weakref.ref(waiting))
        return waiting

    def _batch_norm(self, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
        (z,), options = bind_arguments(operation(func), args, kwargs)
        mean, var, gain, shift = (options.get(name) for name in ("running_mean", "running_var", "weight", "bias"))
        pays = z.pixels > z.weight[0].numel()  # this norm costs more than to fold it, and its values take more memory
        plain = type(mean) is Tensor and _frozen(gain, shift) and not options.get("training")
        if z.value is not None or not (plain and pays):
            return func(z.ready(), *_real(args[1:]), **_real(kwargs))
        made = self._once(self._fold, z.weight, z.bias, mean, var, gain, shift, eps=options.get("eps", 1e-5))
        return z.folded(*made)

    def _fold(
        self, weight: Tensor, bias: Tensor | None, mean: Tensor, var: Tensor, gain: Tensor | None, shift: Tensor | None,
        eps: float,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        self._made.pop((last_format.__name__, id(weight)), None)  # a copy made before folding paid
        scale = (var + eps).rsqrt() if gain is None else gain * (var + eps).rsqrt()
        moved = (-mean if bias is None else bias - mean) * scale
        scaled = weight * scale.view(-1, *[1] * (weight.dim() - 1))
        return last_format(scaled) if self.channels_last else scaled, moved if shift is None else moved + shift

    def _once(self, make: Callable, weight: Tensor, *more: Tensor | None, **options: Any) -> Any:
        """``make(weight, *more)``, again only when it would be another: a tensor was written to, or the format changed."""
        with torch._C.DisableTorchFunction():
            key = (make.__name__, id(weight), *map(id, more[-2:]))  # parameters all: they outlive the call
            # the tensors are kept with their versions, so that no other one can have their ids
            now = self.channels_last, options, [(t, t._version) for t in (weight, *more) if t is not None]
            known = self._made.get(key)
            if known is None or known[0][:2] != now[:2] or not _same(known[0][2], now[2]):
                with torch.no_grad():
                    known = self._made[key] = now, make(weight, *more, **options)
            return known[1]


def _same(a: list[tuple[Tensor, int]], b: list[tuple[Tensor, int]]) -> bool:
    return len(a) == len(b) and all(s is t and v == w for (s, v), (t, w) in zip(a, b))


def _frozen(*tensors: Tensor | None) -> bool:
    """Whether all of these are frozen parameters (or left out): they stay what they are from call to call."""
    return all(t is None or (type(t) is nn.Parameter and not t.requires_grad) for t in tensors)


def _shape(x: Tensor, weight: Tensor, padding: Any, stride: Any, dilation: Any) -> tuple[int, ...]:
    """The shape of a convolution's output."""
    sizes = []
    for i, (n, k) in enumerate(zip(x.shape[2:], weight.shape[2:])):
        p, s, d = (v[i % len(v)] if isinstance(v, (tuple, list)) else v for v in (padding, stride, dilation))
        sizes.append((n + 2 * p - d * (k - 1) - 1) // s + 1)
    return (len(x), len(weight), *sizes)
