"""Whole data sets: explanations of every row, written to a folder as they come, and read from there.

``job`` is :func:`explain_dataset`, the loop over the batches; ``batches`` turns what users have (a loader, a dataset, a table,
tensors, any iterable) into batches; ``store`` is the folder: files that are written whole or not at all, what is finished, and
who may write; ``workers`` divides the batches among processes; ``collection`` reads a folder; ``mapper`` is the same work as
a callable for other engines. Begin with ``job``.
"""

from typing import TYPE_CHECKING

from torchwhy.datasets.collection import ExplainedDataset, load_dataset
from torchwhy.datasets.job import Progress, explain_dataset
from torchwhy.datasets.mapper import Mapper
from torchwhy.spelling import refusal_of

__all__ = ["ExplainedDataset", "Mapper", "Progress", "explain_dataset", "load_dataset"]

if not TYPE_CHECKING:  # type checkers are to find a misspelt name
    __getattr__ = refusal_of(__name__, __all__)
