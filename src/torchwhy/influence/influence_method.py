"""What the methods have in common that ask which training rows an answer comes from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import field
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn
from typing_extensions import Self

from torchwhy.engine.run.autograd import isolated
from torchwhy.engine.run.batching import budget_of
from torchwhy.engine.structure import InForm
from torchwhy.influence.influences import Influences, finite_influences
from torchwhy.influence.losses import LossFunction, RowLoss
from torchwhy.influence.named_tensors import left_as_it_is
from torchwhy.influence.row_gradients import GradientsOfRows, ParameterLayers, RowGradients, parameters_at
from torchwhy.influence.training_rows import RowsInBatches
from torchwhy.provenance import hash_parameters
from torchwhy.settings import Count, Settings

Gone = TypeVar("Gone")


class InfluenceMethod(Settings):
    """The base class: a model, the rows that it was trained on, and what each of these is worth for an answer.

    Models run in their own precision, whatever autocast is on around the call.

    Args:
        model: a module, used as it is and left as it was.
        batch_size: the most rows of one model call; None takes batches as they come, as far as memory allows.
        progress: show a bar over the training rows.
    """

    batch_size: Count | None = None
    progress: bool = False
    training: RowsInBatches | None = field(default=None, init=False, compare=False)
    training_labels: Tensor | None = field(default=None, init=False, compare=False)
    fitted_on: str = field(default="", init=False, compare=False)

    uses_own_parameters: ClassVar[bool] = True  # so that they must not change after fit

    def fit(self, data: InForm, labels: InForm = None) -> Self:
        """Take the training rows; return the method.

        They are gone through again when something is explained, in their order, so that only a batch of them is in memory.

        Args:
            data: a ``DataLoader`` that does not shuffle, a ``Dataset``, tensors, or a list of batches. A batch is what the model
                takes (a tensor, a tuple, or a dict of arguments by name) or a pair of that and labels; a dict may hold them as
                ``"label"`` or ``"labels"``.
            labels: ``(n_train, ...)``, of data that are tensors without labels.

        Raises:
            TypeError: data of another kind, or an iterator, which can be gone through once only.
            ValueError: no rows, not one label for each, a loader that shuffles, a model whose output is random.
        """
        self.training, self.fitted_on = None, ""
        with self._open() as device:
            self._before_fit()
            fitted_on = (
                hash_parameters(self.model) if self.uses_own_parameters else ""
            )  # before it writes to its buffers
            rows = RowsInBatches(data, labels, device, self.batch_size)
            self.training_labels = rows.labels()
            self._fit(rows)
        self.training, self.fitted_on = rows, fitted_on
        return self

    def explain(self, inputs: InForm, labels: InForm = None) -> Influences:
        """Return what each training row is worth for each of these rows.

        Args:
            inputs: ``(N, ...)``, as the model takes them, or whatever :meth:`fit` takes.
            labels: ``(N, ...)``, the answers that are explained, as the loss takes them.

        Raises:
            RuntimeError: :meth:`fit` was not called, or the model changed since.
            ValueError: labels are missing, or an influence is not finite.
        """
        with self._open() as device:
            training = self._fitted()
            rows = RowsInBatches(inputs, labels, device, self.batch_size)
            own = rows.labels()
            values = finite_influences(self._explain(rows, training), type(self).__name__)
        return Influences(values, own, self.training_labels, type(self).__name__, rows, training)

    def _before_fit(self) -> None:
        """Look at the model before the rows are read."""

    def _fit(self, rows: RowsInBatches) -> None:
        """Learn from the training rows what all answers need."""

    def _explain(self, rows: RowsInBatches, training: RowsInBatches) -> Tensor:
        """Return the influences ``(N, n_train)``."""
        raise NotImplementedError

    @contextmanager
    def _open(self) -> Iterator[torch.device]:
        """Hold the model while open; give its device.

        Raises:
            ValueError: its output is random, or mixes rows.
        """
        with left_as_it_is(self.model), isolated(self.model) as held:
            if held.noisy:
                raise ValueError(
                    f"model: in training mode {', '.join(held.noisy[:3])} make its output random or let rows influence each "
                    "other, so that no row has a loss of its own; call model.eval() first"
                )
            yield held.device or torch.device("cpu")

    def _fitted(self) -> RowsInBatches:
        """Return the training rows.

        Raises:
            RuntimeError: there are none, or the model is not what it was.
        """
        if self.training is None:
            raise RuntimeError(f"{type(self).__name__}: no training rows yet; call fit(data) first")
        if self.uses_own_parameters and hash_parameters(self.model) != self.fitted_on:
            raise RuntimeError("model: its parameters or buffers changed since fit(); call fit(data) again")
        return self.training

    def _steps(self, items: Iterable[Gone]) -> Iterable[Gone]:
        """Return what is gone through, with a bar if asked for."""
        if not self.progress:
            return items
        from tqdm.auto import tqdm

        return tqdm(items, desc=type(self).__name__)

    def _check_settings(self) -> None:
        super()._check_settings()
        if not isinstance(self.model, nn.Module) or isinstance(self.model, torch.jit.ScriptModule):
            raise TypeError(
                f"model: {type(self).__name__} needs a torch.nn.Module written in Python, got {type(self.model).__name__}"
            )


class GradientInfluence(InfluenceMethod):
    """The base of methods that compare gradients of losses by the parameters.

    Args:
        loss: ``(output, labels) → loss`` as PyTorch has them, the mean over a batch; the output's logits are given. None is
            the cross-entropy for whole-number labels, the squared error for others; of logits ``(N, T, tokens)`` with labels
            ``(N, T)`` that of the next token, −100 left out, the mean over the tokens of a row. Token ids without labels are
            their own.
        layer: layers whose parameters count; None is every parameter that requires a gradient.
    """

    loss: LossFunction | None = None
    layer: ParameterLayers = None
    names: list[str] = field(default_factory=list, init=False, compare=False)

    def self_influence(self) -> Tensor:
        """Return what each training row is worth for itself, ``(n_train,)``: large where the model learned a row by heart.

        Rows with a wrong label, and rare ones, are among the first.

        Raises:
            RuntimeError: :meth:`fit` was not called, or the model changed since.
        """
        with self._open():
            return finite_influences(self._self_influence(self._fitted())[None], type(self).__name__)[0]

    def _self_influence(self, training: RowsInBatches) -> Tensor:
        raise NotImplementedError

    def _before_fit(self) -> None:
        self.names = parameters_at(self.model, self.layer)

    def _gradients(self, state: dict[str, Tensor] | None = None) -> RowGradients:
        """Return the gradients of rows, at the model's own parameters or others."""
        return RowGradients(self.model, RowLoss(self.loss), self.names, state, self.batch_size)


