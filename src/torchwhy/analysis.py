"""The base class of what is measured over many rows at once, where an attribution speaks of each row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from torchwhy.engine.layers.layer import LayerLike
from torchwhy.engine.prepare import prepare
from torchwhy.engine.run.black_box import BlackBox
from torchwhy.engine.run.rows import rows_between
from torchwhy.input_types import Inputs
from torchwhy.problem import Problem
from torchwhy.settings import Count, Settings
from torchwhy.targets import TargetLike, logits_per_row


class Analysis(Settings):
    """The base class: a model, and how it is run.

    Args:
        model: a module, used as it is and left as it was; unless gradients are read also any callable from tensors to
            tensors or from NumPy arrays to NumPy arrays, or a scikit-learn estimator.
        batch_size: the most rows of one model call; None finds it from the memory that a row takes.
        progress: show a bar.
    """

    batch_size: Count | None = None
    progress: bool = False

    def steps(self, n: int) -> Iterable[int]:
        """Return ``range(n)``, with a bar if asked for."""
        if not self.progress:
            return range(n)
        from tqdm.auto import tqdm

        return tqdm(range(n), desc=type(self).__name__)

    @contextmanager
    def problem(
        self,
        inputs: Inputs,
        target: TargetLike = None,
        *,
        layer: LayerLike | None = None,
        gradient: bool = False,
        additional_forward_args: object = None,
    ) -> Iterator[Problem]:
        """Return the checked problem, open while the block lasts; with ``layer`` what passes that is read."""
        with torch.inference_mode(False):
            problem = prepare(
                self.model,
                inputs,
                target,
                needs_gradient=gradient,
                needs_float_inputs=gradient,
                additional_forward_args=additional_forward_args,
                layer=layer,
                layer_role="own" if layer is None else "read",
                batch_size=self.batch_size,
                progress=self.progress,
                label=type(self).__name__,
            )
            with problem.open():
                yield problem


Task = Literal["classification", "regression"]


def chooses_classes(problem: Problem, out: Tensor, task: Task | None) -> bool:
    """Say whether outputs ``(N, ...)`` are those of classes, of which one is chosen.

    Where the task is not said: outputs ``(N, classes)`` of at least two, unless the model is a scikit-learn regressor.
    """
    if task is not None:
        return task == "classification"
    regressor = isinstance(problem.model, BlackBox) and problem.model.is_regressor
    return out.dim() == 2 and out.shape[1] > 1 and not regressor


def outputs(problem: Problem, z: Sequence[Tensor] | Callable[[int, int], Sequence[Tensor]], rows: Tensor) -> Tensor:
    """Return the model's outputs ``(M, ...)`` for ``z`` ``(M, ...)`` that stand for ``rows`` ``(M,)``, without a graph.

    ``z(a, b)`` makes its rows a to b - 1 when they are needed.
    """

    def work(a: int, b: int) -> Tensor:
        part = z(a, b) if callable(z) else rows_between(z, a, b)
        with torch.no_grad():
            return logits_per_row(problem.run.outputs(part, rows[a:b]), b - a)

    return problem.run.concatenated(len(rows), work)
