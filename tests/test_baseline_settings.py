"""Baselines that make no sense are refused when they are made, by the name of the setting; those of one's own, at the call."""

import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from torch import nn

import torchwhy as tw

NET = nn.Linear(3, 2)
X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
MADE = [tw.baselines.Constant, tw.baselines.Blur, tw.baselines.Noise, tw.baselines.Uniform]
BAD = ["x", b"x", None, math.nan, math.inf, -math.inf, -2, -0.5, True, np.bool_(True), [], [1.0], {}, object()]


def means_something(kind, name, value):
    """Whether a value is no bad one for a setting."""
    if name == "generator":  # a seed, or none
        return value is None or (type(value) is int)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is tw.baselines.Constant:  # what is absent may be missing, for models that take it
        return is_number
    if kind is tw.baselines.Uniform and name != "k":
        return value is None or (is_number and math.isfinite(value))
    return False


@pytest.mark.parametrize("kind", MADE, ids=lambda kind: kind.__name__)
def test_every_setting_is_refused_where_it_makes_no_sense(kind):
    wrong = []
    for field in dataclasses.fields(kind):
        for value in BAD:
            if means_something(kind, field.name, value):
                kind(**{field.name: value})
                continue
            try:
                kind(**{field.name: value})
            except (TypeError, ValueError) as error:
                if not re.match(rf"{field.name}=", str(error)):
                    wrong.append(f"{field.name}={value!r}: {error}")
            else:
                wrong.append(f"{field.name}={value!r} is accepted")
    assert not wrong, "\n".join(wrong)


def test_counts_and_bounds():
    for k in (0, -2, 1.5):
        for kind in (tw.Noise, tw.Uniform):
            with pytest.raises(ValueError, match=rf"^k={k}: expected an int of at least 1"):
                kind(k=k)
    with pytest.raises(ValueError, match=r"^low=2, high=1: expected the smallest value, then the largest"):
        tw.Uniform(low=2, high=1)
    assert tw.Uniform(low=1, high=1).rows(X, None).eq(1).all()
    assert tw.Constant(torch.tensor(0.5)).rows(X, None).eq(0.5).all()
    assert torch.equal(tw.Blur(sigma=0).rows(X[:, None], None)[0], X[:, None])
    assert tw.Noise(std=np.float32(0.5), k=np.int64(2)).rows(X, None).shape == (2, 1, 3)


@dataclasses.dataclass(frozen=True)
class Own(tw.baselines.Baseline):
    make: object = None
    level: float = None

    def rows(self, x, generator):
        return self.make(x)


METHODS = [
    tw.IntegratedGradients(NET),
    tw.FeatureAblation(NET),
    tw.ExpectedGradients(NET, n_samples=4),
    tw.DeepLIFT(NET),
    tw.KernelSHAP(NET, n_samples=16),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda x: x, "(4, 3)"),
        (lambda x: x[:1], "(1, 3)"),
        (lambda x: x[None, :2], "(1, 2, 3)"),
        (lambda x: x[None, :, :2], "(1, 4, 2)"),
        (lambda x: x[None, None], "(1, 1, 4, 3)"),
        (lambda x: x.new_zeros(0, 1, 3), "(0, 1, 3)"),
        (lambda x: x.sum(), "()"),
    ],
)
def test_one_of_ones_own_of_another_shape_is_refused(method, make, shape):
    said = rf"^baselines: Own gave the shape {re.escape(shape)} for inputs of shape \(4, 3\); .*\(K, 4 or 1, 3\)"
    with pytest.raises(ValueError, match=said):
        method.attribute(X, 1, baselines=Own(make))


def test_one_of_ones_own_that_gives_no_tensor_is_refused():
    with pytest.raises(TypeError, match=r"^baselines: Own gave a float"):
        tw.IntegratedGradients(NET).attribute(X, 1, baselines=Own(lambda x: 0.5))


def test_one_of_ones_own_that_broadcasts_is_taken_as_it_is_meant():
    mean = Own(lambda x: x.mean(1, keepdim=True)[None])
    whole = Own(lambda x: x.mean(1, keepdim=True).expand_as(x)[None])
    for method in METHODS[:2]:
        assert torch.equal(method.attribute(X, 1, baselines=mean), method.attribute(X, 1, baselines=whole))


def test_one_of_ones_own_is_held_to_its_annotations():
    with pytest.raises(ValueError, match=r"^level='high'"):
        Own(level="high")
    assert Own().level is None  # its own default
