"""Metrics over what was kept of a data set: means with their intervals."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import torch

from torchwhy.comparison import MetricLike, compare
from torchwhy.comparison_table import Comparison
from torchwhy.engine.run.warn import warn
from torchwhy.engine.structure import Keywords
from torchwhy.explanation import Explanation
from torchwhy.global_view.rows import Explained, batches_of_explanations
from torchwhy.input_types import Baselines, FeatureMasks
from torchwhy.metrics.scoring import ModelLike


def measure_dataset(
    model: ModelLike,
    explained: Explained | Mapping[str, Explained],
    metrics: Mapping[str, MetricLike] | Sequence[MetricLike],
    *,
    baselines: Baselines = None,
    feature_mask: FeatureMasks = None,
    level: float = 0.95,
    progress: bool = False,
) -> Comparison:
    """Measure explanations that were kept, batch by batch: the table of :func:`torchwhy.compare` over a whole data set.

    Its means come with the intervals of :meth:`torchwhy.Comparison.cell` (Student's, of shares Wilson's), and its
    :meth:`torchwhy.Comparison.differences` test pairs of methods over the same rows. Attributions are not kept, so that memory
    does not grow with the rows but for the metrics' own numbers.

    Args:
        model: what the metrics run.
        explained: what :func:`torchwhy.load_dataset` returns or its folder, an explanation, or explanations one by one; of
            several methods by name, of the same rows, in batches of the same sizes.
        metrics: as of :func:`torchwhy.compare`. Those that ask the method again, as ``sensitivity_max``, have no values,
            which a warning says: methods are not kept. :func:`torchwhy.compare` measures them, on some rows.
        baselines, feature_mask: for the metrics, the same for all batches.
        level: of the intervals.
        progress: show a bar.

    Raises:
        TypeError, ValueError, LookupError: as :func:`torchwhy.compare`; explanations without their inputs, or of other rows.

    >>> import torch, torchwhy as tw
    >>> model = torch.nn.Linear(4, 3)
    >>> kept = [tw.Saliency(model).explain(torch.rand(5, 4), 1) for _ in range(3)]
    >>> tw.measure_dataset(model, kept, ["sparseness"]).cell("Saliency", "sparseness").rows
    15
    """
    parts = []
    for found in _with_bar(_of_the_same_rows(explained), progress):
        e = next(iter(found.values()))
        data: Keywords = {"baselines": baselines, "feature_mask": feature_mask, "level": level}
        parts.append(compare(model, e.inputs, e.target, found, metrics, **data))
    first, counts = parts[0], [len(_values_of(part)) for part in parts]
    whole = Comparison({}, first.better, {}, {}, {}, level, first.shares)
    for metric in first.metrics:
        whole.values[metric] = {m: torch.cat([p.values[metric][m] for p in parts]) for m in first.methods}
    for method in first.methods:
        for costs, of_parts in (
            (whole.seconds, [p.seconds for p in parts]),
            (whole.evaluations, [p.evaluations for p in parts]),
        ):
            costs[method] = sum(c[method] * n for c, n in zip(of_parts, counts)) / sum(counts)
    _warn_of_nothing_measured(whole)
    return whole


def _with_bar(parts: Iterator[dict[str, Explanation]], shown: bool) -> Iterator[dict[str, Explanation]]:
    """Yield what there is, with a bar of its rows where it is to be shown."""
    if not shown:
        yield from parts
        return
    from tqdm.auto import tqdm

    with tqdm(unit="row") as bar:
        for found in parts:
            yield found
            bar.update(len(next(iter(found.values()))))


def _warn_of_nothing_measured(whole: Comparison) -> None:
    """Warn of metrics without a value, since they ask the method."""
    empty = [
        name for name, of_methods in whole.values.items() if all(bool(v.isnan().all()) for v in of_methods.values())
    ]
    if empty:
        warn(
            f"measure_dataset: {', '.join(empty)} {'have' if len(empty) > 1 else 'has'} no values: what asks the method again "
            "needs the method, which is not kept; measure with tw.compare(model, x, target, [method], ...) on some rows"
        )


def _values_of(part: Comparison) -> torch.Tensor:
    return next(iter(next(iter(part.values.values())).values()))


def _of_the_same_rows(explained: Explained | Mapping[str, Explained]) -> Iterator[dict[str, Explanation]]:
    """Yield the explanations of the same rows by the names of their methods.

    Raises:
        ValueError: none, other rows, or rows whose inputs were not kept.
    """
    if not isinstance(explained, Mapping):
        for e in batches_of_explanations(explained):
            yield {e.method or "given": _with_inputs(e)}
        return
    if not explained:
        raise ValueError("explained: none given")
    streams = [batches_of_explanations(given, f"explained[{name!r}]") for name, given in explained.items()]
    for several in itertools.zip_longest(*streams):
        if None in several or len({len(e) for e in several}) > 1:
            sizes = ", ".join(f"{name!r} {len(e) if e else 'no'} rows" for name, e in zip(explained, several))
            raise ValueError(
                f"explained: batches of different sizes ({sizes}); explain the same rows in the same batches"
            )
        for name, e in zip(explained, several):
            if not _same_rows(_with_inputs(e), several[0]):
                raise ValueError(f"explained[{name!r}]: other rows than those of {next(iter(explained))!r}")
        yield dict(zip(explained, several))


def _same_rows(e: Explanation, other: Explanation) -> bool:
    """Say whether two explanations are of the same rows, as far as they are tensors."""
    if isinstance(e.inputs, torch.Tensor) and isinstance(other.inputs, torch.Tensor):
        return e.inputs.equal(other.inputs)
    return True


def _with_inputs(e: Explanation) -> Explanation:
    if e.inputs is None:
        raise ValueError("explained: the inputs were not kept, and metrics need them; explain with inputs=True")
    return e
