"""What the source keeps to, counted: no count may rise above its limit."""

import ast
import re
from collections import defaultdict
from functools import cache

import pytest
from sources import FILES, TREES, all_nodes

CONTAINERS = {"tuple", "list", "dict", "Mapping", "Sequence"}
DUNDERS = {"__all__", "__getattr__", "__dir__"}  # names that mean the same in every module


def nodes(kind):
    """Every node of a kind, with its place."""
    for file, node in all_nodes():
        if isinstance(node, kind):
            yield f"{file}:{node.lineno}", node


def nested_conditional_expressions():
    """``a if b else c if d else e``, in whatever part, also in a call, a comprehension or a lambda in one of them."""
    for place, node in nodes(ast.IfExp):
        if any(isinstance(inner, ast.IfExp) for inner in ast.walk(node) if inner is not node):
            yield place


def summaries_without_a_verb():
    """Docstrings of functions that begin with a noun, as ``Draws of``, or with a clause, as ``While open``: D401 misses them."""
    clauses = {"While", "Inside", "For", "With", "Where", "When", "If", "In", "On", "As", "At", "From", "To", "Whether"}
    nouns = {"Unbiased", "One", "All", "Each", "Some", "Several"}
    for place, node in nodes(ast.FunctionDef):
        named = any(
            word in ast.unparse(decorator) for decorator in node.decorator_list for word in ("property", "setter")
        )
        first = (ast.get_docstring(node) or "Return").split()[0].strip(",:;.")
        plural = first.endswith("s") and not first.endswith("ss")
        if not named and (first in clauses | nouns or plural or not re.fullmatch("[A-Z][a-z]+", first)):
            yield f"{place} {node.name}: {first}"


def chosen_from(value):
    """What an expression may be, or hold: the branches of a conditional, the entries of a tuple, a list, a set or a dict."""
    parts = {ast.IfExp: ("body", "orelse"), ast.BoolOp: ("values",), ast.Dict: ("values",), ast.NamedExpr: ("value",)}
    parts |= dict.fromkeys((ast.Tuple, ast.List, ast.Set), ("elts",))
    if type(value) not in parts:
        yield value
    for part in parts.get(type(value), ()):
        found = getattr(value, part)
        for entry in found if isinstance(found, list) else [found]:
            yield from chosen_from(entry)


def lambdas_with_names():
    """``f = lambda: ...``, also with a type, in ``:=``, as a branch of a conditional, or in a tuple or a dict that has a name."""
    for place, node in nodes((ast.Assign, ast.AnnAssign, ast.NamedExpr)):
        if any(isinstance(value, ast.Lambda) for value in chosen_from(node.value)):
            yield place


@cache
def names_of_any():
    """``Any`` and the names that stand for it: ``X = Any``, and ``Y = X`` of such a name."""
    names = {"Any"}
    while True:
        found = set()
        for _, node in nodes((ast.Assign, ast.AnnAssign)):
            if isinstance(node.value, (ast.Name, ast.Attribute)) and ast.unparse(node.value).split(".")[-1] in names:
                found |= {target.id for target in targets(node) if isinstance(target, ast.Name)}
        if found <= names:
            return names
        names |= found


def uses_of(names):
    """Where names are used; not where they are imported, nor where a name is given to them."""
    naming = {node.value for _, node in nodes((ast.Assign, ast.AnnAssign))}
    for place, node in nodes((ast.Name, ast.Attribute)):
        is_use = node not in naming and not isinstance(getattr(node, "ctx", None), ast.Store)
        if is_use and (node.id if isinstance(node, ast.Name) else node.attr) in names:
            yield place


def anys():
    """``Any``."""
    return uses_of({"Any"})


def other_names_of_any():
    """``AnyForm`` and the like, which say what may have any type."""
    return uses_of(names_of_any() - {"Any"})


def long_files():
    """Files of more than 400 lines."""
    for file, text in FILES.items():
        if (lines := text.count("\n")) > 400:
            yield f"{file}: {lines} lines"


def long_functions():
    """Functions of more than 48 lines, their docstring left out."""
    for place, node in nodes((ast.FunctionDef, ast.AsyncFunctionDef)):
        said = node.body[0].end_lineno - node.body[0].lineno + 1 if ast.get_docstring(node) else 0
        if (lines := node.end_lineno - node.lineno + 1 - said) > 48:
            yield f"{place} {node.name}: {lines} lines"


def targets(node):
    """Return what an assignment assigns to, one by one."""
    flat = list(node.targets) if isinstance(node, (ast.Assign, ast.Delete)) else [node.target]
    for target in flat:  # grows while it is read
        if isinstance(target, (ast.Tuple, ast.List)):
            flat.extend(target.elts)
        elif isinstance(target, ast.Starred):
            flat.append(target.value)
        else:
            yield target


def defined_by(statements):
    """The names that a module's own statements define, imports left out; those of ``if`` and ``try`` too."""
    for node in statements:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            yield from (target.id for target in targets(node) if isinstance(target, ast.Name))
        else:
            for part in ("body", "orelse", "finalbody"):
                yield from defined_by(getattr(node, part, []))


def names_with_two_meanings():
    """Module-level names that more than one file defines."""
    found = defaultdict(list)
    for file, tree in TREES.items():
        for name in set(defined_by(tree.body)) - DUNDERS:
            found[name].append(file)
    for name, files in found.items():
        if len(files) > 1:
            yield f"{name}: {', '.join(files)}"


def is_problem(node):
    """Whether an expression is called a problem: ``problem``, ``self._problem``, ``inner_problem``."""
    name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")
    return name.endswith("problem")


