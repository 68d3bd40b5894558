"""What the site needs of Sphinx: pages whose blocks of Python are cells, and formulas without a network."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import nbformat
from docutils import nodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx

# pages that lie beside this folder in the repository, and within it on the site
OUTSIDE = {"../CONTRIBUTING.md": "contributing.md", "../CHANGELOG.md": "changelog.md", "../README.md": "index.md"}
CELL = re.compile(r"^```python\n(.*?)^```\n?", re.M | re.S)


def read_page(text: str) -> nbformat.NotebookNode:
    """Return a page as a notebook: its blocks of Python are the cells that run, one after the other."""
    for old, here in OUTSIDE.items():
        text = text.replace(f"]({old}", f"]({here}")
    new, cells, lines = nbformat.v4, [], []

    def add(cell: nbformat.NotebookNode, at: int) -> None:
        cells.append(cell)
        lines.append(text.count("\n", 0, at) + 1)

    end = 0
    for block in CELL.finditer(text):
        if text[end : block.start()].strip():
            add(new.new_markdown_cell(text[end : block.start()]), end)
        add(new.new_code_cell(block.group(1).rstrip("\n")), block.start())
        end = block.end()
    if text[end:].strip():
        add(new.new_markdown_cell(text[end:]), end)
    for i, cell in enumerate(cells):
        cell.id = f"cell-{i}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    language = {"name": "python", "pygments_lexer": "ipython3"}
    metadata = {"kernelspec": kernel, "language_info": language, "source_map": lines}
    if len(cells) == 1 and cells[0].cell_type == "markdown":  # nothing to run
        metadata["mystnb"] = {"execution_mode": "off"}
    return new.new_notebook(cells=cells, metadata=metadata)


def mathml(latex: str, display: str) -> str:
    """Return a formula as MathML, which browsers draw by themselves."""
    from latex2mathml.converter import convert

    return convert(latex, display=display)


def inline_math(writer, node: nodes.math) -> None:
    """Write a formula that stands in a sentence."""
    writer.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def block_math(writer, node: nodes.math_block) -> None:
    """Write a formula that stands by itself."""
    writer.body.append(f'<div class="math-block">{mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def with_settings(app, what, name, found, options, signature, returned):
    """Return the signature of a method: its own settings with their defaults; those of all methods are those of Attribution."""
    import dataclasses

    import torchwhy

    if what != "class" or not issubclass(found, torchwhy.Attribution) or found is torchwhy.Attribution:
        return None
    settings = [
        f for f in dataclasses.fields(found) if f.init and f.name not in torchwhy.Attribution.__dataclass_fields__
    ]
    own = [f.name if f.default is dataclasses.MISSING else f"{f.name}={f.default!r}" for f in settings]
    return f"({', '.join(['model', '*', *own, '...'] if own else ['model', '*', '...'])})", None


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx."""
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
    app.connect("autodoc-process-signature", with_settings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
