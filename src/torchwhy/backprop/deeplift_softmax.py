r"""DeepLIFT's rules of softmax and of what contains one. As in ``deeplift_rules``, 1 is the input's run, 0 the baseline's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from torchwhy.engine.rules.decompositions import attention_operands
from torchwhy.engine.rules.mode import custom_backward
from torchwhy.engine.rules.operations import OpCall
from torchwhy.engine.structure import carries_signal


def log_mean(s1: Tensor, s0: Tensor) -> Tensor:
    r"""Return the logarithmic mean of exp(s1) and exp(s0), :math:`(e^{s_1} - e^{s_0}) / (s_1 - s_0)`, without cancellation."""
    half = (s1 - s0) / 2
    middle = ((s1 + s0) / 2).exp()
    mean = torch.where(half.abs() < 1e-3, middle * (1 + half**2 / 6), (s1.exp() - s0.exp()) / (2 * half))
    return mean.nan_to_num(0.0, 0.0, 0.0)  # where a mask left -inf in both runs


def _log_probabilities(call: OpCall) -> tuple[Tensor, Tensor, int]:
    """Return the logarithms of the probabilities of both runs, and over which dimension they add up to 1."""
    dim = call.kwargs.get("dim")
    dim = -1 if dim is None else dim
    dtype = call.kwargs.get("dtype") or call.x.dtype
    s1, s0 = (F.log_softmax(x, dim, dtype=dtype) for x in (call.x.detach(), call.base.x))
    return s1, s0, dim


def rescale_softmax(call: OpCall) -> Tensor:
    r"""Rescale softmax: :math:`m_x = L (m_y - \sum L m_y / \sum L)`, L the logarithmic mean of the two runs' probabilities.

    :math:`y = e^s, s = x - \mathrm{lse}(x)`: the exponential is rescaled, :math:`\Delta y = L \Delta s`, and as
    :math:`\sum \Delta y = 0`, :math:`\Delta\mathrm{lse} = \sum (L / \sum L) \Delta x` exactly.
    """
    s1, s0, dim = _log_probabilities(call)
    mean, dtype = log_mean(s1, s0), call.x.dtype

    return custom_backward(call.value(), lambda m: (_through_softmax(mean, m, dim).to(dtype),), call.x)


def _through_softmax(mean: Tensor, m: Tensor, dim: int) -> Tensor:
    """Return the multiplier below a softmax, given the logarithmic mean L of its probabilities and that above it."""
    back = mean * m
    return back - mean * (back.sum(dim, keepdim=True) / mean.sum(dim, keepdim=True))


def rescale_log_softmax(call: OpCall) -> Tensor:
    r"""Rescale log-softmax x - lse(x): :math:`m_x = m_y - (L / \sum L) \sum m_y`, see :func:`rescale_softmax`."""
    s1, s0, dim = _log_probabilities(call)
    mean, dtype = log_mean(s1, s0), call.x.dtype
    share = mean / mean.sum(dim, keepdim=True)
    return custom_backward(call.value(), lambda m: ((m - share * m.sum(dim, keepdim=True)).to(dtype),), call.x)


def rescale_logsumexp(call: OpCall) -> Tensor:
    r"""Rescale log-sum-exp: :math:`m_x = m_y L / \sum L`, see :func:`rescale_softmax`."""
    dim, keep = call.kwargs["dim"], call.kwargs.get("keepdim", False)
    s1, s0 = (x - torch.logsumexp(x, dim, keepdim=True) for x in (call.x.detach(), call.base.x))
    mean = log_mean(s1, s0)
    share = mean / mean.sum(dim, keepdim=True)

    def backward(m: Tensor) -> tuple[Tensor]:
        return (share * (m if keep else m.reshape(share.sum(dim, keepdim=True).shape)),)

    return custom_backward(call.value(), backward, call.x)


def rescale_attention(call: OpCall) -> Tensor:
    r"""Rescale fused attention :math:`y = P v`, :math:`P = \mathrm{softmax}(S)`, :math:`S = \lambda q k^\top + \mathrm{bias}`.

    :math:`m_v = \bar P^\top m`, :math:`m_S` by :func:`rescale_softmax` from :math:`m \bar v^\top`,
    :math:`m_q = \lambda m_S \bar k`,
    :math:`m_k = \lambda m_S^\top \bar q`, bars the midpoints of the two runs, as the products' rules have them. The weights P
    are made again on the way back: to keep those of every layer would take more memory than all the rest.
    """
    (q, k, v, bias, scale, dead), (q0, k0, v0, bias0, _, _) = attention_operands(call), attention_operands(call.base)
    inputs = (q, k, v) if bias is None else (q, k, v, bias)
    dtype = torch.promote_types(torch.promote_types(q.dtype, k.dtype), v.dtype)  # under autocast they differ
    q0, k0, v0 = (t.to(dtype) for t in (q0, k0, v0))
    wanted, held, shapes, types = zip(
        *((carries_signal(t), call.mode.save_for_backward(t), t.shape, t.dtype) for t in inputs)
    )

    def logs(q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
        scores = torch.matmul(q * scale, k.mT)
        return F.log_softmax(scores if bias is None else scores + bias, -1)

    def backward(m: Tensor) -> tuple[Tensor, ...]:
        q1, k1, v1, *bias1 = (h.value.to(dtype) for h in held)
        m = m if dead is None else m.masked_fill(dead, 0)
        s1, s0, m = logs(q1, k1, *bias1 or [None]), logs(q0, k0, bias0), m.to(dtype)
        of_v = torch.matmul(((s1.exp() + s0.exp()) / 2).mT, m)
        of_s = _through_softmax(log_mean(s1, s0), torch.matmul(m, (v1 + v0).mT / 2), -1)
        of_q, of_k = (torch.matmul(a, b).mul_(scale / 2) for a, b in ((of_s, k1 + k0), (of_s.mT, q1 + q0)))
        found = zip((of_q, of_k, of_v, of_s), shapes, wanted, types)
        return tuple(f.sum_to_size(shape).to(own) for f, shape, w, own in found if w)

    return custom_backward(call.value(), backward, *(t for t, w in zip(inputs, wanted) if w))
