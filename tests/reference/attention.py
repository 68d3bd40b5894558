"""Explanations from attention matrices: rollout, flow and gradient-weighted relevance.

``attentions``: a list, first layer first, of (heads, T, T), rows (queries) adding up to one; ``gradients``: the
derivatives of the explained number by them, of the same shapes. Results are (T, T): row i is what output token i owes
to each input token; for a classifier with a class token the row of that token is the explanation.
"""

from itertools import pairwise

import torch


def fuse(attention, how="mean"):
    """One (T, T) matrix from (heads, T, T): the mean, the largest or the smallest of the heads."""
    heads, size, _ = attention.shape
    fused = torch.zeros(size, size, dtype=attention.dtype)
    for i in range(size):
        for j in range(size):
            values = [attention[h, i, j].item() for h in range(heads)]
            fused[i, j] = {"mean": sum(values) / heads, "max": max(values), "min": min(values)}[how]
    return fused


def discard_lowest(matrix, ratio, protected=()):
    """The int(ratio * T * T) smallest entries set to 0; those in ``protected``, pairs (i, j), keep their value.

    Choices: protected entries count among the smallest without being replaced by others; of equal entries the first
    in reading order goes first.
    """
    size = len(matrix)
    order = sorted((matrix[i, j].item(), i, j) for i in range(size) for j in range(size))
    out = matrix.clone()
    for _, i, j in order[: int(ratio * size * size)]:
        if (i, j) not in protected:
            out[i, j] = 0
    return out


def with_residual(matrix):
    """(A + I) / 2, each row divided by its sum (which changes nothing when the rows of A add up to one)."""
    size = len(matrix)
    out = matrix.clone()
    for i in range(size):
        out[i, i] += 1
    for i in range(size):
        out[i] = out[i] / out[i].sum()
    return out


def product(a, b):
    """The matrix product, written out."""
    rows, inner, columns = a.shape[0], a.shape[1], b.shape[1]
    out = torch.zeros(rows, columns, dtype=a.dtype)
    for i in range(rows):
        for j in range(columns):
            out[i, j] = sum(a[i, k].item() * b[k, j].item() for k in range(inner))
    return out


def rollout(attentions, head_fusion="mean", discard_ratio=0.0, protected=((0, 0),)):
    """A~_L ... A~_2 A~_1 with A~_l = (A_l + I) / 2; Abnar and Zuidema, arXiv:2005.00928.

    Choices: heads are fused first; ``discard_ratio`` (not in the paper; from the vit-explain project, which protects
    the class token's own entry) drops the smallest fused entries before I is added; rows are divided by their sums.
    """
    total = None
    for attention in attentions:
        layer = with_residual(discard_lowest(fuse(attention, head_fusion), discard_ratio, protected))
        total = layer if total is None else product(layer, total)
    return total


def max_flow(capacity, source, sink):
    """The largest flow from source to sink; ``capacity``: dict of dicts. Edmonds-Karp: shortest paths first."""
    left = {u: dict(edges) for u, edges in capacity.items()}
    for u in capacity:
        for v in capacity[u]:
            left.setdefault(v, {}).setdefault(u, 0.0)
    total = 0.0
    while True:
        parent, queue = {source: None}, [source]
        for u in queue:
            for v, room in left[u].items():
                if room > 1e-15 and v not in parent:
                    parent[v] = u
                    queue.append(v)
        if sink not in parent:
            return total
        path = [sink]
        while path[-1] != source:
            path.append(parent[path[-1]])
        path = path[::-1]
        amount = min(left[u][v] for u, v in pairwise(path))
        for u, v in pairwise(path):
            left[u][v] -= amount
            left[v][u] += amount
        total += amount


def flow(attentions, head_fusion="mean", normalise=False):
    """Entry (i, j): the maximum flow from token i above the last layer to input token j.

    Abnar and Zuidema, arXiv:2005.00928. The graph has a node per token and level; the edge from token a of
    level l to token b of level l - 1 has capacity (A_l + I)_ab / 2. Choices: heads are fused first; every pair (i, j)
    is a flow problem of its own; ``normalise`` divides each row by its sum (the authors' code).
    """
    layers = [with_residual(fuse(a, head_fusion)) for a in attentions]
    size, top = len(layers[0]), len(layers)
    capacity = {}
    for level, layer in enumerate(layers, start=1):
        for a in range(size):
            capacity[level, a] = {(level - 1, b): layer[a, b].item() for b in range(size)}
    out = torch.zeros(size, size, dtype=layers[0].dtype)
    for i in range(size):
        for j in range(size):
            out[i, j] = max_flow(capacity, (top, i), (0, j))
    return out / out.sum(1, keepdim=True) if normalise else out


