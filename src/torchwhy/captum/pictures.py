"""Captum's pictures, drawn by :mod:`torchwhy.visualize`: images come as ``(H, W, C)``, a figure and its axes go back.

What they show is Captum's: which map, of which sign, over which photo. Colours, colour bars and clipping are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

import torchwhy as tw
from torchwhy.engine.structure import AnyForm, InForm

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WhereToDraw: TypeAlias = "tuple[Figure, Axes] | None"

SIGN_OF = {"all": "all", "positive": "positive", "negative": "negative", "absolute_value": "absolute"}
STYLE_OF = {"heat_map": "blend", "blended_heat_map": "blend", "masked_image": "mask", "alpha_scaling": "alpha"}


def draw_image_attr(
    attr: AnyForm, original_image: AnyForm = None, method: str = "heat_map", sign: str = "absolute_value",
    plt_fig_axis: WhereToDraw = None, outlier_perc: float = 2, cmap: str | None = None, alpha_overlay: float = 0.5,
    show_colorbar: bool = False, title: str | None = None, fig_size: tuple[int, int] = (6, 6), use_pyplot: bool = True,
) -> tuple[Figure, Axes]:  # fmt: skip
    """Draw the attributions of one image, ``(H, W, C)``: alone, over the photo, as its mask or as its opacity.

    Args:
        attr: of one image.
        original_image: the photo, ``(H, W, C)``; needed by all but ``"heat_map"``.
        method: ``heat_map``, ``blended_heat_map``, ``original_image``, ``masked_image`` or ``alpha_scaling``.
        sign: ``all``, ``positive``, ``negative`` or ``absolute_value``.
        plt_fig_axis: the figure and the axes to draw on.
        outlier_perc: the percentage of values, the largest, that get the full colour.
        cmap, alpha_overlay, show_colorbar, title: of the picture.
        fig_size: in inches.
        use_pyplot: make the figure by pyplot, and show it.

    Raises:
        ValueError: an unknown method or sign, or no photo where one is needed.
    """
    figure, axes = _place(plt_fig_axis, fig_size, use_pyplot)
    if method == "original_image":
        axes.imshow(np.asarray(original_image).squeeze(), cmap="gray" if np.ndim(original_image) == 2 else None)
        axes.set_title(title or "")
        axes.set_axis_off()
        return _shown(figure, axes, use_pyplot)
    for name, given, known in (("method", method, [*STYLE_OF, "original_image"]), ("sign", sign, SIGN_OF)):
        if given not in known:
            raise ValueError(f"{name}={given!r}: expected {', '.join(known)}")
    if method != "heat_map" and original_image is None:
        raise ValueError(f"original_image: {method} is drawn over it; give it")
    tw.visualize.heatmap(
        _channels_first(attr), ax=axes, sign=SIGN_OF[sign], style=STYLE_OF[method], cmap=cmap, colorbar=show_colorbar,
        image=None if method == "heat_map" else _channels_first(original_image), title=title, alpha=alpha_overlay,
        percentile=100.0 - outlier_perc,
    )  # fmt: skip
    return _shown(figure, axes, use_pyplot)


def draw_image_attr_multiple(
    attr: InForm, original_image: InForm, methods: Sequence[str], signs: Sequence[str],
    titles: Sequence[str] | None = None, fig_size: tuple[int, int] = (8, 6), use_pyplot: bool = True, **kwargs: AnyForm,
) -> tuple[Figure, Axes | list[Axes]]:  # fmt: skip
    """Draw one image's attributions in several ways, side by side.

    Args:
        attr, original_image: as for :func:`draw_image_attr`.
        methods, signs, titles: one for each panel.
        fig_size, use_pyplot, kwargs: as for :func:`draw_image_attr`.

    Raises:
        ValueError: different numbers of methods, signs and titles.
    """
    if len({len(methods), len(signs), len(titles or methods)}) != 1:
        raise ValueError(f"signs, titles: {len(methods)} methods given; give one for each")
    figure, _ = _place(None, fig_size, use_pyplot)
    figure.clear()
    axes = list(figure.subplots(1, len(methods), squeeze=False)[0])
    for i, (ax, method, sign) in enumerate(zip(axes, methods, signs)):
        title = titles[i] if titles else None
        draw_image_attr(
            attr, original_image, method, sign, plt_fig_axis=(figure, ax), title=title, use_pyplot=False, **kwargs
        )
    _shown(figure, axes[0], use_pyplot)
    return figure, axes if len(axes) > 1 else axes[0]


def draw_timeseries_attr(
    attr: AnyForm, data: AnyForm, x_values: AnyForm = None, method: str = "overlay_individual", sign: str = "absolute_value",
    channel_labels: Sequence[str] | None = None, channels_last: bool = True, plt_fig_axis: WhereToDraw = None,
    outlier_perc: float = 2, cmap: str | None = None, alpha_overlay: float = 0.7, show_colorbar: bool = False,
    title: str | None = None, fig_size: tuple[int, int] = (6, 6), use_pyplot: bool = True,
) -> tuple[Figure, list[Axes]]:  # fmt: skip
    """Draw the attributions of a series on its line, a panel for each channel.

    Args:
        attr, data: ``(T, C)``, or ``(C, T)`` without ``channels_last``.
        x_values: the times.
        method: ``overlay_individual``; the others have no counterpart.
        sign: ``all``, ``positive``, ``negative`` or ``absolute_value``.
        channel_labels: names of the channels.
        channels_last: see ``attr``.
        outlier_perc, cmap, show_colorbar, title: as for :func:`draw_image_attr`.
        plt_fig_axis, alpha_overlay, fig_size, use_pyplot: Captum's, without use here: the figure is a new one.

    Raises:
        NotImplementedError: another method.
        ValueError: an unknown sign.
    """
    if method != "overlay_individual":
        raise NotImplementedError(f"torchwhy.captum: method={method!r}; tw.visualize.series draws a panel a channel")
    if sign not in SIGN_OF:
        raise ValueError(f"sign={sign!r}: expected {', '.join(SIGN_OF)}")
    values, signal = (np.asarray(a).T if channels_last else np.asarray(a) for a in (attr, data))
    changed = {
        "positive": np.clip(values, 0, None),
        "negative": np.clip(values, None, 0),
        "absolute_value": abs(values),
    }
    figure = tw.visualize.series(
        signal, changed.get(sign, values), times=x_values, names=channel_labels, cmap=cmap, colorbar=show_colorbar,
        title=title, percentile=100.0 - outlier_perc,
    )  # fmt: skip
    return figure, list(figure.axes)


@dataclass
class VisualizationDataRecord:
    """A text with its attributions and what the model said of it, for :func:`draw_text`."""

    word_attributions: InForm
    pred_prob: float
    pred_class: InForm
    true_class: InForm
    attr_class: InForm
    attr_score: float
    raw_input_ids: Sequence[str]
    convergence_score: float


class TextPicture:
    """HTML that notebooks show.

    Args:
        data: the HTML.
    """

    def __init__(self, data: str) -> None:
        self.data = data

    def _repr_html_(self) -> str:
        return self.data


def draw_text(datarecords: Iterable[VisualizationDataRecord], legend: bool = True) -> TextPicture:
    """Return a table of texts, each word on the colour of its attribution, as notebooks show it.

    Args:
        datarecords: one for each text; its attributions are ``(T,)``.
        legend: Captum's; every word has its number on hover.
    """
    records = list(datarecords)
    facts: Mapping[str, Sequence[object]] = {
        "True Label": [r.true_class for r in records],
        "Predicted Label": [f"{r.pred_class} ({float(r.pred_prob):.2f})" for r in records],
        "Attribution Label": [r.attr_class for r in records],
        "Attribution Score": [f"{float(r.attr_score):.2f}" for r in records],
    }
    words = [list(r.raw_input_ids) for r in records]
    scores = [torch.as_tensor(r.word_attributions).detach()[: len(w)] for r, w in zip(records, words)]
    return TextPicture(tw.visualize.text_table(words, scores, facts=facts))


def _channels_first(image: InForm) -> AnyForm:
    """Return an image ``(H, W)`` or ``(H, W, C)`` as ``(H, W)`` or ``(C, H, W)``."""
    array = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
    return np.moveaxis(array, 2, 0) if array.ndim == 3 else array


def _place(given: WhereToDraw, size: tuple[int, int], use_pyplot: bool) -> tuple[Figure, Axes]:
    """Return the figure and the axes to draw on: those given, or new ones."""
    if given is not None:
        return given
    if use_pyplot:
        from matplotlib import pyplot

        figure = pyplot.figure(figsize=size)
    else:
        from matplotlib.figure import Figure

        figure = Figure(figsize=size)
    return figure, figure.subplots()


def _shown(figure: Figure, axes: Axes, use_pyplot: bool) -> tuple[Figure, Axes]:
    """Return figure and axes, after showing them if asked to."""
    if use_pyplot:
        from matplotlib import pyplot

        pyplot.show()
    return figure, axes
