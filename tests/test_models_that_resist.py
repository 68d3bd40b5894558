"""Models and tensors that torch lets nobody watch or differentiate: right where they can be, else refused in clear words."""

import pytest
import torch
from torch import nn

import torchwhy as tw

X = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.c, self.d = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.h = nn.Linear(4, 3)
        self.eval()

    def forward(self, x):
        return self.h(self.d(self.c(x).relu()).relu().mean((2, 3)))


class UnderInferenceMode(Net):
    @torch.inference_mode()
    def forward(self, x):
        return super().forward(x)


class InPlace(Net):
    def forward(self, x):
        return self.h(nn.functional.relu(self.c(x), inplace=True).mean((2, 3)))


class Differentiates(Net):
    def forward(self, x):
        with torch.enable_grad():
            z = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.c(z).relu().sum(), z)
        return super().forward(x) * (1 + slope.mean((1, 2, 3))[:, None])


class Mapped(Net):
    def forward(self, x):
        return self.h(torch.func.vmap(lambda row: self.d(self.c(row[None]).relu())[0].relu())(x).mean((2, 3)))


class NotANumber(Net):
    def forward(self, x):
        return super().forward(x) * float("nan")


class Subclass(torch.Tensor):
    """A tensor that behaves like any other."""


INFERENCE = r"under torch\..*inference_mode"


@pytest.mark.parametrize(
    "method, layer",
    [
        ("Saliency", None),
        ("LRP", None),
        ("DeepLIFT", None),
        ("GuidedBackprop", None),
        ("GradCAM", "auto"),
        *(
            (name, "c")
            for name in ("InputXGradient", "IntegratedGradients", "GuidedBackprop", "Conductance", "GradCAM")
        ),
    ],
)
def test_a_forward_under_inference_mode_is_said(method, layer):
    settings = {} if layer is None else {"layer": layer}
    with pytest.raises(ValueError, match=INFERENCE):
        getattr(tw, method)(UnderInferenceMode(), **settings).attribute(X, 1)


def test_a_forward_under_inference_mode_is_perturbed_like_any_other():
    for make in (
        lambda model: tw.Occlusion(model, sliding_window_shapes=3),
        lambda model: tw.FeatureAblation(model, layer="c"),
        lambda model: tw.RISE(model, n_samples=8, generator=0),
        tw.ScoreCAM,
        tw.AblationCAM,
        lambda model: tw.EigenCAM(model, layer="d"),
        lambda model: tw.KPCACAM(model, layer="d"),
    ):
        torch.testing.assert_close(make(UnderInferenceMode()).attribute(X, 1), make(Net()).attribute(X, 1))
    seen = tw.LayerActivation(UnderInferenceMode(), layer="c").attribute(X)
    torch.testing.assert_close(seen, tw.LayerActivation(Net(), layer="c").attribute(X))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_torchscript():
    scripted = torch.jit.script(Net())
    frozen = torch.jit.freeze(torch.jit.script(Net()))
    for model in (scripted, frozen):
        torch.testing.assert_close(tw.Saliency(model).attribute(X, 1), tw.Saliency(Net()).attribute(X, 1))
        occlusion = tw.Occlusion(model, sliding_window_shapes=3).attribute(X, 1)
        torch.testing.assert_close(occlusion, tw.Occlusion(Net(), sliding_window_shapes=3).attribute(X, 1))
        for refused in (
            lambda model: tw.GradCAM(model).attribute(X, 1),
            lambda model: tw.GradCAM(model, layer="c").attribute(X, 1),
            lambda model: tw.FeatureAblation(model, layer="c").attribute(X, 1),
            lambda model: tw.LRP(model).attribute(X, 1),
        ):
            with pytest.raises(TypeError, match="the model is TorchScript"):
                refused(model)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_module_around_torchscript_has_layers():
    around = nn.Sequential(nn.Conv2d(3, 3, 1), torch.jit.script(Net())).eval()
    e = tw.GradCAM(around).explain(X, 1)
    assert e.details["layer"] == "0"


def test_a_compiled_model_whose_hooks_come_late():
    torch._dynamo.reset()
    compiled = torch.compile(Net(), backend="eager")
    found = tw.FeatureAblation(compiled, layer="_orig_mod.c").attribute(X, 1)
    torch.testing.assert_close(found, tw.FeatureAblation(Net(), layer="c").attribute(X, 1))
    found = tw.FeatureAblation(compiled, layer="_orig_mod.d").attribute(X, 1)
    torch.testing.assert_close(found, tw.FeatureAblation(Net(), layer="d").attribute(X, 1))
    torch._dynamo.reset()


@pytest.mark.parametrize("method", ["LRP", "ExcitationBackprop", "GuidedBackprop", "DeepLIFT", "Saliency"])
def test_subclasses_of_tensors_may_be_worked_on_in_place(method):
    found = getattr(tw, method)(InPlace()).attribute(X.as_subclass(Subclass), 1)
    torch.testing.assert_close(found.as_subclass(torch.Tensor), getattr(tw, method)(InPlace()).attribute(X, 1))


def test_models_that_differentiate_inside():
    for method in (tw.DeepLIFT, tw.DeepSHAP, tw.LRP, tw.GuidedBackprop):
        with pytest.raises(
            ValueError,
            match=r"a gradient inside .* rules would change, and with it the model's output; use a method without",
        ):
            method(Differentiates()).attribute(X, 1)
    for method in (tw.Saliency, tw.GradCAM):
        assert method(Differentiates()).attribute(X, 1).isfinite().all()


