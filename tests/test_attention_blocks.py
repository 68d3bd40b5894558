"""Attention as decoders have it: queries that see no key, and blocks that run their MLP beside the attention."""

import math

import pytest
import torch
import torch.nn.functional as F
from test_attention import HEADS, WIDTH, Hand, rows, slow_alti
from torch import nn

import torchwhy as tw
from torchwhy.attribution import prepare_for

PADDING = 2


class Decoder(nn.Module):
    """Rows (N, T, WIDTH) and which of their tokens are none of the padding's (N, T) → (N, 3), from the last token."""

    def __init__(self, way="bool"):
        super().__init__()
        self.way, self.qkv = way, nn.ModuleList(nn.Linear(WIDTH, 3 * WIDTH) for _ in range(2))
        self.out, self.head = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2)), nn.Linear(WIDTH, 3)

    def forward(self, x, real):
        n, t, _ = x.shape
        mask = real[:, None, None] & torch.ones(t, t, dtype=torch.bool).tril()
        bias = torch.zeros(mask.shape, dtype=x.dtype).masked_fill(~mask, -math.inf)
        for qkv, out in zip(self.qkv, self.out):
            q, k, v = qkv(x).view(n, t, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
            if self.way == "hand":
                y = (q @ k.mT / (WIDTH // HEADS) ** 0.5 + bias).softmax(-1).nan_to_num(0) @ v
            else:
                y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask if self.way == "bool" else bias)
            x = x + out(y.transpose(1, 2).reshape(n, t, WIDTH))
        return self.head(torch.tanh(x[:, -1]))


ATTENTION = (tw.RawAttention, tw.AttentionRollout, tw.AttentionFlow, tw.ALTI)


@pytest.mark.parametrize(
    "way, method",
    [
        *((way, m) for way in ("bool", "float") for m in (*ATTENTION, tw.AttentionRelevance, tw.LRP, tw.DeepLIFT)),
        *(("hand", m) for m in ATTENTION),
    ],
)
def test_padding_on_the_left_changes_nothing(way, method):
    torch.manual_seed(0)
    net, x = Decoder(way).double().eval(), rows()
    real = (torch.arange(x.shape[1]) >= PADDING).expand(3, -1)
    found = method(net).attribute(x, [0, 2, 1], additional_forward_args=real)
    expected = method(net).attribute(x[:, PADDING:], [0, 2, 1], additional_forward_args=real[:, PADDING:])
    torch.testing.assert_close(found[:, PADDING:], expected)
    assert found[:, :PADDING].abs().max() < 1e-12


def test_relevance_is_batched_as_what_keeps_a_graph():
    for method, graph in ((tw.AttentionRelevance, True), (tw.AttentionRollout, False)):
        assert prepare_for(method(Hand().eval()), rows().float(), 0).batching.graph is graph


class Parallel(Hand):
    """One layer of attention with an MLP beside it, added up in one order or another."""

    def __init__(self, order):
        super().__init__(("plain",))
        self.order, self.mlp = order, nn.Sequential(nn.Linear(WIDTH, 16), nn.GELU(), nn.Linear(16, WIDTH))

    def forward(self, x):
        x = 1 * x
        a, m = self.out[0](self.attend("plain", self.qkv[0], x)), self.mlp(x)
        return self.head(torch.tanh(self.order(x, a, m)[:, 0]))


ORDERS = {
    "x + a + m": lambda x, a, m: x + a + m,
    "a + m + x": lambda x, a, m: a + m + x,
    "m + a + x": lambda x, a, m: m + a + x,
    "x + (m += a)": lambda x, a, m: x + m.add_(a),
    "x += a + m": lambda x, a, m: x.add_(a + m),
    "x += a": lambda x, a, m: x.add_(a),
}


@pytest.mark.parametrize("order", ORDERS)
def test_alti_leaves_out_an_mlp_beside_the_attention(order):
    torch.manual_seed(0)
    net, plain, x = Parallel(ORDERS[order]).double().eval(), Hand(("plain",)).double().eval(), rows()
    plain.load_state_dict(net.state_dict(), strict=False)
    found = tw.ALTI(net, token=2).attribute(x)
    torch.testing.assert_close(found, torch.stack([slow_alti(plain, row)[2] for row in x]))


@pytest.mark.parametrize(
    "order, message",
    [
        (lambda x, a, m: a + m, "was not seen"),
        (lambda x, a, m: a + m + m, "was not seen"),
        (lambda x, a, m: (a + m) * 0.5 + x, "scaled or changed"),
        (lambda x, a, m: 1e4 * x + a, "was not seen"),  # what it is added to is made after the attention
        (lambda x, a, m: x + a * 0.9, "scaled or changed"),
        (lambda x, a, m: torch.add(x, a, alpha=0.9), "was not seen"),
    ],
)
@pytest.mark.parametrize("scale", [1, 1e4])
def test_alti_refuses_what_it_cannot_share_out(order, message, scale):
    torch.manual_seed(0)
    net = Parallel(order).double().eval()
    with torch.no_grad():
        net.qkv[0].weight /= scale  # rows that are large beside what is added to them
    with pytest.raises(ValueError, match=message):
        tw.ALTI(net).attribute(scale * rows())
