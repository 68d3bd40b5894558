"""Running a model: the runner and the contexts that it runs in.

``runner``     the only place that calls the model: outputs, scores, gradients, activations; its tally
``batching``   cuts long work into calls of a number of rows that follows from shapes and a fixed budget
``optimizations``  the same values with less work: batch norms folded, channels last
``autograd``   parameters without gradients, graphs switched on; gradients of scores;  ``held_buffers``  buffers put back
``precision``  autocast, all but the head;  ``defaults``  the caller's autocast and default device, which are for the model
``randomness`` every draw, from one generator;  ``rows``  picking, shaping, moving and summing rows
``black_box``  models that are no modules;  ``checks``, ``warn``

One call: ``ModelRunner.gradients(z, rows)`` makes leaves of ``z``, has ``outputs`` run the model inside the listed contexts
(precision, optimizations, replaced layers), the target select the scores, and ``compute_gradients`` differentiate them.
"""
