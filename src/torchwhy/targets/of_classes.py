"""Targets over classes or tokens: probabilities, log probabilities, differences, entropy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from torchwhy.engine.structure import Output
from torchwhy.engine.torch_internals import without_torch_functions
from torchwhy.targets.score_target import Numbers, RowScorer, ScoreTarget, Tokenizer, check_numbers, numbers_of_rows
from torchwhy.targets.target import logits_per_row

Tokens = Numbers | str | Sequence[str]  # numbers of classes or tokens, or texts that a tokenizer has numbers for

SUMS_TO_ONE = 1e-3  # how far the probabilities of a row may be from that, by rounding


class OutputKind:
    """Whether a model's outputs are logits or probabilities: as told, or as the first that is seen are.

    Args:
        from_logits: True, False, or None to look.
    """

    def __init__(self, from_logits: bool | None) -> None:
        self.from_logits = from_logits

    def probabilities(self, out: Tensor) -> Tensor:
        """Return the probabilities that an output ``(M, K)`` gives the classes."""
        return out.softmax(1) if self._is_logits(out) else out

    def log_probabilities(self, out: Tensor) -> Tensor:
        """Return their logarithms."""
        return out.log_softmax(1) if self._is_logits(out) else out.log()

    def _is_logits(self, out: Tensor) -> bool:
        if self.from_logits is None:  # once: a model's answers are of one kind
            with torch.no_grad(), without_torch_functions():  # no operations of the score: rules do not see them
                off = (out.double().sum(1) - 1).abs()
                near = bool((off < max(SUMS_TO_ONE, torch.finfo(out.dtype).eps)).all())
                self.from_logits = not (near and bool((out >= 0).all()))
        return self.from_logits


class ClassTarget(ScoreTarget):
    """The base of the targets over classes: of an output ``(N, classes)``, or of ``(N, length, classes)`` at a position.

    Args:
        position: where in an output ``(N, length, classes)``, from its end where negative; an int, or one for each row.
        from_logits: whether the outputs are logits (True) or probabilities (False); None looks whether the first ones are not
            negative and sum to 1.
    """

    position: Numbers = -1
    from_logits: bool | None = None
    names_classes: ClassVar[tuple[str, ...]] = ()  # the settings that say which classes are meant
    is_of_probabilities: ClassVar[bool] = True  # or of the outputs themselves

    def with_classes(self, column: Callable[[object], object]) -> Self:
        """Return the target with the outputs' numbers in the place of a classifier's labels; ``column`` finds them."""
        return replace(self, **{name: column(getattr(self, name)) for name in self.names_classes})  # type: ignore[type-var]

    def score(self, out: Tensor, rows: Tensor, kind: OutputKind) -> Tensor:
        """Return the scores ``(M,)`` of rows ``(M,)`` from outputs ``(M, classes)``."""
        raise NotImplementedError

    def check(self, n: int | None) -> None:
        """Refuse data that do not fit n rows."""

    def for_rows(self, n: int) -> RowScorer:
        """Return what scores the calls of one piece of work over n rows: all as logits, or all as probabilities."""
        self.check(n)
        check_numbers("position", self.position, n)
        kind = OutputKind(self.from_logits)

        def scorer(output: Output, rows: Tensor) -> Tensor:
            return self.score(self.classes(output, rows), rows, kind)

        return scorer

    def __call__(self, output: Output, rows: Tensor) -> Tensor:
        """Return the scores ``(M,)`` of an output by itself."""
        return self.score(self.classes(output, rows), rows, OutputKind(self.from_logits))

    def classes(self, output: Output, rows: Tensor) -> Tensor:
        """Return outputs ``(M, classes)`` of rows ``(M,)``, at the position where there are several.

        Raises:
            ValueError: an output of other dimensions, or without this position.
        """
        out = logits_per_row(output, len(rows))
        if out.dim() == 3:
            at = numbers_of_rows(self.position, rows, out)
            if bool(((at >= out.shape[1]) | (at < -out.shape[1])).any()):
                raise ValueError(f"position={self.position!r}: the output has {out.shape[1]} positions")
            out = out[torch.arange(len(out), device=out.device), at]
        if out.dim() != 2:
            raise ValueError(
                f"target: {type(self).__name__} needs an output (N, classes) or (N, length, classes), this one has shape "
                f"{tuple(out.shape)}"
            )
        return out


@dataclass(frozen=True, eq=False)
class Probability(ClassTarget):
    r"""The probability of a class: :math:`\mathrm{softmax}(f(x_n))_{y_n}`, of an output that holds logits.

    Args:
        labels: the class, or one for each row; None is each row's most probable one, found by running the model once more.
        position, from_logits: see :class:`ClassTarget`.

    Raises:
        ValueError: a single class, of which the softmax is 1 everywhere; another number of labels than rows.

    >>> out = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    >>> Probability([0, 1])(out, torch.tensor([0, 1]))
    tensor([0.5000, 0.2689])
    """

    labels: Numbers | None = None
    position: Numbers = field(default=-1, kw_only=True)
    from_logits: bool | None = field(default=None, kw_only=True)
    names_classes = ("labels",)

    def check(self, n: int | None) -> None:
        """Refuse labels that do not fit n rows."""
        if self.labels is not None:
            check_numbers("labels", self.labels, n)

    def score(self, out: Tensor, rows: Tensor, kind: OutputKind) -> Tensor:
        """Return the probabilities of the rows' classes."""
        if out.shape[1] == 1:
            raise ValueError(
                "target: the output has one class, of which the softmax is 1 everywhere; its own probability is a callable, as "
                "lambda out: out.sigmoid()[:, 0]; metrics take softmax=False"
            )
        labels: Numbers = self.predicted(out, rows) if self.labels is None else self.labels
        if self.labels is None:
            rows = torch.arange(len(out), device=out.device)
        return take_class("labels", kind.probabilities(out), labels, rows)

    @property
    def needs_outputs(self) -> bool:
        """Whether the labels are yet to be found."""
        return self.labels is None

    def predicted(self, output: Output, rows: Tensor) -> Tensor:
        """Return the most probable class of rows ``(M,)``."""
        return self.classes(output, rows).argmax(1)

    def with_predicted(self, predicted: list[int]) -> Probability:
        """Return the target with these labels, one for each row."""
        return replace(self, labels=predicted)


