"""Metrics of inputs whose rows have shapes of their own: those of one shape together, each row as it is alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchwhy.arguments import Ragged
from torchwhy.engine.further_arguments import read_further
from torchwhy.engine.structure import AnyForm, InForm, Keywords, Model, RowList, flatten
from torchwhy.engine.uneven import UnevenRows, may_be_uneven, read_uneven, target_of_rows
from torchwhy.metrics.curve import Curve
from torchwhy.problem import ModelInputs

VALUES_OF_INPUTS = ("baselines", "feature_mask")  # of each input, or of all


def measure_uneven(function: Callable[..., object], asked: Keywords) -> Tensor | Curve | None:
    """Return what a metric gives for rows of several shapes, in their order; None where its inputs are as any others.

    Args:
        function: the metric.
        asked: what it is called with, by name.

    Raises:
        ValueError: attributions that are not those of the rows.
    """
    inputs, attributions = asked.get("inputs"), asked.get("attributions")
    if inputs is None and isinstance(attributions, (Ragged, RowList)):
        rows = range(len(attributions))
        others = {k: v for k, v in asked.items() if k != "attributions"}
        return _of_all_rows([function(attributions=attributions[i][None], **others) for i in rows], [[i] for i in rows])
    if isinstance(inputs, Tensor) or not may_be_uneven(inputs):
        return None
    model = asked["method"].model if "method" in asked else asked["model"]
    uneven = read_uneven(model, inputs, asked.get("additional_forward_args"))
    if uneven is None:
        return None
    found = [function(**_asked_of_rows(asked, model, uneven, group)) for group in uneven.groups]
    return _of_all_rows(found, uneven.groups)


def _asked_of_rows(asked: Keywords, model: Model, uneven: UnevenRows, group: list[int]) -> Keywords:
    """Return what a metric is called with for some of the rows, all of one shape."""
    changed: Keywords = {"inputs": uneven.select(group)}
    if "attributions" in asked:
        changed["attributions"] = _attributions_of_rows(asked["attributions"], group, uneven.n)
    if "target" in asked:
        changed["target"] = target_of_rows(asked["target"], group, uneven.n)
    for name in VALUES_OF_INPUTS:
        if asked.get(name) is not None:
            changed[name] = uneven.select_values(asked[name], group, name)
    if asked.get("additional_forward_args") is not None:
        before = 0 if uneven.structure.names else len(uneven.parts)
        further = read_further(asked["additional_forward_args"], uneven.n, model, uneven.lengths(model), before)
        data = ModelInputs((torch.zeros(uneven.n),), None, *further)
        changed["additional_forward_args"] = data.take_further(torch.tensor(group))
    return {**asked, **changed}


def _attributions_of_rows(attributions: AnyForm, group: list[int], n: int) -> InForm:
    """Return the attributions of some rows, all of one shape, as tensors with a row for each."""
    whole = isinstance(attributions, list) and not isinstance(attributions, RowList)
    parts, structure = flatten(RowList(attributions) if whole else attributions)
    if any(len(part) != n for part in parts):
        raise ValueError(f"attributions: of {len(parts[0])} rows, the inputs have {n}")
    return structure.restore([torch.stack([part[i] for i in group]) for part in parts])


def _of_all_rows(found: list[Any], groups: list[list[int]]) -> Tensor | Curve:
    """Return one value, or curve, for each row from those of groups of rows, in the order of the rows.

    Curves with fewer points repeat their last one, which adds no area.
    """
    order = torch.tensor([row for group in groups for row in group]).argsort()
    if not isinstance(found[0], Curve):
        return torch.cat([torch.as_tensor(f) for f in found])[order.to(found[0].device)]
    most = max(f.scores.shape[1] for f in found)

    def together(each: list[Tensor]) -> Tensor:
        longer = [torch.cat([t, t[:, -1:].expand(-1, most - t.shape[1])], 1) for t in each]
        return torch.cat(longer)[order.to(longer[0].device)]

    fractions = together([f.fractions.expand(f.scores.shape) for f in found])
    return Curve(fractions, together([f.scores for f in found]), found[0].xlabel, found[0].bounds)
