"""Which tokens are a picture's cells: those that change with it, wherever words, class tokens and separators stand."""

import pytest
import torch
from cases import in_turn
from torch import nn

import torchwhy as tw

OWN = ["AttentionRollout", "AttentionFlow", "ALTI", "RawAttention", "AttentionRelevance"]
WIDTH, SIDE = 8, 3  # cells along each side of the picture, of 4 pixels


class Blocks(nn.Module):
    """Self-attention over tokens, then an answer."""

    def __init__(self, causal=False):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=True) for _ in range(2))
        self.head, self.causal = nn.Linear(WIDTH, 3), causal

    def forward(self, tokens):
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1]) if self.causal else None
        for layer in self.layers:
            tokens = layer(tokens, src_mask=mask, is_causal=self.causal)
        return self.head(torch.tanh(tokens[:, -1] if self.causal else tokens.mean(1)))


class Joint(nn.Module):
    """Words and the patches of a picture in one sequence; ``before`` of the words stand before the patches."""

    def __init__(self, before, blocks, each_line=False):
        super().__init__()
        torch.manual_seed(1)
        self.patches, self.words, self.end = nn.Conv2d(3, WIDTH, 4, 4), nn.Embedding(30, WIDTH), torch.randn(WIDTH)
        self.before, self.blocks, self.each_line = before, blocks, each_line

    def tokens(self, image, words):
        cells = self.patches(image).permute(0, 2, 3, 1)
        if self.each_line:
            cells = torch.cat([cells, self.end.expand(len(image), SIDE, 1, -1)], 2)
        words = self.words(words)
        return torch.cat([words[:, : self.before], cells.flatten(1, 2), words[:, self.before :]], 1)

    def forward(self, image, words):
        return self.blocks(self.tokens(image, words))


def picture_and_words(count, n=2):
    draw = torch.Generator().manual_seed(count)
    return torch.rand(n, 3, 4 * SIDE, 4 * SIDE, generator=draw), torch.randint(0, 30, (n, count), generator=draw)


@pytest.mark.parametrize("around, name", in_turn([(7, 0), (2, 0), (0, 4), (3, 4), (0, 16), (20, 7), (0, 0)], OWN, 1))
def test_words_beside_the_patches_are_no_cells(around, name):
    """7 words and 9 patches make 4 × 4 tokens, 16 words and 9 patches 5 × 5."""
    before, after = around
    net = Joint(before, Blocks()).eval()
    image, words = picture_and_words(before + after)
    first = None if before == after == 0 else 0 if before else SIDE**2
    tokens = net.tokens(image, words).detach()
    token = list(range(SIDE**2)) if first is None else first
    expected = getattr(tw, name)(net.blocks, token=token).attribute(tokens, 1)
    expected = expected[:, before : before + SIDE**2].view(2, 1, SIDE, SIDE)
    method = getattr(tw, name)
    more = {"additional_forward_args": words}
    torch.testing.assert_close(method(net, upsample=False).attribute(image, 1, **more), expected)
    for given in ({"upsample": False, "grid": (SIDE, SIDE)}, {"upsample": False, "token": token}):
        torch.testing.assert_close(method(net, **given).attribute(image, 1, **more), expected)
    assert method(net).attribute(image, 1, **more).shape == (2, 1, 12, 12)


@pytest.mark.parametrize("name, causal", in_turn(OWN, [False, True], 1))
def test_what_ends_the_lines_of_a_picture_is_no_cell(name, causal):
    net = Joint(2, Blocks(causal), each_line=True).eval()
    image, words = picture_and_words(5)
    tokens = net.tokens(image, words).detach()
    expected = getattr(tw, name)(net.blocks).attribute(tokens, 1)  # in a causal model of the last token
    expected = expected[:, 2:14].view(2, 1, SIDE, SIDE + 1)[..., :SIDE]
    found = getattr(tw, name)(net, upsample=False).attribute(image, 1, additional_forward_args=words)
    torch.testing.assert_close(found, expected)


class Anywhere(Joint):
    """The patches stand where the words have a mark, as in language models that see."""

    def tokens(self, image, words):
        cells = self.patches(image).flatten(2).mT
        return self.words(words).masked_scatter((words == 29)[..., None], cells)


@pytest.mark.parametrize("name, batch_size", in_turn(OWN, [2, None, 1], 1))
def test_each_row_may_have_its_picture_elsewhere(name, batch_size):
    net = Anywhere(0, Blocks(causal=True)).eval()
    image, words = picture_and_words(16, n=3)
    words = words.clamp(max=28)
    for row, start in enumerate((0, 3, 7)):
        words[row, start : start + SIDE**2] = 29
    expected = getattr(tw, name)(net.blocks, token=-1).attribute(net.tokens(image, words).detach(), 1)
    expected = torch.stack([e[s : s + SIDE**2] for e, s in zip(expected, (0, 3, 7))]).view(3, 1, SIDE, SIDE)
    found = getattr(tw, name)(net, upsample=False, batch_size=batch_size)
    torch.testing.assert_close(found.attribute(image, 1, additional_forward_args=words), expected)


@pytest.mark.parametrize("side", ["left", "right"])
def test_of_padded_words_a_real_one_is_explained(side):
    class Padded(Joint):
        def forward(self, image, words, attention_mask):
            tokens = self.tokens(image, words)
            for layer in self.blocks.layers:
                tokens = layer(tokens, src_key_padding_mask=attention_mask == 0)
            return self.blocks.head(torch.tanh(tokens[:, 0]))

    net = Padded(4, Blocks()).eval()
    image, words = picture_and_words(4)
    mask = torch.ones(2, 13, dtype=torch.long)
    mask[1, [0, 1] if side == "left" else [2, 3]] = 0
    more = {"additional_forward_args": (words, mask)}
    found = tw.RawAttention(net, upsample=False).attribute(image, **more)
    named = tw.RawAttention(net, upsample=False, token=torch.tensor([0, 2 if side == "left" else 0]))
    torch.testing.assert_close(found, named.attribute(image, **more))


