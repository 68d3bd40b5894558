"""A finished batch explained once more: whether it comes out as it did tells a model that no description tells from another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from torchwhy.explanation import Explanation
from torchwhy.explanation.uneven import tensors_by_name

SAME_WITHIN = 5e-3  # of the size of all numbers together: TF32 and other orders of summing stay below


class ComesOutDifferently(ValueError):
    """A batch that was finished comes out otherwise now."""


def check_again(batch: int, file: Path, explained: Sequence[int], now: Explanation | None, rows: Sequence[int]) -> None:
    """Refuse to go on where a finished batch comes out otherwise, within rounding.

    Args:
        batch: its number.
        file: what was kept of it.
        explained: the rows of which it was kept.
        now: what comes out, None where no row could be explained.
        rows: the rows of which that is.

    Raises:
        ComesOutDifferently: it does.
    """
    what = ""
    if now is None or list(explained) != list(rows):
        what = "other rows fail"
    else:
        before = Explanation.load(file)
        for name in ("attributions", "scores"):
            share = difference_of(getattr(before, name), getattr(now, name))
            if share > 0:
                what = what or f"its {name} differ by {share:.2g} of their size"
    if what:
        raise ComesOutDifferently(
            f"batch {batch} of {file.parent} comes out otherwise than when it was finished ({what}): the model, or what it or "
            "the method calls, is not the same, or draws numbers of its own; give another folder"
        )


def difference_of(before: object, now: object) -> float:
    r"""Return :math:`\lVert a - b \rVert / \max(\lVert a \rVert, \lVert b \rVert)`, 0 where that is no more than rounding."""
    old, new = tensors_by_name(before), tensors_by_name(now)
    if {k: t.shape for k, t in old.items()} != {k: t.shape for k, t in new.items()}:
        return 1.0
    if not old:
        return 0.0
    a, b = (torch.cat([_flat_doubles(t) for t in parts]) for parts in (old.values(), [new[name] for name in old]))
    if not a.isfinite().equal(b.isfinite()):
        return 1.0
    size = max(float(a[a.isfinite()].norm()), float(b[b.isfinite()].norm()))
    share = float((a - b)[a.isfinite()].norm()) / size if size else 0.0
    kinds = [t.dtype for t in old.values() if t.is_floating_point()]
    return share if share > max([SAME_WITHIN, *(16 * torch.finfo(kind).eps for kind in kinds)]) else 0.0


def _flat_doubles(t: Tensor) -> Tensor:
    return t.detach().cpu().double().flatten()
