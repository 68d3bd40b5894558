"""Small networks for scikit-learn's digits and breast-cancer data, trained in a second or two when first asked for."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from torchwhy.engine.run.defaults import torch_defaults
from torchwhy.models.seeding import seeded

__all__ = ["Tabular", "breast_cancer", "digits"]


class Tabular(NamedTuple):
    """A trained network with the data it was trained and tested on.

    Attributes:
        model: the network, in evaluation mode.
        x_train, x_test: ``(N, features...)`` float32.
        y_train, y_test: ``(N,)`` int64, an index into ``classes``.
        features: the name of each input, in the order of a flattened row of x.
        classes: the names of the classes.
    """

    model: nn.Module
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    features: tuple[str, ...]
    classes: tuple[str, ...]


@torch_defaults()
def digits() -> Tabular:
    """Return hand-written digits ``(N, 1, 8, 8)`` in [0, 1], and a convolutional network, 98 % right on the test rows.

    Trained once per process; each call returns its own copy.
    """
    return _copy_of(_digits)


@torch_defaults()
def breast_cancer() -> Tabular:
    """Return thirty measurements of a tumour, malignant or benign, and an MLP (30-32-16-2), 96 % right on the test rows.

    The measurements are standardized by the mean and the standard deviation of the training rows.
    Trained once per process; each call returns its own copy.
    """
    return _copy_of(_breast_cancer)


def _copy_of(trained: Callable[[], Tabular]) -> Tabular:
    with torch.inference_mode(False):  # the caller may be inside no_grad or inference_mode: training works there too
        return deepcopy(trained())


@lru_cache(maxsize=1)
def _digits() -> Tabular:
    from sklearn.datasets import load_digits

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, 10),
        )

    data = load_digits()
    names = tuple(map(str, data.target_names))
    made = _trained_tabular(
        build, data.images[:, None] / 16, data.target, tuple(data.feature_names), names, standardize=False
    )
    made.model.to(memory_format=torch.channels_last)  # many rows take two thirds of the time
    return made


@lru_cache(maxsize=1)
def _breast_cancer() -> Tabular:
    from sklearn.datasets import load_breast_cancer

    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 2))

    data = load_breast_cancer()
    features, classes = (tuple(map(str, names)) for names in (data.feature_names, data.target_names))
    return _trained_tabular(build, data.data, data.target, features, classes, standardize=True)


def _trained_tabular(
    build: Callable[[], nn.Module],
    x: object,
    y: object,
    features: tuple[str, ...],
    classes: tuple[str, ...],
    standardize: bool,
) -> Tabular:
    from sklearn.model_selection import train_test_split

    split = train_test_split(x, y, test_size=0.2, random_state=0, stratify=y)
    x_train, x_test = (torch.tensor(part, dtype=torch.float32) for part in split[:2])
    y_train, y_test = (torch.tensor(part, dtype=torch.int64) for part in split[2:])
    if standardize:
        mean, std = x_train.mean(0), x_train.std(0)
        x_train, x_test = (x_train - mean) / std, (x_test - mean) / std
    with seeded(0):
        model = _fit(build().to(torch.float32), x_train, y_train)
    return Tabular(model, x_train, y_train, x_test, y_test, features, classes)


def _fit(model: nn.Module, x: Tensor, y: Tensor, epochs: int = 10, batch: int = 32, lr: float = 1e-2) -> nn.Module:
    """Train by AdamW with a one-cycle learning rate, on batches drawn from torch's (here seeded) generator."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * (len(x) // batch))
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(batch)[: len(x) // batch]:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()
