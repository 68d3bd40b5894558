"""The pages for those who come from other libraries: what is before and what is after give the same numbers."""

import re
import warnings
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parent.parent / "docs"
# the pages, the libraries that they need, and how many pairs they have at least
PAGES = {
    "captum": ("captum", 7),
    "migration/grad_cam": ("pytorch_grad_cam", 5),
    "migration/shap": ("shap", 4),
    "migration/lime": ("lime", 1),
    "migration/zennit": ("zennit", 5),
    "migration/torchray": ("torchray", 4),
    "migration/quantus": ("quantus", 5),
    "migration/inseq": ("inseq", 2),
    "migration/transformers_interpret": ("transformers_interpret", 1),
}


def blocks_of(page):
    return re.findall(r"^```python\n(.*?)^```", (DOCS / f"{page}.md").read_text(), re.M | re.S)


@pytest.mark.parametrize("page", PAGES)
def test_before_and_after_are_equal(page):
    library, least = PAGES[page]
    if page != "captum":
        pytest.importorskip(library)
    scope, pairs = {}, 0
    for block in blocks_of(page):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the other library's
            exec(compile(block, page, "exec"), scope)
        if block.startswith("# before"):
            before = scope.pop("found").detach()
        elif block.startswith("# after"):
            found = scope.pop("found").detach()
            torch.testing.assert_close(found.to(before.dtype), before, rtol=1e-4, atol=1e-5)
            pairs += 1
    assert pairs >= least


def test_every_page_is_here():
    assert {f"migration/{path.stem}" for path in (DOCS / "migration").glob("*.md")} == set(PAGES) - {"captum"}
