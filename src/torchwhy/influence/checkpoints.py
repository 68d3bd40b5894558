"""Parameters from the course of training, in the place of the model's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

State = Mapping[str, Tensor]
StateOrFile = State | str | Path


def state_at(model: nn.Module, given: StateOrFile, number: int) -> dict[str, Tensor]:
    """Return the parameters and buffers of a checkpoint, on the model's devices.

    Args:
        model: for which they are.
        given: a state dict, or a file with one: ``.safetensors``, or what ``torch.save`` wrote, read without running code.
            Of a tensor that several modules share one of its names is enough, as such files have it.
        number: of the checkpoint, for errors.

    Raises:
        TypeError: neither.
        ValueError: a file that cannot be read, names that the model does not have, lacks, or has with other shapes, other
            values for two names of one tensor.
    """
    state = _read_state(given, number) if isinstance(given, (str, Path)) else given
    check_state(number, state)
    own = model.state_dict(keep_vars=True)
    names: dict[int, list[str]] = {}
    for name, tensor in own.items():
        if name in state:
            names.setdefault(id(tensor), []).append(name)
    unknown, missing = sorted(set(state) - set(own)), sorted(n for n, t in own.items() if id(t) not in names)
    shapes = [
        f"{n} {tuple(state[n].shape)} for {tuple(own[n].shape)}"
        for n in own
        if n in state and state[n].shape != own[n].shape
    ]
    untied = [
        f"{some[0]} and {n}"
        for some in names.values()
        for n in some[1:]
        if not state[n].to(own[n]).equal(state[some[0]].to(own[n]))
    ]
    for what, found in (
        ("unknown", unknown),
        ("missing", missing),
        ("of another shape", shapes),
        ("two values of one tensor,", untied),
    ):
        if found:
            raise ValueError(
                f"checkpoints[{number}]: does not fit the model: {what} {', '.join(found[:3])}{', ...' if found[3:] else ''}"
            )
    return {name: state[names[id(tensor)][0]].detach().to(tensor) for name, tensor in own.items()}


def check_state(number: int, given: object) -> None:
    """Refuse a checkpoint that is neither a state dict nor the name of a file.

    Raises:
        TypeError: it is neither.
    """
    named = isinstance(given, Mapping) and all(isinstance(t, Tensor) for t in given.values())
    if not named and not isinstance(given, (str, Path)):
        raise TypeError(f"checkpoints[{number}]: expected a state dict or a file with one, got {type(given).__name__}")


def _read_state(path: str | Path, number: int) -> State:
    """Return what a file holds."""
    try:
        if str(path).endswith(".safetensors"):
            from safetensors.torch import load_file

            return load_file(str(path))
        return torch.load(path, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]
    except Exception as error:
        raise ValueError(f"checkpoints[{number}]: {path} cannot be read: {error}") from error


def check_checkpoints(checkpoints: Sequence[object] | None, form: str) -> None:
    """Refuse what is no list of checkpoints.

    Args:
        checkpoints: as a method got them.
        form: what they look like, for the error.
    """
    if checkpoints is not None and (not isinstance(checkpoints, Sequence) or isinstance(checkpoints, (str, bytes))):
        raise TypeError(f"checkpoints: expected a list of {form}, got {type(checkpoints).__name__}")
    if checkpoints is not None and not len(checkpoints):
        raise ValueError(f"checkpoints: the list is empty; give {form}, or None for the model as it is")
