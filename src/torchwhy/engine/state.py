"""All process-wide state of the package, with the reason for each piece.

* ``held``: what runs of a model change for a while (a parameter's ``requires_grad``, the buffers of modules in training mode,
  cuDNN's switch, the fast path of attention). Two threads may explain one model at the same time: the first that comes changes
  it, the last that goes restores it, so that the number of holders has to be known to both. Guarded by ``lock``.
* ``held_here``: the models that this thread holds already, so that a run within a run does not walk their modules again.
* ``rules``: the rules (:class:`torchwhy.engine.rules.mode.RuleMode`) that replace backward passes on this thread. Rules do not
  nest, and the engine asks whether any are active.
* ``callers_state``: the caller's default device and autocast, which are switched off for what a method computes and on for
  the model. A context variable, as threads and asynchronous tasks each have their own.
* ``take_arrays``: whether a function that is no module takes NumPy arrays, rather than tensors, found by calling it with both.
  A function that takes both must give the same for them, so that this changes no number. Weak keys.
* ``repeating``: the models that gave one row the same score twice, with their fingerprint
  (:func:`torchwhy.engine.run.fingerprint.fingerprint`) then.
* ``trials``: what trials found out about a model: which of its arguments follow the rows, whether rows depend on one another,
  which layer ``layer="auto"`` is, how a layer's tokens lie on a picture. Weak keys too, with the model's fingerprint: of a model
  that changed all is found anew. Only what follows from the model, the shapes, a drawn row and what is given beside it, which is
  part of the key, is remembered, so that this changes no number.
* ``turns``: a lock for each model that influence methods put other tensors into: where two threads ask about one model, the
  second waits, as it would take the tensors of the first for the model's own. Weak keys.

Nothing here decides what a call computes, but where a model changes in a way that its fingerprint does not see.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

lock = threading.Lock()
held: dict[int, list[Any]] = {}  # id of what is changed -> [holders, its switch, how it was, itself]


class _HeldHere(threading.local):
    """The models that this thread holds: id -> what a walk over the modules found."""

    def __init__(self) -> None:
        self.models: dict[int, Any] = {}


class _ActiveRules(threading.local):
    """The rules that are active on this thread, None without."""

    def __init__(self) -> None:
        self.mode: Any = None


held_here = _HeldHere()
rules = _ActiveRules()
callers_state: ContextVar[Any] = ContextVar("callers_state", default=None)
take_arrays: WeakKeyDictionary[object, bool] = WeakKeyDictionary()
repeating: WeakKeyDictionary[nn.Module, tuple[object, ...]] = WeakKeyDictionary()
turns: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
trials: WeakKeyDictionary[object, tuple[tuple[object, ...], dict[tuple[object, ...], object]]] = WeakKeyDictionary()
