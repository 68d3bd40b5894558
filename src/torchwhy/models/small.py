"""Two small trained networks, a CNN and a ViT, that name the shape painted on a photo (see :mod:`.shapes`).

Their weights come with the package, so that tests, benchmarks and an offline demo have real networks of known
accuracy. ``examples/train_shapes.py`` made them. Images go in as they are, with values in [0, 1].
"""

from __future__ import annotations

from importlib.resources import as_file, files
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchwhy.models.shapes import SHAPES

__all__ = ["ShapesResNet", "ShapesViT", "shapes_resnet", "shapes_vit"]

Trained = TypeVar("Trained", bound=nn.Module)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a way around them: relu(bn(conv(relu(bn(conv(x))))) + shortcut(x))."""

    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        """Turn ``(N, c_in, H, W)`` into ``(N, c_out, H / stride, W / stride)``."""
        y = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(y)) + self.shortcut(x))


class ShapesResNet(nn.Module):
    """A ResNet of three BasicBlocks (16, 32, 64 channels), 78 thousand parameters.

    Images ``(N, 3, H, W)`` in [0, 1] become scores ``(N, classes)``. At 64 x 64 the last maps, of ``layer3``, are 8 x 8.

    >>> ShapesResNet()(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 6])
    """

    def __init__(self, classes: int = len(SHAPES)):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = BasicBlock(16, 16, stride=1)
        self.layer2 = BasicBlock(16, 32, stride=2)
        self.layer3 = BasicBlock(32, 64, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the score of each class."""
        y = self.layer1(self.relu(self.bn(self.conv(x))))
        return self.head(self.pool(self.layer3(self.layer2(y))).flatten(1))


class Attention(nn.Module):
    """Multi-head self-attention with torch's fused kernel."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Turn tokens ``(N, T, width)`` into tokens ``(N, T, width)``."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Turn tokens ``(N, T, width)`` into tokens ``(N, T, width)``."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ShapesViT(nn.Module):
    """A vision transformer: a convolutional stem, 64 patch tokens and a class token, 3 blocks, 129 thousand parameters.

    Images ``(N, 3, 64, 64)`` in [0, 1] become scores ``(N, classes)``. Tokens are ``(N, 65, 64)``, the class token first,
    then the 8 x 8 grid row by row.

    >>> ShapesViT()(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 6])
    """

    def __init__(self, classes: int = len(SHAPES), width: int = 64, heads: int = 4, depth: int = 3):
        super().__init__()
        channels = (3, 16, 32, width)
        self.stem = nn.Sequential()
        for c_in, c_out in pairwise(channels):
            self.stem.extend([nn.Conv2d(c_in, c_out, 3, 2, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()])
        self.cls_token = nn.Parameter(nn.init.normal_(torch.empty(1, 1, width), std=0.02))
        self.pos_embed = nn.Parameter(nn.init.normal_(torch.empty(1, 65, width), std=0.02))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the score of each class."""
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(tokens))[:, 0])


def shapes_resnet() -> ShapesResNet:
    """Return the trained :class:`ShapesResNet`, in evaluation mode."""
    return _trained(ShapesResNet, "shapes-resnet")


def shapes_vit() -> ShapesViT:
    """Return the trained :class:`ShapesViT`, in evaluation mode."""
    return _trained(ShapesViT, "shapes-vit")


def _trained(architecture: type[Trained], name: str) -> Trained:
    from safetensors.torch import load_file

    with torch.device("meta"):  # no numbers are drawn for weights that the file replaces
        model = architecture()
    with as_file(files(__package__) / "weights" / f"{name}.safetensors") as path:
        model.load_state_dict(load_file(path), assign=True)
    return model.eval()
