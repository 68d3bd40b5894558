"""Rows are independent, and the batch size changes nothing."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from cases import each_case
from torch import nn

import torchwhy as tw

CLOSE = {"rtol": 1e-9, "atol": 1e-11}


@each_case
def test_a_batch_gives_what_its_rows_give(case):
    if not case.method.rows_are_independent:
        pytest.skip("the batch is what it draws from")
    net, x = case.setup()
    target = [2, 0, 3]
    together = case.make(net).attribute(x, target=target, **case.data)
    alone = torch.cat([case.make(net).attribute(x[i : i + 1], target=target[i], **case.data) for i in range(3)])
    torch.testing.assert_close(together, alone, **CLOSE)


@pytest.mark.parametrize("batch_size", [2, 7, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 1000))])
@each_case
def test_batch_size_changes_nothing_and_no_call_is_larger(case, batch_size):
    net, x = case.setup()
    seen = []
    net.register_forward_pre_hook(lambda m, args: seen.append(len(args[0])))
    bound = case.make(net, batch_size=batch_size).attribute(x, target=1, **case.data)
    torch.testing.assert_close(case.usual(), bound, **CLOSE)
    assert seen
    assert max(seen) <= batch_size


@each_case
def test_the_same_seed_gives_the_same_numbers_and_another_does_not(case):
    if "generator" not in case.method.__dataclass_fields__:
        pytest.skip("draws nothing")
    net, x = case.setup()
    first, again, other = (case.make(net, generator=s).attribute(x, target=1, **case.data) for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    state = torch.get_rng_state()
    case.make(net, generator=None).attribute(x, target=1, **case.data)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_a_part_of_the_rows_is_told_from_all_of_them(batch_size):
    """As many rows as a row has elements, or those in the middle."""
    x = torch.rand(3, 2, dtype=torch.double)
    found = tw.Saliency(lambda z: z.square().sum(1), batch_size=batch_size).attribute(x)
    torch.testing.assert_close(found, 2 * x)


def test_jobs_are_the_samples_of_all_rows_in_turn():
    class Asks(tw.Attribution):
        def _attribute(self, problem):
            for start, stop in itertools.combinations(range(10), 2):
                rows, k = problem.run.rows_and_samples(start, stop)
                assert rows.tolist() == [job % 3 for job in range(start, stop)]
                assert k.tolist() == [job // 3 for job in range(start, stop)]
            return problem.x

    Asks(lambda x: x.sum(1)).attribute(torch.rand(3, 2))


class Transposed(torch.nn.Module):
    """Batch norm whose gradient comes back transposed."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)
        torch.nn.init.uniform_(self.norm.running_var, 0.5, 2)

    def forward(self, x):
        return (self.norm(x).permute(2, 3, 1, 0) * torch.arange(8 * 8 * 3.0).view(8, 8, 3, 1)).sum((0, 1, 2))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_batch_norm_of_a_single_row_whose_gradient_is_transposed(layout):
    net, x = Transposed().eval(), torch.randn(2, 3, 8, 8).to(memory_format=layout)
    scale = (net.norm.running_var + net.norm.eps).rsqrt().view(3, 1, 1)
    expected = (torch.arange(8 * 8 * 3.0).view(8, 8, 3).permute(2, 0, 1) * scale).expand(2, 3, 8, 8)
    for rows in (x, x[:1]):
        torch.testing.assert_close(tw.Saliency(net).attribute(rows), expected[: len(rows)])


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_one_row_through_a_norm_with_a_transposed_gradient(norm):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.settle, self.head = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8), nn.Linear(8, 2)
            self.register_buffer("mean", torch.randn(8))
            self.register_buffer("var", torch.rand(8) + 0.5)

        def forward(self, x):
            x = self.patches(x)  # a function of it, not a module that could be seen
            x = F.batch_norm(x, self.mean, self.var) if norm == "batch" else F.instance_norm(input=x)
            return self.head(self.settle(x.flatten(2).transpose(1, 2)).square()).mean(1)

    torch.manual_seed(0)
    net, x = Net().double().eval(), torch.randn(1, 3, 16, 16, dtype=torch.double)
    one = tw.Saliency(net, signed=True).attribute(x, 0)
    two = tw.Saliency(net, signed=True).attribute(torch.cat([x, x]), 0)
    torch.testing.assert_close(one, two[:1], rtol=1e-8, atol=1e-12)
