"""Further arguments: the same for all rows, one for each, ragged, or objects that the model writes to."""

import copy
import warnings
from types import SimpleNamespace

import pytest
import torch
from cases import each_case
from nets import inputs, make
from torch import nn

import torchwhy as tw

CLOSE = {"rtol": 1e-9, "atol": 1e-11}
SMALL = [
    lambda net, **o: tw.Saliency(net, signed=True, **o),
    lambda net, **o: tw.IntegratedGradients(net, n_steps=6, **o),
    lambda net, **o: tw.SmoothGrad(net, n_samples=4, generator=0, **o),
    lambda net, **o: tw.ExpectedGradients(net, n_samples=4, generator=0, **o),
    lambda net, **o: tw.IDGI(net, of=tw.IntegratedGradients(net, n_steps=6), **o),
    lambda net, **o: tw.GuidedIG(net, n_steps=5, **o),
    lambda net, **o: tw.DeepLIFT(net, **o),
    lambda net, **o: tw.LRP(net, composite="epsilon", **o),
    lambda net, **o: tw.FeatureAblation(net, **o),
    lambda net, **o: tw.KernelSHAP(net, n_samples=20, generator=0, **o),
]
small = pytest.mark.parametrize("method", SMALL, ids=lambda m: type(m(nn.Identity())).__name__)


class Cache:
    """A cache of one row, as those of transformers: a model adds what it saw."""

    def __init__(self, row):
        self.layers = [SimpleNamespace(keys=row)]
        self.seen = 0

    def add(self):
        self.layers[0].keys += 1
        self.seen += 1
        return self.layers[0].keys

    def batch_repeat_interleave(self, repeats):
        self.layers[0].keys = self.layers[0].keys.repeat_interleave(repeats, 0)

    def batch_select_indices(self, indices):
        self.layers[0].keys = self.layers[0].keys[indices]


def with_arguments(net):
    """The network with further arguments of every kind."""
    base = type(net)

    class More(base):
        def forward(self, x, prompts, states, values, row, cache):
            assert len(states["h"][1].T) == len(cache.layers[0].keys) == len(x)
            weight = torch.zeros(len(x), dtype=values.dtype).index_add(0, row, values)
            out = base.forward(self, x) @ prompts.add_(1).T
            out = out * states["h"][1].mT[:, :1] * weight[:, None]
            return out * cache.add()[:, :1]

    net.__class__ = More
    return net


def arguments_for(rows, dtype):
    """Further arguments for some of three rows."""
    g = torch.Generator().manual_seed(2)
    values, sizes = torch.rand(6, generator=g).to(dtype), [2, 1, 3]
    picked = [values.split(sizes)[i] for i in rows]
    sizes = [len(v) for v in picked]
    return {
        "prompts": tw.Shared(torch.randn(3, 4, generator=g).to(dtype)),
        "states": {"h": [None, tw.PerRow((1 + torch.rand(2, 3, generator=g)).to(dtype)[:, rows], dim=1)]},
        "values": tw.Ragged(torch.cat(picked), sizes),
        "row": tw.Ragged(torch.arange(len(rows)).repeat_interleave(torch.tensor(sizes)), sizes, points_into="rows"),
        "cache": Cache(torch.full((1, 2), 0.5, dtype=dtype)),
    }


@each_case
def test_arguments_of_every_kind_give_what_each_row_gives_alone(case):
    if not case.method.rows_are_independent:
        pytest.skip("the batch is what it draws from")
    net, x = case.setup()
    net, target = with_arguments(net), [2, 0, 1]
    given = arguments_for([0, 1, 2], x.dtype)
    before = copy.deepcopy(given)
    method = case.make(net)
    together = method.attribute(x, target, additional_forward_args=given, **case.data)
    each = [
        method.attribute(x[[i]], target[i], additional_forward_args=arguments_for([i], x.dtype), **case.data)
        for i in range(3)
    ]
    torch.testing.assert_close(together, torch.cat(each), **CLOSE)
    assert torch.equal(given["prompts"].value, before["prompts"].value)
    assert torch.equal(given["cache"].layers[0].keys, before["cache"].layers[0].keys)
    assert given["cache"].seen == 0


