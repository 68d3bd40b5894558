"""Where channels and places are: video, pictures with their channels last, series, as shapes say it or as a caller does."""

import pytest
import torch
from cases import in_turn
from torch import nn
from torch.nn import functional as F

import torchwhy as tw
from torchwhy.engine.axes import axes_by_shape
from torchwhy.explanation.features import in_usual_layout


class Moved(nn.Module):
    """A network of ``(N, C, *places)`` that is given its inputs in another order of axes."""

    def __init__(self, net, order):
        super().__init__()
        self.net, self.order = net, order

    def forward(self, x):
        return self.net(x.permute(self.order))


def network(dims, channels=3):
    torch.manual_seed(0)
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
    pool = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[dims](1)
    layers = [conv(channels, 6, 3, padding=1), nn.ReLU(), conv(6, 6, 3, padding=1), nn.ReLU(), pool, nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(6, 4)).eval()


# letters, the shape in the usual order, the order that brings the usual one to these letters, whether the shape says it
LAYOUTS = {
    "NTCHW": ((2, 3, 8, 10, 12), (0, 2, 1, 3, 4), True),
    "NHWC": ((2, 3, 12, 16), (0, 2, 3, 1), True),
    "NTHWC": ((2, 3, 8, 10, 12), (0, 2, 3, 4, 1), True),
    "NTF": ((2, 3, 16), (0, 2, 1), False),
}
METHODS = {
    "GradCAM": (tw.GradCAM, {"layer": "2"}, {}),
    "LayerCAM": (tw.LayerCAM, {"layer": "2", "interpolation": "nearest"}, {}),
    "HiResCAM grid": (tw.HiResCAM, {"layer": "2", "upsample": False}, {}),
    "ScoreCAM": (tw.ScoreCAM, {"layer": "2"}, {}),
    "SSCAM": (tw.SSCAM, {"layer": "2", "n_samples": 2, "generator": 0}, {}),
    "OptiCAM": (tw.OptiCAM, {"layer": "2", "n_steps": 3}, {}),
    "AblationCAM": (tw.AblationCAM, {"layer": "2"}, {}),
    "FullGrad": (tw.FullGrad, {}, {}),
    "GuidedGradCAM": (tw.GuidedGradCAM, {"layer": "2"}, {}),
    "RISE": (tw.RISE, {"n_samples": 20, "grid": 3, "generator": 0}, {}),
    "RISE plain": (tw.RISE, {"n_samples": 20, "grid": 3, "generator": 0, "variance_reduced": False}, {}),
    "BlurIG": (tw.BlurIG, {"n_steps": 4, "max_sigma": 3.0}, {}),
    "ExtremalPerturbation": (
        tw.ExtremalPerturbation,
        {"areas": (0.2,), "n_steps": 2, "step": 4, "sigma": 4.0, "max_blur": 4.0},
        {},
    ),
    "mean": (tw.IntegratedGradients, {"n_steps": 4}, {"baselines": "mean"}),
    "blur": (tw.IntegratedGradients, {"n_steps": 4}, {"baselines": tw.Blur(2.0)}),
    "ablation": (tw.FeatureAblation, {}, {"baselines": "mean"}),
}


