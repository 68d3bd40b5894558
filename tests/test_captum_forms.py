"""torchwhy.captum beyond Captum's table: functions as models, deltas, masks, outputs without a target, texts, pictures."""

import captum.attr as theirs
import numpy as np
import pytest
import torch
from torch import nn

import torchwhy.captum.attr as ours
from torchwhy.captum.attr import visualization

FACTS = {"rtol": 1e-6, "atol": 1e-9}


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 6), nn.Tanh(), nn.Linear(6, 4)
    ).double()


NET = network()
X, B = torch.randn(2, 2, 1, 6, 6, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def same(call, **within):
    """Call both, and compare."""
    expected, found = call(theirs), call(ours)
    torch.testing.assert_close(found, expected, check_dtype=False, **(within or FACTS))
    return found


def test_positional_arguments_in_captums_order():
    same(lambda c: c.IntegratedGradients(NET).attribute(X, B, 1, None, 20))
    same(lambda c: c.LayerIntegratedGradients(NET, NET[3]).attribute(X, B, [1, 2], None, 20, "riemann_middle"))
    same(lambda c: c.NeuronGradient(NET, NET[3]).attribute(X, 2))
    same(lambda c: c.Saliency(NET).attribute(X, 1, False))
    same(lambda c: c.Occlusion(NET).attribute(X, (1, 2, 2), 2, 0.5, 1))


@pytest.mark.parametrize("name", ["IntegratedGradients", "DeepLift"])
def test_deltas_have_their_sign(name):
    values, delta = same(
        lambda c: getattr(c, name)(NET).attribute(X, B, target=1, return_convergence_delta=True),
        rtol=1e-6, atol=1e-7,
    )  # fmt: skip
    change = NET(X)[:, 1] - NET(B)[:, 1]
    torch.testing.assert_close(delta, values.flatten(1).sum(1) - change, rtol=1e-6, atol=1e-9)


def test_a_delta_that_is_not_small():
    _, delta = same(
        lambda c: c.IntegratedGradients(NET).attribute(X, B, 1, None, 2, "riemann_left", return_convergence_delta=True),
        rtol=1e-5, atol=1e-6,
    )  # fmt: skip
    assert delta.abs().min() > 1e-4
    same(lambda c: c.LayerConductance(NET, NET[3]).attribute(X, B, 1, return_convergence_delta=True))
    dense = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    z = torch.randn(4, 6, dtype=torch.double)
    same(lambda c: c.LRP(dense).attribute(z, 1, return_convergence_delta=True), rtol=1e-5, atol=1e-6)
    same(lambda c: c.DeepLift(NET).compute_convergence_delta(X, B, X, 1))


def test_deltas_of_several_baselines_are_means():
    """Captum gives one for each pair of a row and a baseline; here there is one for each row, their mean."""
    rows = torch.cat([B, B * 0.5])
    expected = theirs.DeepLiftShap(NET).attribute(X, rows, 1, return_convergence_delta=True)
    found = ours.DeepLiftShap(NET).attribute(X, rows, 1, return_convergence_delta=True)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1].view(2, -1).mean(1), rtol=1e-6, atol=1e-9)
    assert found[1].view(2, -1).mean(1).shape == (2,)  # what Captum's readme does with it


def test_functions_as_models():
    def forward(x, scale):
        return NET(x).softmax(1) * scale

    for name in ("LayerIntegratedGradients", "LayerConductance", "LayerGradientXActivation"):
        same(lambda c, name=name: getattr(c, name)(forward, NET[3]).attribute(X, target=1, additional_forward_args=2.0))
    same(lambda c: c.NeuronGradient(forward, NET[3]).attribute(X, 2, 1.0))
    same(lambda c: c.IntegratedGradients(forward).attribute(X, target=1, additional_forward_args=(2.0,)))
    same(lambda c: c.LayerIntegratedGradients(NET.forward, NET[3]).attribute(X, target=1))