class Scorer(nn.Module):
    """Rows (N, 5) and prompts (K, 3) → (N, K), as CLIP and nets with prototypes."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 4), nn.Linear(3, 4)

    def forward(self, x, prompts):
        return torch.tanh(self.a(x)) @ self.b(prompts).T


class Nearest(Scorer):
    """Scores by the mean over the prompts: (N, 5), (K, 3) → (N, 2)."""

    def forward(self, x, prompts):
        return torch.tanh(self.a(x))[:, :2] * self.b(prompts).tanh().mean(0)[:2]


def scorer(kind=Scorer, n=3, k=3):
    torch.manual_seed(0)
    return kind().double().eval(), torch.randn(n, 5).double(), torch.randn(k, 3).double()


@small
@pytest.mark.parametrize("batch_size", [None, 1, 2, 3])
def test_as_many_prompts_as_rows(method, batch_size):
    net, x, prompts = scorer()
    each = [method(net).attribute(x[[i]], 1, additional_forward_args=prompts) for i in range(3)]
    for given in (prompts, tw.Shared(prompts), {"prompts": prompts}, {"prompts": tw.Shared(prompts)}):
        found = method(net, batch_size=batch_size).attribute(x, 1, additional_forward_args=given)
        torch.testing.assert_close(found, torch.cat(each), **CLOSE)


@pytest.mark.parametrize("target", [0, [0, 0, 0], lambda out: out[:, 0], lambda out: out.sum(1)])
def test_what_runs_both_ways_and_differs_is_refused(target):
    net, x, prompts = scorer()  # of one prompt there is a score 0 as well, and for row 0 it is the right one
    message = r"additional_forward_args\['prompts'\]: of shape \(3, 3\).* tw\.Shared.* tw\.PerRow"
    for method in (tw.Saliency(net), tw.KernelSHAP(net)):
        with pytest.raises(ValueError, match=message):
            method.attribute(x, target, additional_forward_args={"prompts": prompts})
    with pytest.raises(ValueError, match=message.replace("'prompts'", "0")):
        tw.Saliency(net).attribute(x, target, additional_forward_args=prompts)
    net, x, prompts = scorer(Nearest)
    with pytest.raises(ValueError, match=message):
        tw.Saliency(net).attribute(x, 1, additional_forward_args={"prompts": prompts})
    found = tw.FeatureAblation(net).attribute(x, 1, additional_forward_args=tw.Shared(prompts))
    dropped = [(net(x, prompts) - net(x * (1 - torch.eye(5).double()[j]), prompts))[:, 1] for j in range(5)]
    torch.testing.assert_close(found, torch.stack(dropped, 1).detach())


@pytest.mark.parametrize("mask", [torch.tril(torch.ones(4, 4)), torch.rand(4, 4)], ids=["causal", "random"])
def test_a_mask_over_as_many_steps_as_rows(mask):
    def net(x, mask):
        return (mask @ x).square().sum((1, 2))

    x = torch.randn(4, 4, 2)
    with pytest.raises(ValueError, match=r"as tw\.Shared"):
        tw.Saliency(net).attribute(x, additional_forward_args=mask)
    each = [tw.Saliency(net).attribute(x[[i]], additional_forward_args=mask) for i in range(4)]
    found = tw.Saliency(net).attribute(x, additional_forward_args=tw.Shared(mask))
    torch.testing.assert_close(found, torch.cat(each))


def test_arguments_that_go_together_are_found_together():
    def net(x, keys, values, scale):  # a support set: as many keys as values; and one number for each row
        assert len(keys) == len(values)
        return (x @ keys.T).softmax(1) @ values * scale

    x, keys, values, scale = torch.randn(3, 5), torch.randn(3, 5), torch.randn(3, 2), torch.rand(3, 1)
    with pytest.raises(ValueError, match=r"\[0\] and additional_forward_args\[1\]: of shape \(3, 5\), \(3, 2\)"):
        tw.Saliency(net).attribute(x, 1, additional_forward_args=(keys, values, scale))

    def net(x, keys, values, scale):
        assert len(keys) > 1  # does not run with one
        return (x @ keys.T).softmax(1) @ values * scale

    each = [
        tw.InputXGradient(net).attribute(x[[i]], 1, additional_forward_args=(keys, values, scale[[i]]))
        for i in range(3)
    ]
    marked = (tw.Shared(keys), tw.Shared(values), tw.PerRow(scale))
    for given in (marked, (keys, values, tw.PerRow(scale)), (tw.Shared(keys), values, scale)):
        found = tw.InputXGradient(net).attribute(x, 1, additional_forward_args=given)
        torch.testing.assert_close(found, torch.cat(each))


def test_one_for_each_row_stays_so():
    net, x = make("smooth"), inputs("smooth")
    scale = torch.rand(3, 7, dtype=torch.double)
    each = [tw.Saliency(net).attribute(x[[i]], 1, additional_forward_args=scale[[i]]) for i in range(3)]
    for given in (scale, {"scale": scale}, tw.PerRow(scale), tw.PerRow(scale.T.contiguous().T)):
        torch.testing.assert_close(tw.Saliency(net).attribute(x, 1, additional_forward_args=given), torch.cat(each))
    tokens, ids = make("tokens"), inputs("tokens")
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])
    for m in (mask, torch.ones_like(mask)):
        found = tw.FeatureAblation(tokens).attribute(ids, 1, additional_forward_args={"attention_mask": m})
        each = [
            tw.FeatureAblation(tokens).attribute(ids[[i]], 1, additional_forward_args={"attention_mask": m[[i]]})
            for i in range(3)
        ]
        torch.testing.assert_close(found, torch.cat(each))


def test_lstm_states_have_their_rows_in_the_second_dimension():
    torch.manual_seed(0)
    lstm = nn.LSTM(3, 4, num_layers=2, batch_first=True).double()
    x, h, c = (torch.randn(*shape).double() for shape in ((3, 5, 3), (2, 3, 4), (2, 3, 4)))

    def net(x, states):
        return lstm(x, states)[0][:, -1]

    def alone(i):
        def of_row(x):
            return net(x, tuple(s[:, [i]].repeat(1, len(x), 1) for s in (h, c)))

        return tw.IntegratedGradients(of_row, n_steps=8).attribute(x[[i]], 1)

    each = [alone(i) for i in range(3)]
    states = (tw.PerRow(h, dim=1), tw.PerRow(c, dim=-2))
    for batch_size in (None, 1, 4):
        method = tw.IntegratedGradients(net, n_steps=8, batch_size=batch_size)
        torch.testing.assert_close(method.attribute(x, 1, additional_forward_args=(states,)), torch.cat(each))


class Graph(nn.Module):
    """Nodes and edges of several graphs → one score each."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, w, x, edges, graph):
        n = int(graph.max()) + 1
        h = torch.tanh(self.a(x)).index_add(0, edges[1], torch.tanh(self.a(x))[edges[0]])
        return w.sum(1, keepdim=True) * self.b(torch.zeros(n, 4).to(h).index_add(0, graph, h))


