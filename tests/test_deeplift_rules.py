"""DeepLIFT's rules: complete operation by operation, equal to their slow versions, the gradient where nothing changes."""

import pytest
import torch
from reference import rules as slow
from torch import nn
from torch.nn import functional as F

import torchwhy as tw
from torchwhy.backprop.deeplift_rules import APART, RULES
from torchwhy.engine.rules.paired_run import PairedRules, RecordedRun

D = torch.double
W = torch.randn(4, 6, dtype=D, generator=torch.Generator().manual_seed(3))
NANS = torch.full((1, 2, 2), torch.nan, dtype=D)


def multipliers(f, x, b, m=None):
    """The multipliers of y = f(x) beside f(b), for multipliers m at y; y and its change."""
    with torch.no_grad(), RecordedRun(RULES, APART) as recording:
        y0 = f(b * 1.0)
    x = x.detach().clone().requires_grad_()
    with PairedRules(RULES, APART, recording) as rules:
        y1 = f(x * 1.0)
    with torch.no_grad():
        torch.testing.assert_close(y1.detach(), f(x * 1.0))  # the value is the operation's own
    m = torch.ones_like(y1) if m is None else m
    (found,) = torch.autograd.grad(y1, x, m)
    return found, (m * (y1.detach() - y0)), rules


