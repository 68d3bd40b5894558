"""Replaced backward passes: a model runs as it is, and chosen operations get another backward.

The files:

* ``mode.py``: the heart. ``RuleMode`` sees every operation and deals out the rules of a table; ``custom_backward`` and its kin
  are what rules return; ``note`` and ``noted`` pass on what one rule finds out about a tensor to the rules that get it next
  (it is not negative, it is a gate, which layer made it); ``run_with_rules`` has the model runner work under rules. Begin here.
* ``rectifiers.py``: rules of rectifiers that hold for all of their spellings.
* ``in_place.py``: what rules that write in the place of their input end in.
* ``opaque.py``: what rules do not reach: autograd Functions, transforms of ``torch.func``.
* ``unseen.py``: what no mode is told of: functions of TorchScript and of extensions, found in the graph.
* ``operations.py``: the functions of torch by the operation that they are; families of operations, from which methods make
  their tables; and ``OpCall``, what a rule gets. Nothing in it knows a method.
* ``decompositions.py``: rules that take an operation apart into smaller ones, which then get their own: attention, recurrent
  layers, ``addmm``. ``distances.py``: the same for distances, similarities and losses.
* ``aten.py``: the operations of exported graphs, by the names that rules know.
* ``paired_run.py``: the input's run beside a recorded one of the baseline, so that a rule sees its operation in both
  (DeepLIFT).

One operation under rules, ``F.relu(x)`` in a model, say:

1. Torch hands the function to ``RuleMode.__torch_function__``. Its operation is ``relu``, and it asks for more than a size.
2. ``run_operation`` looks for a rule of ``relu`` in the table that holds here: that of the innermost module that has one, else
   the method's. Without a rule, or where no gradient passes, the function is called, and counted if it is not linear.
3. The rule gets an ``OpCall``, computes the value with it, keeps what it needs with ``save_for_backward``, and returns
   ``custom_backward(value, backward, x)``. Where the model works in place, the value is then written there.
4. When the scores are differentiated, ``backward`` is called with the multiplier at the value and returns that at x.

The methods on top of it: ``backprop/`` (LRP, DeepLIFT, guided backpropagation, excitation), and ``attention/``, whose
rules read the attention matrices and change nothing.
"""
