"""Metrics, comparisons and pictures of rows with shapes of their own, and of samples: each row as it is alone."""

from functools import partial

import pytest
import torch
from language import VOCABULARY, WordTokenizer, make
from torch import nn

import torchwhy as tw
from torchwhy import metrics as M


class Nodes(nn.Module):
    """Nodes of graphs behind one another → a score of two classes for each graph."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x, graph):
        h = torch.tanh(self.a(x))
        return self.b(torch.zeros(int(graph.max()) + 1, 5).index_add(0, graph, h))


@pytest.fixture(scope="module")
def graphs():
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    return Nodes().eval(), x, [2, 3, 2], torch.tensor([0, 0, 1, 1, 1, 2, 2])


def of_rows(x, sizes, graph, rows):
    parts = x.split(sizes)
    shown = torch.cat([parts[r] for r in rows])
    lengths = [sizes[r] for r in rows]
    which = torch.arange(len(rows)).repeat_interleave(torch.tensor(lengths))
    return tw.Ragged(shown, lengths), (tw.Ragged(which, lengths, points_into="rows"),)


METRICS = {
    "deletion": M.deletion,
    "insertion": partial(M.insertion, steps=3),
    "sufficiency": M.sufficiency,
    "monotonicity": M.monotonicity,
    "average_drop": M.average_drop,
    "completeness_gap": M.completeness_gap,
    "non_sensitivity": M.non_sensitivity,
    "faithfulness_estimate": M.faithfulness_estimate,
    "sensitivity_max": partial(M.sensitivity_max, n_samples=3),
    "input_invariance": M.input_invariance,
    "random_logit": M.random_logit,
}


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_of_graphs_is_that_of_each_alone(graphs, name):
    model, x, sizes, graph = graphs
    method, targets = tw.InputXGradient(model), [1, 0, 1]

    def measure(rows):
        inputs, arguments = of_rows(x, sizes, graph, rows)
        target, told = [targets[r] for r in rows], {"additional_forward_args": arguments}
        if "method" in getattr(METRICS[name], "func", METRICS[name]).parameters:
            found = METRICS[name](method, inputs, target, **told)
        else:
            found = METRICS[name](model, inputs, method.attribute(inputs, target, **told), target, **told)
        return found.auc if isinstance(found, M.Curve) else found

    together = measure([0, 1, 2])
    torch.testing.assert_close(
        together, torch.cat([measure([r]) for r in range(3)]), atol=1e-5, rtol=1e-5, equal_nan=True
    )


def test_a_metric_of_maps_alone_takes_rows_of_several_shapes(graphs):
    model, x, sizes, graph = graphs
    inputs, arguments = of_rows(x, sizes, graph, [0, 1, 2])
    maps = tw.Saliency(model).attribute(inputs, 1, additional_forward_args=arguments)
    alone = torch.cat([M.sparseness(m[None]) for m in maps])
    torch.testing.assert_close(M.sparseness(maps), alone)


def test_pictures_of_two_sizes_are_compared():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)).eval()

    class Detector(nn.Module):
        def forward(self, pictures):
            return torch.cat([net(p[None]) for p in pictures])

    model, images = Detector(), [torch.rand(1, 6, 6), torch.rand(1, 5, 7), torch.rand(1, 6, 6)]
    methods = {"ixg": tw.InputXGradient(model), "ig": tw.IntegratedGradients(model)}
    table = tw.compare(model, images, [0, 1, 1], methods, ["deletion", "completeness_gap", "sparseness"])
    for row, image in enumerate(images):
        single = {k: type(m)(net) for k, m in methods.items()}
        one = tw.compare(net, image[None], [[0], [1], [1]][row], single, ["deletion", "completeness_gap", "sparseness"])
        for metric in table.values:
            for method in methods:
                torch.testing.assert_close(
                    table.values[metric][method][row], one.values[metric][method][0], atol=1e-6, rtol=1e-4
                )


def test_baselines_and_masks_of_rows_of_several_shapes(graphs):
    model, x, sizes, graph = graphs
    inputs, arguments = of_rows(x, sizes, graph, [0, 1])
    given = {
        "baselines": tw.Ragged(torch.ones(5, 3), [2, 3]),
        "feature_mask": tw.Ragged(torch.arange(5)[:, None].expand(5, 3), [2, 3]),
    }
    a = tw.KernelSHAP(model, generator=0).attribute(inputs, 1, additional_forward_args=arguments, **given)
    curve = M.deletion(model, inputs, a, 1, additional_forward_args=arguments, whole_features=True, **given)
    for row in range(2):
        one, told = of_rows(x, sizes, graph, [row])
        mask = torch.arange(sizes[row])[:, None].expand(-1, 3)
        alone = M.deletion(
            model,
            one,
            a[row : row + 1],
            1,
            additional_forward_args=told,
            whole_features=True,
            baselines=1.0,
            feature_mask=mask,
        )
        torch.testing.assert_close(curve.auc[row], alone.auc[0])


def test_attributions_of_other_rows_are_refused(graphs):
    model, x, sizes, graph = graphs
    inputs, arguments = of_rows(x, sizes, graph, [0, 1])
    with pytest.raises(ValueError, match="attributions: of 1 rows, the inputs have 2"):
        M.deletion(model, inputs, tw.Ragged(torch.ones(5, 3), [5]), 1, additional_forward_args=arguments)


# ---- samples

GOLF = VOCABULARY["golf"]
LANGUAGE_METRICS = ["deletion", "insertion", "sufficiency", "comprehensiveness", "monotonicity", "completeness_gap"]


@pytest.fixture(scope="module")
def llama():
    return make("llama")


def prompts(rows=(0, 1), **how):
    texts = ["Dave lives in Palm", "Tom lives"]
    return tw.Prompt(WordTokenizer(), [texts[r] for r in rows], "a lawyer", absent=GOLF, **how)


@pytest.mark.parametrize("absent", [GOLF, "remove"])
def test_prompts_are_compared_as_each_alone(llama, absent):
    texts = ["Dave lives in Palm", "Tom lives"]
    methods = {"shap": tw.ExactShapley(llama), "ixg": tw.InputXGradient(llama)}
    names = [*LANGUAGE_METRICS, "non_sensitivity"]

    def table(rows):
        sample = tw.Prompt(WordTokenizer(), [texts[r] for r in rows], "a lawyer", absent=absent)
        return tw.compare(llama, sample, None, methods, names).values

    together, each = table([0, 1]), [table([0]), table([1])]
    for metric in names:
        for method in methods:
            alone = torch.cat([t[metric][method] for t in each])
            torch.testing.assert_close(together[metric][method], alone, atol=1e-5, rtol=1e-4, equal_nan=True)


def test_a_metric_that_draws_sets_says_what_to_do_with_prompts_of_several_lengths(llama):
    a = tw.ExactShapley(llama).attribute(prompts())
    with pytest.raises(ValueError, match=r"this sample have \[4, 2\] features.*one by one"):
        M.faithfulness_correlation(llama, prompts(), a)
    alone = M.faithfulness_correlation(llama, prompts([0]), a[:1], subset_size=2)
    assert bool(alone.isfinite().all())


def test_segments_of_a_sample_are_its_features():
    bert, text = make("bert"), tw.Text(WordTokenizer(ends=True), ["a film of great charm"], absent="pad")
    a = tw.ExactShapley(bert).attribute(text, 1)
    found = M.irof(bert, text, a, 1, softmax=True)
    curve = M.deletion(bert, text, a, 1, softmax=True)
    torch.testing.assert_close(found, 1 - curve.auc / curve.scores[:, 0])


@pytest.mark.parametrize("kind", [None, "bars", "waterfall", "force"])
def test_pictures_of_a_row_of_prompts(llama, kind):
    e = tw.ExactShapley(llama).explain(prompts())
    for row in range(2):
        figure = e.plot(row=row, **({} if kind is None else {"kind": kind}))
        words = {t.get_text() for ax in figure.axes for t in [*ax.texts, *ax.get_yticklabels(), *ax.get_xticklabels()]}
        assert any("lives" in w for w in words)


@pytest.mark.parametrize("kind", ["beeswarm", "decision", "importance", "heatmap", "scatter"])
def test_pictures_of_all_rows_of_prompts(llama, kind):
    texts = ["Dave lives in Palm", "Tom lives in Berlin"]
    same = tw.ExactShapley(llama).explain(tw.Prompt(WordTokenizer(), texts, "a lawyer", absent=GOLF))
    if kind == "scatter":  # needs the features' own numbers, which words have not
        with pytest.raises(ValueError, match=r"inputs|numbers"):
            same.plot(kind=kind)
    else:
        assert same.plot(kind=kind).axes
    with pytest.raises(ValueError, match=r"draw them one by one|inputs|numbers"):
        tw.ExactShapley(llama).explain(prompts()).plot(kind=kind)


def test_pages_and_tables_of_prompts(llama, tmp_path):
    pytest.importorskip("pandas")
    e = tw.KernelSHAP(llama, generator=0).explain(prompts())
    e.to_html(tmp_path / "why.html")
    assert "Palm" in (tmp_path / "why.html").read_text()
    assert e.to_dataframe(long=True)["feature"].tolist() == [*["Dave", "lives", "in", "Palm", "Tom", "lives"]]
    each = tw.FeatureAblation(llama).explain(prompts(), target="each")
    each.to_html(tmp_path / "each.html")
    assert "lawyer" in (tmp_path / "each.html").read_text()


def test_a_look_takes_the_tensors_of_a_sample(llama):
    with pytest.raises(TypeError, match=r"ready = sample\.bind\(model\)"):
        tw.inspect(llama, prompts())
    ready = prompts().bind(llama)
    found = tw.inspect(
        llama, ready.tensors, ready.target, additional_forward_args=ready.arguments, methods=["InputXGradient"]
    )
    assert found.methods["InputXGradient"].applies
