"""Running a model: the runner and the contexts that it runs in.

``runner``     where a question calls the model: outputs, scores, gradients, activations; its tally
``shared_runner``  the same for several targets: the model runs once where they ask for the same
``batching``   cuts long work into calls of a number of rows that follows from shapes and a fixed budget
``call_cost``  what a call costs, counted at its operations
``optimizations``  the same values with less work: batch norms folded, channels last
``autograd``   parameters without gradients, graphs switched on; gradients of scores;  ``held_buffers``  buffers put back
``shortcuts``  shortcuts of torch that pass by hooks, off while layers are read;  ``placement``  where a model takes its inputs
``precision``  autocast, all but the head;  ``defaults``  the caller's autocast and default device, which are for the model
``fingerprint``  whether a model is still the one that something was found out about
``randomness`` every draw, from one generator;  ``rows``  picking, shaping, moving and summing rows
``black_box``  models that are no modules;  ``black_box_output``  what these return, as tensors;  ``estimators``  scikit-learn's
``torch_errors``  errors of torch in words that say what would do;  ``checks``, ``warn``

One call: ``ModelRunner.gradients(z, rows)`` makes leaves of ``z``, has ``outputs`` run the model inside the listed contexts
(precision, optimizations, replaced layers), the target select the scores, and ``compute_gradients`` differentiate them.
"""
