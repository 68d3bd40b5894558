"""The site: Sphinx reads these pages and the notebooks, runs their code, and writes HTML that needs no network.

``make docs`` builds it into ``docs/_build/html`` after ``pip install -e ".[docs]"``. What is executed is kept
in ``docs/_build/cache`` and run again when its code changes; ``rm -r docs/_build`` runs everything again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torchwhy

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS))

project = "torchwhy"
author = "The torchwhy developers"
version = release = torchwhy.__version__
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "site_parts"]
html_theme = "furo"
html_title = f"torchwhy {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}

# pages: blocks of Python are cells, which run when the site is built; tests/test_docs.py runs them too
nb_custom_formats = {".md": ["site_parts.read_page", {}, False]}
nb_execution_mode = "cache"
nb_execution_cache_path = str(DOCS / "_build" / "cache")
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_merge_streams = True
# before and after: the other libraries are needed, which the tests have and the site has not
nb_execution_excludepatterns = ["captum.md", "migration/*.md"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
html_math_renderer = "mathml"

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
napoleon_use_rtype = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 100
add_module_names = False


def bring(path: Path, to: Path, links: dict[str, str]) -> None:
    """Write a file from outside this folder to where Sphinx reads, if it changed."""
    text = path.read_text()
    for old, new in links.items():
        text = text.replace(f"]({old}", f"]({new}")
    to.parent.mkdir(exist_ok=True)
    if not to.exists() or to.read_text() != text:
        to.write_text(text)


for notebook in (DOCS.parent / "examples").glob("*.ipynb"):
    bring(notebook, DOCS / "notebooks" / notebook.name, {})
for page in ("CHANGELOG", "CONTRIBUTING"):
    bring(
        DOCS.parent / f"{page}.md",
        DOCS / f"{page.lower()}.md",
        {"docs/": "", "CHANGELOG": "changelog", "README.md": "index.md"},
    )
