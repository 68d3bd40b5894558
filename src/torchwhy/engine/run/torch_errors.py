"""Errors of torch that say nothing to somebody who explains a model, in words that say what would do."""

from __future__ import annotations

from typing import NoReturn

_UNDER_INFERENCE = (
    "model: its parameters or buffers were made under torch.inference_mode, or it runs under it, and torch lets no gradient pass "
    "them; explain a copy that is made outside of it, copy.deepcopy(model), or use a perturbation method, which needs no gradient"
)
_CHECKPOINTED = (
    "model: it runs parts again in the backward pass (torch.utils.checkpoint), where nothing can be read or changed; switch that "
    "off to explain it, as by model.gradient_checkpointing_disable() or model.set_grad_checkpointing(False)"
)
MEANINGS = {
    "Inference tensors cannot be saved for backward": _UNDER_INFERENCE,
    "Inference tensors do not track version counter": _UNDER_INFERENCE,
    "requires_grad=True on inference tensor": _UNDER_INFERENCE,
    "torch.utils.checkpoint is incompatible with .grad()": (
        "model: it runs parts again in the backward pass by torch.utils.checkpoint(..., use_reentrant=True), which torch lets "
        "nobody differentiate by the inputs; pass use_reentrant=False, or switch it off to explain the model"
    ),
    "torch.utils.checkpoint: ": _CHECKPOINTED,
    "has been modified by an inplace operation": (
        "model: an operation works in place on what another one keeps for the gradient, so that torch cannot differentiate it; "
        "give the one inplace=False, as nn.ReLU(inplace=False), or use a perturbation method, which needs no gradient"
    ),
}


def raise_in_words(error: RuntimeError) -> NoReturn:
    """Raise an error of torch, in words that say what it means, where there are some.

    Raises:
        ValueError: the meaning; the error itself where it says so itself.
    """
    text = str(error)
    meaning = next((words for known, words in MEANINGS.items() if known in text), None)
    if meaning is None:
        raise error
    raise ValueError(meaning) from error
