"""The importance of a feature over a data set: by permuting it, and by the gradient of the loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from torchwhy.analysis import Analysis, outputs
from torchwhy.engine.features.numbering import number_features
from torchwhy.engine.run.black_box import BlackBox
from torchwhy.engine.run.defaults import torch_defaults
from torchwhy.engine.run.randomness import Seed, make_generator
from torchwhy.engine.run.rows import expand_like
from torchwhy.engine.structure import Output
from torchwhy.engine.tables import column_names, features_by_name
from torchwhy.input_types import FeatureMasks, Inputs
from torchwhy.problem import Problem
from torchwhy.settings import Count
from torchwhy.surrogate.intervals import agreement
from torchwhy.targets import find_logits
from torchwhy.viewable import Table, Viewable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import PictureOption

ScoreFunctionOfData = Callable[[Tensor, Tensor], Any]


@dataclass(frozen=True, repr=False)
class Importance(Viewable):
    """The importance of each feature.

    Args:
        mean, std: ``(features,)``, over the repeats or rows; std with n in the denominator.
        each: ``(features, repeats)`` of permutations; of gradients None.
        score: the metric, or the mean loss, with nothing changed.
        names: of the features, where the inputs were a data frame.
    """

    mean: Tensor
    std: Tensor
    each: Tensor | None
    score: float
    names: list[str] | None = None

    def _picture(self, pictures: ModuleType, **options: PictureOption) -> Figure:
        shown = {"errors": self.std, "names": self.names, "xlabel": "importance ± standard deviation", **options}
        return pictures.bars(self.mean, **shown)

    def _table(self) -> Table:
        lines: list[list[object]] = [
            list(line) for line in zip(self.names or range(len(self.mean)), self.mean.tolist(), self.std.tolist())
        ]
        return ["feature", "mean", "std"], lines


class PermutationImportance(Analysis):
    r"""The loss of a score, such as the accuracy, when a feature is shuffled among the rows.

    :math:`I_k = s - \frac{1}{R} \sum_r s(x^{(k, r)})`, s the metric, the larger the better.

    It says what the model uses, on these rows; features that stand in for each other share their importance, and the rows with
    a shuffled feature may be unlike any real one. Equal to ``sklearn.inspection.permutation_importance`` for the same
    permutations, which all features share.

    Args:
        n_repeats: R, how many permutations.
        metric: ``(outputs, labels) → number``, the larger the better; None is accuracy for whole-number labels (of outputs
            ``(N, classes)``) and R² for others.
        generator: of the permutations.

    Paper: Fisher, Rudin, Dominici 2019, arXiv:1801.01489.
    """

    n_repeats: Count = 5
    metric: ScoreFunctionOfData | None = None
    generator: Seed = 0

    @torch_defaults()
    def measure(
        self,
        inputs: Inputs,
        labels: object,
        *,
        feature_mask: FeatureMasks = None,
        additional_forward_args: object = None,
    ) -> Importance:
        """Measure the importance of every feature.

        Args:
            inputs: ``(N, ...)``, also an array, a data frame, or several tensors.
            labels: ``(N, ...)``, as the metric takes them; of a scikit-learn classifier those that it was fitted on.
            feature_mask: integers 0 … features − 1 that broadcast to a row; None makes each element a feature. Of several
                tensors one for each: a number that occurs in two of them is one feature. Of a data frame also its columns
                in named groups, ``{"home": ["rooms", "area"]}``; a column in none is a feature by itself.
            additional_forward_args: further arguments of the model.

        Raises:
            TypeError: inputs that are no tensor.
            ValueError: not one label per row, a label that the model has no class for, a single row, a mask that does not
                fit, a metric that gives no number.
        """
        feature_mask, names = features_by_name(inputs, feature_mask)
        with self.problem(inputs, additional_forward_args=additional_forward_args) as problem:
            x, rows, n = problem.x, problem.rows, problem.n
            labels = label_columns(problem, labels, as_columns=self.metric is None)
            if n < 2:
                raise ValueError(f"inputs: {n} rows; at least 2 are needed")
            features = feature_of_elements(problem, feature_mask)
            n_features, metric = max(int(f.max()) for f in features) + 1, self._metric(labels)
            orders = self.permutations(n).to(rows.device)
            score = metric(outputs(problem, x, rows), labels)
            found: list[float] = []
            together = max(1, 4096 // n)  # jobs: few rows would use the machine badly
            jobs = torch.cartesian_prod(torch.arange(n_features), torch.arange(self.n_repeats)).to(rows.device)
            for part in jobs.split(together):

                def point(a: int, b: int, part: Tensor = part) -> list[Tensor]:
                    row = rows.repeat(len(part))[a:b]
                    k, r = part.repeat_interleave(n, 0)[a:b].T
                    own, other = row, orders[r, row]
                    return [t[own].where(f != expand_like(k, f[None]), t[other]) for t, f in zip(x, features)]

                out = outputs(problem, point, rows.repeat(len(part)))
                found += [score - metric(o, labels) for o in out.split(n)]
        each = torch.tensor(found, dtype=torch.double).view(n_features, self.n_repeats)
        return Importance(each.mean(1), each.std(1, correction=0), each, score, names)

    def _metric(self, labels: Tensor) -> Callable[[Tensor, Tensor], float]:
        """Return the metric as a function that gives a float.

        Raises:
            ValueError: it gives no number.
        """
        metric = self.metric or _default_metric(labels)

        def number(out: Tensor, y: Tensor) -> float:
            found = metric(out, y)
            try:
                return float(found)
            except (TypeError, ValueError):
                raise ValueError(f"metric: expected one number, got {_kind_of(found)}") from None

        return number

    def permutations(self, n: int) -> Tensor:
        """Draw permutations of n rows, ``(n_repeats, n)``."""
        generator = make_generator(self.generator)
        return torch.stack([torch.randperm(n, generator=generator) for _ in range(self.n_repeats)])


@dataclass
class _Loss:
    """Losses, in the place of a problem's scores."""

    loss: ScoreFunctionOfData
    labels: Tensor
    given: Any = None

    def select_rows(self, rows: Tensor) -> Any:
        return None

    def select(self, output: Output, rows: Tensor) -> Tensor:
        losses = self.loss(find_logits(output), self.labels[rows])
        if losses.shape != (len(rows),):
            raise ValueError(
                f"loss: expected one loss per row, shape ({len(rows)},), got {tuple(losses.shape)}; reduction='none'?"
            )
        return losses


