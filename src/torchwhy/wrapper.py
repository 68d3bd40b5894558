"""Methods of methods: what another method says, asked about changed inputs, or changed itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torchwhy.attribution import Attribution, solve
from torchwhy.baselines import ResolvedBaseline
from torchwhy.engine.asker import LayerRole, with_model
from torchwhy.engine.run.rows import Stacked, expand_like
from torchwhy.engine.structure import Keywords, Structure, Tensors
from torchwhy.input_types import GivenLayer
from torchwhy.problem import Problem
from torchwhy.result import Result
from torchwhy.settings import Settings
from torchwhy.targets import TargetLike


def attribute_at(method: Attribution, problem: Problem, z: Sequence[Tensor], rows: Tensor) -> Result:
    """Return what another method says of ``z`` ``(M, ...)`` in place of the inputs of rows ``(M,)`` of a problem.

    Its target, baselines, features and further arguments are the problem's; the model's runs are counted there too.

    Raises:
        ValueError: there is no method, or what it says of a row depends on the batch.
    """
    if not isinstance(method, Attribution):
        raise ValueError(f"of={method!r}: expected a method with its settings, as tw.Saliency(model)")
    if not method.rows_are_independent:
        raise ValueError(f"method: what {type(method).__name__} says of a row depends on the batch; give another one")
    if getattr(problem.model, "to_call", None) is not None:  # it takes a data frame, which it makes of the tensors
        method = with_model(method, problem.model)
    if problem.n_targets > 1 and (found := _attribute_each_at(method, problem, z, rows)) is not None:
        return found
    target = problem.target.select_rows(rows)
    call = _call_at(method, problem, z, rows, target)
    return solve(method, *call, parent=problem, measure_gap=problem.measures_gap)[0]


def _call_at(
    method: Attribution, problem: Problem, z: Sequence[Tensor], rows: Tensor, target: TargetLike | list[TargetLike]
) -> tuple[Any, ...]:
    """Return the arguments of a call of a method, about ``z`` ``(M, ...)`` in place of the inputs of rows ``(M,)``."""
    data, given = problem.inputs, problem.given_rows(rows)
    structure = Structure("tuple" if data.names is None else "dict", data.names, len(z))
    extra = data.take_further(given)
    baselines = masks = None
    if (method.uses_baselines or method.takes_baselines) and problem.baselines:
        baselines = structure.restore(
            [ResolvedBaseline(b if b.shape[1] == 1 else b[:, rows]) for b in problem.baselines]
        )
    if method.uses_feature_mask and problem.feature_mask is not None:
        masks = structure.restore([_mask_of_rows(m, x, rows) for m, x in zip(problem.feature_mask, problem.x)])
    forms = data.forms or [None] * len(z)
    inputs = structure.restore([t if form is None else Stacked(t, form) for t, form in zip(z, forms)])
    return inputs, target, baselines, masks, extra


def _attribute_each_at(method: Attribution, problem: Problem, z: Sequence[Tensor], rows: Tensor) -> Result | None:
    """Return what :func:`attribute_at` does for a problem of several targets; None where they do not ask for the same points."""
    from torchwhy.several_targets import join_results, solve_each

    t = problem.n_targets
    first = rows[::t]
    pairs = (first[:, None] + torch.arange(t, device=rows.device)).flatten()
    if not torch.equal(rows, pairs) or bool((first % t).any()):
        return None
    if not all(torch.equal(x, x[::t].repeat_interleave(t, 0)) for x in z):
        return None
    targets = [problem.target.select_rows(first + k) for k in range(t)]
    call = _call_at(method, problem, [x[::t] for x in z], first, targets)
    solved = solve_each(method, *call, parent=problem, measure_gap=problem.measures_gap)
    return join_results([result for result, _ in solved], len(first))


def _mask_of_rows(mask: Any, x: Tensor, rows: Tensor) -> object:
    """Return a feature mask for the chosen rows: of those masks that each row has its own."""
    own = isinstance(mask, Tensor) and mask.dim() == x.dim() and len(mask) == len(x) and len(x) > 1
    return mask[rows.to(mask.device)] if own else mask


def check_inner_method(name: str, method: object, outer: Settings) -> None:
    """Refuse what is no method, and one of another model than that of what has it as a setting.

    Raises:
        TypeError: it is no method.
        ValueError: it has another model.
    """
    if not isinstance(method, Attribution):
        raise TypeError(f"{name}={method!r}: expected a method with its settings, as tw.Saliency(model)")
    same = method.model is outer.model or (not isinstance(outer.model, nn.Module) and method.model == outer.model)
    if not same:
        raise ValueError(
            f"{name}: {type(method).__name__} has another model than {type(outer).__name__}; give both the same one"
        )


class InnerFacts:
    """What an inner method found out over many calls, as means for each of N rows."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.sums: dict[str, list[Tensor]] = {}
        self.calls = torch.zeros(n, dtype=torch.float)
        self.details: Keywords = {}

    def add(self, rows: Tensor, result: Result) -> None:
        """Take in the result for rows ``(M,)``."""
        self.details = self.details or result.details
        self.calls.index_add_(0, rows.cpu(), torch.ones(len(rows), dtype=torch.float))
        gap = None if result.completeness_gap is None else (result.completeness_gap,)
        for name, tensors in (("completeness_gap", gap), ("standard_error", result.standard_error)):
            if tensors is None:
                continue
            sums = self.sums.setdefault(name, [t.new_zeros(self.n, *t.shape[1:]) for t in tensors])
            for total, t in zip(sums, tensors):
                total.index_add_(0, rows, t)

    def as_details(self) -> Keywords:
        """Return the mean completeness gap ``(N,)`` and standard error of the inner method, and what else it said first."""
        found: Keywords = dict(self.details)
        for name, sums in self.sums.items():
            means = [t / expand_like(self.calls, t) for t in sums]
            found[name] = means[0] if len(means) == 1 else tuple(means)
        return {"of": found} if found else {}


