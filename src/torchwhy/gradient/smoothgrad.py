"""SmoothGrad and its relatives: statistics of a method's attributions around the input."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from torchwhy.engine.asker import LayerRole
from torchwhy.engine.features.moments import RunningMoments
from torchwhy.engine.run.randomness import Seed
from torchwhy.engine.structure import Keywords, Tensors
from torchwhy.gradient.noisy_points import NoisyPoints, Stdevs, check_stdevs
from torchwhy.gradient.saliency import Channels, Saliency, postprocess_gradient
from torchwhy.input_types import GivenLayer
from torchwhy.problem import Problem
from torchwhy.result import Result
from torchwhy.settings import Count, NotNegative
from torchwhy.wrapper import InnerFacts, Wrapper, attribute_at


class SmoothGrad(Wrapper[GivenLayer]):
    r"""The mean gradient around the input: :math:`A_n = | \frac1m \sum_{k=1}^m \nabla f(x_n + \sigma_n \epsilon_k) |`.

    In units of score per input, like :class:`Saliency`, which it equals without noise. The noise
    :math:`\epsilon_k \sim N(0, I)` is shared by the rows, so that a batch gives what its rows give one by one. With ``of=``,
    the mean of that method's attributions, its sign and shape.

    The noise goes to the inputs, also where ``layer=`` reads the gradient elsewhere. Token ids have no neighbours: with
    ``layer="embeddings"``, and for a ``tw.Text`` or ``tw.Prompt``, x is what passes the table.

    Args:
        n_samples: the number m of noisy inputs.
        noise_level: :math:`\sigma_n` as a share of the row's range, max − min.
        stdevs: :math:`\sigma_n` itself, in units of the input, one or one per input tensor; replaces ``noise_level``.
        of: another method, whose own settings (its layer, its batch size) hold; None is the plain gradient.
        signed: keep the sign of the mean gradient.
        channels: make one map of the channels, as for :class:`Saliency`.
        generator: an int or a CPU ``torch.Generator``; None draws afresh each time.

    The explanation's ``standard_error`` is that of the mean, before the sign is taken off; None with ``channels``, and for its
    relatives, which give another statistic.

    Paper: Smilkov et al. 2017, arXiv:1706.03825. Captum's ``NoiseTunnel(Saliency(model))`` averages absolute gradients:
    that is ``SmoothGrad(model, of=Saliency(model))``.
    """

    n_samples: Count = 32
    noise_level: NotNegative = 0.15
    stdevs: Stdevs | None = None
    signed: bool = False
    channels: Channels = None
    generator: Seed = None

    paper: ClassVar[str] = "arXiv:1706.03825"

    def _attribute(self, problem: Problem) -> Result:
        sums, details = self.moments(problem)
        known = self.of is not None or self.channels is None
        error = sums.standard_error(self.n_samples) if known else None
        return Result(self.postprocess(sums.mean(self.n_samples)), standard_error=error, details=details)

    def postprocess(self, values: Tensors) -> Tensors:
        """Return the mean gradient in the form asked for; another method's mean as it is."""
        return postprocess_gradient(values, self.signed, self.channels) if self.of is None else values

    def moments(self, problem: Problem) -> tuple[RunningMoments, Keywords]:
        """Return sums over the noisy inputs' maps and their squares, and what the other method found out."""
        around = NoisyPoints(problem, self.noise_level, self.stdevs)
        if problem.input_layers:
            return self._moments_at_layers(problem, around), {}
        of = self.of or self._gradient()

        def work(start: int, stop: int) -> tuple[Tensor, Result]:
            rows, k = problem.run.rows_and_samples(start, stop)
            return rows, attribute_at(of, problem, around.point(rows, k), rows)

        sums, inner = RunningMoments(problem.rows, square=True), InnerFacts(problem.n)
        for rows, result in problem.run.batches(self.n_samples * problem.n, work):
            sums.add(rows, result.attributions)
            inner.add(rows, result)
        return sums, inner.as_details()

    def _moments_at_layers(self, problem: Problem, around: NoisyPoints) -> RunningMoments:
        """Return sums over the gradients, and their squares, where noise is added to what passes the embeddings."""
        sums = RunningMoments(problem.rows, square=True)
        for part in problem.run.evaluate_points(self.n_samples, around.point):
            sums.add(part.rows, part.gradients)
        return sums

    @property
    def layer_role(self) -> LayerRole:  # type: ignore[override]
        """``"input"`` for the embeddings of token ids, which noise is added to; a layer that is named is read."""
        explained = self.of is None and self.layer in (None, "embeddings")
        return "input" if explained else super().layer_role

    def _gradient(self) -> Saliency:
        """Return the method whose answers are averaged without another one: the signed gradient."""
        return Saliency(
            self.model,
            signed=True,
            layer=self.layer,
            batch_size=self.batch_size,
            attribute_to_layer_input=self.attribute_to_layer_input,
            precision=self.precision,
        )

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.stdevs is not None:
            check_stdevs(self.stdevs)
        self._follow_gradient()
        if self.of is not None and self.layer is not None:
            raise ValueError("layer: give it to the method in of=")


class SquareGrad(SmoothGrad[GivenLayer]):
    r"""The mean squared gradient around the input: :math:`A_n = \frac1m \sum_k \nabla f(x_n + \sigma_n \epsilon_k)^2`.

    Non-negative, in squared units. Settings as for :class:`SmoothGrad`.

    Paper: Hooker et al. 2019, arXiv:1806.10758, section 3 (SmoothGrad-Squared).
    """

    paper: ClassVar[str] = "arXiv:1806.10758"

    def _attribute(self, problem: Problem) -> Result:
        (sums, details), m = self.moments(problem), self.n_samples
        squares = [mean.square() + v * ((m - 1) / m) for mean, v in zip(sums.mean(m), sums.variance(m))]
        return Result(self.postprocess(tuple(squares)), details=details)


class VarGrad(SmoothGrad[GivenLayer]):
    r"""The variance of the gradient around the input: :math:`A_n = \frac1m \sum_k (g_k - \bar g)^2`,
    :math:`g_k = \nabla f(x_n + \sigma_n \epsilon_k)`.

    Non-negative, in squared units; says where the gradient is unstable, not where it is large. Settings as for
    :class:`SmoothGrad`.

    Paper: Adebayo et al. 2018, arXiv:1810.03307; Hooker et al. 2019, arXiv:1806.10758.
    """

    paper: ClassVar[str] = "arXiv:1810.03307"

    def _attribute(self, problem: Problem) -> Result:
        (sums, details), m = self.moments(problem), self.n_samples
        return Result(self.postprocess(tuple(v * ((m - 1) / m) for v in sums.variance(m))), details=details)
