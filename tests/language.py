"""Tiny language models of every kind, made from configurations, and a small tokenizer of words."""

import re

import pytest
import torch

SPECIAL = {"unk": 0, "bos": 1, "pad": 2, "eos": 3, "mask": 4}
TEXT = (
    "Dave lives in Palm Coast and is a lawyer playing golf cooking film of great charm dull no end Anna Tom Berlin Madrid . ! ? "
    "Be brief Where does live user system assistant : not bad at all"
)
VOCABULARY = {
    **{f"<{name}>": i for name, i in SPECIAL.items()},
    **{w: 5 + i for i, w in enumerate(dict.fromkeys(TEXT.split()))},
}


class WordTokenizer:
    """Words and marks, after ``<bos>``; what a sample uses of a tokenizer, and nothing else."""

    unk_token_id, bos_token_id, pad_token_id, eos_token_id, mask_token_id = 0, 1, 2, 3, 4
    all_special_ids = (0, 1, 2, 3, 4)

    def __init__(self, *, ends=False, offsets=True):
        self.ends, self.offsets = ends, offsets

    def __call__(self, text, pair=None, *, return_offsets_mapping=False, add_special_tokens=True):
        if return_offsets_mapping and not self.offsets:
            raise NotImplementedError("a slow tokenizer")
        ids, spans, types = [], [], []
        if add_special_tokens:
            ids, spans, types = [self.bos_token_id], [(0, 0)], [0]
        for k, part in enumerate([text] if pair is None else [text, pair]):
            for m in re.finditer(r"<\w+>|\w+|[^\w\s]", part):
                ids.append(VOCABULARY.get(m.group(), self.unk_token_id))
                spans.append(m.span())
                types.append(k)
            if self.ends and add_special_tokens:
                ids.append(self.eos_token_id)
                spans.append((0, 0))
                types.append(k)
        made = {"input_ids": ids, "attention_mask": [1] * len(ids)}
        if self.ends:
            made["token_type_ids"] = types
        if return_offsets_mapping:
            made["offset_mapping"] = spans
        return made

    def decode(self, ids, **_):
        names = {i: w for w, i in VOCABULARY.items()}
        return " ".join(names[int(i)] for i in ids)

    def apply_chat_template(self, messages, *, tokenize=False, add_generation_prompt=True):
        assert not tokenize
        text = "".join(f"<bos> {m['role']} : {m['content'].strip()} <eos> " for m in messages)
        return text + ("<bos> assistant :" if add_generation_prompt else "")


def ids_of(text, *, special=True, ends=False):
    """The ids of a text, as ``(1, L)``."""
    return torch.tensor([WordTokenizer(ends=ends)(text, add_special_tokens=special)["input_ids"]])


def make(kind, seed=0):
    """A tiny model with random weights."""
    transformers = pytest.importorskip("transformers")
    size, head = len(VOCABULARY), {"bos_token_id": 1, "pad_token_id": 2, "eos_token_id": 3}
    wide = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32}
    torch.manual_seed(seed)
    if kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=size, n_embd=24, n_layer=2, n_head=3, n_positions=64, **head)
        model = transformers.GPT2LMHeadModel(spread(config))
    elif kind in ("llama", "qwen2"):
        name = {"llama": "Llama", "qwen2": "Qwen2"}[kind]
        config = getattr(transformers, f"{name}Config")(vocab_size=size, num_key_value_heads=3, **wide, **head)
        model = getattr(transformers, f"{name}ForCausalLM")(spread(config))
    elif kind == "roberta":  # positions begin behind the number of the padding, which it counts by itself
        config = transformers.RobertaConfig(
            vocab_size=size, is_decoder=True, max_position_embeddings=64, **wide, **head
        )
        model = transformers.RobertaForCausalLM(spread(config))
    elif kind == "t5":
        sizes = {"d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 3}
        config = transformers.T5Config(vocab_size=size, **sizes, decoder_start_token_id=2, **head)
        model = transformers.T5ForConditionalGeneration(config)
    elif kind == "bart":
        sizes = {"d_model": 24, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
        sizes |= {"encoder_attention_heads": 3, "decoder_attention_heads": 3, "max_position_embeddings": 64}
        config = transformers.BartConfig(vocab_size=size, decoder_start_token_id=3, init_std=0.3, **sizes, **head)
        config.forced_eos_token_id = None
        model = transformers.BartForConditionalGeneration(config)
        model.generation_config.forced_eos_token_id = None
    else:
        config = transformers.BertConfig(vocab_size=size, num_labels=3, pad_token_id=2, **wide)
        model = transformers.BertForSequenceClassification(spread(config))
    return model.eval()


def spread(config):
    """A configuration whose weights are large enough for scores to differ."""
    config.initializer_range = 0.3
    return config
