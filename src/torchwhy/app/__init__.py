"""A page for a running model, on this machine: rows are changed and explained anew.

``explorer``  what the page asks for: a row with changes, explained, as HTML; counterfactuals of it
``page``      the page itself, made of Gradio's components: ``pip install "torchwhy[app]"``
"""

from torchwhy.app.explorer import Explorer
from torchwhy.app.page import explore

__all__ = ["Explorer", "explore"]
