"""Model files: what torch.save and safetensors wrote, read without running the code in them unless trusted."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import torch
from torch import nn

_SUFFIXES = (".pt", ".pth", ".pkl", ".bin", ".ckpt", ".safetensors")
_STATES = ("state_dict", "model_state_dict", "model")  # where training scripts put the weights in a checkpoint


def is_file(name: str | Path) -> bool:
    """Return whether ``name`` means a file, be it there or not, rather than a model: by its look, not by what lies around."""
    path = Path(name)
    return isinstance(name, Path) or path.suffix.lower() in _SUFFIXES or len(path.parts) > 1


def is_torch_file(path: Path) -> bool:
    """Return whether a file that is there is of the kind that torch.save writes: an archive; a plain pickle may be anything."""
    return zipfile.is_zipfile(path)


def read_model(path: Path, trust: bool) -> nn.Module:
    """Return the pickled network in a file.

    Raises:
        ValueError: the file holds something else, or cannot be read.
    """
    model = _read(path, trust)
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"name: '{path}' holds a {type(model).__name__}, not a network. If these are weights, name the network "
            f"that they belong to: load('resnet18', weights='{path}')"
        )
    return model


def load_state(model: nn.Module, path: Path, name: str) -> None:
    """Give the model the weights in a file: a state_dict, or a checkpoint or a DataParallel wrapper around one.

    Raises:
        ValueError: the file holds something else, or does not fit the model; ``name`` is the model's, for the message.
    """
    state = _read(path, trust=False)
    for key in _STATES:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict):
        raise ValueError(f"weights: '{path}' holds a {type(state).__name__}, not a state_dict")
    if all(str(key).startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"weights: '{path}' does not fit {name}; for another number of classes pass num_classes=. {error}"
        ) from error


def _read(path: Path, trust: bool) -> object:
    """Return what a file holds, on the CPU. Without ``trust`` only tensors and plain containers are read."""
    if not path.is_file():
        raise FileNotFoundError(f"no model file at '{path}'")
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    _refuse_others(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=not trust)
    except (AttributeError, ImportError) as error:
        raise ValueError(
            f"'{path}' needs the code of a class that cannot be found here ({error}): put its module on the Python "
            "path, or save the state_dict instead"
        ) from error
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        if trust or not isinstance(error, pickle.UnpicklingError):
            raise ValueError(f"'{path}' cannot be read, it may be damaged ({error})") from error
        raise ValueError(
            f"'{path}' holds more than weights: reading it runs code from the file. Pass trust=True if you trust "
            "whoever made it, or save its state_dict instead"
        ) from error


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"'{path}' cannot be read as a safetensors file ({error})") from error


def _refuse_others(path: Path) -> None:
    """Raise for what torch.save did not write, so that nobody is asked to trust it."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            entries = archive.namelist()
        if any(entry.endswith("/constants.pkl") for entry in entries):
            raise ValueError(
                f"'{path}' is TorchScript, whose operations cannot be seen from outside: save the network itself, "
                "or its state_dict, with torch.save"
            )
        saved = any(entry.endswith("/data.pkl") for entry in entries)
    else:
        with path.open("rb") as file:
            saved = file.read(1) == b"\x80"  # the first byte of a pickle, which torch.save wrote before PyTorch 1.6
    if not saved:
        raise ValueError(f"'{path}' is not a file that torch.save wrote")
