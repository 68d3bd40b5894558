"""Rows of several cohorts beside one another: swarms, and a feature's attributions against its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from torchwhy.visualize.bars import beeswarm, largest_features
from torchwhy.visualize.many_rows import name_places, places_along
from torchwhy.visualize.scaling import as_array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import Array


def panels_of_swarms(
    groups: Mapping[str, Array],
    features: Mapping[str, Array] | None = None,
    names: Sequence[str] | None = None,
    *,
    labels: Mapping[int, Sequence[object]] | None = None,
    top: int = 10,
    xlabel: str = "attribution",
) -> Figure:
    """Draw a :func:`beeswarm` of each cohort side by side, with the same features in the same order, on one scale.

    Args:
        groups: attributions ``(N, d)`` by the cohort's name.
        features: the features' own values ``(N, d)``, likewise.
        names: d strings.
        labels: as of :func:`beeswarm`.
        top: how many features are drawn by themselves: those of the largest mean absolute value over the cohorts.
        xlabel: the text below the panels.

    Raises:
        ValueError: no groups, different numbers of features, ``top`` is below 1, or a number is NaN.
    """
    from torchwhy.visualize import drawing as draw

    if not groups:
        raise ValueError("groups: none given")
    values = {group: as_array(v, f"groups[{group!r}]", ndim=(2,)) for group, v in groups.items()}
    widths = {v.shape[1] for v in values.values()}
    if len(widths) > 1:
        raise ValueError(f"groups: {sorted(widths)} features; give the same ones")
    order = largest_features(np.mean([np.abs(v).mean(0) for v in values.values()], 0), names, top)[1]
    if len(values) == 1:
        ((group, only),) = values.items()
        own = None if features is None else features[group]
        return beeswarm(only, own, names, labels=labels, order=order.tolist(), xlabel=xlabel, title=group)
    figure = draw.Picture(
        figsize=(4.4 * len(values), 1.0 + 0.42 * (len(order) + 1)), dpi=draw.DPI, layout="constrained"
    )
    axes = figure.subplots(1, len(values), squeeze=False)[0]
    for ax, (group, of_group) in zip(axes, values.items()):
        own = None if features is None else features[group]
        beeswarm(of_group, own, names, labels=labels, order=order.tolist(), xlabel=xlabel, title=group, ax=ax)
    low, high = zip(*(ax.get_xlim() for ax in axes))
    for ax in axes:
        ax.set_xlim(min(low), max(high))
    return figure


def scatter_of_cohorts(
    groups: Mapping[str, tuple[Array, Array]],
    name: str = "feature",
    *,
    labels: Sequence[object] | None = None,
    ax: Axes | None = None,
    title: str | None = None,
    ylabel: str = "attribution",
) -> Figure:
    """Draw a feature's attributions against its values, a point a row, a colour a cohort.

    Args:
        groups: the feature's values and its attributions, ``(N,)`` each, by the cohort's name.
        name: of the feature.
        labels: of a feature whose values are numbers of labels.
        ax: the axes to draw on.
        title: the text above the axes.
        ylabel: the text beside them.

    Raises:
        ValueError: no groups, lengths that differ, or an attribution is NaN. Values that are missing stand at the left.
    """
    from torchwhy.visualize import drawing as draw

    if not groups:
        raise ValueError("groups: none given")
    figure, ax = draw.axes_for(ax, 5.4, 3.6)
    every = np.concatenate([as_array(x, "groups", missing=True).reshape(-1) for x, _ in groups.values()])
    for g, (group, pair) in enumerate(groups.items()):
        x, y = (as_array(v, f"groups[{group!r}]", ndim=(1,), missing=v is pair[0]) for v in pair)
        if len(x) != len(y):
            raise ValueError(f"groups[{group!r}]: {len(x)} values for {len(y)} attributions")
        shade = draw.LINES[g % len(draw.LINES)]
        at = places_along(x, y, labels, every)
        ax.scatter(at, y, s=12, color=shade, alpha=0.8, linewidths=0, label=group if len(groups) > 1 else "_")
    draw.plain(ax, name, ylabel, title)
    name_places(ax, every, labels)
    ax.axhline(0, color=draw.QUIET, linewidth=0.8, zorder=0.5)
    draw.legend(ax)
    return figure


def clusters(
    eigenvalues: Array,
    means: Array,
    captions: Sequence[str],
    names: Sequence[str] | None = None,
    *,
    top: int = 12,
) -> Figure:
    """Draw clusters of explanations: the eigenvalues, whose gap tells how many there are, and the mean of each cluster.

    Args:
        eigenvalues: ``(k,)``, ascending.
        means: ``(K, 1, H, W)``, drawn as maps, each on its own scale, or ``(K, d)``, drawn as a matrix.
        captions: K strings.
        names: d strings, of the features of a matrix.
        top: how many features of a matrix are drawn: those of the largest mean absolute value.

    Raises:
        ValueError: lengths differ, or a number is NaN.
    """
    from torchwhy.visualize import drawing as draw
    from torchwhy.visualize.maps import heatmap
    from torchwhy.visualize.matrix import matrix

    values, of_clusters = as_array(eigenvalues, "eigenvalues", ndim=(1,)), as_array(means, "means", ndim=(2, 4))
    k = len(of_clusters)
    if len(captions) != k:
        raise ValueError(f"captions has {len(captions)} texts, but there are {k} clusters")
    maps = of_clusters.ndim == 4
    widths = [1.5, *[1.0] * k] if maps else [1.0, 1.6]
    figure = draw.Picture(figsize=(2.3 * sum(widths) + 0.5, 2.9), dpi=draw.DPI, layout="constrained")
    left, *others = figure.subplots(1, len(widths), width_ratios=widths)
    left.plot(np.arange(1, len(values) + 1), values, "o-", color=draw.LINES[0], markersize=4, linewidth=1.0)
    left.axvline(k + 0.5, color=draw.QUIET, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0.5)
    draw.plain(left, "number", "eigenvalue", f"{k} {'cluster' if k == 1 else 'clusters'}")
    if maps:
        for ax, one, caption in zip(others, of_clusters, captions):
            heatmap(one, ax=ax, colorbar=False, title=caption)
        return figure
    labels, order = largest_features(np.abs(of_clusters).mean(0), names, top)
    matrix(of_clusters[:, order], captions, labels, ax=others[0], numbers=False)
    return figure
