"""Features: which input elements are kept or dropped together.

A *feature* is a group of input elements with one number.  A single pixel, a colour channel, a superpixel, a token or a
column spread over two input tensors are the same case: an integer for every element.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchwhy.engine.run.rows import to_device


@dataclass(frozen=True)
class Features:
    """Numbers 0..d-1 on every element of one or several tensors.

    ``ids`` holds one integer tensor per input, with as many dimensions as the input and broadcastable to it; the first
    dimension is 1 where the rows share their features.  ``count`` (N,) is the number of features of each row and ``d``
    the largest of them; a row with fewer simply lacks the last ones.
    """

    ids: tuple[Tensor, ...]
    count: Tensor
    d: int

    @property
    def shared(self) -> bool:
        """Whether all rows have the same features."""
        return all(len(i) == 1 for i in self.ids)

    def element_masks(self, z: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        """Bring masks from features to elements.

        Shape: z (M, d), rows (M,) the row each mask is for; result, per input, (M, *) broadcastable to ``x[rows]``.
        """
        return tuple(self._at(z, i, rows) for i in self.ids)

    def leave_one_out_masks(self, index: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        """Return masks that drop feature ``index - 1``; index 0 drops nothing.  Shape: index (M,), rows (M,)."""
        dropped = to_device(index - 1, rows.device)
        return tuple((i if len(i) == 1 else i[rows]) != dropped.view(-1, *[1] * (i.dim() - 1)) for i in self.ids)

    def to_elements(self, values: Tensor, x: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Give every element the value of its feature.  Shape: values (N, d); result, per input, that of x.

        The result has the dtype of x, or that of ``values`` in single precision where x holds integers.
        """
        rows = torch.arange(len(values), device=values.device)
        return tuple(
            self._at(values, i, rows).to(t.dtype if t.is_floating_point() else torch.float32).expand(t.shape).clone()
            for i, t in zip(self.ids, x)
        )

    def groups(self) -> Iterator[tuple[Tensor, int]]:
        """Yield rows with the same number of features, and that number: one group where the features are shared."""
        for d in self.count.unique().tolist():
            yield (self.count == d).nonzero()[:, 0], d

    @staticmethod
    def _at(z: Tensor, ids: Tensor, rows: Tensor) -> Tensor:
        if len(ids) == 1:
            return z[:, ids[0]]
        own = ids[rows]
        return z.gather(1, own.flatten(1)).view(own.shape)


def number_features(x: Sequence[Tensor], feature_mask: Sequence[Tensor] | None = None) -> Features:
    """Give the elements of the tensors x, each with N rows, the numbers of their features.

    Args:
        x: the tensors.
        feature_mask: integers for each tensor, broadcastable to it; a number that occurs in two tensors is one feature
            across both. Numbers that a row leaves out are passed over. None makes every element a feature, counted
            through the tensors.

    Raises:
        ValueError: a mask that is not made of integers, or does not broadcast.

    >>> number_features((torch.zeros(4, 3),)).d
    3
    >>> number_features((torch.zeros(4, 3),), [torch.tensor([0, 0, 1])]).ids
    (tensor([[0, 0, 1]]),)
    """
    n = len(x[0])
    if feature_mask is None:
        ids, d = [], 0
        for t in x:
            size = t[0].numel()
            ids.append(torch.arange(d, d + size, device=t.device).view(1, *t.shape[1:]))
            d += size
        return Features(tuple(ids), torch.full((n,), d, device=x[0].device), d)
    if len(feature_mask) != len(x):
        raise ValueError(f"feature_mask: {len(feature_mask)} given for {len(x)} tensors; give one for each")
    ids = [_check_mask(m, t, k) for k, (m, t) in enumerate(zip(feature_mask, x))]
    return Features(*_number_by_row(ids, n))


def _check_mask(mask: Tensor, x: Tensor, position: int) -> Tensor:
    """Return the mask with as many dimensions as its input, on the same device."""
    name = f"feature_mask[{position}]" if position else "feature_mask"
    if not hasattr(mask, "__array__") and not isinstance(mask, (list, tuple)):
        raise TypeError(f"{name}: {mask!r}; expected integers, the number of each element's feature")
    if isinstance(mask, (list, tuple)) and len(mask) and all(isinstance(v, str) for v in mask):
        names = list(dict.fromkeys(mask))  # of the groups, one for each element
        mask = [names.index(v) for v in mask]
    mask = torch.as_tensor(mask)
    if mask.is_floating_point() or mask.is_complex() or mask.dtype == torch.bool:
        raise ValueError(f"{name}: dtype {mask.dtype}; expected integers, the number of each element's feature")
    shape = (1,) * (x.dim() - mask.dim()) + tuple(mask.shape)
    if mask.dim() > x.dim() or any(a not in (1, b) for a, b in zip(shape, x.shape)):
        raise ValueError(f"{name}: shape {tuple(mask.shape)} does not broadcast to the inputs' {tuple(x.shape)}")
    return mask.to(x.device, torch.long).reshape(shape)


def _number_by_row(ids: Sequence[Tensor], n: int) -> tuple[tuple[Tensor, ...], Tensor, int]:
    """Return the numbers without gaps, each row's own features counted from 0 in rising order, how many each has, and the most.

    The numbers of a segmentation have gaps: a class that is nowhere in the picture is no feature of it.
    """
    rows = max(len(i) for i in ids)
    flat = torch.cat([i.flatten(1).expand(rows, -1) for i in ids], 1)
    if int(flat.min()) < 0:
        raise ValueError(f"feature_mask: holds {int(flat.min())}; features are numbered from 0")
    ordered, order = flat.sort(1)
    position = torch.nn.functional.pad((ordered.diff(dim=1) > 0).long().cumsum(1), (1, 0))
    distinct = position[:, -1] + 1
    d = int(distinct.max())
    if not torch.equal(distinct, flat.amax(1) + 1):
        flat = torch.empty_like(flat).scatter_(1, order, position)
        parts = flat.split([i[0].numel() for i in ids], 1)
        ids = [p.view(rows, *i.shape[1:]) for p, i in zip(parts, ids)]
    return tuple(ids), (distinct.expand(n) if rows == 1 else distinct), d
