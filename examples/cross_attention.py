"""Two sequences: who looks at whom in a diffusion model and in a speech model, and the Grad-CAM of a picture and its caption.

python examples/cross_attention.py [--out DIRECTORY]

The small CLIP is trained here in some seconds, on pictures of shapes and their captions. The denoiser (of diffusers, where it is
installed) and the Whisper have random weights, which shows the mechanics only: with trained ones the calls are the same.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import torchwhy as tw
from torchwhy.models import SHAPES, TEXTURES, shapes, shapes_resnet
from torchwhy.visualize import grid

PROMPT = ["a", "cat", "on", "a", "red", "chair"]
STEPS = 4  # of the denoising


# ------------------------------------------------------------------------------------------------ diffusion
class SmallUNet(nn.Module):
    """Cells of a latent picture look at the words of a prompt, at two sizes; called as those of diffusers are."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.into, self.down = nn.Conv2d(4, width, 3, padding=1), nn.Conv2d(width, width, 2, 2)
        self.look = nn.ModuleList(nn.MultiheadAttention(width, heads, batch_first=True) for _ in range(3))
        self.up, self.out = nn.ConvTranspose2d(width, width, 2, 2), nn.Conv2d(width, 4, 3, padding=1)

    def _attend(self, k: int, x: Tensor, words: Tensor) -> Tensor:
        cells = x.flatten(2).mT
        return x + self.look[k](cells, words, words)[0].mT.unflatten(2, x.shape[2:])

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        """Return the noise in a latent picture (N, 4, H, W)."""
        x = self._attend(0, self.into(sample) + timestep / 1000, encoder_hidden_states)
        y = self._attend(1, self.down(x).relu(), encoder_hidden_states)
        return self.out(self._attend(2, x + self.up(y), encoder_hidden_states))


def denoiser() -> nn.Module:
    """Return a small UNet of random weights."""
    torch.manual_seed(0)
    try:
        from diffusers import UNet2DConditionModel
    except ImportError:
        return SmallUNet().eval()
    blocks = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    sizes = {"sample_size": 32, "block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8}
    return UNet2DConditionModel(cross_attention_dim=32, attention_head_dim=4, **sizes, **blocks).eval()


def diffusion(out: Path) -> None:
    """DAAM: who looks at a word, the mean over the layers, their sizes and the steps of the denoising."""
    unet, words = denoiser(), torch.randn(1, len(PROMPT), 32, generator=torch.Generator().manual_seed(1))
    named = {"cat": PROMPT.index("cat"), "red": PROMPT.index("red"), "chair": PROMPT.index("chair")}
    noise = lambda out: getattr(out, "sample", out).square().sum((1, 2, 3))  # noqa: E731, the matrices know no target
    z, maps = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(2)), dict.fromkeys(named, 0.0)
    for t in torch.linspace(999, 0, STEPS).round().long():
        given = {"timestep": t, "encoder_hidden_states": words}
        for word, k in named.items():
            looks = tw.RawAttention(unet, layers="cross", key=k)
            maps[word] += looks.attribute({"sample": z}, noise, additional_forward_args=given) / STEPS
        with torch.no_grad():
            found = unet(z, **given)
        z = z - getattr(found, "sample", found) / STEPS
    print(f"{type(unet).__name__}: maps of {', '.join(maps)}, {tuple(maps['cat'].shape)}; mechanics only")
    shown = (z[:, :3] - z.amin()) / (z.amax() - z.amin())
    names = {f'"{word}", random weights': values - values.amin() for word, values in maps.items()}
    grid(names, images=shown, shared_scale=False).savefig(out / "daam.png")