def test_layers_as_captum_has_them():
    for to_input in (False, True):
        same(lambda c, t=to_input: c.LayerGradCam(NET, NET[0]).attribute(X, 1, attribute_to_layer_input=t))
        same(lambda c, t=to_input: c.LayerActivation(NET, [NET[0], NET[3]]).attribute(X, None, t))
    same(lambda c: c.LayerGradCam(NET, NET[0]).attribute(X, 1, relu_attributions=True))
    same(lambda c: c.LayerGradientXActivation(NET, NET[3], multiply_by_inputs=False).attribute(X, 1))
    same(lambda c: c.LayerFeatureAblation(NET, NET[3]).attribute(X, torch.ones(1, 6).double(), 1))
    mask = torch.tensor([[0, 0, 4, 4, 9, 9]])
    same(lambda c: c.LayerFeatureAblation(NET, NET[3]).attribute(X, None, 1, layer_mask=mask))
    for mode in ("nearest", "bilinear"):
        same(lambda c, m=mode: c.GuidedGradCam(nn.Sequential(*NET[:4]), NET[0]).attribute(X, 1, interpolate_mode=m))
    small = ours.LayerGradCam(NET, NET[0]).attribute(X, 1)
    assert ours.LayerAttribution.interpolate(small, (6, 6)).shape == (2, 1, 6, 6)


def test_masks_with_gaps_and_of_their_own():
    gaps = (torch.arange(36).view(1, 1, 6, 6) // 7) * 3
    own = torch.stack([gaps[0], gaps[0].flip(1) + 5])
    for mask in (gaps, own):
        same(lambda c, m=mask: c.FeatureAblation(NET).attribute(X, target=1, feature_mask=m))
    for mask in (gaps[0, 0], gaps[0], own[1, 0]):  # of fewer dimensions: one for all rows
        same(lambda c, m=mask: c.FeatureAblation(NET).attribute(X, target=1, feature_mask=m))
    dense, z = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double(), X.flatten(1)[:, :6]
    both = (torch.tensor([0, 0, 4, 4, 9, 9]), torch.tensor([9, 4]))
    same(lambda c: c.FeatureAblation(dense).attribute(z, target=1, feature_mask=both[0]))
    same(
        lambda c: c.FeatureAblation(lambda a, b: dense(a) * b[:, :1]).attribute(
            (z, z[:, :2]), feature_mask=both, target=0
        )
    )
    same(
        lambda c: c.LayerFeatureAblation(dense, dense[0]).attribute(
            z, None, 1, layer_mask=torch.tensor([0, 0, 4, 4, 9])
        )
    )
    three = torch.arange(36).view(1, 1, 6, 6) // 12  # Captum permutes the numbers in gaps too
    same(lambda c: c.ShapleyValues(NET).attribute(X, target=1, feature_mask=three), rtol=1e-5, atol=1e-7)
    one = ours.KernelShap(NET).attribute(X[:1], target=1, feature_mask=three, return_input_shape=False, n_samples=100)
    exact = ours.ShapleyValues(NET).attribute(X[:1], target=1, feature_mask=three)
    assert one.shape == (1, 3)
    torch.testing.assert_close(one[0, 0], exact[0, 0, 0, 0])


def test_outputs_without_a_target():
    z = torch.randn(2, 4, dtype=torch.double)
    dense = nn.Sequential(nn.Linear(4, 3), nn.Tanh()).double()
    assert same(lambda c: c.FeatureAblation(dense).attribute(z)).shape == (6, 4)  # each output of each row
    assert same(lambda c: c.FeatureAblation(lambda v: dense(v)[:, 1].sum()).attribute(z)).shape == (
        1,
        4,
    )  # of the batch
    same(lambda c: c.FeatureAblation(lambda v: dense(v)[:, 1].sum().item()).attribute(z), rtol=1e-5, atol=1e-6)
    same(lambda c: c.ShapleyValues(lambda v: dense(v).sum()).attribute(z), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_noise(kind):
    given = {"nt_type": kind, "nt_samples": 150, "stdevs": 0.05, "target": 1}
    torch.manual_seed(0)
    found = ours.NoiseTunnel(ours.Saliency(NET)).attribute(X, **given)
    torch.manual_seed(0)
    assert torch.equal(found, ours.NoiseTunnel(ours.Saliency(NET)).attribute(X, **given))
    expected = theirs.NoiseTunnel(theirs.Saliency(NET)).attribute(X, **given)
    near = torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1]
    assert near > 0.9
    assert ((found - expected).norm() / expected.norm()) < 0.4


def test_rules_are_read_from_modules():
    from torchwhy.captum.attr._utils.lrp_rules import EpsilonRule, GammaRule

    net = network()[:4]
    plain = ours.LRP(net).attribute(X, 1)
    net[0].rule = GammaRule(0.5)
    changed = ours.LRP(net).attribute(X, 1)
    assert not torch.allclose(plain, changed)
    net[0].rule = EpsilonRule()
    torch.testing.assert_close(ours.LRP(net).attribute(X, 1), plain)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: ours.LimeBase(NET, None, None, None, True, None, None), "captum.attr.LimeBase has no counterpart"),
        (lambda: ours.DeepLift(NET).attribute(X, target=1, custom_attribution_func=len), "custom_attribution_func"),
        (lambda: ours.LayerGradCam(NET, NET[0]).attribute(X, 1, attr_dim_summation=False), "attr_dim_summation"),
        (lambda: ours.GradientShap(NET, multiply_by_inputs=False).attribute(X, B, target=1), "multiply_by_inputs"),
        (lambda: ours.Lime(NET, similarity_func=len).attribute(X, target=1), "similarity_func"),
        (lambda: ours.NoiseTunnel(ours.Saliency(NET)).attribute(X, target=1, draw_baseline_from_distrib=True), "draw_"),
        (lambda: ours.Summarizer([]), "has no counterpart"),
    ],
)
def test_what_there_is_not_is_said(call, said):
    with pytest.raises(NotImplementedError, match=said):
        call()


