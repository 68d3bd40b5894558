"""The base of the attention methods: matrices from a run of the model, a row of what they add up to, and its picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from torchwhy.attention.capture import AttentionCapture
from torchwhy.attention.cells import TokenCells, find_cells
from torchwhy.attention.maps import Ground, ground_of_tokens, mean_map
from torchwhy.attention.selection import Indices, by_head, check_indices, matrices_by_head
from torchwhy.attention.sequences import SequenceMap, TokenSequence
from torchwhy.attention.tokens import (
    TokenSetting,
    check_token_setting,
    default_tokens,
    looks_ahead,
    named_tokens,
    real_tokens,
)
from torchwhy.attribution import Attribution
from torchwhy.engine.asker import LayerRole
from torchwhy.engine.rules.mode import refuse_opaque_models
from torchwhy.engine.run.autograd import enable_grad_for
from torchwhy.engine.structure import Structure
from torchwhy.input_types import SomeInputs
from torchwhy.problem import Problem
from torchwhy.result import Result
from torchwhy.settings import Count

Fusion = Literal["mean", "max", "min"]
Layers = Indices | Literal["own", "cross"]


@dataclass(frozen=True, eq=False)
class AttentionRun:
    """What a run of n rows gave.

    Args:
        problem: that was run.
        rows: which of its rows, ``(n,)``.
        captured: the attentions.
        map: their sequences.
        numbers: those that are chosen.
        inputs: the rows, ``(n, ...)``.
        grid: of the cells of a picture, where it is given.
    """

    problem: Problem
    rows: Tensor
    captured: AttentionCapture
    map: SequenceMap
    numbers: list[int]
    inputs: list[Tensor]
    grid: tuple[int, ...] | None
    _cells: dict[TokenSequence, TokenCells] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """The number of rows."""
        return len(self.rows)

    @property
    def one_stream(self) -> bool:
        """Whether the model is given one tensor and nothing else."""
        return len(self.problem.x) == 1 and not (self.problem.inputs.args or self.problem.inputs.kwargs)

    def input_of(self, sequence: TokenSequence) -> int | None:
        """Return the number of the input that a sequence is, None of another one."""
        return self.captured.lineages.inputs[sequence.lineage.source]

    def ground_of(self, sequence: TokenSequence) -> Ground:
        """Return what a sequence's tokens are of."""
        number = self.input_of(sequence)
        return ground_of_tokens(self.problem, number, self.captured.lineages.shapes[sequence.lineage.source])

    def cells_of(self, sequence: TokenSequence) -> TokenCells:
        """Return which tokens of a sequence are the cells of its picture."""
        if sequence not in self._cells:
            self._cells[sequence] = find_cells(self, sequence, self.grid)
        return self._cells[sequence]

    def laid(self, sequence: TokenSequence, values: Tensor) -> tuple[Ground, Tensor]:
        """Return what tokens are of, and their values ``(n, T)``: of a picture those of its cells."""
        ground = self.ground_of(sequence)
        if not ground.is_picture:
            return ground, values
        cells = self.cells_of(sequence)
        return ground._replace(grid=cells.size), values.gather(1, cells.tokens)


SequenceValues = list[tuple[TokenSequence, Tensor]]


