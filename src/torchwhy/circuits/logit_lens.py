"""The logit lens, and the tuned one: what a model would say if it ended after a block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchwhy.circuits.circuit_method import CircuitMethod
from torchwhy.circuits.transformer_parts import find_blocks, names_of_layers
from torchwhy.engine.explained_layers import explain_by_layers
from torchwhy.engine.layers.layer import LayerLike, resolve_layer
from torchwhy.engine.prepare import prepare_for
from torchwhy.engine.run.autograd import enable_grad_for, isolated
from torchwhy.engine.run.rows import rows_between
from torchwhy.engine.structure import flatten
from torchwhy.input_types import Inputs
from torchwhy.problem import Problem
from torchwhy.result import Result
from torchwhy.settings import Count, Positive
from torchwhy.targets.target import logits_per_row
from torchwhy.viewable import Table, Viewable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import AnyOption


@dataclass(frozen=True, eq=False, repr=False)
class LensReading(Viewable):
    """The tokens that each position would say next, block by block.

    Args:
        tokens: the most probable ones first, LongTensor ``(N, layers, positions, top)``.
        probabilities: theirs, of the same shape.
        layers: the names of the layers.
    """

    tokens: Tensor
    probabilities: Tensor
    layers: list[str]

    def _picture(
        self,
        pictures: ModuleType,
        row: int = 0,
        decode: Callable[[list[int]], str] | None = None,
        names: Sequence[str] | None = None,
        **options: AnyOption,
    ) -> Figure:
        """Draw the probability of the first token at each layer and position, with the token written there.

        Args:
            pictures: :mod:`torchwhy.visualize`.
            row: which row.
            decode: from token ids to their text, as a tokenizer's; None writes the ids.
            names: of the positions.
            options: of :func:`torchwhy.visualize.matrix`.
        """
        known: dict[str, AnyOption] = {
            "xlabel": "position",
            "ylabel": "layer",
            "label": "probability",
            "signed": False,
            "percentile": 100.0,
        }
        first = self.tokens[row, ..., 0].tolist()
        texts = [[str(token) if decode is None else decode([token]) for token in line] for line in first]
        return pictures.matrix(
            self.probabilities[row, ..., 0], self.layers, names, **{**known, "texts": texts, **options}
        )

    def _table(self) -> Table:
        lines: list[list[object]] = []
        for n, layer, position, rank in torch.cartesian_prod(*map(torch.arange, self.tokens.shape)).tolist():
            where: list[object] = [n, self.layers[layer], position, rank]
            token, probability = (t[n, layer, position, rank].item() for t in (self.tokens, self.probabilities))
            lines.append([*where, token, probability])
        return ["row", "layer", "position", "rank", "token", "probability"], lines


class LogitLens(CircuitMethod):
    r"""What the score would be if the model ended after a block: :math:`A_{nl} = g(h_l(x_n))`, g what follows the last block.

    Shape ``(N, layers)``, in units of the score; the last one is the score itself. Not an attribution: it says what could be read
    from the stream, not what the model makes of it. :meth:`read` gives the tokens themselves, at every position. Takes a run for
    each layer, and one before, to read them.

    Args:
        layer: the layers; None is every block. The last one is where the others are put.

    Raises:
        LookupError: no blocks were found: name the layers.
        ValueError: layers that pass other shapes than the last one.

    Paper: nostalgebraist 2020, "Interpreting GPT: the logit lens"; Belrose et al. 2023, arXiv:2303.08112, section 2.
    """

    layer: LayerLike | Sequence[LayerLike | None] | None = None  # type: ignore[assignment]  # one tensor of them all

    needs_gradient: ClassVar[bool] = False
    explains_inputs: ClassVar[bool] = False
    paper: ClassVar[str] = "arXiv:2303.08112"

    def read(self, inputs: Inputs, *, top: Count = 1, additional_forward_args: object = None) -> LensReading:
        """Return the most probable tokens after each block, at every position.

        Args:
            inputs, additional_forward_args: as for :meth:`attribute`.
            top: how many tokens.

        Raises:
            ValueError: the model's output is not ``(N, positions, tokens)``.
        """
        with isolated(self.model):
            problem = prepare_for(self, inputs, additional_forward_args=additional_forward_args)
            with problem.open():
                at = self._at_blocks(problem)
                found = [self._most_probable(one, top) for one in self._ended_after_each(at)]
        tokens, probabilities = (torch.stack(parts, 1) for parts in zip(*found))
        return LensReading(tokens, probabilities, names_of_layers(at.input_layers))

    def _attribute(self, problem: Problem) -> Result:
        at = self._at_blocks(problem)
        scores = [one.run.all_scores(one.x) for one in self._ended_after_each(at)]
        return Result(
            (torch.stack(scores, 1),), details={"axes": ["layer"], "layers": names_of_layers(at.input_layers)}
        )

    def _at_blocks(self, problem: Problem) -> Problem:
        """Return the problem explained by what passes all blocks."""
        if not isinstance(problem.model, nn.Module):
            raise TypeError("model: a plain callable has no layers to read; give a module")
        given = find_blocks(problem.model) if self.layer is None else flatten(self.layer)[0]
        to_input = self.attribute_to_layer_input
        at = explain_by_layers(problem, tuple(resolve_layer(problem.model, one, input=to_input) for one in given), self)
        shapes = {tuple(t.shape) for t in at.x}
        if len(shapes) > 1:
            raise ValueError(
                f"layer: what is put in the place of the last layer has its shape; these pass {sorted(shapes)}"
            )
        return at

    def _ended_after_each(self, at: Problem) -> list[Problem]:
        """Return for each block the problem in which what passes it stands in the place of what passes the last one."""
        return [
            at.replace(x=(self.translate(i, state),), baselines=(), input_layers=at.input_layers[-1:])
            for i, state in enumerate(at.x)
        ]

    def translate(self, number: int, state: Tensor) -> Tensor:
        """Return what passed a block, as if it had passed the last one: itself."""
        return state

    def _most_probable(self, problem: Problem, top: int) -> tuple[Tensor, Tensor]:
        """Return the most probable tokens of each position, and their probabilities, ``(N, positions, top)``."""

        def work(a: int, b: int) -> tuple[Tensor, Tensor]:
            rows = problem.rows[a:b]
            logits = logits_per_row(problem.run.outputs(rows_between(problem.x, a, b), rows), len(rows))
            if logits.dim() != 3:
                raise ValueError(f"model: its output has shape {tuple(logits.shape)}, expected (N, positions, tokens)")
            probabilities, tokens = logits.softmax(-1).topk(top, -1)
            return tokens, probabilities

        return problem.run.concatenated(problem.n, work)  # type: ignore[no-any-return]


class TunedLens(LogitLens):
    r"""The logit lens with a map learned for each block: :math:`A_{nl} = g(h_l + W_l h_l + b_l)`, g what follows the last block.

    Streams of different blocks do not speak one language; the map brings each to that of the last one. :meth:`fit` learns it,
    so that the answer after the block is near the final one: the mean Kullback-Leibler divergence over positions is made small.
    Shape and reading as :class:`LogitLens`, which it is before it has learned.

    Args:
        layer: as for :class:`LogitLens`.
        n_steps: steps of Adam for each block.
        learning_rate: its step.

    Paper: Belrose et al. 2023, arXiv:2303.08112, equations 7 and 8.
    """

    n_steps: Count = 100
    learning_rate: Positive = 1e-2
    maps: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, compare=False)
    losses: list[tuple[float, float]] = field(default_factory=list, init=False, compare=False)

    paper: ClassVar[str] = "arXiv:2303.08112"

    def fit(self, batches: Iterable[Inputs], *, additional_forward_args: object = None) -> TunedLens:
        """Learn the maps; return the lens. ``losses`` are the divergences of each block before and after, in nats.

        Args:
            batches: inputs, one batch after the other, gone through again and again. A single batch is a list of one.
            additional_forward_args: further arguments of the model, the same for all batches.

        Raises:
            ValueError: no batches.
        """
        self.maps, self.losses = {}, []
        with isolated(self.model):
            problems = [prepare_for(self, x, additional_forward_args=additional_forward_args) for x in batches]
            if not problems:
                raise ValueError("batches: there are none")
            with problems[0].open():
                each = list(map(self._at_blocks, problems))
                for number in range(len(each[0].x) - 1):
                    self.maps[number], before, after = self._learn(each, number)
                    self.losses.append((before, after))
        return self

    def translate(self, number: int, state: Tensor) -> Tensor:
        """Return what passed a block, brought to the language of the last one."""
        if number not in self.maps:
            return state
        weight, bias = self.maps[number]
        return state + F.linear(state, weight, bias)

    def _learn(self, problems: Sequence[Problem], number: int) -> tuple[tuple[Tensor, Tensor], float, float]:
        """Return the map of a block, and the mean divergence before and after."""
        width = problems[0].x[number].shape[-1]
        with torch.enable_grad():
            weight = problems[0].x[number].new_zeros(width, width).requires_grad_()
            bias = problems[0].x[number].new_zeros(width).requires_grad_()
        optimizer = torch.optim.Adam([weight, bias], lr=self.learning_rate)
        before = self._mean_divergence(problems, number, weight, bias)
        for step in range(self.n_steps):
            problem = problems[step % len(problems)]
            with enable_grad_for(problem.model, problem.x[0].device):
                loss = _divergence(problem, number, weight, bias)
                loss.backward(inputs=[weight, bias])  # type: ignore[no-untyped-call]
                optimizer.step()
                optimizer.zero_grad()
        learned = weight.detach(), bias.detach()
        return learned, before, self._mean_divergence(problems, number, *learned)

    def _mean_divergence(self, problems: Sequence[Problem], number: int, weight: Tensor, bias: Tensor) -> float:
        """Return the mean divergence over all batches."""
        with torch.no_grad():
            return sum(float(_divergence(p, number, weight, bias)) for p in problems) / len(problems)


def _divergence(problem: Problem, number: int, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the mean divergence of the final answer from that after a block, in nats."""
    state, rows = problem.x[number], problem.rows
    last = problem.replace(input_layers=problem.input_layers[-1:], x=problem.x[-1:], baselines=())
    with torch.no_grad():
        final = logits_per_row(last.run.outputs(last.x, rows), len(rows)).log_softmax(-1)
    said = logits_per_row(last.run.outputs([state + F.linear(state, weight, bias)], rows), len(rows)).log_softmax(-1)
    return F.kl_div(said, final, reduction="none", log_target=True).sum(-1).mean()
