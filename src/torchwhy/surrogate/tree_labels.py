"""What a decision tree asks, in the labels of its columns: it compares their numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.text import Annotation

NodeLabels = Mapping[int, Sequence[object]]  # by the column's number
RULE = re.compile(r"^((?:\|   )*)\|--- (.*) (<=|>) +(-?[\d.]+)$")


def labels_to_the_left(tree: Any, labels: NodeLabels) -> dict[int, list[str]]:
    """Return for each node of a fitted ``tree_`` that asks for labels those that go to the left, of those that come to it.

    A tree asks whether a label's number is at most a threshold.
    """
    found: dict[int, list[str]] = {}
    waiting: list[tuple[int, dict[int, set[int]]]] = [(0, {j: set(range(len(known))) for j, known in labels.items()})]
    while waiting:
        node, come = waiting.pop()
        if tree.children_left[node] < 0:
            continue
        column, threshold = int(tree.feature[node]), float(tree.threshold[node])
        sides = [come, come]
        if column in labels:
            left = {k for k in come[column] if k <= threshold}
            found[node] = [str(labels[column][k]) for k in sorted(left)]
            sides = [{**come, column: left}, {**come, column: come[column] - left}]
        waiting += zip((int(tree.children_left[node]), int(tree.children_right[node])), sides)
    return found


def say_labels(texts: Sequence[Annotation], asked: Mapping[int, list[str]], names: Sequence[str], keep: bool) -> None:
    """Write into a drawn tree's nodes the labels they ask for; ``texts`` begin with the node's number.

    Args:
        texts: of ``sklearn.tree.plot_tree`` with ``node_ids``.
        asked: the labels that go to the left, by node.
        names: of the column that each node asks, by node.
        keep: leave the nodes' numbers where they are.
    """
    for text in texts:
        first, *lines = text.get_text().split("\n")
        number = re.fullmatch(r"node #(\d+)", first)
        if number is None:  # beside the lines from a node to the next
            continue
        node = int(number[1])
        if node in asked and lines:
            lines[0] = f"{names[node]}: {', '.join(asked[node])}"
        text.set_text("\n".join([first, *lines] if keep else lines))


def rules_in_labels(text: str, names: Sequence[str], labels: NodeLabels) -> str:
    """Return a tree's rules (``sklearn.tree.export_text``) with labels in the place of comparisons of their numbers."""
    columns = {str(names[j]): j for j in labels}
    come: list[dict[int, set[int]]] = [{j: set(range(len(known))) for j, known in labels.items()}]  # by depth
    lines = []
    for line in text.split("\n"):
        rule = RULE.match(line)
        if rule is not None:
            bars, name, side, threshold = rule.groups()
            depth = bars.count("|")
            del come[depth + 1 :]
            come.append(come[depth])
            if name in columns:
                column = columns[name]
                stay = {k for k in come[depth][column] if (k <= float(threshold)) == (side == "<=")}
                come[depth + 1] = {**come[depth], column: stay}
                line = f"{bars}|--- {name}: {', '.join(str(labels[column][k]) for k in sorted(stay))}"
        lines.append(line)
    return "\n".join(lines)
