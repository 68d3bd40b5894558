"""What Captum measures of explanations, by our metrics."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

import torchwhy as tw
from torchwhy.captum.methods import CaptumMethod, seed_of_torch
from torchwhy.captum.signatures import bind
from torchwhy.engine.structure import InForm

NO_INFIDELITY = ("infidelity", "infidelity_perturb_func_decorator")


def largest_change(
    explanation_func: Callable[..., InForm], inputs: InForm, perturb_func: InForm = None, perturb_radius: float = 0.02,
    n_perturb_samples: int = 10, norm_ord: str | float = "fro", max_examples_per_batch: int | None = None, **kwargs: InForm,
) -> Tensor:  # fmt: skip
    """Return the largest relative change of an explanation within a small cube, ``(N,)``.

    Args:
        explanation_func: the ``attribute`` of a method of :mod:`torchwhy.captum.attr`, at the inputs or of a neuron.
        inputs: what is explained.
        perturb_func: Captum's; there is none here but the cube.
        perturb_radius, n_perturb_samples: the cube and how many points of it.
        norm_ord: the Euclidean norm, ``"fro"`` or 2.
        max_examples_per_batch: has no effect.
        kwargs: what ``attribute`` is called with besides.

    Raises:
        NotImplementedError: another function, perturbation or norm.
    """
    method = getattr(explanation_func, "__self__", None)
    if not isinstance(method, CaptumMethod) or perturb_func is not None or norm_ord not in ("fro", 2):
        raise NotImplementedError(
            "torchwhy.captum: sensitivity_max takes the attribute of a method of torchwhy.captum.attr, a cube and the Euclidean "
            "norm; see tw.metrics.sensitivity_max"
        )
    call = method.question(bind(f"{type(method).__name__}.attribute", method.row.attribute, (inputs,), kwargs))
    if call.layer is not None:
        raise NotImplementedError("torchwhy.captum: sensitivity_max of a layer; see tw.metrics.sensitivity_max")
    return tw.metrics.sensitivity_max(
        call.ours(call.model, **call.settings), call.inputs, call.target, radius=perturb_radius, n_samples=n_perturb_samples,
        generator=seed_of_torch(), **{k: v for k, v in call.data.items() if v is not None},
    )  # fmt: skip
