"""SpRAy: explanations that are alike, found by spectral clustering: among them those that are right for a wrong reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from torchwhy.engine.run.checks import check_count
from torchwhy.global_view.rows import Explained, MapSize, feature_rows, named
from torchwhy.viewable import Table, Viewable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from scipy.sparse import csr_matrix

    from torchwhy.visualize.scaling import PictureOption

DENSE_ROWS = 200  # up to so many, all eigenvectors are computed at once


@dataclass(frozen=True, repr=False)
class ExplanationClusters(Viewable):
    """Clusters of explanations, see :class:`SpRAy`.

    Args:
        labels: ``(N,)``, the cluster of each row, the largest cluster being 0.
        sizes: ``(K,)``, the rows of each.
        eigenvalues: ``(k,)``, the smallest of the Laplacian, ascending from 0: a gap after the m-th speaks for m clusters.
        embedding: ``(N, K)``, the rows in the space of the eigenvectors.
        means: ``(K, d)``, the mean of each cluster's attributions, as they were compared.
        representatives: for each cluster rows, those nearest to its centre first.
        names: of the features.
        shape: of the maps whose places they are; ``(d,)`` where they are no maps.
    """

    labels: Tensor
    sizes: Tensor
    eigenvalues: Tensor
    embedding: Tensor
    means: Tensor
    representatives: list[Tensor]
    names: list[str]
    shape: tuple[int, ...]

    @property
    def gaps(self) -> Tensor:
        """The differences ``(k - 1,)`` of neighbouring eigenvalues."""
        return self.eigenvalues.diff()

    def _picture(self, pictures: ModuleType, **options: PictureOption) -> Figure:
        captions = [f"cluster {k}: {n} rows" for k, n in enumerate(self.sizes.tolist())]
        means = self.means.view(-1, *self.shape) if len(self.shape) == 3 else self.means
        return pictures.clusters(self.eigenvalues, means, captions, **{"names": self.names, **options})

    def _table(self) -> Table:
        columns = self.embedding.T.tolist()
        head = ["row", "cluster", *(f"eigenvector {k}" for k in range(len(columns)))]
        return head, [list(line) for line in zip(range(len(self.labels)), self.labels.tolist(), *columns)]


@dataclass(frozen=True, kw_only=True)
class SpRAy:
    r"""Spectral relevance analysis: spectral clustering of explanations.

    A model that is right by a watermark, a border or a tag has explanations that lie there, and these are alike. Explain the rows
    of one class, cluster, and look at each cluster: one that is a "Clever Hans" is a group of its own. It does not say that a
    cluster is one; that is for a person to see.

    1. Each row of attributions, of maps averaged to ``size``, is divided by the sum of its absolute values.
    2. Rows i and j are joined, :math:`w_{ij} = 1`, where one is among the ``n_neighbors`` nearest of the other (Euclidean).
    3. The eigenvalues :math:`0 = \lambda_1 \le \lambda_2 \le \dots` of :math:`L = I - D^{-1/2} W D^{-1/2}`, D the degrees.
    4. K is where the gap :math:`\lambda_{K+1} - \lambda_K` is largest (``n_clusters`` sets it).
    5. k-means on the first K eigenvectors, each row brought to length 1.

    Attributions are read batch by batch, and kept at the size at which they are compared. The paper clusters LRP's relevance;
    any attributions will do whose places mean the same in all rows.

    Args:
        size: of the maps, to which they are averaged; an int is a square. None leaves them, and tables, as they are.
        n_neighbors: more make clusters run together, fewer break them up.
        n_clusters: K; None finds it by the gap.
        max_clusters: the largest K that is looked for.
        normalize: step 1's division; without it rows of large attributions are apart from those of small ones.
        generator: the seed of k-means.

    Papers: Lapuschkin et al. 2019, arXiv:1902.10178; Ng, Jordan, Weiss 2001 (steps 3 and 5); von Luxburg 2007, arXiv:0711.0189.
    """

    size: MapSize = None
    n_neighbors: int = 10
    n_clusters: int | None = None
    max_clusters: int = 10
    normalize: bool = True
    generator: int = 0

    def __post_init__(self) -> None:
        check_count("n_neighbors", self.n_neighbors)
        check_count("max_clusters", self.max_clusters, 2)
        if self.n_clusters is not None:
            check_count("n_clusters", self.n_clusters)

    def cluster(self, explained: Explained, names: Sequence[str] | None = None) -> ExplanationClusters:
        """Cluster explanations, best of one class.

        Args:
            explained: an explanation, what :func:`torchwhy.load_dataset` returns or its folder, or explanations one by one.
            names: of the features; None is their own.

        Raises:
            ImportError: there is no scikit-learn.
            TypeError, ValueError: no explanations, rows with features of their own, attributions that are all 0, or no more
                rows than neighbours.
        """
        first, rows, seen = None, list[Tensor](), 0
        for found in feature_rows(explained, self.size):
            first = first or found
            rows.append(self._normalized(found.values.double(), seen))
            seen += len(found.values)
        if first is None:
            raise ValueError("explained: there are no rows")
        values = torch.cat(rows)
        if len(values) <= max(self.n_neighbors, self.n_clusters or 0):
            raise ValueError(
                f"n_neighbors={self.n_neighbors}: there are {len(values)} rows; more rows than neighbours and clusters are needed"
            )
        eigenvalues, vectors = self._spectrum(values)
        k = self.n_clusters or int(eigenvalues.diff()[: self.max_clusters].argmax()) + 1
        embedding = torch.nn.functional.normalize(vectors[:, :k], dim=1)
        labels, nearest = self._k_means(embedding, k)
        return ExplanationClusters(
            labels=labels,
            sizes=torch.bincount(labels, minlength=k),
            eigenvalues=eigenvalues,
            embedding=embedding,
            means=torch.stack([values[labels == c].mean(0) for c in range(k)]),
            representatives=nearest,
            names=named(names, first),
            shape=first.shape,
        )

    def _normalized(self, values: Tensor, begin: int) -> Tensor:
        """Return rows divided by the sums of their absolute values.

        Raises:
            ValueError: a row of zeros, which is like nothing.
        """
        sums = values.abs().sum(1, keepdim=True)
        if not self.normalize:
            return values
        if bool((sums == 0).any()):
            row = begin + int((sums[:, 0] == 0).nonzero()[0])
            raise ValueError(
                f"explained: the attributions of row {row} are all 0; leave such rows out, or normalize=False"
            )
        return values / sums

    def _spectrum(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the smallest eigenvalues of the Laplacian and their vectors ``(N, k)``."""
        from scipy.sparse import csgraph
        from sklearn.neighbors import kneighbors_graph

        near = kneighbors_graph(values.numpy(), self.n_neighbors)
        laplacian = csgraph.laplacian(near.maximum(near.T), normed=True)
        k = min(len(values) - 1, max(self.max_clusters, self.n_clusters or 0) + 1)
        found, vectors = _smallest_eigenvectors(laplacian.tocsr(), k, self.generator)
        return torch.as_tensor(found).clamp(min=0), torch.as_tensor(np.ascontiguousarray(vectors))

    def _k_means(self, embedding: Tensor, k: int) -> tuple[Tensor, list[Tensor]]:
        """Return the cluster of each row, the largest first, and each cluster's rows from its centre outwards."""
        from sklearn.cluster import KMeans

        found = KMeans(k, n_init=10, random_state=self.generator).fit(embedding.numpy())
        given = torch.as_tensor(found.labels_).long()
        order = torch.bincount(given, minlength=k).argsort(descending=True, stable=True)
        labels = order.argsort()[given]
        centres = torch.as_tensor(found.cluster_centers_)[order]
        away = (embedding - centres[labels]).norm(dim=1)
        nearest = []
        for c in range(k):
            members = (labels == c).nonzero()[:, 0]
            nearest.append(members[away[members].argsort(stable=True)])
        return labels, nearest


def _smallest_eigenvectors(laplacian: csr_matrix, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k smallest eigenvalues, ascending, and their vectors ``(N, k)``."""
    n = laplacian.shape[0]
    if n <= DENSE_ROWS:
        from scipy.linalg import eigh

        values, vectors = eigh(laplacian.toarray(), subset_by_index=(0, k - 1))
        return values, vectors
    from scipy.sparse import identity
    from scipy.sparse.linalg import ArpackNoConvergence, eigsh

    start = np.random.default_rng(seed).standard_normal(n)
    try:  # all lie in [0, 2], and the largest of 2 - L are quickly found
        values, vectors = eigsh(2 * identity(n) - laplacian, k, which="LA", v0=start, ncv=min(n, max(4 * k, 40)))
        values = 2 - values
    except ArpackNoConvergence:  # very many close ones: those nearest to a number below 0, by its inverse
        values, vectors = eigsh(laplacian.tocsc(), k, sigma=-1e-3, which="LM", v0=start)
    order = values.argsort()
    return values[order], vectors[:, order]