def test_wrong_arguments_are_named():
    with pytest.raises(TypeError, match=r"IntegratedGradients.attribute: .*n_step.*it takes \(inputs, baselines=None"):
        ours.IntegratedGradients(NET).attribute(X, n_step=3)


@pytest.fixture(scope="module")
def language():
    pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = [
        "<unk>",
        "<s>",
        "<pad>",
        "</s>",
        "Dave",
        "lives",
        "in",
        "Palm",
        "Coast",
        "and",
        "a",
        "lawyer",
        "playing",
        "golf",
    ]
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, bos_token_id=1, pad_token_id=2, eos_token_id=3, initializer_range=0.3,
        )
    ).eval()  # fmt: skip
    special = {"unk_token": "<unk>", "bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>"}
    return model, PreTrainedTokenizerFast(tokenizer_object=made, **special)


def same_results(call):
    expected, found = call(theirs), call(ours)
    torch.testing.assert_close(found.seq_attr, expected.seq_attr, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.token_attr, expected.token_attr, rtol=1e-4, atol=1e-4)
    assert (found.input_tokens, found.output_tokens) == (expected.input_tokens, expected.output_tokens)
    return found


@pytest.mark.parametrize("skip", [None, [1], ["<s>", "in"]], ids=str)
def test_language_models(language, skip):
    model, tokenizer = language
    text, answer = "Dave lives in Palm Coast", "playing golf"

    def perturbed(c):  # Captum's cache of outputs gives other numbers with today's transformers
        method = c.LLMAttribution(c.FeatureAblation(model), tokenizer)
        return method.attribute(c.TextTokenInput(text, tokenizer, skip_tokens=skip), answer, use_cached_outputs=False)

    def by_gradients(c):
        method = c.LLMGradientAttribution(c.LayerIntegratedGradients(model, model.model.embed_tokens), tokenizer)
        return method.attribute(c.TextTokenInput(text, tokenizer, skip_tokens=skip), answer)

    found = same_results(perturbed)
    assert list(found.seq_attr_dict) == found.input_tokens
    figure, axes = found.plot_token_attr()
    assert axes in figure.axes
    assert found.plot_seq_attr()[1].patches
    same_results(by_gradients)


@pytest.mark.parametrize("template", ["{} lives in {}", "{who} lives in {where}"])
def test_templates(language, template):
    model, tokenizer = language
    values, baselines = ["Dave", "Palm Coast"], ["a lawyer", "golf"]
    if "who" in template:
        values, baselines = ({"who": v[0], "where": v[1]} for v in (values, baselines))

    def call(c):
        method = c.LLMAttribution(c.ShapleyValues(model), tokenizer)
        return method.attribute(c.TextTemplateInput(template, values, baselines), "golf and", use_cached_outputs=False)

    same_results(call)


def test_generated_answers(language):
    model, tokenizer = language

    def call(c):
        method = c.LLMAttribution(c.FeatureAblation(model), tokenizer)
        text = c.TextTokenInput("Dave lives in", tokenizer, skip_tokens=[1])
        return method.attribute(text, gen_args={"max_new_tokens": 3}, use_cached_outputs=False)

    same_results(call)


@pytest.mark.parametrize("sign", ["all", "positive", "negative", "absolute_value"])
@pytest.mark.parametrize("method", ["heat_map", "blended_heat_map", "original_image", "masked_image", "alpha_scaling"])
def test_pictures(method, sign):
    maps, image = np.random.default_rng(0).normal(size=(2, 8, 8, 3))
    figure, axes = visualization.visualize_image_attr(maps, image, method, sign, title="a title", use_pyplot=False)
    assert axes in figure.axes
    assert axes.get_title() == "a title"
    assert axes.images