@dataclass(frozen=True, eq=False)
class LogProb(ClassTarget):
    r"""The log probability of a token, or class: :math:`\log \mathrm{softmax}(f(x_n)_p)_t`.

    Of a causal language model, whose output at position p is about the token after it, ``position=-1`` is the token that comes
    next.

    Args:
        token: its number, or one for each row; a text (or one for each row) where a sample has a tokenizer.
        position, from_logits: see :class:`ClassTarget`.

    Raises:
        ValueError: a text without a tokenizer, or that is not one token.
    """

    token: Tokens
    position: Numbers = -1
    from_logits: bool | None = field(default=None, kw_only=True)
    names_classes = ("token",)

    def check(self, n: int | None) -> None:
        """Refuse tokens that do not fit n rows, or that are still text."""
        check_tokens("token", self.token, n)

    def score(self, out: Tensor, rows: Tensor, kind: OutputKind) -> Tensor:
        """Return the log probabilities of the rows' tokens."""
        return take_class("token", kind.log_probabilities(out), self.token, rows)

    def resolve(self, tokenizer: Tokenizer) -> LogProb:
        """Return the target with numbers in the place of text."""
        return replace(self, token=token_numbers("token", self.token, tokenizer))


@dataclass(frozen=True, eq=False)
class Contrast(ClassTarget):
    """The output of one class or token less that of another: why a, and not b?

    For logits the logarithm of how many times more probable a is than b. Of answers of several tokens explain each as the
    response of a :class:`torchwhy.Prompt`, and subtract: ``e - other``.

    Args:
        a, b: classes or tokens, each a number, or one for each row; texts where a sample has a tokenizer.
        position: see :class:`ClassTarget`.

    Raises:
        ValueError: a text without a tokenizer, or that is not one token.
    """

    a: Tokens
    b: Tokens
    position: Numbers = field(default=-1, kw_only=True)
    names_classes = ("a", "b")

    is_of_probabilities: ClassVar[bool] = False

    def check(self, n: int | None) -> None:
        """Refuse classes that do not fit n rows, or that are still text."""
        for name in ("a", "b"):
            check_tokens(name, getattr(self, name), n)

    def score(self, out: Tensor, rows: Tensor, kind: OutputKind) -> Tensor:
        """Return the differences."""
        return take_class("a", out, self.a, rows) - take_class("b", out, self.b, rows)

    def resolve(self, tokenizer: Tokenizer) -> Contrast:
        """Return the target with numbers in the place of texts."""
        return replace(self, a=token_numbers("a", self.a, tokenizer), b=token_numbers("b", self.b, tokenizer))


