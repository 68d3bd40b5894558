"""A decision tree in place of the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchwhy.analysis import Analysis, one_tensor, outputs
from torchwhy.engine.run.checks import check_count
from torchwhy.engine.run.defaults import torch_defaults
from torchwhy.engine.run.randomness import Seed, make_generator
from torchwhy.surrogate.intervals import agreement
from torchwhy.targets import TargetLike
from torchwhy.viewable import Table, Viewable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class SurrogateTree(Viewable, Analysis):
    """A scikit-learn decision tree that answers as the model does, fitted to its answers.

    Without a target it learns the predicted class of a model with outputs ``(N, classes)``; with one, or of one score per
    row, the score. It explains the model on rows like those given, as far as ``fidelity`` goes.

    Args:
        max_depth: the depth of the tree.
        held_out: the share of the rows on which the fidelity is measured.
        generator: of the held-out rows.

    After :meth:`fit`: ``tree``, the scikit-learn estimator; ``fidelity`` on held-out rows, the share of equal classes or R².

    Paper: Craven, Shavlik 1996, "Extracting tree-structured representations of trained networks".
    """

    max_depth: int = 3
    held_out: float = 0.25
    generator: Seed = 0
    tree: Any = field(default=None, init=False, compare=False)
    fidelity: float = field(default=math.nan, init=False, compare=False)

    @torch_defaults()
    def fit(
        self, inputs: Tensor, target: TargetLike = None, *, additional_forward_args: object = None
    ) -> SurrogateTree:
        """Fit the tree to the model's answers on ``inputs`` ``(N, ...)``; the features are the elements of a row.

        Raises:
            TypeError: inputs that are no tensor.
            ValueError: too few rows to hold some out.
        """
        from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

        check_count("max_depth", self.max_depth)
        learn, test = hold_out(len(one_tensor(inputs)), self.held_out, self.generator)
        answers = self.answers(inputs, target, additional_forward_args).cpu()
        kind = DecisionTreeRegressor if answers.is_floating_point() else DecisionTreeClassifier
        x = inputs.flatten(1).cpu()
        self.tree = kind(max_depth=self.max_depth, random_state=0).fit(x[learn].numpy(), answers[learn].numpy())
        self.fidelity = agreement(answers[test], torch.from_numpy(self.tree.predict(x[test].numpy())))
        return self

    @torch_defaults()
    def answers(self, inputs: Tensor, target: TargetLike = None, additional_forward_args: object = None) -> Tensor:
        """Return what the tree learns: the model's predicted classes, or its scores, ``(N,)``."""
        with self.problem(inputs, target, additional_forward_args=additional_forward_args) as problem:
            if target is not None:
                return problem.run.all_scores(problem.x)
            out = outputs(problem, problem.x, problem.rows)
        return out.argmax(1) if out.dim() == 2 and out.shape[1] > 1 else out.reshape(len(inputs))

    def text(self, feature_names: Sequence[str] | None = None, **options: object) -> str:
        """Return the tree as indented rules (``sklearn.tree.export_text``)."""
        from sklearn.tree import export_text

        return export_text(self._fitted(), feature_names=feature_names, **options)

    def plot(
        self, feature_names: Sequence[str] | None = None, class_names: Sequence[str] | None = None, **options: object
    ) -> Figure:
        """Draw the tree as a ``matplotlib`` figure (``sklearn.tree.plot_tree``), its fidelity above it.

        Args:
            feature_names: of all features.
            class_names: of all classes that the tree tells apart, in their order; None is their numbers.
            options: handed to ``plot_tree``.

        Raises:
            RuntimeError: there is no tree yet.
            ValueError: another number of names than of features or classes.
        """
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from sklearn.tree import plot_tree

        tree = self._fitted()
        if feature_names is not None and len(feature_names) != tree.n_features_in_:
            raise ValueError(f"feature_names: {len(feature_names)} given for {tree.n_features_in_} features")
        size = 2.2 * 2 ** min(self.max_depth, 4)
        figure = Figure(figsize=(size, 1.6 * (self.max_depth + 1)))
        FigureCanvasAgg(figure)
        classes = [str(c) for c in getattr(tree, "classes_", ())]
        if class_names is not None and len(class_names) != len(classes):
            raise ValueError(f"class_names: {len(class_names)} given for {len(classes)} classes")
        ax = figure.add_subplot()
        named = {"class_names": list(class_names or classes)} if classes else {}
        plot_tree(tree, feature_names=feature_names, ax=ax, **{"filled": True, "impurity": False} | named | options)
        ax.set_title(
            f"fidelity {self.fidelity:.3g}: {'equal classes' if classes else 'R²'} on held-out rows", size=10.5
        )
        return figure

    def _table(self) -> Table:
        """Return a line for each node: its parent, what it asks, how many rows came to it, what it answers."""
        tree = self._fitted().tree_
        parents: dict[int, int] = {}
        for node in range(tree.node_count):
            parents |= {
                int(child): node for child in (tree.children_left[node], tree.children_right[node]) if child >= 0
            }
        lines: list[list[object]] = []
        for node in range(tree.node_count):
            leaf = tree.children_left[node] < 0
            value = tree.value[node].reshape(-1)
            answer = value[0] if len(value) == 1 else self.tree.classes_[value.argmax()]
            asks = [None, math.nan] if leaf else [int(tree.feature[node]), float(tree.threshold[node])]
            lines.append([node, parents.get(node), *asks, int(tree.n_node_samples[node]), float(answer)])
        return ["node", "parent", "feature", "at most", "rows", "answer"], lines

    def _fitted(self) -> Any:
        """Return the tree.

        Raises:
            RuntimeError: there is none yet.
        """
        if self.tree is None:
            raise RuntimeError("SurrogateTree: no tree yet; call fit(inputs) first")
        return self.tree


def hold_out(n: int, held_out: float, seed: Seed) -> tuple[Tensor, Tensor]:
    """Return the indices of the rows to learn from, and of those held out.

    Raises:
        ValueError: too few rows for both.
    """
    k = round(held_out * n)
    if not 0 < k < n:
        raise ValueError(f"inputs: {n} rows with held_out={held_out} leave {n - k} to learn from and {k} to test on")
    order = torch.randperm(n, generator=make_generator(seed))
    return order[k:], order[:k]
