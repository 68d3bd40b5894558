"""The base of the attention methods: matrices from a run of the model, a row of what they add up to, and its picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from torchwhy.attention.capture import AttentionCapture
from torchwhy.attention.selection import Indices, check_indices, index_list, select_matrices
from torchwhy.attribution import Attribution
from torchwhy.engine.layers.grid_layout import picture_of, resize_maps, token_grid
from torchwhy.engine.prepare import LayerRole
from torchwhy.engine.rules.mode import refuse_opaque_models
from torchwhy.engine.run.autograd import enable_grad_for
from torchwhy.engine.structure import Tensors
from torchwhy.problem import Problem

Fusion = Literal["mean", "max", "min"]


class AttentionMethod(Attribution):
    """The base class of the methods that read the attention between tokens.

    The matrices are seen as they are computed: ``nn.MultiheadAttention``, ``F.scaled_dot_product_attention`` and hand-written
    softmax(q kᵀ) v alike, the fused ones taken apart for the run. For images ``(N, C, H, W)`` the result is a map
    ``(N, 1, H, W)``, the tokens that are no patches left out; else it is ``(N, T)``, one number for each token. Several inputs
    (a dict, a tuple) get one result, in the first one's place.

    Args:
        layers: which of the model's attentions, by their order, from 0, one or several; None is all.
        heads: which heads, one or several; None is all.
        token: whose row of the matrix is the result, or the mean of several; None is the class token (with two more tokens than
            patches also the distillation token; without any, all tokens; in a causal model the last token).
        upsample: bring maps to the image's size; otherwise they are the grid's ``(N, 1, h, w)``.
        grid: (h, w), where it cannot be told from the number of tokens.

    Raises:
        ValueError: no attention in the model, attention within windows (Swin), matrices of several sizes.
        IndexError: no such layer, head or token.
    """

    layers: Indices = None
    heads: Indices = None
    token: int | Sequence[int] | None = None
    upsample: bool = True
    grid: tuple[int, int] | None = None

    needs_gradient: ClassVar[bool] = False  # True: mix gets the derivatives by the matrices
    needs_float_inputs: ClassVar[bool] = False  # token ids are as good as any input
    gives_one_map: ClassVar[bool] = True
    layer_role: ClassVar[LayerRole] = "own"
    capture: ClassVar[type[AttentionCapture]] = AttentionCapture

    def matrices(self, captured: AttentionCapture, n: int) -> list[Tensor]:
        """Return the matrices ``(n, heads, T, T)`` of the chosen layers and heads, from a run of n rows."""
        return select_matrices([m.detach() for m in captured.matrices], self.layers, self.heads, n)

    def mix(self, attentions: list[Tensor], gradients: list[Tensor], tokens: Tensor) -> Tensor:
        """Return what the output tokens ``tokens`` owe to each input token, ``(n, T)``.

        Args:
            attentions: matrices ``(n, heads, T, T)`` of the chosen layers.
            gradients: the gradients of the score by these, for methods that need them.
            tokens: the output tokens that are explained.
        """
        raise NotImplementedError

    def _attribute(self, problem: Problem) -> Tensors:
        refuse_opaque_models(problem.model)

        def work(a: int, b: int) -> Tensor:
            attentions, each = self._run(problem, a, b)
            tokens = self._output_tokens(problem, attentions[0])
            values = [self.mix(attentions, gradients, tokens) for gradients in each]
            return torch.stack(values, 1).flatten(0, 1)

        with enable_grad_for(problem.model, problem.x[0].device) if self.needs_gradient else torch.no_grad():
            values = problem.run.concatenated(problem.n, work).detach()
        if problem.x[0].dim() != 4:
            return (values,)
        size = picture_of(problem).size
        h, w, extra = self._grid(values.shape[1], size)
        maps = values[:, extra:].reshape(len(values), 1, h, w)
        return (resize_maps(maps, size) if self.upsample else maps,)

    def _run(self, problem: Problem, a: int, b: int) -> tuple[list[Tensor], list[list[Tensor]]]:
        """Return the chosen matrices of rows a to b - 1, and for each target the gradients of its scores by them, if needed."""
        step = problem.n_targets  # the matrices know no target
        z, rows = [t[a:b:step] for t in problem.x], problem.rows[a:b:step]
        each: list[Tensor] = []
        with self.capture(graph=self.needs_gradient) as captured:
            if self.needs_gradient or problem.target.given is not None:  # a wrong target is refused by all methods
                each = problem.run.scores_of_targets(z, rows)
            else:
                problem.run.outputs(z, rows)
        attentions = self.matrices(captured, len(rows))
        if not self.needs_gradient:
            return attentions, [[]] * step
        found = []
        for number, scores in enumerate(each, 1):
            if not scores.requires_grad:
                raise ValueError(
                    "the target does not depend on the attention in a differentiable way: choose another target"
                )
            slopes = torch.autograd.grad(
                scores.sum(), captured.matrices, allow_unused=True, retain_graph=number < len(each)
            )
            gradients = [torch.zeros_like(m) if g is None else g for m, g in zip(captured.matrices, slopes)]
            found.append(select_matrices(gradients, self.layers, self.heads, len(rows)))
        return attentions, found

    def _output_tokens(self, problem: Problem, attention: Tensor) -> Tensor:
        """Return the output tokens that are explained."""
        count = attention.shape[-1]
        if self.token is not None:
            tokens = index_list(self.token)
            if not all(-count <= t < count for t in tokens):
                raise IndexError(f"token={self.token!r}: the model has {count} tokens (0 to {count - 1})")
        elif problem.x[0].dim() == 4:
            extra = self._grid(count, picture_of(problem).size)[2]
            tokens = {0: list(range(count)), 2: [0, 1]}.get(extra, [0])
        else:
            causal = count > 1 and not bool(attention.triu(1).any())
            tokens = [count - 1 if causal else 0]
        return torch.tensor(tokens, device=attention.device) % count

    def _grid(self, count: int, size: tuple[int, ...]) -> tuple[int, int, int]:
        """Return the grid's height and width, and how many tokens come before it."""
        if self.grid is not None:
            h, w = self.grid
            if not 0 <= count - h * w < count:
                raise ValueError(f"grid={self.grid}: {h * w} cells, but the model has {count} tokens")
            return h, w, count - h * w
        found = token_grid(count, size)
        if found is None:
            raise ValueError(
                f"grid: {count} tokens make no grid of patches over an image of {size[0]} × {size[1]}; give it"
            )
        return found.size[0], found.size[1], found.extra

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.layer is not None:
            raise ValueError("layer: attention methods choose the model's attentions by their order, layers=[...]")
        for name in ("layers", "heads", "token"):
            check_indices(name, getattr(self, name))
        if self.grid is not None and not (len(self.grid) == 2 and all(n > 0 for n in self.grid)):
            raise ValueError(f"grid={self.grid!r}: expected the height and the width of the grid of patches, or None")


def fuse_heads(attention: Tensor, how: Fusion) -> Tensor:
    """Return one matrix ``(n, T, T)`` from the heads' ``(n, heads, T, T)``."""
    if how == "mean":
        return attention.mean(1)
    return attention.amax(1) if how == "max" else attention.amin(1)


def with_residual(matrix: Tensor) -> Tensor:
    """Return (A + I) / 2, its rows divided by their sums, ``(n, T, T)``."""
    matrix = matrix + torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return matrix / matrix.sum(-1, keepdim=True)
