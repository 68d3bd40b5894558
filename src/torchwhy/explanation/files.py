"""Explanations on disk: one ``safetensors`` file, whose metadata hold the facts as JSON. Reading it runs no code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchwhy.engine.structure import InForm, Keywords
from torchwhy.explanation.safetensors_bytes import safetensors_bytes
from torchwhy.explanation.uneven import parts_of_names, tensors_by_name

if TYPE_CHECKING:
    from torchwhy.explanation.explanation import Explanation

SAVED_TENSORS = (
    *("attributions", "inputs", "completeness_gap", "standard_error"),
    *("scores", "base_scores", "probabilities", "rounding", "feature_mask"),
)
# and the types that they have
SAVED_FACTS: dict[str, tuple[type, ...]] = {
    "target": (object,),
    "method": (str,),
    "settings": (dict,),
    "evaluations": (int,),
    "seconds": (int, float),
    "details": (dict,),
    "names": (list, type(None)),
    "classes": (list, type(None)),
    "whole_features": (bool,),
    "provenance": (dict,),
}
SAVED_FORMS = ("NoneType", "Tensor", "Ragged", "RowList", "dict", "tuple", "list")


def write_explanation(e: Explanation, path: str | Path, *, inputs: bool) -> None:
    """Write an explanation; ``inputs`` says whether also what was explained.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        with open(path, "wb") as file:
            file.write(explanation_as_bytes(e, inputs=inputs))
    except OSError as error:
        raise OSError(f"{path}: cannot be written ({error})") from error


def explanation_as_bytes(e: Explanation, *, inputs: bool) -> memoryview:
    """Return the bytes of an explanation's file; what becomes of it and its tensors later does not change them."""
    tensors: dict[str, Tensor] = {}
    forms = {}
    for name in SAVED_TENSORS:
        value = getattr(e, name) if inputs or name != "inputs" else None
        kinds = {"dict": Mapping, "Tensor": Tensor}  # subclasses too, such as parameters
        forms[name] = next((k for k, kind in kinds.items() if isinstance(value, kind)), type(value).__name__)
        tensors |= {f"{name}.{k}": t for k, t in tensors_by_name(value).items()}
    e.provenance["parameters"] = e.model_hash
    facts = {name: getattr(e, name) for name in SAVED_FACTS} | {"forms": forms}
    measured = {k: v for k, v in e.details.items() if isinstance(v, Tensor)}
    tensors |= {f"details.{k}": t for k, t in measured.items()}
    facts["details"] = {k: v for k, v in e.details.items() if k not in measured}
    return safetensors_bytes(tensors, {"torchwhy": json.dumps(facts, default=plain_data)})


def read_explanation(path: str | Path) -> Keywords:
    """Return the fields of an explanation that was written.

    Raises:
        OSError: there is no such file.
        ValueError: it was not written by :func:`write_explanation`, or was damaged since.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(str(path), framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("torchwhy", "null"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return _fields(facts, tensors)
    except (SafetensorError, ValueError, LookupError, RecursionError) as error:
        raise ValueError(f"{path}: not an explanation written by save() ({error})") from error


def _fields(facts: object, tensors: dict[str, Tensor]) -> Keywords:
    """Return the fields of an explanation from what a file holds.

    Raises:
        LookupError: a tensor is missing.
        ValueError: facts that are not those of an explanation.
    """
    if not isinstance(facts, dict) or not isinstance(forms := facts.pop("forms", None), dict):
        raise ValueError("it has no facts of one")
    unknown = [k for k in facts if k not in SAVED_FACTS] + [k for k in forms if k not in SAVED_TENSORS]
    unfit = [k for k in facts if k in SAVED_FACTS and not isinstance(facts[k], SAVED_FACTS[k])]
    unfit += [k for k, form in forms.items() if not isinstance(form, str) or form not in SAVED_FORMS]
    if unknown or unfit:
        raise ValueError(f"facts that are none of one: {', '.join(map(str, (unknown + unfit)[:5]))}")
    for name, form in forms.items():
        parts = {k.split(".", 1)[1]: t for k, t in tensors.items() if k.split(".", 1)[0] == name}
        facts[name] = _in_form(form, parts_of_names(parts))
    if facts.get("attributions") is None:
        raise ValueError("it has no attributions")
    details = {k.split(".", 1)[1]: t for k, t in tensors.items() if k.startswith("details.")}
    facts["details"] = facts.get("details", {}) | details
    if isinstance(neutral := facts["details"].get("neutral"), list):  # as version 0.1 wrote it
        facts["details"]["neutral"] = torch.tensor(neutral, dtype=facts["attributions"].dtype)
    return facts


def _in_form(form: str, parts: dict[str, InForm]) -> InForm:
    """Return what :func:`tensors_by_name` took apart: None, a tensor, a tuple or a dict, as the name of its class says."""
    if form == "NoneType":
        return None
    if form in ("Tensor", "Ragged", "RowList"):
        return parts["0"]
    if form == "dict":
        return parts
    return tuple(parts[str(i)] for i in range(len(parts)))


def plain_data(value: object) -> object:
    """Return what JSON has no form for as numbers, if it is a small tensor, else as text."""
    return value.tolist() if isinstance(value, Tensor) and value.numel() < 1000 else repr(value)
