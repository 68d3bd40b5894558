"""Methods that change the backward pass: tables of rules over the model's operations."""
