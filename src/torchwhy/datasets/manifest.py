"""What a job is: enough to tell whether a second start asks for the same."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from copy import copy

import torch
from torch import nn

from torchwhy.attribution import Attribution
from torchwhy.datasets.likeness import ADDRESS, likeness_of
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
CONTENTS = {  # hashes that must be the same where the versions are; what is said where they are not
    "structure": "a model of other layers or other code",
    "of_settings": "other settings: functions or tensors of other contents",
    "of_target": "another target: a function of other code, or a tensor of other contents",
    "of_arguments": "other arguments: tensors of other values, or functions of other code",
}
VERSIONS = ("torchwhy", "torch", "python")


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
        "arguments": {k: ADDRESS.sub("", str(in_words(value))) for k, value in arguments.items() if value is not None},
        "model": f"{type(model).__module__}.{type(model).__qualname__}",
        "parameters": ModelHash(model).value(),
        "torchwhy": torchwhy.__version__,
        "structure": likeness_of(model, parameters=False),
        "of_settings": likeness_of(method.settings()),
        "of_target": likeness_of(target),
        "of_arguments": likeness_of({name: value for name, value in arguments.items() if value is not None}),
        "torch": torch.__version__,
        "python": ".".join(platform.python_version_tuple()[:2]),
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

    Hashes of code and contents are compared where the versions of torchwhy, torch and Python are the same: the same may be
    another hash in another version. Folders of before there were such hashes are compared as far as they say what they are.

    Raises:
        ValueError: the two differ in what was asked.
    """
    for key in SAME_EACH_TIME:
        if before.get(key) != now.get(key):
            if key == "parameters":
                raise ValueError(f"{path} holds explanations of a model with other weights: give another folder")
            raise ValueError(
                f"{path} holds explanations with {key}={_shortened(before.get(key))}, and now it is "
                f"{_shortened(now.get(key))}: give another folder"
            )
    if any(before[name] != now[name] for name in VERSIONS if name in before):
        return
    for key, what in CONTENTS.items():
        if key in before and before[key] != now[key]:
            raise ValueError(f"{path} holds explanations of {what}: give another folder")


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
