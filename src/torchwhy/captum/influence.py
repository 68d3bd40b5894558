"""``captum.influence``: Captum's names and signatures over the methods of :mod:`torchwhy.influence`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

import torchwhy as tw
from torchwhy.captum.missing import missing_classes
from torchwhy.engine.structure import AnyForm, InForm, flatten
from torchwhy.influence.influence_method import GradientInfluence
from torchwhy.influence.training_rows import RowsInBatches

OF_BASES = ("DataInfluence", "TracInCPBase")
globals().update(missing_classes("influence", dict.fromkeys(OF_BASES, "methods derive from tw.TracIn and its kin")))

LoadCheckpoint = Callable[[nn.Module, InForm], float]


class KMostInfluentialResults(NamedTuple):
    """The training rows that count most: their numbers ``(N, k)``, and what they count ``(N, k)``."""

    indices: Tensor
    influence_scores: Tensor


def load_state_dict(model: nn.Module, path: AnyForm) -> float:
    """Load a file with a state dict into a model; return the learning rate in it, 1 without one."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    rate = float(state.pop("learning_rate", 1.0))
    model.load_state_dict({name.removeprefix("module."): t for name, t in state.items()})
    return rate


class CaptumInfluence:
    """What Captum's classes of gradients have in common; ``method`` is ours.

    The model is left as it is: checkpoints are loaded into a copy.
    """

    method: GradientInfluence

    def influence(
        self, inputs: InForm, k: int | None = None, proponents: bool = True, show_progress: bool = False,
        aggregate: bool = False,
    ) -> Tensor | KMostInfluentialResults:  # fmt: skip
        """Return the influences ``(N, n_train)``, or the k rows that count most.

        Args:
            inputs: a tuple whose last part is the labels, or a ``DataLoader`` of such.
            k: how many; None is all, in the order of the rows.
            proponents: those that helped, else those that harmed.
            show_progress: show a bar.
            aggregate: sum over the rows of ``inputs``, so that N is 1.
        """
        self.method.progress = show_progress
        found = self.method.explain(inputs).attributions
        found = found.sum(0, keepdim=True) if aggregate else found
        if k is None:
            return found
        values, indices = found.topk(k, 1, largest=proponents)
        return KMostInfluentialResults(indices, values)

    def self_influence(self, inputs: InForm = None, show_progress: bool = False) -> Tensor:
        """Return the influence of each training row on itself ``(n_train,)``, or of each of ``inputs`` ``(N,)``."""
        if inputs is None:
            self.method.progress = show_progress
            return self.method.self_influence()
        if not isinstance(self.method, tw.TracIn):
            raise NotImplementedError("torchwhy.captum: self_influence of rows that were not trained on")
        return copy.copy(self.method).fit(inputs).self_influence()


def _states(
    model: nn.Module, checkpoints: Sequence[InForm], load: LoadCheckpoint
) -> list[tuple[dict[str, Tensor], float]]:
    """Return the parameters of each checkpoint, and its learning rate."""
    other, found = copy.deepcopy(model), []
    for checkpoint in checkpoints:
        rate = load(other, checkpoint)
        found.append(({name: t.detach().clone() for name, t in other.state_dict().items()}, float(rate)))
    return found


def _own_loss(output: Tensor, labels: Tensor) -> Tensor:
    """Return the loss that the model gives itself."""
    return output.sum()


