"""Attention methods where there are several sequences: pairs, encoders and decoders, two that look at each other, diffusion."""

from functools import cache

import pytest
import torch
from cases import in_turn
from reference import attention as reference
from torch import nn
from torch.nn import functional as F

import torchwhy as tw

OWN = ["AttentionRollout", "AttentionFlow", "ALTI", "RawAttention", "AttentionRelevance"]
WIDTH = 8


def layer(seed):
    torch.manual_seed(seed)
    return nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=True).double()


class Pair(nn.Module):
    """One encoder reads two sentences of one length."""

    def __init__(self, depth=2, way="inputs"):
        super().__init__()
        self.a, self.o, self.way = nn.ModuleList(map(layer, range(depth))), nn.Linear(2 * WIDTH, 3).double(), way

    def encode(self, x):
        for a in self.a:
            x = a(x)
        return x[:, 0]

    def forward(self, x, y=None):
        if self.way == "stacked":
            x, y = x[:, 0], x[:, 1]
        if self.way == "in turns":
            for a in self.a:
                x, y = a(x), a(y)
            return self.o(torch.cat([x[:, 0], y[:, 0]], 1))
        return self.o(torch.cat([self.encode(x), self.encode(y)], 1))


class Alone(nn.Module):
    """One of the sentences, the other one being fixed."""

    def __init__(self, pair, other, first):
        super().__init__()
        self.pair, self.first = pair, first
        with torch.no_grad():
            self.other = pair.encode(other)

    def forward(self, x):
        both = [self.pair.encode(x), self.other.expand(len(x), -1)]
        return self.pair.o(torch.cat(both if self.first else both[::-1], 1))


