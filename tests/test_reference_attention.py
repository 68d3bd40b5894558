"""The slow references of the attention methods, by hand and against networkx and matrix products."""

import pytest
import torch
from reference import attention


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, torch.as_tensor(b, dtype=a.dtype), rtol=tolerance, atol=tolerance)


@pytest.fixture
def attentions():
    """Three layers of two heads over four tokens."""
    torch.manual_seed(0)
    return [torch.softmax(2 * torch.randn(2, 4, 4, dtype=torch.float64), -1) for _ in range(3)]


def test_fusion_and_discarding_by_hand():
    heads = torch.tensor([[[0.0, 1.0], [0.6, 0.4]], [[0.5, 0.5], [0.2, 0.8]]], dtype=torch.float64)
    close(attention.fuse(heads), [[0.25, 0.75], [0.4, 0.6]])
    close(attention.fuse(heads, "max"), [[0.5, 1.0], [0.6, 0.8]])
    close(attention.fuse(heads, "min"), [[0.0, 0.5], [0.2, 0.4]])
    fused = attention.fuse(heads)
    close(attention.discard_lowest(fused, 0.5), [[0.0, 0.75], [0.0, 0.6]])
    close(attention.discard_lowest(fused, 0.5, [(0, 0)]), [[0.25, 0.75], [0.0, 0.6]])
    close(attention.discard_lowest(fused, 0.99), [[0.0, 0.75], [0.0, 0.0]])
    close(attention.with_residual(fused), [[0.625, 0.375], [0.2, 0.8]])
    close(attention.with_residual(torch.tensor([[0.0, 0.0], [1.0, 0.0]])), [[1.0, 0.0], [0.5, 0.5]])


def test_rollout_by_hand_and_as_a_product(attentions):
    """A~_1 = [[3, 1], [1, 3]] / 4, A~_2 = [[1, 1], [0, 2]] / 2."""
    two = [torch.full((1, 2, 2), 0.5, dtype=torch.float64), torch.tensor([[[0.0, 1.0], [0.0, 1.0]]]).double()]
    close(attention.rollout(two), [[0.5, 0.5], [0.25, 0.75]])
    expected = torch.eye(4, dtype=torch.float64)
    for a in attentions:
        expected = (a.mean(0) + torch.eye(4)) / 2 @ expected
    close(attention.rollout(attentions), expected)
    close(attention.rollout(attentions, "max", 0.5).sum(1), torch.ones(4))
    assert not torch.allclose(attention.rollout(attentions, discard_ratio=0.5), expected)


def test_rollout_keeps_the_class_tokens_own_entry():
    one = [torch.tensor([[[0.1, 0.9], [0.3, 0.7]]], dtype=torch.float64)]
    close(attention.rollout(one, discard_ratio=0.5), [[0.55, 0.45], [0.0, 1.0]])
    close(attention.rollout(one, discard_ratio=0.5, protected=()), [[1 / 1.9, 0.9 / 1.9], [0.0, 1.0]])


def test_max_flow_needs_the_way_back():
    """Two units must cross; the first path taken (s a b t) blocks one of them unless it can be undone."""
    capacity = {"s": {"a": 1.0, "c": 1.0}, "a": {"b": 1.0, "d": 1.0}, "c": {"b": 1.0}, "b": {"t": 1.0}, "d": {"e": 1.0}}
    capacity["e"] = {"t": 1.0}
    assert attention.max_flow(capacity, "s", "t") == 2.0
    assert attention.max_flow({"s": {"a": 1.0}, "a": {}, "t": {}}, "s", "t") == 0.0


def test_flow_by_hand_and_against_networkx(attentions):
    """Two layers as in the rollout: from 0 to 0 min(1/2, 3/4) + min(1/2, 1/4)."""
    two = [torch.full((1, 2, 2), 0.5, dtype=torch.float64), torch.tensor([[[0.0, 1.0], [0.0, 1.0]]]).double()]
    close(attention.flow(two), [[0.75, 0.75], [0.25, 0.75]])
    close(attention.flow(two, normalise=True), [[0.5, 0.5], [0.25, 0.75]])
    close(attention.flow(attentions[:1]), (attentions[0].mean(0) + torch.eye(4)) / 2)
    networkx = pytest.importorskip("networkx")
    graph = networkx.DiGraph()
    for level, a in enumerate(attentions, start=1):
        layer = (a.mean(0) + torch.eye(4)) / 2
        for i in range(4):
            for j in range(4):
                graph.add_edge((level, i), (level - 1, j), capacity=layer[i, j].item())
    expected = [[networkx.maximum_flow_value(graph, (3, i), (0, j)) for j in range(4)] for i in range(4)]
    close(attention.flow(attentions), expected)


def test_relevance_by_hand_and_as_products(attentions):
    """One layer, two heads: the mean of relu(g A); then R = (I + A^_2)(I + A^_1)."""
    a = torch.full((2, 2, 2), 0.5, dtype=torch.float64)
    g = torch.tensor([[[2.0, -1.0], [0.0, 4.0]], [[2.0, 3.0], [-9.0, 0.0]]], dtype=torch.float64)
    close(attention.relevance([a], [g]), [[2.0, 0.75], [0.0, 2.0]])
    gradients = [torch.randn(2, 4, 4, dtype=torch.float64) for _ in attentions]
    expected = torch.eye(4, dtype=torch.float64)
    for layer, slope in zip(attentions, gradients, strict=True):
        expected = (torch.eye(4) + (layer * slope).clamp(min=0).mean(0)) @ expected
    close(attention.relevance(attentions, gradients), expected)
    with pytest.raises(ValueError, match="shorter"):
        attention.relevance(attentions, gradients[:2])