class CheckpointInfluence(GradientInfluence):
    """The base of methods that follow a model through checkpoints of its training.

    Args:
        checkpoints: parameters in the place of the model's own; None is the model as it is.
    """

    checkpoints: Sequence[object] | None = None

    @property
    def uses_own_parameters(self) -> bool:  # type: ignore[override]
        """Whether the model's own parameters count."""
        return self.checkpoints is None


def in_memory(chunks: Iterable[GradientsOfRows], total: int) -> Iterator[Tensor]:
    """Yield gradients ``(m, p)`` of as many rows together as a part of the memory holds.

    Args:
        chunks: the gradients.
        total: p.
    """
    waiting: list[Tensor] = []
    for chunk in chunks:
        waiting.append(chunk.gradients)
        bytes_of_row = total * chunk.gradients.element_size()
        if sum(map(len, waiting)) * bytes_of_row * 4 > budget_of(chunk.gradients.device):
            yield torch.cat(waiting)
            waiting = []
    if waiting:
        yield torch.cat(waiting)


def products(vectors: Tensor, chunks: Iterable[GradientsOfRows]) -> Tensor:
    """Return the products ``(N, n)`` of vectors ``(N, p)`` with the gradients of n rows, which come in chunks."""
    return torch.cat([vectors @ chunk.gradients.T for chunk in chunks], 1)
