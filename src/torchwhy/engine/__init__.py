"""How a model is run. The engine knows no method; methods say what they compute, and ask it for scores and gradients.

Five rooms, each with a page at its door (the docstring of its package):

* :mod:`torchwhy.engine.run`: the model runner, freezing, autograd, precision, devices, how many rows a call gets;
* :mod:`torchwhy.engine.layers`: finding a layer, reading what passes it, replacing it, and its grid over a picture;
* :mod:`torchwhy.engine.rules`: replaced backward passes, operation by operation;
* :mod:`torchwhy.engine.features`: features, masks, masked inputs, and streaming sums of their scores;
* :mod:`torchwhy.engine.images`: blurring and filling in images.

Beside them: ``prepare`` (a caller's arguments become a :class:`torchwhy.problem.Problem`), ``structure`` (tensor, tuple, dict:
taken apart and put together), ``state`` (all process-wide state) and ``torch_internals`` (every private name of torch).
"""
