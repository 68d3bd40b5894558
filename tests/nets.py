"""Small random networks with the habits of real ones: functional and in-place calls, reuse, skips, odd outputs."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F


class Conv(nn.Module):
    """Images (N, 3, 8, 8) → (N, 4): a module ReLU used twice, an in-place functional one, a skip connection."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.relu, self.head = nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Linear(6, 4)

    def forward(self, x):
        a = self.relu(self.conv1(x))
        b = self.norm(self.conv2(a))
        return self.head(F.relu(b + a, inplace=True).mean((2, 3)))


class Smooth(nn.Module):
    """Rows (N, 5) → (N, 3), smooth and bounded."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(5, 7), nn.Linear(7, 3)

    def forward(self, x, scale=None):
        h = torch.tanh(self.first(x))
        return self.last(h if scale is None else h * scale)


class Two(nn.Module):
    """Two inputs (N, 5) and (N, 2, 3) → (N, 3)."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 3), nn.Linear(6, 3)

    def forward(self, left, right):
        return torch.tanh(self.a(left)) * torch.sigmoid(self.b(right.flatten(1)))


class Tokens(nn.Module):
    """Token ids (N, T) → an object with .logits (N, 2), as transformers give."""

    def __init__(self):
        super().__init__()
        self.embeddings, self.head = nn.Embedding(11, 6), nn.Linear(6, 2)

    def forward(self, input_ids, attention_mask=None):
        e = torch.tanh(self.embeddings(input_ids))
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        e = e * mask[..., None]
        return SimpleNamespace(logits=self.head(e.sum(1) / mask.sum(1, keepdim=True)), hidden=e)


class Attending(nn.Module):
    """Images (N, 3, 8, 8) → (N, 4): a class token and 16 patches, attention once fused and once by hand."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 2, stride=2), nn.Conv2d(6, 6, 1)
        self.first, self.norm = nn.Parameter(torch.randn(1, 1, 6)), nn.LayerNorm(6)
        self.qkv, self.head = nn.ModuleList([nn.Linear(6, 18), nn.Linear(6, 18)]), nn.Linear(6, 4)
        self.out = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])

    def forward(self, x):
        patches = self.conv2(F.gelu(self.conv1(x))).flatten(2).transpose(1, 2)
        y = self.norm(torch.cat([self.first.expand(len(x), -1, -1), patches], 1))
        q, k, v = self.qkv[0](y).unflatten(2, (3, 2, 3)).permute(2, 0, 3, 1, 4)
        y = y + self.out[0](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        q, k, v = self.qkv[1](y).unflatten(2, (3, 2, 3)).permute(2, 0, 3, 1, 4)
        return self.head((y + self.out[1]((F.softmax(q @ k.mT, -1) @ v).transpose(1, 2).flatten(2)))[:, 0])


class Twice(nn.Module):
    """One layer that runs twice, and one that gives a tuple: (N, 5) → (N, 5)."""

    def __init__(self):
        super().__init__()
        self.step, self.gru, self.head = nn.Linear(5, 5), nn.GRU(5, 4, batch_first=True), nn.Linear(4, 5)

    def forward(self, x):
        h = torch.tanh(self.step(torch.tanh(self.step(x))))
        out, _ = self.gru(h[:, None])
        return self.head(out[:, -1])


def make(kind, dtype=torch.double, seed=0):
    """A network in eval mode, its batch norm with statistics that matter."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # faster than torch.manual_seed, which seeds GPUs too
        net = {
            "linear": lambda: nn.Linear(5, 3),
            "conv": Conv,
            "smooth": Smooth,
            "two": Two,
            "tokens": Tokens,
            "attending": Attending,
            "twice": Twice,
        }[kind]()
        for m in net.modules():
            if isinstance(m, nn.BatchNorm2d):
                nn.init.normal_(m.running_mean)
                nn.init.uniform_(m.running_var, 0.5, 2)
                nn.init.normal_(m.weight)
    return net.to(dtype).eval()


def inputs(kind, n=3, dtype=torch.double, seed=1):
    """n rows for that network."""
    g = torch.Generator().manual_seed(seed)
    shape = {"conv": (3, 8, 8), "attending": (3, 8, 8)}.get(kind, (5,))
    if kind == "tokens":
        return torch.randint(11, (n, 4), generator=g)
    x = torch.randn(n, *shape, generator=g, dtype=torch.double).to(dtype)
    return (x, torch.randn(n, 2, 3, generator=g, dtype=torch.double).to(dtype)) if kind == "two" else x


def tiny_bert(**options):
    """A BERT of 50 words and 3 classes, in eval mode; ``options`` are those of its configuration."""
    transformers = pytest.importorskip("transformers")
    size = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    words = {"vocab_size": 50, "max_position_embeddings": 20, "num_labels": 3, "initializer_range": 0.5}
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(transformers.BertConfig(**size | words | options)).eval()


def of_table():
    """A classifier of 3 classes, of rows of 4 columns."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double().eval()


def rows_of_table(n=60, d=4, seed=0):
    """Rows ``(n, d)``."""
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
