"""A decision tree in place of the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from torchwhy.analysis import Analysis, Task, chooses_classes, outputs
from torchwhy.engine.run.black_box import labels_of
from torchwhy.engine.run.defaults import torch_defaults
from torchwhy.engine.run.randomness import Seed, make_generator
from torchwhy.engine.tables import column_names, frame_form
from torchwhy.input_types import Inputs
from torchwhy.settings import Count, Fraction
from torchwhy.surrogate.intervals import agreement
from torchwhy.surrogate.table import TableColumns
from torchwhy.surrogate.tree_labels import labels_to_the_left, rules_in_labels, say_labels
from torchwhy.targets import TargetLike
from torchwhy.viewable import Table, Viewable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwhy.engine.structure import Keywords


class SurrogateTree(Viewable, Analysis):
    """A scikit-learn decision tree that answers as the model does, fitted to its answers.

    Without a target it learns the predicted class of a model with outputs ``(N, classes)``, by its label where the model has
    labels; with a target, or of a regression, the scores. It explains the model on rows like those given, as far as
    ``fidelity`` goes.

    Args:
        max_depth: the depth of the tree.
        task: ``"classification"`` or ``"regression"``; None is the latter for one score per row and for scikit-learn's
            regressors.
        held_out: the share of the rows on which the fidelity is measured.
        generator: of the held-out rows.

    After :meth:`fit`: ``tree``, the scikit-learn estimator; ``fidelity`` on held-out rows, the share of equal classes or R²,
    of several scores the mean.

    Paper: Craven, Shavlik 1996, "Extracting tree-structured representations of trained networks".
    """

    max_depth: Count = 3
    task: Task | None = None
    held_out: Fraction = 0.25
    generator: Seed = 0
    tree: Any = field(default=None, init=False, compare=False)
    fidelity: float = field(default=math.nan, init=False, compare=False)
    names: list[str] | None = field(default=None, init=False, compare=False)
    labels: dict[int, list[str]] = field(default_factory=dict, init=False, compare=False)

    @torch_defaults()
    def fit(
        self, inputs: Inputs, target: TargetLike = None, *, additional_forward_args: object = None
    ) -> SurrogateTree:
        """Fit the tree to the model's answers on ``inputs`` ``(N, ...)``; the features are the elements of a row.

        Inputs can also be an array, a data frame, or several tensors, whose columns are numbered through.

        Raises:
            TypeError: inputs that are no tensors.
            ValueError: too few rows to hold some out.
        """
        from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

        answers, x, labels = self._answers(inputs, target, additional_forward_args)
        form = frame_form(inputs)
        learn, test = hold_out(len(x), self.held_out, self.generator)
        if answers.is_floating_point():
            kind, learnt = DecisionTreeRegressor, answers.double().cpu().numpy()
        else:
            numbers = answers.cpu().numpy()
            kind, learnt = DecisionTreeClassifier, numbers if labels is None else np.asarray(labels)[numbers]
        tree = kind(max_depth=self.max_depth, random_state=0)
        if (
            learnt.ndim == 2
        ):  # several scores: each in units of its deviation, or the one with the largest units has all splits
            center, spread = learnt[learn].mean(0), learnt[learn].std(0)
            tree.fit(x[learn].numpy(), (learnt[learn] - center) / np.where(spread > 0, spread, 1.0))
            tree.tree_.value[:] = tree.tree_.value * spread[:, None] + center[:, None]
        else:
            tree.fit(x[learn].numpy(), learnt[learn])
        self.tree = tree
        found = self.tree.predict(x[test].numpy())
        if answers.is_floating_point():
            self.fidelity = agreement(answers[test].cpu(), torch.from_numpy(found))
        else:
            self.fidelity = float((found == learnt[test]).mean())
        self.names = column_names(inputs)
        self.labels = {} if form is None else {j: [str(known) for known in c] for j, c in form.labels.items()}
        return self

    @torch_defaults()
    def answers(self, inputs: Inputs, target: TargetLike = None, additional_forward_args: object = None) -> Tensor:
        """Return what the tree learns: the numbers of the model's predicted classes ``(N,)``, or its scores ``(N, ...)``."""
        return self._answers(inputs, target, additional_forward_args)[0]

    def _answers(
        self, inputs: Inputs, target: TargetLike, additional_forward_args: object
    ) -> tuple[Tensor, Tensor, list[object] | None]:
        """Return the answers, the rows as numbers ``(N, d)``, and the labels of the classes where these have any."""
        with self.problem(inputs, target, additional_forward_args=additional_forward_args) as problem:
            x = TableColumns(problem.x).numbers()
            if target is not None:
                return problem.run.all_scores(problem.x), x, None
            out = outputs(problem, problem.x, problem.rows)
            if chooses_classes(problem, out, self.task):
                return out.argmax(1), x, labels_of(problem.model)
        return out.reshape(len(out)) if out.numel() == len(out) else out.flatten(1), x, None

    def text(self, feature_names: Sequence[str] | None = None, **options: object) -> str:
        """Return the tree as indented rules (``sklearn.tree.export_text``); columns of labels by these."""
        from sklearn.tree import export_text

        names = feature_names or self.names
        rules = export_text(self._fitted(), feature_names=names, **options)
        return rules_in_labels(rules, names, self.labels) if self.labels and names is not None else rules

    def plot(
        self, feature_names: Sequence[str] | None = None, class_names: Sequence[str] | None = None, **options: object
    ) -> Figure:
        """Draw the tree as a ``matplotlib`` figure (``sklearn.tree.plot_tree``), its fidelity above it.

        A node that asks for labels has those that go to the left.

        Args:
            feature_names: of all features.
            class_names: of all classes that the tree tells apart, in their order; None is their numbers.
            options: handed to ``plot_tree``.

        Raises:
            RuntimeError: there is no tree yet.
            ValueError: another number of names than of features or classes.
        """
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from sklearn.tree import plot_tree

        from torchwhy.visualize.drawing import Picture

        tree, feature_names = self._fitted(), feature_names or self.names
        if feature_names is not None and len(feature_names) != tree.n_features_in_:
            raise ValueError(f"feature_names: {len(feature_names)} given for {tree.n_features_in_} features")
        size = 2.2 * 2 ** min(self.max_depth, 4)
        figure = Picture(figsize=(size, 1.6 * (self.max_depth + 1)))
        FigureCanvasAgg(figure)
        classes = [str(c) for c in getattr(tree, "classes_", ())]
        if class_names is not None and len(class_names) != len(classes):
            raise ValueError(f"class_names: {len(class_names)} given for {len(classes)} classes")
        ax = figure.add_subplot()
        named = {"class_names": list(class_names or classes)} if classes else {}
        given: Keywords = {"filled": True, "impurity": False, "node_ids": bool(self.labels), **named, **options}
        texts = plot_tree(tree, feature_names=feature_names, ax=ax, **given)
        if self.labels and feature_names is not None:
            names = [str(feature_names[j]) if j >= 0 else "" for j in tree.tree_.feature]
            say_labels(texts, labels_to_the_left(tree.tree_, self.labels), names, keep=bool(options.get("node_ids")))
        ax.set_title(
            f"fidelity {self.fidelity:.3g}: {'equal classes' if classes else 'R²'} on held-out rows", size=10.5
        )
        return figure

    def _table(self) -> Table:
        """Return a line for each node: its parent, what it asks, how many rows came to it, what it answers.

        Of a column of labels, what is asked is which of them go to the left.
        """
        tree = self._fitted().tree_
        parents: dict[int, int] = {}
        for node in range(tree.node_count):
            parents |= {
                int(child): node for child in (tree.children_left[node], tree.children_right[node]) if child >= 0
            }
        asked = labels_to_the_left(tree, self.labels)
        lines: list[list[object]] = []
        for node in range(tree.node_count):
            leaf = tree.children_left[node] < 0
            value = tree.value[node].reshape(-1)
            answer = value[0] if len(value) == 1 else self.tree.classes_[value.argmax()]
            asks: list[object] = [None, math.nan]
            if not leaf:
                column = int(tree.feature[node])
                asks = [column if self.names is None else self.names[column], float(tree.threshold[node])]
            if node in asked:
                asks[1] = ", ".join(asked[node])
            said = answer.item() if isinstance(answer, np.generic) else answer
            lines.append([node, parents.get(node), *asks, int(tree.n_node_samples[node]), said])
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
