"""Baselines: what stands for the absence of a feature."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from torchwhy.engine.axes import Axes, axes_by_shape
from torchwhy.engine.images.filters import gaussian_blur
from torchwhy.engine.run.randomness import Seed, draw_normal, draw_seed, draw_uniform, make_generator
from torchwhy.engine.run.rows import as_type_of
from torchwhy.settings import Count, NotNegative, check_by_annotations
from torchwhy.spelling import refusal_of

__all__ = ["AtLayer", "Baseline", "Blur", "Constant", "Distribution", "Mean", "Noise", "Random", "Uniform"]

if not TYPE_CHECKING:  # type checkers are to find a misspelt name
    __getattr__ = refusal_of(__name__, __all__)


@dataclass(frozen=True)
class Baseline:
    """The base class of baselines: a rule that gives, for inputs ``(N, ...)``, K baselines ``(K, N or 1, ...)``.

    A subclass with a ``rows`` of its own goes wherever ``baselines=`` is taken. Its fields are checked by their annotations when
    it is made, as the settings of methods are.
    """

    knows_places: ClassVar[bool] = False  # x is (N, C, *places) for it, also where a caller's axes are in another order

    def __post_init__(self) -> None:
        check_by_annotations(self)

    def rows(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return baselines for ``x`` ``(N, ...)``, shape ``(K, N or 1, ...)``, in its type and on its device."""
        raise NotImplementedError