# --------------------------------------------------------------------------------------------------- speech
def speech(out: Path) -> None:
    """Which part of a sound each word of a Whisper looks at."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    torch.manual_seed(0)
    sides = ("encoder", "decoder")
    sizes = {
        f"{side}_{what}": n for side in sides for what, n in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 64))
    }
    ids = {"bos_token_id": 1, "pad_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 1}
    lengths = {"max_source_positions": 100, "max_target_positions": 16, "num_mel_bins": 40}
    config = WhisperConfig(vocab_size=50, d_model=32, init_std=0.3, **lengths, **sizes, **ids)
    whisper = WhisperForConditionalGeneration(config).eval()

    seconds = torch.arange(32000) / 16000
    sound = torch.sin(2 * torch.pi * (300 + 900 * (seconds > 1)) * seconds) * (seconds % 1 < 0.7)  # two tones
    extract = WhisperFeatureExtractor(feature_size=40, chunk_length=2)
    mel = extract(sound.numpy(), sampling_rate=16000, return_tensors="pt").input_features
    given = {"decoder_input_ids": torch.tensor([[1, 7, 9, 12, 5]])}
    rows = [
        tw.RawAttention(whisper, layers="cross", token=k).attribute(
            {"input_features": mel}, additional_forward_args=given
        )
        for k in range(5)
    ]
    looks = torch.cat(rows)  # (words, parts of the sound)
    print(
        f"WhisperForConditionalGeneration: {looks.shape[0]} words × {looks.shape[1]} parts of a sound; mechanics only"
    )
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.imshow(mel[0], aspect="auto", origin="lower", extent=(0, 2, 0, 40), cmap="magma")
    above.set(ylabel="mel", title="random weights: mechanics only")
    below.imshow(looks, aspect="auto", extent=(0, 2, 4.5, -0.5), cmap="viridis")
    below.set(xlabel="seconds", ylabel="word")
    figure.savefig(out / "whisper.png")


# -------------------------------------------------------------------------------------- pictures and captions
class SmallClip(nn.Module):
    """Logits of each picture for each caption."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = shapes_resnet()
        self.picture, self.word = nn.Linear(64, 24), nn.Embedding(1 + len(TEXTURES) + len(SHAPES), 24)

    def features(self, x: Tensor) -> Tensor:
        """Return the features (N, 64) of pictures."""
        y = self.trunk.layer1(self.trunk.relu(self.trunk.bn(self.trunk.conv(x))))
        return self.trunk.layer3(self.trunk.layer2(y)).mean((2, 3))

    def alike(self, features: Tensor, captions: Tensor) -> Tensor:
        """Return how well each picture goes with each caption, (N, captions)."""
        pictures = nn.functional.normalize(self.picture(features), dim=1)
        return 10 * pictures @ nn.functional.normalize(self.word(captions).sum(1), dim=1).T

    def forward(self, x: Tensor, captions: Tensor) -> Tensor:
        """Return how well each picture goes with each caption, (N, captions)."""
        return self.alike(self.features(x), captions)


def captions_of(shape: Tensor, texture: Tensor) -> Tensor:
    """Return the ids (N, 3) of captions such as "a striped star"."""
    return torch.stack([torch.zeros_like(shape), 1 + texture, 1 + len(TEXTURES) + shape], 1)


def train_clip() -> SmallClip:
    """Return a small CLIP trained on 900 pictures and their captions."""
    torch.manual_seed(0)
    clip, pool = SmallClip().eval(), shapes(900, seed=11)
    with torch.no_grad():
        known = torch.cat([clip.features(part) for part in pool.images.split(150)])
    ids = captions_of(pool.shape, pool.texture)
    optimizer = torch.optim.Adam([*clip.picture.parameters(), *clip.word.parameters()], 0.02)
    for step in range(300):
        rows = torch.randperm(900, generator=torch.Generator().manual_seed(step))[:64]
        different, label = ids[rows].unique(dim=0, return_inverse=True)
        loss = nn.functional.cross_entropy(clip.alike(known[rows], different), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return clip


def captions(out: Path) -> None:
    """Grad-CAM of a pair: where in a picture of two objects is what each caption says?"""
    clip, data = train_clip(), shapes(400, seed=3)
    plain = (data.texture == TEXTURES.index("plain")).nonzero()[:, 0]
    first = {int(data.shape[i]): int(i) for i in reversed(plain.tolist())}
    left, right = first[SHAPES.index("star")], first[SHAPES.index("ring")]
    x = torch.cat([data.images[left], data.images[right]], 2)[None]  # side by side, (1, 3, 64, 128)
    both = torch.tensor([left, right])
    more = tw.Shared(captions_of(data.shape[both], data.texture[both]))
    maps = {}
    for k, i in enumerate(both.tolist()):
        name = f'"a {TEXTURES[int(data.texture[i])]} {SHAPES[int(data.shape[i])]}"'
        e = tw.GradCAM(clip).explain(x, tw.targets.Contrast(k, 1 - k), additional_forward_args=more)
        inside = e.attributions[..., 64 * k : 64 * k + 64].sum() / e.attributions.sum()
        print(f"{name}, at {e.details['layer']}: {inside:.0%} of the map lies on its half")
        maps[name] = e
    grid(maps, images=x).savefig(out / "clip-grad-cam.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=".", type=Path)
    out = parser.parse_args().out
    diffusion(out)
    speech(out)
    captions(out)


if __name__ == "__main__":
    main()
