"""Attention on models as timm and transformers make them."""

import pytest
import torch
from nets import tiny_bert
from reference import attention as reference

import torchwhy as tw


def test_timm_models():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    options = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 3}
    for name, extra, tokens in (
        ("vit_tiny_patch16_224", 1, [0]),
        ("deit_tiny_distilled_patch16_224", 2, [0, 1]),
        ("vit_base_patch16_gap_224", 0, range(16)),
    ):
        net = timm.create_model(name, **options).eval()
        seen, handles = [], []
        for block in net.blocks:
            block.attn.fused_attn = False
            handles.append(
                block.attn.attn_drop.register_forward_hook(lambda m, i, o, seen=seen: seen.append(o.detach()))
            )
        net(x)
        for block, handle in zip(net.blocks, handles):
            handle.remove()
            block.attn.fused_attn = True
        got = tw.AttentionRollout(net, upsample=False).attribute(x)
        for i in range(2):
            expected = reference.rollout([a[i].double() for a in seen])[list(tokens)].mean(0)[extra:]
            assert torch.allclose(got[i, 0].double().flatten(), expected, atol=1e-5)
        assert (tw.AttentionRelevance(net).attribute(x, 1) >= 0).all()


def test_bert_in_its_default_and_in_eager_attention():
    ids = torch.randint(0, 50, (2, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    eager, default = tiny_bert(attn_implementation="eager").double(), tiny_bert().double()
    out = eager(ids, attention_mask=mask, output_attentions=True)
    options = {"additional_forward_args": {"attention_mask": mask}}
    for net in (eager, default):
        rollout = tw.AttentionRollout(net).attribute({"input_ids": ids}, **options)
        relevance = tw.AttentionRelevance(net).attribute({"input_ids": ids}, [2, 1], **options)
        assert rollout.shape == relevance.shape == (2, 7)
        for i, target in enumerate([2, 1]):
            gradients = torch.autograd.grad(out.logits[i, target], out.attentions, retain_graph=True)
            matrices = [a[i].detach() for a in out.attentions]
            assert torch.allclose(rollout[i], reference.rollout(matrices)[0], atol=1e-5)
            expected = reference.relevance(matrices, [g[i] for g in gradients]) - torch.eye(7)
            assert torch.allclose(relevance[i], expected[0], atol=1e-5)
        assert rollout[1, 5:].abs().max() < 1e-6


def test_gpt2_and_vit_of_transformers():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=50, n_positions=20)
    net, ids = transformers.GPT2LMHeadModel(config).eval(), torch.arange(6)[None]
    got = tw.AttentionRollout(net).attribute(ids)
    eager = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(**{**config.to_dict(), "attn_implementation": "eager"})
    ).eval()
    eager.load_state_dict(net.state_dict())
    eager.set_attn_implementation("eager")
    matrices = [a[0].double() for a in eager(ids, output_attentions=True).attentions]
    assert torch.allclose(got[0].double(), reference.rollout(matrices)[5], atol=1e-5)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    )
    net, x = transformers.ViTForImageClassification(config).eval(), torch.rand(1, 3, 32, 32)
    assert tw.AttentionRollout(net).attribute(x).shape == (1, 1, 32, 32)
    assert tw.AttentionRelevance(net).attribute(x, 1).shape == (1, 1, 32, 32)
