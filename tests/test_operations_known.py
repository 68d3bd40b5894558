"""Every function of torch belongs to a family of operations, so that a new release of torch says what is missing."""

import warnings
from collections import defaultdict
from itertools import combinations

import torch

from torchwhy.engine.rules import operations
from torchwhy.engine.rules.decompositions import DECOMPOSITIONS
from torchwhy.engine.rules.operations import operation

PROPERTIES = ("NONNEGATIVE", "KEEPS_SIGN")  # of operations that have a family of their own
KINDS = ("LINEAR", "NOT_DIFFERENTIABLE", "FACTORIES", "WITHOUT_RULE")  # which exclude each other, and what has a rule


def families():
    """The families of the module by name, and the operations that are taken apart into others."""
    found = {
        name: frozenset(value)
        for name, value in vars(operations).items()
        if name.isupper() and isinstance(value, (tuple, frozenset)) and name not in PROPERTIES
    }
    return {**found, "DECOMPOSITIONS": frozenset(DECOMPOSITIONS) - {"batch_norm"}}


def functions():
    """The functions that torch lets be overridden, by their operations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some are deprecated
        every = torch.overrides.get_testing_overrides()
    found = defaultdict(list)
    for function in every:
        found[operation(function).name].append(torch.overrides.resolve_name(function) or function.__name__)
    return found


def test_every_function_of_torch_is_in_a_family():
    known = frozenset().union(*families().values())
    missing = [f"{name} ({', '.join(found)})" for name, found in sorted(functions().items()) if name not in known]
    assert not missing, f"{len(missing)} in no family of engine/rules/operations.py:\n" + "\n".join(missing)


def test_no_operation_is_of_two_kinds():
    found = families()
    kinds = {name: found.get(name, frozenset()) for name in KINDS}
    within = frozenset().union(*(found[name] for name in ("LINEAR_LAYERS", "CONVOLUTIONS", "STRUCTURAL")))
    assert within <= kinds["LINEAR"]
    kinds["with a rule"] = frozenset().union(*(v for name, v in found.items() if name not in KINDS)) - within
    for (a, these), (b, those) in combinations(kinds.items(), 2):
        assert not these & those, f"{a} and {b}: {sorted(these & those)}"
