"""Values that hardly any setting can have, for the tests that try each of them."""

import math

import numpy as np


class Odd:
    """An object of no known kind."""

    def __repr__(self):
        return "odd"


BAD_VALUES = {
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "negative int": -3,
    "negative": -0.5,
    "True": True,
    "bool of NumPy": np.bool_(True),
    "bytes": b"x",
    "mapping": {},
    "list of objects": [Odd()],
    "object": Odd(),
}
