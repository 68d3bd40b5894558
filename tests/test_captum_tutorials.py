"""The steps of Captum's tutorials with the import changed, on small networks: the table in docs/captum.md, line by line."""

import re
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import captum.attr as theirs
import numpy as np
import pytest
import torch
from torch import nn

import torchwhy.captum.attr as ours

PAGE = Path(__file__).parent.parent / "docs" / "captum.md"


def rows(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def made(module):
    torch.manual_seed(0)
    return module().eval()


class Photos(nn.Module):
    """(N, 3, 16, 16) → 4 classes; without a pooling by maxima, behind which the numbers differ, see the page."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()
        self.pool, self.head = nn.AdaptiveAvgPool2d(4), nn.Linear(64, 4)

    def forward(self, x):
        return self.head(self.pool(self.relu(self.conv(x))).flatten(1))


class Segmenter(nn.Module):
    """(N, 3, 8, 8) → {"out": (N, 3, 8, 8)}, as torchvision's."""

    def __init__(self):
        super().__init__()
        self.backbone, self.relu, self.classifier = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1)

    def forward(self, x):
        return {"out": self.classifier(self.relu(self.backbone(x)))}


class Attention(nn.Module):
    """Attention that returns its matrix as well."""

    def __init__(self, value):
        super().__init__()
        self.value, self.softmax = value, nn.Softmax(-1)

    def forward(self, h):
        matrix = self.softmax(h @ h.mT)
        return matrix @ self.value(h), matrix


class Reader(nn.Module):
    """Token ids and positions → where an answer begins and ends, through three embeddings and two layers."""

    def __init__(self):
        super().__init__()
        self.embeddings = nn.Module()
        for name, n in (("word", 20), ("kind", 2), ("position", 8)):
            setattr(self.embeddings, name, nn.Embedding(n, 6))
        self.layers, self.value = nn.ModuleList(nn.Linear(6, 6) for _ in range(2)), nn.Linear(6, 6)
        self.attention = Attention(self.value)
        self.head = nn.Linear(6, 2)

    def forward(self, ids, types, places):
        h = self.embeddings.word(ids) + self.embeddings.kind(types) + self.embeddings.position(places)
        for layer in self.layers:
            h = torch.tanh(layer(h))
        h = h + self.attention(h)[0]
        return SimpleNamespace(start_logits=self.head(h)[..., 0], end_logits=self.head(h)[..., 1])


class Review(nn.Module):
    """Token ids → a score, by convolutions."""

    def __init__(self):
        super().__init__()
        self.embedding, self.convs, self.head = nn.Embedding(20, 6), nn.Conv1d(6, 5, 3), nn.Linear(5, 1)

    def forward(self, ids):
        return torch.sigmoid(self.head(torch.relu(self.convs(self.embedding(ids).mT)).amax(2)))[:, 0]


class Clicks(nn.Module):
    """Numbers and two columns of ids → a probability, as of a recommender."""

    def __init__(self):
        super().__init__()
        self.bottom, self.tables = nn.Linear(4, 3), nn.ModuleList(nn.EmbeddingBag(6, 3, mode="sum") for _ in range(2))
        self.top_l = nn.Sequential(nn.Linear(9, 5), nn.ReLU(), nn.Linear(5, 1), nn.Sigmoid())

    def forward(self, dense, *embedded):
        return self.top_l(torch.cat([self.bottom(dense), *embedded], 1))[:, 0]


class Asked(nn.Module):
    """A picture and a question → 3 answers."""

    def __init__(self):
        super().__init__()
        self.cnn, self.text, self.head = nn.Conv2d(3, 4, 3), nn.Module(), nn.Linear(10, 3)
        self.text.embedding = nn.Embedding(20, 6)

    def forward(self, image, question):
        words = torch.tanh(self.text.embedding(question)).mean(1)
        return self.head(torch.cat([torch.tanh(self.cnn(image)).mean((2, 3)), words], 1))


def table_net():
    return nn.Sequential(nn.Linear(6, 5), nn.Sigmoid(), nn.Linear(5, 4), nn.Sigmoid(), nn.Linear(4, 2), nn.Softmax(1))


X, TABLE = rows(8, 6), made(table_net)
PHOTO, CNN = rows(2, 768, 1).view(2, 3, 16, 16), made(Photos)
SCENE, FCN = rows(1, 192, 2).view(1, 3, 8, 8), made(Segmenter)
IDS, READER, REVIEW = (
    torch.randint(2, 20, (1, 8), generator=torch.Generator().manual_seed(3)),
    made(Reader),
    made(Review),
)
WHERE = (torch.zeros(1, 8, dtype=torch.long), torch.arange(8)[None])
CLICKS, ASKED = made(Clicks), made(Asked)
PARTS = (rows(3, 4, 4), rows(3, 3, 5), rows(3, 3, 6))