class Alone(nn.Module):
    """A picture alone, with further tokens before its patches, and behind them."""

    def __init__(self, before, after, quantized=False):
        super().__init__()
        torch.manual_seed(2)
        self.patches, self.blocks, self.runs = nn.Conv2d(3, WIDTH, 4, 4), Blocks(), 0
        self.before = nn.Parameter(torch.randn(1, before, WIDTH))
        self.after = nn.Parameter(torch.randn(1, after, WIDTH))
        self.levels, self.quantized, self.last = torch.linspace(0, 1, 256), quantized, False

    def tokens(self, image):
        image = self.levels.take(image.long()) if self.quantized else image
        cells = self.patches(image.movedim(3, 1) if self.last else image).flatten(2).mT
        around = [t.expand(len(image), -1, -1) for t in (self.before, self.after)]
        return torch.cat([around[0], cells, around[1]], 1)

    def forward(self, image):
        if self.quantized and image.dtype != torch.uint8:
            raise TypeError("a picture of whole numbers")
        self.runs += 1
        return self.blocks(self.tokens(image))


@pytest.mark.parametrize(("before", "after", "token"), [
    (2, 0, [0, 1]), (0, 1, [9]), (1, 6, [0]), (0, 0, [*range(9)]),
    *(pytest.param(*around, marks=pytest.mark.slow) for around in [(1, 0, [0]), (5, 0, [0]), (0, 7, [9]), (1, 1, [0])]),
])  # fmt: skip
def test_class_tokens_and_registers_may_stand_anywhere(before, after, token):
    image, quantized = picture_and_words(1)[0], torch.randint(0, 256, (2, 3, 12, 12), dtype=torch.uint8)
    for x in (image, quantized, torch.zeros_like(image), image.permute(0, 2, 3, 1)):
        net = Alone(before, after, x is quantized).eval()
        if x.shape[-1] == 3:
            net.last = True
        expected = tw.AttentionRollout(net.blocks, token=token).attribute(net.tokens(x).detach())
        expected = expected[:, before : before + SIDE**2].view(2, 1, SIDE, SIDE)
        found = tw.AttentionRollout(net, upsample=False).attribute(x)
        torch.testing.assert_close(found, expected)


class OfPositive(Alone):
    """As what it is of, blind to negative pixels: another picture says nothing of its patches there."""

    def tokens(self, image):
        return super().tokens(image.relu())


def test_where_the_cells_are_does_not_depend_on_what_was_explained_before():
    x = picture_and_words(1)[0]
    first, later = OfPositive(0, 1).eval(), OfPositive(0, 1).eval()
    tw.AttentionRollout(later, check=False).attribute(-10 - x)
    found = [tw.AttentionRollout(net, check=False).attribute(x) for net in (first, later)]
    assert torch.equal(*found)


def test_where_the_cells_are_is_found_once():
    net, x = Alone(1, 0).eval(), picture_and_words(1)[0]
    runs = []
    for _ in range(3):
        e = tw.AttentionRollout(net, check=False).explain(x)
        assert e.evaluations == 2
        runs.append(net.runs)
        net.runs = 0
    assert runs[0] - runs[1] == 2
    assert runs[1] == runs[2]


def test_each_of_two_pictures_has_its_cells():
    class Pictures(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = Alone(0, 7), Alone(3, 0)

        def forward(self, first, second):
            return self.a(first) - self.b(second)

    net, (first, second) = Pictures().eval(), picture_and_words(1)[0].split(1)
    found = tw.AttentionRollout(net, upsample=False).attribute((first, second))
    for x, tower, got in ((first, net.a, found[0]), (second, net.b, found[1])):
        torch.testing.assert_close(got, tw.AttentionRollout(tower, upsample=False).attribute(x))


def test_a_grid_that_does_not_fit_is_refused():
    net = Joint(7, Blocks()).eval()
    image, words = picture_and_words(7)
    with pytest.raises(ValueError, match=r"grid=\(5, 5\): 25 cells"):
        tw.AttentionRollout(net, grid=(5, 5)).attribute(image, additional_forward_args=words)


def test_a_model_that_attends_to_some_pictures_only_is_counted():
    class Sometimes(Alone):
        def forward(self, image):
            return super().forward(image) if bool((image == 1).all()) else self.blocks.head(self.tokens(image).mean(1))

    net, x = Sometimes(1, 0).eval(), torch.ones(1, 3, 12, 12)
    expected = tw.AttentionRollout(net.blocks, token=0).attribute(net.tokens(x).detach())[:, 1:].view(1, 1, SIDE, SIDE)
    torch.testing.assert_close(tw.AttentionRollout(net, upsample=False, check=False).attribute(x), expected)


class Reshapes(nn.Module):
    """A picture's patches behind two words that stay; the picture is left in another shape."""

    def __init__(self, in_place):
        super().__init__()
        self.joint, self.in_place = Joint(2, Blocks()), in_place

    def forward(self, image):
        found = self.joint(image.clone(), torch.zeros(len(image), 2, dtype=torch.long))
        if self.in_place:
            image.unsqueeze_(0)
        return found


def test_a_model_that_gives_its_picture_another_shape_has_the_same_cells():
    image, _ = picture_and_words(2)
    found, expected = (tw.RawAttention(Reshapes(in_place).eval()).attribute(image, 1) for in_place in (True, False))
    torch.testing.assert_close(found, expected)
