r"""DeepLIFT's rules of selections, whose masks and indices may come from the signal. Names are as in ``deeplift_rules``.

A selection is linear where it picks the same elements in both runs, which is most often so. Else it is not, and what no gradient
passes, the mask, has changed the output too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from torchwhy.engine.rules.mode import custom_backward
from torchwhy.engine.rules.operations import OpCall, OpRule
from torchwhy.engine.structure import AnyOutput, carries_signal, map_nested

INDEXED = ("getitem", "gather", "index_select", "take", "take_along_dim", "masked_select", "masked_scatter", "scatter",
           "scatter_add", "index_add", "index_copy", "index_fill", "index_put")  # fmt: skip


def recorded_if(condition: Callable[[OpCall], bool]) -> Callable[[OpRule], OpRule]:
    """Mark a rule that needs its operation in both runs only on a condition, the same in both; else it runs as it is."""

    def mark(rule: OpRule) -> OpRule:
        rule.when = condition  # type: ignore[attr-defined]
        return rule

    return mark


def share_by_factors(y: Tensor, shares: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the value y, of whose multiplier m each signal gets ``m factor``: of the signals the node keeps only the shapes.

    Args:
        y: the value ``(...)``.
        shares: pairs of a signal, whose shape broadcasts to that of y, and its factor ``(...)``.
    """
    kept = [(factor, signal.shape) for signal, factor in shares]
    return custom_backward(
        y, lambda m: tuple((m * factor).sum_to_size(shape) for factor, shape in kept), *(signal for signal, _ in shares)
    )


def are_same(new: Tensor, old: Tensor) -> bool:
    """Return whether what no gradient passes is the same in both runs."""
    if new.shape != old.shape:
        return False
    # the run that was recorded keeps its tensors from being overwritten
    return (new.data_ptr() == old.data_ptr() and new.stride() == old.stride()) or bool(new.equal(old))


def rescale_where(call: OpCall) -> Tensor:
    r"""Share y = a where the mask is true, b elsewhere, see :func:`share_selection`."""
    return share_selection(call, _where(call), _where(call.base))


def rescale_masked_fill(call: OpCall) -> Tensor:
    r"""Share y = x where the mask is false, a constant elsewhere, see :func:`share_selection`."""
    return share_selection(call, _masked_fill(call), _masked_fill(call.base))


def share_gate(call: OpCall, signal: tuple[Tensor, Tensor], gate: tuple[AnyOutput, AnyOutput]) -> Tensor:
    r"""Share y = g x where no gradient passes g: linear if it is the same in both runs, a selection if it is 0 or 1."""
    (x1, x0), (g1, g0) = signal, gate
    if not isinstance(g1, Tensor) or are_same(g1, g0):
        return call()
    if all(bool(((g == 0) | (g == 1)).all()) for g in (g1, g0)):
        return share_selection(call, (g1 != 0, x1, 0.0), (g0 != 0, x0, 0.0))
    return count_by_value(call)


Selected = tuple[Tensor, AnyOutput, AnyOutput]  # the mask, what is taken where it is true, and where it is not


def share_selection(call: OpCall, new: Selected, old: Selected) -> Tensor:
    r"""Share y = c a + (1 - c) b, where the mask c is a function of signals that no gradient passes.

    :math:`\Delta y = \bar c \Delta a + (1 - \bar c) \Delta b + \Delta c (\bar a - \bar b)`. The last term is shared in
    proportion to :math:`|\Delta a|` and :math:`|\Delta b|`, so that of one signal, as in ``where(h > 0, h, 0)``, it is the
    rescale rule :math:`m_h = \Delta y / \Delta h`. Where neither changes there is none to share it: it is counted.
    """
    c1, c0 = new[0], old[0]
    if are_same(c1, c0):
        return call()
    y1, y0 = call.value(), call.base.value()
    middle = (c1.to(y1.dtype) + c0.to(y1.dtype)) / 2
    changes = [_change(now, then, y1) for now, then in zip(new[1:], old[1:])]
    weights = (middle, 1 - middle)
    rest = y1 - y0 - sum(weight * change for weight, change in zip(weights, changes))
    size = changes[0].abs() + changes[1].abs()
    rounding = 8 * torch.finfo(y1.dtype).eps * (y1.abs() + y0.abs())
    if bool(((size == 0) & (rest.abs() > rounding)).any()):
        call.mode.count_without_rule(f"{call.name} by value", call.args, call.kwargs)
    share = torch.where(size == 0, 0, rest / torch.where(size == 0, 1, size))
    factors = [weight + change.sign() * share for weight, change in zip(weights, changes)]
    return share_by_factors(y1, [(s, f) for s, f in zip(new[1:], factors) if carries_signal(s)])


def _change(now: object, then: object, like: Tensor) -> Tensor:
    """Return how an operand changed, in the shape of the result; not at all if no gradient passes it."""
    if not isinstance(now, Tensor) or not isinstance(then, Tensor) or not carries_signal(now):
        return like.new_zeros(()).expand(like.shape)
    return (now.detach() - then).expand(like.shape)


def _where(call: OpCall) -> Selected:
    """Return the mask and both operands of ``torch.where(mask, a, b)`` and of ``a.where(mask, b)``."""
    mask, a, b = (_argument(call, i, key) for i, key in enumerate(("condition", "input", "other")))
    return (mask, a, b) if mask.dtype == torch.bool else (a, mask, b)


def _masked_fill(call: OpCall) -> Selected:
    """Return where ``masked_fill`` keeps its input, that input, and what it puts elsewhere."""
    return ~_argument(call, 1, "mask"), call.x, _argument(call, 2, "value")


def _argument(call: OpCall, i: int, name: str) -> AnyOutput:
    return call.args[i] if i < len(call.args) else call.kwargs.get(name)


def _chosen_by(call: OpCall) -> list[Tensor]:
    """Return the masks and indices of a call."""
    found: list[Tensor] = []

    def collect(value: object) -> None:
        if isinstance(value, Tensor) and not value.is_floating_point() and not value.is_complex():
            found.append(value)

    map_nested(collect, (call.args[1:], call.kwargs))
    return found


def _is_chosen(call: OpCall) -> bool:
    return bool(_chosen_by(call))


@recorded_if(_is_chosen)
def rescale_indexed(call: OpCall) -> object:
    """Keep the gradient of what picks the same elements in both runs; else there is no rule."""
    pairs = zip(_chosen_by(call), _chosen_by(call.base))
    return call() if all(are_same(new, old) for new, old in pairs) else count_by_value(call)


def count_by_value(call: OpCall) -> AnyOutput:
    """Run a call as it is, counted as one that is not linear: what no gradient passes differs between the runs."""
    call.mode.count_without_rule(f"{call.name} by value", call.args, call.kwargs)
    return call()


def rescale_reduction(call: OpCall) -> AnyOutput:
    """Keep the gradient of sums and means of elements by their index; products and extremes have no rule."""
    if not {"sum", "mean"} & {v for v in (*call.args, *call.kwargs.values()) if isinstance(v, str)}:
        call.mode.count_without_rule(call.name, call.args, call.kwargs)
    return call()


SELECTION_RULES: dict[str, OpRule] = {
    "where": rescale_where,
    "masked_fill": rescale_masked_fill,
    **dict.fromkeys(INDEXED, rescale_indexed),
}
REDUCTIONS: dict[str, OpRule] = dict.fromkeys(("scatter_reduce", "segment_reduce"), rescale_reduction)
