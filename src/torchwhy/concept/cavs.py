"""Concept activation vectors: the direction in a layer that tells a concept's examples from others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Cavs:
    """The vectors of one layer, of unit length.

    Args:
        vectors: ``(concepts, runs, d)``: each concept against each random set; against all other concepts, one run.
        accuracy: ``(concepts, runs)`` of the classifiers, on held-out examples.
        null: ``(R (R - 1) / 2, d)``: random set i against random set j, for i < j.
    """

    vectors: Tensor
    accuracy: Tensor
    null: Tensor


@dataclass(frozen=True)
class Examples:
    """Activations ``(M, d)`` of one set of examples, in those that a classifier learns from and those that test it."""

    train: np.ndarray
    held_out: np.ndarray

    @classmethod
    def split(cls, activations: Tensor, share: float, generator: torch.Generator, name: str) -> Examples:
        """Hold ``share`` of the rows out, at least one.

        Raises:
            ValueError: fewer than two rows.
        """
        n = len(activations)
        if n < 2:
            raise ValueError(f"{name}: {n} example given; at least 2 are needed, one to learn from and one to test on")
        order = torch.randperm(n, generator=generator)
        k = min(n - 1, max(1, round(share * n)))
        values = activations.double().cpu()
        return cls(values[order[k:]].numpy(), values[order[:k]].numpy())


def learn_vectors(
    concepts: Mapping[str, Tensor],
    random: Sequence[Tensor],
    classifier: object,
    held_out: float,
    generator: torch.Generator,
) -> Cavs:
    """Learn the vectors that tell each concept's activations ``(M, d)`` from each random set's, or from all other concepts'.

    Args:
        concepts: activations of each concept's examples, by name.
        random: those of each random set; without any, each concept is told from all others.
        classifier: a linear scikit-learn classifier, cloned for each vector.
        held_out: the share of the examples on which the classifiers are tested.
        generator: of the held-out split.
    """
    named = {
        **{f"concepts[{c!r}]": a for c, a in concepts.items()},
        **{f"random[{i}]": a for i, a in enumerate(random)},
    }
    if len({a.shape[1] for a in named.values()}) > 1:
        counts = ", ".join(f"{a.shape[1]} of {name}" for name, a in named.items())
        raise ValueError(
            f"the numbers of activations per example differ: {counts}; use examples of one size, or pool=True"
        )
    sets = [Examples.split(a, held_out, generator, f"concepts[{c!r}]") for c, a in concepts.items()]
    others = [Examples.split(a, held_out, generator, f"random[{i}]") for i, a in enumerate(random)]
    if others:
        runs = [[_direction(s, o, classifier) for o in others] for s in sets]
    else:
        runs = [[_direction(s, _joined([o for o in sets if o is not s]), classifier)] for s in sets]
    null = [_direction(a, b, classifier)[0] for i, a in enumerate(others) for b in others[i + 1 :]]
    like = next(iter(concepts.values()))
    return Cavs(
        torch.from_numpy(np.array([[v for v, _ in run] for run in runs])).to(like),
        torch.tensor([[a for _, a in run] for run in runs], dtype=torch.double),
        torch.from_numpy(np.array(null).reshape(len(null), like.shape[1])).to(like),
    )


def _joined(sets: Sequence[Examples]) -> Examples:
    """Return all examples as one set."""
    return Examples(np.concatenate([s.train for s in sets]), np.concatenate([s.held_out for s in sets]))


def _direction(positive: Examples, negative: Examples, classifier: object) -> tuple[np.ndarray, float]:
    """Return the unit normal of the classifier's boundary, towards ``positive``, and its accuracy on held-out rows.

    Raises:
        TypeError: a classifier without ``coef_``.
        ValueError: the classifier finds no direction.
    """
    from sklearn.base import clone

    x, y = (
        np.concatenate([positive.train, negative.train]),
        np.repeat([1, 0], [len(positive.train), len(negative.train)]),
    )
    center = x.mean(0)
    scale = np.sqrt(np.square(x - center).sum(1).mean()) or 1.0  # one number: the direction does not change
    model = clone(classifier).fit((x - center) / scale, y)
    if not hasattr(model, "coef_"):
        raise TypeError(
            f"classifier: {type(classifier).__name__} has no coef_; expected a linear scikit-learn classifier"
        )
    normal = np.asarray(model.coef_, dtype=np.float64).reshape(-1)
    length = np.linalg.norm(normal)
    if not np.isfinite(length) or length == 0:
        raise ValueError(
            f"classifier: {type(classifier).__name__} found no direction between two sets of examples; "
            "are their activations equal?"
        )
    right = [(model.predict((e.held_out - center) / scale) == y).mean() for e, y in ((positive, 1), (negative, 0))]
    return normal / length, float(np.mean(right))
