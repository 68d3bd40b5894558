"""Mistakes that type checkers find: one in each line with ``# wrong:`` and the kind. Read by tests/test_typing.py."""

from torch import Tensor, nn

import torchwhy as tw


def mistakes(model: nn.Module, x: Tensor) -> None:
    tw.IntegratedGradients(model, n_stepz=64)  # wrong: call-arg
    tw.IntegratedGradients(model, n_steps="many")  # wrong: arg-type
    tw.Saliency(model, precision="int8")  # wrong: arg-type
    tw.KernelShap(model)  # wrong: attr-defined
    tw.Saliency(model).attribute(x, targets=3)  # wrong: call-arg
    tw.Saliency(model).attribute(x, target=0.5)  # wrong: arg-type
    tw.Saliency(model).attribute([x.tolist()], target=3)  # wrong: arg-type
    tw.IntegratedGradients(model).attribute(x, baselines=object())  # wrong: arg-type
    tw.Saliency(model).explain(x).completeness  # wrong: attr-defined
    tw.Saliency(model).explain(x).plot().plot()  # wrong: attr-defined
    tw.visualize.bars([1.0], tops=3)  # wrong: call-arg
    tw.metrics.deletion(model, x).auc  # wrong: call-arg
    tw.Blur(sigma="8")  # wrong: arg-type