def relevance(attentions, gradients):
    """R = I, then for each layer R <- R + A^ R, with A^ = mean over heads of relu(dy/dA * A).

    Chefer, Gur, Wolf, ICCV 2021, arXiv:2103.15679, eq. 5 and 6 (self-attention). Includes the I: subtract it, or leave
    out the token's own column, to see what came from other tokens.
    """
    size = attentions[0].shape[-1]
    R = torch.eye(size, dtype=attentions[0].dtype)
    for attention, g in zip(attentions, gradients, strict=True):
        weighted = fuse((g * attention).clamp(min=0), "mean")
        R = R + product(weighted, R)
    return R


def normalised(R):
    """R without its identity, each row divided by its sum, plus the identity; eq. 8 and 9 of arXiv:2103.15679.

    Choice: a row of zeros, which owes nothing to others, stays.
    """
    size = len(R)
    out = torch.eye(size, dtype=R.dtype)
    for i in range(size):
        others = [R[i, k].item() - (i == k) for k in range(size)]
        total = sum(others)
        for k in range(size):
            out[i, k] += others[k] / total if total > 0 else 0.0
    return out


def before_any_attention(sizes, dtype):
    """{(s, q): (T_s, T_q)}: the identity in (s, s), zero between two sequences."""
    return {
        (s, q): torch.eye(m, dtype=dtype) if s == q else torch.zeros(m, n, dtype=dtype)
        for s, m in sizes.items()
        for q, n in sizes.items()
    }


def relevance_of_two(steps, sizes):
    """R for each pair of sequences; Chefer, Gur, Wolf, arXiv:2103.15679, eq. 1 and 2, 5 to 11.

    ``steps``: the attentions in the model's order, each a list of (s, q, attention, gradient) that run side by side: queries of
    sequence s, keys and values of q, (heads, T_s, T_q). Those of one step all see the R of the step before. ``sizes``: how many
    tokens each sequence has. Returns {(s, q): (T_s, T_q)}, with the identity in (s, s).
    """
    R = before_any_attention(sizes, steps[0][0][2].dtype)
    for step in steps:
        before = dict(R)
        for s, q, attention, g in step:
            heads = attention.shape[0]
            weighted = sum((g[h] * attention[h]).clamp(min=0) for h in range(heads)) / heads
            if s == q:
                for other in sizes:
                    R[s, other] = R[s, other] + product(weighted, before[s, other])
                continue
            seen = product(product(normalised(before[s, s]).T, weighted), normalised(before[q, q]))
            R[s, q] = R[s, q] + seen
            R[s, s] = R[s, s] + product(weighted, before[q, s])
    return R


def alti_shares(attention, values, weight, bias, x, within=True):
    """What each token was (T,), and what it reads of each of S (T, S): shares that add up to 1; arXiv:2203.04212, eq. 8 to 10.

    attention: (heads, T, S); values: of each token that is read and each head, (S, heads, d); weight (E, heads * d) and bias
    (E,), or None: the projection of the heads; x (T, E): what the result is added to. ``within`` one sequence what a token was
    is part of what it reads of itself; between two it is apart (arXiv:2205.11631). Choice: what follows the sum (a layer norm,
    an MLP) is left out.
    """
    heads, size, other = attention.shape
    kept, read = torch.zeros(size, dtype=x.dtype), torch.zeros(size, other, dtype=x.dtype)
    for i in range(size):
        handed = []
        for j in range(other):
            parts = torch.cat([attention[h, i, j] * values[j, h] for h in range(heads)])
            handed.append(weight @ parts + (x[i] if within and i == j else 0))
        y = sum(handed) + (0 if bias is None else bias) + (0 if within else x[i])
        for j in range(other):
            read[i, j] = max(0.0, (y.abs().sum() - (y - handed[j]).abs().sum()).item())
        kept[i] = 0.0 if within else max(0.0, (y.abs().sum() - (y - x[i]).abs().sum()).item())
        whole = read[i].sum() + kept[i]
        kept[i], read[i] = kept[i] / whole, read[i] / whole
    return kept, read


def rollout_shares(attention, within=True):
    """What each token was, and what it reads: one half and half of the heads' mean (heads, T, S); arXiv:2005.00928, section 3."""
    del within
    mean = sum(attention[h] for h in range(len(attention))) / len(attention)
    return torch.full((len(mean),), 0.5, dtype=mean.dtype), mean / 2


def shares_of_two(steps, sizes):
    """What tokens are made of, {(s, q): (T_s, T_q)}, after steps in the model's order.

    ``steps``: each a list of (s, q, kept, read) that run side by side, all of which see the tokens of the step before: a token of
    s becomes what is kept of it, and what it reads of the tokens of q. ``sizes``: how many tokens each sequence has.
    """
    R = before_any_attention(sizes, steps[0][0][3].dtype)
    for step in steps:
        before = {pair: r.clone() for pair, r in R.items()}
        for s, q, kept, read in step:
            for other in sizes:
                for i in range(sizes[s]):
                    R[s, other][i] = kept[i] * before[s, other][i] + product(read[i : i + 1], before[q, other])[0]
    return R
