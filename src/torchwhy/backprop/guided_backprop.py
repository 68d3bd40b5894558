"""Guided backpropagation and the deconvolution network: rectifiers that look at the sign of the signal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from torchwhy.attribution import Attribution
from torchwhy.engine.rules.in_place import custom_pointwise_backward, in_place_rule
from torchwhy.engine.rules.mode import RuleMode, count_operations, custom_backward, run_with_rules
from torchwhy.engine.rules.operations import RECTIFIERS, OpCall, OpRule
from torchwhy.engine.rules.rectifiers import RectifierRules
from torchwhy.engine.run.warn import warn
from torchwhy.input_types import GivenLayer
from torchwhy.problem import Problem
from torchwhy.result import Result


class _Gate(torch.autograd.Function):
    """The identity; backward, what is negative is dropped. In place, nothing is copied or moved."""

    @staticmethod
    def forward(ctx, x, in_place):
        ctx.set_materialize_grads(False)
        if in_place:
            ctx.mark_dirty(x)
            return x
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, m):
        return None if m is None else m.clamp(min=0), None


@in_place_rule
def guided_relu(call: OpCall) -> Tensor:
    r"""Let max(m_y, 0) · 1[x > 0] = max(m_y · 1[x > 0], 0) arrive at x: the gradient, and a gate below it."""
    return call.as_called(_Gate.apply(call.x, call.in_place))


def guided_rectifier(call: OpCall) -> Tensor:
    r"""Let max(m_y, 0) · max(f'(x), 0) arrive at x: a positive signal, through a positive slope; gates on both sides."""
    y = call(_Gate.apply(call.x, False))
    return custom_backward(y.detach(), lambda m: (m.clamp(min=0),), y)


@in_place_rule
def deconvolution(call: OpCall) -> Tensor:
    r"""Let max(m_y, 0) arrive at x: a positive signal, whatever the activation did on the way up."""
    return custom_pointwise_backward(call, call.value(), lambda m: (m.clamp(min=0),))


class _Rectified(Attribution[GivenLayer]):
    """Gradients with another backward of the rectifiers."""

    table: ClassVar[Mapping[str, OpRule]] = {}

    @classmethod
    def rules(cls) -> RuleMode:
        """Return the rules, for use by hand: ``with tw.GuidedBackprop.rules(): y = model(x)[0, k]``, then ``y.backward()``.

        What arrives at an x that requires a gradient, ``x.grad``, is the attribution itself. Trainable parameters get a
        gradient too, of no meaning: ``torch.autograd.grad(y, x)`` leaves them alone.
        """
        return RectifierRules(cls.table)

    def _attribute(self, problem: Problem) -> Result:
        _, signal, used = run_with_rules(problem, self.rules)
        if not any(rules.applied for rules in used):
            warn(
                f"{type(self).__name__} changes rectifiers (ReLU, GELU, SiLU, ...), and this model runs none (above the layer "
                "that is explained): the result is the plain gradient",
            )
        return Result(signal, details=count_operations(used))


class GuidedBackprop(_Rectified[GivenLayer]):
    r"""The gradient with negative signals dropped at every rectifier y = f(x): :math:`m_x = \max(m_y, 0) \max(f'(x), 0)`.

    For ReLU that is the paper's rule, the gradient's mask times the deconvolution's. Smooth rectifiers (GELU, SiLU, ELU,
    Hardswish, Mish, Softplus, LeakyReLU, ReLU6, ...) let a positive signal through by their slope where it is positive; the
    small negative slopes left of zero of GELU and its kind are closed. Sigmoid and tanh keep their gradient. Other spellings
    of a rectifier are seen as such: ``x.clamp(min=0)``, ``torch.maximum(x, zero)``, ``torch.where(x > 0, x, 0)``,
    ``x * (x > 0)``, ``x[x < 0] = 0``; two bounds, ``x.clamp(a, b)``, are ``F.hardtanh``.

    The numbers are not in units of the score, do not add up to anything, and depend little on the class (Adebayo et al. 2018,
    arXiv:1810.03292). The rules may be used by hand: ``with tw.GuidedBackprop.rules(): model(x)[0, k].backward()``.

    Warns where the model runs no rectifier, and of autograd Functions, whose inside is not seen.

    Paper: Springenberg et al. 2015, arXiv:1412.6806, section 3.4.

    >>> import torch, torchwhy as tw
    >>> x = torch.tensor([[1.0, -1.0]])
    >>> tw.GuidedBackprop(lambda x: x.relu().mul(torch.tensor([2.0, 2.0])).sum(1)).attribute(x)
    tensor([[2., 0.]])
    """

    table: ClassVar[Mapping[str, OpRule]] = {**dict.fromkeys(RECTIFIERS, guided_rectifier), "relu": guided_relu}
    paper: ClassVar[str] = "arXiv:1412.6806"


class DeconvNet(_Rectified[GivenLayer]):
    r"""The gradient with every rectifier's backward replaced by a rectifier of the signal: :math:`m_x = \max(m_y, 0)`.

    What the rectifier let through on the way up plays no part; smooth ones are treated alike. Not in units of the score and
    of no defined sum; the rules may be used by hand, see :class:`GuidedBackprop`. Max-pooling keeps its gradient, which
    is the paper's unpooling by switches.

    Warns where the model runs no rectifier. Paper: Zeiler, Fergus 2014, arXiv:1311.2901, section 2.1.
    """

    table: ClassVar[Mapping[str, OpRule]] = dict.fromkeys(RECTIFIERS, deconvolution)
    paper: ClassVar[str] = "arXiv:1311.2901"
