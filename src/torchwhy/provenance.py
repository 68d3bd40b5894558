"""What an explanation says besides its attributions: the scores at both ends, and where it comes from."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from torchwhy.engine.asker import Asker
from torchwhy.engine.run.rows import baseline_at, rows_between, sum_per_row
from torchwhy.engine.run.runner import Tally
from torchwhy.engine.structure import Keywords, Model, Output
from torchwhy.engine.torch_internals import version_of
from torchwhy.problem import Problem, ScoreFunction
from torchwhy.result import Result, ScoreEnds
from torchwhy.targets import Probability, find_logits

if TYPE_CHECKING:
    from torchwhy.attribution import Attribution


def measure_ends(problem: Problem) -> ScoreEnds:
    """Return the scores of a problem at both ends; one evaluation of a row, and one for each baseline."""
    return measure_ends_of_each(problem, [problem.target])[0]


def measure_ends_of_each(problem: Problem, targets: Sequence[ScoreFunction]) -> list[ScoreEnds]:
    """Return the scores at both ends for each of several targets, from the same evaluations."""

    def work(a: int, b: int) -> list[Tensor]:
        rows = problem.rows[a:b]
        with torch.no_grad():
            output = problem.run.outputs(rows_between(problem.x, a, b), rows)
            scores = [problem.tally.see(t.select(output, rows), check_finite=problem.check_finite) for t in targets]
            known = [class_probabilities(output, t, rows) for t in targets]
            return scores + [s if is_probability(t) else k for t, s, k in zip(targets, scores, known)]

    found = problem.run.concatenated(problem.n, work)
    known = [None if bool(p.isnan().any()) else p for p in found[len(targets) :]]
    base = base_scores(problem, targets) if problem.baselines else [None] * len(targets)
    return [ScoreEnds(*ends, problem.tally.eps) for ends in zip(found, base, known)]


def measure_ends_besides(problem: Problem, targets: Sequence[ScoreFunction]) -> list[ScoreEnds]:
    """Return what :func:`measure_ends_of_each` does, not counted among the evaluations; nothing where a target is no score."""
    try:
        return measure_ends_of_each(problem.replace(tally=Tally(), check_finite=False), targets)
    except (TypeError, ValueError):
        if any(t.given is None for t in targets):  # some methods need no score, and the model has several outputs
            return [ScoreEnds()] * len(targets)
        raise


def base_scores(problem: Problem, targets: Sequence[ScoreFunction]) -> list[Tensor]:
    """Return the scores of each target at the baselines of each row, averaged over these, each ``(N,)``."""
    k, n = problem.n_baselines, problem.n
    rows = problem.rows.repeat(k)

    def scores(a: int, b: int) -> list[Tensor]:
        at = [baseline_at(t, torch.arange(a, b) // n, rows[a:b]) for t in problem.baselines]
        with torch.no_grad():
            output = problem.run.outputs(at, rows[a:b])
            return [problem.tally.see(t.select(output, rows[a:b]), check_finite=problem.check_finite) for t in targets]

    return [problem.mean_over_baselines(s.view(k, n), 0) for s in problem.run.concatenated(k * n, scores)]


def gap_of(ends: ScoreEnds, values: Sequence[Tensor]) -> Tensor:
    """Return how far the attributions of each row are from adding up to the change of its score, shape ``(N,)``."""
    if ends.scores is None or ends.base_scores is None:
        raise ValueError("attributions that add up to a change of the score need the scores at both ends")
    return (sum_per_row(values) - (ends.scores - ends.base_scores)).abs()


def measure_completeness_gap(problem: Problem, values: Sequence[Tensor]) -> Tensor:
    """Return the :func:`gap_of` a problem, whose scores are evaluated, shape ``(N,)``."""
    return gap_of(measure_ends(problem), values)


def is_probability(target: ScoreFunction) -> bool:
    """Say whether scores are probabilities of classes."""
    return isinstance(target.given, Probability)


def class_probabilities(output: Output, target: ScoreFunction, rows: Tensor) -> Tensor:
    r"""Return the probability of each row's class, ``(M,)``: :math:`\mathrm{softmax}(f(x))_c`, NaN where the target is no class.

    A target is a class where it is one index of an output ``(M, classes)`` with two classes or more. A row whose outputs are
    probabilities already (none negative, their sum is 1) is not put through softmax again.
    """
    index, unknown = getattr(target, "index", None), torch.full((len(rows),), torch.nan, device=rows.device)
    if index is None or getattr(target, "neuron", None) is not None or len(getattr(target, "largest", ())) != 1:
        return unknown
    logits = find_logits(output)
    if logits.dim() != 2 or logits.shape[1] < 2 or not logits.is_floating_point():
        return unknown
    logits = logits.float() if logits.dtype in (torch.half, torch.bfloat16) else logits
    ready = (logits >= 0).all(1) & ((logits.sum(1) - 1).abs() < 1e-4)
    shares = torch.where(ready[:, None], logits, logits.softmax(1))
    own = index[rows.to(index.device)] if isinstance(index, Tensor) else torch.tensor([index]).expand(len(rows), 1)
    return shares.gather(1, own.to(shares.device) % shares.shape[1])[:, 0]


class ModelHash:
    """A hash of a model's parameters and buffers, made when it is asked for; it keeps no model alive.

    The model is not touched when this is made. Where its parameters have been changed, or it is gone, before the hash was
    asked for, or they are not all here (see :func:`is_elsewhere`), there is none: None.
    """

    def __init__(self, model: Model) -> None:
        self.found: str | None = None
        self.model: Callable[[], object] | None = weakref.ref(model) if isinstance(model, nn.Module) else None
        self.versions = self._versions()

    def _versions(self) -> list[tuple[int, int]]:
        model = self.model() if self.model is not None else None
        return [(id(p), version_of(p)) for p in model.parameters()] if isinstance(model, nn.Module) else []

    def value(self) -> str | None:
        """Return the SHA-256 of the names, types, shapes and bytes of all parameters and buffers, in hexadecimal digits."""
        model = self.model() if self.model is not None and self.found is None else None
        held = isinstance(model, nn.Module) and not is_elsewhere(model)
        if isinstance(model, nn.Module) and held and self.versions == self._versions():
            self.found = hash_parameters(model)
        return self.found

    def __reduce__(self) -> tuple[Callable[[str | None], ModelHash], tuple[str | None]]:
        return _known_hash, (self.value(),)


def _known_hash(found: str | None) -> ModelHash:
    known = ModelHash(None)
    known.found = found
    return known


def is_elsewhere(model: nn.Module) -> bool:
    """Say whether some parameters are not here as a whole: fetched for each call, or spread over several processes."""
    return any(p.is_meta or is_spread(p) for p in model.parameters())


def is_spread(tensor: Tensor) -> bool:
    """Say whether a tensor is one of ``torch.distributed``, of which each process has a part."""
    return hasattr(tensor, "placements")


def hash_parameters(model: nn.Module) -> str:
    """Return the SHA-256 of the names, types, shapes and bytes of a model's parameters and buffers, in hexadecimal digits."""
    digest = hashlib.sha256()
    for name, t in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(f"{name} {t.dtype} {tuple(t.shape)};".encode())
        digest.update(t.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def provenance(method: Asker, problem: Problem, baselines: object) -> Keywords:
    """Return where an explanation comes from: versions, date, the model's class, the baselines, the seed.

    ``seed`` is the method's ``generator`` where that is an int, and the seed that was drawn where there was none: as
    ``generator`` it repeats the draws. A ``torch.Generator`` leaves no seed that would, and what draws nothing has none; there is
    none either where a method of another method has one, and the other draws without.

    Args:
        method, problem: what was asked.
        baselines: as the caller gave them.
    """
    import torchwhy

    seed, model = getattr(method, "generator", None), method.model
    if seed is None and (hasattr(method, "generator") or baselines is not None):
        seed = problem.generator.initial_seed()
    inner = getattr(method, "of", None)
    while inner is not None:
        seed = seed if isinstance(getattr(inner, "generator", 0), int) else None
        inner = getattr(inner, "of", None)
    return {
        "torchwhy": torchwhy.__version__,
        "torch": torch.__version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "model": f"{type(model).__module__}.{type(model).__qualname__}",
        "baselines": in_words(baselines),
        "seed": seed if isinstance(seed, int) else None,
    }


def in_words(value: object) -> str | None:
    """Return what a caller gave as baselines in a few words: tensors by their shapes."""
    if value is None:
        return None
    if isinstance(value, Tensor) and value.numel() > 8:
        return f"tensor {tuple(value.shape)} of {value.dtype}"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(str(in_words(v)) for v in value)})"
    if hasattr(value, "items"):
        return "{" + ", ".join(f"{k!r}: {in_words(v)}" for k, v in value.items()) + "}"
    data = getattr(value, "data", None)
    if isinstance(data, Tensor) and not isinstance(value, Tensor):
        return f"{type(value).__name__}({in_words(data)})"
    return repr(value)


def has_unknown_gap(method: Attribution, result: Result) -> bool:
    """Say whether attributions add up to the change of the score, and how far they do has not been measured."""
    adds_up = method.is_complete and getattr(method, "multiply_by_inputs", True)  # with its settings
    return result.completeness_gap is None and result.has_gap and adds_up
