"""``captum.metrics`` by :mod:`torchwhy.metrics`: the largest change of an explanation; infidelity has another form here."""

from torchwhy.captum.measures import NO_INFIDELITY
from torchwhy.captum.measures import largest_change as sensitivity_max
from torchwhy.captum.missing import missing_classes

globals().update(
    missing_classes("metrics", dict.fromkeys(NO_INFIDELITY, "tw.metrics.infidelity(model, x, attributions)"))
)

__all__ = [*NO_INFIDELITY, "sensitivity_max"]
