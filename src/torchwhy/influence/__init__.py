"""Training data: which of the rows that a model was trained on an answer comes from.

``influence_method``   what the methods have in common: ``fit`` takes the training rows, ``explain`` compares with them
``training_rows``      rows that come in batches, gone through as often as needed
``losses``             the loss of each row
``row_gradients``      its gradient by the parameters, row by row
``projection``         random projections of gradients
``checkpoints``        parameters from the course of training
``influences``         the result
``tracin``             steps of training
``similarity``         rows that look alike to a layer
``knn_shapley``        their shares in a nearest-neighbour classifier
``last_layer``         the last linear layer, and what goes into it
``representer_points`` a score as a sum over training rows
``influence_function`` a training row left out
``curvature``          what stands for the Hessian, and its products with vectors
``exact_hessian``      the matrix itself
``ekfac``              layer by layer, between eigenvectors
``layer_kinds``        layers as matrices
``conjugate_gradients`` from there to the Gauss-Newton matrix
``arnoldi``            the largest eigenvalues
``trak``               a model as linear in its parameters
``evaluation``         do influences foretell what training again gives?
"""

from typing import TYPE_CHECKING

from torchwhy.influence.evaluation import (
    RetrainingScore,
    draw_subsets,
    leave_one_out_correlation,
    linear_datamodeling_score,
    mislabelled_auc,
    retrain,
)
from torchwhy.influence.influence_method import GradientInfluence, InfluenceMethod
from torchwhy.influence.influences import Influences, RankedRows
from torchwhy.spelling import refusal_of

__all__ = [
    "GradientInfluence",
    "InfluenceMethod",
    "Influences",
    "RankedRows",
    "RetrainingScore",
    "draw_subsets",
    "leave_one_out_correlation",
    "linear_datamodeling_score",
    "mislabelled_auc",
    "retrain",
]

if not TYPE_CHECKING:  # type checkers are to find a misspelt name
    __getattr__ = refusal_of(__name__, __all__)
