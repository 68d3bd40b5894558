"""Every method once more: slow, in plain float64 loops, one example at a time, straight from its paper.

These functions are what the library is compared with, so they share no code with it: no batching, no hooks,
no layers. A model is a plain callable ``f`` from ``x`` of shape (1, *) to one number; a layer is the pair
``below`` (input -> activations) and ``above`` (activations -> one number). Everything random is passed in.
"""