def rows(n=1, t=6, seed=0):
    return torch.randn(n, t, WIDTH, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name, way", in_turn(OWN, ["inputs", "in turns"], 1))
@pytest.mark.parametrize("lengths", [(6, 6), (6, 4)])
def test_each_sentence_of_a_pair_has_its_own(name, way, lengths):
    pair = Pair(way=way).eval()
    x, y = rows(t=lengths[0]), rows(t=lengths[1], seed=1)
    method = getattr(tw, name)
    found = method(pair).attribute((x, y), 1)
    assert isinstance(found, tuple)
    for i, (one, other) in enumerate([(x, y), (y, x)]):
        expected = method(Alone(pair, other, i == 0).eval()).attribute(one, 1)
        torch.testing.assert_close(found[i], expected)
    named = method(pair).explain({"x": x, "y": y}, 1).attributions
    assert list(named) == ["x", "y"]
    torch.testing.assert_close(named["y"], found[1])


@pytest.mark.parametrize("name", OWN)
def test_layers_of_one_sentence_are_a_single_result(name):
    pair, x, y = Pair(depth=1).eval(), rows(), rows(seed=1)
    method = getattr(tw, name)
    expected = method(pair).attribute((x, y), 1)
    torch.testing.assert_close(method(pair, layers=[0]).attribute((x, y), 1), expected[0])
    torch.testing.assert_close(method(pair, layers=1).attribute((x, y), 1), expected[1])


@pytest.mark.parametrize("name", OWN)
def test_two_sequences_in_one_input_are_refused(name):
    pair = Pair(way="stacked").eval()
    x = torch.stack([rows()[0], rows(seed=1)[0]])[None]
    method = getattr(tw, name)
    if name == "RawAttention":
        assert method(pair, layers=1).attribute(x, 1).shape
        return
    with pytest.raises(ValueError, match="more than one sequence"):
        method(pair, grid=(2, 3)).attribute(x, 1)


def test_several_targets_and_batches_of_a_pair():
    pair, x, y = Pair().eval(), rows(3), rows(3, seed=1)
    each = tw.AttentionRelevance(pair).attribute_each((x, y), [0, 2])
    for target, found in zip((0, 2), each):
        for batch_size in (1, 2, None):
            one = tw.AttentionRelevance(pair, batch_size=batch_size).attribute((x, y), target)
            torch.testing.assert_close(one, found)
    explained = tw.AttentionRelevance(pair).explain_each((x, y), [0, 2])
    torch.testing.assert_close(explained[1].attributions, each[1])


class PairOfWords(nn.Module):
    """A pair of sentences as ids, which the model casts first, and what becomes of the words."""

    def __init__(self, cast, table):
        super().__init__()
        torch.manual_seed(0)
        self.pair, self.table = Pair().eval(), nn.Embedding(20, WIDTH).double()
        self.cast, self.look = cast, table

    def words(self, ids):
        return self.look(self.cast(ids), self.table)

    def forward(self, x, y):
        return self.pair(self.words(x), self.words(y))


CASTS = {
    "as they are": lambda ids: ids,
    "int": lambda ids: ids.int(),
    "short and long": lambda ids: ids.short().long(),
    "to": lambda ids: ids.to(torch.int32),
    "shifted": lambda ids: ids.long() + 1,
}
TABLES = {
    "embedding": lambda ids, table: table(ids),
    "one-hot": lambda ids, table: F.one_hot(ids.long(), 20).double() @ table.weight,
    "index": lambda ids, table: table.weight[ids],
}


@pytest.mark.parametrize("name", ["AttentionRollout", "AttentionRelevance"])
@pytest.mark.parametrize("cast, table", in_turn(CASTS, TABLES, 1))
def test_ids_that_are_cast_are_still_the_sentences(name, cast, table):
    net = PairOfWords(CASTS[cast], TABLES[table]).eval()
    ids = torch.randint(0, 19, (2, 1, 6), generator=torch.Generator().manual_seed(0)).unbind()
    expected = getattr(tw, name)(net.pair).attribute(tuple(net.words(i).detach() for i in ids), 1)
    for given in (ids, tuple(i.to(torch.int32) for i in ids)):
        found = getattr(tw, name)(net).attribute(given, 1)
        assert isinstance(found, tuple)
        torch.testing.assert_close(found, expected)


class ByHand(nn.Module):
    """Attention and MLPs without a module: products with plain matrices, of which one attention is linear."""

    def __init__(self, plain=True, linear=False, depth=3):
        super().__init__()
        torch.manual_seed(0)
        self.w = nn.Parameter(torch.randn(depth, 6, WIDTH, WIDTH).double() / WIDTH**0.5)
        self.plain, self.linear, self.o = plain, linear, nn.Linear(WIDTH, 3).double()

    def project(self, x, w):
        return x @ w.T if self.plain else F.linear(x, w)

    def forward(self, x):
        for k, (q, k_, v, o, up, down) in enumerate(self.w):
            q, k_, v = (self.project(x, w) for w in (q, k_, v))
            if self.linear and k == 1:
                x = x + self.project(q @ (k_.mT @ v) / 8, o)
            else:
                x = x + self.project((q @ k_.mT / WIDTH**0.5).softmax(-1) @ v, o)
            x = x + self.project(self.project(x, up).relu(), down)
        return self.o(torch.tanh(x[:, 0]))


@pytest.mark.parametrize("name", ["AttentionRollout", "AttentionFlow", "RawAttention", "AttentionRelevance"])
@pytest.mark.parametrize("linear", [False, True])
def test_products_with_weights_are_no_attention(name, linear):
    """The same model, its projections by matrices of its own and by torch's function."""
    x = rows(2)
    found, expected = (getattr(tw, name)(ByHand(p, linear).eval()).attribute(x, 1) for p in (True, False))
    torch.testing.assert_close(found, expected)
    kept = []
    with torch.no_grad():
        net = ByHand(True, linear).eval()
        y = x[:1]
        for k, (q, k_, v, o, up, down) in enumerate(net.w):
            a = ((y @ q.T) @ (y @ k_.T).mT / WIDTH**0.5).softmax(-1)
            if linear and k == 1:
                y = y + (y @ q.T) @ ((y @ k_.T).mT @ (y @ v.T)) / 8 @ o.T
            else:
                kept.append(a)
                y = y + a @ (y @ v.T) @ o.T
            y = y + (y @ up.T).relu() @ down.T
    if name == "AttentionRollout":
        torch.testing.assert_close(found[0], reference.rollout(kept)[0])


class Towers(nn.Module):
    """Two towers see one input."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.o = layer(0), layer(1), nn.Linear(WIDTH, 3).double()

    def forward(self, x):
        return self.o(self.a(x)[:, 0] + self.b(x)[:, 0])


def test_attentions_beside_one_another_are_refused():
    with pytest.raises(ValueError, match="beside one another"):
        tw.AttentionRollout(Towers().eval()).attribute(rows())
    expected = tw.AttentionRollout(layer(1).eval()).attribute(rows(), lambda o: o.sum((1, 2)))
    torch.testing.assert_close(tw.AttentionRollout(Towers().eval(), layers=1).attribute(rows()), expected)


# ------------------------------------------------------------------------------- an encoder and a decoder
KINDS, LENGTHS = ["BART", "T5"], [(5, 3), (4, 4)]


@cache
def translator(kind):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if kind == "T5":
        config = transformers.T5Config(
            vocab_size=50,
            d_model=16,
            d_kv=4,
            d_ff=32,
            num_layers=2,
            num_heads=4,
            pad_token_id=0,
            decoder_start_token_id=0,
        )
        model = transformers.T5ForConditionalGeneration
    else:
        sides = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in SIZES.items()}
        config = transformers.BartConfig(
            vocab_size=50, d_model=16, max_position_embeddings=64, pad_token_id=2, bos_token_id=0, eos_token_id=1,
            decoder_start_token_id=1, forced_eos_token_id=None, init_std=0.4, **sides,
        )  # fmt: skip
        model = transformers.BartForConditionalGeneration
    config._attn_implementation = "eager"
    return model(config).double().eval()


SIZES = {"layers": 2, "attention_heads": 4, "ffn_dim": 32}


def relevance_by_hand(model, inputs, position, word, token):
    """What the paper's rules give for one row, from the matrices that the model returns by itself."""
    out = model(**inputs, output_attentions=True)
    names = ("encoder_attentions", "decoder_attentions", "cross_attentions")
    matrices = {name: out[name] for name in names}
    flat = [m for name in names for m in matrices[name]]
    slopes = dict(zip(map(id, flat), torch.autograd.grad(out.logits[0, position, word], flat)))
    step = lambda s, q, m: [(s, q, m[0].detach(), slopes[id(m)][0])]  # noqa: E731
    steps = [step("e", "e", m) for m in matrices["encoder_attentions"]]
    for own, cross in zip(matrices["decoder_attentions"], matrices["cross_attentions"]):
        steps += [step("d", "d", own), step("d", "e", cross)]
    sizes = {"e": inputs["input_ids"].shape[1], "d": inputs["decoder_input_ids"].shape[1]}
    R = reference.relevance_of_two(steps, sizes)
    eye = torch.eye(sizes["d"], dtype=torch.double)
    return {"input_ids": R["d", "e"][token], "decoder_input_ids": (R["d", "d"] - eye)[token]}


@pytest.mark.parametrize("kind, lengths", in_turn(KINDS, [(6, 4), (5, 5)], 1))
def test_relevance_of_an_encoder_and_a_decoder_is_the_papers(kind, lengths):
    model = translator(kind)
    draw = torch.Generator().manual_seed(0)
    inputs = {
        name: torch.randint(3, 50, (2, n), generator=draw)
        for name, n in zip(("input_ids", "decoder_input_ids"), lengths)
    }
    last = lengths[1] - 1
    for token, position in ((None, last), (1, 1)):
        found = tw.AttentionRelevance(model, token=token).attribute(inputs, (position, 7))
        assert list(found) == ["input_ids", "decoder_input_ids"]
        for row in range(2):
            alone = {name: ids[row : row + 1] for name, ids in inputs.items()}
            expected = relevance_by_hand(model, alone, position, 7, position)
            for name, values in expected.items():
                torch.testing.assert_close(found[name][row].double(), values, rtol=1e-5, atol=1e-9)
    source = {"input_ids": inputs["input_ids"]}
    rest = {"decoder_input_ids": inputs["decoder_input_ids"]}
    one = tw.AttentionRelevance(model, token=1).attribute(source, (1, 7), additional_forward_args=rest)
    torch.testing.assert_close(one, found["input_ids"])
    other = tw.AttentionRelevance(model, token=1).attribute(rest, (1, 7), additional_forward_args=source)
    torch.testing.assert_close(other, found["decoder_input_ids"])


@pytest.mark.parametrize("kind", ["BART", "T5"])
def test_cross_attention_by_row_and_by_column(kind):
    model = translator(kind)
    inputs = {"input_ids": torch.arange(3, 9)[None], "decoder_input_ids": torch.arange(9, 13)[None]}
    cross = torch.stack(model(**inputs, output_attentions=True).cross_attentions).mean((0, 2)).detach()
    found = tw.RawAttention(model, layers="cross", token=2).attribute(inputs)
    torch.testing.assert_close(found.double(), cross[:, 2])
    torch.testing.assert_close(tw.RawAttention(model, layers="cross").attribute(inputs).double(), cross.mean(1))
    who = tw.RawAttention(model, layers="cross", key=[1, 4]).attribute(inputs)
    torch.testing.assert_close(who.double(), cross[:, :, [1, 4]].mean(2))
    own = tw.RawAttention(model).attribute(inputs)
    last = model(**inputs, output_attentions=True)
    torch.testing.assert_close(own["input_ids"].double(), last.encoder_attentions[-1].mean(1)[:, 0].detach())
    torch.testing.assert_close(own["decoder_input_ids"].double(), last.decoder_attentions[-1].mean(1)[:, -1].detach())


def attended(stack, hidden, attentions):
    """What :func:`reference.attention.alti_shares` takes, of one row, of each layer of an encoder or a decoder of BART or T5.

    ``hidden``: what goes into each layer and comes out of the last, as the model returns it.
    """
    found = []
    for k, attention in enumerate(attentions):
        x, heads = hidden[k][0], attention.shape[1]
        if hasattr(stack, "block"):  # T5, which normalises before
            block = stack.block[k].layer[0]
            seen, own = block.layer_norm(x), block.SelfAttention
            value, out = own.v, own.o
        else:
            seen, own = x, stack.layers[k].self_attn
            value, out = own.v_proj, own.out_proj
        values = value(seen).unflatten(1, (heads, -1))
        found.append((attention[0], values, out.weight, out.bias, x))
    return found


def attended_across(stack, hidden, memory, owns, attentions):
    """The same of the attention to the encoder's tokens ``memory``; ``owns``: what :func:`attended` gave of the decoder's own."""
    found = []
    for k, attention in enumerate(attentions):
        weights, values, weight, bias, x = owns[k]
        own = torch.einsum("hts,shd->thd", weights, values).flatten(1) @ weight.T + (0 if bias is None else bias)
        if hasattr(stack, "block"):
            look = stack.block[k].layer[1].EncDecAttention
            stream, value, out = x + own, look.v, look.o
        else:
            layer = stack.layers[k]
            stream, value, out = (
                layer.self_attn_layer_norm(x + own),
                layer.encoder_attn.v_proj,
                layer.encoder_attn.out_proj,
            )
        values = value(memory[0]).unflatten(1, (attention.shape[1], -1))
        found.append((attention[0], values, out.weight, out.bias, stream))
    return found


@cache
def translated(kind, lengths):
    """A translator, two rows of its inputs, and of each row: steps (s, q, what the references take) in the model's order."""
    model, draw = translator(kind), torch.Generator().manual_seed(1)
    names = ("input_ids", "decoder_input_ids")
    inputs = {name: torch.randint(3, 50, (2, n), generator=draw) for name, n in zip(names, lengths)}
    each = []
    for row in range(2):
        alone = {name: ids[row : row + 1] for name, ids in inputs.items()}
        with torch.no_grad():
            out = model(**alone, output_attentions=True, output_hidden_states=True)
            encoder = attended(model.get_encoder(), out.encoder_hidden_states, out.encoder_attentions)
            decoder = attended(model.get_decoder(), out.decoder_hidden_states, out.decoder_attentions)
            hidden, memory = out.decoder_hidden_states, out.encoder_last_hidden_state
            cross = attended_across(model.get_decoder(), hidden, memory, decoder, out.cross_attentions)
            steps = [("e", "e", of_one) for of_one in encoder]
            for own, look in zip(decoder, cross):
                steps += [("d", "d", own), ("d", "e", look)]
        each.append([(s, q, [t if t is None else t.detach() for t in taken]) for s, q, taken in steps])
    return model, inputs, each


SHARES = {
    "ALTI": reference.alti_shares,
    "AttentionRollout": lambda attention, *rest, within: reference.rollout_shares(attention, within),
}


@pytest.mark.parametrize("name", SHARES)
@pytest.mark.parametrize("kind, lengths", in_turn(KINDS, LENGTHS, 1))
def test_what_tokens_of_an_encoder_and_a_decoder_are_made_of(kind, lengths, name):
    """Within each sequence, and through the decoder's look at the encoder's tokens; written out in float64."""
    model, inputs, each = translated(kind, lengths)
    method, sizes = getattr(tw, name), dict(zip("ed", lengths))
    found = {token: method(model, token=token).attribute(inputs) for token in (None, 1)}
    own = {token: method(model, layers="own", token=token).attribute(inputs) for token in (None, 1)}
    source = {"input_ids": inputs["input_ids"]}
    rest = {"decoder_input_ids": inputs["decoder_input_ids"]}
    one = method(model, token=1).attribute(source, additional_forward_args=rest)
    torch.testing.assert_close(one, found[1]["input_ids"])
    for row, taken in enumerate(each):
        steps = [[(s, q, *SHARES[name](*what, within=s == q))] for s, q, what in taken]
        across = reference.shares_of_two(steps, sizes)
        within = reference.shares_of_two([[(s, q, *step)] for [(s, q, *step)] in steps if s == q], sizes)
        for token, (read, first) in {None: (-1, 0), 1: (1, 1)}.items():
            for key, q in (("input_ids", "e"), ("decoder_input_ids", "d")):
                values = found[token][key][row].double()
                torch.testing.assert_close(values, across["d", q][read], rtol=1e-5, atol=1e-7)
                at = first if q == "e" else read
                torch.testing.assert_close(own[token][key][row].double(), within[q, q][at], rtol=1e-5, atol=1e-7)
            together = torch.cat([values[row] for values in found[token].values()])
            torch.testing.assert_close(together.sum().double(), torch.ones((), dtype=torch.double))
        assert len(across["d", "e"][-1].unique()) > 1, "tokens differ"


@pytest.mark.parametrize("kind, lengths", in_turn(KINDS, LENGTHS, 1))
def test_each_sequences_own_attentions_are_those_of_the_sequence_alone(kind, lengths):
    model = translator(kind)
    inputs = {
        "input_ids": torch.arange(3, 3 + lengths[0])[None],
        "decoder_input_ids": torch.arange(9, 9 + lengths[1])[None],
    }
    out = model(**inputs, output_attentions=True)
    matrices = {"input_ids": out.encoder_attentions, "decoder_input_ids": out.decoder_attentions}
    read = {"input_ids": 0, "decoder_input_ids": -1}  # the first token; of a causal sequence the last
    for name, by_hand in (("AttentionRollout", reference.rollout), ("AttentionFlow", reference.flow), ("ALTI", None)):
        method = getattr(tw, name)
        if name == "AttentionFlow":
            with pytest.raises(ValueError, match=r"not between the tokens of one sequence.*choose layers='own'"):
                method(model).attribute(inputs)
            with pytest.raises(ValueError, match="not between the tokens of one sequence"):
                method(model, layers="cross").attribute(inputs)
        found = method(model, layers="own").attribute(inputs)
        assert list(found) == list(inputs)
        for key, values in found.items():
            if by_hand is not None:
                expected = by_hand([m[0].detach() for m in matrices[key]])[read[key]]
                torch.testing.assert_close(values[0].double(), expected)
        encoder = method(model.get_encoder()).attribute(inputs["input_ids"])
        torch.testing.assert_close(found["input_ids"], encoder)
        torch.testing.assert_close(method(model, layers=[0, 1]).attribute(inputs), encoder)
        if name != "AttentionFlow":
            torch.testing.assert_close(found["decoder_input_ids"].sum(1), torch.ones(1, dtype=torch.double))
    cross = tw.RawAttention(model, layers="own").attribute(inputs)  # the mean of each sequence's
    for key, values in cross.items():
        expected = torch.stack([m[0].mean(0) for m in matrices[key]]).mean(0)[read[key]].detach()
        torch.testing.assert_close(values[0].double(), expected)


# --------------------------------------------------------------------------- two that look at each other
class Look(nn.Module):
    """Attention by hand, which keeps its matrices."""

    def __init__(self, kept, who):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.kept, self.who = kept, who

    def forward(self, x, y):
        q, k, v = (f(t).unflatten(2, (2, -1)).transpose(1, 2) for f, t in ((self.q, x), (self.k, y), (self.v, y)))
        a = (q @ k.mT * 2).softmax(-1)
        self.kept.append((*self.who, a))
        return x + self.o((a @ v).transpose(1, 2).flatten(2))


class Both(nn.Module):
    """Words and regions look at each other, at the same time or one after the other, then each at itself."""

    def __init__(self, at_once=True, pooled=("t",)):
        super().__init__()
        torch.manual_seed(0)
        self.kept, self.at_once, self.pooled = [], at_once, pooled
        looks = [("t", "t"), ("i", "i"), ("t", "i"), ("i", "t"), ("t", "t"), ("i", "i"), ("t", "i"), ("i", "t")]
        self.looks = nn.ModuleList(Look(self.kept, who) for who in looks)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, words, regions):
        self.kept.clear()
        t, i = words, regions
        for k in (0, 4):
            own_t, own_i, to_i, to_t = self.looks[k : k + 4]
            t, i = own_t(t, t), own_i(i, i)
            if self.at_once:
                t, i = to_i(t, i), to_t(i, t)
            else:
                t = to_i(t, i)
                i = to_t(i, t)
        return self.head(sum({"t": t, "i": i}[name][:, 0] for name in self.pooled))


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("pooled, sizes", in_turn(["t", "i", "ti"], [(5, 5), (6, 4)], 1))
def test_relevance_of_two_that_look_at_each_other_is_the_papers(at_once, pooled, sizes):
    if pooled == "ti" and not at_once:
        pooled = "i"  # in which the other one ends
    net = Both(at_once, tuple(pooled)).double().eval()
    words, regions = rows(t=sizes[0]), rows(t=sizes[1], seed=1)
    found = tw.AttentionRelevance(net).attribute((words, regions), 1)
    score = net(words, regions)[0, 1]
    kept = list(net.kept)
    slopes = torch.autograd.grad(score, [a for *_, a in kept], allow_unused=True)
    steps = [
        [(s, q, a[0].detach(), torch.zeros_like(a[0]) if g is None else g[0])] for (s, q, a), g in zip(kept, slopes)
    ]
    if at_once:
        steps = [steps[0], steps[1], steps[2] + steps[3], steps[4], steps[5], steps[6] + steps[7]]
    R = reference.relevance_of_two(steps, {"t": sizes[0], "i": sizes[1]})
    for values, name in zip(found, "ti"):
        expected = sum(R[answer, name][0] for answer in pooled)
        expected = expected - (torch.eye(len(expected))[0] if name in pooled else 0)
        torch.testing.assert_close(values[0], expected)