@pytest.mark.parametrize("by_name", [True, False])
def test_ragged_arguments_that_point_into_one_another(by_name):
    torch.manual_seed(0)
    net, w, x = Graph().double().eval(), torch.randn(2, 3).double(), torch.randn(5, 3).double()
    edges, graph = torch.tensor([[0, 1, 2, 3, 4], [1, 0, 3, 4, 4]]), torch.tensor([0, 0, 1, 1, 1])
    given = {
        "x": tw.Ragged(x, [2, 3]),
        "edges": tw.Ragged(edges, torch.tensor([2, 3]), points_into="x"),
        "graph": tw.Ragged(graph, [2, 3], points_into="rows"),
    }
    each = [
        tw.IntegratedGradients(lambda w: net(w, x[:2], edges[:, :2], graph[:2]), n_steps=6, batch_size=1),
        tw.IntegratedGradients(lambda w: net(w, x[2:], edges[:, 2:] - 2, graph[2:] - 1), n_steps=6, batch_size=1),
    ]
    right = torch.cat([m.attribute(w[[i]], 1) for i, m in enumerate(each)])
    for batch_size in (None, 1, 3):
        method = tw.IntegratedGradients(net, n_steps=6, batch_size=batch_size)
        further = given if by_name else tuple(given.values())
        torch.testing.assert_close(method.attribute(w, 1, additional_forward_args=further), right)
    wrong = given | {"edges": tw.Ragged(edges.flip(1), [3, 2], points_into="x")}
    with pytest.raises(ValueError, match=r"\['edges'\]: row 0 holds 4, which is outside of that row of 'x', 0 to 1"):
        tw.Saliency(net).attribute(w, 1, additional_forward_args=wrong)
    with pytest.raises(
        ValueError, match=r"points_into='y', but no ragged .* called so \(there are: 'x', 'edges', 'graph'\)"
    ):
        tw.Saliency(net).attribute(w, 1, additional_forward_args=given | {"graph": tw.Ragged(graph, [2, 3], "y")})


