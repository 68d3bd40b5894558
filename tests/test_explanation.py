"""The result with its context: facts, saving, the notebook view; and what methods are as objects."""

import time
from pathlib import Path

import pytest
import torch
from nets import inputs, make

import torchwhy as tw


def test_facts():
    net, x = make("conv"), inputs("conv")
    begun = time.perf_counter()
    e = tw.IntegratedGradients(net, n_steps=20).explain(x, [0, 1, 2])
    assert 0 < e.seconds < time.perf_counter() - begun
    assert e.method == "IntegratedGradients"
    assert e.settings == {"n_steps": 20}
    assert e.target == [0, 1, 2]
    assert e.evaluations == 3 * 20 + 3 + 3  # the path, and the score at both ends
    assert e.completeness_gap.shape == (3,)
    assert "evaluations=66" in repr(e)
    assert [row.evaluations for row in e] == [22] * 3  # of rows that are picked their share
    assert (e[1:].evaluations, e[[0, 0]].evaluations, tw.concat([e[0], e[1:]]).evaluations) == (44, 44, 66)
    assert e[0].seconds == pytest.approx(e.seconds / 3)
    assert tw.Saliency(net).explain(x, 1).completeness_gap is None
    assert tw.IntegratedGradients(net, multiply_by_inputs=False).explain(x, 1).completeness_gap is None


def test_the_standard_error_shrinks_with_the_samples():
    net, x = make("conv"), inputs("conv")
    few, many = (tw.SmoothGrad(net, n_samples=n, generator=0).explain(x, 1).standard_error for n in (50, 800))
    assert few.shape == x.shape
    assert 0.2 < (many.mean() / few.mean()) < 0.31


@pytest.mark.parametrize("kind", ["tensor", "tuple", "dict"])
def test_save_and_load(tmp_path, kind):
    net, (a, b) = make("two"), inputs("two")
    given = {"tensor": a, "tuple": (a, b), "dict": {"left": a, "right": b}}[kind]
    model = make("smooth") if kind == "tensor" else net
    e = tw.ExpectedGradients(model, generator=0, n_samples=4).explain(given, [0, 1, 2])
    e.save(tmp_path / "e.safetensors")
    back = tw.Explanation.load(tmp_path / "e.safetensors")
    assert back.method == e.method
    assert back.settings == e.settings
    assert back.target == [0, 1, 2]
    assert back.evaluations == e.evaluations
    for name in ("attributions", "inputs"):
        ours, theirs = getattr(e, name), getattr(back, name)
        assert type(ours) is type(theirs)
        pairs = (
            [(ours, theirs)]
            if kind == "tensor"
            else zip(ours, theirs)
            if kind == "tuple"
            else [(ours[k], theirs[k]) for k in ours]
        )
        assert all(torch.equal(p, q) for p, q in pairs)
    assert torch.equal(back.completeness_gap, e.completeness_gap)


def test_a_file_of_the_first_version_loads():
    """It is ExpectedGradients(n_samples=5, generator=0) of a linear network, two rows, saved by version 0.1.0."""
    e = tw.Explanation.load(Path(__file__).parent / "data" / "explanation_0_1_0.safetensors")
    weight = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.0, -1.0]], dtype=torch.double)  # of the targets 0 and 1
    baselines = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [-1.0, 0.5, 2.0]], dtype=torch.double)
    x = torch.tensor([[1.0, 2.0, -1.0], [0.5, -0.5, 4.0]], dtype=torch.double)
    assert torch.equal(e.inputs, x)
    found = torch.tensor([[1.2, -3.2, -1.0], [2.1, 0.0, -3.0]], dtype=torch.double)
    torch.testing.assert_close(e.attributions, found)
    change = (weight * x).sum(1) - (baselines @ weight.T).mean(0)
    torch.testing.assert_close(e.completeness_gap, (e.attributions.sum(1) - change).abs())
    error = torch.tensor([[14, 14, 5], [126, 0, 20]], dtype=torch.double).div(100).sqrt()
    torch.testing.assert_close(e.standard_error, error)
    assert (e.method, e.target, e.settings) == ("ExpectedGradients", [0, 1], {"n_samples": 5, "generator": 0})
    assert (e.evaluations, round(e.seconds, 2), e.details) == (18, 2.62, {})


def test_load_refuses_other_files(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, str(tmp_path / "x.safetensors"))
    with pytest.raises(ValueError, match="not an explanation"):
        tw.Explanation.load(tmp_path / "x.safetensors")


