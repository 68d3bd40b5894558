"""Concepts as Captum has them, by :class:`torchwhy.TCAV`: told from each other, set by set and layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import torchwhy as tw
from torchwhy.concept.concept_scores import LayerConceptScores
from torchwhy.engine.structure import as_tuple
from torchwhy.input_types import Inputs
from torchwhy.targets import TargetLike


class Concept:
    """A concept: examples with a number and a name.

    Args:
        id: the number by which results name it.
        name: in words.
        data_iter: batches of examples, as the model takes them: a ``DataLoader`` or any other iterable.
    """

    def __init__(self, id: int, name: str, data_iter: Iterable[Tensor] | None) -> None:
        self.id, self.name, self.data_iter = id, name, data_iter

    @property
    def identifier(self) -> str:
        """The name with the number."""
        return f"{self.name}-{self.id}"

    def __repr__(self) -> str:
        return f"Concept({self.id!r}, {self.name!r})"

    def examples(self) -> Tensor:
        """Return all examples ``(M, ...)``.

        Raises:
            ValueError: the concept has none.
        """
        batches = [] if self.data_iter is None else list(self.data_iter)
        if not batches:
            raise ValueError(f"data_iter: {self!r} has no examples")
        return torch.cat([as_tuple(b)[0] for b in batches])


@dataclass
class CAV:
    """The vectors of one set of concepts at one layer.

    Args:
        concepts: of the set, in its order.
        layer: its name.
        stats: ``"weights"`` ``(concepts, d)``, of unit length; ``"classes"``, the concepts' numbers; ``"accs"``, the mean
            accuracy of the classifiers on held-out examples.
        save_path, model_id: have no effect: nothing is written.
    """

    concepts: Sequence[Concept]
    layer: str
    stats: dict[str, object] | None = None
    save_path: str = "./cav/"
    model_id: str = "default_model_id"


class CaptumTCAV:
    """The sensitivity to concepts, by :class:`torchwhy.TCAV`: each concept is told from the others of its set.

    Args:
        model: a module.
        layers: names of layers.
        model_id, save_path: have no effect: nothing is written, activations and vectors stay in memory.
        classifier: a linear scikit-learn classifier; None is logistic regression, where Captum takes a support vector machine
            trained by gradient descent.
        layer_attr_method: only Captum's default, the gradient.
        attribute_to_layer_input: explain by what goes into the layers.

    Raises:
        NotImplementedError: ``layer_attr_method``, or options of Captum's classifiers.
    """

    def __init__(
        self, model: nn.Module, layers: str | list[str], model_id: str = "default_model_id", classifier: object = None,
        layer_attr_method: object = None, attribute_to_layer_input: bool = False, save_path: str = "./cav/",
        **classifier_kwargs: object,
    ) -> None:  # fmt: skip
        if layer_attr_method is not None or classifier_kwargs:
            what = "layer_attr_method" if layer_attr_method is not None else ", ".join(classifier_kwargs)
            raise NotImplementedError(
                f"captum.concept.TCAV: {what} has no counterpart in torchwhy; derivatives are gradients, and classifier= takes a "
                "scikit-learn classifier with its own settings"
            )
        self.layers = [layers] if isinstance(layers, str) else list(layers)
        self.model, self.model_id, self.save_path = model, model_id, save_path
        self.method = tw.TCAV(
            model, layer=self.layers, classifier=classifier, attribute_to_layer_input=attribute_to_layer_input
        )
        self.cavs: dict[str, dict[str, CAV]] = {}

    def compute_cavs(
        self, experimental_sets: Sequence[Sequence[Concept]], force_train: bool = False, processes: int | None = None
    ) -> dict[str, dict[str, CAV]]:
        """Return the vectors of each set of concepts at each layer, by the set's numbers as ``"0-1-2"`` and the layer's name.

        Args:
            experimental_sets: at least two concepts each.
            force_train, processes: have no effect: vectors are learnt at each call, in this process.
        """
        for concepts in experimental_sets:
            self._fit(concepts)
        return self.cavs

    def interpret(
        self, inputs: Inputs, experimental_sets: Sequence[Sequence[Concept]], target: TargetLike = None,
        additional_forward_args: object = None, processes: int | None = None, **kwargs: object,
    ) -> dict[str, dict[str, dict[str, Tensor]]]:  # fmt: skip
        """Return by set and layer ``"sign_count"`` and ``"magnitude"``, each with one number for each concept of the set.

        The sign count is the share of the inputs whose score rises towards the concept; the magnitude is the mean derivative
        along the vector of unit length (Captum's vectors have the length that its classifier gives them).

        Args:
            inputs: examples of a class.
            experimental_sets: at least two concepts each.
            target: the class.
            additional_forward_args: further arguments of the model.
            processes: has no effect.
            kwargs: Captum's, of its layer attribution.

        Raises:
            NotImplementedError: ``kwargs``.
        """
        if kwargs:
            raise NotImplementedError(
                f"captum.concept.TCAV.interpret: {', '.join(kwargs)} has no counterpart in torchwhy"
            )
        found: dict[str, dict[str, dict[str, Tensor]]] = {}
        for concepts in experimental_sets:
            self._fit(concepts)
            scores = self.method.score(inputs, target, additional_forward_args=additional_forward_args)
            if not isinstance(scores, LayerConceptScores):  # which a list of layers gives
                raise TypeError("layers: expected names of layers")
            found[_key(concepts)] = {
                layer: {
                    "sign_count": torch.tensor([s.score for s in each.values()], dtype=torch.float),
                    "magnitude": torch.tensor([s.derivative for s in each.values()], dtype=torch.float),
                }
                for layer, each in scores.items()
            }
        return found

    def _fit(self, concepts: Sequence[Concept]) -> None:
        """Learn the vectors of one set and keep them.

        Raises:
            ValueError: two concepts with one number.
        """
        numbers = [c.id for c in concepts]
        if len(set(numbers)) < len(numbers):
            raise ValueError(f"experimental_sets: concepts of the set {_key(concepts)} have the same id")
        self.method.fit({str(c.id): c.examples() for c in concepts})
        self.cavs[_key(concepts)] = {
            layer: CAV(
                concepts,
                layer,
                {"weights": c.vectors[:, 0], "classes": numbers, "accs": c.accuracy.mean()},
                self.save_path,
                self.model_id,
            )
            for layer, c in self.method.cavs.items()
        }


def _key(concepts: Sequence[Concept]) -> str:
    """Return what a set of concepts is called in the results."""
    return "-".join(str(c.id) for c in concepts)