POINTWISE = [
    torch.relu, torch.sigmoid, torch.tanh, F.gelu, lambda x: F.gelu(x, approximate="tanh"), F.silu, F.hardswish, F.mish,
    F.softplus, F.elu, F.selu, F.celu, F.leaky_relu, F.relu6, F.hardtanh, F.hardsigmoid, F.softsign, F.logsigmoid,
    F.tanhshrink, F.softshrink, torch.exp, torch.sin, torch.abs, torch.square, torch.erf, lambda x: x**3, lambda x: 2**x,
    lambda x: x.clamp(-0.5, 0.5), lambda x: x.abs().add(1).log(), lambda x: x.abs().add(0.1).sqrt(), lambda x: 1 / (x**2 + 1),
    lambda x: (x**2 + 1).rsqrt(), lambda x: x.clone().relu_(), lambda x: F.relu(x * 1.0, inplace=True),
    lambda x: F.prelu(x, torch.full((1,), 0.2, dtype=D)), lambda x: (x**2 + 1) ** -0.5,
]  # fmt: skip
MANY = {
    "mul": lambda x: x[:, :3] * x[:, 3:],
    "mul_broadcast": lambda x: x * x.mean(1, keepdim=True),
    "mul_in_place": lambda x: x.clone().mul_(x.sin()),
    "add_in_place": lambda x: x.sin().add_(x.exp()),
    "square_by_itself": lambda x: x * x,
    "div": lambda x: x[:, :3] / (x[:, 3:] ** 2 + 1),
    "div_through_zero": lambda x: x[:, :3] / x[:, 3:],
    "rdiv": lambda x: 2.0 / (x**2 + 0.5),
    "rms_by_hand": lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
    "norm_by_hand": lambda x: (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-6),
    "matmul": lambda x: x.view(-1, 2, 3) @ x.view(-1, 3, 2),
    "bmm": lambda x: torch.bmm(x.view(-1, 2, 3), x.view(-1, 3, 2)),
    "einsum": lambda x: torch.einsum("nij,njk->nik", x.view(-1, 2, 3), x.view(-1, 3, 2)),
    "baddbmm": lambda x: torch.baddbmm(x[:, :4].view(-1, 2, 2), x.view(-1, 2, 3), x.view(-1, 3, 2), alpha=0.5),
    "baddbmm_by_name": lambda x: torch.baddbmm(
        x[:, :4].view(-1, 2, 2), batch2=x.view(-1, 3, 2), batch1=x.view(-1, 2, 3), beta=2
    ),
    "baddbmm_without_input": lambda x: torch.baddbmm(NANS, x.view(-1, 2, 3), x.view(-1, 3, 2), beta=0),
    "addmm_by_name": lambda x: torch.addmm(x[:, :4], mat1=x, mat2=W.T.contiguous(), beta=0.5),
    "addcmul": lambda x: torch.addcmul(x, x, x.sin(), value=2),
    "addcmul_by_name": lambda x: torch.addcmul(x, tensor2=x.sin(), tensor1=x),
    "softmax": lambda x: x.softmax(1),
    "log_softmax": lambda x: F.log_softmax(x, dim=-1),
    "logsumexp": lambda x: torch.logsumexp(x, 1),
    "softmax_masked": lambda x: x.masked_fill(torch.arange(6) > 3, -torch.inf).softmax(1),
    "layer_norm": lambda x: F.layer_norm(x, (6,), W[0], W[1]),
    "rms_norm": lambda x: F.rms_norm(x, (6,), W[0]),
    "group_norm": lambda x: F.group_norm(x, 2, W[0], W[1]),
    "instance_norm": lambda x: F.instance_norm(x.view(-1, 2, 3)),
    "max_pool": lambda x: F.max_pool1d(x[:, None], 3, stride=2),
    "max_pool_indices": lambda x: F.max_pool1d(x[:, None], 2, return_indices=True)[0],
    "max_pool2d": lambda x: F.max_pool2d(x.view(-1, 1, 2, 3), 2, stride=1, padding=1),
    "adaptive_max_pool": lambda x: F.adaptive_max_pool1d(x[:, None], 2),
    "amax": lambda x: x.amax(1),
    "amax_all_dims": lambda x: x.view(-1, 2, 3).amax((1, 2)),
    "max_dim": lambda x: x.view(-1, 2, 3).max(1).values,
    "min_dim": lambda x: x.min(1, keepdim=True)[0],
    "maximum": lambda x: torch.maximum(x[:, :3], x[:, 3:]),
    "minimum": lambda x: torch.minimum(x, torch.zeros(6, dtype=D)),
    "max_of_two": lambda x: torch.max(x[:, :3], x[:, 3:]),
    "max_of_two_method": lambda x: x[:, :3].max(x[:, 3:]),
    "min_of_two": lambda x: torch.min(torch.zeros(6, dtype=D), other=x),
    "min_of_two_method": lambda x: x.min(torch.zeros(6, dtype=D)),
    "glu": lambda x: F.glu(x),
    "normalize": lambda x: F.normalize(x, dim=1),
    "vector_norm": lambda x: torch.linalg.vector_norm(x, dim=1),
    "vector_norm_of_order": lambda x: torch.linalg.vector_norm(x, 2, 1),
    "var": lambda x: x.var(1),
    "std": lambda x: x.std(1, correction=0),
    "local_response_norm": lambda x: F.local_response_norm(x.view(-1, 3, 2), 2),
    "vector_norm_1": lambda x: torch.linalg.vector_norm(x, 1, 1),
    "vector_norm_1_ord": lambda x: torch.linalg.vector_norm(x, ord=1, dim=1),
    "vector_norm_3": lambda x: x.norm(3, 1, keepdim=True),
    "cosine_similarity": lambda x: F.cosine_similarity(x[:, :3], x[:, 3:]),
    "cosine_similarity_broadcast": lambda x: F.cosine_similarity(x.view(-1, 1, 2, 3), x.view(-1, 2, 1, 3), dim=-1),
    "cosine_similarity_constant": lambda x: torch.cosine_similarity(x, W[:1], 1, 1e-6),
    "pairwise_distance": lambda x: F.pairwise_distance(x[:, :3], x[:, 3:]),
    "pairwise_distance_1": lambda x: nn.PairwiseDistance(p=1, keepdim=True)(x[:, :3], x[:, 3:]),
    "cdist": lambda x: torch.cdist(x.view(-1, 2, 3), x.view(-1, 3, 2)[..., :1].expand(-1, 3, 3)),
    "cdist_constant": lambda x: torch.cdist(x, W),
    "cdist_1": lambda x: torch.cdist(x.view(-1, 2, 3), W[:, :3].expand(len(x), 4, 3), p=1.0),
    "dist": lambda x: torch.stack([torch.dist(row[:3], row[3:]) for row in x]),
    "hypot": lambda x: torch.hypot(x[:, :3], x[:, 3:4]),
    "logaddexp": lambda x: torch.logaddexp(x[:, :3], x[:, 3:]),
    "vecdot": lambda x: torch.linalg.vecdot(x[:, :3], x[:, 3:]),
    "mse_loss": lambda x: F.mse_loss(x[:, :3], x[:, 3:], reduction="none"),
    "mse_loss_mean": lambda x: torch.stack([F.mse_loss(row[:3], row[3:]) for row in x]),
    "l1_loss": lambda x: F.l1_loss(x[:, :3], x[:, 3:], reduction="none").sum(1),
    "smooth_l1_loss": lambda x: F.smooth_l1_loss(x[:, :3], x[:, 3:], reduction="none", beta=0.7),
    "smooth_l1_loss_0": lambda x: F.smooth_l1_loss(x[:, :3], x[:, 3:], reduction="none", beta=0.0),
    "huber_loss": lambda x: F.huber_loss(x, W[:1].expand_as(x), reduction="none", delta=0.4),
    "kl_div": lambda x: F.kl_div(x.log_softmax(1), W[:1].softmax(1).expand_as(x), reduction="none"),
    "kl_div_log": lambda x: F.kl_div(
        x[:, :3].log_softmax(1), x[:, 3:].log_softmax(1), reduction="none", log_target=True
    ),
    "triplet_margin_loss": lambda x: F.triplet_margin_loss(x[:, :2], x[:, 2:4], x[:, 4:], 3.0, reduction="none"),
    "triplet_margin_loss_swap": lambda x: F.triplet_margin_loss(
        x[:, :2], x[:, 2:4], x[:, 4:], margin=3.0, swap=True, reduction="none"
    ),
    "cosine_embedding_loss": lambda x: F.cosine_embedding_loss(
        x[:, :3], x[:, 3:], torch.ones(len(x)), reduction="none"
    ),
    "cosine_embedding_loss_other": lambda x: F.cosine_embedding_loss(
        x[:, :3], x[:, 3:], -torch.ones(len(x)), margin=-0.5, reduction="none"
    ),
    "addcdiv": lambda x: torch.addcdiv(x[:, :3], x[:, 3:], x[:, :3].square() + 1, value=0.5),
    "addr": lambda x: torch.stack([torch.addr(row.view(2, 3), row[:2], row[2:5], alpha=2) for row in x]),
    "lerp": lambda x: torch.lerp(x, 2 * x.flip(1), x.sigmoid()),
    "lerp_number": lambda x: torch.lerp(x, 2 * x.flip(1), 0.3),
    "prod": lambda x: x.prod(1),
    "prod_of_five": lambda x: x[:, :5].prod(dim=1, keepdim=True),
    "complex_abs": lambda x: torch.view_as_complex(x.view(-1, 3, 2)).abs(),
    "complex_abs_in_place_after": lambda x: (torch.view_as_complex(x.view(-1, 3, 2)) * 1.0).abs().mul_(2),
    "complex_power": lambda x: torch.view_as_complex(x.view(-1, 3, 2)).abs() ** 2,
    "complex_conj": lambda x: (lambda z: (z * z.conj()).real)(torch.view_as_complex(x.view(-1, 3, 2))),
    "complex_product": lambda x: (lambda z: (z * z[:, :1].conj()).imag)(torch.view_as_complex(x.view(-1, 3, 2))),
    "complex_times_real": lambda x: (x[:, :3] * torch.view_as_complex(x.view(-1, 3, 2))).real,
    "complex_exp": lambda x: torch.view_as_real(torch.view_as_complex(x.view(-1, 3, 2)).exp()).flatten(1),
    "complex_parts": lambda x: (lambda z: z.real**2 + z.imag.tanh())(torch.fft.rfft(x)),
    "spectrogram": lambda x: torch.stft(
        x, 4, 2, window=torch.hann_window(4, dtype=D), return_complex=True
    ).abs(),
    "where_relu": lambda x: torch.where(x > 0, x, 0.0),
    "where_method": lambda x: x.where(x < 0, torch.zeros(6, dtype=D)),
    "where_leaky": lambda x: torch.where(x > 0, x, 0.1 * x),
    "where_of_two": lambda x: torch.where(x[:, :3] > x[:, 3:], x[:, :3] * 2, x[:, 3:].sin()),
    "where_broadcast": lambda x: torch.where(x.view(-1, 2, 3) > 0, x.view(-1, 2, 3), x[:, :3].view(-1, 1, 3)),
    "masked_fill": lambda x: x.masked_fill(x < 0, 0.5),
    "masked_fill_in_place": lambda x: (x * 1).masked_fill_(x < 0, 0.5),
    "times_mask": lambda x: x * (x > 0),
    "mask_times": lambda x: (x > 0.3).double() * x,
    "times_mask_in_place": lambda x: (x * 1).mul_(x > 0),
    "write_by_mask": lambda x: _written(x),
    "attention": lambda x: F.scaled_dot_product_attention(*(x.view(-1, 3, 2) * k for k in (1.0, 2.0, 3.0))),
    "attention_causal": lambda x: F.scaled_dot_product_attention(*[x.view(-1, 3, 2)] * 3, is_causal=True, scale=0.7),
    "attention_grouped": lambda x: F.scaled_dot_product_attention(
        x.view(-1, 2, 3, 1), x.view(-1, 2, 3, 1)[:, :1], x.view(-1, 2, 3, 1)[:, :1], enable_gqa=True
    ),
}  # fmt: skip


