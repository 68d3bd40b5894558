"""The names of ``torchwhy``: what is listed, what type checkers see, and what is said of names that it does not have."""

import ast
import inspect
import re
import subprocess
import sys

import pytest
import torch

import torchwhy as tw
from torchwhy import public_names
from torchwhy.other_libraries import CLASSES, FORMS, hint_for
from torchwhy.spelling import refusal_of

ROOMS = [
    "result",
    "wrapper",
    "captum",
    "baselines",
    "lrp",
    "metrics",
    "models",
    "targets",
    "visualize",
    "cam",
    "gradient",
]
WITHOUT_COUNTERPART = {
    *("Summarizer", "SummarizerSingleTensor", "ClassSummarizer", "CommonStats", "StatValue"),
    *("StdDev", "MSE", "Var", "Min", "Max", "Sum", "Count"),
}


def message(name: str) -> str:
    with pytest.raises(AttributeError) as error:
        getattr(tw, name)
    return str(error.value)


def resolve(dotted: str) -> object:
    found: object = tw
    for part in dotted.split("."):
        found = getattr(found, part)
    return found


def test_dir_lists_names_and_rooms():
    assert set(tw.__all__) | set(ROOMS) <= set(dir(tw))
    assert dir(tw) == sorted(set(dir(tw)))
    for name in dir(tw):
        assert getattr(tw, name) is not None


def test_type_checkers_read_the_names_that_there_are():
    tree = ast.parse(inspect.getsource(tw))
    (block,) = [n for n in tree.body if isinstance(n, ast.If) and isinstance(n.test, ast.Name)]
    read = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert all(a.asname == a.name for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names)  # re-exported
    modules = {name: f"torchwhy.{module}" for name, module in public_names.MODULES.items()}
    assert read == modules | dict.fromkeys(public_names.ROOMS, "torchwhy")


def captum_names() -> list[str]:
    return pytest.importorskip("captum.attr").__all__


def test_every_name_of_captum_is_here_or_says_where():
    for name in captum_names():
        if name in dir(tw):
            continue
        said = message(name)
        ours = re.findall(r"\btw\.([A-Za-z_.]*\w)", said)
        assert ours or name in WITHOUT_COUNTERPART, said
        assert "did you mean" not in said, said
        assert name not in WITHOUT_COUNTERPART or "no counterpart" in said


def test_what_is_said_names_what_there_is():
    for name in [*FORMS, *CLASSES]:
        for dotted in re.findall(r"\btw\.([A-Za-z_.]*\w)", message(name)):
            resolve(dotted.removesuffix(".attribute").removesuffix(".fit"))


@pytest.mark.parametrize(
    "name,ours",
    [
        ("KernelShap", "tw.KernelSHAP here"),
        ("NoiseTunnel", "tw.SmoothGrad(model, of=method)"),
        ("LayerGradCam", "tw.GradCAM(model, layer=...)"),
        ("LayerIntegratedGradients", "tw.IntegratedGradients(model, layer=...)"),
        ("LayerDeepLiftShap", "tw.DeepSHAP(model, layer=...)"),
        ("NeuronDeconvolution", "tw.DeconvNet(model) with target=tw.Neuron(layer, index)"),
        ("GradientShap", "tw.GradientSHAP here"),
        ("DeepLift", "tw.DeepLIFT here"),
        ("FeaturePermute", "did you mean tw.FeaturePermutation"),
        ("KPCA_CAM", "tw.KPCACAM here"),
        ("GradCAMpp", "tw.GradCAMPlusPlus here"),
        ("EpsilonPlusFlat", "composite='epsilon_plus_flat'"),
        ("KernelExplainer", "tw.KernelSHAP here"),
        ("IntegratedGradient", "tw.IntegratedGradients"),
        ("visualise", "tw.visualize"),
        ("captun", "did you mean tw.captum"),
        ("Composite", "tw.lrp.Composite"),
        ("NameMapComposite", "tw.lrp.Composite"),
        ("Zzzzz", "dir(tw)"),
        ("no.name", "dir(tw) lists what there is"),
        ("IG", "it is tw.IntegratedGradients here"),
        ("LayerRule", "it is tw.lrp.LayerRule here"),
        ("Probability", "it is tw.targets.Probability here"),
        ("heatmpa", "did you mean tw.visualize.heatmap?"),
        ("Problem", "a method of your own is given one"),
    ],
)
def test_a_name_of_another_library_says_ours(name, ours):
    assert f"no attribute {name!r}" in message(name)
    assert ours in message(name)


@pytest.mark.parametrize(
    "room,name,said",
    [
        ("lrp", "Gama", "did you mean tw.lrp.Gamma?"),
        ("metrics", "infidelitty", "did you mean tw.metrics.infidelity?"),
        ("visualize", "heatmpa", "did you mean tw.visualize.heatmap?"),
        ("targets", "Probabilty", "did you mean tw.targets.Probability?"),
        ("baselines", "X", "tw.baselines.__all__ lists what there is"),
        ("cam", "GradCam", "it is tw.GradCAM here"),
        ("gradient", "Salience", "did you mean tw.Saliency?"),
        ("gradient", "no.name", "dir(tw) lists what there is"),
    ],
)
def test_a_room_says_what_may_have_been_meant(room, name, said):
    with pytest.raises(AttributeError, match=f"module 'torchwhy.{room}' has no attribute '{name}'") as error:
        getattr(getattr(tw, room), name)
    assert str(error.value).endswith(said)


