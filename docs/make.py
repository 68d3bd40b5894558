"""Writes docs/methods.md, the README's table and the pictures from the classes.

``python docs/make.py [--pictures] [--only FAMILY]``; the pictures take minutes.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
from pathlib import Path

import torchwhy as tw

README_METHODS = ["SmoothGrad", "IntegratedGradients", "LRP", "GradCAM", "Occlusion"]
DOCS = Path(__file__).resolve().parent


def families() -> dict[str, list[type]]:
    """The methods by the package they live in."""
    found: dict[str, list[type]] = {}
    for method in tw.methods().values():
        found.setdefault(method.__module__.split(".")[1], []).append(method)
    return found


def markdown(docstring: str) -> str:
    """A docstring as Markdown: mathematics, references to classes, lists of arguments; examples left out."""
    text = inspect.cleandoc(docstring)
    text = re.split(r"^>>> ", text, flags=re.M)[0].rstrip()
    text = re.sub(r":math:`([^`]*)`", lambda m: "$" + " ".join(m.group(1).split()) + "$", text, flags=re.S)
    text = re.sub(r":(?:class|meth|mod|func):`~?(?:\w+\.)*(\w+)`", r"`\1`", text)
    text = text.replace("``", "`").replace(r"\|", "|")
    text = re.sub(r"^Args:$", "Settings:\n", text, flags=re.M)
    return re.sub(r"^    (\w[\w, ]*): ", r"- `\1`: ", text, flags=re.M)


def methods_page() -> str:
    """The page of all methods."""
    lines = [
        "# Methods",
        "",
        "Written by `python docs/make.py` from the classes. The pictures are of an EfficientNet-Lite0 and two "
        "photos; their captions give seconds, evaluations (rows through the model) and the completeness gap. "
        "What all methods share (`layer`, `batch_size`, `precision`, `progress`, ...) stands once, in "
        "[using.md](using.md).",
        "",
    ]
    for family, methods in families().items():
        about = inspect.cleandoc(importlib.import_module(f"torchwhy.{family}").__doc__ or "").split("\n\n")[0]
        lines += [f"## {family}", "", about, ""]
        if (DOCS / "pictures" / f"{family}.png").exists():
            lines += [f"![the methods of {family} on two photos](pictures/{family}.png)", ""]
        for method in methods:
            lines += [f"### `{method.__name__}`", "", markdown(method.__doc__ or ""), ""]
    return "\n".join(lines)


def readme_with_table(text: str) -> str:
    """The README with today's table of methods below its heading."""
    from torchwhy.cli import methods_table

    return re.sub(
        r"(?<=^## Methods\n\n).*?(?=\n\n`torchwhy methods`)", lambda m: methods_table(), text, flags=re.M | re.S
    )


def picture(family: str) -> None:
    """The family's methods side by side on the two photos of the demo."""
    from torchwhy.cli import main
    from torchwhy.demo import for_photos

    names = (
        README_METHODS if family == "readme" else [m.__name__ for m in families()[family] if m.__name__ in for_photos()]
    )
    if not names:
        return
    (DOCS / "pictures").mkdir(exist_ok=True)
    if main(["demo", "--out", str(DOCS / "pictures" / f"{family}.png"), "--methods", *names]):
        raise SystemExit(2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", action="store_true", help="render the pictures too: minutes")
    parser.add_argument("--only", help="one family's picture")
    args = parser.parse_args()
    if args.pictures:
        for family in [args.only] if args.only else ["readme", *families()]:
            picture(family)
    (DOCS / "methods.md").write_text(methods_page())
    readme = DOCS.parent / "README.md"
    readme.write_text(readme_with_table(readme.read_text()))
