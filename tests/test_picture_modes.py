"""Pictures of 16 and 32 bits, of floats, of one channel: what is seen of them, and when they are refused."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from torchwhy.models import Preprocess, load, preprocess, read_image, to_image

RAMP = np.linspace(0, 1, 64 * 64).reshape(64, 64)  # even, from black to white


@pytest.mark.parametrize(
    "pixels, suffix",
    [
        ((RAMP * 65535).round().astype("uint16"), "png"),
        ((RAMP * 65535).round().astype("uint16"), "tif"),
        (RAMP.astype("float32"), "tif"),
        ((RAMP * 255).round().astype("uint8"), "png"),
    ],
    ids=["16-bit png", "16-bit tif", "float tif", "8-bit png"],
)
def test_an_even_ramp_is_seen_as_one(tmp_path, pixels, suffix):
    path = tmp_path / f"ramp.{suffix}"
    Image.fromarray(pixels).save(path)
    seen = np.asarray(read_image(path))
    assert seen.shape == (64, 64, 3)
    assert abs(seen - RAMP[..., None] * 255).max() <= 0.51
    x = preprocess(Image.open(path), 64, 0, 1, resize=64)
    torch.testing.assert_close(x[0, 0].double(), torch.from_numpy(RAMP), atol=2.1e-3, rtol=0)


def test_a_range_says_what_is_black_and_what_is_white(tmp_path):
    path = tmp_path / "scan.png"
    Image.fromarray((100 + RAMP * 4095).round().astype("uint16")).save(path)  # a scan of 12 bits
    with pytest.warns(UserWarning, match="use only 100 to 4195 of 65535"):
        assert np.asarray(read_image(path)).max() == 16
    seen = np.asarray(read_image(path, value_range=(100, 4195)))
    assert abs(seen - RAMP[..., None] * 255).max() <= 0.6
    with pytest.raises(ValueError, match=r"value_range=\(9, 9\): expected black below white"):
        read_image(path, value_range=(9, 9))


@pytest.mark.parametrize(
    "pixels, message",
    [
        ((RAMP * 40_000).astype("int32") - 7, "mode I, 32-bit integers from -7 to 39993, does not say"),
        ((RAMP * 200).astype("float32"), "mode F, floats from 0 to 200, does not say"),
        (np.where(RAMP > 0.5, np.nan, RAMP).astype("float32"), "holds NaN"),
    ],
)
def test_what_does_not_say_its_white_is_refused(tmp_path, pixels, message):
    path = tmp_path / "deep.tif"
    Image.fromarray(pixels).save(path)
    with pytest.raises(ValueError, match="deep.tif.*" + message):
        read_image(path)
    if "NaN" not in message:
        low, high = float(pixels.min()), float(pixels.max())
        seen = np.asarray(read_image(path, value_range=(low, high)))
        assert abs(seen - RAMP[..., None] * 255).max() <= 0.51
    with pytest.raises(ValueError, match="image: .*" + message.split(",")[0]):
        preprocess(Image.open(path))


def test_a_range_is_for_deep_pictures(tmp_path):
    Image.fromarray((RAMP * 255).astype("uint8")).save(tmp_path / "a.png")
    with pytest.raises(
        ValueError, match=r"^path: '\S*a.png' has mode L; value_range= is for pictures of 16 or 32 bits"
    ):
        read_image(tmp_path / "a.png", value_range=(0, 1))


def test_grey_networks_get_grey_pictures(tmp_path):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    torch.save(net, tmp_path / "net.pt")
    wanted = load(tmp_path / "net.pt", trust=True).preprocess
    assert wanted.channels == 1
    colour = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    x = Preprocess(size=32, mean=0.0, std=1.0, resize=32, channels=1)(colour)
    luma = colour.astype(float) @ [0.299, 0.587, 0.114]
    torch.testing.assert_close(x[0, 0].double() * 255, torch.from_numpy(luma), atol=0.51, rtol=0)
    shown = to_image(x, 0.0, 1.0)
    assert shown.shape == (32, 32, 3)
    assert (shown == shown[..., :1]).all()
    standard = Preprocess(size=32, mean=(0.2, 0.3, 0.4), std=(0.1, 0.2, 0.3), resize=32, channels=1)
    torch.testing.assert_close(standard(colour), (x - 0.3) / 0.2)
    assert (standard.to_image(standard(colour)) == shown).all()
    with pytest.raises(ValueError, match="channels: 4"):
        preprocess(colour, channels=4)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(
    "high, words",
    [
        (3560, "use only 0 to 3560 of 65535; if they hold 12 bits, read them with value_range=(0, 4095)"),
        (900, "if they hold 10 bits, read them with value_range=(0, 1023)"),
        (9000, "if they hold 14 bits, read them with value_range=(0, 16383)"),
        (30_000, "if they hold 15 bits"),
        (33_000, None),
        (0, None),
    ],
)
def test_sixteen_bits_that_are_hardly_used_are_warned_of(tmp_path, suffix, high, words):
    path = tmp_path / f"scan.{suffix}"
    Image.fromarray((RAMP * high).round().astype("uint16")).save(path)
    for read in (read_image, lambda path: preprocess(Image.open(path), 64)):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            read(path)
        assert [words in str(w.message) for w in told] == ([True] if words else [])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(path, value_range=(0, 4095))  # it was said