def is_of_a_problem(node):
    """Whether an expression is a problem or something of it, as ``problem.batching``; its tally is there to be counted on."""
    while isinstance(node, (ast.Attribute, ast.Subscript)) and not is_problem(node):
        if isinstance(node, ast.Attribute) and node.attr == "tally":
            return False
        node = node.value
    return is_problem(node)


def assignments_to_a_problem():
    """``problem.x = ...``, ``problem.batching.x += ...``, ``setattr(problem, ...)`` outside the file of ``Problem``."""
    home = next(file for file, tree in TREES.items() if "Problem" in defined_by(tree.body))
    for place, node in nodes((ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Delete, ast.Call)):
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            written = called in ("setattr", "delattr", "__setattr__") and node.args and is_of_a_problem(node.args[0])
        else:
            written = any(
                isinstance(target, ast.Attribute) and is_of_a_problem(target.value) for target in targets(node)
            )
        if written and not place.startswith(f"{home}:"):
            yield place


def draws_of_the_default_type():
    """``torch.rand(...)``, ``torch.randn(...)`` and their kind, whose type is that of ``torch.set_default_dtype``."""
    home = "engine/run/randomness.py"  # where the type is named
    for place, node in nodes(ast.Attribute):
        of_torch = isinstance(node.value, ast.Name) and node.value.id == "torch"
        if of_torch and node.attr in ("rand", "randn", "normal") and not place.startswith(home):
            yield place


# What calls itself over containers elsewhere does not take them apart for what they hold: it reads or writes a target, in which
# a list is one for each row and a tuple an index; what a black box returns; a setting; or numbers for a file and for a reader.
OTHER_WALKS = {
    *(
        "engine/run/black_box.py columns_of_labels",
        "engine/run/estimators.py of_outputs",
        "engine/trials.py _target_kind",
    ),
    *("targets/predicted.py needs_outputs", "targets/target.py _flat_index"),
    *("engine/run/black_box_output.py output_to_tensors", "settings.py equal_settings"),
    *("cli/outputs.py _as_lists", "cli/outputs.py _finite", "provenance.py in_words", "viewable.py in_short"),
    *("explanation/difference.py _is_words_and_numbers", "datasets/likeness.py _stays", "datasets/batches.py _update"),
    *(
        "datasets/batches.py count_batches",
        "datasets/batches.py count_all_rows",
        "counterfactual/constraints.py _holds_numbers",
    ),
    *("settings.py _fits", "settings.py _describe"),  # of a setting and its annotation
    "engine/run/optimizations.py _materialize",  # of one operation's arguments, each time, and so without a call for each
}


def walks_over_containers():
    """Functions that call themselves and ask for tuples, lists or dicts, outside of the module of containers."""
    for place, node in nodes(ast.FunctionDef):
        named, asks, handed = set(), False, set()  # what is handed to map_nested does not walk by itself
        for inner in ast.walk(node):
            if isinstance(inner, ast.Call) and getattr(inner.func, "id", "") == "map_nested":
                handed.add(inner.args[0])
            if isinstance(inner, ast.Name):
                named |= set() if inner in handed else {inner.id}
            if isinstance(inner, (ast.Call, ast.Compare)):
                asked = inner.args[1:] if getattr(getattr(inner, "func", None), "id", "") == "isinstance" else ()
                asked = inner.comparators if isinstance(inner, ast.Compare) else asked
                asks |= any(getattr(n, "id", "") in CONTAINERS for part in asked for n in ast.walk(part))
        file = place.partition(":")[0]
        if asks and node.name in named and file != "engine/structure.py" and f"{file} {node.name}" not in OTHER_WALKS:
            yield f"{place} {node.name}"


def asks_for_containers():
    """``isinstance(value, (tuple, list))`` and the like, outside of the module that takes containers apart."""
    for place, node in nodes(ast.Call):
        asks = getattr(node.func, "id", "") == "isinstance" and not place.startswith("engine/structure.py:")
        if asks and CONTAINERS & {getattr(n, "id", getattr(n, "attr", "")) for n in ast.walk(node.args[1])}:
            yield place


def other_spellings():
    """``optimise`` in names and in prose, ``center`` and ``color`` in docstrings: it is ``optimize``, ``centre``, ``colour``."""
    stems = "normal|optim|general|standard|visual|summar|initial|regular|random|minim|maxim|equal|vector"
    for file, text in FILES.items():
        for found in re.finditer(rf"({stems})is(e|ing|ation)", text, re.IGNORECASE):
            yield f"{file}:{text.count(chr(10), 0, found.start()) + 1} {found[0]}"
    american = re.compile(r"\b(colors?|colored|centers?|centered|neighbors?|favorable?|gray)\b", re.IGNORECASE)
    for file, node in all_nodes():
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)):
            said = re.sub(r"``.*?``|>>> .*|^ *[\w, ]+:", "", ast.get_docstring(node) or "", flags=re.MULTILINE)
            for found in american.finditer(said):
                yield f"{file} {getattr(node, 'name', '')}: {found[0]}"


LIMITS = {
    nested_conditional_expressions: 0,
    lambdas_with_names: 0,
    anys: 150,
    other_names_of_any: 200,  # parts, options and outputs of any form, where these are taken apart
    long_files: 0,
    long_functions: 0,
    names_with_two_meanings: 0,
    assignments_to_a_problem: 0,
    draws_of_the_default_type: 0,
    walks_over_containers: 0,
    asks_for_containers: 190,
    summaries_without_a_verb: 0,
    other_spellings: 0,
}


@pytest.mark.parametrize("count", LIMITS, ids=lambda count: count.__name__)
def test_no_more_than(count):
    found = sorted(count())
    assert len(found) <= LIMITS[count], f"{len(found)}, at most {LIMITS[count]}:\n" + "\n".join(found)
