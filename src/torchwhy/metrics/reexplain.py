"""Explaining again, at changed inputs or with a changed network: what the metrics that ask the method share."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypedDict, cast

import torch
from torch import Tensor, nn

from torchwhy.arguments import Ragged
from torchwhy.attribution import Attribution
from torchwhy.baselines import is_fixed
from torchwhy.engine.axes import AxesLike
from torchwhy.engine.run.randomness import Draws, Seed, draw_seed, draw_uniform, draws_per_block
from torchwhy.engine.run.rows import index_rows
from torchwhy.engine.structure import Tensors, flatten
from torchwhy.engine.tables import movable_columns
from torchwhy.input_types import Baselines, FeatureMasks, Inputs
from torchwhy.metrics.features_of_attributions import flatten_attributions
from torchwhy.metrics.scoring import problem_of
from torchwhy.problem import Problem
from torchwhy.targets import TargetLike
from torchwhy.wrapper import attribute_at


class Data(TypedDict, total=False):
    """What a method is called with besides inputs and target: see :meth:`torchwhy.Attribution.attribute`."""

    baselines: Baselines
    feature_mask: FeatureMasks
    additional_forward_args: object
    axes: AxesLike


def explain_again(method: Attribution, inputs: Inputs, target: TargetLike, data: Data) -> Tensor:
    """Return the attributions as (N, d)."""
    parts = flatten(method.attribute(inputs, target, **data))[0]
    if any(isinstance(part, Ragged) for part in parts):
        raise TypeError("inputs: a metric takes rows of one shape; give those of tw.Ragged one by one")
    return flatten_attributions(parts)


def make_deterministic(method: Attribution, inputs: Inputs, data: Data) -> tuple[Attribution, Data]:
    """Return the method, and what it is called with besides inputs and target, such that it draws the same at every call.

    Otherwise the noise of its own samples would be taken for what the metric asks about.

    Raises:
        TypeError: no method, or data that are no :class:`Data`, or that the method has no use for.
    """
    unknown = sorted(set(data) - set(Data.__annotations__))
    if unknown:
        raise TypeError(f"{', '.join(unknown)}: unknown; a method is called with {', '.join(Data.__annotations__)}")
    method, told = with_fixed_seed(method), cast(Data, {k: v for k, v in data.items() if v is not None})
    if "baselines" in told:
        if not method.uses_baselines:
            raise TypeError(f"baselines: {type(method).__name__} has no use for them")
        told["baselines"] = draw_baselines_once(told["baselines"], inputs)
    return method, told


def draw_baselines_once(baselines: Baselines, inputs: Inputs) -> Baselines:
    """Return the baselines, those that are drawn with a seed of their own: the same ones wherever they are used."""
    structure = flatten(inputs)[1]
    given = structure.match(baselines, "baselines")
    return structure.restore([is_fixed(b, seed) for seed, b in enumerate(given)])


def check_method(method: object) -> Attribution:
    """Return the method.

    Raises:
        TypeError: something else.
    """
    if not isinstance(method, Attribution):
        raise TypeError(
            f"method: expected a method with its settings, as tw.Saliency(model); got {type(method).__name__}"
        )
    return method


def with_fixed_seed(method: Attribution) -> Attribution:
    """Return the method, and those it has as settings, with a seed in place of a generator, or of none."""
    found = copy.copy(check_method(method))
    for name, value in vars(found).items():
        if isinstance(value, Attribution):
            setattr(found, name, with_fixed_seed(value))
    generator = getattr(found, "generator", 0)
    if not isinstance(generator, int):
        found.generator = 0 if generator is None else draw_seed(generator)  # type: ignore[attr-defined]
    return found


def make_problem(method: Attribution, inputs: Inputs, target: TargetLike, generator: Seed, data: Data) -> Problem:
    """Return the problem of asking ``method`` about changed inputs.

    Raises:
        TypeError: inputs that are no real numbers.
    """
    problem = problem_of(
        method.model, inputs, target, like=method, generator=generator, batch_size=method.batch_size, **data
    )
    if data.get("baselines") is None:
        problem = problem.replace(baselines=())
    if not all(x.is_floating_point() for x in problem.x):
        raise TypeError("inputs: integers cannot be moved a little; explain the model above its embedding layer")
    return problem


def attribute_points(
    method: Attribution,
    problem: Problem,
    n: int,
    point: Callable[[Tensor, Tensor], Tensors],
    reduce: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """Explain n points of every row.

    Args:
        method: what explains.
        problem: the question, open.
        n: how many points.
        point: ``(rows (M,), k (M,))`` → the points, a tensor for each input.
        reduce: ``(attributions (M, d), rows (M,))`` → what is kept of them, (M, ...); None keeps them.

    Returns:
        (n, N, ...).
    """

    def work(start: int, stop: int) -> Tensor:
        rows, k = problem.run.rows_and_samples(start, stop)
        found = flatten_attributions(attribute_at(method, problem, point(rows, k), rows).attributions)
        return found if reduce is None else reduce(found, rows)

    found = problem.run.concatenated(n * problem.n, work)
    return found.view(n, problem.n, *found.shape[1:])


def steps_in_ball(problem: Problem, radius: float) -> tuple[Draws, ...]:
    """Return uniform draws of [-radius, radius] for every element, the same for all rows; 0 for labels of a data frame.

    Raises:
        TypeError: a data frame of labels alone.
    """
    movable = movable_columns(problem)

    def draws(shape: torch.Size) -> Draws:
        def draw(count: int, g: torch.Generator) -> Tensor:
            drawn = radius * (2 * draw_uniform(count, *shape, generator=g) - 1)
            return drawn if movable is None else drawn * movable

        return Draws(draw, problem.generator, draws_per_block(shape.numel()), problem.x[0].device)

    return tuple(draws(x.shape[1:]) for x in problem.x)


def perturb(problem: Problem, draws: tuple[Draws | Tensor, ...], rows: Tensor, k: Tensor) -> Tensors:
    """Return the inputs of rows (M,) plus draws k (M,)."""
    return tuple(index_rows(x, rows) + d[k].to(x) for x, d in zip(problem.x, draws))


def copy_method(method: Attribution, target: TargetLike) -> tuple[Attribution, TargetLike]:
    """Copy the method with its network (and the layers that its settings name), and the target.

    Raises:
        TypeError: the model is no module, or one that cannot be copied.
    """
    if not isinstance(check_method(method).model, nn.Module):
        raise TypeError("method: its model is a plain callable, which has no weights to change; give a torch.nn.Module")
    try:
        with torch.inference_mode(False):  # else the copy's weights could not be changed
            return copy.deepcopy((method, target))
    except Exception as error:
        raise TypeError(f"method: its model cannot be copied, to be changed ({error})") from error


def relative(change: Tensor, size: Tensor) -> Tensor:
    """Return ``change / size``; NaN where there is nothing that it could be relative to."""
    return torch.where(size > 0, change / size, torch.nan)
