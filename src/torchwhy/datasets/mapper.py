"""The work of a data set as a callable, for engines that bring the rows themselves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from torchwhy.attribution import Attribution
from torchwhy.datasets.batches import LABELS
from torchwhy.engine.structure import AnyForm, flatten
from torchwhy.targets import TargetLike


class Mapper:
    """Explain batches that are mappings of arrays, as Ray Data hands them to ``map_batches``.

    ``dataset.map_batches(tw.datasets.Mapper, fn_constructor_args=(method,), concurrency=2)`` adds the columns
    ``attributions``, ``scores`` and, where there is one, ``completeness_gap`` to each batch. An engine of our own for
    clusters there is not.

    Args:
        method: what explains.
        inputs: the columns that are the model's inputs, in its order; one is one tensor.
        target: as for :func:`torchwhy.explain_dataset`; ``"label"`` is the column of that name, or ``"labels"``.
        arguments: further arguments of each call.

    >>> import numpy as np, torchwhy as tw
    >>> mapper = tw.datasets.Mapper(tw.Saliency(torch.nn.Linear(2, 3)), target="label")
    >>> mapper({"x": np.ones((4, 2), np.float32), "label": np.array([0, 1, 2, 0])})["attributions"].shape
    (4, 2)
    """

    def __init__(
        self, method: Attribution, inputs: str | tuple[str, ...] = "x", target: TargetLike = None, **arguments: AnyForm
    ) -> None:
        self.method, self.target, self.arguments = method, target, arguments
        self.inputs = (inputs,) if isinstance(inputs, str) else tuple(inputs)

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the batch with the columns of its explanation.

        Raises:
            KeyError: a column that is not there.
        """
        missing = [name for name in self.inputs if name not in batch]
        if missing:
            raise KeyError(f"inputs: no column {missing[0]!r}; there are {', '.join(map(repr, batch))}")
        target = self.target
        if target == "label":
            label = next((name for name in LABELS if name in batch), None)
            if label is None:
                raise KeyError(f"target='label': no column 'label'; there are {', '.join(map(repr, batch))}")
            target = torch.as_tensor(batch[label])
        tensors = tuple(torch.as_tensor(np.ascontiguousarray(batch[name])) for name in self.inputs)
        e = self.method.explain(tensors[0] if len(tensors) == 1 else tensors, target, **self.arguments)
        found = dict(batch)
        parts = flatten(e.attributions)[0]
        for name, values in zip(self.inputs, parts):
            found["attributions" if len(parts) == 1 else f"attributions_{name}"] = values.cpu().numpy()
        for name in ("scores", "completeness_gap"):
            if (values := getattr(e, name)) is not None:
                found[name] = values.cpu().numpy()
        return found