class AttentionMethod(Attribution[SomeInputs]):
    """The base class of the methods that read the attention between tokens.

    The matrices are seen as they are computed: ``nn.MultiheadAttention``, ``F.scaled_dot_product_attention`` and hand-written
    softmax(q kᵀ) v alike, the fused ones taken apart for the run. For images ``(N, C, H, W)`` and videos the result is a map
    with one channel, of their size, the tokens that are no patches left out; else it is ``(N, T)``, one number for each token.
    Patches are the tokens that change with the picture, tried in at most two more passes (of a model that is given words too,
    for each call).

    Of several inputs (a dict, a tuple) those that are sequences of their own, such as the sentences of a pair, get a result
    each, in the form of the inputs; where one is, or all go together into one sequence, there is a single result. What
    belongs together is told by where the tokens come from, not by how many they are.

    Args:
        layers: which of the model's attentions, by their order, from 0, one or several; None is all. Of several sequences, -1
            is the last of each. ``"own"`` are those within a sequence, as an encoder's and a decoder's own: what goes on
            between two sequences is then left out. ``"cross"`` are those between two.
        heads: which heads, one or several; None is all.
        token: whose row of the matrix is the result, or the mean of several; a tensor ``(N,)`` is one for each row. None is the
            class token, the first that is no patch (with two before the patches also the distillation token; without any, all
            tokens; in a causal model the last token, and with an ``attention_mask`` among the arguments the last real one).
        upsample: bring maps to the image's size; otherwise they are the grid's ``(N, 1, h, w)``.
        grid: (h, w), where it cannot be told from the number of tokens.

    Raises:
        ValueError: no attention in the model, attention within windows (Swin), matrices of several sizes; a token that is
            padding.
        IndexError: no such layer, head or token.
    """

    layers: Layers = None
    heads: Indices = None
    token: TokenSetting = None
    upsample: bool = True
    grid: tuple[Count, ...] | None = None

    needs_gradient: ClassVar[bool] = False  # True: mix gets the derivatives by the matrices
    needs_float_inputs: ClassVar[bool] = False  # token ids are as good as any input
    gives_one_map: ClassVar[bool] = True
    layer_role: ClassVar[LayerRole] = "own"
    averages_sequences: ClassVar[bool] = False  # the mean of what is found of several sequences of one input
    capture: ClassVar[type[AttentionCapture]] = AttentionCapture

    def matrices(self, run: AttentionRun, numbers: list[int]) -> list[Tensor]:
        """Return the matrices ``(n, heads, T, T)`` of some attentions of one sequence."""
        return matrices_by_head([run.captured.matrices[i].detach() for i in numbers], self.heads, run.n)

    def mix(self, attentions: list[Tensor], gradients: list[Tensor], tokens: Tensor) -> Tensor:
        """Return what the output tokens of each row owe to each input token, ``(n, T)``.

        Args:
            attentions: matrices ``(n, heads, T, T)`` of the chosen layers.
            gradients: the gradients of the score by these, for methods that need them.
            tokens: the output tokens that are explained, ``(n, K)``.
        """
        raise NotImplementedError

    def explain_sequences(self, run: AttentionRun, gradients: list[Tensor]) -> SequenceValues:
        """Return for each sequence that is explained one number for each of its tokens, ``(n, T)``.

        Args:
            run: the attentions.
            gradients: of the score by all matrices, for methods that need them.

        Raises:
            ValueError: attention between two sequences, or sequences that come together.
        """
        run.map.refuse_cross(run.numbers, type(self).__name__)
        found = []
        for sequence in run.map.sequences:
            own = [i for i in run.numbers if run.map.rows[i] is sequence]
            if not own:
                continue
            attentions = self.matrices(run, own)
            slopes = matrices_by_head([gradients[i] for i in own], self.heads, run.n) if gradients else []
            found.append((sequence, self.mix(attentions, slopes, self.output_tokens(run, sequence, attentions[0]))))
        return found

    def output_tokens(self, run: AttentionRun, sequence: TokenSequence, attention: Tensor | None) -> Tensor:
        """Return the output tokens of a sequence that are explained, ``(n, K)``.

        ``attention`` is one of the matrices between its tokens; without any, all of them are explained.
        """
        problem, count = run.problem, sequence.tokens
        real = real_tokens(problem, problem.given_rows(run.rows), run.input_of(sequence), count)
        total = problem.n // problem.n_targets
        named = named_tokens("token", self.token, problem.given_rows(run.rows), total, count, real)
        if named is not None:
            return named
        every = torch.arange(count, device=run.rows.device).expand(run.n, -1)
        is_picture = run.ground_of(sequence).is_picture
        if attention is not None and not (is_picture and looks_ahead(attention, real)):
            return default_tokens(attention, real)
        if not is_picture:
            return every
        others = run.cells_of(sequence).others(count)
        if real is not None:
            others = others & real
        if not bool(others.any()):
            return every
        distilled = run.one_stream and int(others[0].sum()) == 2 and bool(others[:, :2].all())
        return every[:, :2] if distilled else others.int().argmax(1)[:, None]

    def _attribute(self, problem: Problem) -> Result:
        refuse_opaque_models(problem.model)
        grounds: list[Ground] = []  # of each sequence, the same for all calls

        def work(a: int, b: int) -> tuple[Tensor, ...]:
            run, each = self._run(problem, a, b)
            of_targets = [[run.laid(*pair) for pair in self.explain_sequences(run, slopes)] for slopes in each]
            grounds[:] = [ground for ground, _ in of_targets[0]]
            values = zip(*([v for _, v in found] for found in of_targets))
            return tuple(torch.stack(of_one, 1).flatten(0, 1) for of_one in values)

        with enable_grad_for(problem.model, problem.x[0].device) if self.needs_gradient else torch.no_grad():
            values = problem.run.concatenated(problem.n, work)
        return self._in_form(problem, list(zip(grounds, (v.detach() for v in values))))

    def _in_form(self, problem: Problem, found: list[tuple[Ground, Tensor]]) -> Result:
        """Return the values of sequences in the form of the inputs that these are.

        Raises:
            ValueError: several of one input.
        """
        of_input: dict[int | None, list[tuple[Ground, Tensor]]] = {}
        for ground, v in found:
            of_input.setdefault(ground.number, []).append((ground, v))
        numbers = sorted(number for number in of_input if number is not None)
        if not numbers:  # none is an input: what is read last
            shape = found[-1][0].shape
            of_input[None] = [pair for pair in found if pair[0].shape == shape]
        names = problem.inputs.names
        maps, chosen = [], list[int | None](numbers) or list(of_input)
        for number in chosen:
            pairs = of_input[number]
            if len(pairs) > 1 and not self.averages_sequences:
                name = repr(names[number]) if names and number is not None else number
                raise ValueError(
                    f"layers: input {name} is more than one sequence, or goes through attentions beside one another; choose "
                    "layers= of one sequence"
                )
            maps.append(mean_map(pairs, upsample=self.upsample))
        if len(maps) == 1:
            return Result(tuple(maps))
        keys = None if names is None else tuple(names[number] for number in numbers)
        return Result(tuple(maps), form=Structure("tuple" if keys is None else "dict", keys, len(maps)))

    def _run(self, problem: Problem, a: int, b: int) -> tuple[AttentionRun, list[list[Tensor]]]:
        """Return the attentions of rows a to b - 1, and for each target the gradients of its scores by them, if needed."""
        step = problem.n_targets  # the matrices know no target
        z, rows = [t[a:b:step] for t in problem.x], problem.rows[a:b:step]
        each: list[Tensor] = []
        with self.capture(graph=self.needs_gradient) as captured:
            captured.lineages.begin(z)
            if self.needs_gradient or problem.target.given is not None:  # a wrong target is refused by all methods
                each = problem.run.scores_of_targets(z, rows)
            else:
                problem.run.outputs(z, rows)
        found = SequenceMap(captured)
        run = AttentionRun(problem, rows, captured, found, found.chosen(self.layers), z, self.grid)
        for i in run.numbers:
            by_head(captured.matrices[i], len(rows))  # no windows
        if not self.needs_gradient:
            return run, [[]] * step
        return run, [_slopes_of(scores, captured.matrices, number < len(each)) for number, scores in enumerate(each, 1)]

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.layer is not None:
            raise ValueError("layer: attention methods choose the model's attentions by their order, layers=[...]")
        if not isinstance(self.layers, str):
            check_indices("layers", self.layers)
        elif self.layers not in ("own", "cross"):
            raise ValueError(
                f"layers={self.layers!r}: expected a number from 0 on, a list of them, 'own', 'cross', or None for all"
            )
        check_indices("heads", self.heads)
        check_token_setting("token", self.token)
        if self.grid is not None and len(self.grid) not in (1, 2, 3):
            raise ValueError(f"grid={self.grid!r}: expected the height and the width of the grid of patches, or None")