def _loss_of(
    loss_fn: Callable[[Tensor, Tensor], Tensor] | None, test_loss_fn: InForm
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss; of one row a sum and a mean are one number."""
    if test_loss_fn not in (None, loss_fn):
        raise NotImplementedError("torchwhy.captum: another loss for the explained rows (test_loss_fn)")
    return _own_loss if loss_fn is None else loss_fn


class TracInCP(CaptumInfluence):
    """``captum.influence.TracInCP``, by :class:`torchwhy.TracIn`. Arguments as Captum's; ``batch_size`` and
    ``sample_wise_grads_per_batch`` change no number."""

    def __init__(
        self, model: nn.Module, train_dataset: InForm, checkpoints: Sequence[InForm],
        checkpoints_load_func: LoadCheckpoint = load_state_dict, layers: list[str] | None = None,
        loss_fn: Callable[[Tensor, Tensor], Tensor] | None = None, batch_size: int | None = 1,
        test_loss_fn: InForm = None, sample_wise_grads_per_batch: bool = False,
    ) -> None:  # fmt: skip
        states = _states(model, [checkpoints] if isinstance(checkpoints, str) else checkpoints, checkpoints_load_func)
        loss = _loss_of(loss_fn, test_loss_fn)
        self.method = tw.TracIn(model, checkpoints=states, layer=layers, loss=loss).fit(train_dataset)


class TracInCPFast(CaptumInfluence):
    """``captum.influence.TracInCPFast``, by :class:`torchwhy.TracIn` at the last layer.

    With its bias, which Captum leaves out.
    """

    def __init__(
        self, model: nn.Module, final_fc_layer: nn.Module | str, train_dataset: InForm, checkpoints: Sequence[InForm],
        checkpoints_load_func: LoadCheckpoint = load_state_dict,
        loss_fn: Callable[[Tensor, Tensor], Tensor] | None = None, batch_size: int | None = 1,
        test_loss_fn: InForm = None, vectorize: bool = False, projection_dim: int | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        states = _states(model, [checkpoints] if isinstance(checkpoints, str) else checkpoints, checkpoints_load_func)
        loss = _loss_of(loss_fn, test_loss_fn)
        method = tw.TracIn(
            model, checkpoints=states, layer=final_fc_layer, loss=loss, dim=projection_dim, generator=seed
        )
        self.method = method.fit(train_dataset)


class TracInCPFastRandProj(TracInCPFast):
    """``captum.influence.TracInCPFastRandProj``: ``projection_dim`` random signs in the place of its normal draws."""


def _at_checkpoint(model: nn.Module, checkpoint: InForm, load: LoadCheckpoint, hessian_dataset: InForm) -> nn.Module:
    """Return a copy of the model with the parameters of a checkpoint."""
    if hessian_dataset is not None:
        raise NotImplementedError("torchwhy.captum: a Hessian of other rows than the training rows (hessian_dataset)")
    other = copy.deepcopy(model)
    load(other, checkpoint)
    return other


class NaiveInfluenceFunction(CaptumInfluence):
    """``captum.influence.NaiveInfluenceFunction``, by :class:`torchwhy.InfluenceFunction`.

    With the whole inverse: ``projection_dim`` and ``hessian_inverse_tol`` have no effect. ``hessian_reg`` is of the summed loss.
    """

    def __init__(
        self, model: nn.Module, train_dataset: InForm, checkpoint: InForm,
        checkpoints_load_func: LoadCheckpoint = load_state_dict, layers: list[str] | None = None,
        loss_fn: Callable[[Tensor, Tensor], Tensor] | None = None, batch_size: int | None = 1,
        hessian_dataset: InForm = None, test_loss_fn: InForm = None, sample_wise_grads_per_batch: bool = False,
        projection_dim: int = 50, seed: int = 42, hessian_reg: float = 1e-6, hessian_inverse_tol: float = 1e-5,
        projection_on_cpu: bool = True, show_progress: bool = False,
    ) -> None:  # fmt: skip
        damping = hessian_reg / RowsInBatches(train_dataset).count()
        other = _at_checkpoint(model, checkpoint, checkpoints_load_func, hessian_dataset)
        loss, layer = _loss_of(loss_fn, test_loss_fn), "" if layers is None else layers
        method = tw.InfluenceFunction(other, damping=damping, layer=layer, loss=loss, progress=show_progress)
        self.method = method.fit(train_dataset)


class ArnoldiInfluenceFunction(CaptumInfluence):
    """``captum.influence._core.arnoldi_influence_function.ArnoldiInfluenceFunction``, by :class:`torchwhy.InfluenceFunction`.

    ``hessian_reg`` is of the summed loss; ``arnoldi_tol``, ``hessian_inverse_tol`` and ``projection_on_cpu`` have no effect.
    """

    def __init__(
        self, model: nn.Module, train_dataset: InForm, checkpoint: InForm,
        checkpoints_load_func: LoadCheckpoint = load_state_dict, layers: list[str] | None = None,
        loss_fn: Callable[[Tensor, Tensor], Tensor] | None = None, batch_size: int | None = 1,
        hessian_dataset: InForm = None, test_loss_fn: InForm = None, sample_wise_grads_per_batch: bool = False,
        projection_dim: int = 50, seed: int = 0, arnoldi_dim: int = 200, arnoldi_tol: float = 1e-1,
        hessian_reg: float = 1e-3, hessian_inverse_tol: float = 1e-4, projection_on_cpu: bool = True,
        show_progress: bool = False,
    ) -> None:  # fmt: skip
        damping = hessian_reg / RowsInBatches(train_dataset).count()
        other = _at_checkpoint(model, checkpoint, checkpoints_load_func, hessian_dataset)
        method = tw.InfluenceFunction(
            other, hessian="arnoldi", damping=damping, layer="" if layers is None else layers, n_steps=arnoldi_dim,
            rank=projection_dim, generator=seed, loss=_loss_of(loss_fn, test_loss_fn), progress=show_progress,
        )  # fmt: skip
        self.method = method.fit(train_dataset)


class CaptumSimilarity:
    """``captum.influence.SimilarityInfluence``, by ours of the same name; nothing is written to a disk.

    Args:
        module, layers, influence_src_dataset, similarity_metric, similarity_direction: as Captum's; the metric is its
            cosine (None) or its distance, known by their names.
        activation_dir, model_id, batch_size: have no effect.
    """

    def __init__(
        self, module: nn.Module, layers: str | list[str], influence_src_dataset: InForm, activation_dir: str = "",
        model_id: str = "", similarity_metric: Callable[[Tensor, Tensor], Tensor] | None = None,
        similarity_direction: str = "max", batch_size: int = 1,
    ) -> None:  # fmt: skip
        metrics: dict[str, Literal["cosine", "euclidean"]]
        metrics = {"cosine_similarity": "cosine", "euclidean_distance": "euclidean"}
        name = "cosine_similarity" if similarity_metric is None else getattr(similarity_metric, "__name__", "")
        if name not in metrics or similarity_direction not in ("max", "min"):
            raise NotImplementedError(
                "torchwhy.captum: SimilarityInfluence takes the cosine or the distance, 'max' or 'min'"
            )
        self.is_distance, self.largest = name == "euclidean_distance", similarity_direction == "max"
        self.methods = {
            layer: tw.SimilarityInfluence(module, layer=layer, metric=metrics[name]).fit(influence_src_dataset)
            for layer in flatten(layers)[0]
        }

    def influence(self, inputs: InForm, top_k: int = 1) -> dict[str, tuple[Tensor, Tensor]]:
        """Return for each layer the numbers of the rows that are most alike, and how alike they are, ``(N, top_k)``."""
        found = {}
        for layer, method in self.methods.items():
            values = method.explain(inputs).attributions
            values = -values if self.is_distance else values
            best, indices = values.topk(top_k, 1, largest=self.largest)
            found[layer] = indices, best
        return found


CaptumSimilarity.__name__ = CaptumSimilarity.__qualname__ = "SimilarityInfluence"
globals()["SimilarityInfluence"] = CaptumSimilarity
OF_METHODS = ("NaiveInfluenceFunction", "SimilarityInfluence", "TracInCP", "TracInCPFast", "TracInCPFastRandProj")
__all__ = [*OF_BASES, *OF_METHODS]
