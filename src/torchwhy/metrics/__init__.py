"""Is an explanation true? Pure functions, each with one value (or one curve) for each row.

- They are called with what they need: ``metric(model, inputs, attributions, target)``, ``metric(attributions)``,
  ``metric(attributions, mask)``, or, where the method must explain again, ``metric(method, inputs, target)``.
- Attributions are what a method gives, an :class:`torchwhy.Explanation`, or arrays of NumPy; maps ``(N, H, W)`` of images are
  maps of one channel.
- ``metric.higher_is_better``, ``metric.range``, ``metric.needs`` and ``metric.paper`` say what they are.
- What cannot be said is NaN (a correlation with what does not vary, a share of nothing), never a silent 0; maps with
  NaN or infinite numbers are refused.
- Those that run the model share :class:`Options`.
- A method that must explain again draws the same samples each time, also where it was given no ``generator``.
"""

from torchwhy.metrics.agreement import faithfulness_correlation, faithfulness_estimate, infidelity, sensitivity_n
from torchwhy.metrics.axioms import completeness_gap, input_invariance, non_sensitivity
from torchwhy.metrics.complexity_metrics import complexity, effective_complexity, sparseness
from torchwhy.metrics.curves import (
    average_drop,
    average_increase,
    deletion,
    insertion,
    irof,
    monotonicity,
    necessity,
    road,
    sufficiency,
)
from torchwhy.metrics.localisation import (
    auc,
    energy_pointing_game,
    iou,
    pointing_game,
    relevance_mass,
    relevance_rank,
    top_k_intersection,
)
from torchwhy.metrics.metric_function import Curve, Options
from torchwhy.metrics.randomization import model_randomization, random_logit
from torchwhy.metrics.reexplain import Data
from torchwhy.metrics.robustness import (
    continuity,
    explanation_attack,
    local_lipschitz,
    sensitivity_avg,
    sensitivity_max,
)

__all__ = [
    "Curve",
    "Data",
    "Options",
    "auc",
    "average_drop",
    "average_increase",
    "completeness_gap",
    "complexity",
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
    "model_randomization",
    "monotonicity",
    "necessity",
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
