"""Errors of torch that say nothing to somebody who explains a model, in words that say what would do."""

from __future__ import annotations

MEANINGS = {
    "Inference tensors cannot be saved for backward": (
        "model: its parameters or buffers were made under torch.inference_mode, and torch lets no gradient pass them; explain a "
        "copy that is made outside of it, copy.deepcopy(model), or use a perturbation method, which needs no gradient"
    ),
}


def meaning_of(error: RuntimeError) -> str | None:
    """Return what an error of torch means, None where it says so itself."""
    text = str(error)
    return next((words for known, words in MEANINGS.items() if known in text), None)
