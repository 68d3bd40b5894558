"""Photos, and what a network is given of them."""

import numpy as np
import pytest
import torch
from PIL import Image

from torchwhy import models
from torchwhy.models import photo, preprocess, read_image, to_image


@pytest.mark.parametrize("name", models.PHOTOS)
def test_photos_are_rgb_pictures(name):
    picture = photo(name)
    assert picture.mode == "RGB"
    assert min(picture.size) >= 300
    assert np.asarray(picture).std() > 20


def test_an_unknown_photo_gets_the_nearest_name():
    with pytest.raises(ValueError, match=r"no photo 'chelsey'; did you mean 'chelsea'\?"):
        photo("chelsey")


def test_preprocess_takes_the_centre_and_standardises():
    array = np.zeros((40, 80, 3), np.uint8)
    array[:, 20:60] = (255, 128, 0)  # the central square
    x = preprocess(array, size=40, mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1), resize=40)
    assert x.dtype == torch.float32
    expected = torch.tensor([2.0, (128 / 255 - 0.5) / 0.5, -0.5]).view(1, 3, 1, 1).expand(1, 3, 40, 40)
    torch.testing.assert_close(x, expected)


@pytest.mark.parametrize("name", ["chelsea", "hopper"])  # wider than high, and higher than wide
@pytest.mark.parametrize(
    ("size", "resize", "mode"), [(224, 256, "bicubic"), (299, 342, "bilinear"), (64, 73, "bicubic")]
)
def test_preprocess_equals_torchvision(name, size, resize, mode):
    from torchvision import transforms

    cut = [transforms.Resize(resize, transforms.InterpolationMode(mode)), transforms.CenterCrop(size)]
    last = [transforms.ToTensor(), transforms.Normalize(models.IMAGENET_MEAN, models.IMAGENET_STD)]
    theirs = transforms.Compose(cut + last)(photo(name))[None]
    torch.testing.assert_close(preprocess(photo(name), size, resize=resize, interpolation=mode), theirs)
    if resize != 342:
        torch.testing.assert_close(preprocess(photo(name), size), theirs)


def test_preprocess_keeps_the_size_of_odd_images():
    for shape in ((1, 1), (3, 500), (500, 3), (224, 224), (37, 41, 4), (37, 41, 3)):
        assert preprocess(np.zeros(shape, np.uint8), size=32).shape == (1, 3, 32, 32)


def test_to_image_inverts_preprocess():
    array = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    x = preprocess(array, size=32, resize=32)
    assert np.array_equal(to_image(x), array)
    assert np.array_equal(to_image(x[0].double().requires_grad_()), array)
    assert to_image(x + 100).min() == 255  # out of range is cut off, not wrapped round
    settings = models.Preprocess(32, 0.5, 0.5, resize=32)
    assert np.array_equal(settings.to_image(settings(array)), array)


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (1, 2, 4, 4), (4, 4), (1, 4, 3, 4)])
def test_to_image_wants_one_image(shape):
    with pytest.raises(ValueError, match="x: one image of shape"):
        to_image(torch.zeros(shape))


def test_preprocess_takes_grey_and_transparent_pictures():
    grey = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    expected = preprocess(np.stack([grey] * 3, -1), size=32, resize=32)
    assert torch.equal(preprocess(grey, size=32, resize=32), expected)
    for mode in ("L", "RGBA", "P"):
        picture = Image.fromarray(grey).convert(mode)
        assert torch.equal(preprocess(picture, size=32, resize=32), expected)


@pytest.mark.parametrize("array", [np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros(4, np.uint8)])
def test_preprocess_refuses_other_arrays(array):
    with pytest.raises(ValueError, match="image: a Pillow picture or a uint8 array"):
        preprocess(array)


def test_preprocess_refuses_to_cut_out_more_than_there_is():
    with pytest.raises(ValueError, match="resize: the short side, 100 pixels"):
        preprocess(photo("coffee"), size=224, resize=100)


def test_read_image(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), array)
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation: the camera was turned, the picture is to be shown upright
    Image.fromarray(array).save(tmp_path / "b.png", exif=turned)
    assert read_image(str(tmp_path / "b.png")).size == (6, 9)
    Image.fromarray(array[..., 0]).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png").mode == "RGB"


def test_read_image_says_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no image file at '.*none.png'"):
        read_image(tmp_path / "none.png")
    with pytest.raises(FileNotFoundError, match="no image file"):
        read_image(tmp_path)
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"'.*text.png' cannot be read as an image"):
        read_image(tmp_path / "text.png")
    Image.fromarray(np.zeros((200, 200, 3), np.uint8)).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:100])
    with pytest.raises(ValueError, match=r"'.*half.png' cannot be read as an image"):
        read_image(tmp_path / "half.png")
