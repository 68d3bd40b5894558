"""How a model is run: cutting at layers, gradients, batches, randomness. Knows no method."""
