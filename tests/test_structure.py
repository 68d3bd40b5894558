"""Containers of tensors are taken apart and put together in one module."""

from collections import namedtuple

from torchwhy.engine.structure import map_nested

Pair = namedtuple("Pair", "a b")


def test_several_containers_of_one_form_are_mapped_together():
    first, second = (1, {"k": Pair(2, [3])}), (10, {"k": Pair(20, [30])})
    assert map_nested(lambda a, b: a + b, first, second) == (11, {"k": Pair(22, [33])})
    assert map_nested(lambda a, b: len(b) if isinstance(b, list) else 0, first, second, whole=list)[1]["k"] == Pair(
        0, 1
    )
