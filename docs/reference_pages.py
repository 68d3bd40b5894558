"""Write docs/reference/: an entry for every public name. ``docs/make.py`` calls it."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
from pathlib import Path
from types import ModuleType

import torchwhy as tw
from torchwhy.public_names import MODULES as MODULE_OF_NAME

REFERENCE = Path(__file__).resolve().parent / "reference"
# the pages, and what is on each: public names of torchwhy by the file or folder they live in
OF_TORCHWHY = {
    "core": ("The base class and its results", "attribution explanation methods wrapper"),
    "inputs": ("Inputs, layers, models", "samples targets engine arguments"),
    "comparing": (
        "Looking and comparing",
        "inspection inspection_result comparison comparison_table visualize app",
    ),
    "gradient": ("Gradients and paths", "gradient"),
    "backprop": ("Replaced backward passes", "backprop"),
    "cam": ("Class activation maps", "cam"),
    "perturbation": ("Perturbation", "perturbation"),
    "shapley": ("Shapley values", "shapley"),
    "attention": ("Attention", "attention"),
    "concept": ("Concepts and units", "concept"),
    "inside": ("Inside a transformer", "circuits"),
    "counterfactual": ("Counterfactuals", "counterfactual"),
    "whole": ("What explanations of many rows say together", "global_view"),
    "surrogate": ("The model as a whole", "surrogate"),
    "training": ("Training data", "influence"),
}
# modules whose ``__all__`` is public
MODULES = {
    "torchwhy.baselines": "Baselines",
    "torchwhy.targets": "Targets",
    "torchwhy.lrp": "Rules and composites of LRP",
    "torchwhy.metrics": "Metrics",
    "torchwhy.circuits": "Parts of a transformer",
    "torchwhy.influence": "Training data: bases, results, measures",
    "torchwhy.visualize": "Pictures",
    "torchwhy.models": "Small models and data",
    "torchwhy.datasets": "Whole data sets",
    "torchwhy.global_view": "Results of the global view",
    "torchwhy.result": "What a method of your own returns",
    "torchwhy.captum.attr": "Captum: attr",
    "torchwhy.captum.attr.visualization": "Captum: attr.visualization",
    "torchwhy.captum.metrics": "Captum: metrics",
    "torchwhy.captum.concept": "Captum: concept",
    "torchwhy.captum.robust": "Captum: robust",
    "torchwhy.captum.module": "Captum: module",
    "torchwhy.captum.influence": "Captum: influence",
}

# what stands at the head of pages that are not of methods with attributions
ABOUT = dict.fromkeys(("core", "inputs", "comparing"), "")
ABOUT["training"] = "What they share, their result, and how they are measured: [torchwhy.influence](influence.md)."


def public_names(module: ModuleType) -> list[str]:
    """Return what a module says is public, or what is defined in it where it says nothing."""
    if hasattr(module, "__all__"):
        return [name for name in module.__all__ if not name.startswith("__")]
    return [
        n for n, v in vars(module).items() if not n.startswith("_") and getattr(v, "__module__", "") == module.__name__
    ]


@functools.cache
def assignments() -> dict[str, tuple[str, str]]:
    """Return the value and the ``#:`` comment of every name that a file assigns."""
    found = {}
    for path in Path(tw.__file__).parent.rglob("*.py"):
        text = path.read_text()
        lines = text.splitlines()
        for node in ast.parse(text).body:
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                above = lines[node.lineno - 2].strip()
                if isinstance(target, ast.Name):
                    found[target.id] = (ast.unparse(node.value), above[2:].strip() if above.startswith("#:") else "")
    return found


def entry(path: str) -> list[str]:
    """Return the lines that ask for a name's entry."""
    module, name = path.rsplit(".", 1)
    found = getattr(importlib.import_module(module), name)
    if isinstance(found, ModuleType):
        return []
    if inspect.isclass(found):
        is_method = issubclass(found, tw.Attribution) and found not in (tw.Attribution, tw.Wrapper, tw.Processed)
        shown = is_method or ".captum." in path or issubclass(found, BaseException)
        members = [] if shown else ["   :members:"]
        calls = [n for n in ("generate", "fit", "score", "save", "load", "rules") if shown and hasattr(found, n)]
        if calls and ".captum." not in path:
            members = [f"   :members: {', '.join(calls)}"]
        if ".influence." in found.__module__ and hasattr(found, "fit"):  # most of it is inherited
            own = [n for n in ("fit", "explain", "self_influence") if hasattr(found, n)]
            members = [f"   :members: {', '.join(own)}"] if ".captum." not in path else members
        return [f".. autoclass:: {path}", *members, ""]
    if inspect.isroutine(found) or hasattr(found, "needs"):
        return [f".. autofunction:: {path}", ""]
    value, about = assignments()[name]
    return [f".. py:data:: {path}", f"   :value: {value}", "", f"   {about}", ""]


def page(title: str, about: str, paths: list[str]) -> str:
    """Return a page of entries."""
    entries = [line for path in paths for line in entry(path)]
    return "\n".join([f"# {title}", "", about, "", "```{eval-rst}", *entries[:-1], "```", ""])


def pages() -> dict[str, str]:
    """Return the pages by the names of their files."""
    found, homes, placed = {}, dict(MODULE_OF_NAME, methods="methods"), set()
    for name, (title, rooms) in OF_TORCHWHY.items():
        paths = [f"torchwhy.{n}" for n, home in homes.items() if home.split(".")[0] in rooms.split()]
        about = "What all methods share (`layer`, `batch_size`, ...): [Attribution](core.md)."
        placed.update(paths)
        about = ABOUT.get(name, about)
        found[name] = page(title, about, paths)
    for path, title in MODULES.items():
        module = importlib.import_module(path)
        name = path.removeprefix("torchwhy.").replace(".", "_")
        about = f"`{path}`: " + (inspect.getdoc(module) or "").split("\n\n")[0].rstrip(":")
        paths = []
        for n in public_names(module):
            at_the_top = f"torchwhy.{n}" if n in tw.__all__ and getattr(tw, n) is getattr(module, n) else ""
            if at_the_top not in placed:
                paths.append(at_the_top or f"{path}.{n}")
        found[name] = page(title, about.replace("``", "`"), paths)
    toc = ["```{toctree}", ":maxdepth: 1", "", *found, "```"]
    about = "Everything public, from the docstrings. Names at the top are `torchwhy.NAME`; their modules may move."
    found["index"] = "\n".join(["# Reference", "", about, "", *toc, ""])
    return found


def write() -> None:
    """Write the pages, and remove those of what is gone."""
    REFERENCE.mkdir(exist_ok=True)
    for old in REFERENCE.glob("*.md"):
        old.unlink()
    for name, text in pages().items():
        (REFERENCE / f"{name}.md").write_text(text)