@pytest.mark.parametrize("name, letters", in_turn(METHODS, LAYOUTS, 2))
def test_another_order_of_axes_gives_the_same_numbers_in_that_order(letters, name):
    shape, order, said = LAYOUTS[letters]
    net, x = network(len(shape) - 2), torch.rand(shape)
    back = [order.index(i) for i in range(len(order))]
    moved = Moved(net, back).eval()
    make, settings, call = METHODS[name]
    layer = {k: f"net.{v}" if k == "layer" else v for k, v in settings.items()}
    mask = {"feature_mask": torch.arange(x[0].numel() // 3).view(1, 1, *shape[2:])} if name == "ablation" else {}
    expected = make(net, **settings).attribute(x, 1, **call, **mask)
    call = dict(call) if said else {**call, "axes": letters}
    if mask:
        call["feature_mask"] = mask["feature_mask"].permute(order)
    found = make(moved, **layer).attribute(x.permute(order), 1, **call)
    on_grid = settings.get("upsample") is False
    torch.testing.assert_close(found, expected if on_grid else expected.permute(order), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("letters", LAYOUTS)
def test_pictures_are_drawn_in_the_usual_order(letters):
    shape, order, said = LAYOUTS[letters]
    net, x = network(len(shape) - 2), torch.rand(shape)
    moved = Moved(net, [order.index(i) for i in range(len(order))]).eval()
    told = {} if said else {"axes": letters}
    for method, settings in (
        (tw.IntegratedGradients, {"n_steps": 4}),
        (tw.RISE, {"n_samples": 8, "grid": 2, "generator": 0}),
    ):
        usual = method(net, **settings).explain(x, 1)
        e = method(moved, **settings).explain(x.permute(order), 1, **told)
        drawn = in_usual_layout(e)
        torch.testing.assert_close(drawn.attributions, usual.attributions, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(drawn.inputs, usual.inputs)
        assert e.details["axes"] == letters
        assert "axes" not in usual.details
        assert len(e.plot(row=0).axes) == len(usual.plot(row=0).axes)
        assert e.shown.shape == e.attributions.shape


def test_the_axes_of_an_explanation_are_saved(tmp_path):
    net = Moved(network(1), (0, 2, 1)).eval()
    e = tw.Saliency(net).explain(torch.rand(1, 16, 3), 1, axes="NTF")
    e.save(tmp_path / "e.safetensors")
    again = tw.Explanation.load(tmp_path / "e.safetensors")
    assert again.details["axes"] == "NTF"
    assert in_usual_layout(again).attributions.shape == (1, 3, 16)


class Spot(nn.Module):
    """The score is the brightness of one place of one frame of a video (N, T, C, H, W)."""

    def forward(self, video):
        return video[:, 5, :, 2:4, 7:9].sum((1, 2, 3))[:, None]


def test_a_planted_signal_in_a_video_is_found_in_its_frame():
    x = torch.rand(1, 8, 3, 12, 12, generator=torch.Generator().manual_seed(0)) + 0.5
    rise = tw.RISE(Spot(), n_samples=400, grid=4, generator=0).attribute(x)
    ig = tw.IntegratedGradients(Spot(), n_steps=4).attribute(x, baselines=tw.Blur(2.0))
    for found in (rise, ig.abs().sum(2, keepdim=True)):
        assert found.shape == (1, 8, 1, 12, 12)
        frame = found[0, :, 0].flatten(1).amax(1).argmax()
        row, column = divmod(int(found[0, frame, 0].argmax()), 12)
        assert abs(int(frame) - 5) <= 1
        assert abs(row - 2.5) <= 2
        assert abs(column - 7.5) <= 2


class FewFrames(nn.Module):
    """A network of videos (N, T, C, H, W) that moves the frames behind the channels by itself."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.c, self.o = nn.Conv3d(3, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, video):
        return self.o(self.c(video.transpose(1, 2)).relu().mean((2, 3, 4)))


@pytest.mark.parametrize("frames", [1, 3, 4, 8])
def test_the_time_axis_keeps_its_frames(frames):
    x = torch.rand(2, frames, 3, 8, 8)
    told = {"axes": "NTCHW"} if frames == 3 else {}  # then the shape does not say it
    assert tw.GradCAM(FewFrames().eval()).attribute(x, 1, **told).shape == (2, frames, 1, 8, 8)


@pytest.mark.parametrize("frames", [4, 16])
def test_a_video_transformer_has_its_grid_of_tubelets(frames):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.VideoMAEConfig(
        image_size=32, patch_size=8, num_frames=frames, tubelet_size=2, hidden_size=16, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=32, num_labels=3, initializer_range=0.3,
    )  # fmt: skip
    net, x = transformers.VideoMAEForVideoClassification(config).eval(), torch.rand(1, frames, 3, 32, 32)
    e = tw.GradCAM(net, relu=False, upsample=False).explain({"pixel_values": x}, 1)
    name = e.details["layer"]
    a = tw.LayerActivation(net, layer=name).attribute({"pixel_values": x})
    g = tw.Saliency(net, layer=name, signed=True).attribute({"pixel_values": x}, 1)
    grid = (a * g.mean(1, keepdim=True)).sum(2).view(1, 1, frames // 2, 4, 4)
    torch.testing.assert_close(e.attributions, grid)
    large = tw.GradCAM(net, relu=False).attribute({"pixel_values": x}, 1)
    expected = F.interpolate(grid, size=(frames, 32, 32), mode="trilinear").movedim(1, 2)
    torch.testing.assert_close(large, expected)
    for method in (tw.AttentionRelevance, tw.AttentionRollout, tw.RawAttention):
        found = method(net).attribute({"pixel_values": x}, 1)
        assert found.shape == (1, frames, 1, 32, 32)
        assert method(net, upsample=False).attribute({"pixel_values": x}, 1).shape == (1, 1, frames // 2, 4, 4)
    again = tw.GradCAM(net, relu=False).attribute({"pixel_values": x}, 1, axes="NTCHW")
    torch.testing.assert_close(again, large)


def test_spectrograms_are_pictures_where_they_are_told_so():
    net = network(2, channels=1)

    class Mel(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):  # (N, time, frequencies)
            return self.net(x[:, None])

    x = torch.rand(2, 20, 12)
    expected = tw.GradCAM(net, layer="2").attribute(x[:, None], 1)
    found = tw.GradCAM(Mel().eval(), layer="net.2").attribute(x, 1, axes="NTH")
    torch.testing.assert_close(found, expected)
    blurred = tw.BlurIG(net, n_steps=3, max_sigma=2.0).attribute(x[:, None], 1)
    torch.testing.assert_close(
        tw.BlurIG(Mel().eval(), n_steps=3, max_sigma=2.0).attribute(x, 1, axes="NTH"), blurred[:, 0]
    )
    masked = tw.RISE(net, n_samples=10, grid=3, generator=0).attribute(x[:, None], 1)
    torch.testing.assert_close(
        tw.RISE(Mel().eval(), n_samples=10, grid=3, generator=0).attribute(x, 1, axes="NTH"), masked
    )
    channels = tw.GradCAM(network(2), layer="2").attribute(torch.rand(2, 3, 12, 20), 1, axes="NCFT")
    assert channels.shape == (2, 1, 12, 20)


def test_axes_of_several_inputs_and_targets():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = network(1), network(2)

        def forward(self, series, image):
            return self.a(series.mT) + self.b(image)

    net, series, image = Two().eval(), torch.rand(2, 16, 3), torch.rand(2, 3, 8, 8)
    for inputs, axes in (
        ((series, image), ("NTF", None)),
        ((series, image), "NTF"),
        ({"series": series, "image": image}, {"series": "NTF"}),
    ):
        found = tw.GradCAM(net, layer="a.2").attribute(inputs, 1, axes=axes)
        assert found.shape == (2, 16, 1)
        each = tw.GradCAM(net, layer="a.2").attribute_each(inputs, [0, 1], axes=axes)
        torch.testing.assert_close(each[1], found)
        assert tw.GradCAM(net, layer="b.2").explain_each(inputs, [0, 1], axes=axes)[0].attributions.shape == (
            2,
            1,
            8,
            8,
        )
    smooth = tw.SmoothGrad(net.a, of=tw.RISE(net.a, n_samples=4, grid=2, generator=0), n_samples=2, generator=0)
    wrapped = tw.SmoothGrad(
        Moved(net.a, (0, 2, 1)), of=None, n_samples=2, generator=0
    )  # of itself: what it explains is as it is given
    assert smooth.attribute(series.mT, 1).shape == (2, 1, 16)
    assert wrapped.attribute(series, 1, axes="NTF").shape == series.shape


def test_methods_of_methods_know_the_axes():
    net, x = network(1), torch.rand(2, 3, 16)
    moved = Moved(net, (0, 2, 1)).eval()
    of = {"n_samples": 4, "grid": 2, "generator": 0}
    expected = tw.Processed(net, of=tw.RISE(net, **of), after=torch.relu).attribute(x, 1)
    found = tw.Processed(moved, of=tw.RISE(moved, **of), after=torch.relu).attribute(x.mT, 1, axes="NTF")
    torch.testing.assert_close(found, expected.mT, rtol=1e-4, atol=1e-5)


def test_a_sample_may_say_its_axes():
    net, x = network(1), torch.rand(2, 3, 16)
    moved = Moved(net, (0, 2, 1)).eval()
    mask = torch.arange(16).expand(1, 3, 16)
    usual = tw.Sample(x, mask, baselines="mean")
    sample = tw.Sample(x.mT.contiguous(), mask.mT, baselines="mean", axes="NTF")
    torch.testing.assert_close(sample.absent_tensors()[0], usual.absent_tensors()[0].mT)
    for method in (tw.FeatureAblation, tw.IntegratedGradients):
        torch.testing.assert_close(
            method(moved).attribute(sample, 1), method(net).attribute(usual, 1), rtol=1e-4, atol=1e-5
        )


def test_patches_of_other_layouts():
    assert tw.patches(torch.rand(2, 16, 3), 4, axes="NTF").shape == (1, 16, 1)
    assert tw.patches(torch.rand(2, 12, 16, 3), 4).shape == (1, 12, 16, 1)
    assert torch.equal(
        tw.patches(torch.rand(1, 8, 3, 6, 6), 2)[:, :, 0], tw.patches(torch.rand(1, 3, 8, 6, 6), 2)[:, 0]
    )


@pytest.mark.parametrize(
    ("shape", "letters"),
    [
        ((2, 7), "NL"), ((2, 3, 50), "NCL"), ((2, 64, 30), "NCL"), ((2, 3, 8, 8), "NCHW"), ((2, 1, 28, 28), "NCHW"),
        ((2, 64, 7, 7), "NCHW"), ((2, 12, 16, 3), "NHWC"), ((2, 28, 28, 1), "NHWC"), ((2, 6, 30, 1), "NCHW"),
        ((2, 4, 4, 3), "NCHW"), ((2, 16, 3, 64, 64), "NTCHW"), ((2, 3, 16, 64, 64), "NCTHW"), ((2, 1, 9, 9, 9), "NCTHW"),
        ((2, 8, 1, 20, 20), "NTCHW"), ((2, 8, 20, 20, 3), "NTHWC"), ((2, 16, 5, 9, 9), "NCTHW"),
    ],
)  # fmt: skip
def test_what_a_shape_says(shape, letters):
    assert axes_by_shape(shape).letters == letters


def test_the_models_convolutions_speak_for_their_channels():
    assert axes_by_shape((2, 12, 16, 3), nn.Conv2d(12, 4, 3)).letters == "NCHW"
    assert axes_by_shape((2, 12, 16, 3), nn.Conv2d(3, 4, 3)).letters == "NHWC"
    assert axes_by_shape((2, 1, 3, 8, 8), nn.Conv3d(3, 4, 1)).letters == "NTCHW"
    assert axes_by_shape((2, 16, 3, 8, 8), nn.Conv3d(16, 4, 3)).letters == "NCTHW"


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ("NCXW", r"axes='NCXW': there is no axis 'X'; the letters are N \(rows\), C \(channels\)"),
        ("NCTHW", r"axes='NCTHW': 5 letters for inputs of shape \(2, 3, 8, 8\): one for each axis"),
        ("NCH", "3 letters for inputs of shape"),
        ("CNHW", "expected the rows N in the first place, and each letter once"),
        ("NCHH", "each letter once"),
        (("NCHW", "NCHW"), "axes: 2 given for 1 input"),
    ],
)
def test_axes_that_do_not_fit_are_refused(axes, message):
    net, x = network(2), torch.rand(2, 3, 8, 8)
    for method in (tw.GradCAM(net), tw.RISE(net, n_samples=2), tw.Saliency(net), tw.BlurIG(net)):
        with pytest.raises(ValueError, match=message):
            method.attribute(x, 1, axes=axes)
    with pytest.raises(ValueError, match="no inputs are called 'y'"):
        tw.Saliency(net).attribute({"input": x}, 1, axes={"y": "NCHW"})
    with pytest.raises(TypeError, match="axes=4: expected letters"):
        tw.Saliency(net).attribute(x, 1, axes=4)


def test_a_grid_has_a_number_for_each_axis():
    """Cells of one frame keep the frames apart; and a number for each axis means what it means in the other order."""
    net, x = network(3), torch.rand(1, 3, 4, 12, 10)
    moved = Moved(net, (0, 2, 1, 3, 4)).eval()
    options = {"n_samples": 20, "grid": (4, 3, 2), "generator": 0}
    for reduced in (True, False):
        usual = tw.RISE(net, variance_reduced=reduced, **options).attribute(x, 1)
        assert usual.shape == (1, 1, 4, 12, 10)
        torch.testing.assert_close(
            tw.RISE(moved, variance_reduced=reduced, **options).attribute(x.transpose(1, 2), 1), usual.transpose(1, 2)
        )
    same = [tw.RISE(net, **{**options, "grid": g}).attribute(x, 1) for g in (3, (3, 3, 3), [3, 3, 3])]
    torch.testing.assert_close(same[0], same[1], rtol=0, atol=0)
    torch.testing.assert_close(same[0], same[2], rtol=0, atol=0)
    series = tw.RISE(Moved(network(1), (0, 2, 1)).eval(), n_samples=20, grid=(5,), generator=0)
    assert series.attribute(torch.rand(2, 16, 3), 1, axes="NTF").shape == (2, 16, 1)
    frames = tw.patches(x, (4, 1, 2))[0, 0]
    assert frames.amax() == 7
    assert all(frames[t].unique().tolist() == [2 * t, 2 * t + 1] for t in range(4))


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ((2, 3), r"grid=\(2, 3\): 2 numbers for the 3 axes of places, \(4, 12, 10\)"),
        ((5, 3, 3), r"grid=\(5, 3, 3\): expected 1 to 4 cells along an axis of 4 places"),
        ((0, 3, 3), r"grid=\(0, 3, 3\): expected"),
        (13, "grid=13: expected 1 to 4 cells"),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(grid, message):
    x = torch.rand(1, 3, 4, 12, 10)
    for ask in (lambda: tw.RISE(network(3), n_samples=2, grid=grid).attribute(x, 1), lambda: tw.patches(x, grid)):
        with pytest.raises(ValueError, match=message):
            ask()
    with pytest.raises(ValueError, match="one for each axis of places"):
        tw.RISE(network(3), grid=())


class InAnotherOrder:
    """A network and pictures in the usual order, the same with another order of axes, and what that is to be told."""

    def __init__(self, letters):
        self.order = tuple("NCHW".index(letter) for letter in letters)
        self.net, self.x = network(2), torch.rand(2, 3, 12, 16, generator=torch.Generator().manual_seed(0))
        self.moved = Moved(self.net, [letters.index(letter) for letter in "NCHW"]).eval()
        self.y, self.axes = self.x.permute(self.order), None if letters == "NHWC" else letters

    def assert_alike(self, found, expected):
        torch.testing.assert_close(found, expected.permute(self.order), rtol=1e-4, atol=1e-5)


@pytest.fixture(params=["NHWC", "NHCW"])
def both(request):
    return InAnotherOrder(request.param)


@pytest.mark.parametrize("settings", [{}, {"max_blur": None, "reward": "hybrid"}, {"contrastive": True}], ids=str)
def test_a_search_for_masks_reads_the_axes(both, settings):
    search = {"areas": (0.2,), "n_steps": 3, "step": 4, "sigma": 6.0, **settings}
    usual = tw.ExtremalPerturbation(both.net, **search).explain(both.x, 1, baselines="mean")
    found = tw.ExtremalPerturbation(both.moved, **search).explain(both.y, 1, baselines="mean", axes=both.axes)
    both.assert_alike(found.attributions, usual.attributions)
    both.assert_alike(found.details["masks"][:, 0], usual.details["masks"][:, 0])


def test_superpixels_read_the_axes(both):
    few = {"n_samples": 40, "n_segments": 6, "generator": 0}
    found = tw.LIME(both.moved, **few).attribute(both.y, 1, axes=both.axes)
    both.assert_alike(found, tw.LIME(both.net, **few).attribute(both.x, 1))
    both.assert_alike(tw.superpixels(both.y, 6, axes=both.axes), tw.superpixels(both.x, 6))


def test_metrics_read_the_axes(both):
    maps = tw.Saliency(both.net).attribute(both.x, 1).sum(1, keepdim=True)
    for metric in (tw.metrics.road, tw.metrics.deletion):
        expected = metric(both.net, both.x, maps, 1).scores
        for given in (maps.permute(both.order), maps[:, 0]):  # also without channels
            found = metric(both.moved, both.y, given, 1, axes=both.axes).scores
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_a_comparison_reads_the_axes(both):
    names, mask = ["road", "deletion", "relevance_mass"], torch.rand(2, 12, 16) > 0.5
    expected = tw.compare(both.net, both.x, 1, [tw.Saliency(both.net)], names, mask=mask)
    again = [*names, "sensitivity_max"]
    found = tw.compare(both.moved, both.y, 1, [tw.Saliency(both.moved)], again, mask=mask, axes=both.axes)
    for name in names:
        torch.testing.assert_close(
            found.values[name]["Saliency"], expected.values[name]["Saliency"], rtol=1e-3, atol=1e-4
        )
    assert found.values["sensitivity_max"]["Saliency"].isfinite().all()


LOCALISATION = ["pointing_game", "relevance_mass", "energy_pointing_game", "relevance_rank", "auc", "iou"]


@pytest.mark.parametrize("name", LOCALISATION)
def test_localisation_goes_by_the_places_of_the_mask(name):
    """Flattened into a picture of one line, maps of series and videos have the same values; so has any order of axes."""
    metric, g = getattr(tw.metrics, name), torch.Generator().manual_seed(0)
    for shape, order in (((9,), (0, 2, 1)), ((4, 5), (0, 2, 3, 1)), ((6, 4, 5), (0, 2, 1, 3, 4))):
        maps, mask = torch.randn(2, 3, *shape, generator=g), torch.rand(2, *shape, generator=g) > 0.6
        expected = metric(maps.flatten(2)[:, :, None], mask.flatten(1)[:, None])
        for given in (maps, maps.permute(order)):
            torch.testing.assert_close(metric(given, mask), expected)
        torch.testing.assert_close(metric(maps.permute(order), mask[:, None].permute(order)), expected)
        torch.testing.assert_close(metric(maps.sum(1), mask), metric(maps.sum(1, keepdim=True), mask))
    square = torch.randn(2, 3, 3, 5, 5, generator=g)  # as many frames as channels: an explanation knows which are which
    net = Moved(network(3), (0, 2, 1, 3, 4)).eval()
    e = tw.Saliency(net).explain(square, 1, axes="NTCHW")
    mask = torch.rand(2, 3, 5, 5, generator=g) > 0.6
    torch.testing.assert_close(metric(e, mask), metric(e.attributions.transpose(1, 2), mask))


def test_the_tolerance_of_the_pointing_game_is_a_distance_along_all_axes():
    maps, mask = torch.zeros(1, 1, 5, 6, 7), torch.zeros(1, 5, 6, 7, dtype=torch.bool)
    maps[0, 0, 2, 3, 3], mask[0, 1, 2, 2] = 1, True
    assert tw.metrics.pointing_game(maps, mask, tolerance=1.5) == 0
    assert tw.metrics.pointing_game(maps, mask, tolerance=1.8) == 1
    assert tw.metrics.pointing_game(maps[:, :, 2, 3], torch.arange(7)[None] == 5, tolerance=2) == 1


@pytest.mark.parametrize("shape", [(1, 8, 3, 12, 12), (1, 3, 40)])
def test_what_is_made_for_pictures_takes_series_and_videos(shape):
    x = torch.rand(shape)
    net = Moved(network(3), (0, 2, 1, 3, 4)).eval() if len(shape) == 5 else network(1)
    maps = tw.RISE(net, n_samples=8, grid=2, generator=0).attribute(x, 1)
    assert tw.ExtremalPerturbation(net, areas=(0.2,), n_steps=2).attribute(x, 1).shape == maps.shape
    assert tw.metrics.road(net, x, maps, 1).scores.isfinite().all()
    assert tw.metrics.deletion(net, x, maps, 1, baselines="blur").scores.isfinite().all()
    assert tw.superpixels(x).shape == maps.shape
    assert tw.Occlusion(net, sliding_window_shapes=shape[1:]).attribute(x, 1).shape == shape
