"""Errors of torch that say nothing to somebody who explains a model, in words that say what would do."""

from __future__ import annotations

UNDER_INFERENCE_MODE = (
    "model: its forward runs under torch.inference_mode(), where nothing can be differentiated or watched; take that away, and "
    "switch gradients off where the model is called, or use a perturbation method of the inputs"
)
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
}


def meaning_of(error: RuntimeError) -> str | None:
    """Return what an error of torch means, None where it says so itself."""
    text = str(error)
    return next((words for known, words in MEANINGS.items() if known in text), None)
