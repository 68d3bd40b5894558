"""Which picture a map is of: told by dependence, in networks with two streams, learned queries, several pictures."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from cases import in_turn
from torch import nn
from torch.nn import functional as F

import torchwhy as tw
from torchwhy.engine.layers import dependence, grid_layout

CAMS = {
    name: {"n_steps": 3} if name == "OptiCAM" else {}
    for name, m in tw.methods().items()
    if m.__module__.startswith("torchwhy.cam.") and name not in ("CAM", "FullGrad", "GuidedGradCAM")
}
CAMS["SmoothGradCAMPlusPlus"] = {"n_samples": 3, "generator": 0}
CAMS["SSCAM"] = {"n_samples": 2, "generator": 0}
CAMS["ISCAM"] = {"n_steps": 2}


def cam(name, model, **settings):
    """A class activation map by its name, with little work."""
    return getattr(tw, name)(model, **CAMS.get(name, {}), **settings)


class Question(nn.Module):
    """A picture and a question about it."""

    def __init__(self):
        super().__init__()
        self.c = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
        self.emb = nn.Embedding(50, 8)
        self.q = nn.GRU(8, 8, batch_first=True)
        self.o = nn.Linear(14, 4)

    def forward(self, image, words):
        return self.o(torch.cat([self.c(image).mean((2, 3)), self.q(self.emb(words))[0].mean(1)], 1))


@pytest.mark.parametrize("name", CAMS)
def test_the_map_of_a_picture_with_a_question_is_the_pictures(name):
    torch.manual_seed(0)
    net, words = Question().eval(), torch.randint(0, 50, (1, 9))
    x = torch.rand(1, 3, 16, 16)
    found = cam(name, net).explain(x, 1, additional_forward_args=words)
    assert found.details["layer"] == "c"
    named = cam(name, net, layer="c").attribute(x, 1, additional_forward_args=words)
    torch.testing.assert_close(found.attributions, named)
    other = cam(name, net).attribute(x.flip(2), 1, additional_forward_args=words)
    assert (other - found.attributions).abs().max() > 0.1 * found.attributions.abs().max()


def test_a_layer_of_the_other_stream_is_refused():
    net, words, x = Question().eval(), torch.randint(0, 50, (1, 9)), torch.rand(1, 3, 16, 16)
    for layer in ("emb", "q"):
        with pytest.raises(
            ValueError, match=f"layer '{layer}' does not depend on input 0: it belongs to another stream"
        ):
            tw.GradCAM(net, layer=tw.Layer(layer, output=0) if layer == "q" else layer).attribute(
                x, 1, additional_forward_args=words
            )


def test_the_guided_map_and_full_gradients_are_the_pictures():
    torch.manual_seed(0)
    net, words, x = Question().eval(), torch.randint(0, 50, (1, 9)), torch.rand(1, 3, 16, 16)
    expected = tw.GuidedBackprop(net).attribute(x, 1, additional_forward_args=words) * tw.GradCAM(
        net, layer="c"
    ).attribute(x, 1, additional_forward_args=words)
    torch.testing.assert_close(tw.GuidedGradCAM(net).attribute(x, 1, additional_forward_args=words), expected)
    alone = Question().eval()
    alone.load_state_dict(net.state_dict())
    alone.q.bias_hh_l0.data += 1  # of the other stream
    torch.testing.assert_close(
        *(tw.FullGrad(m).attribute(x, 1, additional_forward_args=words) for m in (net, alone)), rtol=0.2, atol=0.2
    )


class Queries(nn.Module):
    """Learned queries read a picture's cells, as in DETR; as many as make a grid of their own."""

    def __init__(self, n=16, table=False):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.table = nn.Embedding(n, 16) if table else None
        self.q = nn.Parameter(torch.randn(n, 16))
        self.enc = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.dec = nn.ModuleList(nn.TransformerDecoderLayer(16, 2, 32, batch_first=True) for _ in range(2))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        cells = self.enc(self.patches(x).flatten(2).mT)
        q = (self.q if self.table is None else self.table.weight).expand(len(x), -1, -1)
        for layer in self.dec:
            q = layer(q, cells)
        return self.head(q.mean(1))


OFTEN = [(64, False), (65, True)]  # as many as there are cells, and one more
SELDOM = [(64, True), (65, False), *((n, table) for n in (4, 9, 16, 100) for table in (False, True))]


