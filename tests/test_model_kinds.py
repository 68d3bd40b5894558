"""Every method on every kind of model: the numbers of the plain module, or words that say what would do."""

import re
import warnings
from functools import cache
from pathlib import Path

import pytest
import torch
from cases import CASES, in_turn
from kinds import KINDS, at, family, traits

HERE = Path(__file__).parent
FAMILIES = sorted({family(case) for case in CASES})
LONG = [("compiled_function", "attention"), ("compiled_function", "backprop")]  # compiled anew for each shape or rule
PAIRS = [
    pytest.param(*pair.values, marks=pytest.mark.slow) if pair.values in LONG else pair
    for pair in in_turn(KINDS, FAMILIES, len(FAMILIES) // 2)
]
IGNORED = ("ignore::FutureWarning", "ignore::DeprecationWarning")


def attribute(case, model, x, target):
    """Attributions, and what the method warned of: its warnings point at this file, those of torch at torch."""
    torch.manual_seed(0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = case.make(model).attribute(x, target, **case.data)
    return found.double(), [str(w.message) for w in caught if Path(w.filename).parent == HERE]


@cache
def of_the_plain_module(name, number):
    kind, case = KINDS[name], CASES[number]
    right = kind.models(case.net)[1]
    x = kind.rows(case.net).as_subclass(torch.Tensor).to(next(right.parameters()).dtype)
    return attribute(at(case, kind.plain_prefix), right, x, 1)


def expected(table, case):
    """What a table by traits says of a method; None where it says nothing."""
    found = traits(case)
    return next((value for trait, value in table.items() if trait in found), None)


def check(name, number):
    kind, case = KINDS[name], CASES[number]
    model, x, refusal = kind.models(case.net)[0], kind.rows(case.net), expected(kind.refuses, case)
    named = at(case, kind.prefix)
    if refusal is not None:
        with pytest.raises((ValueError, TypeError, LookupError, NotImplementedError)) as error:
            attribute(named, model, x, kind.target)
        assert re.search(refusal, str(error.value)), str(error.value)
        return
    right, usual = of_the_plain_module(name, number)
    found, said = attribute(named, model, x, kind.target)
    said, saying = [m for m in said if m not in usual], expected(kind.says, case)
    assert all(saying is not None and re.search(saying, m) for m in said), said
    assert said or not saying, f"no word of {saying!r}"
    assert found.shape == right.shape
    least, cosine = expected(kind.differs, case), torch.cosine_similarity(found.flatten(), right.flatten(), 0)
    if least is None and kind.cosine is None:
        assert float((found - right).abs().max()) <= kind.rtol * float(right.abs().max())
    assert cosine >= (least if least is not None else kind.cosine or 0.9999)


def chosen(name, member):
    """The number of the case that stands for a family: another one for each kind, so that each has its turn."""
    numbers = [i for i, case in enumerate(CASES) if family(case) == member]
    return numbers[list(KINDS).index(name) % len(numbers)]


@pytest.mark.filterwarnings(*IGNORED)
@pytest.mark.parametrize("name, member", PAIRS)
def test_a_family_on_a_kind(name, member):
    check(name, chosen(name, member))


@pytest.mark.slow
@pytest.mark.filterwarnings(*IGNORED)
@pytest.mark.parametrize("number", range(len(CASES)), ids=[str(case) for case in CASES])
@pytest.mark.parametrize("name", KINDS)
def test_a_method_on_a_kind(name, number):
    check(name, number)


def test_the_table_is_large():
    assert len(KINDS) >= 42
    assert len(CASES) >= 66
