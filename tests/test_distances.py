"""Scores that compare two signals, as those of Siamese and embedding models: the same as written out, complete, conserved."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import torchwhy as tw


class Siamese(nn.Module):
    def __init__(self, f):
        super().__init__()
        torch.manual_seed(0)
        self.encode, self.f = nn.Linear(6, 5, bias=False), f
        self.double()

    def forward(self, a, b):
        return self.f(torch.tanh(self.encode(a)), torch.tanh(self.encode(b)))


A, B = torch.randn(2, 3, 6, dtype=torch.double, generator=torch.Generator().manual_seed(1))
PAIRS = {  # as called, written out
    "cosine": (F.cosine_similarity, lambda a, b: (F.normalize(a) * F.normalize(b)).sum(1)),
    "cosine_module": (nn.CosineSimilarity(), lambda a, b: (F.normalize(a) * F.normalize(b)).sum(1)),
    "pairwise": (lambda a, b: F.pairwise_distance(a, b, eps=0), lambda a, b: (a - b).norm(dim=1)),
    "cdist": (lambda a, b: torch.cdist(a[:, None], b[:, None]).flatten(), lambda a, b: (a - b).norm(dim=1)),
    "manhattan": (lambda a, b: torch.cdist(a[:, None], b[:, None], 1).flatten(), lambda a, b: (a - b).abs().sum(1)),
    "mse": (lambda a, b: F.mse_loss(a, b, reduction="none").sum(1), lambda a, b: (a - b).square().sum(1)),
    "l1": (lambda a, b: F.l1_loss(a, b, reduction="none").sum(1), lambda a, b: (a - b).abs().sum(1)),
    "addcdiv": (lambda a, b: torch.addcdiv(a, a, b.abs() + 1).sum(1), lambda a, b: (a + a / (b.abs() + 1)).sum(1)),
    "lerp": (lambda a, b: torch.lerp(a, b, a.sigmoid()).sum(1), lambda a, b: (a + a.sigmoid() * (b - a)).sum(1)),
    "vecdot": (torch.linalg.vecdot, lambda a, b: (a * b).sum(1)),
    "prod": (lambda a, b: (a * b)[:, :2].prod(1), lambda a, b: (a * b)[:, 0] * (a * b)[:, 1]),
}
ALONE = {  # where no other form is at hand
    "smooth_l1": lambda a, b: F.smooth_l1_loss(a, b, reduction="none", beta=0.5).sum(1),
    "huber": lambda a, b: F.huber_loss(a, b, reduction="none", delta=0.3).sum(1),
    "kl": lambda a, b: F.kl_div(a.log_softmax(1), b.log_softmax(1), reduction="none", log_target=True).sum(1),
    "triplet": lambda a, b: F.triplet_margin_loss(a, b, b.flip(1), margin=2.0, reduction="none"),
    "hypot": lambda a, b: torch.hypot(a, b).sum(1),
    "logaddexp": lambda a, b: torch.logaddexp(a, b).sum(1),
}
EVERY = {**{name: called for name, (called, _) in PAIRS.items()}, **ALONE}
METHODS = {
    "deeplift": lambda m: tw.DeepLIFT(m, strict=True),
    "reveal_cancel": lambda m: tw.DeepLIFT(m, rule="reveal_cancel", strict=True),
    "lrp": lambda m: tw.LRP(m, composite="epsilon", epsilon=1e-12, strict=True),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", PAIRS)
def test_a_distance_is_what_it_is_written_out(method, name):
    options = {} if method == "lrp" else {"baselines": (0.0, 0.3)}
    found, expected = (METHODS[method](Siamese(f)).attribute((A, B), **options) for f in PAIRS[name])
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("method", ["deeplift", "reveal_cancel"])
@pytest.mark.parametrize("name", EVERY)
def test_the_change_of_a_distance_is_shared_completely(method, name):
    found = METHODS[method](Siamese(EVERY[name])).explain((A, B), baselines=(0.1, 0.3))
    assert found.details["plain_operations"] == {}
    assert float(found.completeness_gap.max()) < 1e-9


@pytest.mark.parametrize(
    "name", ["cosine", "pairwise", "cdist", "manhattan", "mse", "l1", "smooth_l1", "huber", "prod"]
)
def test_the_relevance_of_a_distance_is_conserved(name):
    net = Siamese(EVERY[name])
    found = METHODS["lrp"](net).attribute((A, B))
    torch.testing.assert_close(sum(v.sum(1) for v in found), net(A, B).detach(), rtol=1e-6, atol=1e-8)


def test_the_size_of_complex_numbers_is_that_of_their_parts():
    def net(size):
        torch.manual_seed(0)
        head, window = nn.Linear(9, 3).double(), torch.hann_window(16, dtype=torch.double)
        return lambda x: head(size(torch.stft(x, 16, 8, window=window, return_complex=True)).mean(-1))

    x = torch.randn(2, 64, dtype=torch.double)
    for rule in ("rescale", "reveal_cancel"):
        found, expected = (
            tw.DeepLIFT(net(size), rule=rule, strict=True).explain(x, 1, baselines=0.1)
            for size in (torch.abs, lambda z: torch.view_as_real(z).norm(dim=-1))
        )
        torch.testing.assert_close(found.attributions, expected.attributions)
        assert float(found.completeness_gap.max()) < 1e-10
    many = tw.DeepSHAP(net(lambda z: z.abs() ** 2), strict=True).explain(x, 1, baselines=x.flip(0) * 0.5)
    assert float(many.completeness_gap.max()) < 1e-10
    silent = tw.DeepLIFT(net(torch.abs)).explain(x, 1)  # from |0|, which has no slope
    assert float(silent.completeness_gap.max()) < 1e-10


def test_other_arguments_keep_the_gradient_and_are_counted():
    with pytest.warns(UserWarning, match="mse_loss"):
        found = tw.DeepLIFT(Siamese(lambda a, b: F.mse_loss(a, b, reduce=False).sum(1))).explain((A, B))
    assert found.details["plain_operations"] == {"mse_loss": 1}
