"""Methods that are a function of one gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from torchwhy.attribution import Attribution, Baselines, FeatureMasks, Inputs, checked_values, prepare_for
from torchwhy.engine.prepare import with_target
from torchwhy.engine.run.autograd import isolated
from torchwhy.engine.structure import Keywords, Tensors, flatten
from torchwhy.engine.uneven import may_be_uneven
from torchwhy.problem import Problem
from torchwhy.targets import Neuron, TargetLike


class GradientBased(Attribution):
    """The base of the methods that need one gradient: several targets can share the forward pass."""

    def from_gradients(self, problem: Problem, gradients: Tensors) -> Tensors:
        """Return the attributions, from the gradients at ``problem.x``."""
        raise NotImplementedError

    def _attribute(self, problem: Problem) -> Tensors:
        return self.from_gradients(problem, problem.run.all_gradients(problem.x))

    def attribute_each(
        self,
        inputs: Inputs,
        targets: Sequence[TargetLike],
        *,
        baselines: Baselines = None,
        feature_mask: FeatureMasks = None,
        additional_forward_args: object = None,
    ) -> list[Any]:
        """Return what :meth:`attribute` gives for each of several targets, from one forward pass of the model.

        Args:
            inputs, additional_forward_args: as for :meth:`attribute`.
            targets: T targets, each in any of the forms of :meth:`attribute` but a neuron.

        Returns:
            T attributions, each of the form that :meth:`attribute` gives.

        Raises:
            ValueError: no target.
            FloatingPointError: as :meth:`attribute`, for any of the targets.
            TypeError: a neuron, which is read from another forward pass.
        """
        if not targets or any(isinstance(t, Neuron) for t in targets):
            raise (TypeError if targets else ValueError)("targets: expected one or more targets of the model's output")
        if not isinstance(inputs, Tensor) and may_be_uneven(inputs):  # rows of each shape by themselves
            data: Keywords = {"baselines": baselines, "feature_mask": feature_mask}
            return super().attribute_each(inputs, targets, additional_forward_args=additional_forward_args, **data)
        with isolated(self.model):
            problem = prepare_for(self, inputs, targets[0], baselines, feature_mask, additional_forward_args)
            with problem.open():
                each = [with_target(problem, t).target for t in targets]

                def work(start: int, stop: int) -> list[Tensor]:
                    return [g for found in problem.run.gradients_per_target(each, start, stop) for g in found]

                flat, t = problem.run.concatenated(problem.n, work), len(problem.x)
                values = [self.from_gradients(problem, flat[i : i + t]) for i in range(0, len(flat), t)]
            structure = self.result_structure(flatten(inputs)[1])
            return [structure.restore(checked_values(self, problem, v)) for v in values]