@small
def test_a_cache_is_as_it_was(method):
    net, x = make("smooth"), inputs("smooth")
    base = type(net)

    class Cached(base):
        def forward(self, x, cache):
            return base.forward(self, x) * cache.add()

    net.__class__ = Cached
    one = torch.full((1, 3), 2.0).double()
    for given in (Cache(one.clone()), tw.Shared(Cache(one.clone())), Cache(one.repeat(3, 1))):
        held = given.value if isinstance(given, tw.Shared) else given
        before = held.layers[0].keys.clone()
        found = method(net).attribute(x, 1, additional_forward_args=(given,))
        assert torch.equal(held.layers[0].keys, before)
        assert held.seen == 0
        right = method(make("smooth")).attribute(x, 1)
        torch.testing.assert_close(found, 3 * right, rtol=1e-6, atol=1e-9)


class Plain:
    """An object of one row that cannot be repeated."""

    def __init__(self, row):
        self.parts = {"row": (row,)}


@small
def test_an_object_that_fits_one_row_gets_calls_of_one_row(method):
    net, x = make("smooth"), inputs("smooth")
    rows = []

    def model(x, held):
        rows.append(len(x))
        held.parts["row"][0].mul_(2)
        return net(x) * held.parts["row"][0]

    held = Plain(torch.ones(1, 3).double())
    if isinstance(method(net), (tw.LRP, tw.DeepLIFT)):
        pytest.skip("of modules")
    found = method(model).attribute(x, 1, additional_forward_args=(held,))
    assert set(rows) == {1}
    assert held.parts["row"][0].eq(1).all()
    torch.testing.assert_close(found, 2 * method(net).attribute(x, 1), rtol=1e-6, atol=1e-9)
    rows.clear()
    found = method(model).attribute(x, 1, additional_forward_args=(tw.Shared(held),))
    assert max(rows) > 1
    torch.testing.assert_close(found, 2 * method(net).attribute(x, 1), rtol=1e-6, atol=1e-9)


