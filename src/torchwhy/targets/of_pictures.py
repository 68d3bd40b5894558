"""Targets in pictures: a box that a detector found, a region of a segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from torchwhy.engine.structure import Output, as_tuple, named_parts
from torchwhy.targets.score_target import (
    Numbers,
    RowScorer,
    ScoreTarget,
    check_numbers,
    check_row_count,
    numbers_of_rows,
    of_rows,
)
from torchwhy.targets.target import find_logits

Labels = int | Sequence[int | Sequence[int]] | Tensor | None
Detections = tuple[Tensor, Tensor]  # boxes (k, 4) and scores (k,)


@dataclass(frozen=True, eq=False)
class Box(ScoreTarget):
    r"""How well, and how surely, a detector finds an object: :math:`\max_d \mathrm{IoU}(b_n, b_d)\, p_d`

    over the detections d of a row that have its label, p their scores; the overlap and the score are both differentiated. 0
    for a row without any such detection.

    Outputs: a list with a dict of ``boxes``, ``labels`` and ``scores`` for each picture, as torchvision's detectors give it; or
    ``logits`` (or ``pred_logits``) ``(N, queries, classes)`` and ``pred_boxes`` ``(N, queries, 4)`` as DETR's.

    Args:
        boxes: ``(x1, y1, x2, y2)``, one for all rows ``(4,)`` or one for each ``(N, 4)``, in the units of the model's boxes:
            pixels for torchvision, shares of the picture's width and height for DETR.
        labels: the class, or one for each row; a tuple of classes in its place means any of these. None is any class.
        activation: what makes DETR's logits scores: ``"softmax"``, whose last class is "no object", or ``"sigmoid"`` as in its
            descendants (Deformable DETR, RT-DETR).

    Raises:
        ValueError: more or fewer boxes or labels than rows, an empty box, pixels where shares are meant, an output without
            boxes.
    """

    boxes: Tensor | Sequence
    labels: Labels = None
    activation: Literal["softmax", "sigmoid"] = "softmax"

    def for_rows(self, n: int | None) -> RowScorer:
        """Return what scores the rows, after a check that boxes and labels fit n rows."""
        boxes = _checked_boxes(self.boxes, n)
        labels = _checked_labels(self.labels, n)
        if self.activation not in ("softmax", "sigmoid"):
            raise ValueError(f"activation={self.activation!r}: expected 'softmax' or 'sigmoid'")

        def scorer(output: Output, rows: Tensor) -> Tensor:
            found = self._detections(output, len(rows), float(boxes.max()))
            wanted = of_rows(boxes, rows, rows, dims=2)
            classes = [labels[0 if len(labels) == 1 else row] for row in rows.tolist()]
            return torch.stack([_best(*f(c), box) for f, c, box in zip(found, classes, wanted)])

        return scorer

    def __call__(self, output: Output, rows: Tensor) -> Tensor:
        """Return the scores ``(M,)`` of rows ``(M,)``."""
        return self.for_rows(None)(output, rows)

    def _detections(self, output: Output, m: int, largest: float) -> list[OfRow]:
        """Return what was found in each of m pictures."""
        if isinstance(output, (list, tuple)) and all(isinstance(d, dict) and "boxes" in d for d in output):
            if len(output) != m:
                raise ValueError(f"the model was given {m} rows and returned {len(output)} dicts of boxes")
            return [OfRow(d["boxes"], d["scores"], d.get("labels")) for d in output]
        parts = named_parts(output)
        logits, boxes = parts.get("logits", parts.get("pred_logits")), parts.get("pred_boxes")
        if not isinstance(logits, Tensor) or not isinstance(boxes, Tensor) or len(logits) != m:
            raise ValueError(
                "target: Box needs the output of a detector: a list with a dict of boxes, labels and scores for each picture "
                "(torchvision), or logits and pred_boxes (DETR)"
            )
        if largest > 2:
            raise ValueError(
                f"boxes: {largest:g} is a pixel, but this model's boxes are shares of the picture: divide x by its width and y "
                "by its height"
            )
        chances = logits.sigmoid() if self.activation == "sigmoid" else logits.softmax(-1)[..., :-1]
        middle, half = boxes[..., :2], boxes[..., 2:] / 2
        return [OfRow(b, p) for b, p in zip(torch.cat([middle - half, middle + half], -1), chances)]


@dataclass(frozen=True, eq=False)
class OfRow:
    """What a detector found in one picture.

    Args:
        boxes: ``(k, 4)``, from corner to corner.
        scores: ``(k,)``, or ``(k, classes)``.
        labels: ``(k,)``, where there is one score for each box.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor | None = None

    def __call__(self, classes: tuple[int, ...] | None) -> Detections:
        """Return the boxes and scores of these classes, of all for None."""
        if self.scores.dim() == 1:
            if classes is None or self.labels is None:
                return self.boxes, self.scores
            wanted = torch.isin(self.labels, torch.tensor(classes, device=self.labels.device))
            return self.boxes[wanted], self.scores[wanted]
        if classes is None:
            return self.boxes, self.scores.amax(1)
        if not all(0 <= c < self.scores.shape[1] for c in classes):
            raise ValueError(f"labels: {classes} are out of range, the output has {self.scores.shape[1]} classes")
        return self.boxes, self.scores[:, list(classes)].amax(1)


