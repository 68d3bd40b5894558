"""torchwhy: why did the model say that?"""

__version__ = "0.1.0"