def test_a_cache_of_a_language_model():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32, "initializer_range": 0.3}
    ends = {"bos_token_id": 0, "eos_token_id": 1}
    net = transformers.GPT2LMHeadModel(transformers.GPT2Config(**config, **ends)).eval()
    prefix, ids = torch.randint(3, 50, (1, 4)), torch.randint(3, 50, (2, 6))
    with torch.no_grad():
        cache = net(prefix, use_cache=True).past_key_values
    whole = torch.cat([prefix.expand(2, -1), ids], 1)
    right = tw.FeatureAblation(net).attribute(whole, (9, 7), baselines=2)[:, 4:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        for given in (cache, tw.Shared(cache)):
            for batch_size in (None, 1, 3):
                method = tw.FeatureAblation(net, batch_size=batch_size)
                further = {"past_key_values": given}
                found = method.attribute({"input_ids": ids}, (5, 7), baselines=2, additional_forward_args=further)
                torch.testing.assert_close(found["input_ids"], right, rtol=1e-4, atol=1e-5)
                assert cache.get_seq_length() == 4
                assert len(cache.layers[0].keys) == 1


def test_the_output_of_an_encoder_keeps_its_kind():
    outputs = pytest.importorskip("transformers.modeling_outputs")

    def net(x, encoded):
        return x * encoded.last_hidden_state.mean(1)

    x, hidden = torch.randn(2, 3), torch.randn(2, 4, 3)
    given = {"encoded": outputs.BaseModelOutput(last_hidden_state=hidden)}
    found = tw.Saliency(net, signed=True).attribute(x, 1, additional_forward_args=given)
    torch.testing.assert_close(found[:, 1], hidden.mean(1)[:, 1])


@pytest.mark.parametrize(
    "make_it, error, message",
    [
        (lambda: tw.PerRow([1, 2]), TypeError, "tw.PerRow: expected a tensor, got list"),
        (lambda: tw.PerRow(torch.zeros(2), dim=1), ValueError, r"tw.PerRow: dim=1, but the tensor has shape \(2,\)"),
        (lambda: tw.PerRow(torch.tensor(1.0)), ValueError, "tw.PerRow: dim=0"),
        (lambda: tw.Ragged([1, 2], [2]), TypeError, "tw.Ragged: expected a tensor, got list"),
        (lambda: tw.Ragged(torch.zeros(5, 2), [2, 2]), ValueError, r"\[2, 2\] add up to 4, .* \(5, 2\) has 5 along"),
        (lambda: tw.Ragged(torch.zeros(5, 2), [6, -1]), ValueError, "none negative"),
        (lambda: tw.Ragged(torch.zeros(0, 2), []), ValueError, "the length of each row"),
        (lambda: tw.Ragged(torch.zeros(5, 2), [2.5, 2.5]), TypeError, "whole numbers"),
        (lambda: tw.Ragged(torch.zeros(5, 2), [2, 3], "x"), TypeError, "points_into='x', but its numbers are"),
        (lambda: tw.Shared(tw.PerRow(torch.zeros(2))), TypeError, "tw.Shared: holds a tw.PerRow"),
        (lambda: tw.Shared({"a": [tw.Ragged(torch.zeros(2), [2])]}), TypeError, "tw.Shared: holds a tw.Ragged"),
    ],
)
def test_marks_that_make_no_sense(make_it, error, message):
    with pytest.raises(error, match=message):
        make_it()


@pytest.mark.parametrize(
    "given, message",
    [
        (
            tw.PerRow(torch.zeros(2, 7)),
            r"\[0\]: tw.PerRow has 2 rows along dimension 0 of its shape \(2, 7\), the inputs have 3",
        ),
        ({"scale": tw.PerRow(torch.zeros(3, 7), dim=1)}, r"\['scale'\]: tw.PerRow has 7 rows along dimension 1"),
        ({"scale": [tw.PerRow(torch.zeros(2, 7))]}, r"\['scale'\]: tw.PerRow has 2 rows"),
        (tw.Ragged(torch.zeros(5), [2, 3]), "tw.Ragged has 2 rows, the inputs have 3"),
    ],
)
def test_marks_for_other_rows(given, message):
    net, x = make("smooth"), inputs("smooth")
    for method in (tw.Saliency(net), tw.KernelSHAP(net, check=False)):
        with pytest.raises(ValueError, match=message):
            method.attribute(x, 1, additional_forward_args=given)


@pytest.mark.parametrize(
    "given", [tw.Shared(torch.zeros(3, 5)), tw.PerRow(torch.zeros(3, 5))], ids=["Shared", "PerRow"]
)
def test_what_marks_arguments_is_no_input(given):
    net = make("smooth")
    kind = type(given).__name__
    for inputs_ in (given, (given,), {"x": given}):
        with pytest.raises(TypeError, match=f"inputs: .*tw.{kind}; .*additional_forward_args"):
            tw.Saliency(net).attribute(inputs_, 1)


@pytest.mark.parametrize("mark", [tw.Shared, tw.PerRow])
def test_marks_of_further_arguments_are_no_inputs(mark):
    model, x = nn.Linear(4, 2), mark(torch.ones(2, 4))
    asked = [
        lambda: tw.Saliency(model).attribute(x, 1),
        lambda: tw.KernelSHAP(model).explain({"input": x}, 1),
        lambda: tw.metrics.deletion(model, x, torch.ones(2, 4), 1),
        lambda: tw.compare(model, x, 1, {"a": tw.Saliency(model)}, ["deletion"]),
        lambda: tw.inspect(model, x),
    ]
    for ask in asked:
        with pytest.raises(TypeError, match=f"got tw.{mark.__name__}; such marks are for additional_forward_args"):
            ask()


class Packed(nn.Module):
    """Patches of all rows behind one another, and the number of each row's."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(3, 2)

    def forward(self, x, patches, count):
        rows = torch.repeat_interleave(torch.arange(len(count)), count)
        return self.lin(x + torch.zeros_like(x).index_add(0, rows, patches.tanh() * torch.ones(len(rows), 1)))


@pytest.mark.parametrize(
    "method", [tw.FeatureAblation, tw.IntegratedGradients, tw.KernelSHAP], ids=lambda m: m.__name__
)
def test_what_is_packed_and_not_marked_is_told_how_it_is(method):
    net, x = Packed(), torch.randn(1, 3)
    patches, count = torch.randn(4, 3), torch.tensor([4])
    with pytest.raises(
        RuntimeError, match=r"size of tensor.*\(4, 3\).*each of the 1 inputs.*tw.Ragged\(tensor, sizes\)"
    ):
        method(net).attribute(x, 1, additional_forward_args=(patches, count))
    marked = tw.Ragged(patches, sizes=[4])
    found = method(net).attribute(x, 1, additional_forward_args=(marked, count))
    torch.testing.assert_close(found, x * net.lin.weight[1].detach())
    with pytest.raises(
        RuntimeError, match=r"mat1 and mat2 [^M]*$"
    ):  # its own business, in a call of the rows that there are
        tw.Saliency(net).attribute(torch.randn(1, 4), 1, additional_forward_args=(torch.randn(4, 4), count))