def test_several_pictures_series_and_texts():
    maps, image = np.random.default_rng(0).normal(size=(2, 8, 8, 3))
    figure, axes = visualization.visualize_image_attr_multiple(
        maps, image, ["original_image", "heat_map"], ["all", "positive"], ["a", "b"], use_pyplot=False
    )
    assert [a.get_title() for a in axes] == ["a", "b"]
    assert figure.axes[:2] == axes
    with pytest.raises(ValueError, match="signs"):
        visualization.visualize_image_attr_multiple(maps, image, ["heat_map"], [], use_pyplot=False)
    assert len(visualization.visualize_timeseries_attr(maps[..., 0], image[..., 0])[1]) == 8
    record = visualization.VisualizationDataRecord(torch.ones(2), 0.9, "yes", "no", "yes", 1.5, ["a", "<b"], 0.1)
    html = visualization.visualize_text([record, record])._repr_html_()
    assert html.count("<tr>") == 3
    assert "&lt;b" in html
    assert "yes (0.90)" in html
    assert ours.TokenReferenceBase(7).generate_reference(3, "cpu").tolist() == [7, 7, 7]


HERE = {"sensitivity_max", "CAV", "Concept", "TCAV"}  # of the other packages
HERE |= {"NaiveInfluenceFunction", "SimilarityInfluence", "TracInCP", "TracInCPFast", "TracInCPFastRandProj"}


@pytest.mark.parametrize("package", ["metrics", "concept", "robust", "influence"])
def test_other_packages_have_captums_names(package):
    import importlib

    expected = importlib.import_module(f"captum.{package}")
    found = importlib.import_module(f"torchwhy.captum.{package}")
    assert set(found.__all__) == set(expected.__all__)
    for name in set(found.__all__) - HERE:
        with pytest.raises(NotImplementedError, match=f"captum.{package}.{name} has no counterpart in torchwhy: "):
            getattr(found, name)()


def test_the_largest_change_of_an_explanation():
    import torchwhy as tw
    from torchwhy.captum.metrics import sensitivity_max

    torch.manual_seed(3)
    found = sensitivity_max(ours.Saliency(NET).attribute, X, target=1, perturb_radius=0.05, n_perturb_samples=40)
    expected = tw.metrics.sensitivity_max(tw.Saliency(NET), X, 1, radius=0.05, n_samples=40)
    torch.testing.assert_close(found, expected, rtol=0.3, atol=0.0)
    with pytest.raises(NotImplementedError, match="sensitivity_max takes the attribute of a method"):
        sensitivity_max(lambda x: x, X)


def test_every_public_name_of_captum_is_here_or_says_what_would_do():
    """Of all packages that torchwhy.captum stands for, and of Captum's gates, which it does not."""
    import importlib

    import torchwhy.captum

    for package in ("attr", "metrics", "concept", "robust", "influence", "module"):
        names = importlib.import_module(f"captum.{package}").__all__
        found = importlib.import_module(f"torchwhy.captum.{package}")
        missing = [name for name in names if not hasattr(found, name)]
        assert not missing, (package, missing)
        for name in names:
            here = getattr(found, name)
            if isinstance(here, type) and issubclass(here, torchwhy.captum.missing.MissingFromCaptum):
                assert len(here.instead) > 20  # what would do
                with pytest.raises(NotImplementedError, match=f"captum.{package}.{name} has no counterpart"):
                    here(NET, 1, option=2)
                assert here.__doc__.startswith(f"``captum.{package}.{name}``")
    drawn = [n for n in vars(theirs.visualization) if n.startswith("visualize_") or n.endswith("DataRecord")]
    assert len(drawn) == 5
    assert not [name for name in drawn if not hasattr(visualization, name)]


def test_an_attack_says_the_step_that_would_do():
    from torchwhy.captum.robust import FGSM

    with pytest.raises(NotImplementedError, match=r"captum.robust.FGSM has no counterpart in torchwhy: .*epsilon"):
        FGSM(NET, lower_bound=0, upper_bound=1)
    # the step that it names is Captum's
    from captum.robust import FGSM as Theirs

    import torchwhy as tw

    def loss(out, target):  # whose gradient is that of the score, downwards
        return -out[torch.arange(len(out)), target]

    expected = Theirs(NET, loss).perturb(X.clone().requires_grad_(), 0.1, torch.tensor([1, 1]))
    found = X - 0.1 * tw.Saliency(NET, signed=True).attribute(X, 1).sign()
    torch.testing.assert_close(found, expected.detach())
    assert (NET(found)[:, 1] < NET(X)[:, 1]).all()
