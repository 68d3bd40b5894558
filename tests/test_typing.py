"""``import torchwhy as tw`` gives types: mypy, strict, passes what users write and finds their mistakes."""

import os
import re
from pathlib import Path

import pytest

import torchwhy

PACKAGE = Path(torchwhy.__file__).parent
HERE = Path(__file__).parent / "typing"
FILES = [HERE / "public_face.py", HERE / "mistakes.py"]


def expected() -> dict[str, str]:
    """The kinds of error that are said at the end of a line, ``# error: KIND``, by file and line."""
    found = {}
    for path in FILES:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if match := re.search(r"  # error: ([\w-]+)$", line):
                found[f"{path.name}:{number}"] = match[1]
    return found


def test_mypy_passes_what_users_write_and_finds_their_mistakes(monkeypatch):
    api = pytest.importorskip("mypy.api")
    monkeypatch.setenv("MYPYPATH", str(PACKAGE.parent))
    options = ["--config-file", str(HERE / "mypy.ini"), "--cache-dir", os.devnull]
    said, crash, _ = api.run([*options, *map(str, FILES)])
    assert not crash
    lines = re.findall(r"^(.*?):(\d+): error: .*\[([\w-]+)\]$", said, re.M)
    assert {f"{Path(path).name}:{number}": kind for path, number, kind in lines} == expected(), said
    assert f"Found {len(lines)} errors" in said, said


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").is_file()