def test_views():
    net, x = make("conv"), inputs("conv")
    e = tw.IntegratedGradients(net, layer=None).explain(x, 1)
    assert e.plot() is not None
    assert e.overlay() is not None
    html = e._repr_html_()
    assert html.startswith("<img alt=")
    assert "completeness_gap" in html
    bars = tw.IntegratedGradients(make("smooth")).explain(inputs("smooth"), 1)
    assert "<img" in bars._repr_html_()


def test_methods_compare_and_print_by_their_settings():
    net = make("conv")
    assert tw.IntegratedGradients(net, n_steps=5) == tw.IntegratedGradients(net, n_steps=5)
    assert tw.IntegratedGradients(net, n_steps=5) != tw.IntegratedGradients(net)
    assert (
        repr(tw.IntegratedGradients(net, n_steps=5, layer="conv1"))
        == "IntegratedGradients(Conv, layer='conv1', n_steps=5)"
    )
    assert repr(tw.SmoothGrad(net, of=tw.Saliency(net))) == "SmoothGrad(Conv, of=Saliency(Conv))"
    with pytest.raises(TypeError):
        tw.IntegratedGradients(net, 5)


def test_every_method_states_its_facts():
    for name, method in tw.methods().items():
        assert method.__doc__, name
        assert method.paper or name == "LayerActivation", name


def test_pictures_show_the_difference_from_the_neutral_value(tmp_path):
    x = torch.ones(2, 1, 8, 16, dtype=torch.double)
    e = tw.RISE(lambda z: 100 + z[..., :4].mean((1, 2, 3)), generator=0).explain(x)
    assert (e.shown[..., 12:].abs() <= 4 * e.standard_error[..., 12:] + 1e-9).all()  # no influence
    assert (e.shown[..., :4] > 10 * e.standard_error[..., :4]).all()
    e.save(tmp_path / "e.safetensors")
    torch.testing.assert_close(tw.Explanation.load(tmp_path / "e.safetensors").shown, e.shown)
    assert tw.Saliency(lambda z: z.sum((1, 2, 3))).explain(x).shown.unique().tolist() == [1.0]


def test_a_parameter_is_saved_as_the_tensor_that_it_is(tmp_path):
    given = torch.nn.Parameter(inputs("smooth"))
    e = tw.Saliency(make("smooth")).explain(given, 1)
    assert e.inputs is given
    e.save(tmp_path / "e.safetensors")
    assert torch.equal(tw.Explanation.load(tmp_path / "e.safetensors").inputs, given)


def test_rows_that_look_for_the_layer_are_counted():
    assert tw.Saliency(make("conv")).explain(inputs("conv"), tw.Neuron("conv2", (0, 0, 0))).evaluations == 1 + 3


def test_a_file_of_another_kind(tmp_path):
    torch.save({}, tmp_path / "a")
    with pytest.raises(ValueError, match="not an explanation written by save"):
        tw.Explanation.load(tmp_path / "a")


def test_the_notebook_view_of_tokens_and_of_many_rows():
    tokens = tw.Explanation(attributions=torch.randn(1, 512, 8), inputs=torch.zeros(1, 512).long())
    assert "<img" in tokens._repr_html_()
    (ax,) = tokens.plot().get_axes()
    assert len(ax.patches) < 20  # bars of the largest
    many = tw.Explanation(attributions=torch.randn(300, 1, 4, 4), inputs=torch.rand(300, 3, 4, 4), method="Any")
    assert "16 of 300" in str([ax.get_title() + ax.get_xlabel() + ax.get_ylabel() for ax in many.plot().get_axes()])
    assert "<img" in many._repr_html_()


def test_rows_by_a_name_are_refused():
    e = tw.Saliency(torch.nn.Linear(2, 2)).explain(torch.rand(3, 2), 1)
    for index in ("age", [None], object()):
        with pytest.raises(TypeError, match=r"rows: .*expected an int, a slice, or a list"):
            e[index]


def test_a_report_of_a_list_says_what_it_takes(tmp_path):
    e = tw.Saliency(torch.nn.Linear(2, 2)).explain(torch.rand(3, 2), 1)
    with pytest.raises(
        TypeError, match="explanations: list; expected an explanation, or several of the same rows by their names"
    ):
        tw.report([e], tmp_path / "r.html")