@dataclass(frozen=True)
class Constant(Baseline):
    """The same number everywhere; NaN stands for a missing value, for models that take such."""

    value: float = 0.0

    def __post_init__(self) -> None:
        is_one = isinstance(self.value, Tensor) and self.value.numel() == 1
        if not (is_one or isinstance(self.value, Real)) or isinstance(self.value, bool):
            raise ValueError(f"value={self.value!r}: expected a number")

    def rows(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the number, shape ``(1, 1, ...)``."""
        return torch.full_like(x[:1], as_type_of(x, self.value, "baselines").item())[None]


@dataclass(frozen=True)
class Mean(Baseline):
    """Each row's mean: over its places for images, volumes and series (one value a channel), else over all of it."""

    knows_places: ClassVar[bool] = True

    def rows(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return means, shape ``(1, N, ...)``."""
        return x.mean(tuple(range(2, x.dim())) if x.dim() > 2 else 1, keepdim=True).expand_as(x)[None]


@dataclass(frozen=True)
class Blur(Baseline):
    """The row blurred by a Gaussian over its places: of (N, C, L), (N, C, H, W) or (N, C, D, H, W) the last dimensions.

    Args:
        sigma: standard deviation of the Gaussian, in pixels.
    """

    sigma: NotNegative = 20.0
    knows_places: ClassVar[bool] = True

    def rows(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return blurred rows, shape ``(1, N, ...)``."""
        return gaussian_blur(x, x.new_full((len(x),), self.sigma))[None]


@dataclass(frozen=True, kw_only=True)
class Random(Baseline):
    """The base class of baselines that are drawn.

    Args:
        generator: an int or a CPU ``torch.Generator``; None takes the method's, which is a fresh one for methods that have
            no such setting. An int gives input tensors of one shape the same numbers: give each an object of its own.
    """

    generator: Seed = None

    def generator_or(self, generator: torch.Generator | None) -> torch.Generator:
        """Return the generator to draw from: this baseline's own, else the method's, else (None) a fresh one."""
        return make_generator(generator if self.generator is None else self.generator)

    def own(self, generator: torch.Generator | None) -> torch.Generator:
        """Return what :meth:`generator_or` does; the name goes with version 0.3."""
        warnings.warn("Random.own is called generator_or now; this name goes in 0.3", DeprecationWarning, stacklevel=2)
        return self.generator_or(generator)


@dataclass(frozen=True)
class Noise(Random):
    """Rows of Gaussian noise around zero.

    Args:
        std: its standard deviation.
        k: how many baselines.
        generator: as for :class:`Random`.
    """

    std: NotNegative = 1.0
    k: Count = 1

    def rows(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return noise, shape ``(K, 1, ...)``, the same for all rows."""
        return (draw_normal(self.k, 1, *x.shape[1:], generator=self.generator_or(generator)) * self.std).to(x)


@dataclass(frozen=True)
class Uniform(Random):
    """Rows of numbers drawn uniformly.

    Args:
        low, high: their bounds; None takes each input's own smallest and largest value.
        k: how many baselines.
        generator: as for :class:`Random`.
    """

    low: float | None = None
    high: float | None = None
    k: Count = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low={self.low!r}, high={self.high!r}: expected the smallest value, then the largest")

    def rows(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return noise, shape ``(K, N, ...)``, the same draws for all rows."""
        u = draw_uniform(self.k, 1, *x.shape[1:], generator=self.generator_or(generator)).to(x)
        flat = x.reshape(len(x), -1)
        low, high = (m.reshape(-1, *[1] * (x.dim() - 1)) for m in (flat.amin(1), flat.amax(1)))
        low = low if self.low is None else torch.full_like(low, self.low)
        high = high if self.high is None else torch.full_like(high, self.high)
        return low + (high - low) * u


@dataclass(frozen=True, eq=False)
class Distribution(Baseline):
    """Rows of data, such as a part of the training set; methods average over them, or draw from them.

    Args:
        data: tensor ``(K, ...)``, or an array.
        weights: how much each row counts, ``(K,)``, such as the sizes of the clusters whose centres they are; None is all
            alike. Only their ratios matter. For methods of perturbation and Shapley values, ExpectedGradients, GradientSHAP
            and DeepSHAP.
    """

    data: Tensor
    weights: Tensor | Sequence[float] | None = None

    def rows(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the rows of data, shape ``(K, 1, ...)``.

        Raises:
            TypeError: something else than a tensor.
            ValueError: rows of another shape than the inputs', or none.
        """
        data = torch.as_tensor(self.data) if isinstance(self.data, np.ndarray) else self.data
        if not isinstance(data, Tensor):
            raise TypeError(
                f"baselines: a distribution takes a tensor or an array of rows, got {type(data).__name__}; give "
                "torch.as_tensor(rows), and for several inputs a tuple of distributions"
            )
        if data.shape[1:] != x.shape[1:] or not len(data):
            raise ValueError(
                f"baselines: a distribution of rows has shape (K, {', '.join(map(str, x.shape[1:]))}), got {tuple(data.shape)}"
            )
        return as_type_of(x, data, "baselines")[:, None]


def weights_of(baselines: Sequence[object], k: int, device: torch.device) -> Tensor | None:
    """Return how much each of k baselines counts, ``(k,)``, in all 1; None where all count alike.

    Raises:
        ValueError: not k weights, negative ones or nothing but zeros, or other ones for another input.
    """
    found: Tensor | None = None
    for given in (b.weights for b in baselines if isinstance(b, Distribution) and b.weights is not None):
        numbers = given if isinstance(given, Tensor) else np.array(given, dtype=float)  # of a series too
        weights = torch.as_tensor(numbers, dtype=torch.double, device=device)
        if weights.shape != (k,) or not bool((weights >= 0).all()) or not 0 < float(weights.sum()) < math.inf:
            raise ValueError(
                f"baselines: weights of shape {tuple(weights.shape)} for {k} rows; give one for each, none of them negative or "
                "infinite and not all zero"
            )
        weights = weights / weights.sum()
        if found is not None and not torch.allclose(found, weights):
            raise ValueError("baselines: the inputs' rows are taken together, so their weights must be the same")
        found = weights
    return found


@dataclass(frozen=True, eq=False)
class ResolvedBaseline(Baseline):
    """Baselines that are tensors already, as methods hand them to one another.

    Args:
        data: tensor ``(K, N or 1, ...)``.
    """

    data: Tensor

    def rows(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the tensor."""
        return self.data


@dataclass(frozen=True, eq=False)
class AtLayer:
    """What stands for the absence of a unit of a layer, where a method explains by one: ``layer=``.

    Without it a unit that is absent has the value that it takes when the *input* is the baseline.

    Args:
        value: a number (0 for the usual ablation of units and channels), a tensor that broadcasts to what passes the layer, or
            any other baseline; a tuple or dict of them for several layers.

    >>> import torchwhy as tw
    >>> net, x = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()), torch.ones(1, 2)
    >>> drops = tw.FeatureAblation(net, layer="1").attribute(x, 0, baselines=tw.AtLayer(0.0))
    >>> torch.equal(drops[:, 0], net(x)[:, 0])
    True
    """

    value: object = 0.0


def at_layer(baselines: object, layer_baselines: object) -> AtLayer:
    """Return the absence of the units of a layer.

    Raises:
        TypeError: both that and the absence of the inputs' elements are given.
    """
    if baselines is not None:
        raise TypeError("layer_baselines: they stand in the place of baselines=; give one of the two")
    return AtLayer(layer_baselines)


NAMED: dict[str, type[Baseline]] = {"zero": Constant, "mean": Mean, "blur": Blur, "noise": Noise, "uniform": Uniform}

BaselineLike = Baseline | Tensor | float | str | None


def resolve_baseline(
    baseline: BaselineLike,
    x: Tensor,
    generator: torch.Generator | None,
    *,
    distribution: bool = False,
    axes: Axes | None = None,
) -> Tensor:
    """Return the baselines ``(K, N or 1, ...)`` for the inputs ``x`` ``(N, ...)``.

    Args:
        baseline: an object, a name, a number, a tensor that broadcasts to ``x``, or None for zero.
        x: the inputs.
        generator: for the random ones.
        distribution: read a tensor as K rows to draw from.
        axes: where the inputs have their channels and their places, as a caller says it; None where their shape says it.

    Raises:
        TypeError: none of these.
        ValueError: an unknown name, or a tensor that does not broadcast.
    """
    if baseline is None:
        baseline = Constant()
    if isinstance(baseline, str):
        if baseline not in NAMED:
            raise ValueError(f"baselines={baseline!r}: unknown; the names are {', '.join(NAMED)}")
        baseline = NAMED[baseline]()
    if isinstance(baseline, Tensor) and baseline.dim() and distribution:
        baseline = Distribution(baseline)
    if isinstance(baseline, Baseline):
        if not x.is_floating_point() and not isinstance(baseline, (Constant, Distribution, ResolvedBaseline)):
            raise TypeError(
                f"baselines={type(baseline).__name__}: the inputs are integers; give a number or a tensor of them"
            )
        if not baseline.knows_places or x.dim() < 2:
            return _rows_of(baseline, x, generator)
        axes = axes or axes_by_shape(x.shape)
        if axes.are_usual:
            return _rows_of(baseline, x, generator)
        found = _rows_of(baseline, axes.channels_first(x), generator)
        return axes.restore(found.flatten(0, 1)).unflatten(0, found.shape[:2])
    if isinstance(baseline, bool) or not isinstance(baseline, (int, float, Tensor)):
        raise TypeError(
            f"baselines: expected a number, a tensor, one of {', '.join(NAMED)} or an object such as tw.Blur(); "
            f"got {type(baseline).__name__}"
        )
    tensor = as_type_of(x, baseline, "baselines")
    shape = (1,) * (x.dim() - tensor.dim()) + tuple(tensor.shape)
    if tensor.dim() > x.dim() or any(a not in (1, b) for a, b in zip(shape, x.shape)):
        raise ValueError(
            f"baselines: shape {tuple(tensor.shape)} does not broadcast to the inputs' {tuple(x.shape)}; "
            "for several baselines pass tw.Distribution(rows), for what a layer passes layer_baselines="
        )
    tensor = tensor.reshape(shape)
    return tensor.expand(shape[0], *x.shape[1:])[None]


def _rows_of(baseline: Baseline, x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return what a baseline gives for the inputs ``x`` ``(N, ...)``, shape ``(K, N or 1, ...)``.

    Raises:
        TypeError: it gives no tensor.
        ValueError: one of another shape.
    """
    found, name = baseline.rows(x, generator), type(baseline).__name__
    if not isinstance(found, Tensor):
        raise TypeError(
            f"baselines: {name} gave a {type(found).__name__}; its rows(x, generator) is to return a tensor"
        )
    if found.shape[2:] == x.shape[1:] and len(found) and found.shape[1] in (1, len(x)):
        return found
    if found.dim() != x.dim() + 1 or not len(found) or any(a not in (1, b) for a, b in zip(found.shape[1:], x.shape)):
        shape = ", ".join(map(str, ("K", f"{len(x)} or 1", *x.shape[1:])))
        raise ValueError(
            f"baselines: {name} gave the shape {tuple(found.shape)} for inputs of shape {tuple(x.shape)}; its "
            f"rows(x, generator) is to return K baselines, shape ({shape})"
        )
    return found.expand(*found.shape[:2], *x.shape[1:])


def is_fixed(baseline: BaselineLike, seed: int) -> BaselineLike:
    """Return the baseline with a fixed seed, so that it draws alike wherever it is used.

    Args:
        baseline: in any form; one that draws nothing is returned as it is, and so is one whose generator is an int.
        seed: taken where the baseline has no generator; one that has draws its seed from that.
    """
    if isinstance(baseline, str) and issubclass(NAMED.get(baseline, Baseline), Random):
        baseline = NAMED[baseline]()
    if not isinstance(baseline, Random) or isinstance(baseline.generator, int):
        return baseline
    return replace(baseline, generator=seed if baseline.generator is None else draw_seed(baseline.generator))


def same_number(baselines: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return as many baselines for every input: a single one ``(1, N or 1, ...)`` goes with each of the others' K.

    Raises:
        ValueError: different numbers of them.
    """
    k = max(map(len, baselines))
    if any(len(b) not in (1, k) for b in baselines):
        raise ValueError(
            f"baselines: {', '.join(str(len(b)) for b in baselines)} of them for the inputs; they are taken together, so give "
            "as many for each, or a single one"
        )
    return tuple(b.expand(k, *b.shape[1:]) for b in baselines)
