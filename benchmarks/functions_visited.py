"""Which functions does one call visit? In order, with their depth: what has to be read to follow it, line by line.

``python benchmarks/functions_visited.py [METHOD ...]`` explains one image, one row, by a small network. Functions of torchwhy
only, each once, where it is first called; comprehensions and lambdas are read with the function that they stand in and left out.
The call is the first one on its model, with all modules of torchwhy that it needs imported before.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import nn

import torchwhy as tw

PACKAGE = Path(tw.__file__).parent
METHODS = {
    "Saliency": lambda model: tw.Saliency(model),
    "GradCAM": lambda model: tw.GradCAM(model, layer="2"),
    "LRP": lambda model: tw.LRP(model, composite="epsilon"),
    "KernelSHAP": lambda model: tw.KernelSHAP(model, n_samples=32, generator=0),
}


class Visit(NamedTuple):
    """A function that was called: its file below the package, its name, and below how many of torchwhy's functions."""

    file: str
    function: str
    depth: int


def functions_visited(call: Callable[[], Any]) -> list[Visit]:
    """Return the functions of torchwhy that ``call`` visits, each once, in the order of their first calls."""
    found: dict[tuple[str, int], Visit] = {}

    def counts(frame: FrameType) -> bool:
        return frame.f_code.co_filename.startswith(str(PACKAGE)) and not frame.f_code.co_name.startswith("<")

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        where = (code.co_filename, code.co_firstlineno)
        if event != "call" or where in found or not counts(frame):
            return
        depth, outer = 1, frame.f_back
        while outer is not None:
            depth += counts(outer)
            outer = outer.f_back
        file = Path(code.co_filename).relative_to(PACKAGE).as_posix()
        found[where] = Visit(file, getattr(code, "co_qualname", code.co_name), depth)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
    return list(found.values())


def network() -> nn.Sequential:
    """Return a small convolutional network of seven modules."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    ).eval()


def visited_by(name: str) -> list[Visit]:
    """Return what one call of the method with this name visits on the small network."""
    x = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    options = {"feature_mask": tw.patches(x, 3)} if name == "KernelSHAP" else {}
    METHODS[name](network()).attribute(x, 0, **options)  # imports what it needs
    method = METHODS[name](network())
    return functions_visited(lambda: method.attribute(x, 0, **options))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", default=list(METHODS), help=f"of {', '.join(METHODS)} (default: all)")
    for name in parser.parse_args().methods:
        visits = visited_by(name)
        files = {visit.file for visit in visits}
        print(f"{name}: {len(visits)} functions in {len(files)} files, at most {max(v.depth for v in visits)} deep")
        for file, function, depth in visits:
            print(f"{depth:4} {'  ' * (depth - 1)}{function}  ({file})")
        print()


if __name__ == "__main__":
    main()
