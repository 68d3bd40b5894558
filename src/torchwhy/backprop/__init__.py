"""Methods that change the backward pass: tables of rules over the model's operations.

The rules are dealt out by ``engine/rules/``; begin there.

* LRP: ``lrp.py`` is the method, ``composite.py`` says which rule stands where, ``lrp_rules.py`` has the rules of linear layers
  and ``linear_layer.py`` what they are given, ``propagation.py`` the rules of all other operations.
* ``excitation.py``: excitation backpropagation, one rule of LRP.
* DeepLIFT: ``deeplift.py`` is the method, ``deeplift_rules.py`` and ``deeplift_softmax.py`` have the rescale rule and its kin,
  ``reveal_cancel.py`` the rule that counts positive and negative contributions apart.
* ``guided_backprop.py``: guided backpropagation and the deconvolution network. ``linear_approximation.py`` changes nothing.
"""

from typing import TYPE_CHECKING

from torchwhy.spelling import refusal_of

if not TYPE_CHECKING:  # type checkers are to find a misspelt name
    __getattr__ = refusal_of(__name__)
