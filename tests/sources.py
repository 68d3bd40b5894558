"""The package's files, read and parsed once for all tests that look at its code."""

import ast
from functools import cache
from pathlib import Path

import torchwhy

PACKAGE = Path(torchwhy.__file__).parent
FILES = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {file: ast.parse(text) for file, text in FILES.items()}


@cache
def all_nodes():
    """Every node of every file, with the file."""
    return [(file, node) for file, tree in TREES.items() for node in ast.walk(tree)]
