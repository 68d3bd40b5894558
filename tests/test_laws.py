"""Laws that a method states: exact on linear models, complete, blind to what the model does not read."""

import torch
from cases import cases
from nets import inputs, make

from torchwhy.attribution import prepare_for


@cases(law="linear")
def test_exact_on_a_linear_model(case):
    net, x = make("linear"), inputs("linear")
    b = inputs("linear", seed=5)[:1] if case.method.uses_baselines else torch.zeros_like(x[:1])
    data = {"baselines": b} if case.method.uses_baselines else {}
    found = case.make(net).attribute(x, target=[0, 2, 1], **data)
    torch.testing.assert_close(found, net.weight[[0, 2, 1]] * (x - b), rtol=1e-10, atol=1e-12)


@cases(law="complete")
def test_complete(case):
    net, x = case.setup()
    e = case.make(net, **case.exact).explain(x, target=1)
    change = (net(x) - net(torch.zeros_like(x)))[:, 1].detach().abs()
    assert e.completeness_gap.shape == (3,)
    assert (e.completeness_gap <= 0.02 * change.clamp(min=0.1)).all()


@cases(law="complete")
def test_the_reported_gap_is_the_gap(case):
    net, x = case.setup()
    method = case.make(net, **case.exact)
    of = getattr(method, "of", None) or method
    if "max_sigma" in of.__dataclass_fields__:
        begin = of.path(prepare_for(method, x, 1)).point(torch.arange(3), torch.zeros(3, dtype=torch.long))[0]
    else:
        begin = torch.zeros_like(x)
    e = method.explain(x, target=1)
    with torch.no_grad():
        expected = e.attributions.flatten(1).sum(1) - (net(x) - net(begin))[:, 1]
    torch.testing.assert_close(e.completeness_gap, expected.abs(), rtol=1e-6, atol=1e-9)


@cases(law="dummy")
def test_what_is_not_read_gets_nothing(case):
    net, x = make("conv"), inputs("conv")
    with torch.no_grad():
        net.conv1.weight[:, 1] = 0
    found = case.make(net, **case.exact).attribute(x, target=1)
    assert (found[:, 1] == 0).all()
    assert (found[:, 0] != 0).any()
