"""Which tokens speak for an answer: integrated gradients through the embeddings. python examples/text.py

A BERT with random weights, so that nothing is downloaded: mechanics only. Put your own model and tokenizer in its place.
"""

import torch
from transformers import BertConfig, BertForSequenceClassification

import torchwhy as tw
from torchwhy.visualize import colored_text


def main() -> None:
    torch.manual_seed(0)
    words = ["[CLS]", "the", "film", "was", "surprising", "##ly", "good", "[SEP]", "[PAD]", "[MASK]"]
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(words), initializer_range=0.3, **sizes)
    model = BertForSequenceClassification(config).eval()
    ids = torch.arange(8)[None]
    blank = torch.tensor([[0, 9, 9, 9, 9, 9, 9, 7]])
    e = tw.IntegratedGradients(model, layer="embeddings").explain({"input_ids": ids}, "predicted", baselines=blank)
    scores = e.attributions.sum(-1)[0]
    for word, score, attention in zip(words, scores, tw.AttentionRollout(model).attribute(ids)[0]):
        print(f"{word:>12} {score:+.4f}   attention {attention:.3f}")
    print(f"sum {scores.sum():+.4f}, off by {float(e.completeness_gap):.1e}")
    with open("text.html", "w") as file:
        file.write(colored_text(words[:8], scores.numpy()))


if __name__ == "__main__":
    main()
