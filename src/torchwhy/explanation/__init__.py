"""The result with its context: an :class:`Explanation`, and what can be made of it.

``explanation`` is the class; ``of_result`` makes one of what a method found; ``rows`` picks rows and puts explanations
together; ``features`` has one number for each feature, and the names; ``table`` makes tables; ``files`` writes and reads;
``uneven`` takes apart rows that have shapes of their own.
"""

from torchwhy.explanation.explanation import Explanation
from torchwhy.explanation.features import Names
from torchwhy.explanation.rows import concat

__all__ = ["Explanation", "Names", "concat"]