@pytest.mark.parametrize("at_once", [True, False])
def test_rollout_of_two_that_look_at_each_other(at_once):
    """One ends in the other where they look in turns; else both are read in the end, and the mean is taken."""
    net, sizes = Both(at_once, ("i",)).double().eval(), {"t": 6, "i": 4}
    words, regions = rows(t=6), rows(t=4, seed=1)
    found = tw.AttentionRollout(net).attribute((words, regions), 1)
    net(words, regions)
    steps = [[(s, q, *reference.rollout_shares(a[0].detach()))] for s, q, a in net.kept]
    if at_once:
        steps = [steps[0], steps[1], steps[2] + steps[3], steps[4], steps[5], steps[6] + steps[7]]
    R = reference.shares_of_two(steps, sizes)
    answers = "ti" if at_once else "i"
    for values, name in zip(found, "ti"):
        torch.testing.assert_close(values[0], sum(R[answer, name][0] for answer in answers) / len(answers))
    torch.testing.assert_close(sum(v.sum() for v in found), torch.ones((), dtype=torch.double))


# ------------------------------------------------------------------------------------------------ diffusion
class Denoiser(nn.Module):
    """Cells of a latent picture look at the words of a prompt, at two sizes, as in a UNet."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.into, self.down = nn.Conv2d(4, WIDTH, 1), nn.Conv2d(WIDTH, WIDTH, 2, 2)
        self.words = nn.Linear(6, WIDTH)
        self.q = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.out = nn.Conv2d(WIDTH, 4, 1)

    def look(self, k, x, words):
        n, c, h, w = x.shape
        cells = x.flatten(2).mT
        cells = cells + F.scaled_dot_product_attention(cells[:, None], cells[:, None], cells[:, None])[:, 0]
        q, k, v = (t.unflatten(2, (2, -1)).transpose(1, 2) for t in (self.q[k](cells), words, words))
        return x + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, h, w, c).permute(0, 3, 1, 2)

    def forward(self, sample, t, encoder_hidden_states):
        words = self.words(encoder_hidden_states)
        x = self.look(0, self.into(sample) + t, words)
        x = x + F.interpolate(self.look(1, self.down(x), words), scale_factor=2)
        return self.out(x)


def weights_by_hand(net, sample, t, words):
    """The cross-attention of both sizes, (cells, words), heads averaged."""
    seen = []
    handles = [q.register_forward_hook(lambda m, i, o: seen.append(o)) for q in net.q]
    net(sample, t, words)
    for handle in handles:
        handle.remove()
    k = net.words(words).unflatten(2, (2, -1)).transpose(1, 2)
    return [((q.unflatten(2, (2, -1)).transpose(1, 2) @ k.mT) / 2).softmax(-1).mean(1).detach() for q in seen]


def test_who_looks_at_a_word_equals_the_product_by_hand():
    net = Denoiser().eval()
    sample, words = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 6)
    time = torch.tensor(0.3)
    large, small = weights_by_hand(net, sample, time, words)
    maps = [
        large[:, :, 3].view(2, 1, 8, 8),
        F.interpolate(small[:, :, 3].view(2, 1, 4, 4), size=(8, 8), mode="bilinear"),
    ]
    expected = sum(maps) / 2
    every = lambda o: o.sum((1, 2, 3))  # noqa: E731
    for inputs, rest in (
        ({"sample": sample, "encoder_hidden_states": words}, {"t": time}),
        ({"sample": sample}, {"t": time, "encoder_hidden_states": words}),
        ({"encoder_hidden_states": words}, {"sample": sample, "t": time}),
    ):
        found = tw.RawAttention(net, layers="cross", key=3).attribute(inputs, every, additional_forward_args=rest)
        torch.testing.assert_close(found, expected)
    one = tw.RawAttention(net, layers=1, key=3, upsample=False).attribute(
        {"sample": sample}, every, additional_forward_args={"t": time, "encoder_hidden_states": words}
    )
    torch.testing.assert_close(one, maps[0])
    read = tw.RawAttention(net, layers="cross", token=7).attribute(
        {"encoder_hidden_states": words}, every, additional_forward_args={"sample": sample, "t": time}
    )
    torch.testing.assert_close(read, (large[:, 7] + small[:, 7]) / 2)
    with pytest.raises(ValueError, match="different numbers of tokens"):
        tw.RawAttention(net, layers="cross", key=3, upsample=False).attribute(
            {"sample": sample}, every, additional_forward_args={"t": time, "encoder_hidden_states": words}
        )


@pytest.mark.parametrize("size", [(16, 16), (16, 24)])
def test_who_looks_at_a_word_in_a_unet_of_diffusers_equals_the_product_by_hand(size):
    """Its cells look at each other and at the words, at two sizes; the prompt goes to every layer as it is."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        cross_attention_dim=6, attention_head_dim=4, sample_size=16, block_out_channels=(8, 16), layers_per_block=1,
        norm_num_groups=4, down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
    ).eval()  # fmt: skip
    looks = [m for name, m in unet.named_modules() if name.endswith("attn2")]
    for m in looks:
        m.to_q.weight.data.mul_(8)  # so that words differ
    sample, words, time = torch.randn(2, 4, *size), torch.randn(2, 5, 6), torch.tensor(500)
    seen = []
    handles = [m.register_forward_hook(lambda m, i, o: seen.append((m, i[0]))) for m in looks]
    with torch.no_grad():
        unet(sample, time, words)
    for handle in handles:
        handle.remove()
    maps = []
    for m, cells in seen:
        q, k = (t.unflatten(2, (m.heads, -1)).transpose(1, 2) for t in (m.to_q(cells), m.to_k(words)))
        weights = (q @ k.mT * m.scale).softmax(-1).mean(1)[:, :, 3].detach()
        part = round((size[0] * size[1] / weights.shape[1]) ** 0.5)
        small = weights.view(2, 1, size[0] // part, size[1] // part)
        maps.append(F.interpolate(small, size=size, mode="bilinear"))
    assert sorted({m.shape[1] for _, m in seen}) == [size[0] * size[1] // 4, size[0] * size[1]]
    noise = lambda out: out.sample.square().sum((1, 2, 3))  # noqa: E731
    for inputs, rest in (
        ({"sample": sample}, {"timestep": time, "encoder_hidden_states": words}),
        ({"encoder_hidden_states": words}, {"sample": sample, "timestep": time}),
    ):
        found = tw.RawAttention(unet, layers="cross", key=3).attribute(inputs, noise, additional_forward_args=rest)
        torch.testing.assert_close(found, sum(maps) / len(maps))


@pytest.mark.parametrize("name", OWN)
def test_a_model_without_attention_within_a_sequence_says_so(name):
    torch.manual_seed(0)

    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.m, self.o = nn.MultiheadAttention(WIDTH, 2, batch_first=True), nn.Linear(WIDTH, 3)

        def forward(self, q, k):
            return self.o(self.m(q, k, k)[0][:, 0])

    net, x = Reads().double().eval(), {"q": rows(), "k": rows(seed=1)}
    advice = r"AttentionRelevance, or RawAttention\(layers='cross'\)"
    with pytest.raises(ValueError, match=f"all attentions of the model are between two sequences; take {advice}"):
        getattr(tw, name)(net, layers="own").attribute(x, 1)
    if name == "AttentionFlow":
        with pytest.raises(ValueError, match=r"as .* asks for: choose AttentionRelevance or RawAttention"):
            getattr(tw, name)(net).attribute(x, 1)
    assert tw.RawAttention(net, layers="cross", token=0).attribute(x).shape == (1, 6)
    assert list(tw.AttentionRelevance(net).attribute(x, 1)) == ["q", "k"]


class Query(nn.Module):
    """Learned queries look at a picture's cells, then at each other."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cells, self.q = nn.Conv2d(3, WIDTH, 4, 4), nn.Parameter(torch.randn(5, WIDTH))
        self.dec = nn.TransformerDecoderLayer(WIDTH, 2, 16, batch_first=True)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x):
        return self.head(self.dec(self.q.expand(len(x), -1, -1), self.cells(x).flatten(2).mT))


def test_a_query_of_a_detector_has_a_map():
    net, x = Query().eval(), torch.rand(2, 3, 16, 24)
    found = tw.AttentionRelevance(net, token=2).attribute(x, (2, 1))
    assert found.shape == (2, 1, 16, 24)
    assert found.flatten(1).any(1).all()
    read = tw.RawAttention(net, layers="cross", token=2, upsample=False).attribute(x)
    memory = net.cells(x).flatten(2).mT
    q = net.dec.norm1(
        net.q.expand(2, -1, -1) + net.dec.self_attn(net.q.expand(2, -1, -1), *2 * [net.q.expand(2, -1, -1)])[0]
    )
    weights = net.dec.multihead_attn(q, memory, memory)[1][:, 2].view(2, 1, 4, 6)
    torch.testing.assert_close(read, weights.detach())


# ---------------------------------------------------------------------------------- tokens, padding, sinks
@cache
def language_model():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=4, initializer_range=0.3)
    return transformers.GPT2LMHeadModel(config).eval()


@pytest.mark.parametrize("name, side", in_turn(OWN, ["left", "right"], 1))
def test_of_a_padded_text_the_last_real_token_is_explained(name, side):
    model, lengths = language_model(), (5, 3, 6)
    texts = [torch.randint(3, 50, (1, n), generator=torch.Generator().manual_seed(n)) for n in lengths]
    room = [(0, 6 - n) if side == "right" else (6 - n, 0) for n in lengths]
    ids = torch.cat([F.pad(t, r, value=2) for t, r in zip(texts, room)])
    mask = (ids != 2).long()
    position = (mask.cumsum(1) - 1).clamp(min=0)
    targets = [(r[0] + n - 1, 7) for r, n in zip(room, lengths)]
    more = {"attention_mask": mask, "position_ids": position}
    method = getattr(tw, name)
    found = method(model).attribute(ids, targets, additional_forward_args=more)
    for i, (text, (before, after), n) in enumerate(zip(texts, room, lengths)):
        alone = method(model).attribute(text, (n - 1, 7))
        torch.testing.assert_close(found[i], F.pad(alone[0], (before, after)), rtol=1e-4, atol=1e-6)
    last = torch.tensor([t[0] for t in targets])
    for token in (last, tw.PerRow(last), last[:, None]):
        named = method(model, token=token).attribute(ids, targets, additional_forward_args=more)
        torch.testing.assert_close(named, found)
    with pytest.raises(ValueError, match=r"it is padding in row [01], whose attention mask is 0 there"):
        method(model, token=5 if side == "right" else 0).attribute(ids[:2], targets[:2], additional_forward_args={
            "attention_mask": mask[:2]})  # fmt: skip
    with pytest.raises(ValueError, match="token: 2 of them for 3 rows"):
        method(model, token=last[:2]).attribute(ids, targets, additional_forward_args=more)
    with pytest.raises(IndexError, match=r"token=\d+: the model has 6 tokens"):
        method(model, token=last + 5).attribute(ids, targets)


@pytest.mark.parametrize("name", OWN)
def test_a_mask_may_be_given_by_its_place(name):
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.lm = language_model()

        def forward(self, ids, attention_mask):
            return self.lm(ids, attention_mask=attention_mask).logits

    model, ids = Masked().eval(), torch.tensor([[5, 6, 7, 2, 2]])
    mask = (ids != 2).long()
    expected = getattr(tw, name)(model.lm).attribute(ids[:, :3], (2, 7))
    found = getattr(tw, name)(model).attribute(ids, (2, 7), additional_forward_args=mask)
    torch.testing.assert_close(found[:, :3], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cut", ["slice", "narrow", "split"])
def test_sinks_are_cut_off(cut):
    class Sinks(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH).double() for _ in range(4))
            self.sink, self.head = nn.Parameter(torch.zeros(1, dtype=torch.double)), nn.Linear(WIDTH, 3).double()

        def weights(self, x):
            z = self.q(x) @ self.k(x).mT / WIDTH**0.5
            a = torch.cat([z, self.sink.expand(*z.shape[:2], 1)], -1).softmax(-1)
            t = x.shape[1]
            return {
                "slice": lambda: a[..., :-1],
                "narrow": lambda: a.narrow(-1, 0, t),
                "split": lambda: a.split(t, -1)[0],
            }[cut]()

        def forward(self, x):
            return self.head(torch.tanh((x + self.o(self.weights(x) @ self.v(x)))[:, 0]))

    net, x = Sinks().eval(), rows(2, 5)
    a = net.weights(x)
    torch.testing.assert_close(tw.RawAttention(net).attribute(x), a[:, 0].detach())
    for i in range(2):
        one = net.weights(x[i : i + 1])
        score = net.head(torch.tanh((x[i : i + 1] + net.o(one @ net.v(x[i : i + 1])))[:, 0]))[0, 1]
        (slope,) = torch.autograd.grad(score, one)
        expected = reference.relevance([one.detach()], [slope])[0] - torch.eye(5)[0]
        torch.testing.assert_close(tw.AttentionRelevance(net).attribute(x, 1)[i], expected)
        rolled = reference.rollout([one.detach()])[0]
        torch.testing.assert_close(tw.AttentionRollout(net).attribute(x)[i], rolled)


def test_settings_that_make_no_sense():
    net = Pair().eval()
    with pytest.raises(ValueError, match="layers='crossed'"):
        tw.RawAttention(net, layers="crossed")
    with pytest.raises(ValueError, match="give one of them"):
        tw.RawAttention(net, key=0, token=0)
    with pytest.raises(ValueError, match=r"key=1\.5"):
        tw.RawAttention(net, key=1.5)
    with pytest.raises(ValueError, match="token: a tensor of shape"):
        tw.RawAttention(net, token=torch.tensor([0.5]))
    with pytest.raises(ValueError, match="no attention between two sequences"):
        tw.RawAttention(net, layers="cross").attribute((rows(), rows(seed=1)))
    with pytest.raises(IndexError, match="key=9"):
        tw.RawAttention(net, key=9).attribute((rows(), rows(seed=1)))
