"""Errors of torch that say nothing to somebody who explains a model, in words that say what would do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn

import torch
from torch import Tensor

from torchwhy.engine.structure import Output

UNDER_INFERENCE_MODE = (
    "model: its forward runs under torch.inference_mode(), where nothing can be differentiated or watched; take that away, and "
    "switch gradients off where the model is called, or use a perturbation method of the inputs"
)
ROWS_OFTEN_FIXED = (2, 4, 8, 16, 32, 64)  # of an exported model, tried where a call fails
PICTURE_DIMENSIONS = 3  # of one picture (C, H, W) that is no batch
MEANINGS = {
    "Inference tensors do not track version counter": UNDER_INFERENCE_MODE,
    "on inference tensor outside InferenceMode": UNDER_INFERENCE_MODE,
    "Inplace update to inference tensor outside InferenceMode": UNDER_INFERENCE_MODE,
    "`lengths` array must be sorted in decreasing order": (
        "model: several steps of a row share a call, so that the lengths are no longer sorted; call pack_padded_sequence with "
        "enforce_sorted=False, or give batch_size= the number of rows"
    ),
    "Expected hidden": (
        "additional_forward_args: the rows of a recurrent layer's state are its dimension 1; give it as tw.PerRow(state, dim=1)"
    ),
    "element 0 of tensors does not require grad and does not have a grad_fn": (
        "model: it differentiates inside of its forward what has no graph here; let it open torch.enable_grad() around that "
        "itself; under the rules of DeepLIFT and DeepSHAP it cannot, so take another method"
    ),
    "Inference tensors cannot be saved for backward": (
        "model: its parameters or buffers were made under torch.inference_mode, and torch lets no gradient pass them; explain a "
        "copy that is made outside of it, copy.deepcopy(model), or use a perturbation method, which needs no gradient"
    ),
    "torch.utils.checkpoint is incompatible with .grad()": (
        "model: it runs parts again in the backward pass by torch.utils.checkpoint(..., use_reentrant=True), which torch lets "
        "nobody differentiate by the inputs; pass use_reentrant=False, or switch it off to explain the model"
    ),
    "torch.utils.checkpoint: ": (
        "model: it runs parts again in the backward pass (torch.utils.checkpoint), where nothing can be read or changed; switch "
        "that off to explain it, as by model.gradient_checkpointing_disable() or model.set_grad_checkpointing(False)"
    ),
    "access the data pointer on an invalid python storage": (
        "model: its parameters are spread over processes as distributed tensors (tensor parallel), whose operations cannot be "
        "given rules; use a method without rules, such as IntegratedGradients or KernelSHAP, or the model in one piece"
    ),
    "has been modified by an inplace operation": (
        "model: an operation works in place on what another one keeps for the gradient, so that torch cannot differentiate it; "
        "give the one inplace=False, as nn.ReLU(inplace=False), or use a perturbation method, which needs no gradient"
    ),
}


def hint_about_rows(error: Exception, call: Callable[..., Output], given: Sequence[Tensor]) -> str:
    """Return what is wrong with inputs that a model does not take, if it takes them as one row, or as the rows of one tensor.

    The model is asked where they may be a picture, or its error is of the number of arguments.
    """
    shapes = ", ".join(str(tuple(t.shape)) for t in given)
    if any(t.dim() == PICTURE_DIMENSIONS for t in given) and _takes(call, [t[None] for t in given]):
        return f". Mind: inputs: of shape {shapes}; the first dimension must be the rows: give inputs[None] for a single one"
    are_alike = len(given) > 1 and len({t.shape for t in given}) == 1
    if are_alike and isinstance(error, TypeError) and _takes(call, [torch.stack(list(given))]):
        return f". Mind: inputs: {len(given)} tensors are as many inputs of the model; for rows of one, give torch.stack(inputs)"
    return ""


def hint_about_fixed_rows(
    call: Callable[..., Output], given: Sequence[Tensor], names: Sequence[str] | None, m: int
) -> str:
    """Return what is wrong with a model that runs on another number of rows, and not on m of them.

    The caller's rows are tried, repeated where they are fewer.

    Args:
        call: the model.
        given: the inputs ``(N, ...)``.
        names: what they are called, where they are given by name.
        m: the rows of the call that failed.
    """

    def runs_on(k: int) -> bool:
        return _takes(call, [t[torch.arange(k, device=t.device) % len(t)] for t in given], names)

    if runs_on(m):
        return ""
    fixed = next((k for k in dict.fromkeys((1, len(given[0]), *ROWS_OFTEN_FIXED)) if k != m and runs_on(k)), None)
    if fixed is None:
        return ""
    rows = "one row" if fixed == 1 else f"{fixed} rows"
    return (
        f". Mind: the model runs on {rows} and not on {m}, so its number of rows is fixed, and a method asks about any number: "
        "export it with a dynamic first dimension (dynamic_shapes of torch.export, dynamic_axes of ONNX), and in a module write "
        + ("x.view(len(x), -1), or give batch_size=1" if fixed == 1 else f"x.view(len(x), -1) for x.view({fixed}, -1)")
    )


def _takes(call: Callable[..., Output], tensors: Sequence[Tensor], names: Sequence[str] | None = None) -> bool:
    """Say whether a model runs on these tensors, without a trace of the random numbers that it draws."""
    try:
        with torch.no_grad(), torch.random.fork_rng():
            call(*tensors) if names is None else call(**dict(zip(names, tensors)))
    except Exception:
        return False
    return True


def raise_in_words(error: Exception, hint: str = "") -> NoReturn:
    """Raise an error of torch, in words that say what it means, where there are some.

    Args:
        error: what torch raised.
        hint: what may be wrong where its meaning is not known.

    Raises:
        ValueError: the meaning; the error itself, or one of another library or an assertion, with the hint behind it.
        RuntimeError, TypeError: the error itself where it says so itself, with the hint behind it.
    """
    text = str(error).rstrip(". \n") if hint else str(error)
    meaning = next((words for known, words in MEANINGS.items() if known in text), None)
    if meaning is None and hint and type(error) in (RuntimeError, ValueError, TypeError):
        raise type(error)(text + hint) from error
    if meaning is None and hint:
        raise ValueError(f"model: {type(error).__name__}: {text}{hint}") from error
    if meaning is None:
        raise error
    raise ValueError(meaning) from error
