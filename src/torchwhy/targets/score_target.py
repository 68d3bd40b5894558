"""The base of targets with a name: callables that know their data, row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from torchwhy.engine.structure import Output

RowScorer = Callable[[Output, Tensor], Tensor]
Numbers = int | Sequence[int] | Tensor


class Tokenizer(Protocol):
    """What is asked of a tokenizer here."""

    def __call__(self, text: str, *, add_special_tokens: bool) -> Mapping:
        """Return the tokens of a text, under ``"input_ids"``."""

    def decode(self, ids: list[int]) -> str:
        """Return the text of tokens."""


class ScoreTarget:
    """The base class: a callable ``(output, rows)`` → ``(M,)``, and what has to be known before it is called.

    Derive a target of your own from it, or give a plain function; what is here has defaults.
    """

    def __call__(self, output: Output, rows: Tensor) -> Tensor:
        """Return the scores ``(M,)`` that a model's output gives rows ``(M,)``, a LongTensor of which inputs these are."""
        raise NotImplementedError

    def for_rows(self, n: int) -> RowScorer:
        """Return what scores the calls of one piece of work over n rows, after a check that the data fit so many."""
        return self

    @property
    def needs_outputs(self) -> bool:
        """Whether it takes the model's outputs at the inputs to know what is meant."""
        return False

    def predicted(self, output: Output, rows: Tensor) -> Tensor:
        """Return for rows ``(M,)`` what an output predicts, numbers ``(M,)``; asked where ``needs_outputs``."""
        raise NotImplementedError

    def with_predicted(self, predicted: list[int]) -> ScoreTarget:
        """Return the target that is meant where this is predicted for the N rows."""
        return self

    def resolve(self, tokenizer: Tokenizer) -> ScoreTarget:
        """Return the target with texts replaced by the numbers that a tokenizer has for them."""
        return self

    def with_classes(self, column: Callable[[object], object]) -> ScoreTarget:
        """Return the target with the outputs' numbers in the place of a classifier's labels; ``column`` finds them."""
        return self


def check_numbers(name: str, value: object, n: int | None = None) -> Numbers:
    """Return what is an int, or one int for each of n rows (None: of any number).

    Raises:
        TypeError: no whole numbers.
        ValueError: another number of them than rows.
    """
    if isinstance(value, (bool, str, float)) or value is None:
        raise TypeError(f"{name}={value!r}: expected an int, or one for each row")
    try:
        numbers = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name}={value!r}: expected an int, or one for each row") from None
    if numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool or numbers.dim() > 1:
        raise TypeError(
            f"{name}: expected an int, or one for each row; got {numbers.dtype} of shape {tuple(numbers.shape)}"
        )
    check_row_count(name, numbers, n)
    return numbers


def check_row_count(name: str, values: Tensor | Sequence, n: int | None, dims: int = 1) -> None:
    """Refuse values that are neither one for all nor one for each of n rows; one for all has a dimension less than ``dims``.

    Raises:
        ValueError: more or fewer than rows.
    """
    if n is None or (isinstance(values, Tensor) and values.dim() < dims):
        return
    if len(values) not in (1, n):
        raise ValueError(f"{name}: {len(values)} given for {n} rows; give one for all rows or one for each")


def of_rows(values: Tensor, rows: Tensor, like: Tensor, dims: int = 1) -> Tensor:
    """Return what belongs to rows ``(M,)``, from one value for all or one for each, on the device of ``like``.

    ``dims`` is how many dimensions one for each has.
    """
    if values.dim() < dims:
        values = values[None]
    rows = torch.zeros_like(rows) if len(values) == 1 else rows
    return values.to(like.device)[rows.to(like.device)]


def numbers_of_rows(values: Numbers, rows: Tensor, like: Tensor) -> Tensor:
    """Return the numbers ``(M,)`` of rows ``(M,)``, from an int or one for each."""
    return of_rows(torch.as_tensor(values), rows, like).long()
