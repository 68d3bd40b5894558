"""Attention methods: the matrices are the model's, the methods those of the slow references."""

import pytest
import torch
import torch.nn.functional as F
from nets import tiny_bert
from reference import attention as reference
from torch import nn
from torchvision.models import SwinTransformer, VisionTransformer

import torchwhy as tw
from torchwhy.attention.capture import AttentionCapture
from torchwhy.attention.selection import by_head
from torchwhy.models import shapes, shapes_vit

TOKENS, HEADS, WIDTH = 6, 2, 8


class Hand(nn.Module):
    """Three layers of attention over rows (N, T, WIDTH), each written in another way; keeps its matrices if asked."""

    def __init__(self, ways=("matmul", "fused", "module"), keep=None):
        super().__init__()
        self.ways, self.keep = ways, keep
        self.qkv = nn.ModuleList(nn.Linear(WIDTH, 3 * WIDTH) for _ in ways)
        self.out = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in ways)
        self.head, self.drop = nn.Linear(WIDTH, 3), nn.Dropout(0.1)

    def forward(self, x):
        for way, qkv, out in zip(self.ways, self.qkv, self.out):
            x = x + out(self.attend(way, qkv, x))
        return self.head(torch.tanh(x[:, 0]))

    def attend(self, way, qkv, x):
        n, t, _ = x.shape
        q, k, v = qkv(x).view(n, t, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        if way == "fused":
            return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, WIDTH)
        scores = q @ k.transpose(-2, -1) / (WIDTH // HEADS) ** 0.5
        if way == "einsum":
            a = self.drop(scores.softmax(-1))
            return torch.einsum("nhts,nhsd->nthd", a, v).reshape(n, t, WIDTH)
        if way == "bmm":
            a = torch.softmax(scores.float(), dim=3).type_as(scores).view(n * HEADS, t, t)
            return torch.bmm(a, v.reshape(n * HEADS, t, -1)).view(n, HEADS, t, -1).transpose(1, 2).reshape(n, t, WIDTH)
        a = F.softmax(scores, dim=-1)
        if self.keep is not None:
            self.keep.append(a)
        return (self.drop(a) @ v).transpose(1, 2).flatten(2)


def hand(ways, dtype=torch.double, seed=0):
    torch.manual_seed(seed)
    net = Hand(ways).to(dtype).eval()
    with torch.no_grad():
        for p in net.qkv.parameters():
            p.mul_(3)
    return net


def kept(net, x, target=None):
    """The matrices (layers, heads, T, T) of one row by a run of the same weights written out, and their gradients."""
    plain = Hand(("plain",) * len(net.ways), keep=[]).to(x.dtype).eval()
    plain.load_state_dict(net.state_dict())
    out = plain(x[None])
    gradients = [] if target is None else torch.autograd.grad(out[0, target], plain.keep)
    return [a[0].detach() for a in plain.keep], [g[0] for g in gradients]


def rows(n=3, t=TOKENS, seed=0):
    return torch.randn(n, t, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


WAYS = [("plain", "plain", "plain"), ("fused", "plain", "einsum"), ("bmm", "fused", "fused")]


@pytest.mark.parametrize("ways", WAYS, ids="-".join)
@pytest.mark.parametrize("batch_size", [None, 2])
def test_methods_equal_the_slow_references(ways, batch_size):
    net, x = hand(ways), rows()
    for options in ({}, {"head_fusion": "max"}, {"head_fusion": "min"}, {"discard_ratio": 0.4}):
        got = tw.AttentionRollout(net, batch_size=batch_size, **options).attribute(x)
        for i in range(3):
            assert torch.allclose(got[i], reference.rollout(kept(net, x[i])[0], **options)[0], atol=1e-6)
    flow = tw.AttentionFlow(net, batch_size=batch_size).attribute(x)
    relevance = tw.AttentionRelevance(net, batch_size=batch_size).attribute(x, [0, 2, 1])
    raw = tw.RawAttention(net, batch_size=batch_size, head_fusion="max").attribute(x)
    for i, target in enumerate([0, 2, 1]):
        matrices, gradients = kept(net, x[i], target)
        assert torch.allclose(flow[i], reference.flow(matrices)[0], atol=1e-6)
        expected = reference.relevance(matrices, gradients) - torch.eye(TOKENS)
        assert torch.allclose(relevance[i], expected[0], atol=1e-6)
        assert torch.allclose(raw[i], matrices[-1].amax(0)[0], atol=1e-6)


def test_layers_heads_and_tokens_choose():
    net, x = hand(WAYS[1]), rows()
    matrices = [kept(net, row)[0] for row in x]
    got = tw.AttentionRollout(net, layers=[0, -1], heads=[1], token=3).attribute(x)
    for i in range(3):
        assert torch.allclose(got[i], reference.rollout([matrices[i][k][[1]] for k in (0, 2)])[3], atol=1e-6)
    one, listed = (tw.RawAttention(net, layers=a, heads=b).attribute(x) for a, b in ((1, 0), ([1], [0])))
    assert torch.equal(one, listed)
    several = tw.RawAttention(net, layers=None, token=[1, -1]).attribute(x)
    for i in range(3):
        mean = torch.stack([m.mean(0) for m in matrices[i]]).mean(0)
        assert torch.allclose(several[i], mean[[1, 5]].mean(0), atol=1e-6)
    both = tw.AttentionFlow(net, token=[0, 1]).attribute(x)
    alone = [tw.AttentionFlow(net, token=t).attribute(x) for t in (0, 1)]
    assert (both <= (alone[0] + alone[1]) / 2 + 0.5).all()
    assert (both >= torch.minimum(alone[0] / 2, alone[1] / 2)).all()


def vit(**options):
    torch.manual_seed(0)
    options = {
        "image_size": 32,
        "patch_size": 8,
        "num_layers": 3,
        "num_heads": 2,
        "hidden_dim": 16,
        "mlp_dim": 32,
    } | options
    net = VisionTransformer(**options).eval()
    with torch.no_grad():
        net.heads.head.weight.normal_(std=0.5)
        for block in net.encoder.layers:
            block.self_attention.in_proj_weight.mul_(4)
    return net


def vit_matrices(net, x):
    """Per head, from each block's own module asked for its weights on what reached it."""
    seen, handles = [], []
    for block in net.encoder.layers:
        handles.append(block.ln_1.register_forward_hook(lambda m, i, o: seen.append(o)))
    net(x)
    for handle in handles:
        handle.remove()
    blocks = zip(net.encoder.layers, seen)
    return [b.self_attention(y, y, y, need_weights=True, average_attn_weights=False)[1].detach() for b, y in blocks]


def test_rollout_on_torchvision_vit():
    net, x = vit(), torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    matrices = vit_matrices(net, x)
    got = tw.AttentionRollout(net, upsample=False).attribute(x)
    assert got.shape == (2, 1, 4, 4)
    for i in range(2):
        expected = reference.rollout([m[i].double() for m in matrices])[0, 1:].view(1, 4, 4)
        assert torch.allclose(got[i].double(), expected, atol=1e-5)
    full = tw.AttentionRollout(net).attribute(x)
    assert full.shape == (2, 1, 32, 32)
    assert torch.allclose(full, F.interpolate(got, size=(32, 32), mode="bilinear"))


def test_relevance_on_torchvision_vit_by_finite_differences():
    """The gradient by one entry of a matrix: a change of that entry, made inside the softmax's result."""
    net, x = vit().double(), torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    with AttentionCapture(graph=True) as captured:
        score = net(x)[0, 3]
    gradients = torch.autograd.grad(score, captured.matrices)

    class Nudged(AttentionCapture):
        def _softmax(self, call):
            a = super()._softmax(call)
            if len(self.matrices) == self.layer:
                a.data[0, 1, 2, 5] += self.by
            return a

    for layer in range(3):
        scores = []
        for by in (1e-6, -1e-6):
            nudged = Nudged(graph=True)
            nudged.layer, nudged.by = layer, by
            with torch.no_grad(), nudged:
                scores.append(net(x)[0, 3].item())
        assert gradients[layer][0, 1, 2, 5].item() == pytest.approx((scores[0] - scores[1]) / 2e-6, rel=1e-4, abs=1e-9)
    expected = reference.relevance([a[0].detach() for a in captured.matrices], [g[0] for g in gradients]) - torch.eye(
        17
    )
    got = tw.AttentionRelevance(net, upsample=False).attribute(x, 3)
    assert torch.allclose(got[0, 0], expected[0, 1:].view(4, 4))


def test_modules_of_torch_and_their_fast_paths():
    """nn.MultiheadAttention in both layouts, with and without weights asked for, and a whole encoder layer."""

    class Wrap(nn.Module):
        def __init__(self, batch_first, ask):
            super().__init__()
            self.mha, self.first, self.ask = (
                nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first),
                batch_first,
                ask,
            )

        def forward(self, x):
            y = x if self.first else x.transpose(0, 1)
            y = self.mha(y, y, y, need_weights=self.ask)[0]
            return (y if self.first else y.transpose(0, 1)).sum(1)

    for batch_first in (True, False):
        torch.manual_seed(0)
        net = Wrap(batch_first, True).double().eval()
        x = rows()
        y = x if batch_first else x.transpose(0, 1)
        expected = net.mha(y, y, y, need_weights=True, average_attn_weights=False)[1]
        for ask in (True, False):
            net.ask = ask
            got = tw.RawAttention(net, token=range(TOKENS)).attribute(x)
            assert torch.allclose(got, expected.mean(1).mean(1))
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, batch_first=True).double().eval()
    expected = layer.self_attn(x, x, x, need_weights=True)[1]
    got = tw.RawAttention(nn.TransformerEncoder(layer, 1)).attribute(x)
    assert torch.allclose(got, nn.TransformerEncoder(layer, 1).layers[0].self_attn(x, x, x)[1][:, 0])
    assert torch.allclose(got, expected[:, 0])


