"""Which tokens of a sequence are explained, and which of them are real."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor

from torchwhy.arguments import PerRow
from torchwhy.attention.selection import check_indices, index_list
from torchwhy.problem import Problem

TokenSetting = int | Sequence[int] | Tensor | PerRow | None


def check_token_setting(name: str, given: TokenSetting) -> None:
    """Refuse a setting that names no tokens.

    Raises:
        ValueError: it does not.
    """
    given = given.tensor if isinstance(given, PerRow) else given
    if not isinstance(given, Tensor):
        check_indices(name, given)
    elif given.dim() not in (1, 2) or given.is_floating_point() or given.dtype == torch.bool:
        raise ValueError(
            f"{name}: a tensor of shape {tuple(given.shape)} and {given.dtype}; expected a whole number for each row, (N,), or "
            "several, (N, K)"
        )


def named_tokens(
    name: str, given: TokenSetting, rows: Tensor, total: int, count: int, real: Tensor | None
) -> Tensor | None:
    """Return the tokens ``(M, K)`` that a setting names for rows ``(M,)`` of ``total``, from 0; None where it names none.

    A tensor, or :class:`torchwhy.PerRow`, has one, or several, for each row; a number, or a list of them, is for all.

    Args:
        name: of the setting, for errors.
        given: its value.
        rows: which of the rows these are.
        total: how many rows there are.
        count: how many tokens the sequence has.
        real: which of them are no padding, ``(M, count)``; None where it is not known.

    Raises:
        IndexError: no such token.
        ValueError: another number of rows, or a token that is padding.
    """
    if given is None:
        return None
    given = given.tensor if isinstance(given, PerRow) else given
    if isinstance(given, Tensor):
        if len(given) != total:
            raise ValueError(
                f"{name}: {len(given)} of them for {total} rows; give one for each row, or a number for all"
            )
        tokens = given.to(rows.device, torch.long)[rows].view(len(rows), -1)
    else:
        tokens = torch.tensor(index_list(given), device=rows.device).expand(len(rows), -1)
    wrong = (tokens < -count) | (tokens >= count)
    if bool(wrong.any()):
        shown = given if not isinstance(given, Tensor) else int(tokens[wrong][0])
        raise IndexError(f"{name}={shown!r}: the model has {count} tokens (0 to {count - 1})")
    tokens = tokens % count
    if real is not None and not bool(real.gather(1, tokens).all()):
        row, k = (~real.gather(1, tokens)).nonzero()[0].tolist()
        raise ValueError(
            f"{name}={int(tokens[row, k])}: it is padding in row {int(rows[row])}, whose attention mask is 0 there"
        )
    return tokens


def default_tokens(attention: Tensor, real: Tensor | None) -> Tensor:
    """Return the token ``(n, 1)`` that answers in a text: the last real one of a causal model, else the first real one.

    Args:
        attention: a matrix of each row, ``(n, heads, T, T)``.
        real: which tokens are no padding, ``(n, T)``; None where it is not known.
    """
    n, count = len(attention), attention.shape[-1]
    ahead = looks_ahead(attention, real)
    if real is None:
        real = torch.ones(n, count, dtype=torch.bool, device=attention.device)
    if not ahead:
        return (count - 1 - real.flip(1).int().argmax(1))[:, None]
    return real.int().argmax(1)[:, None]


def looks_ahead(attention: Tensor, real: Tensor | None) -> bool:
    """Say whether a real token looks at a later one, as not in a causal model; a single token counts as if it did.

    Args:
        attention: as for :func:`default_tokens`.
        real: likewise.
    """
    ahead = attention.triu(1)
    if real is not None:
        ahead = ahead * (real[:, None, :, None] & real[:, None, None])
    return attention.shape[-1] < 2 or bool(ahead.any())


def real_tokens(problem: Problem, rows: Tensor, source: int | None, count: int) -> Tensor | None:
    """Return which tokens of a sequence are no padding, ``(M, count)`` bool, as an attention mask among the arguments says.

    Args:
        problem: whose further arguments are looked through: ``attention_mask``, ``decoder_attention_mask``, and masks of torch's
            transformers, ``..._padding_mask``, where padding is True.
        rows: which rows of the caller's, ``(M,)``.
        source: the number of the input that the sequence is, None of another one.
        count: how many tokens it has.
    """
    args, kwargs = problem.inputs.further(rows)
    named = {**_names_of(problem, args), **kwargs}
    of_input = "" if source is None or problem.inputs.names is None else problem.inputs.names[source]
    fitting = {
        k: v
        for k, v in named.items()
        if k.endswith(("attention_mask", "padding_mask")) and isinstance(v, Tensor) and v.shape == (len(rows), count)
    }
    if of_input:
        fitting = {k: v for k, v in fitting.items() if k.startswith("decoder") == of_input.startswith("decoder")}
    elif any(k.startswith("decoder") for k in fitting):
        fitting = {k: v for k, v in fitting.items() if k.startswith("decoder")}
    for name, mask in fitting.items():
        real = mask == 0 if name.endswith("padding_mask") else mask != 0
        if bool(real.any(1).all()):
            return real
    return None


def _names_of(problem: Problem, args: Sequence[object]) -> dict[str, object]:
    """Return further positional arguments by the names that the model has for them."""
    if not args:
        return {}
    try:
        names = list(inspect.signature(getattr(problem.model, "forward", None) or problem.model).parameters)
    except (TypeError, ValueError):
        return {}
    skipped = 0 if problem.inputs.names else len(problem.inputs.tensors)
    return dict(zip(names[skipped:], args))