@pytest.mark.parametrize("n, table", [*OFTEN, *(pytest.param(*few, marks=pytest.mark.slow) for few in SELDOM)])
def test_learned_queries_are_no_cells(n, table):
    torch.manual_seed(n)
    net, x = Queries(n, table).eval(), torch.rand(2, 3, 32, 32)
    e = tw.GradCAM(net, upsample=False).explain(x, 1)
    assert e.details["layer"].startswith("enc")
    assert e.attributions.shape == (2, 1, 8, 8)
    with pytest.raises(ValueError, match="are no cells of the inputs"):
        tw.GradCAM(net, layer="dec.1").attribute(x, 1)
    own = tw.GradCAM(net, layer="dec.1", upsample=False, reshape=lambda t: t.mT.unflatten(2, (1, n)))
    assert own.attribute(x, 1).shape == (2, 1, 1, n)


class Latents(nn.Module):
    """A few latents read the picture and think on their own, as in Perceiver."""

    def __init__(self, series=False):
        super().__init__()
        conv = nn.Conv1d if series else nn.Conv2d
        self.series, self.cells = series, conv(3, 8, 4, 4)
        self.latents = nn.Parameter(torch.randn(1, 16, 8))
        self.read = nn.MultiheadAttention(8, 2, batch_first=True)
        self.think = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        cells = self.cells(x).flatten(2).mT
        z = self.read(self.latents.expand(len(x), -1, -1), cells, cells)[0]
        return self.head(self.think(z)[:, 0])


@pytest.mark.parametrize("series", [False, True])
def test_latents_are_no_cells(series):
    torch.manual_seed(0)
    x = torch.rand(2, 3, 64) if series else torch.rand(2, 3, 32, 32)
    e = tw.GradCAM(Latents(series).eval()).explain(x, 1)
    assert e.details["layer"] == "cells"
    assert e.attributions.shape == (2, 1, *x.shape[2:])