def test_masks_hide_tokens_and_a_causal_model_answers_with_its_last():
    class Causal(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(WIDTH, 3).double()

        def forward(self, x):
            x = x + F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None], is_causal=True)[:, 0]
            return self.head(x[:, -1])

    x = rows()
    got = tw.RawAttention(Causal()).attribute(x)
    assert torch.allclose(got, (x[:, -1:] @ x.transpose(1, 2) / WIDTH**0.5).softmax(-1)[:, 0])


def test_the_trained_vit_looks_at_the_shape():
    batch = shapes(24, seed=5)
    net = shapes_vit()
    right = net(batch.images).argmax(1) == batch.labels
    maps = tw.AttentionRelevance(net).attribute(batch.images, "predicted")[right]
    inside = batch.mask[right]
    assert right.sum() > 20
    assert maps[inside].mean() > 3 * maps[~inside].mean()


def test_models_without_usable_attention_are_refused():
    x = torch.rand(1, 3, 64, 64)
    with pytest.raises(ValueError, match="computes no attention"):
        tw.AttentionRollout(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.LogSoftmax(1))).attribute(x)
    swin = SwinTransformer(
        patch_size=[4, 4], embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=[4, 4], num_classes=3
    ).eval()
    for method in (tw.AttentionRollout, tw.AttentionRelevance):
        with pytest.raises(ValueError, match="within windows"):
            method(swin).attribute(x, 0)
    net = hand(WAYS[0])
    with pytest.raises(IndexError, match=r"layers: there is no 3; the model has 3 \(0 to 2\)"):
        tw.AttentionRollout(net, layers=[3]).attribute(rows())
    with pytest.raises(IndexError, match="heads: there is no 2"):
        tw.AttentionRollout(net, heads=[2]).attribute(rows())
    for bad in ([], ["blocks.0"], 1.5):
        with pytest.raises(ValueError, match=r"layers=.* expected a number from 0 on, or a list of them"):
            tw.AttentionRollout(net, layers=bad)
        with pytest.raises(ValueError, match=r"heads=.* expected a number from 0 on"):
            tw.RawAttention(net, heads=bad)
    with pytest.raises(ValueError, match="index 77 is out of range"):
        tw.AttentionRollout(net).attribute(rows(), 77)
    with pytest.raises(IndexError, match="token=6"):
        tw.AttentionRollout(net, token=6).attribute(rows())
    with pytest.raises(ValueError, match="head_fusion='sum'"):
        tw.AttentionRollout(net, head_fusion="sum").attribute(rows())
    with pytest.raises(ValueError, match="discard_ratio=1"):
        tw.AttentionRollout(net, discard_ratio=1).attribute(rows())
    with pytest.raises(ValueError, match=r"layers=\[...\]"):
        tw.AttentionRollout(net, layer="head").attribute(rows())
    with pytest.raises(ValueError, match="differentiable"):
        tw.AttentionRelevance(net).attribute(rows(), lambda out: out.argmax(1))
    with pytest.raises(ValueError, match=r"grid=\(9, 9\)"):
        tw.AttentionRollout(vit(), grid=(9, 9)).attribute(torch.rand(1, 3, 32, 32))