NEEDS = {
    "attention_grouped": pytest.mark.skipif(
        tuple(map(int, torch.__version__.split(".")[:2])) < (2, 5), reason="enable_gqa is there from torch 2.5 on"
    )
}
CASES = [pytest.param(f, id=str(i)) for i, f in enumerate(POINTWISE)]
CASES += [pytest.param(f, id=name, marks=NEEDS.get(name, ())) for name, f in MANY.items()]


def _written(x):
    x = x * 1
    x[x < 0] = 0.2
    return x


def points(close=False):
    x, b = torch.randn(2, 5, 6, dtype=D)
    x[0, 0] = b[0, 0]  # one entry that does not change
    return x, (x + 1e-7 * b if close else b)


@pytest.mark.parametrize("f", CASES)
def test_rule_is_complete(f):
    x, b = points()
    shape = f(x).shape
    m, change, rules = multipliers(f, x, b, torch.randn(shape, dtype=D))
    assert not rules.without_rule
    assert m.isfinite().all()
    torch.testing.assert_close((m * (x - b)).sum(1), change.reshape(5, -1).sum(1), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("f", CASES)
def test_rule_tends_to_the_gradient(f):
    x, b = points(close=True)
    m = torch.randn(f(x).shape, dtype=D)
    found, *_ = multipliers(f, x, b, m)
    x.requires_grad_()
    torch.testing.assert_close(found, torch.autograd.grad(f(x * 1.0), x, m)[0], rtol=1e-4, atol=1e-5)


def test_rules_equal_their_slow_versions():
    x, b = torch.randn(2, 4, 6, dtype=D)
    m = torch.randn(4, 6, dtype=D)
    for i in range(4):
        row = lambda f, m=m, i=i: multipliers(f, x[i : i + 1], b[i : i + 1], m[i : i + 1, : f(x[:1]).numel()])[0][0]  # noqa: E731
        torch.testing.assert_close(row(torch.tanh), slow.rescale(torch.tanh, x[i], b[i], m[i]))
        torch.testing.assert_close(row(lambda v: v.softmax(1)), slow.softmax(x[i], b[i], m[i]))
        torch.testing.assert_close(row(lambda v: F.layer_norm(v, (6,), W[0])), slow.layer_norm(x[i], b[i], m[i], W[0]))
        torch.testing.assert_close(row(lambda v: F.max_pool1d(v, 2)), slow.max_pool(x[i], b[i], m[i], 2))


def test_product_gives_each_factor_its_shapley_value():
    x, b = torch.randn(2, 1, 2, dtype=D)
    m, *_ = multipliers(lambda v: v[:, 0] * v[:, 1], x, b)
    (a1, c1), (a0, c0) = x[0], b[0]
    shapley = ((a1 * c0 - a0 * c0) + (a1 * c1 - a0 * c1)) / 2
    torch.testing.assert_close((m * (x - b))[0, 0], shapley)


@pytest.mark.parametrize("baseline", ["zero", "random"])
def test_a_constant_baseline_does_not_blow_up_norms(baseline):
    """A baseline without variance has σ = √ε: its inverse must not multiply the attributions."""
    x = torch.randn(3, 8, dtype=D)
    b = torch.zeros_like(x) if baseline == "zero" else torch.randn_like(x)
    for f in (
        lambda v: F.layer_norm(F.layer_norm(v, (8,), eps=1e-6), (8,), eps=1e-6),
        lambda v: v * torch.rsqrt(v.pow(2).mean(1, keepdim=True) + 1e-6),
        lambda v: F.normalize(v, dim=1),
    ):
        m, *_ = multipliers(f, x, b)
        assert m.abs().max() < 20


class Layers(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.rnn, self.options = kind(6, 5, batch_first=True, **options), options

    def forward(self, x):
        out = self.rnn(x.view(-1, 1, 6).expand(-1, 3, 6) * torch.arange(1.0, 4.0, dtype=D).view(1, 3, 1))
        return out[0].flatten(1)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize(
    "options",
    [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}, {"proj_size": 2}, {"nonlinearity": "relu"}],
    ids=str,
)
def test_recurrent_layers_are_taken_apart(kind, options):
    if ("proj_size" in options and kind is not nn.LSTM) or ("nonlinearity" in options and kind is not nn.RNN):
        pytest.skip("not an option of this layer")
    net = Layers(kind, **options).double().requires_grad_(False)
    x, b = points()
    m, change, rules = multipliers(net, x, b)
    assert not rules.without_rule
    torch.testing.assert_close((m * (x - b)).sum(1), change.sum(1))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_packed_sequences_and_cells(kind):
    net, cell = kind(2, 4).double().requires_grad_(False), getattr(nn, kind.__name__ + "Cell")(2, 4).double()

    def packed(x):
        data = nn.utils.rnn.pack_padded_sequence(x.view(-1, 3, 2), [3, 3, 2, 1, 1], batch_first=True)
        return nn.utils.rnn.pad_packed_sequence(net(data)[0], batch_first=True)[0].flatten(1)

    def stepped(x):
        state = None
        for t in range(3):
            state = cell(x.view(-1, 3, 2)[:, t], state)
        return state[0] if isinstance(state, tuple) else state

    x, b = points()
    for f in (packed, stepped):
        m, change, rules = multipliers(f, x, b)
        assert not rules.without_rule
        torch.testing.assert_close((m * (x - b)).sum(1), change.sum(1))


HIDDEN = torch.tensor([[False, True, True], [False, False, True], [True, False, False]])


@pytest.mark.parametrize(
    "options",
    [{}, {"scale": 0.3}, {"is_causal": True}, {"attn_mask": ~HIDDEN}, {"attn_mask": torch.eye(3, dtype=D)}, "signal"],
)
def test_fused_attention_equals_its_definition(options):
    """The products and the softmax, each with its rule; a bias of the scores gets its share too."""

    def split(x):
        q, k, v = (x[:, i : i + 12].clone().view(-1, 1, 3, 4) for i in (0, 12, 24))
        return q, k, v, {"attn_mask": x[:, 36:].view(-1, 1, 3, 3)} if options == "signal" else options

    def fused(x):
        q, k, v, given = split(x)
        y = F.scaled_dot_product_attention(q, k, v, **given)
        q.zero_(), v.mul_(0)  # its inputs are not its own
        return y.flatten(1)

    def written(x):
        q, k, v, given = split(x)
        scores = torch.matmul(q * given.get("scale", 0.5), k.mT)
        mask = given.get("attn_mask")
        if given.get("is_causal"):
            mask = torch.ones(3, 3, dtype=torch.bool).tril()
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        return torch.matmul(scores.softmax(-1), v).flatten(1)

    x, b = torch.randn(2, 2, 45, dtype=D)
    m = torch.randn(2, 12, dtype=D)
    found, expected = (multipliers(f, x, b, m)[0] for f in (fused, written))
    torch.testing.assert_close(found, expected)
    assert found[:, :36].abs().min() > 0 or "attn_mask" in options or "is_causal" in options


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_modules(batch_first):
    block = nn.TransformerEncoderLayer(6, 2, 8, batch_first=batch_first, activation="gelu").double().eval()
    encoder = nn.TransformerEncoder(block, 2, enable_nested_tensor=False).requires_grad_(False)
    for f in (
        lambda x: encoder(x.view(-1, 5, 6)).flatten(1),
        lambda x: block.self_attn(*[x.view(1, 5, 6)] * 3)[0].flatten(1),
    ):
        x, b = points()
        m, change, rules = multipliers(f, x, b)
        assert not rules.without_rule
        torch.testing.assert_close((m * (x - b)).sum(), change.sum())


def test_batch_norm_of_one_row_with_a_transposed_gradient():
    """Torch's own backward is wrong there on the CPU."""
    norm = nn.BatchNorm2d(3).double().eval().requires_grad_(False)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    x, b, m = torch.randn(3, 1, 3, 2, 2, dtype=D)
    m = m.view(1, 4, 3)
    found, change, _ = multipliers(lambda v: norm(v).flatten(2).transpose(1, 2), x, b, m)
    torch.testing.assert_close((found * (x - b)).sum(), change.sum())


def test_control_flow_that_differs_is_refused():
    x = torch.ones(1, 2)
    for f in (
        lambda v: v.relu() if v.sum() > 0 else v.sigmoid(),
        lambda v: v.relu() if v.sum() > 0 else v * 1,
        lambda v: v.relu() if v.sum() <= 0 else v * 1,
    ):
        with pytest.raises(RuntimeError, match="control flow"):
            multipliers(f, x, -x)


@pytest.mark.parametrize("order", [torch.inf, -1, 0.5])
def test_norms_of_other_orders_keep_their_gradient(order):
    x, b = points()
    m, _, rules = multipliers(lambda v: torch.linalg.vector_norm(v, order, 1), x, b)
    assert rules.without_rule == {"vector_norm": 1}
    x.requires_grad_()
    torch.testing.assert_close(m, torch.autograd.grad(torch.linalg.vector_norm(x, order, 1).sum(), x)[0])


def _write_at_the_least(x):
    x = x * 1
    x[torch.arange(len(x)), x.argmin(1)] = 0.0
    return x


NOT_COMPLETE = {  # what keeps its gradient though it is not linear, and as what it is counted
    "gather": (lambda x: x.gather(1, x.argmax(1, keepdim=True)), "gather by value"),
    "take_along_dim": (lambda x: x.take_along_dim(x.argsort(1), 1), "take_along_dim by value"),
    "index": (lambda x: x[torch.arange(len(x)), x.argmin(1)], "getitem by value"),
    "written_at_index": (_write_at_the_least, "index_put by value"),
    "select_columns": (lambda x: x.index_select(1, x.sum(0).argsort()), "index_select by value"),
    "index_add": (lambda x: (x * 1).index_add(1, x.sum(0).argsort(), x.sin()), "index_add by value"),
    "scatter_add": (lambda x: (0 * x).scatter_add(1, x.argsort(1), x), "scatter_add by value"),
    "scatter_reduce": (
        lambda x: x[:, :2].scatter_reduce(1, torch.tensor([[0, 1, 0, 0, 1, 1]]).expand(len(x), 6), x, "amax"),
        "scatter_reduce",
    ),
    "grid_sample": (
        lambda x: F.grid_sample(
            W.view(1, 1, 4, 6).expand(len(x), 1, 4, 6), x.tanh().view(-1, 1, 3, 2), align_corners=True
        ),
        "grid_sample",
    ),
    "times_detached": (lambda x: x * x.detach().abs(), "mul by value"),
    "where_by_another": (
        lambda x: torch.where(x[:, :1] > x[:, 1:2], torch.ones(3, dtype=D), x[:, 2:5] * 0),
        "where by value",
    ),
    "weights_of_the_signal": (lambda x: F.linear(x[:, None], x.mean(0).expand(2, 6)), "linear"),
    "kernels_of_the_signal": (lambda x: F.conv1d(x.mean(0).view(1, 1, 6), x.view(-1, 1, 6)), "conv1d"),
}


@pytest.mark.parametrize("name", NOT_COMPLETE)
def test_what_is_not_linear_in_its_signals_is_counted(name):
    f, counted = NOT_COMPLETE[name]
    x, b = points()
    m, change, rules = multipliers(f, x, b, torch.randn(f(x).shape, dtype=D))
    assert rules.without_rule == {counted: 1}
    assert float(((m * (x - b)).sum() - change.sum()).abs()) > 1e-3  # a gap of which it is the reason
    with torch.no_grad(), RecordedRun(RULES, APART) as recording:
        f(b * 1.0)
    with (
        PairedRules(RULES, APART, recording, strict=True),
        pytest.raises(NotImplementedError, match=f"operation '{counted}' has no rule"),
    ):
        f(x.requires_grad_() * 1.0)


FIXED = torch.tensor([[2, 0, 5]])


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x.gather(1, FIXED.expand(len(x), 3)),
        lambda x: x[:, FIXED[0]],
        lambda x: x[:, torch.arange(6) > 2],
        lambda x: x.masked_select(torch.arange(6) > 2).view(len(x), 3),
        lambda x: (x * 1).index_add(1, FIXED[0], x[:, :3].sin()),
        lambda x: x[:, :2].scatter_reduce(1, FIXED.expand(len(x), 3) % 2, x[:, :3], "sum"),
        lambda x: F.grid_sample(
            x.view(-1, 1, 2, 3), W[:1, :2].view(1, 1, 1, 2).expand(len(x), 1, 1, 2), align_corners=True
        ),
        lambda x: x * (torch.arange(6) > 2),
        lambda x: x * x.detach().sign().abs(),
    ],
)
def test_what_picks_the_same_in_both_runs_is_linear(f):
    x, b = points()
    m, change, rules = multipliers(f, x, b)
    assert not rules.without_rule
    torch.testing.assert_close((m * (x - b)).sum(1), change.reshape(5, -1).sum(1), rtol=1e-9, atol=1e-11)


def test_what_has_no_rule_is_counted():
    *_, rules = multipliers(lambda v: torch.cumprod(v, 1), torch.ones(1, 2), torch.zeros(1, 2))
    assert rules.without_rule == {"cumprod": 1}


class Keeps(nn.Module):
    """Keeps what it makes of its parameters in its first call, as LeViT does."""

    def __init__(self):
        super().__init__()
        self.scale, self.kept = nn.Parameter(torch.tensor([0.3, -0.2, 0.5], dtype=D)), None

    def forward(self, x):
        self.kept = self.scale.exp() if self.kept is None else self.kept
        return (x.exp() * self.kept).sum(1)


@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
def test_a_model_that_keeps_what_its_first_run_made(rule):
    x, warm = torch.randn(2, 3, dtype=D), Keeps()
    warm(x)
    expected = tw.DeepLIFT(warm, rule=rule, check=False).attribute(x)
    assert torch.equal(tw.DeepLIFT(Keeps(), rule=rule, check=False).attribute(x), expected)
