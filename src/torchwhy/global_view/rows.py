"""Explanations of many rows as rows of features, batch by batch, wherever they are kept."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from torchwhy.datasets.collection import ExplainedDataset, load_dataset
from torchwhy.engine.run.randomness import Draws, Seed, draw_uniform, make_generator
from torchwhy.explanation import Explanation
from torchwhy.explanation.features import feature_names, is_nested
from torchwhy.explanation.table import input_values

Explained = Explanation | ExplainedDataset | str | Path | Iterable[Explanation]
MapSize = int | tuple[int, ...] | None
POOLING = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)
MOST_NUMBERS = 2**24  # of the rows that are kept, for pictures and tests


class FeatureRows(NamedTuple):
    """The features of some rows.

    Attributes:
        values: ``(n, d)``, the attribution of each feature; of images of each pixel, channels summed.
        inputs: ``(n, d)``, the features' own values; None where a feature is no one number.
        names: d strings.
        shape: of what the features are laid out as, such as ``(1, H, W)``; ``(d,)`` where they are not.
        explanation: of these rows.
    """

    values: Tensor
    inputs: Tensor | None
    names: Sequence[str]
    shape: tuple[int, ...]
    explanation: Explanation


def batches_of_explanations(explained: Explained, argument: str = "explained") -> Iterator[Explanation]:
    """Yield explanations: one, those of a data set's files, or those of an iterable.

    Args:
        explained: an explanation, what :func:`torchwhy.load_dataset` returns or the folder, or explanations one by one.
        argument: what it is called, for errors.

    Raises:
        TypeError: none of these.
        ValueError: there are no rows.
    """
    if isinstance(explained, (str, Path)):
        explained = load_dataset(explained)
    if isinstance(explained, Explanation):
        explained = [explained]
    several = explained.batches() if isinstance(explained, ExplainedDataset) else explained
    if isinstance(several, (Tensor, dict)) or not isinstance(several, Iterable):
        raise TypeError(
            f"{argument}: expected an explanation, several, or what tw.load_dataset returns; got {type(explained).__name__}"
        )
    found = False
    for e in several:
        if not isinstance(e, Explanation):
            raise TypeError(f"{argument}: expected explanations, got {type(e).__name__}")
        found = True
        yield e
    if not found:
        raise ValueError(f"{argument}: there are no explanations")


def feature_rows(explained: Explained, size: MapSize = None, argument: str = "explained") -> Iterator[FeatureRows]:
    """Yield rows of features, batch by batch; each row has the same ones.

    Args:
        explained: see :func:`batches_of_explanations`.
        size: of the maps of images, series or volumes, to which they are averaged; None leaves them as they are.
        argument: what ``explained`` is called, for errors.

    Raises:
        ValueError: rows with features of their own, such as texts, or ``size`` where there are no maps.
    """
    first: FeatureRows | None = None
    for e in batches_of_explanations(explained, argument):
        found = _rows_of_maps(e, size) if _has_maps(e) else _rows_of_features(e, size, argument)
        if first is None:
            first = found
        elif (found.shape, len(found.names)) != (first.shape, len(first.names)):
            raise ValueError(
                f"{argument}: rows with features of shape {first.shape} and of {found.shape}; give size= for maps"
            )
        yield found


def _has_maps(e: Explanation) -> bool:
    """Say whether pictures draw the rows as maps, each place of which is a feature."""
    return e.feature_mask is None and e.names is None and (maps := e.maps) is not None and maps.dim() >= 4


def _rows_of_maps(e: Explanation, size: MapSize) -> FeatureRows:
    maps = e.maps
    if maps is None:
        raise ValueError("explained: there are no maps")
    maps = maps.detach().float() if maps.dtype in (torch.half, torch.bfloat16) else maps.detach()
    if size is not None:
        maps = pooled(maps, size)
    shape = tuple(maps.shape[1:])
    return FeatureRows(maps.flatten(1).cpu(), None, place_names(shape), shape, e)


def pooled(maps: Tensor, size: int | tuple[int, ...]) -> Tensor:
    """Return maps ``(n, c, *places)`` averaged to a size.

    Raises:
        ValueError: not one number for each axis of the places.
    """
    places = maps.dim() - 2
    wanted = (size,) * places if isinstance(size, int) else tuple(size)
    if len(wanted) != places or min(wanted) < 1 or places > len(POOLING):
        raise ValueError(f"size={size!r}: the maps have {places} axes, {tuple(maps.shape[2:])}")
    found: Tensor = POOLING[places - 1](maps, wanted)  # type: ignore[arg-type]
    return found


@lru_cache(16)
def place_names(shape: tuple[int, ...]) -> tuple[str, ...]:
    """Return what the places of maps ``(c, *places)`` are called: their indices."""
    *rest, last = (range(n) for n in (shape[1:] if shape[0] == 1 else shape))
    if not rest:
        return tuple(str(i) for i in last)
    return tuple(f"({', '.join(map(str, at))})" for at in itertools.product(*rest, last))


def _rows_of_features(e: Explanation, size: MapSize, argument: str) -> FeatureRows:
    if size is not None:
        raise ValueError(f"size={size!r}: {argument} has no maps, but features")
    rows = [row.detach().cpu() for row in e.features()]
    own_names = is_nested(e.names) and any(list(n) != list(e.names[0]) for n in e.names)  # type: ignore[index, union-attr]
    if own_names or len({tuple(row.shape) for row in rows}) > 1 or rows[0].dim() != 1:
        raise ValueError(
            f"{argument}: rows with features of their own, as the words of texts, have nothing that is the same in all of them"
        )
    known = input_values(e)
    inputs = None if known is None else torch.stack([row.detach().cpu() for row in known])
    return FeatureRows(torch.stack(rows), inputs, feature_names(e, 0), (len(rows[0]),), e)


def named(names: Sequence[str] | None, found: FeatureRows) -> list[str]:
    """Return the names of features: those that are given, or their own.

    Raises:
        ValueError: another number of them.
    """
    if names is None:
        return list(found.names)
    if len(names) != found.values.shape[1]:
        raise ValueError(f"names: {len(names)} given, there are {found.values.shape[1]} features")
    return [str(name) for name in names]


class RowKeys:
    """Random keys of rows that come one after the other, the same however they are cut into batches.

    Args:
        generator: of the draws.
    """

    def __init__(self, generator: Seed) -> None:
        self.seen = 0
        seed = make_generator(generator)
        self._draws = Draws(lambda count, g: draw_uniform(count, generator=g, dtype=torch.double), seed, 1024)

    def next(self, n: int) -> tuple[Tensor, Tensor]:
        """Return the numbers ``(n,)`` and the keys ``(n,)`` of the next n rows."""
        rows = torch.arange(self.seen, self.seen + n)
        self.seen += n
        return rows, self._draws[rows]


class RowSample:
    """A random sample of rows: those of the smallest keys.

    Args:
        most: how many rows are kept; fewer where they have very many features.

    Attributes:
        rows: ``(m,)``, their numbers, rising.
        tensors: of each that was added the rows ``(m, ...)``.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.rows = torch.empty(0, dtype=torch.long)
        self.tensors: list[Tensor] = []
        self._keys = torch.empty(0, dtype=torch.double)

    def add(self, rows: Tensor, keys: Tensor, *tensors: Tensor) -> None:
        """Add rows ``(n,)`` with their keys ``(n,)``, and ``tensors`` ``(n, ...)``, at least one."""
        most = max(1, min(self.most, MOST_NUMBERS // sum(t[0].numel() for t in tensors)))
        every = [torch.cat(pair) for pair in zip(self.tensors or [t[:0] for t in tensors], tensors)]
        self.rows, self._keys = torch.cat([self.rows, rows]), torch.cat([self._keys, keys])
        chosen = self._keys.argsort(stable=True)[:most].sort().values
        self.rows, self._keys, self.tensors = self.rows[chosen], self._keys[chosen], [t[chosen] for t in every]