def test_nothing_is_proposed_for_a_module_that_is_about_to_be_imported():
    """Python asks a package for a module of it before it reads the module's file."""
    with pytest.raises(AttributeError) as error:
        refusal_of("torchwhy.gradient")("saliency")
    assert str(error.value) == "module 'torchwhy.gradient' has no attribute 'saliency'"


def test_every_room_refuses_names():
    for room in set(public_names.ROOMS) - {"captum", "result", "wrapper"}:
        with pytest.raises(AttributeError, match=r"no attribute 'Zzzzz'; (dir\(tw\)|tw\.\w+\.__all__) lists"):
            resolve(f"{room}.Zzzzz")


@pytest.mark.slow
def test_fresh_rooms_give_their_modules_and_one_inside_says_what_is_public_of_it():
    seen = "from torchwhy.shapley import banzhaf; from torchwhy.circuits import units\n"
    seen += "import torchwhy as tw\ntry: tw.app\nexcept AttributeError as e: print(e)"
    said = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, check=True).stdout
    assert "'app': it is inside the library; what is public of it: tw.explore" in said


@pytest.mark.parametrize("inside, public", [("app", "tw.explore"), ("spelling", "nothing")])
def test_a_module_inside_says_what_is_public_of_it(inside, public):
    assert hint_for(inside, dir(tw)) == f": it is inside the library; what is public of it: {public}"


def test_the_composites_that_are_named_run():
    names = re.findall(r"composite='(\w+)'\)", " ".join(FORMS.values()))
    assert len(names) == 4
    for name in names:
        tw.LRP(torch.nn.Linear(2, 1), composite=name).attribute(torch.ones(1, 2))


def test_private_names_are_refused_without_a_search():
    assert message("_nothing") == "module 'torchwhy' has no attribute '_nothing'"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m, x: tw.GradCAM(m, m[0]),
            r"^GradCAM: after the model, settings are given by name, GradCAM\(model, layer=...\)",
        ),
        (
            lambda m, x: tw.IntegratedGradients(m, 20),
            r"^IntegratedGradients: after the model, settings .*\(model, NAME=...\)",
        ),
        (lambda m, x: tw.SAGE(m, "0"), r"^SAGE: after the model, settings .*\(model, NAME=...\)"),
        (
            lambda m, x: tw.IntegratedGradients(m).attribute(x, 1, n_steps=20),
            "'n_steps'; it is a setting: Integrated",
        ),
        (
            lambda m, x: tw.KernelSHAP(m).attribute(x, 1, n_samples=20),
            "'n_samples'; it is a setting: KernelSHAP",
        ),
        (
            lambda m, x: tw.IntegratedGradients(m).attribute(x, x * 0, 1),
            r"by name: attribute\(inputs, target, baselines=...",
        ),
        (lambda m, x: tw.Saliency(m).attribute(x, 1, abs=False), r"'abs'; Saliency\(model, signed=True\)"),
        (lambda m, x: tw.LRP(m).attribute(x, 1, return_convergence_delta=True), r"explain\(...\).completeness_gap"),
        (lambda m, x: tw.FeatureAblation(m).attribute(x, 1, perturbations_per_eval=8), "batch_size= is a setting"),
        (lambda m, x: tw.Saliency(m).attribute(x, 1, bases=0), "there are inputs, target, baselines"),
        (
            lambda m, x: tw.DeepLIFT(m).attribute(x, x * 0, target=1),
            "the second argument is target, .* baselines go by name",
        ),
        (
            lambda m, x: tw.Occlusion(m),
            "sliding_window_shapes is needed, as Occlusion.model, sliding_window_shapes=...",
        ),
        (lambda m, x: tw.Saliency(m).attribute(x, (slice(0, 2),)), "a callable selects several, and adds them up"),
    ],
)
def test_calls_of_other_libraries_are_told_what_to_do(call, message):
    model, x = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)), torch.randn(2, 4)
    with pytest.raises(TypeError, match=message):
        call(model, x)


ASKED = (tw.Saliency, tw.IntegratedGradients, tw.FeatureAblation, tw.ExactShapley, tw.KernelSHAP, tw.DeepLIFT)


@pytest.mark.parametrize("method", ASKED)
def test_one_number_for_all_rows_is_refused(method):
    model, x = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)), torch.randn(5, 4)
    for whole in (lambda z: model(z)[:, 1].sum(), lambda z: model(z).mean(), lambda z: model(z).sum(0)):
        with pytest.raises(ValueError, match="must be the rows, one score or more for each"):
            method(whole).attribute(x, None if whole(x).dim() == 0 else 1)


@pytest.mark.parametrize("method", ASKED)
def test_several_outputs_are_asked_for_each(method):
    torch.manual_seed(0)
    model, x = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)), torch.randn(2, 4)
    with pytest.raises(ValueError, match=r"attribute_each\(inputs, targets\) explains several"):
        method(model).attribute(x)
    for k, found in enumerate(method(model).attribute_each(x, [0, 1, 2])):
        torch.testing.assert_close(found, method(model).attribute(x, k))


def test_the_old_name_of_a_drawn_baselines_generator_gives_the_same():
    noise = tw.Noise(generator=3)
    with pytest.warns(DeprecationWarning, match="generator_or"):
        old = noise.own(None)
    assert torch.equal(torch.rand(3, generator=old), torch.rand(3, generator=noise.generator_or(None)))
