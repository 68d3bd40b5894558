"""Captum's forms of what a method is called with, in ours: targets, masks, baselines, functions with layers, neurons."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from torchwhy.engine.structure import AnyForm, InForm, Keywords, Output, Tensors, flatten, parts_by_key
from torchwhy.targets import find_logits

Selector: TypeAlias = int | tuple[int | slice, ...] | Callable[[Tensor], Tensor]


def target_of(target: InForm) -> AnyForm:
    """Return a target in a form of ours: one number in a tensor stands for all rows, negative ones count from the end."""
    if isinstance(target, Tensor):
        target = target.item() if target.numel() == 1 else target.tolist()
    if isinstance(target, int) and not isinstance(target, bool) and target < 0:
        return partial(_from_the_end, target)
    if isinstance(target, list) and any(isinstance(t, int) and t < 0 for t in target):
        return [partial(_from_the_end, t) for t in target]
    return target


def _from_the_end(index: int, output: Output) -> Tensor:
    """Return a column of an output."""
    return find_logits(output)[:, index]


def as_neuron(selector: Selector) -> AnyForm:
    """Return a neuron of a layer: slices as a callable, the sum of what they select."""
    if isinstance(selector, tuple) and any(isinstance(s, slice) for s in selector):
        return partial(_sum_of, selector)
    return selector


def _sum_of(selector: tuple[int | slice, ...], activations: Tensor) -> Tensor:
    """Return the sum over the selected units, ``(N,)``."""
    place = (slice(None), *selector)
    found = activations[place]
    return found.reshape(len(found), -1).sum(1)


def as_masks(masks: InForm, inputs: InForm = None) -> InForm:
    """Return feature masks ``(N or 1, ...)`` without gaps between the numbers of a row.

    A mask of fewer dimensions than its input (of two, where the inputs are not what is masked) is one for all rows.
    """
    given, structure = flatten(masks)
    dims = [2] * len(given) if inputs is None else [t.dim() for t in flatten(inputs)[0]]
    wide = [m.long().reshape((1,) * (d - m.dim()) + tuple(m.shape)) for m, d in zip(given, dims)]
    n = max(map(len, wide))
    flat = torch.cat([m.flatten(1).expand(n, -1) for m in wide], 1)
    numbered = torch.stack([torch.unique(row, return_inverse=True)[1] for row in flat])
    parts = numbered.split([m[0].numel() for m in wide], 1)
    return structure.restore([p.reshape(n, *m.shape[1:]) for p, m in zip(parts, wide)])


def most_features(masks: InForm) -> int:
    """Return how many features there are in a row at most."""
    return 1 + max(int(m.max()) for m in flatten(masks)[0])


def each_element_a_feature(inputs: InForm) -> InForm:
    """Return masks in which every element is a feature of its own."""
    tensors, structure = flatten(inputs)
    found, d = [], 0
    for t in tensors:
        size = t[0].numel()
        found.append(torch.arange(d, d + size, device=t.device).view(1, *t.shape[1:]))
        d += size
    return structure.restore(found)


def one_feature(inputs: InForm) -> AnyForm:
    """Return masks in which everything is one feature."""
    tensors, structure = flatten(inputs)
    return structure.restore([torch.zeros((1,) * t.dim(), dtype=torch.long, device=t.device) for t in tensors])


def as_baselines(baselines: InForm, inputs: InForm) -> InForm:
    """Return baselines; what a callable gives for the inputs, or for nothing, is taken."""
    if not callable(baselines):
        return baselines
    return baselines(inputs) if inspect.signature(baselines).parameters else baselines()


def further_arguments(given: InForm) -> tuple[object, ...]:
    """Return further arguments as a tuple."""
    if given is None:
        return ()
    return given if isinstance(given, tuple) else (given,)


def in_tuples(value: InForm) -> Tensors:
    """Return the tensors of a tensor or a tuple of them."""
    return flatten(value)[0]


def tensors_passed(passed: Output) -> Keywords:
    """Return the tensors with a gradient among what a module passes, by key; the whole of it by None."""
    if isinstance(passed, Tensor):
        return {None: passed}  # type: ignore[dict-item]
    tensors: AnyForm = {k: v for k, v in parts_by_key(passed).items() if isinstance(v, Tensor)}
    return {k: v for k, v in tensors.items() if v.is_floating_point()} or tensors
