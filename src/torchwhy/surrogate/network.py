"""A small network in place of the model."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchwhy.analysis import Analysis, one_tensor, outputs
from torchwhy.engine.run.checks import check_count
from torchwhy.engine.run.defaults import torch_defaults
from torchwhy.engine.run.randomness import Seed, make_generator
from torchwhy.surrogate.intervals import agreement
from torchwhy.surrogate.tree import hold_out


class SurrogateNetwork(Analysis):
    r"""A small network trained to answer as the model does (distillation).

    The loss is :math:`\mathrm{KL}(\mathrm{softmax}(f / T) \,\|\, \mathrm{softmax}(g / T)) \, T^2`, or the squared error of
    scores.

    Args:
        network: the small module g, from the same inputs to outputs of the same shape; a copy of it is trained.
        temperature: T.
        n_epochs, learning_rate, rows_per_step: of Adam.
        held_out: the share of the rows on which the fidelity is measured.
        generator: of the held-out rows, the order of the rows and the network's own randomness.

    After :meth:`fit`: ``student``, the trained copy, in evaluation mode; ``fidelity`` on held-out rows, the share of equal
    classes, of one score per row R².

    Paper: Hinton, Vinyals, Dean 2015, arXiv:1503.02531, section 2.
    """

    network: nn.Module
    temperature: float = 2.0
    n_epochs: int = 30
    learning_rate: float = 1e-2
    rows_per_step: int = 64
    held_out: float = 0.25
    generator: Seed = 0
    student: nn.Module | None = field(default=None, init=False, compare=False)
    fidelity: float = field(default=math.nan, init=False, compare=False)

    @torch_defaults()
    def fit(self, inputs: Tensor, *, additional_forward_args: object = None) -> SurrogateNetwork:
        """Train the copy on the model's outputs for ``inputs`` ``(N, ...)``.

        Raises:
            TypeError: inputs that are no tensor, a network that is no module.
            ValueError: outputs of different shapes, too few rows, nothing to train.
        """
        if not isinstance(self.network, nn.Module):
            raise TypeError(f"network: expected a small module, got {type(self.network).__name__}")
        if not any(True for _ in self.network.parameters()):
            raise ValueError(f"network: {type(self.network).__name__} has no parameters to train")
        for name in ("n_epochs", "rows_per_step"):
            check_count(name, getattr(self, name))
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature!r}: expected a positive number")
        learn, test = (i.to(inputs.device) for i in hold_out(len(one_tensor(inputs)), self.held_out, self.generator))
        with self.problem(inputs, additional_forward_args=additional_forward_args) as problem:
            wanted = outputs(problem, problem.x, problem.rows)
        with torch.inference_mode(False), torch.random.fork_rng():
            student = deepcopy(self.network).to(inputs.device).train()
            torch.manual_seed(make_generator(self.generator).initial_seed())
            self._train(student, inputs[learn].clone(), wanted[learn].clone())
        self.student = student = student.eval()
        with torch.no_grad():
            found = student(inputs[test])
        classes = wanted.dim() == 2 and wanted.shape[1] > 1
        self.fidelity = agreement(*((o.argmax(1) if classes else o) for o in (wanted[test], found)))
        return self

    def _train(self, student: nn.Module, x: Tensor, wanted: Tensor) -> None:
        """Train the student on the model's outputs, in place."""
        loss = self._loss(wanted)
        with torch.enable_grad():
            optimiser = torch.optim.Adam(student.parameters(), self.learning_rate)
            for _ in range(self.n_epochs):
                for rows in torch.randperm(len(x)).to(x.device).split(self.rows_per_step):
                    found = student(x[rows])
                    if found.shape != wanted[rows].shape:
                        raise ValueError(
                            f"network: gives outputs {tuple(found.shape)} where the model gives {tuple(wanted[rows].shape)}"
                        )
                    optimiser.zero_grad()
                    loss(found, wanted[rows].to(found.dtype)).backward()
                    optimiser.step()

    def _loss(self, wanted: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the loss of the student's outputs and the model's: between classes, or the squared error of scores."""
        return self._distillation if wanted.dim() == 2 and wanted.shape[1] > 1 else F.mse_loss

    def _distillation(self, found: Tensor, wanted: Tensor) -> Tensor:
        """Return the divergence of the softened class probabilities."""
        t = self.temperature
        student, teacher = F.log_softmax(found / t, 1), F.log_softmax(wanted / t, 1)
        return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * t * t
