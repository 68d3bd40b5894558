"""Networks and questions drawn by hypothesis: what is asked, of which network, with which arguments, in which context."""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from cases import CASES
from hypothesis import strategies as st
from nets import inputs, make
from torch import nn
from torch.nn import functional as F

SIZE = (3, 8, 8)


def half_doubled(net, h):
    h = h.clone()
    h[:, ::2] = h[:, ::2] * 2
    return h


def in_halves(net, h):
    a, b = h.chunk(2, 1)
    return torch.cat([b, a], 1)


def grouped(net, h):
    return (h.flatten(2).transpose(1, 2) @ net.mix).transpose(1, 2).reshape(h.shape)


def written_twice(net, h):
    return h.mul_(0.7).add_(0.1)


def with_a_skip(net, h):
    return net.conv2(h) + h


def added_in_place(net, h):
    y = net.conv2(h)
    y += h
    return y


# what may stand between the first convolution and the head: (N, 6, 8, 8) → the same shape, or a coarser grid
STEPS = {
    "relu module, in place": lambda net, h: net.relu(h),
    "relu function": lambda net, h: F.relu(h),
    "relu method, in place": lambda net, h: h.relu_(),
    "tanh": lambda net, h: torch.tanh(h),
    "gelu": lambda net, h: F.gelu(h),
    "silu": lambda net, h: F.silu(h),
    "leaky": lambda net, h: F.leaky_relu(h, 0.1),
    "norm": lambda net, h: net.norm(h),
    "convolution, again": lambda net, h: net.conv2(h),
    "skip": with_a_skip,
    "added in place": added_in_place,
    "written twice": written_twice,
    "half doubled": half_doubled,
    "halves": in_halves,
    "tokens": grouped,
    "transposed": lambda net, h: h.mT,
    "max pool": lambda net, h: F.max_pool2d(h, 2) if h.shape[-1] > 2 else h,
    "mean pool": lambda net, h: F.avg_pool2d(h, 2) if h.shape[-1] > 2 else h,
    "softmax": lambda net, h: F.softmax(h, 1) * 6,
    "gate": lambda net, h: h * torch.sigmoid(h.mean((2, 3), keepdim=True)),
    "detached part": lambda net, h: h + 0.1 * h.detach(),
}
HEADS = {
    "mean": lambda h: h.mean((2, 3)),
    "max": lambda h: h.amax((2, 3)),
    "corner": lambda h: h[:, :, 0, 0],
    "norm": lambda h: h.flatten(2).norm(dim=2),
}
TARGETS = {
    "an index": lambda n: 1,
    "one a row": lambda n: [2, 0, 3][:n],
    "predicted": lambda n: "predicted",
    "a function": lambda n: lambda output: output[:, 1] - output[:, 2],
    "a function of rows": lambda n: lambda output, rows: output[torch.arange(len(rows)), rows % 4],
}
BASELINES = {
    "none": lambda x: None,
    "a number": lambda x: 0.3,
    "mean": lambda x: "mean",
    "rows": lambda x: x.roll(1, -1) * 0.5,
    "one row": lambda x: torch.linspace(-1, 1, x[0].numel(), dtype=x.dtype).view(1, *x.shape[1:]),
}
VALUES = {
    "normal": lambda x: x,
    "whole": lambda x: x.round(),
    "zero": torch.zeros_like,
    "equal rows": lambda x: x[:1].expand_as(x),
    "strided": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "large": lambda x: x * 30,
}
CONTEXTS = {
    "nothing": nullcontext,
    "no grad": torch.no_grad,
    "inference mode": torch.inference_mode,
    "grad": torch.enable_grad,
    "anomaly": lambda: torch.autograd.set_detect_anomaly(True, check_nan=False),
}


class Drawn(nn.Module):
    """Images (N, 3, 8, 8) → (N, 4): the first convolution, some of the steps, a head."""

    def __init__(self, steps, head):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.relu, self.head = nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Linear(6, 4)
        self.register_buffer("mix", torch.randn(6, 6) / 3)
        nn.init.normal_(self.norm.running_mean)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)
        self.steps, self.pooled = [STEPS[step] for step in steps], HEADS[head]

    def forward(self, x):
        h = self.conv1(x)
        for step in self.steps:
            h = step(self, h)
        return self.head(self.pooled(h))


@dataclass(frozen=True)
class Question:
    """A method of the table, the network and the arguments that it is asked about."""

    case: int
    steps: tuple[str, ...]
    head: str
    seed: int
    n: int
    values: str
    target: str
    baselines: str
    context: str
    batch_size: int | None
    dtype: torch.dtype

    def setup(self):
        """The case, a network of its own, its rows, and the arguments besides."""
        case = CASES[self.case]
        net = make(case.net, self.dtype, self.seed)
        if case.net == "conv":
            with torch.random.fork_rng():
                torch.manual_seed(self.seed)
                net = Drawn(self.steps, self.head).to(self.dtype).eval()
        x = VALUES[self.values](inputs(case.net, self.n, self.dtype, self.seed))
        data = {**case.data, "target": TARGETS[self.target](self.n)}
        if case.method.uses_baselines and not case.method.baselines_are_rows:
            data["baselines"] = BASELINES[self.baselines](x)
        return case, net, x, data

    def method(self, case, net, **options):
        return case.make(net, **{"batch_size": self.batch_size, **options})


EVERY = tuple(range(len(CASES)))


def questions(cases=EVERY, **fixed):
    """Questions about some of the cases; ``fixed`` are strategies in the place of the usual ones."""
    return st.builds(
        Question,
        **{
            "case": st.sampled_from(cases),
            "steps": st.lists(st.sampled_from(list(STEPS)), max_size=4).map(tuple),
            "head": st.sampled_from(list(HEADS)),
            "seed": st.integers(0, 50),
            "n": st.integers(1, 3),
            "values": st.sampled_from(list(VALUES)),
            "target": st.sampled_from(list(TARGETS)),
            "baselines": st.sampled_from(list(BASELINES)),
            "context": st.sampled_from(list(CONTEXTS)),
            "batch_size": st.sampled_from([None, 1, 2, 5]),
            "dtype": st.sampled_from([torch.double, torch.float]),
            **fixed,
        },
    )
