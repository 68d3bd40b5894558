"""What a job is: enough to tell whether a second start asks for the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import copy

import torch
from torch import nn

from torchwhy.attribution import Attribution
from torchwhy.engine.structure import Keywords
from torchwhy.explanation.files import plain_data
from torchwhy.provenance import ModelHash, in_words

SAME_EACH_TIME = (
    "method",
    "settings",
    "target",
    "arguments",
    "model",
    "parameters",
    "on_error",
    "inputs",
)  # must be the same
VERSIONS = ("torchwhy", "torch")


def describe_job(method: Attribution, target: object, arguments: Mapping[str, object], **facts: object) -> Keywords:
    """Return the manifest of a job.

    Args:
        method: what explains.
        target: as the caller gave it.
        arguments: further arguments of each call, such as baselines.
        facts: other settings of the job.
    """
    import torchwhy

    model = method.model
    found = {
        "method": type(method).__name__,
        "settings": method.settings(),
        "target": target if isinstance(target, (int, str, list, tuple)) or target is None else _word_for(target),
        "arguments": {name: in_words(value) for name, value in arguments.items() if value is not None},
        "model": f"{type(model).__module__}.{type(model).__qualname__}",
        "parameters": ModelHash(model).value(),
        "torchwhy": torchwhy.__version__,
        "torch": torch.__version__,
        **facts,
    }
    plain: Keywords = json.loads(json.dumps(found, default=_as_plain_data))
    return plain


def _as_plain_data(value: object) -> object:
    return _word_for(value) if callable(value) or isinstance(value, (nn.Module, Attribution)) else plain_data(value)


def _word_for(value: object) -> str:
    """Return a word for what has no data: the name of a function or class, without its address."""
    if isinstance(value, Attribution):
        return repr(value)
    return str(getattr(value, "__qualname__", None) or type(value).__qualname__)


def check_same_job(before: Keywords, now: Keywords, path: object) -> None:
    """Refuse to go on with another method, model or target.

    Raises:
        ValueError: the two differ in what was asked.
    """
    for key in SAME_EACH_TIME:
        if before.get(key) != now.get(key):
            raise ValueError(
                f"{path} holds explanations with {key}={_shortened(before.get(key))}, and now it is "
                f"{_shortened(now.get(key))}: give another folder"
            )


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) < 100 else text[:97] + "..."


def with_seed(method: Attribution, seed: int | None) -> tuple[Attribution, int | None]:
    """Return the method with a seed where it draws and has none, and that seed: a new one, or the one given.

    Raises:
        ValueError: its generator is one that goes on from call to call, so that no second start could draw the same.
    """
    given = getattr(method, "generator", None)
    if isinstance(given, torch.Generator):
        raise ValueError(
            "method: its generator goes on drawing from batch to batch, so that a second start could not go on with it; "
            "give it an int"
        )
    if given is not None or not hasattr(method, "generator"):
        return method, given
    drawn = torch.Generator().seed() % 2**62 if seed is None else seed
    seeded = copy(method)
    setattr(seeded, "generator", drawn)  # noqa: B010
    return seeded, drawn