def test_layers_inside_vmap_are_refused_and_auto_passes_them_by():
    for method in (tw.GradCAM, tw.ScoreCAM, tw.LayerActivation, tw.FeatureAblation, tw.InputXGradient):
        target = () if method is tw.LayerActivation else (1,)
        with pytest.raises(LookupError, match=r"layer 'c' runs inside a transform of torch\.func"):
            method(Mapped(), layer="c").attribute(X, *target)
    with pytest.raises(ValueError, match="layer='auto': no layer passes a grid"):
        tw.GradCAM(Mapped()).attribute(X, 1)
    found = tw.GradCAM(nn.Sequential(nn.Conv2d(3, 3, 1), Mapped()).eval()).explain(X, 1)
    assert found.details["layer"] == "0"


@pytest.mark.parametrize("method", ["EigenCAM", "EigenGradCAM", "KPCACAM", "GradCAM"])
def test_scores_that_are_no_numbers(method):
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        getattr(tw, method)(NotANumber()).attribute(X, 1)


def test_tensors_without_values_to_mask():
    net = nn.Linear(4, 2)
    x = torch.rand(2, 4)
    for odd in (x.to("meta"), x.to_sparse(), torch.nested.nested_tensor([x[0], x[1, :3]])):
        for method in (tw.Saliency, tw.FeatureAblation, tw.KernelSHAP):
            with pytest.raises(TypeError, match="inputs: expected dense tensors with values"):
                method(net).attribute(odd, 1)


def test_sparse_baselines_are_dense_ones():
    net, x, background = nn.Linear(4, 2), torch.rand(2, 4), torch.tensor([[0.0, 0, 1, 0], [0, 2, 0, 0]])
    for method in (tw.ExpectedGradients, tw.IntegratedGradients, tw.KernelSHAP, tw.DeepLIFT):
        settings = {"generator": 0} if hasattr(method, "generator") else {}
        for given in (lambda rows: rows, tw.Distribution):
            if given is tw.Distribution and method in (tw.IntegratedGradients, tw.DeepLIFT):
                continue
            sparse, dense = given(background.to_sparse()), given(background)
            found = method(net, **settings).attribute(x, 1, baselines=sparse)
            torch.testing.assert_close(found, method(net, **settings).attribute(x, 1, baselines=dense))


def test_errors_name_the_row():
    x = torch.zeros(3300, 4)
    x[3217, 2] = float("nan")
    for method in (tw.Saliency, tw.FeatureAblation):
        with pytest.raises(ValueError, match="inputs: row 3,217 holds NaN or infinite values"):
            method(nn.Linear(4, 2)).attribute(x, 1)
    background = torch.zeros(20, 4)
    background[17, 2] = float("inf")
    with pytest.raises(ValueError, match="baselines: row 17 holds NaN or infinite values"):
        tw.KernelSHAP(nn.Linear(4, 2)).attribute(x[:1], 1, baselines=tw.Distribution(background))
    with pytest.raises(TypeError, match="got slice; a callable selects several, and adds them up"):
        tw.Saliency(nn.Sequential(nn.Linear(4, 2))).attribute(x[:1], tw.Neuron("0", (slice(0, 2),)))


class Recurrent(nn.Module):
    def __init__(self, packed=False):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.r, self.o, self.packed = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 2), packed
        self.eval()

    def forward(self, x, lengths=None, h=None, c=None):
        if self.packed:
            x = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        _, (found, _) = self.r(x) if h is None else self.r(x, (h, c))
        return self.o(found[-1])


def test_lengths_that_are_no_longer_sorted():
    x, lengths = torch.randn(3, 5, 4), torch.tensor([5, 3, 2])
    with pytest.raises(ValueError, match="enforce_sorted=False, or give batch_size= the number of rows"):
        tw.IntegratedGradients(Recurrent(packed=True), batch_size=6).attribute(x, 1, additional_forward_args=lengths)
    alone = tw.IntegratedGradients(Recurrent(packed=True), batch_size=3)
    assert alone.attribute(x, 1, additional_forward_args=lengths)[2, 2:].eq(0).all()


@pytest.mark.filterwarnings("ignore:the model runs on all rows together")
def test_states_whose_rows_are_their_second_dimension():
    x, h, c = torch.randn(3, 5, 4), torch.rand(1, 3, 6), torch.rand(1, 3, 6)
    with pytest.raises(ValueError, match=r"give it as tw\.PerRow\(state, dim=1\)"):
        tw.IntegratedGradients(Recurrent()).attribute({"x": x}, 1, additional_forward_args={"h": h, "c": c})
    states = {"h": tw.PerRow(h, dim=1), "c": tw.PerRow(c, dim=1)}
    for method in (tw.IntegratedGradients, tw.FeatureAblation):
        found = method(Recurrent()).attribute({"x": x}, 1, additional_forward_args=states)["x"]
        one = {"h": tw.PerRow(h[:, 1:2], dim=1), "c": tw.PerRow(c[:, 1:2], dim=1)}
        alone = method(Recurrent()).attribute({"x": x[1:2]}, 1, additional_forward_args=one)["x"]
        torch.testing.assert_close(found[1:2], alone)