def test_a_decoder_that_looks_at_an_encoder_needs_layers():
    class Cross(nn.Module):
        def forward(self, x):
            x = x + F.scaled_dot_product_attention(x, x, x)
            y = F.scaled_dot_product_attention(x[:, :2], x, x)
            return y.sum((1, 2))

    with pytest.raises(ValueError, match="6 × 6"):
        tw.AttentionRollout(Cross()).attribute(rows())
    assert tw.AttentionRollout(Cross(), layers=[0]).attribute(rows()).shape == (3, TOKENS)


def test_the_model_is_left_as_it_was_and_other_softmaxes_are_no_attention():
    class Sharp(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = hand(WAYS[1])

        def forward(self, x):
            y = self.inner(x).softmax(-1) @ torch.ones(len(x), 3, 3, dtype=x.dtype)  # probabilities of classes
            return (y.softmax(-1) @ torch.eye(3, dtype=x.dtype)).softmax(-1).sum(1)  # and of tokens, projected

    net = Sharp()
    before = [p.clone() for p in net.parameters()]
    with AttentionCapture() as captured:
        net(rows())
    assert len(captured.matrices) == 3
    assert by_head(captured.matrices[0], 3).shape == (3, HEADS, TOKENS, TOKENS)
    tw.AttentionRelevance(net).attribute(rows(), 0)
    assert all(torch.equal(a, b) and b.grad is None and b.requires_grad for a, b in zip(before, net.parameters()))
    with pytest.raises(ValueError, match="out of range"):
        tw.AttentionRelevance(net).attribute(rows(), 9)
    assert torch.equal(net(rows()), net(rows()))  # no mode is left on


def slow_alti(net, x):
    """Contributions token by token, head by head, from the weights of :class:`Hand`, multiplied over the layers."""
    matrices, total = kept(net, x)[0], torch.eye(TOKENS, dtype=torch.double)
    for a, qkv, out in zip(matrices, net.qkv, net.out):
        values = qkv(x).view(TOKENS, 3, HEADS, -1)[:, 2]
        c = torch.zeros(TOKENS, TOKENS, dtype=torch.double)
        y = torch.zeros(TOKENS, WIDTH, dtype=torch.double)
        for i in range(TOKENS):
            handed = []
            for j in range(TOKENS):
                heads = torch.cat([a[h, i, j] * values[j, h] for h in range(HEADS)])
                handed.append(out.weight @ heads + (x[i] if i == j else 0))
            y[i] = sum(handed) + out.bias
            for j in range(TOKENS):
                c[i, j] = max(0.0, (y[i].abs().sum() - (y[i] - handed[j]).abs().sum()).item())
            c[i] /= c[i].sum()
        total, x = c @ total, y.detach()
    return total.detach()


@pytest.mark.parametrize("ways", [*WAYS, ("einsum", "bmm", "plain")], ids="-".join)
def test_alti_equals_its_loops(ways):
    net, x = hand(ways), rows()
    got = tw.ALTI(net, token=2).attribute(x)
    for i in range(3):
        assert torch.allclose(got[i], slow_alti(net, x[i])[2], atol=1e-5)
    assert torch.allclose(got.sum(1), torch.ones(3).double())


def test_alti_of_modules_in_both_layouts_and_of_other_libraries():
    x, found = rows(TOKENS), []  # as many rows as tokens: the layouts look alike
    for first in (True, False):
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, batch_first=first, norm_first=True).double().eval()
        with torch.no_grad():
            layer.self_attn.in_proj_weight.mul_(3)
        stack = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        turn = (lambda z: z) if first else (lambda z: z.transpose(0, 1))
        found.append(tw.ALTI(lambda z, stack=stack, turn=turn: turn(stack(turn(z)))).attribute(x))
    assert torch.allclose(*found)
    timm = pytest.importorskip("timm")
    options = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 3}
    image = torch.rand(1, 3, 32, 32)
    assert tw.ALTI(timm.create_model("vit_tiny_patch16_224", **options).eval()).attribute(image).shape == (1, 1, 32, 32)
    assert tw.ALTI(vit()).attribute(image).shape == (1, 1, 32, 32)
    assert torch.allclose(tw.ALTI(tiny_bert()).attribute(torch.arange(5)[None]).sum(), torch.tensor(1.0))
    scaled = timm.create_model("vit_tiny_patch16_224", init_values=0.1, **options).eval()
    with pytest.raises(ValueError, match="scaled or changed"):
        tw.ALTI(scaled).attribute(image)
    with pytest.raises(ValueError, match="heads of ALTI"):
        tw.ALTI(vit(), heads=[0]).attribute(image)
