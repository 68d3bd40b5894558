"""``import torchwhy as tw`` gives types: mypy, strict, passes what users write and finds their mistakes."""

import os
import re
import runpy
from pathlib import Path
from types import UnionType
from typing import get_args, get_origin

import pytest

import torchwhy

PACKAGE = Path(torchwhy.__file__).parent
HERE = Path(__file__).parent / "typing"
FILES = [HERE / "public_face.py", HERE / "forms.py", HERE / "mistakes.py"]
FORMS = runpy.run_path(str(HERE / "forms.py"))


def expected() -> dict[str, str]:
    """The kinds of error that are said at the end of a line, ``# error: KIND``, by file and line."""
    found = {}
    for path in FILES:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if match := re.search(r"  # error: ([\w-]+)$", line):
                found[f"{path.name}:{number}"] = match[1]
    return found


@pytest.mark.slow  # `make types` runs it
def test_mypy_passes_what_users_write_and_finds_their_mistakes(monkeypatch):
    api = pytest.importorskip("mypy.api")
    monkeypatch.setenv("MYPYPATH", str(PACKAGE.parent))
    options = ["--config-file", str(HERE / "mypy.ini"), "--cache-dir", os.devnull]
    said, crash, _ = api.run([*options, *map(str, FILES)])
    assert not crash
    lines = re.findall(r"^(.*?):(\d+): error: .*\[([\w-]+)\]$", said, re.M)
    assert {f"{Path(path).name}:{number}": kind for path, number, kind in lines} == expected(), said
    assert f"Found {len(lines)} errors" in said, said


def is_of(value, hint):
    """Whether a value has a type, which may be a union, a list, a tuple of any length or a dict by name."""
    kind, inside = get_origin(hint), get_args(hint)
    if kind is UnionType:
        return any(is_of(value, one) for one in inside)
    if kind is dict:
        return isinstance(value, dict) and all(is_of(k, inside[0]) and is_of(v, inside[1]) for k, v in value.items())
    return isinstance(value, kind or hint) and (kind is None or all(is_of(v, inside[0]) for v in value))


@pytest.mark.parametrize("part", FORMS["PARTS"], ids=lambda part: part.__name__)
def test_what_is_returned_is_what_type_checkers_are_told(part, monkeypatch):
    told = []

    def checked(value, hint):
        told.append(hint)
        assert is_of(value, hint), f"{type(value).__name__} of {[type(v).__name__ for v in value]}, told: {hint}"

    monkeypatch.setitem(part.__globals__, "assert_type", checked)
    part()
    assert told


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").is_file()
