"""The class activation map of what tells a class from those that are like it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from torchwhy.cam.cam import CAM
from torchwhy.cam.class_activation_map import ClassActivationMap
from torchwhy.cam.eigen_cam import EigenCAM
from torchwhy.cam.grad_cam import GradCAM
from torchwhy.engine.layers.layer import LayerLike
from torchwhy.engine.prepare import all_outputs
from torchwhy.engine.run.randomness import make_generator
from torchwhy.engine.run.rows import at_least_float32
from torchwhy.engine.structure import Output
from torchwhy.problem import Problem
from torchwhy.settings import Bounds, Count
from torchwhy.targets import DerivedTarget, logits_per_row
from torchwhy.wrapper import Wrapper


class FinerCAM(ClassActivationMap, Wrapper[LayerLike]):
    r"""The map of a class's score less the scores of similar classes: :math:`y_k - \gamma \sum_d w_d y_d`, with
    :math:`\sum_d w_d = 1`, in the place of :math:`y_k`.

    Args:
        of: the method whose weights make the map, with the settings that only it has; those that all maps have (``layer``,
            ``relu``, ``upsample``, ``batch_size``, ...) are this method's own. None is :class:`GradCAM`.
        strength: γ.
        n_references: how many classes are compared with, for each row those whose scores are nearest to the target's.
        references: these classes instead, for all rows.
        weighting: equal w, or proportional to exp(y_d) (``"softmax"``), held constant.

    The classes and their w are those of the input itself (one more pass), also where ``of`` changes the picture or the layer.

    Raises:
        TypeError: ``of`` is no method.
        ValueError: ``of`` has another model, or does not look at the score, and so not at its difference from others.

    Paper: Zhang et al. 2025, arXiv:2501.11309.
    """

    of: ClassActivationMap | None = None  # type: ignore[assignment]
    strength: float = 0.6
    n_references: Count = 3
    references: Sequence[Annotated[int, Bounds(0)]] | None = None
    weighting: Literal["equal", "softmax"] = "equal"

    paper: ClassVar[str] = "arXiv:2501.11309"

    def maps(self, problem: Problem) -> Sequence[Tensor]:
        """Return the other method's maps of the difference."""
        of = self.of or GradCAM(self.model)
        target, classes = problem.target, self.target_classes(problem)[:, None]
        y = at_least_float32(all_outputs(problem))
        others, weights = self._similar_classes(y, target.select(y, problem.rows), classes.to(y.device))
        difference = DifferenceFromClasses(target, self.strength, others, weights)
        generator = make_generator(getattr(of, "generator", None))
        inner = replace(of, layer=self.layer, reshape=self.reshape)
        return inner.maps(problem.replace(target=difference, generator=generator))

    def _check_settings(self) -> None:
        super()._check_settings()
        of = self.of
        blind = isinstance(of, (CAM, FinerCAM)) or (isinstance(of, EigenCAM) and not of.needs_gradient)
        if blind or not isinstance(of, (ClassActivationMap, type(None))):
            raise ValueError(
                f"of={type(of).__name__}: expected a class activation map that is made from the score, such as GradCAM"
            )
        if self.references is not None and not len(self.references):
            raise ValueError(f"references={self.references!r}: expected classes, ints from 0, one or more")

    def _similar_classes(self, y: Tensor, own: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the classes that each row is compared with, and their w, both ``(N, D)``.

        Args:
            y: outputs ``(N, C)``.
            own: the score ``(N,)`` of each row's class.
            classes: these classes, ``(N, 1)``.
        """
        if self.references is not None:
            others = torch.as_tensor(list(self.references), device=y.device).expand(len(y), -1)
            if bool(((others == classes) | (others >= y.shape[1])).any()):
                raise ValueError(
                    f"references={list(self.references)}: expected classes of the {y.shape[1]}, and not the target's"
                )
        else:
            n = min(self.n_references, y.shape[1] - 1)
            far = (y - own[:, None]).abs().scatter(1, classes, torch.inf)
            others = far.sort(dim=1, stable=True).indices[:, :n]
        near = y.gather(1, others)
        return others, (near if self.weighting == "softmax" else torch.zeros_like(near)).softmax(1)


@dataclass
class DifferenceFromClasses(DerivedTarget):
    """The score of the target less the mean score of classes like it.

    Args:
        others, weights: these classes of each row and what each counts, ``(N, D)``.
    """

    strength: float
    others: Tensor
    weights: Tensor

    def select(self, output: Output, rows: Tensor) -> Tensor:
        """Return the differences ``(M,)`` of rows ``(M,)``."""
        near = logits_per_row(output, len(rows)).gather(1, self.others[rows])
        return self.target.select(output, rows) - self.strength * (self.weights[rows].to(near) * near).sum(1)
