"""Testing with concept activation vectors (TCAV)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from torchwhy.attribution import Attribution, prepare_for
from torchwhy.concept.cavs import Cavs, learn_vectors
from torchwhy.concept.concept_scores import ConceptScore, ConceptScores, LayerConceptScores
from torchwhy.engine.asker import LayerRole
from torchwhy.engine.layers.layer import ResolvedLayer, resolve_layer
from torchwhy.engine.run.defaults import torch_defaults
from torchwhy.engine.run.randomness import Seed, make_generator
from torchwhy.engine.run.rows import rows_between
from torchwhy.engine.structure import Tensors, as_tuple, flatten
from torchwhy.input_types import GivenLayer, Inputs
from torchwhy.problem import Problem
from torchwhy.settings import Fraction
from torchwhy.targets import TargetLike


class TCAV(Attribution[GivenLayer]):
    r"""The sensitivity of a class to a concept given by examples: :math:`S_{nc} = \nabla h(y(x_n)) \cdot v_c`.

    The TCAV score is the share of a class's inputs for which it is positive, :math:`|\{n : S_{nc} > 0\}| / N`.
    h is the model from the layer's output y to the score, :math:`v_c` the unit normal, towards the concept, of the boundary
    of a linear classifier between the concept's examples and a random set. With R random sets there are R runs, and
    ``attribute`` gives the mean of S over these, ``(N, concepts)``. Without random sets each concept is told from all the
    others (relative vectors), in one run.

    Args:
        layer: where; a list gives a result for each, from one pass.
        classifier: a linear scikit-learn classifier, cloned for each run; None is logistic regression.
        held_out: the share of the examples on which the classifiers are tested.
        pool: average the activations over positions (all dimensions after the channels) first, so that a concept has a
            direction in channels, wherever it appears; without it they are flattened, as in the paper.
        test: how p-values are computed. ``"exchange"``: under the hypothesis the concept's examples and the R random sets
            are R + 1 alike sets; of each set the mean derivative against all others is taken, and p is the rank of the
            concept's absolute value among them, (1 + the number of random sets that reach it) / (R + 1). It is exact for
            sets of one size. ``"t"``: the paper's two-sided t-test between the runs' scores and those of random sets
            against random sets. Its runs share the concept's examples and are not independent: of 50 meaningless concepts (40
            examples, 19 random sets) it called 26 significant at 0.05, ``"exchange"`` none.
        level: the p-value that must be possible: it takes 1 / level − 1 random sets, 19 for 0.05; None is any number of
            random sets, one or more, and p-values only as small as they allow.
        generator: of the held-out split.

    Paper: Kim et al. 2018, arXiv:1711.11279, equations 1 and 2. The scale of ``derivative`` depends on that of the
    activations; scores of one layer are comparable. A score that differs from 0.5 means nothing where the accuracy is 0.5.
    """

    classifier: object = None
    held_out: Fraction = 0.33
    pool: bool = False
    test: Literal["exchange", "t"] = "exchange"
    level: Fraction | None = 0.05
    generator: Seed = 0
    concepts: tuple[str, ...] = field(default=(), init=False, compare=False)
    cavs: dict[str, Cavs] = field(default_factory=dict, init=False, compare=False)

    layer_role: ClassVar[LayerRole] = "read"
    paper: ClassVar[str] = "arXiv:1711.11279"

    @torch_defaults()
    def fit(self, concepts: Mapping[str, Inputs], random: Sequence[Inputs] | None = None) -> TCAV:
        """Learn the concepts' vectors.

        Args:
            concepts: examples of each concept, as the model takes them, or a ``DataLoader`` of them: of a batch that is a
                tuple or list the first part is taken.
            random: sets of random examples, each likewise and best of the concepts' size; None tells the concepts from each
                other.

        Raises:
            TypeError: no dict of concepts, no list of random sets, no classifier.
            ValueError: examples of one class only, too few random sets for a p-value at the level, too few examples.
        """
        if isinstance(random, (Tensor, Mapping)):
            raise TypeError("random: expected a list of sets of examples, not one set")
        sets = () if random is None else tuple(random)
        self._check(concepts, sets, random is not None)
        with torch.inference_mode(False):
            found = {name: self._activations(x) for name, x in concepts.items()}
            others = [self._activations(x) for x in sets]
        self.cavs = {
            place: learn_vectors(
                {name: a[place] for name, a in found.items()},
                [a[place] for a in others],
                self._classifier(),
                self.held_out,
                make_generator(self.generator),
            )
            for place in next(iter(found.values()))
        }
        self.concepts = tuple(concepts)
        return self

    @torch_defaults()
    def score(
        self, inputs: Inputs, target: TargetLike = None, *, additional_forward_args: object = None
    ) -> ConceptScores | LayerConceptScores:
        """Return for each concept the :class:`ConceptScore` of a class.

        With several layers, by the layer's name, ``"layer3"`` (with a choice of :class:`torchwhy.Layer` ``"lstm (call=1)"``).

        Args:
            inputs: examples of the class.
            target: the class, or any target.
            additional_forward_args: further arguments of the model.
        """
        with torch.inference_mode(False):
            problem = prepare_for(self, inputs, target, additional_forward_args=additional_forward_args)
            with problem.open():
                found = self._derivatives(problem)
        scores = {
            place: ConceptScores((name, self._score(*s, c)) for c, name in enumerate(self.concepts))
            for place, s in found.items()
        }
        return LayerConceptScores(scores) if isinstance(self.layer, (list, tuple)) else next(iter(scores.values()))

    def save(self, path: str | Path) -> None:
        """Write the vectors to a ``safetensors`` file."""
        from safetensors.torch import save_file

        self._check_fitted()
        parts = {f"{part}.{place}": getattr(c, part) for place, c in self.cavs.items() for part in _PARTS}
        facts = {"concepts": self.concepts, "layers": list(self.cavs), "pool": self.pool}
        save_file({k: t.contiguous() for k, t in parts.items()}, str(path), metadata={"tcav": json.dumps(facts)})

    def load(self, path: str | Path) -> TCAV:
        """Take the vectors that :meth:`save` wrote, of the same layers.

        Raises:
            ValueError: another kind of file, or vectors of other layers.
        """
        from safetensors import SafetensorError, safe_open

        try:
            opened = safe_open(str(path), framework="pt")
        except SafetensorError as error:
            raise ValueError(f"{path}: not a file written by TCAV.save(): {error}") from None
        with opened as file:
            facts = json.loads((file.metadata() or {}).get("tcav", "null"))
            if facts is None:
                raise ValueError(f"{path}: not a file written by TCAV.save()")
            layers = flatten(self.layer)[0]
            places = [_name(resolve_layer(self.model, layer, input=self.attribute_to_layer_input)) for layer in layers]
            if facts["layers"] != places or facts["pool"] != self.pool:
                theirs, ours = (", ".join(map(repr, names)) for names in (facts["layers"], places))
                raise ValueError(
                    f"{path}: has vectors of the layers {theirs} with pool={facts['pool']}, this method has the layers "
                    f"{ours} with pool={self.pool}"
                )
            self.cavs = {p: Cavs(*(file.get_tensor(f"{part}.{p}") for part in _PARTS)) for p in places}
        self.concepts = tuple(facts["concepts"])
        return self

    def _attribute(self, problem: Problem) -> Tensors:
        return tuple(s.mean(2) for s, *_ in self._derivatives(problem).values())

    def _derivatives(self, problem: Problem) -> dict[str, tuple[Tensor, Tensor, Cavs]]:
        """Return by layer: derivatives ``(N, concepts, runs)`` along the vectors and ``(N, pairs)`` along the random ones."""
        self._check_fitted()
        places = [_name(p) for p in problem.read_layers]
        found: dict[str, list[tuple[Tensor, Tensor]]] = {p: [] for p in places}

        def work(a: int, b: int) -> Tensors:
            return problem.run.gradients_and_activations(rows_between(problem.x, a, b), problem.rows[a:b])[1]

        for gradients in problem.run.batches(problem.n, work):
            for place, g in zip(places, gradients):
                cavs, g = self.cavs[place], self._flat(g, torch.sum)
                if g.shape[1] != cavs.vectors.shape[-1]:
                    raise ValueError(
                        f"inputs: layer {place!r} passes {g.shape[1]} activations per row, but the vectors were fitted on "
                        f"{cavs.vectors.shape[-1]}; use inputs of the examples' size, or pool=True"
                    )
                found[place].append((torch.einsum("nd,crd->ncr", g, cavs.vectors.to(g)), g @ cavs.null.to(g).T))
        return {p: (torch.cat([s for s, _ in f]), torch.cat([z for _, z in f]), self.cavs[p]) for p, f in found.items()}

    def _score(self, derivatives: Tensor, null: Tensor, cavs: Cavs, c: int) -> ConceptScore:
        """Return the score of concept c from what :meth:`_derivatives` gives for a layer."""
        s = derivatives[:, c]
        runs = (s > 0).double().mean(0)
        return ConceptScore(
            score=float(runs.mean()),
            magnitude=float(s.clamp(min=0).sum() / s.abs().sum().clamp(min=torch.finfo(s.dtype).tiny)),
            derivative=float(s.mean()),
            accuracy=float(cavs.accuracy[c].mean()),
            p_value=self._p_value(s, null) if derivatives.shape[2] > 1 and len(cavs.null) else None,
            runs=tuple(runs.tolist()),
        )

    def _p_value(self, derivatives: Tensor, null: Tensor) -> float:
        """Return the p-value of the chosen test."""
        return _exchange(derivatives, null) if self.test == "exchange" else _t(derivatives, null)

    def _activations(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return what passes each layer, ``(M, d)``, by the layer's name."""
        if isinstance(inputs, DataLoader):  # a batch at a time: all examples need not fit in memory
            batches = [self._activations(as_tuple(b)[0]) for b in inputs]
            return {place: torch.cat([b[place] for b in batches]) for place in batches[0]}
        problem = prepare_for(self, inputs, None)
        with problem.open():
            values = problem.run.activations(problem.read_layers, problem.x, problem.rows)
            return {_name(place): self._flat(t, torch.mean) for place, t in zip(problem.read_layers, values)}

    def _flat(self, values: Tensor, pooled: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Return rows ``(M, d)``; with ``pool``, ``pooled`` over positions."""
        if self.pool and values.dim() > 2:
            return pooled(values.flatten(2), 2)
        return values.flatten(1)

    def _check_settings(self) -> None:
        super()._check_settings()
        if "auto" in flatten(self.layer)[0]:
            raise ValueError(
                "layer='auto' depends on the target, and the vectors are learnt before there is one: name it"
            )
        if self.classifier is None:
            return
        if isinstance(self.classifier, type) or not hasattr(self.classifier, "get_params"):
            raise TypeError(
                f"classifier={self.classifier!r}: expected a linear scikit-learn classifier, such as SGDClassifier()"
            )
        from sklearn.base import is_classifier

        if not is_classifier(self.classifier):
            raise TypeError(f"classifier: {type(self.classifier).__name__} is no classifier: it predicts no labels")

    def _classifier(self) -> object:
        """Return the classifier to clone."""
        if self.classifier is not None:
            return self.classifier
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(max_iter=1000)

    def _check(self, concepts: Mapping[str, Inputs], random: Sequence[Inputs], with_random: bool) -> None:
        """Refuse examples from which nothing can be learnt."""
        if not isinstance(concepts, Mapping) or not concepts:
            raise TypeError("concepts: expected a dict of examples by the concept's name, with at least one concept")
        if not with_random and len(concepts) < 2:
            raise ValueError(
                f"concepts: {next(iter(concepts))!r} alone is one class, and a classifier needs two; give random= sets of "
                "other examples, or further concepts to tell it from"
            )
        needed = 1 if self.level is None else math.ceil(1 / self.level - 1e-9) - 1
        if with_random and len(random) < needed:
            raise ValueError(
                f"random: {len(random)} random sets cannot give a p-value of {self.level}; the smallest possible "
                f"is 1/{len(random) + 1}, {needed} sets are needed. Give more, raise level=, or do without (level=None)"
            )

    def _check_fitted(self) -> None:
        """Refuse to answer before there are vectors."""
        if not self.cavs:
            raise RuntimeError("TCAV: no concepts yet; call fit(concepts, random) or load(path) first")


def _name(place: ResolvedLayer) -> str:
    """Return the layer's name, and what else was chosen of it."""
    chosen = [f"{k}={v!r}" for k in ("call", "output") if (v := getattr(place, k)) is not None]
    chosen += ["input=True"] if place.input else []
    return place.name + (f" ({', '.join(chosen)})" if chosen else "")


_PARTS = ("vectors", "accuracy", "null")


def _exchange(derivatives: Tensor, null: Tensor) -> float:
    """Return the rank p-value of a concept among the random sets.

    Args:
        derivatives: ``(N, R)`` of the concept against each random set.
        null: ``(N, R (R - 1) / 2)`` of random set i against j, i < j; of j against i it is the negative.
    """
    concept, pairs = derivatives.double().mean(0), null.double().mean(0)
    r = len(concept)
    table = concept.new_zeros(r, r)
    i, j = torch.triu_indices(r, r, offset=1)
    table[i, j], table[j, i] = pairs, -pairs
    sets = (table.sum(1) - concept) / r
    reached = int((sets.abs() >= concept.mean().abs() * (1 - 1e-9)).sum())
    return (1 + reached) / (1 + r)


def _t(derivatives: Tensor, null: Tensor) -> float:
    """Return the p-value of the t-test between the scores of the runs and of random against random."""
    from scipy.stats import ttest_ind

    a, b = ((d > 0).double().mean(0).cpu().numpy() for d in (derivatives, null))
    return float(ttest_ind(a, b).pvalue) if a.var() + b.var() > 0 else float(a.mean() == b.mean())