class GradientImportance(Analysis):
    r"""The mean absolute gradient of the loss: :math:`I_k = \frac{1}{N} \sum_n |\partial \ell_n / \partial x_{nk}|`.

    In units of the loss per unit of the feature: compare features of one scale, or standardized ones.

    Args:
        loss: ``(outputs, labels) → (N,)``; None is cross-entropy for whole-number labels and the squared error for others.
    """

    loss: ScoreFunctionOfData | None = None

    @torch_defaults()
    def measure(self, inputs: Inputs, labels: object, *, additional_forward_args: object = None) -> Importance:
        """Measure the importance of every element of a row, ``mean`` and ``std`` over the rows in a row's shape.

        Args:
            inputs: ``(N, ...)``; of several tensors the elements are numbered through.
            labels: ``(N, ...)``, as the loss takes them.
            additional_forward_args: further arguments of the model.
        """
        with self.problem(inputs, gradient=True, additional_forward_args=additional_forward_args) as problem:
            labels = label_columns(problem, labels, as_columns=self.loss is None)
            problem = problem.replace(target=_Loss(self.loss or default_loss(labels), labels))
            each = [g.abs() for g in problem.run.all_gradients(problem.x)]
            sizes = each[0] if len(each) == 1 else torch.cat([g.flatten(1) for g in each], 1)
            loss = float(problem.run.all_scores(problem.x).mean())
        return Importance(sizes.mean(0), sizes.std(0, correction=0), None, loss, column_names(inputs))