MOST = FCN(SCENE)["out"].argmax(1, keepdim=True)


def per_class(x):
    """Captum's wrapper of a segmenter: the scores of the pixels that were taken for a class."""
    out = FCN(x)["out"]
    return (out * torch.zeros_like(out[:1]).scatter_(1, MOST, 1)).sum((2, 3))


def start_of(ids, types, places):
    return READER(ids, types, places).start_logits.max(1).values


def over_embeddings(h):
    return READER.head(h + READER.attention(h)[0])[..., 0].amax(1)


def embeddings():
    return [READER.embeddings.word, READER.embeddings.kind, READER.embeddings.position]


def delta(method, *args, **more):
    return method.attribute(*args, return_convergence_delta=True, **more)


def with_a_model_wrapper(c):
    net = import_module(f"{c.__name__}._utils.input_layer_wrapper").ModelInputWrapper(ASKED)
    layers = [net.input_maps["image"], net.module.text.embedding]
    return c.LayerIntegratedGradients(net, layers).attribute(
        (SCENE, IDS), baselines=(SCENE * 0, IDS * 0), target=1, n_steps=20
    )


# what is compared with Captum, by the first two columns of the page's table
RUN = {
    "Titanic: IntegratedGradients with its delta": lambda c: delta(c.IntegratedGradients(TABLE), X, target=1),
    "Titanic: LayerConductance at the first sigmoid": lambda c: c.LayerConductance(TABLE, TABLE[1]).attribute(X, target=1),
    "Titanic: NeuronConductance of two units": lambda c: [
        c.NeuronConductance(TABLE, TABLE[1]).attribute(X, neuron_selector=i, target=1, method="riemann_middle")
        for i in (0, 3)
    ],
    "CIFAR: Saliency": lambda c: c.Saliency(CNN).attribute(PHOTO, target=2),
    "CIFAR: IntegratedGradients with its delta": lambda c: delta(c.IntegratedGradients(CNN), PHOTO, PHOTO * 0, target=2),
    "CIFAR: DeepLift": lambda c: c.DeepLift(CNN).attribute(PHOTO, target=2, baselines=PHOTO * 0),
    "ResNet and VGG: IntegratedGradients of 200 steps": lambda c: c.IntegratedGradients(CNN).attribute(
        PHOTO, target=1, n_steps=200
    ),
    "ResNet and VGG: Occlusion": lambda c: [
        c.Occlusion(CNN).attribute(PHOTO, strides=s, target=1, sliding_window_shapes=w, baselines=0)
        for s, w in (((3, 4, 4), (3, 8, 8)), ((3, 8, 8), (3, 9, 9)))
    ],
    "ResNet and VGG: LRP": lambda c: c.LRP(made(Photos)).attribute(PHOTO, target=1),
    "Ablation: FeatureAblation with a mask of segments, two targets": lambda c: [
        c.FeatureAblation(CNN).attribute(
            PHOTO, target=t, feature_mask=(torch.arange(256).view(1, 1, 16, 16) // 40) * 3, perturbations_per_eval=2
        )
        for t in (0, 3)
    ],
    "Segmentation: LayerGradCam of a function": lambda c: c.LayerGradCam(per_class, FCN.backbone).attribute(SCENE, target=2),
    "Segmentation: LayerActivation": lambda c: c.LayerActivation(per_class, FCN.backbone).attribute(SCENE),
    "Segmentation: LayerAttribution.interpolate": lambda c: c.LayerAttribution.interpolate(
        c.LayerGradCam(per_class, FCN.backbone).attribute(SCENE, target=2), (16, 16)
    ),
    "Segmentation: FeatureAblation with the predicted classes as a mask": lambda c: c.FeatureAblation(per_class).attribute(
        SCENE, feature_mask=MOST, perturbations_per_eval=2, target=1
    ),
    "SQuAD 1: LayerIntegratedGradients at the embeddings, of a function": lambda c: delta(
        c.LayerIntegratedGradients(start_of, READER.embeddings.word), IDS, baselines=IDS * 0, additional_forward_args=WHERE
    ),
    "SQuAD 1: three embeddings at once": lambda c: c.LayerIntegratedGradients(start_of, embeddings()).attribute(
        (IDS, *WHERE), baselines=(IDS * 0, WHERE[0] * 0, WHERE[1] * 0)
    ),
    "SQuAD 1: LayerConductance at each layer": lambda c: [
        c.LayerConductance(lambda h, layer=layer: READER.head(torch.tanh(layer(h)))[..., 0].amax(1), layer).attribute(
            rows(1, 48, 7).view(1, 8, 6), baselines=torch.zeros(1, 8, 6)
        )
        for layer in READER.layers
    ],
    "SQuAD 2: LayerActivation of the values": lambda c: c.LayerActivation(start_of, READER.value).attribute(
        IDS, additional_forward_args=WHERE
    ),
    "SQuAD 2: LayerConductance at the attention matrices": lambda c: c.LayerConductance(
        over_embeddings, READER.attention
    ).attribute(rows(1, 48, 7).view(1, 8, 6), baselines=torch.zeros(1, 8, 6)),
    "Robustness: FeatureAblation in patches": lambda c: c.FeatureAblation(CNN).attribute(
        PHOTO, target=1, feature_mask=(torch.arange(16) // 8)[:, None] * 2 + torch.arange(16) // 8
    ),
    "House prices: IntegratedGradients, DeepLift and FeatureAblation": lambda c: [
        c.IntegratedGradients(TABLE[:5]).attribute(X, target=0),
        c.DeepLift(TABLE[:5]).attribute(X, target=0),
        c.FeatureAblation(TABLE[:5]).attribute(X, target=0),
    ],
    "House prices: LayerConductance at a layer's input": lambda c: c.LayerConductance(TABLE, TABLE[2]).attribute(
        X, target=0, n_steps=100, attribute_to_layer_input=True
    ),
    "IMDB: LayerIntegratedGradients with TokenReferenceBase": lambda c: delta(
        c.LayerIntegratedGradients(REVIEW, REVIEW.embedding),
        IDS, c.TokenReferenceBase(reference_token_idx=1).generate_reference(8, device="cpu")[None], n_steps=500,
    ),
    "DLRM: IntegratedGradients of a function of several inputs": lambda c: delta(
        c.IntegratedGradients(lambda *parts: CLICKS(*parts)), PARTS, n_steps=40
    ),
    "DLRM: LayerConductance of a function": lambda c: [
        c.LayerConductance(lambda *parts: CLICKS(*parts), layer).attribute(PARTS, n_steps=40)
        for layer in (CLICKS.top_l, CLICKS.top_l[2])
    ],
    "VQA: IntegratedGradients over the image and the question": with_a_model_wrapper,
}  # fmt: skip
# what is drawn at random, or another number for a reason that the page gives: the forms are compared
FORMS = {
    "CIFAR: NoiseTunnel of IntegratedGradients": lambda c: c.NoiseTunnel(c.IntegratedGradients(CNN)).attribute(
        PHOTO, target=2, nt_type="smoothgrad_sq", nt_samples=5, stdevs=0.2
    ),
    "ResNet and VGG: GradientShap": lambda c: c.GradientShap(CNN).attribute(
        PHOTO, n_samples=20, stdevs=0.0001, baselines=torch.cat([PHOTO * 0, PHOTO * 1]), target=1
    ),
    "House prices: NoiseTunnel and GradientShap": lambda c: [
        c.NoiseTunnel(c.IntegratedGradients(TABLE)).attribute(X, target=0),
        c.GradientShap(TABLE).attribute(X, X, target=0),
    ],
}


def with_rules(c):
    rules, net = import_module(f"{c.__name__}._utils.lrp_rules"), made(Photos)
    net.conv.rule, net.head.rule = rules.GammaRule(), rules.EpsilonRule()
    return c.LRP(net).attribute(PHOTO, target=1)


FORMS["ResNet and VGG: LRP with rules of layers"] = with_rules


def draw_image(c):
    image = PHOTO[0].permute(1, 2, 0).sigmoid().numpy()
    found = c.visualization.visualize_image_attr(
        c.Saliency(CNN).attribute(PHOTO, target=2)[0].permute(1, 2, 0).numpy(), image, method="blended_heat_map",
        sign="absolute_value", show_colorbar=True, title="Saliency", use_pyplot=False,
    )  # fmt: skip
    return found[0].axes


def draw_images(c):
    image = PHOTO[0].permute(1, 2, 0).sigmoid().numpy()
    return c.visualization.visualize_image_attr_multiple(
        image, image, ["original_image", "heat_map"], ["all", "positive"], show_colorbar=True, use_pyplot=False
    )[0].axes


def draw_text(c):
    record = c.visualization.VisualizationDataRecord(np.ones(2), 0.9, "pos", "pos", "pos", 1.0, ["a", "film"], 0.1)
    return c.visualization.visualize_text([record]).data


DRAW = {
    "CIFAR: visualize_image_attr": draw_image,
    "ResNet and VGG: visualize_image_attr_multiple": draw_images,
    "SQuAD 1: visualize_text": draw_text,
}
# run in other files of tests
ELSEWHERE = {
    "Llama: LLMAttribution of tokens": ("test_captum_forms.py", "def test_language_models"),
    "Llama: LLMAttribution of a template": ("test_captum_forms.py", "def test_templates"),
    "Llama: LLMGradientAttribution": ("test_captum_forms.py", "LLMGradientAttribution"),
    "Llama: an answer that is generated": ("test_captum_forms.py", "def test_generated_answers"),
    "Llama: plot_token_attr and plot_seq_attr": ("test_captum_forms.py", "plot_token_attr"),
    "TCAV: interpret": ("test_captum_concept.py", "interpret"),
    "TCAV of texts: interpret": ("test_captum_concept.py", "interpret"),
    "TCAV: Concept over a loader": ("test_captum_concept.py", "DataLoader"),
    "TracInCP: TracInCP and self_influence": ("test_captum_influence.py", "self_influence"),
    "TracInCP: TracInCPFast": ("test_captum_influence.py", "def test_the_fast_one_has_its_bias"),
    "Distributed: DistributedDataParallel in two processes": ("test_spread_models.py", "DistributedDataParallel"),
    "VQA: pictures of images and texts": ("test_captum_forms.py", "visualize_text"),
}


def lime_of(**more):
    return ours.Lime(CNN, **more).attribute(PHOTO, target=1)


def prompts():
    return ours.ProductBaselines([["a"], ["b"]])


def attacks(name):
    from torchwhy.captum import robust

    return getattr(robust, name)(CNN)


# what raises, with words that say what would do
REFUSED = {
    "Robustness: FGSM and PGD": lambda: (attacks("FGSM"), attacks("PGD")),
    "Robustness: AttackComparator and MinParamPerturbation": lambda: attacks("AttackComparator"),
    "LIME: Lime with a similarity of its own": lambda: lime_of(similarity_func=len),
    "LIME: every one of the 2^d samples": lambda: lime_of(perturb_func=len),
    "LIME: SkLearnLasso": lambda: lime_of(interpretable_model=object()),
    "LIME: LimeBase of a text": lambda: ours.LimeBase(CNN, None, None, None, True, None, None),
    "Llama: ProductBaselines": prompts,
}
# neither names of torchwhy.captum nor of Captum's packages
NOT_OURS = {"CIFAR and VQA: Insights", "Titanic: bar charts and histograms"}


def numbers(value):
    return [t for v in value for t in numbers(v)] if isinstance(value, (list, tuple)) else [value]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("step", RUN)
def test_a_step_has_captums_numbers(step):
    expected, found = numbers(RUN[step](theirs)), numbers(RUN[step](ours))
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6 + 1e-4 * b.abs().max().item(), check_dtype=False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("step", FORMS)
def test_a_step_has_captums_form(step):
    expected, found = numbers(FORMS[step](theirs)), numbers(FORMS[step](ours))
    assert [t.shape for t in found] == [t.shape for t in expected]
    if "rules" in step:  # Captum's γ leaves the bias and the sign of the output out
        return
    both = torch.corrcoef(torch.stack([torch.cat([t.flatten() for t in v]).detach() for v in (found, expected)]))
    assert both[0, 1] > 0.7


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("step", DRAW)
def test_a_step_draws(step):
    assert len(DRAW[step](ours)) >= 1


@pytest.mark.parametrize("step", ELSEWHERE)
def test_a_step_is_run_by_another_file(step):
    file, words = ELSEWHERE[step]
    assert words in (PAGE.parent.parent / "tests" / file).read_text()


@pytest.mark.parametrize("step", REFUSED)
def test_a_step_that_is_not_here_says_what_would_do(step):
    with pytest.raises(NotImplementedError) as refused:
        REFUSED[step]()
    assert len(str(refused.value)) > 60


def test_the_page_lists_every_step():
    section = PAGE.read_text().split("## The tutorials, step by step")[1].split("\n## ")[0]
    lines = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", section, re.M)[1:]
    said = {f"{a}: {b}".replace("`", ""): c for a, b, c in lines if set(a) != {"-"}}
    verdict = {"equal": {*RUN}, "runs": {*FORMS, *DRAW, *ELSEWHERE}, "not here": {*REFUSED, *NOT_OURS}}
    for word, steps in verdict.items():
        assert {s for s, c in said.items() if c.startswith(word)} == steps, word
    assert set(said) == set().union(*verdict.values())
