"""A small network in place of the model."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchwhy.analysis import Analysis, Task, chooses_classes, outputs
from torchwhy.engine.run.defaults import torch_defaults
from torchwhy.engine.run.randomness import Seed, make_generator
from torchwhy.input_types import Inputs
from torchwhy.settings import Count, Fraction, Positive
from torchwhy.surrogate.intervals import agreement
from torchwhy.surrogate.tree import hold_out


class SurrogateNetwork(Analysis):
    r"""A small network trained to answer as the model does (distillation).

    The loss is :math:`\mathrm{KL}(\mathrm{softmax}(f / T) \,\|\, \mathrm{softmax}(g / T)) \, T^2`, or, of a regression, the
    squared error of scores, of several each in units of its variance.

    Args:
        network: the small module g, from the same inputs to outputs of the same shape; a copy of it is trained.
        temperature: T.
        task: ``"classification"`` or ``"regression"``; None is the latter for one score per row and for scikit-learn's
            regressors.
        n_epochs, learning_rate, rows_per_step: of Adam.
        held_out: the share of the rows on which the fidelity is measured.
        generator: of the held-out rows, the order of the rows and the network's own randomness.

    After :meth:`fit`: ``student``, the trained copy, in evaluation mode; ``fidelity`` on held-out rows, the share of equal
    classes, of a regression R², the mean over its scores.

    Paper: Hinton, Vinyals, Dean 2015, arXiv:1503.02531, section 2.
    """

    network: nn.Module
    temperature: Positive = 2.0
    task: Task | None = None
    n_epochs: Count = 30
    learning_rate: Positive = 1e-2
    rows_per_step: Count = 64
    held_out: Fraction = 0.25
    generator: Seed = 0
    student: nn.Module | None = field(default=None, init=False, compare=False)
    fidelity: float = field(default=math.nan, init=False, compare=False)

    @torch_defaults()
    def fit(self, inputs: Inputs, *, additional_forward_args: object = None) -> SurrogateNetwork:
        """Train the copy on the model's outputs for ``inputs`` ``(N, ...)``.

        Raises:
            TypeError: inputs that are no tensor.
            ValueError: outputs of different shapes, too few rows, nothing to train.
        """
        if not any(True for _ in self.network.parameters()):
            raise ValueError(f"network: {type(self.network).__name__} has no parameters to train")
        with self.problem(inputs, additional_forward_args=additional_forward_args) as problem:
            x, wanted = problem.x, outputs(problem, problem.x, problem.rows)
            classes = chooses_classes(problem, wanted, self.task)
        learn, test = (i.to(wanted.device) for i in hold_out(len(wanted), self.held_out, self.generator))
        with torch.inference_mode(False), torch.random.fork_rng():
            student = deepcopy(self.network).to(wanted.device).train()
            torch.manual_seed(make_generator(self.generator).initial_seed())
            self._train(student, [t[learn].clone() for t in x], wanted[learn].clone(), classes)
        self.student = student = student.eval()
        with torch.no_grad():
            found = student(*(t[test] for t in x))
        self.fidelity = agreement(*((o.argmax(1) if classes else o) for o in (wanted[test], found)))
        return self

    def _train(self, student: nn.Module, x: list[Tensor], wanted: Tensor, classes: bool) -> None:
        """Train the student on the model's outputs, in place."""
        loss = self._distillation if classes else _squared_error_by_column(wanted)
        with torch.enable_grad():
            optimizer = torch.optim.Adam(student.parameters(), self.learning_rate)
            for _ in range(self.n_epochs):
                for rows in torch.randperm(len(wanted)).to(wanted.device).split(self.rows_per_step):
                    found = student(*(t[rows] for t in x))
                    if found.shape != wanted[rows].shape:
                        raise ValueError(
                            f"network: gives outputs {tuple(found.shape)} where the model gives {tuple(wanted[rows].shape)}"
                        )
                    optimizer.zero_grad()
                    loss(found, wanted[rows].to(found.dtype)).backward()
                    optimizer.step()

    def _distillation(self, found: Tensor, wanted: Tensor) -> Tensor:
        """Return the divergence of the softened class probabilities."""
        t = self.temperature
        student, teacher = F.log_softmax(found / t, 1), F.log_softmax(wanted / t, 1)
        return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * t * t


def _squared_error_by_column(wanted: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the squared error of scores, of several columns each in units of its own variance."""
    if wanted.dim() == 1 or wanted[0].numel() == 1:
        return F.mse_loss
    variance = wanted.double().var(0, correction=0)
    scale = torch.where(variance > 0, variance, torch.ones_like(variance))
    return lambda found, of: ((found - of).square() / scale.to(found)).mean()
