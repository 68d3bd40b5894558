"""Is an explanation true? Functions with one value, or one :class:`Curve`, for each row.

- They are called with what they need: ``metric(model, inputs, attributions, target)``, ``metric(attributions)``,
  ``metric(attributions, mask)``, or, where the method must explain again, ``metric(method, inputs, target)``.
- Attributions are what a method gives, an :class:`torchwhy.Explanation`, or arrays of NumPy; maps ``(N, H, W)`` of images are
  maps of one channel.
- ``metric.higher_is_better``, ``metric.range``, ``metric.needs`` and ``metric.paper`` say what they are: each is a
  :class:`Metric`. The decorator :func:`metric` makes one of a function of your own.
- What cannot be said is NaN (a correlation with what does not vary, a share of nothing), never a silent 0; maps with
  NaN or infinite numbers are refused.
- Those that run the model share :class:`Options`.
- A method that must explain again draws the same samples each time, also where it was given no ``generator``.
"""

import warnings
from typing import TYPE_CHECKING

from torchwhy.metrics.agreement import faithfulness_correlation, faithfulness_estimate, infidelity, sensitivity_n
from torchwhy.metrics.axioms import completeness_gap, input_invariance, non_sensitivity
from torchwhy.metrics.complexity_metrics import complexity, effective_complexity, sparseness
from torchwhy.metrics.curve import Curve
from torchwhy.metrics.definition import Metric, metric
from torchwhy.metrics.localisation import (
    auc,
    energy_pointing_game,
    iou,
    pointing_game,
    relevance_mass,
    relevance_rank,
    top_k_intersection,
)
from torchwhy.metrics.randomization import model_randomization, random_logit
from torchwhy.metrics.reexplain import Data
from torchwhy.metrics.removal import (
    average_drop,
    average_increase,
    comprehensiveness,
    deletion,
    insertion,
    irof,
    monotonicity,
    road,
    sufficiency,
)
from torchwhy.metrics.robustness import (
    continuity,
    explanation_attack,
    local_lipschitz,
    sensitivity_avg,
    sensitivity_max,
)
from torchwhy.metrics.scoring import Options
from torchwhy.spelling import refusal_of

__all__ = [
    "Curve",
    "Data",
    "Metric",
    "Options",
    "auc",
    "average_drop",
    "average_increase",
    "completeness_gap",
    "complexity",
    "comprehensiveness",
    "continuity",
    "deletion",
    "effective_complexity",
    "energy_pointing_game",
    "explanation_attack",
    "faithfulness_correlation",
    "faithfulness_estimate",
    "infidelity",
    "input_invariance",
    "insertion",
    "iou",
    "irof",
    "local_lipschitz",
    "metric",
    "model_randomization",
    "monotonicity",
    "non_sensitivity",
    "pointing_game",
    "random_logit",
    "relevance_mass",
    "relevance_rank",
    "road",
    "sensitivity_avg",
    "sensitivity_max",
    "sensitivity_n",
    "sparseness",
    "sufficiency",
    "top_k_intersection",
]

_RENAMED = {"necessity": "comprehensiveness"}  # old name: new name, kept for one version


def _renamed_metric(name: str) -> object:
    """Return what a name of version 0.1 stands for, with a warning.

    Raises:
        AttributeError: there is no such name.
    """
    if name not in _RENAMED:
        refusal_of(__name__, __all__)(name)
    message = f"torchwhy.metrics.{name} is now called {_RENAMED[name]}; the old name will go with version 0.3"
    warnings.warn(message, DeprecationWarning, stacklevel=2)
    return globals()[_RENAMED[name]]


if not TYPE_CHECKING:  # type checkers are to find a misspelt name
    __getattr__ = _renamed_metric