class Wrapper(Attribution[GivenLayer]):
    """The base of the methods of methods.

    The other method's settings (its layer, its batch size) hold for it; what it reads of baselines and feature masks, and the
    form of its attributions, are those of the wrapper. What it finds out (gaps, errors, details) is in the explanation's
    ``details["of"]``.

    Args:
        of: the other method, on the same model.

    Raises:
        TypeError: ``of`` is no method.
        ValueError: ``of`` has another model.
    """

    of: Attribution[GivenLayer] | None = None

    layer_role: ClassVar[LayerRole] = "own"

    @property
    def uses_baselines(self) -> bool:  # type: ignore[override]
        """Whether the other method does."""
        return self.of is not None and self.of.uses_baselines

    @property
    def takes_baselines(self) -> bool:  # type: ignore[override]
        """Whether the other method does."""
        return self.of is not None and self.of.takes_baselines

    @property
    def baselines_are_rows(self) -> bool:  # type: ignore[override]
        """Whether the other method reads them so."""
        return self.of is not None and self.of.baselines_are_rows

    @property
    def uses_feature_mask(self) -> bool:  # type: ignore[override]
        """Whether the other method does."""
        return self.of is not None and self.of.uses_feature_mask

    @property
    def gives_whole_features(self) -> bool:
        """Whether the other method does."""
        return self.of is not None and self.of.gives_whole_features

    @property
    def searches(self) -> bool:  # type: ignore[override]
        """Whether the other method does."""
        return self.of is not None and self.of.searches

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.of is None:
            return
        check_inner_method("of", self.of, self)

    def _follow_gradient(self) -> None:
        """Need a gradient of a model that is no module only where the other method, which alone asks it, does."""
        if self.of is not None and not isinstance(self.model, nn.Module):
            self.needs_gradient = self.of.needs_gradient  # type: ignore[misc]

    def result_structure(self, inputs: Structure) -> Structure:
        """Return how the attributions are put together: as the other method's."""
        return super().result_structure(inputs) if self.of is None else self.of.result_structure(inputs)


Change = Callable[[Tensor], Tensor]


class Processed(Wrapper[GivenLayer]):
    """Another method's attributions, with the inputs changed before it and the attributions after it.

    Args:
        of: the method.
        before: called with each input tensor ``(N, ...)``, gives what is explained, ``(N, ...)``: the attributions are those of
            its result, of the inputs' shape and type where ``of`` has baselines or feature masks. None leaves the inputs.
        after: called with each tensor of attributions ``(N, ...)``, gives what is returned. None leaves them.

    The completeness gap and the standard error are the other method's where ``after`` is None.

    >>> net = torch.nn.Linear(2, 1)
    >>> import torchwhy as tw
    >>> positive = tw.Processed(net, of=tw.InputXGradient(net), after=lambda a: a.clamp(min=0))
    >>> bool((positive.attribute(torch.randn(3, 2)) >= 0).all())
    True
    """

    before: Change | None = None
    after: Change | None = None

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.of is None:
            raise ValueError("of: Processed changes what another method says; give it")
        self._follow_gradient()

    def _attribute(self, problem: Problem) -> Tensors | Result:
        if self.of is None:
            raise ValueError("of: Processed changes what another method says; give it")
        x = problem.x if self.before is None else tuple(_changed(self.before, t, "before") for t in problem.x)
        self._check_changed(problem, x)
        found = attribute_at(self.of, problem, x, problem.rows)
        if self.after is None:
            return found
        inner = InnerFacts(problem.n)
        inner.add(problem.rows, found)
        return Result(tuple(_changed(self.after, a, "after") for a in found.attributions), details=inner.as_details())

    def _check_changed(self, problem: Problem, x: Tensors) -> None:
        """Refuse inputs of another shape or type, where baselines or feature masks are those of the given ones.

        Raises:
            ValueError: they are so.
        """
        fixed = "baselines" if problem.baselines else "feature masks"
        if not problem.baselines and problem.feature_mask is None:
            return
        for new, t in zip(x, problem.x):
            if new.shape != t.shape or new.dtype != t.dtype:
                raise ValueError(
                    f"before: it returned {new.dtype} of shape {tuple(new.shape)} for {t.dtype} of {tuple(t.shape)}, and the "
                    f"{fixed} are those of the inputs as they were given: change the inputs before the call"
                )


def _changed(change: Change, t: Tensor, name: str) -> Tensor:
    """Return what a user's function makes of a tensor.

    Raises:
        TypeError, ValueError: no tensor, or another number of rows.
    """
    found = change(t.clone())  # it may write to it
    if not isinstance(found, Tensor):
        raise TypeError(f"{name}: it must return a tensor, it returned {type(found).__name__}")
    if found.dim() == 0 or len(found) != len(t):
        raise ValueError(f"{name}: it returned shape {tuple(found.shape)} for {len(t)} rows")
    return found
