"""Influence of training rows, slow and plain: a row at a time, whole matrices, in double precision."""

import itertools

import torch
import torch.nn.functional as F


def row_gradient(model, loss, x, y, parameters):
    """The gradient of one row's loss by some parameters, in one vector."""
    found = torch.autograd.grad(loss(model(x[None]), y[None]), parameters)
    return torch.cat([g.flatten() for g in found])


def gradients(model, loss, x, y, parameters):
    """Those of all rows, ``(n, p)``."""
    return torch.stack([row_gradient(model, loss, a, b, parameters) for a, b in zip(x, y)])


def tracin(build, checkpoints, loss, test, train, choose):
    """``build(state)`` gives the model at a checkpoint, ``choose(model)`` the parameters that count."""
    total = 0
    for state, rate in checkpoints:
        model = build(state)
        parameters = choose(model)
        total = total + rate * gradients(model, loss, *test, parameters) @ gradients(model, loss, *train, parameters).T
    return total


def next_token_loss(model, ids, mask=None):
    """The mean loss of the tokens of one text ``(T,)``, one at a time; those that the mask leaves out count nothing."""
    logits = model(ids[None])[0]
    found = []
    for t in range(len(ids) - 1):
        if mask is None or mask[t + 1]:
            found.append(-F.log_softmax(logits[t], 0)[ids[t + 1]])
    return sum(found) / len(found)


def similarity(a, b, measure):
    """``(N, n)`` from features ``(N, d)`` and ``(n, d)``."""
    found = torch.zeros(len(a), len(b), dtype=a.dtype)
    for i, j in itertools.product(range(len(a)), range(len(b))):
        if measure == "euclidean":
            found[i, j] = -(a[i] - b[j]).square().sum().sqrt()
        else:
            found[i, j] = (a[i] * b[j]).sum()
            if measure == "cosine":
                found[i, j] /= a[i].norm() * b[j].norm()
    return found


def knn_shapley(distances, train_labels, label, k):
    """The values of n rows ``(n,)`` for one row, by all orders in which they may come."""
    n = len(train_labels)

    def value(rows):
        nearest = sorted(rows, key=lambda i: (float(distances[i]), i))[:k]
        return sum(int(train_labels[i] == label) for i in nearest) / k

    found, orders = [0.0] * n, list(itertools.permutations(range(n)))
    for order in orders:
        for j, i in enumerate(order):
            found[i] += (value(order[: j + 1]) - value(order[:j])) / len(orders)
    return torch.tensor(found, dtype=torch.double)


def ridge(features, wanted, penalty):
    """The weights ``(C, d)`` that make the mean of half the squared errors plus the penalty small."""
    n, d = features.shape
    matrix = features.T @ features / n + 2 * penalty * torch.eye(d, dtype=features.dtype)
    return torch.linalg.solve(matrix, features.T @ wanted / n).T


def hessian(model, loss, x, y, parameters):
    """The Hessian of the mean loss of rows ``(p, p)``, an element's row at a time."""
    slope = torch.cat([g.flatten() for g in torch.autograd.grad(loss(model(x), y), parameters, create_graph=True)])
    lines = [torch.autograd.grad(s, parameters, retain_graph=True, materialize_grads=True) for s in slope]
    return torch.stack([torch.cat([t.flatten() for t in line]) for line in lines])


def influence(model, loss, test, train, parameters, damping):
    """What leaving a row out does to a loss, to first order, ``(N, n)``."""
    matrix = hessian(model, loss, *train, parameters)
    inverse = torch.linalg.inv(matrix + damping * torch.eye(len(matrix), dtype=matrix.dtype))
    a, b = gradients(model, loss, *test, parameters), gradients(model, loss, *train, parameters)
    return a @ inverse @ b.T / len(b)


def ekfac_inverse(rows, damping):
    """The inverse of one linear layer's curvature ``(out · in, out · in)``, as a matrix over flattened weights.

    ``rows``: for each row the inputs ``(places, in)`` and the output gradients ``(places, out)``.
    """
    inputs = sum(torch.outer(a, a) for row, _ in rows for a in row)
    outputs = sum(torch.outer(d, d) for _, row in rows for d in row)
    q = torch.kron(torch.linalg.eigh(outputs)[1], torch.linalg.eigh(inputs)[1])  # of the weight, row after row
    turned = [q.T @ sum(torch.outer(d, a) for a, d in zip(*row)).flatten() for row in rows]
    values = sum(t.square() for t in turned) / len(rows)
    damping = 0.1 * values.mean() if damping is None else damping
    return q @ torch.diag(1 / (values + damping)) @ q.T


def ridge_of_rows(x, y, weights, penalty):
    """The least of the weighted mean of squared errors plus ``penalty / 2`` times the squared weights, ``(d,)``."""
    n, d = x.shape
    matrix = 2 * x.T @ (weights[:, None] * x) / n + penalty * torch.eye(d, dtype=x.dtype)
    return torch.linalg.solve(matrix, 2 * x.T @ (weights * y) / n)


def trak(gradients_of, test, train, projections, damping):
    """``gradients_of``: for each model, a function from rows to margins' gradients ``(n, p)`` and probabilities ``(n,)``."""
    products, weights = 0, 0
    for of, projection in zip(gradients_of, projections):
        (a, _), (b, p) = of(*test), of(*train)
        a, b = a @ projection, b @ projection
        matrix = b.T @ b
        matrix = matrix + damping * torch.eye(len(matrix), dtype=matrix.dtype)
        products = products + a @ torch.linalg.inv(matrix) @ b.T / len(projections)
        weights = weights + (1 - p) / len(projections)
    return products * weights