class TwoPictures(nn.Module):
    """Two pictures of different sizes, each with a tower of its own."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(1, 4, 2, 2)
        self.o = nn.Linear(8, 3)

    def forward(self, left, right):
        return self.o(torch.cat([self.a(left).relu().mean((2, 3)), self.b(right).relu().mean((2, 3))], 1))


@pytest.mark.parametrize("name", CAMS)
def test_a_map_lies_on_the_picture_that_the_layer_sees(name):
    torch.manual_seed(0)
    net = TwoPictures().eval()
    left, right = torch.rand(2, 3, 12, 8), torch.rand(2, 1, 10, 20)
    assert cam(name, net).explain((left, right), 1).attributions.shape == (2, 1, 10, 20)  # the last one
    assert cam(name, net, layer="a").attribute((left, right), 1).shape == (2, 1, 12, 8)
    found = cam(name, net, layer="b", upsample=False).attribute((left, right), 1)
    assert found.shape == (2, 1, 5, 10)
    with pytest.raises(ValueError, match="see different inputs"):
        cam(name, net, layer=["a", "b"]).attribute((left, right), 1)


class Right(nn.Module):
    """The network of two pictures for the second one alone."""

    def __init__(self, net, left):
        super().__init__()
        self.net, self.left = net, left

    def forward(self, right):
        return self.net(self.left.expand(len(right), -1, -1, -1), right)


@pytest.mark.parametrize("name", ["ScoreCAM", "OptiCAM", "ISCAM"])
def test_masks_go_onto_the_picture_that_the_layer_sees(name):
    torch.manual_seed(0)
    net, left, right = TwoPictures().eval(), torch.rand(1, 3, 12, 8), torch.rand(1, 1, 10, 20)
    expected = cam(name, Right(net, left).eval(), layer="net.b").attribute(right, 1)
    torch.testing.assert_close(cam(name, net, layer="b").attribute((left, right), 1), expected)


class Gated(nn.Module):
    """The cells of the wide picture, gated by what the other one is as a whole: the layer sees both."""

    def __init__(self, wide_first):
        super().__init__()
        self.wide_first, self.c, self.o = wide_first, nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, first, second):
        wide, high = (first, second) if self.wide_first else (second, first)
        return self.o(self.c(wide * high.mean((1, 2, 3), keepdim=True)).relu().mean((2, 3)))


@pytest.mark.parametrize("wide_first", [True, False])
def test_of_two_pictures_that_a_layer_sees_the_one_of_its_proportions_is_meant(wide_first):
    torch.manual_seed(0)
    wide, high = torch.rand(2, 1, 10, 20), torch.rand(2, 3, 16, 8)
    given = (wide, high) if wide_first else (high, wide)
    e = tw.GradCAM(Gated(wide_first).eval(), layer="c").explain(given, 1)
    assert e.attributions.shape == (2, 1, 10, 20)
    assert e.details["inputs"] == [0 if wide_first else 1]


def test_each_of_two_pictures_has_its_full_gradients():
    torch.manual_seed(0)
    net, left, right = TwoPictures().eval(), torch.rand(1, 3, 12, 8), torch.rand(1, 1, 10, 20)
    found = tw.FullGrad(net).explain((left, right), 1)
    alone = tw.FullGrad(Right(net, left).eval()).attribute(right, 1)
    assert [tuple(t.shape) for t in found.attributions] == [(1, 1, 12, 8), (1, 1, 10, 20)]
    torch.testing.assert_close(found.attributions[1], alone)
    torch.testing.assert_close(
        found.attributions[0], tw.FullGrad(net).attribute(left, 1, additional_forward_args=right)
    )
    assert found.completeness_gap < 1e-5
    named = tw.FullGrad(net).attribute_each({"right": right, "left": left}, [0, 1])
    assert list(named[1]) == ["right", "left"]
    torch.testing.assert_close(named[1]["right"], alone)
    beside, series = PictureAndSeries().eval(), torch.rand(1, 2, 9)
    one = tw.FullGrad(beside).attribute((torch.rand(1, 3, 9, 9), series), 1)
    assert one.shape == (1, 1, 9, 9)


class Joined(nn.Module):
    """Two pictures of one size that are added up before the first layer, and a third one."""

    def __init__(self):
        super().__init__()
        self.both, self.third, self.o = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3), nn.Linear(8, 3)

    def forward(self, a, b, c):
        seen = [self.both(a + 2 * b).relu().mean((2, 3)), self.third(c).relu().mean((2, 3))]
        return self.o(torch.cat(seen, 1))


def test_the_guided_map_is_of_the_pictures_that_the_layer_sees(tmp_path):
    torch.manual_seed(0)
    net, left, right = TwoPictures().eval(), torch.rand(1, 3, 12, 8), torch.rand(1, 1, 10, 20)
    alone = tw.GuidedGradCAM(Right(net, left).eval(), layer="net.b").attribute(right, 1)
    found = tw.GuidedGradCAM(net, layer="b").explain({"left": left, "right": right}, 1)
    torch.testing.assert_close(found.attributions, alone)
    assert found.details["inputs"] == ["right"]
    found.save(tmp_path / "e.safetensors")
    assert tw.Explanation.load(tmp_path / "e.safetensors").details["inputs"] == ["right"]
    each = tw.GuidedGradCAM(net, layer="b").attribute_each((left, right), [0, 1])
    torch.testing.assert_close(each[1], alone)
    first = tw.GuidedGradCAM(net, layer="a").attribute((left, right), 1)
    torch.testing.assert_close(
        first, tw.GuidedGradCAM(net, layer="a").attribute(left, 1, additional_forward_args=right)
    )

    joined, (a, b, c) = Joined().eval(), torch.rand(3, 2, 3, 9, 9)
    guided = tw.GuidedBackprop(joined).attribute((a, b, c), 1)
    for layer, numbers in (("both", [0, 1]), ("third", [2])):
        e = tw.GradCAM(joined, layer=layer).explain((a, b, c), 1)
        assert e.details["inputs"] == numbers
        found = tw.GuidedGradCAM(joined, layer=layer).attribute((a, b, c), 1)
        for i, product in zip(numbers, found if len(numbers) > 1 else [found]):
            torch.testing.assert_close(product, guided[i] * e.attributions)


class PictureAndSeries(nn.Module):
    """A picture and a series."""

    def __init__(self):
        super().__init__()
        self.c, self.s, self.o = nn.Conv2d(3, 4, 3), nn.Conv1d(2, 4, 3), nn.Linear(8, 3)

    def forward(self, image, series):
        return self.o(torch.cat([self.c(image).relu().mean((2, 3)), self.s(series).relu().mean(2)], 1))


def test_of_a_picture_and_a_series_the_picture_is_meant_and_the_series_may_be_named():
    torch.manual_seed(0)
    net, image, series = PictureAndSeries().eval(), torch.rand(2, 3, 9, 9), torch.rand(2, 2, 49)
    e = tw.GradCAM(net).explain((image, series), 1)
    assert (e.details["layer"], tuple(e.attributions.shape)) == ("c", (2, 1, 9, 9))
    assert tw.GradCAM(net).explain(image, 1, additional_forward_args=series).details["layer"] == "c"
    assert tw.GradCAM(net, layer="s").attribute((image, series), 1).shape == (2, 1, 49)
    with pytest.raises(ValueError, match="another stream"):
        tw.GradCAM(net, layer="s").attribute(image, 1, additional_forward_args=series)


class Measured(nn.Module):
    """A series and numbers about it: convolutions of any depth, or a recurrent layer."""

    def __init__(self, kind):
        super().__init__()
        if kind == "gru":
            self.gru, self.front, self.width = nn.GRU(3, 8, batch_first=True), nn.LayerNorm(8), 8
        else:
            sizes = [3, *[6] * kind]
            layers = [(nn.Conv1d(a, b, 3, padding=1), nn.ReLU()) for a, b in pairwise(sizes)]
            self.front, self.width = nn.Sequential(*[part for pair in layers for part in pair]), 6
        self.kind, self.out = kind, nn.Linear(self.width + 2, 3)

    def forward(self, series, numbers):
        seen = self.front(self.gru(series.mT)[0]).square().mean(1) if self.kind == "gru" else self.front(series).mean(2)
        return self.out(torch.cat([seen, numbers], 1))


@pytest.mark.parametrize("kind, length", in_turn([1, 2, 4, 8, "gru"], [16, 40, 64], 1))
def test_layers_that_see_their_neighbours_are_cells(kind, length):
    torch.manual_seed(0)
    net, x = Measured(kind).eval(), torch.rand(2, 3, length)
    e = tw.GradCAM(net).explain(x, 1, additional_forward_args=tw.PerRow(torch.rand(2, 2)))
    assert e.details["layer"] == "front"
    assert e.attributions.shape == (2, 1, length)
    named = tw.GradCAM(net, layer="front", relu=False)
    assert named.attribute(x, 1, additional_forward_args=torch.rand(1, 2).expand(2, 2)).any()


def follows(net, x):
    """Whether the last layer's own tokens are found to be the picture's cells, by name."""
    try:
        tw.GradCAM(net, layer="last").attribute(x, 1)
    except ValueError:
        return False
    return True


class Decoder(nn.Module):
    """Patches that see one another, or learned queries that look at them."""

    def __init__(self, queries, seed):
        super().__init__()
        torch.manual_seed(seed)
        options = {"dim_feedforward": 64, "dropout": 0.0, "batch_first": True}
        self.patches, self.places = nn.Conv2d(3, 32, 8, 8), nn.Parameter(0.5 * torch.randn(1, 16, 32))
        self.queries = nn.Parameter(torch.randn(1, queries, 32)) if queries else None
        self.encoder = nn.TransformerEncoderLayer(32, 4, **options)
        self.last = nn.TransformerDecoderLayer(32, 4, **options) if queries else self.encoder
        self.head = nn.Linear(32, 3)

    def forward(self, x):
        t = self.encoder(self.patches(x).flatten(2).mT + self.places)
        return self.head((t if self.queries is None else self.last(self.queries.expand(len(x), -1, -1), t)).mean(1))


@pytest.mark.parametrize("queries", [0, 16, 17, *(pytest.param(k, marks=pytest.mark.slow) for k in (9, 64))])
def test_queries_are_told_from_cells_by_more_than_chance(queries):
    x = torch.rand(1, 3, 32, 32)
    assert [follows(Decoder(queries, seed).eval(), x) for seed in range(8)] == [not queries] * 8


@pytest.mark.parametrize("length", [16, pytest.param(40, marks=pytest.mark.slow)])
def test_layers_that_see_their_neighbours_are_cells_for_other_weights(length):
    """Eight convolutions, each part seen by 17 cells; which row is asked is no matter."""
    found = set()
    for seed in range(8):
        torch.manual_seed(seed)
        e = tw.GradCAM(Measured(8).eval()).explain(
            torch.rand(1, 3, length), 1, additional_forward_args=torch.rand(1, 2)
        )
        found.add(e.details["layer"])
    assert found == {"front"}


class Frozen(Question):
    """The vision tower runs without a graph."""

    def forward(self, image, words):
        with torch.no_grad():
            cells = self.c(image)
        return self.o(torch.cat([cells.mean((2, 3)), self.q(self.emb(words))[0].mean(1)], 1))


def test_a_tower_without_a_graph_can_be_named():
    torch.manual_seed(0)
    net, words, x = Frozen().eval(), torch.randint(0, 50, (2, 9)), torch.rand(2, 3, 16, 16)
    found = tw.EigenCAM(net, layer="c", check=False).attribute(x, additional_forward_args=words)
    assert found.shape == (2, 1, 16, 16)
    torch.testing.assert_close(
        found[:1], tw.EigenCAM(net, layer="c").attribute(x[:1], additional_forward_args=words[:1])
    )


@pytest.mark.parametrize("length", [16, 17, *(pytest.param(n, marks=pytest.mark.slow) for n in (5, 7, 9))])
def test_clip_of_every_prompt_length_is_looked_at_where_it_sees(length):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={**small, "vocab_size": 50, "max_position_embeddings": 20, "eos_token_id": 49},
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    net = transformers.CLIPModel(config).eval()
    ids, x = torch.randint(3, 49, (2, length)), torch.rand(1, 3, 32, 32)
    ids[:, -1] = 49
    more = {"additional_forward_args": {"input_ids": tw.Shared(ids)}}
    e = tw.GradCAM(net).explain({"pixel_values": x}, lambda o: o.logits_per_image[:, 1], **more)
    assert e.details["layer"].startswith("vision_model")
    assert e.attributions.shape == (1, 1, 32, 32)
    name = next(n for n, _ in net.named_modules() if n.startswith("text_model") and n.endswith("layers.1"))
    with pytest.raises(ValueError, match="another stream"):
        tw.GradCAM(net, layer=name).attribute({"pixel_values": x}, lambda o: o.logits_per_image[:, 1], **more)


def test_the_map_of_a_picture_within_a_text_is_not_shifted():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**small, image_size=32, patch_size=8),
        text_config=transformers.LlamaConfig(**small, vocab_size=50, num_key_value_heads=2, pad_token_id=2),
        image_token_index=48, vision_feature_select_strategy="default", vision_feature_layer=-1, image_seq_length=16,
    )  # fmt: skip
    net, x = transformers.LlavaForConditionalGeneration(config).eval(), torch.rand(1, 3, 32, 32)
    ids = torch.cat(
        [torch.full((1, 16), 48), torch.randint(3, 47, (1, 4))], 1
    )  # the picture first, as many words as a line
    e = tw.GradCAM(net).explain({"pixel_values": x}, (19, 7), additional_forward_args={"input_ids": ids})
    assert e.details["layer"] == "model.multi_modal_projector"  # the last one with the picture's cells alone


def test_the_search_runs_the_model_once():
    torch.manual_seed(0)
    runs = []
    net = Queries().eval()
    net.patches.register_forward_hook(lambda *_: runs.append(1))
    x = torch.rand(2, 3, 32, 32)
    tw.GradCAM(net, layer="enc", check=False).attribute(x, 1)
    named = len(runs)
    tw.GradCAM(net, layer="enc", check=False).attribute(x, 1)
    again = len(runs) - named
    tw.GradCAM(net, check=False).attribute(x, 1)
    assert named - again <= 2
    assert len(runs) - named - again <= again + 2


def test_a_convolution_is_not_tried():
    runs = []
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    net[0].register_forward_hook(lambda *_: runs.append(1))
    tw.GradCAM(net, layer="0", check=False).attribute(torch.rand(2, 3, 8, 8), 1)
    assert len(runs) == 1


def test_interpolation_goes_to_the_size_of_the_picture_seen():
    torch.manual_seed(0)
    net = TwoPictures().eval()
    left, right = torch.rand(2, 3, 12, 8), torch.rand(2, 1, 10, 20)
    grid = tw.GradCAM(net, layer="b", upsample=False).attribute((left, right), 1)
    expected = F.interpolate(grid, size=(10, 20), mode="bilinear")
    torch.testing.assert_close(tw.GradCAM(net, layer="b").attribute((left, right), 1), expected)


class TurnedTokens(nn.Module):
    """Sixteen channels at 8 × 8 cells, or 64 channels at 4 × 4, as tokens in a layer without weights."""

    def __init__(self, channels, side, last):
        super().__init__()
        torch.manual_seed(0)
        self.cells = nn.Conv2d(3, channels, 32 // side, 32 // side)
        self.act, self.last, self.side = nn.GELU(), last, side
        self.head = nn.Linear(channels, 3)

    def forward(self, x):
        t = self.cells(x).flatten(2)
        t = self.act(t.mT if self.last else t)
        return self.head((t if self.last else t.mT).square().mean(1))


@pytest.mark.parametrize("channels, side", [(16, 8), (64, 4)])
@pytest.mark.parametrize("last", [True, False])
def test_tokens_or_channels_are_told_by_dependence_where_sizes_say_nothing(channels, side, last):
    net, x = (
        TurnedTokens(channels, side, last).eval(),
        torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)),
    )
    found = tw.GradCAM(net, layer="act", upsample=False, relu=False).attribute(x, 1)
    with torch.enable_grad():
        cells = net.act(net.cells(x)).detach().requires_grad_()
        score = net.head(cells.flatten(2).mT.square().mean(1))[:, 1].sum()
        (slope,) = torch.autograd.grad(score, cells)
    right = (slope.mean((2, 3), keepdim=True) * cells).sum(1, keepdim=True).detach()
    torch.testing.assert_close(found, right)


class Patches(nn.Module):
    """Tokens that see their own patch alone, beside a table of as many places."""

    def __init__(self, side, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.patches, self.places = (
            nn.Conv2d(3, 32, 30 // side, 30 // side),
            nn.Parameter(0.5 * torch.randn(1, side**2, 32)),
        )
        self.last = nn.Sequential(nn.Linear(32, 32), nn.Tanh())
        self.head = nn.Linear(32, 3)

    def forward(self, x):
        return self.head(self.last(self.patches(x).flatten(2).mT + self.places).mean(1))


@pytest.mark.parametrize("side", [3, 6, pytest.param(5, marks=pytest.mark.slow)])
def test_patches_that_see_nothing_but_themselves_are_cells(side):
    x = torch.rand(1, 3, 30, 30, generator=torch.Generator().manual_seed(0))
    assert [follows(Patches(side, seed).eval(), x) for seed in range(8)] == [True] * 8


def test_what_was_found_goes_with_what_is_expected_closely_and_by_more_than_a_little():
    expected = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.double)
    across = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.double)
    goes = dependence._goes_with
    assert goes(0.25 * expected + 3, expected + 7, 0.3)  # half a unit from the one to the other, wherever they lie
    assert not goes(0.15 * expected, expected, 0.3)
    assert goes(0.15 * expected, 0.2 * expected, 0.3) is False
    assert not goes(-expected, expected, 0.3)
    assert not goes(expected, torch.full_like(expected, 2.0), 0.3)
    assert goes(expected + 0.7 * across, expected, 0.8)  # a correlation of 0.82
    assert not goes(expected + 0.8 * across, expected, 0.8)  # of 0.78
    assert goes(2 * expected + 1.4 * across, 3 * expected, 0.8)


def test_cells_may_see_none_one_two_or_four_neighbours_on_each_side():
    mine = torch.tensor([1, 0, 0, 1, 1, 1, 0, 0, 1, 0, 1, 0], dtype=torch.double)
    for reach, found in zip((0, 1, 2, 4), dependence._expected_ratios(mine), strict=True):
        shares = torch.stack([mine[max(0, i - reach) : i + reach + 1].mean() for i in range(12)]).clamp(0.02, 0.98)
        torch.testing.assert_close(found, (shares / (1 - shares)).log() / 2)
    assert len(list(dependence._expected_ratios(mine[:8]))) == 3  # nine cells around one are all of eight


@pytest.mark.parametrize(
    "shape, picture, module, size, channels, sure",
    [
        ((16, 32), (32, 16), nn.GELU(), (8, 4), 1, False),  # the grid that has the picture's proportions
        ((32, 16), (32, 16), nn.GELU(), (8, 4), 2, False),
        ((16, 64), (32, 32), nn.GELU(), (4, 4), 2, False),  # of two alike the tokens come first
        ((64, 16), (32, 32), nn.GELU(), (8, 8), 2, False),
        ((16, 64), (32, 32), nn.Linear(5, 64), (4, 4), 2, True),  # the weights know which are channels
        ((16, 64), (32, 32), nn.Linear(5, 16), (8, 8), 1, True),
        ((16, 32), (32, 16), nn.Linear(3, 32), (5, 3), 2, True),
        ((15, 64), (32, 32), nn.Linear(7, 7), (8, 8), 1, True),  # fifteen are no grid
        ((64, 15), (32, 32), nn.Linear(7, 7), (8, 8), 2, True),
    ],
)
def test_which_of_two_axes_are_the_tokens(shape, picture, module, size, channels, sure):
    place = SimpleNamespace(module=module, input=False)
    grid = grid_layout.find_grid(place, torch.zeros(1, *shape), 1, picture)
    assert (grid.size, grid.channels, grid.sure) == (size, channels, sure)
