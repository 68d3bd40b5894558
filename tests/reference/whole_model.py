"""The model as a whole, from the papers, in loops. ``score(x)``: rows (N, d) -> (N,); ``predict(x)``: (N, d) -> (N, classes)."""

import itertools
import math

import torch


@torch.no_grad()
def accumulated_local_effects(score, x, j, ends):
    """Apley and Zhu 2020, equation 15, less the mean of both ends' effects over the rows."""
    sums, counts = [0.0], []
    for k in range(1, len(ends)):
        lower, upper = ends[k - 1], ends[k]
        inside = [row for row in x if lower < row[j] <= upper or (k == 1 and row[j] == lower)]
        change = 0.0
        for row in inside:
            low, high = row.clone(), row.clone()
            low[j], high[j] = lower, upper
            change += float(score(high[None]) - score(low[None]))
        counts.append(len(inside))
        sums.append(sums[-1] + change / len(inside))
    mean = sum(n * (a + b) / 2 for n, a, b in zip(counts, sums, sums[1:])) / sum(counts)
    return torch.tensor([s - mean for s in sums], dtype=torch.double)


@torch.no_grad()
def accumulated_local_effects_of_two(score, x, columns, ends):
    """Apley and Zhu 2020, equations 19 to 21, cells counted by the mean of their corners; rows in every cell."""
    sizes = [len(e) for e in ends]

    def cell(row):
        found = []
        for j, e in zip(columns, ends):
            found.append(next(k for k in range(1, len(e)) if row[j] <= e[k]))
        return tuple(found)

    def at(row, a, b):
        moved = row.clone()
        moved[columns[0]], moved[columns[1]] = ends[0][a], ends[1][b]
        return float(score(moved[None]))

    sums, counts = {}, {}
    for row in x:
        k, m = cell(row)
        change = at(row, k, m) - at(row, k - 1, m) - at(row, k, m - 1) + at(row, k - 1, m - 1)
        sums[k, m], counts[k, m] = sums.get((k, m), 0) + change, counts.get((k, m), 0) + 1
    h = torch.zeros(*sizes, dtype=torch.double)
    for k in range(1, sizes[0]):
        for m in range(1, sizes[1]):
            h[k, m] = h[k - 1, m] + h[k, m - 1] - h[k - 1, m - 1] + sums[k, m] / counts[k, m]
    first, second = [0.0], [0.0]  # the effects of each feature in h
    for k in range(1, sizes[0]):
        inside = [(m, counts[k, m]) for m in range(1, sizes[1])]
        rise = sum(n * (h[k, m] - h[k - 1, m] + h[k, m - 1] - h[k - 1, m - 1]) / 2 for m, n in inside)
        first.append(first[-1] + float(rise) / sum(n for _, n in inside))
    for m in range(1, sizes[1]):
        inside = [(k, counts[k, m]) for k in range(1, sizes[0])]
        rise = sum(n * (h[k, m] - h[k, m - 1] + h[k - 1, m] - h[k - 1, m - 1]) / 2 for k, n in inside)
        second.append(second[-1] + float(rise) / sum(n for _, n in inside))
    beyond = h - torch.tensor(first)[:, None] - torch.tensor(second)
    corners = sum(n * beyond[k - 1 : k + 1, m - 1 : m + 1].mean() for (k, m), n in counts.items())
    return beyond - corners / sum(counts.values())


@torch.no_grad()
def set_loss(predict, loss, x, y, background, row, kept):
    """The loss of one row's prediction, averaged over the background in the place of what is not kept."""
    points = torch.stack([torch.where(kept, x[row], other) for other in background])
    return float(loss(predict(points).mean(0), y[row]))


@torch.no_grad()
def sage(predict, loss, x, y, background, rows, orders):
    """Covert et al. 2020, algorithm 1, for the given rows and orders, with the whole background for each set."""
    d = orders.shape[1]
    total = torch.zeros(d, dtype=torch.double)
    for row, order in zip(rows.tolist(), orders.tolist()):
        kept = torch.zeros(d, dtype=torch.bool)
        before = set_loss(predict, loss, x, y, background, row, kept)
        for j in order:
            kept[j] = True
            after = set_loss(predict, loss, x, y, background, row, kept) if not kept.all() else float(
                loss(predict(x[row][None])[0], y[row])
            )  # fmt: skip
            total[j] += before - after
            before = after
    return total / len(rows)


def exact_sage(predict, loss, x, y, background):
    """Equation 3 over all subsets: Shapley values of the mean loss."""
    d = x.shape[1]
    worth = {}
    for size in range(d + 1):
        for members in itertools.combinations(range(d), size):
            kept = torch.zeros(d, dtype=torch.bool)
            kept[list(members)] = True
            worth[members] = -sum(set_loss(predict, loss, x, y, background, i, kept) for i in range(len(x))) / len(x)
    found = []
    for j in range(d):
        value = 0.0
        for members, v in worth.items():
            if j not in members:
                weight = math.factorial(len(members)) * math.factorial(d - len(members) - 1) / math.factorial(d)
                value += weight * (worth[tuple(sorted((*members, j)))] - v)
        found.append(value)
    return torch.tensor(found, dtype=torch.double)