def _slopes_of(scores: Tensor, matrices: list[Tensor], keep: bool) -> list[Tensor]:
    """Return the gradients of scores by all matrices, zero where they do not depend on one."""
    if not scores.requires_grad:
        raise ValueError(
            "the target does not depend on the attention in a differentiable way: choose another target, or, where the model "
            "runs under torch.no_grad or torch.inference_mode, AttentionRollout"
        )
    slopes = torch.autograd.grad(scores.sum(), matrices, allow_unused=True, retain_graph=keep)
    if all(g is None for g in slopes):
        raise ValueError(
            "the target does not depend on the attention, or an operation in between has no gradient, as those of int8 models: "
            "choose another target, AttentionRollout, or a perturbation method, which needs no gradient"
        )
    return [torch.zeros_like(m) if g is None else g for m, g in zip(matrices, slopes)]


def fuse_heads(attention: Tensor, how: Fusion) -> Tensor:
    """Return one matrix ``(n, T, S)`` from the heads' ``(n, heads, T, S)``."""
    if how == "mean":
        return attention.mean(1)
    return attention.amax(1) if how == "max" else attention.amin(1)


def with_residual(matrix: Tensor) -> Tensor:
    """Return (A + I) / 2, its rows divided by their sums, ``(n, T, T)``."""
    matrix = matrix + torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return matrix / matrix.sum(-1, keepdim=True)
