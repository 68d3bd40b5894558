"""From what a method found to an explanation: a result with its context."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchwhy.engine.structure import Keywords, flatten
from torchwhy.engine.tables import class_names, explained_inputs, explained_names, facts_of_inputs
from torchwhy.engine.uneven import row_lists
from torchwhy.explanation.explanation import Explanation
from torchwhy.provenance import ModelHash, provenance
from torchwhy.result import Result, ScoreEnds

if TYPE_CHECKING:
    from torchwhy.attribution import Attribution
    from torchwhy.explanation import Names
    from torchwhy.input_types import Baselines, Inputs
    from torchwhy.problem import Problem


def explanation_of(
    method: Attribution,
    result: Result,
    problem: Problem,
    inputs: Inputs,
    baselines: Baselines,
    names: Names,
    seconds: float,
) -> Explanation:
    """Return the result of a method with its context."""
    if problem.inputs.forms:
        inputs = row_lists(inputs, problem.inputs.structure)
    structure = result.form or problem.form or method.result_structure(flatten(inputs)[1])
    error, ends = result.standard_error, result.ends or ScoreEnds()
    hidden = problem.feature_mask is None or problem.sample is not None  # of a sample each number is one feature
    if names is None:
        names = explained_names(inputs, problem) if method.explains_inputs else result.details.get("layers")
    return Explanation(
        attributions=structure.restore(result.attributions),
        inputs=explained_inputs(inputs, problem),
        target=problem.target.given,
        method=type(method).__name__,
        settings=method.settings(),
        evaluations=problem.tally.evaluations,
        seconds=seconds,
        completeness_gap=result.completeness_gap,
        standard_error=None if error is None else structure.restore(error),
        details=result.details | _found_places(method, problem),
        scores=ends.scores,
        base_scores=ends.base_scores,
        probabilities=ends.probabilities,
        rounding=ends.rounding() if method.gives_whole_features or "neutral" in result.details else None,
        names=names,
        classes=class_names(problem.model),
        feature_mask=None if hidden else structure.restore(problem.feature_mask),
        whole_features=method.gives_whole_features,
        provenance=provenance(method, problem, baselines),
        parameters=ModelHash(method.model),
    )


def _found_places(method: Attribution, problem: Problem) -> Keywords:
    """Return facts of the inputs, and as ``layer`` what ``"auto"``, ``"embeddings"`` or a sample meant."""
    layers, meant = problem.input_layers or problem.read_layers, isinstance(method.layer, str)
    if not layers or not (method.layer in ("auto", "embeddings") if meant else problem.sample is not None):
        return facts_of_inputs(problem)
    return {"layer": ", ".join(layer.name for layer in layers)} | facts_of_inputs(problem)