def label_columns(problem: Problem, labels: Any, *, as_columns: bool) -> Tensor:
    """Return the labels as a tensor, one for each row; of a classifier with labels of its own the columns of its outputs.

    Raises:
        ValueError: None, not one for each row, words, or a label that the classifier does not have.
    """
    if labels is None:
        raise ValueError(f"labels: None; expected one for each of {problem.n} rows")
    classes = problem.model.classes if isinstance(problem.model, BlackBox) and as_columns else None
    if classes is not None and getattr(labels, "ndim", 1) == 1:
        number = {c: k for k, c in enumerate(classes)}
        values = labels.tolist() if hasattr(labels, "tolist") else list(labels)
        unknown = next(((i, v) for i, v in enumerate(values) if v not in number), None)
        if unknown is not None:
            raise ValueError(f"labels: {unknown[1]!r} in row {unknown[0]}; the model's classes are {classes}")
        labels = torch.tensor([number[v] for v in values])
    labels = labels if isinstance(labels, Tensor) else np.array(labels)  # a copy: those of pandas may be read-only
    if not isinstance(labels, Tensor) and labels.dtype.kind not in "biuf":
        raise ValueError(
            f"labels: {str(labels.flat[0])!r} and others that are no numbers; give the numbers of the model's outputs"
            if labels.size
            else "labels: none"
        )
    labels = torch.as_tensor(labels, device=problem.rows.device)
    if labels.dim() == 0 or len(labels) != problem.n:
        raise ValueError(f"labels: shape {tuple(labels.shape)} for {problem.n} rows; expected one per row")
    return labels


def feature_of_elements(problem: Problem, mask: FeatureMasks) -> list[Tensor]:
    """Return the feature of each element of a row, for each tensor."""
    masks = None if mask is None else problem.inputs.structure.match(mask, "feature_mask")
    ids = number_features([t[:1] for t in problem.x], masks).ids
    return [i[0].expand(t.shape[1:]) for i, t in zip(ids, problem.x)]


def _default_metric(labels: Tensor) -> ScoreFunctionOfData:
    """Return the accuracy for whole-number labels, R² for others."""
    return _r_squared if labels.is_floating_point() else _accuracy


def default_loss(labels: Tensor) -> ScoreFunctionOfData:
    """Return the cross-entropy for whole-number labels, the squared error for others."""
    return _squared_error if labels.is_floating_point() else _cross_entropy


def _r_squared(out: Tensor, labels: Tensor) -> float:
    return agreement(labels, rows_like(out, labels))


def _accuracy(out: Tensor, labels: Tensor) -> float:
    return agreement(labels, classes_in(out, labels).argmax(1))


def _squared_error(out: Tensor, labels: Tensor) -> Tensor:
    return (rows_like(out, labels) - labels).square().reshape(len(labels), -1).sum(1)


def _cross_entropy(out: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(classes_in(out, labels), labels.long(), reduction="none")


def classes_in(out: Tensor, labels: Tensor) -> Tensor:
    """Return the outputs, which have a number for each class.

    Raises:
        ValueError: they have none, or none for a label.
    """
    if out.dim() < 2 or out.shape[1] < 2:
        raise ValueError(
            f"labels: whole numbers, for outputs {tuple(out.shape)} that have no classes to choose from; give labels that are "
            "no whole numbers, or a metric= or loss= of your own"
        )
    wrong = ((labels < 0) | (labels >= out.shape[1])).nonzero()
    if len(wrong):
        first = tuple(wrong[0].tolist())
        raise ValueError(
            f"labels: {labels[first].item()} in row {first[0]}, but the outputs {tuple(out.shape)} have the classes 0 to "
            f"{out.shape[1] - 1}"
        )
    return out


def rows_like(out: Tensor, labels: Tensor) -> Tensor:
    """Return the outputs in the shape of their labels.

    Raises:
        ValueError: another number of them.
    """
    if out.numel() != labels.numel():
        raise ValueError(
            f"labels: {tuple(labels.shape)} of {labels.dtype} for outputs {tuple(out.shape)}: give as many numbers, whole "
            "numbers for classes, or a metric= or loss= of your own"
        )
    return out.reshape(labels.shape)


def _kind_of(value: object) -> str:
    """Describe a value in few words."""
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
