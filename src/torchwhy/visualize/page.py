"""A page to look into explanations with: one file that needs no other, and no network."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from torchwhy.engine.structure import SINGLE, flatten
from torchwhy.explanation.features import feature_names, in_usual_layout
from torchwhy.explanation.table import tokens_of
from torchwhy.visualize.explained import are_tokens, title_of_row
from torchwhy.visualize.explanation_data import above_rounding, features_of, is_explanation
from torchwhy.visualize.scaling import as_array, as_photo, find_scale, resize_image, to_unit

if TYPE_CHECKING:
    from torchwhy.engine.structure import Keywords
    from torchwhy.explanation import Explanation

MOST_ROWS, MOST_IMAGES = 200, 16  # of one method
MOST_COALITIONS = 2**12  # of a row


def page(explanations: Mapping[str, Explanation], path: str | Path, *, title: str = "Why?") -> Path:
    """Write explanations into one HTML file: a tab for each, its rows, features to sort, a threshold, signs, images to zoom.

    Everything is inside the file, and its policy forbids requests. Names and texts are data there, never markup. Of more than 200
    rows, or 16 images, the first are written, and that is said.

    Args:
        explanations: by their names.
        path: of the file.
        title: above everything.

    Returns:
        The path.

    Raises:
        OSError: the file cannot be written.
        TypeError: something that is no explanation.
        ValueError: none.
    """
    if not explanations:
        raise ValueError("explanations: none given")
    for name, e in explanations.items():
        if not is_explanation(e):
            raise TypeError(
                f"explanations[{name!r}]: expected an explanation, as method.explain gives, not {type(e).__name__}"
            )
    data = json.dumps([_method(name, e) for name, e in explanations.items()], ensure_ascii=True)
    for letter in "<>&":  # so that nothing in it ends the script
        data = data.replace(letter, f"\\u{ord(letter):04x}")
    template = files("torchwhy.visualize").joinpath("page.html").read_text(encoding="utf-8")
    before, after = template.replace("@TITLE@", escape(title)).split("@DATA@")
    Path(path).write_text(f"{before}{data}{after}", encoding="utf-8")
    return Path(path)


def _method(name: str, e: Explanation) -> Keywords:
    """Return what the page shows of one explanation."""
    e = in_usual_layout(e)
    tensor = flatten(e.attributions)[1] is SINGLE
    images = tensor and e.attributions.dim() == 4 and not are_tokens(e)
    most = MOST_IMAGES if images else MOST_ROWS
    said = f"{name}, {most} of {len(e)} rows" if len(e) > most else name
    kind = "text" if tensor and are_tokens(e) else "table"
    rows = [row for i in range(min(most, len(e))) for row in _entries(e, i, images)]
    return {"name": said, "kind": "text" if rows and "said" in rows[0] else kind, "rows": rows}


def _entries(e: Explanation, i: int, images: bool) -> list[Keywords]:
    """Return what is shown of a row: one entry, or one for each token of its response where each was explained."""
    values = e.features()[i]
    if values.dim() == 1:
        return [_row(e, i, images)]
    tokens = tokens_of(e, i, len(values))
    names, title = feature_names(e, i), title_of_row(e, i, "")
    scores = [e.scores, e.base_scores]
    ends = [None if s is None or s.dim() < 2 else s[i].tolist() for s in scores]
    return [
        {
            "title": f"{title} · {token}".removeprefix(" · "),
            "of": i,
            "said": token,
            "names": names,
            "floor": 0.0,
            "probability": None,
            "values": [float(f"{v:.6g}") for v in values[t].tolist()],
            **{key: None if known is None else known[t] for key, known in zip(("score", "base"), ends)},
        }
        for t, token in enumerate(tokens)
    ]


def _row(e: Explanation, i: int, images: bool) -> Keywords:
    found: Keywords = {"title": title_of_row(e, i, "") or "row 0", "names": [], "values": [], "floor": 0.0}
    found |= {
        "score": _number(e.scores, i),
        "base": _number(e.base_scores, i),
        "probability": _number(e.probabilities, i),
    }
    if images and e.feature_mask is None:
        found["values"] = [float(as_array(e.shown, "attributions")[i].sum())]
        return {**found, "names": ["all pixels"], **images_of(e, i)}
    given = features_of(e, i)
    found |= {"names": given.names, "values": [float(f"{v:.6g}") for v in given.values], "floor": given.floor}
    if coalitions := _coalitions(e, i):
        found["coalitions"] = coalitions
    return {**found, **images_of(e, i)} if images else found


def _coalitions(e: Explanation, i: int) -> list[tuple[str, float]]:
    """Return the scores of a row without some of its features, as far as they were evaluated: the features' numbers, and f."""
    kept, scores = e.details.get("coalitions"), e.details.get("coalition_scores")
    if (
        e.method == "FeatureAblation" and e.scores is not None
    ):  # its values are what the score loses without one feature
        without = float(e.scores[i]) - e.features()[i]
        return [(str(j), float(f"{v:.6g}")) for j, v in enumerate(without.tolist())][:MOST_COALITIONS]
    if kept is None or scores is None or kept.shape[-1] != len(e.features()[i]):
        return []
    left = ~kept[i if len(kept) > 1 else 0]
    numbers = [",".join(map(str, row.nonzero()[:, 0].tolist())) for row in left]
    known = {number: float(f"{v:.6g}") for number, v in zip(numbers, scores[i].tolist())}
    return list(known.items())[:MOST_COALITIONS]


def _number(values: object, i: int) -> float | None:
    return None if values is None else float(values[i])  # type: ignore[index]


def images_of(e: Explanation, i: int) -> Keywords:
    """Return the photo and the map of a row as images inside the page; red and blue, opaque at ``scale`` and beyond."""
    from torchwhy.visualize import drawing as draw

    maps = above_rounding(as_array(e.shown if e.maps is None else e.maps, "attributions"), e.rounding)[0][i].sum(0)
    given = e.inputs[i] if hasattr(e.inputs, "dim") and e.inputs.dim() == 4 and e.inputs.shape[1] in (1, 3) else None
    photo = np.ones((*maps.shape, 3)) if given is None else as_photo(given)
    maps = resize_image(maps, photo.shape[:2])
    scale = find_scale(maps, 99.0, True)[0]
    unit = to_unit(maps, scale, True)
    colors = np.concatenate([draw.to_rgb(np.where(unit > 0, 0.85, -0.85), True), np.abs(unit)[..., None]], 2)
    size = {"width": photo.shape[1], "height": photo.shape[0]}
    return {"photo": _png(photo), "map": _png(colors), "scale": float(f"{scale:.6g}"), **size}


def _png(pixels: np.ndarray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray((pixels * 255).round().astype(np.uint8)).save(buffer, format="png")
    return f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}"