def _best(boxes: Tensor, scores: Tensor, box: Tensor) -> Tensor:
    """Return the largest overlap times score; 0 of none, which depends on the model all the same."""
    from torchvision.ops import box_iou

    if not len(boxes):
        return scores.sum() + boxes.sum().to(scores)
    return (box_iou(boxes, box.to(boxes)[None])[:, 0].to(scores) * scores).max(0).values


def _checked_boxes(given: Tensor | Sequence, n: int | None) -> Tensor:
    """Return boxes ``(4,)`` or ``(N, 4)``."""
    try:
        boxes = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError("boxes: expected (x1, y1, x2, y2), or one for each row, (N, 4)") from None
    if boxes.dim() not in (1, 2) or boxes.shape[-1] != 4 or boxes.dtype == torch.bool:
        raise ValueError(
            f"boxes: shape {tuple(boxes.shape)}; expected (x1, y1, x2, y2), shape (4,), or one for each row, (N, 4)"
        )
    check_row_count("boxes", boxes, n, dims=2)
    boxes = boxes if boxes.is_floating_point() else boxes.float()
    if not bool((boxes[..., 2:] > boxes[..., :2]).all()):
        raise ValueError("boxes: empty; expected (x1, y1, x2, y2) with x1 < x2 and y1 < y2")
    return boxes


def _checked_labels(given: Labels, n: int | None) -> list[tuple[int, ...] | None]:
    """Return the classes that are meant in each row, in a list of one for all."""
    if given is None:
        return [None]
    if not isinstance(given, (list, tuple)) or not any(isinstance(g, (list, tuple)) for g in given):
        return [(int(k),) for k in torch.as_tensor(check_numbers("labels", given, n)).reshape(-1)]
    check_row_count("labels", given, n)
    each = [as_tuple(g) for g in given]
    for classes in each:
        if not classes:
            raise ValueError("labels: an empty tuple; give at least one class, or None for any")
        check_numbers("labels", list(classes))
    return [tuple(int(k) for k in classes) for classes in each]


@dataclass(frozen=True, eq=False)
class Region(ScoreTarget):
    r"""The score of a class over a region of a segmentation: :math:`\sum_{u} m_{nu}\, f(x_n)_{c u}`, the sum of its logits there.

    Outputs: a tensor ``(N, classes, *spatial)``, the ``out`` of torchvision's segmentation models, or ``logits``.

    Args:
        label: the class, or one for each row; None where the output has none, ``(N, *spatial)`` or ``(N, 1, *spatial)``.
        masks: of the output's size, one for all rows ``(*spatial)`` or one for each ``(N, *spatial)``: True or a weight where the
            region is.

    Raises:
        ValueError: masks of another size than the output, more or fewer than rows, or empty.

    Paper: Vinogradova et al. 2020, arXiv:2002.11434 (Seg-Grad-CAM), equation 2.
    """

    label: Numbers | None
    masks: Tensor

    def for_rows(self, n: int) -> RowScorer:
        """Return what scores the rows, after a check that labels fit n rows."""
        if self.label is not None:
            check_numbers("label", self.label, n)
        if not isinstance(self.masks, Tensor) or self.masks.dim() < 1:
            raise TypeError(f"masks: expected a tensor (*spatial) or (N, *spatial), got {type(self.masks).__name__}")
        if self.masks.is_complex():
            raise TypeError(f"masks: {self.masks.dtype}; expected True and False, or weights")

        def scorer(output: Output, rows: Tensor) -> Tensor:
            return self._scores(output, rows, n)

        return scorer

    def __call__(self, output: Output, rows: Tensor) -> Tensor:
        """Return the scores ``(M,)`` of rows ``(M,)``."""
        return self._scores(output, rows, None)

    def _scores(self, output: Output, rows: Tensor, n: int | None) -> Tensor:
        parts = {} if isinstance(output, Tensor) else named_parts(output)
        out = parts["out"] if "out" in parts else find_logits(output)
        maps = self._maps(out, rows)
        spatial, shape = tuple(maps.shape[1:]), tuple(self.masks.shape)
        if shape[-len(spatial) :] != spatial or len(shape) > len(spatial) + 1:
            raise ValueError(f"masks: shape {shape}, but the output's pixels are {spatial}; resize the masks to these")
        check_row_count("masks", self.masks, n, dims=maps.dim())
        empty = ~self.masks.reshape(-1, maps[0].numel()).any(1)
        if bool(empty.any()):
            raise ValueError(f"masks: nothing in the region of row {int(empty.nonzero()[0])}")
        return (maps * of_rows(self.masks, rows, maps, dims=maps.dim()).to(maps)).flatten(1).sum(1)

    def _maps(self, out: Tensor, rows: Tensor) -> Tensor:
        """Return the map ``(M, *spatial)`` of each row's class."""
        if out.dim() < 2 or len(out) != len(rows):
            raise ValueError(
                f"target: Region needs an output (N, classes, *spatial), this one has shape {tuple(out.shape)} for {len(rows)} "
                "rows"
            )
        if self.label is None:
            with_class = out.shape[1] == 1 and out.dim() > self.masks.dim()
            return out[:, 0] if with_class else out
        at = numbers_of_rows(self.label, rows, out)
        if bool(((at < 0) | (at >= out.shape[1])).any()):
            raise ValueError(f"label={self.label!r}: out of range, the output has {out.shape[1]} classes")
        return out[torch.arange(len(out), device=out.device), at]