@dataclass(frozen=True, eq=False)
class Entropy(ClassTarget):
    r"""How undecided the model is: :math:`-\sum_k p_k \log p_k` over the probabilities of its classes, in nats.

    Between 0 (certain) and log K (all K alike). Positive attributions are of what makes the model unsure.

    Args:
        position, from_logits: see :class:`ClassTarget`.

    >>> round(Entropy()(torch.zeros(1, 4), torch.tensor([0])).item(), 4)  # log 4
    1.3863
    """

    position: Numbers = field(default=-1, kw_only=True)
    from_logits: bool | None = field(default=None, kw_only=True)

    def score(self, out: Tensor, rows: Tensor, kind: OutputKind) -> Tensor:
        """Return the entropies."""
        p, log_p = kind.probabilities(out), kind.log_probabilities(out)
        return -(p * torch.where(p > 0, log_p, 0)).sum(1)


def take_class(name: str, values: Tensor, number: Tokens, rows: Tensor) -> Tensor:
    """Return the values ``(M,)`` of the classes that are meant, one for all rows or one for each, from ``(M, classes)``.

    Raises:
        TypeError: still a text.
        ValueError: a class that the output has not.
    """
    at = numbers_of_rows(check_tokens(name, number, None), rows, values)
    if bool(((at < 0) | (at >= values.shape[1])).any()):
        wrong = int(at[(at < 0) | (at >= values.shape[1])][0])
        raise ValueError(
            f"{name}: {wrong} is out of range, the output has {values.shape[1]} (0 to {values.shape[1] - 1})"
        )
    return values.gather(1, at[:, None])[:, 0]


def check_tokens(name: str, tokens: Tokens, n: int | None) -> Numbers:
    """Return tokens that are numbers, one for all or one for each of n rows (None: of any number).

    Raises:
        ValueError: a text, for which a tokenizer is needed.
    """
    texts = [tokens] if isinstance(tokens, str) else tokens
    if isinstance(texts, (list, tuple)) and any(isinstance(t, str) for t in texts):
        raise ValueError(
            f"{name}={tokens!r}: a text needs a tokenizer; give the number of the token, or inputs that have one (tw.Prompt, "
            "tw.Text), or LogProb(...).resolve(tokenizer)"
        )
    return check_numbers(name, tokens, n)


def token_numbers(name: str, tokens: Tokens, tokenizer: Tokenizer) -> Tokens:
    """Return the numbers that a tokenizer has for tokens that are given as text; numbers as they are.

    Raises:
        ValueError: a text that is no single token.
    """
    if isinstance(tokens, str):
        return _token_number(name, tokens, tokenizer)
    if isinstance(tokens, (list, tuple)):
        return [_token_number(name, t, tokenizer) if isinstance(t, str) else t for t in tokens]
    return tokens


def _token_number(name: str, text: str, tokenizer: Tokenizer) -> int:
    """Return the number of the only token of a text; a token of blanks alone before it does not count.

    Raises:
        ValueError: several tokens, or that for whatever the tokenizer does not know.
    """
    ids = _ids_of_word(text, tokenizer)
    unknown = getattr(tokenizer, "unk_token_id", None)
    stands_for = "" if unknown is None else tokenizer.decode([unknown]).strip()
    if len(ids) == 1 and (ids[0] != unknown or text.strip() == stands_for):
        return ids[0]
    with_blank = _ids_of_word(" " + text, tokenizer) if text.strip() and not text[0].isspace() else []
    known = len(with_blank) == 1 and with_blank[0] != unknown
    meant = f"; did you mean {' ' + text!r}, which is one token?" if known else ""
    if len(ids) == 1:
        raise ValueError(
            f"{name}={text!r}: this tokenizer does not know it, and has {stands_for!r} in its place{meant}"
        )
    pieces = [tokenizer.decode([i]) for i in ids]
    raise ValueError(
        f"{name}={text!r}: {len(ids)} tokens for this tokenizer, {pieces}; give one of them, or its number"
        + (meant or "; a longer answer is the response of a tw.Prompt, and why one and not another is e - other")
    )


def _ids_of_word(text: str, tokenizer: Tokenizer) -> list[int]:
    """Return the tokens of a text, without those of blanks alone before a word."""
    ids = [int(i) for i in tokenizer(text, add_special_tokens=False)["input_ids"]]
    if len(ids) > 1 and text.strip():
        ids = [i for i in ids if tokenizer.decode([i]).strip()]
    return ids
