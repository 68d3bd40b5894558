"""The pages for those who come from other libraries: what is before and what is after give the same numbers."""

import re
import warnings
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parent.parent / "docs"
PAGES = ["captum"]


def blocks_of(page):
    return re.findall(r"^```python\n(.*?)^```", (DOCS / f"{page}.md").read_text(), re.M | re.S)


@pytest.mark.parametrize("page", PAGES)
def test_before_and_after_are_equal(page):
    scope, pairs = {}, 0
    for block in blocks_of(page):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the other library's
            exec(compile(block, page, "exec"), scope)
        if block.startswith("# before"):
            before = scope.pop("found").detach()
        elif block.startswith("# after"):
            torch.testing.assert_close(scope.pop("found"), before, rtol=1e-4, atol=1e-6)
            pairs += 1
    assert pairs >= 5
