"""A network whose modules tell that it is worth optimizing is optimized in its first call, which has as many rows as others."""

import pytest
import torch
from torch import nn

import torchwhy as tw
from torchwhy.engine.run import batching
from torchwhy.engine.run.batching import Batching
from torchwhy.engine.run.call_cost import CallCost
from torchwhy.engine.run.optimizations import CallOptimizations, choose_optimizations, foresee_optimizations

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
LARGE = 2**16  # bytes of a call's inputs


def network(*, norms=1, convolutions=1, dtype=torch.float, training=False):
    """A network of convolutions of 3 channels, some of them normed."""
    parts = [nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)) for _ in range(norms)]
    parts += [nn.Conv2d(3, 3, 3, padding=1) for _ in range(convolutions - norms)]
    net = nn.Sequential(*parts, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return net.to(dtype).train(training)


class ViewsItsInput(nn.Module):
    """A network that cannot take images with their channels last."""

    def __init__(self):
        super().__init__()
        self.body = network()
        self.was_contiguous = []

    def forward(self, x):
        self.was_contiguous.append(x.is_contiguous())
        return self.body(x.view(len(x), -1).view(x.shape))


@pytest.mark.parametrize(
    "model, size, device, is_foreseen",
    [
        (network(), LARGE, CPU, True),
        (network(), LARGE - 1, CPU, False),  # what convolutions make is short
        (network(), LARGE, CUDA, False),  # where it depends on gradients, and few rows take as long as many
        (network(dtype=torch.double), LARGE, CPU, False),
        (network(training=True), LARGE, CPU, False),
        (network(norms=0), LARGE, CPU, False),
        (network(norms=1, convolutions=4), LARGE, CPU, True),
        (network(norms=1, convolutions=5), LARGE, CPU, False),
        (nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval(), LARGE, CPU, False),
        (nn.Sequential(nn.Conv1d(3, 3, 3), nn.BatchNorm1d(3)).eval(), LARGE, CPU, False),
        (nn.Sequential(nn.Conv3d(3, 3, 3), nn.BatchNorm3d(3)).eval(), LARGE, CPU, True),
        (network().forward, LARGE, CPU, False),
        (torch.compile(network(), backend="eager"), LARGE, CPU, False),
        (None, LARGE, CPU, False),
    ],
)
def test_modules_types_and_sizes_tell(model, size, device, is_foreseen):
    found = foresee_optimizations(model, size, device=device, calls=3)
    assert (found is not None) == is_foreseen
    assert not is_foreseen or (found.channels_last, found.fold, found.calls) == (True, True, 3)


def rows_of(net, x, **settings):
    """The rows of the model's calls for gradients of 20 inputs, and what each ran under."""
    ran, work = [], Batching.run

    def run(self, total, call):
        def seen(start, stop):
            ran.append((stop - start, self.plan.optimizations))
            return call(start, stop)

        return work(self, total, seen)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batching, "run", run)
        found = tw.Saliency(net, check=False, **settings).attribute(x, 1)
    return [rows for rows, _ in ran], [how for _, how in ran], found


def test_the_first_call_is_optimized_and_has_as_many_rows_as_others():
    net, x = network(norms=2, convolutions=2), torch.randn(20, 3, 160, 160)
    rows, ran_under, found = rows_of(net, x)
    assert rows[0] == 8
    assert all(how is ran_under[0] for how in ran_under)  # with its copies of weights
    assert type(ran_under[0]) is CallOptimizations
    z = x.clone().requires_grad_()
    expected = torch.autograd.grad(net(z)[:, 1].sum(), z)[0].abs()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-9)


def test_others_have_few_rows_until_one_was_counted():
    rows, ran_under, _ = rows_of(network(norms=0), torch.randn(20, 3, 160, 160))
    assert (rows[0], ran_under[0]) == (1, None)


def test_what_was_counted_of_few_rows_is_scaled_to_those_of_a_call(monkeypatch):
    times = []

    def chosen(model, cost, of_counted, **how):
        times.append((of_counted, how["calls"]))

    monkeypatch.setattr(batching, "choose_optimizations", chosen)
    rows, _, _ = rows_of(network(), torch.randn(40, 3, 160, 160), batch_size=10)
    assert rows == [8, 8, 8, 8, 8]
    assert times == [(10 / 8, 4)]


def test_the_calls_left_share_the_copies():
    _, ran_under, _ = rows_of(network(), torch.randn(20, 3, 160, 160), batch_size=4)
    assert ran_under[0].calls == 5


def test_a_model_that_cannot_take_it_runs_as_it_is():
    net = ViewsItsInput().eval()
    x = torch.randn(20, 3, 160, 160)
    rows, ran_under, found = rows_of(net, x)
    assert rows[:2] == [8, 1]  # it failed, and was counted as it is
    assert ran_under[0] is not None
    assert ran_under[1] is ran_under[-1] is None
    assert net.was_contiguous.count(False) <= 2
    torch.testing.assert_close(found, tw.Saliency(net.body, check=False).attribute(x, 1), rtol=1e-4, atol=1e-9)


def test_copies_of_weights_are_not_counted():
    """They are made once, and would look as if each row made them."""
    net = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64)).eval().requires_grad_(False)
    x, size = torch.randn(8, 64, 8, 8), 4 * 8 * 64 * 64
    assert net[0].weight.nbytes > size
    optimizations = CallOptimizations(calls=100)
    with CallCost() as all_of_it, optimizations:
        net(x)
    assert all_of_it.largest == net[0].weight.nbytes

    optimizations = CallOptimizations(calls=100)
    with CallCost() as found:
        optimizations.cost = found
        with optimizations:
            net(x)
    assert (found.largest, found.convolutions, found.batch_norms) == (size, 1, 0)


def counted(**facts):
    """The cost of a call of a network of ten convolutions, whose batch norms were folded into them."""
    found = CallCost()
    found.convolutions, found.convolved, found.total, found.dtype = 10, 2**24, 2**25, torch.float
    for name, value in facts.items():
        setattr(found, name, value)
    return found


@pytest.mark.parametrize(
    "cost, is_kept, kinds",
    [
        (counted(), True, (True, True)),
        (counted(summed=2**23), False, (False, True)),  # split attention
        (counted(convolved=2**16), False, None),
    ],
)
def test_what_was_counted_has_the_last_word(cost, is_kept, kinds):
    foreseen = CallOptimizations(calls=9)
    foreseen.cost = cost
    chosen = choose_optimizations(network(), cost, 1, device=CPU, graph=True, calls=2, foreseen=foreseen)
    assert (chosen is foreseen) == is_kept
    assert (chosen and (chosen.channels_last, chosen.fold, chosen.calls, chosen.cost)) == (kinds and (*kinds, 2, None))
