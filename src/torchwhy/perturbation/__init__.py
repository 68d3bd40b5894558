"""Methods that change the input and watch the output."""

from typing import TYPE_CHECKING

from torchwhy.spelling import refusal_of

if not TYPE_CHECKING:  # type checkers are to find a misspelt name
    __getattr__ = refusal_of(__name__)
