"""Mistakes that type checkers find: one in each line with ``# wrong:`` and the kind. Read by tests/test_typing.py."""

from torch import Tensor, nn

import torchwhy as tw


def mistakes(model: nn.Module, x: Tensor) -> None:
    tw.IntegratedGradients(model, n_stepz=64)  # error: call-arg
    tw.IntegratedGradients(model, n_steps="many")  # error: arg-type
    tw.Saliency(model, precision="int8")  # error: arg-type
    tw.KernelShap(model)  # error: attr-defined
    tw.Saliency(model).attribute(x, targets=3)  # error: call-overload
    tw.Saliency(model).attribute(x, target=0.5)  # error: call-overload
    tw.Saliency(model).attribute([x.tolist()], target=3)  # error: list-item
    tw.IntegratedGradients(model).attribute(x, baselines=object())  # error: call-overload
    print(tw.Saliency(model).explain(x).completeness)  # error: attr-defined
    tw.Saliency(model).explain(x).plot().plot()  # error: attr-defined
    tw.visualize.bars([1.0], tops=3)  # error: call-arg
    print(tw.metrics.deletion(model, x).auc)  # error: call-arg
    tw.Blur(sigma="8")  # error: arg-type
    tw.lrp.EPSILON.replace(by_nam={})  # error: call-arg
    tw.lrp.EPSILON.replace(linear=0.25)  # error: arg-type
    tw.LRP.rules("epsilon", epsilonn=3)  # error: call-arg
    tw.LRP.rules("epsilon", epsilon="3")  # error: arg-type
    print(tw.metrics.infidelitty)  # error: attr-defined
