"""Do influences foretell what a model says after it was trained on other rows?

The linear datamodeling score: models are trained again on random halves of the rows; the rank correlation, over the halves, of
the sum of the influences in a half with the negative loss of the explained row, mean over rows. A small CNN on scikit-learn's
digits, a tenth of them with a wrong label, and a tiny transformer on pieces of Python's own help texts. Beside the methods stand
plain baselines: rows that look alike to a layer, and for texts words in common (BM25). Dampings are chosen on other explained
rows than those that are reported.
"""

from __future__ import annotations

import importlib.util
import math
import re
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from harness import Benchmark
from torch import Tensor, nn

import torchwhy as tw
from torchwhy.influence.losses import standard_loss

DAMPINGS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
WORD, TOKENS, UNKNOWN = re.compile(r"[a-z]+|[0-9]+|[^\sa-z0-9]"), 20, 0


class World(NamedTuple):
    """Rows to train on and to explain, how a model is made and trained, and the layer before its last."""

    name: str
    train: tuple[Tensor, ...]
    test: tuple[Tensor, ...]
    make: Callable[[], nn.Module]
    steps: int
    rate: float
    layer: str
    pool: str | None


class SmallCNN(nn.Module):
    """Digits ``(N, 1, 8, 8)`` → scores ``(N, 10)``, 3,434 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.hidden, self.head = nn.Linear(64, 24), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the score of each class."""
        y = F.max_pool2d(F.relu(self.conv1(x)), 2)
        y = F.max_pool2d(F.relu(self.conv2(y)), 2).flatten(1)
        return self.head(F.relu(self.hidden(y)))


class TinyTransformer(nn.Module):
    """Token ids ``(N, T)`` → logits ``(N, T, tokens)``: a block of attention and a feed-forward part."""

    def __init__(self, tokens: int, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.table, self.place = nn.Embedding(tokens, width), nn.Embedding(TOKENS, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.head = nn.Linear(width, tokens)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the logits of the next tokens."""
        n, t = ids.shape
        x = self.table(ids) + self.place(torch.arange(t))
        q, k, v = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(attended.transpose(1, 2).reshape(n, t, -1))
        return self.head(self.norm3(x + self.down(F.gelu(self.up(self.norm2(x))))))


def train(world: World, rows: Tensor, seed: int, keep: int = 0) -> tuple[nn.Module, list[dict[str, Tensor]]]:
    """Return a model trained on some rows, and the last ``keep`` of its parameters at even distances."""
    torch.manual_seed(seed)
    model, states = world.make(), []
    optimizer = torch.optim.AdamW(model.parameters(), world.rate, weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    for step in range(1, world.steps + 1):
        some = rows[torch.randint(len(rows), (32,), generator=generator)]
        optimizer.zero_grad()
        standard_loss(model(world.train[0][some]), world.train[-1][some]).backward()
        optimizer.step()
        if keep and step % (world.steps // keep) == 0:
            states.append({k: v.clone() for k, v in model.state_dict().items()})
    return model.eval(), states


def negative_losses(world: World, model: nn.Module) -> Tensor:
    """Return the negative loss of each explained row ``(N,)``."""
    with torch.no_grad():
        logits = model(world.test[0])
    labels = world.test[-1]
    return torch.stack([-standard_loss(a[None], b[None]) for a, b in zip(logits, labels)])


def digits(quick: bool) -> World:
    """The digits, some with a wrong label, so that rows can harm."""
    from sklearn.datasets import load_digits

    data, n, m = load_digits(), 150 if quick else 400, 20 if quick else 40
    x, y = torch.tensor(data.images / 16, dtype=torch.float32)[:, None], torch.tensor(data.target)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    y[: n // 10] = (y[: n // 10] + 1) % 10
    return World("CNN", (x[:n], y[:n]), (x[-m:], y[-m:]), SmallCNN, 100 if quick else 250, 3e-3, "hidden", None)


def sentences(quick: bool) -> tuple[World, list[list[str]], list[list[str]]]:
    """Python's help texts cut into rows of tokens, each of one topic, and their words."""
    from pydoc_data.topics import topics

    n, m = (150, 20) if quick else (300, 40)
    rows = []
    for name in sorted(topics):
        words = WORD.findall(topics[name].lower())
        rows += [words[i : i + TOKENS] for i in range(0, len(words) - TOKENS, TOKENS)]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[: n + m].tolist()
    rows = [rows[i] for i in order]
    known = [w for w, _ in Counter(w for row in rows[:n] for w in row).most_common(299)]
    number = {w: i + 1 for i, w in enumerate(known)}
    ids = torch.tensor([[number.get(w, UNKNOWN) for w in row] for row in rows])
    world = World(
        "language model", (ids[:n],), (ids[n:],), lambda: TinyTransformer(300), 150 if quick else 300, 3e-3, "norm3", "tokens"
    )  # fmt: skip
    return world, rows[:n], rows[n:]


def bm25(train_words: list[list[str]], test_words: list[list[str]], k: float = 1.5, b: float = 0.75) -> Tensor:
    """Return Okapi's BM25 of each explained text against each training text, ``(N, n)``."""
    counts, n = [Counter(words) for words in train_words], len(train_words)
    mean = sum(map(len, train_words)) / n
    frequency = Counter(w for c in counts for w in c)
    scores = torch.zeros(len(test_words), n)
    for i, query in enumerate(test_words):
        for j, c in enumerate(counts):
            for w in set(query) & set(c):
                rarity = math.log((n - frequency[w] + 0.5) / (frequency[w] + 0.5) + 1)
                scores[i, j] += rarity * c[w] * (k + 1) / (c[w] + k * (1 - b + b * len(train_words[j]) / mean))
    return scores


def chosen(method: tw.InfluenceFunction, world: World, subsets: Tensor, outcomes: Tensor) -> tw.InfluenceFunction:
    """Return a fitted method with the damping that scores best on the first half of the explained rows."""
    half, best = len(world.test[0]) // 2, (-2.0, 0.0)
    dampings = DAMPINGS[2:] if method.hessian == "ekfac_cg" else DAMPINGS
    for damping in dampings:
        method.damping = damping
        try:
            found = method.explain(*(t[:half] for t in world.test))
        except ValueError:  # too little for a Hessian that is not positive
            continue
        score = tw.influence.linear_datamodeling_score(found, subsets, outcomes[:, :half]).mean
        best = max(best, (score, damping))
    method.damping = best[1]
    return method


def ours(world: World, states: list[list[dict[str, Tensor]]], quick: bool) -> dict[str, Callable[[nn.Module], Any]]:
    """Return what makes each of our methods, by name."""
    last = [state[-1] for state in states]
    steps = 5 if quick else 10
    sides: dict[str, Callable[[nn.Module], Any]] = {
        "TracIn, the model as it is": tw.TracIn,
        "TracIn, 5 checkpoints": lambda m: tw.TracIn(m, checkpoints=[(s, world.rate) for s in states[0]]),
        "TracIn, projected to 256": lambda m: tw.TracIn(m, dim=256),
        "TracIn, last layer": lambda m: tw.TracIn(m, layer="head"),
        "InfluenceFunction, EK-FAC": lambda m: tw.InfluenceFunction(m, hessian="ekfac"),
        "InfluenceFunction, EK-FAC and CG": lambda m: tw.InfluenceFunction(m, hessian="ekfac_cg", n_steps=steps),
        "InfluenceFunction, Arnoldi": lambda m: tw.InfluenceFunction(
            m, hessian="arnoldi", n_steps=steps, rank=steps // 2
        ),
        "TRAK, 1 model": lambda m: tw.TRAK(m, checkpoints=last[:1], dim=256),
        f"TRAK, {len(last)} models": lambda m: tw.TRAK(m, checkpoints=last, dim=256),
    }
    if world.name == "CNN":
        sides |= {
            "InfluenceFunction, exact, last layer": tw.InfluenceFunction,
            "RepresenterPoints": tw.RepresenterPoints,
            "KNNShapley": lambda m: tw.KNNShapley(m, layer="hidden"),
        }
    return sides


def theirs(world: World, states: list[dict[str, Tensor]]) -> dict[str, Callable[[nn.Module], Tensor]]:
    """Return other libraries' influences ``(N, n)`` on the CNN, by name; what is not installed is left out."""
    from torch.utils.data import DataLoader, TensorDataset

    data, test = TensorDataset(*world.train), TensorDataset(*world.test)
    sides: dict[str, Callable[[nn.Module], Tensor]] = {}
    if importlib.util.find_spec("captum"):
        from captum.influence import TracInCP, TracInCPFast
        from captum.influence._core.arnoldi_influence_function import ArnoldiInfluenceFunction

        def load(model: nn.Module, state: dict[str, Tensor]) -> float:
            model.load_state_dict(state)
            return world.rate

        rest = {"loss_fn": nn.CrossEntropyLoss(reduction="sum"), "batch_size": 100}
        sides["captum TracInCP, 5 checkpoints"] = lambda m: TracInCP(
            m, data, states, load, sample_wise_grads_per_batch=True, **rest
        ).influence(world.test)
        sides["captum TracInCPFast, 1 checkpoint"] = lambda m: TracInCPFast(
            m, m.head, data, states[-1:], load, **rest
        ).influence(world.test)
        sides["captum ArnoldiInfluenceFunction"] = lambda m: ArnoldiInfluenceFunction(
            m, data, states[-1], load, arnoldi_dim=20, projection_dim=10, show_progress=False,
            sample_wise_grads_per_batch=True, **rest,
        ).influence(world.test)  # fmt: skip
    if importlib.util.find_spec("dattri"):
        from dattri.algorithm import IFAttributorEKFAC, IFAttributorExplicit, TracInAttributor
        from dattri.task import AttributionTask

        loaders = DataLoader(data, batch_size=100), DataLoader(test, batch_size=100)

        def attributed(kind: Any, model: nn.Module, **settings: Any) -> Tensor:
            def loss(parameters: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
                x, y = batch
                x, y = (x[None], y[None]) if x.dim() == 3 else (x, y)
                return F.cross_entropy(torch.func.functional_call(model, parameters, (x,)), y)

            task = AttributionTask(loss_func=loss, model=model, checkpoints=states[-1])
            attributor = kind(task=task, device="cpu", **settings)
            if kind is not TracInAttributor:
                attributor.cache(loaders[0])
            return attributor.attribute(*loaders).T

        rates = {"weight_list": torch.ones(1), "normalized_grad": False}
        sides["dattri TracIn, 1 checkpoint"] = lambda m: attributed(TracInAttributor, m, **rates)
        sides["dattri explicit, last layer"] = lambda m: attributed(
            IFAttributorExplicit, m, layer_name=["head.weight", "head.bias"], regularization=0.01
        )
        sides["dattri EK-FAC"] = lambda m: attributed(IFAttributorEKFAC, m, damping=0.01)
    return sides


def theirs_of_texts(world: World) -> dict[str, Callable[[nn.Module], Tensor]]:
    """Return other libraries' influences ``(N, n)`` on the language model, by name; what is not installed is left out."""
    if not importlib.util.find_spec("bergson"):
        return {}
    from bergson import GradientProcessor, IndexConfig, InMemoryCollector
    from datasets import Dataset

    def gradients(model: nn.Module, ids: Tensor) -> Tensor:
        """Return the gradient of each row's loss by what its hooks see: weights and biases of linear layers."""
        model.device = torch.device("cpu")  # as a model of transformers has it
        collector = InMemoryCollector(
            model=model,
            data=Dataset.from_dict({"input_ids": ids.tolist()}),
            cfg=IndexConfig(run_path=tempfile.gettempdir()),
            processor=GradientProcessor(include_bias=True, projection_dim=None),
        )
        with collector:
            for rows in torch.arange(len(ids)).split(100):
                said = model(ids[rows])[:, :-1].transpose(1, 2)
                losses = F.cross_entropy(said, ids[rows][:, 1:], reduction="none").mean(1)
                model.zero_grad()
                losses.sum().backward()
                collector.process_batch(rows.tolist(), losses=losses)
        collector.teardown()
        return torch.cat([g.flatten(1).float() for g in collector.gradients.values()], 1)

    return {
        "bergson gradients, linear layers": lambda m: gradients(m, world.test[0]) @ gradients(m, world.train[0]).T,
    }


class InfluenceBenchmark(Benchmark):
    """A table of scores with their intervals for each world."""

    of_cases = False

    def markdown(self, results: list[dict[str, Any]]) -> str:
        """The tables."""
        text = self.text
        for r in results:
            text += f"\n{r['world']}: {r['note']}\n\n| method | score | 95 % interval | took |\n|---|--:|---|--:|\n"
            for name, s in sorted(r["scores"].items(), key=lambda item: -item[1]["mean"]):
                text += f"| {name} | {s['mean']:.2f} | {s['low']:.2f} … {s['high']:.2f} | {s['took']:.1f} s |\n"
        return text

    def plot(self, results: list[dict[str, Any]]) -> Any:
        """Bars with their intervals, a panel for each world."""
        from matplotlib.figure import Figure

        most = max(len(r["scores"]) for r in results)
        figure = Figure(figsize=(7 * len(results), 0.8 + 0.3 * most), layout="constrained")
        for ax, r in zip(figure.subplots(1, len(results), squeeze=False)[0], results):
            order = sorted(r["scores"].items(), key=lambda item: item[1]["mean"])
            for i, (name, s) in enumerate(order):
                colours = {"captum": "#8c9bb0", "dattri": "#8c9bb0", "bergson": "#8c9bb0", "baseline:": "black"}
                colour = colours.get(name.split()[0], "#c44e52")
                ax.plot([s["low"], s["high"]], [i, i], "-", s["mean"], i, "o", color=colour)
            ax.set_yticks(range(len(order)), [name for name, _ in order], fontsize=8)
            ax.axvline(0, color="black", linewidth=0.6)
            ax.set_title(r["world"], fontsize=9)
            ax.set_xlabel("linear datamodeling score")
        return figure


def measure(bench: InfluenceBenchmark, world: World, baselines: dict[str, Callable[[], Tensor]]) -> None:
    """Score every method on a world."""
    n, n_subsets, seeds, models = len(world.train[0]), *((12, 1, 2) if bench.quick else (60, 2, 5))
    everything = torch.arange(n)
    trained = [train(world, everything, seed, keep=5) for seed in range(models)]
    model, states = trained[0][0], [s for _, s in trained]
    subsets = tw.influence.draw_subsets(n, n_subsets)

    def outcome(rows: Tensor) -> Tensor:
        return torch.stack([negative_losses(world, train(world, rows, 100 + s)[0]) for s in range(seeds)]).mean(0)

    outcomes = tw.influence.retrain(outcome, subsets)
    half, scores = len(world.test[0]) // 2, {}
    reported = tuple(t[half:] for t in world.test)

    def keep(name: str, values: Tensor, took: float) -> None:
        s = tw.influence.linear_datamodeling_score(values, subsets, outcomes[:, half:])
        low, high = s.interval
        scores[name] = {"mean": s.mean, "low": low, "high": high, "took": took}
        print(f"    {name:44} {s.mean:6.2f} [{low:5.2f}, {high:5.2f}]  {took:6.1f} s", flush=True)

    begun = time.perf_counter()
    alike = tw.SimilarityInfluence(model, layer=world.layer, pool=world.pool).fit(*world.train).explain(*reported)
    keep(f"baseline: similarity at {world.layer!r}", alike.attributions, time.perf_counter() - begun)
    for name, baseline in baselines.items():
        begun = time.perf_counter()
        values = baseline()
        keep(f"baseline: {name}", values[half:], time.perf_counter() - begun)
    for name, make in ours(world, states, bench.quick).items():
        begun = time.perf_counter()
        method = make(model).fit(*world.train)
        keep(name, method.explain(*reported).attributions, time.perf_counter() - begun)
        if isinstance(method, tw.InfluenceFunction) and method.hessian != "arnoldi":
            begun = time.perf_counter()
            found = chosen(method, world, subsets, outcomes).explain(*reported).attributions
            keep(f"{name}, damping chosen: {method.damping:g}", found, time.perf_counter() - begun)
    for name, side in (theirs(world, states[0]) if world.name == "CNN" else theirs_of_texts(world)).items():
        begun = time.perf_counter()
        try:
            found = side(model).detach()[half:]
            keep(name, found, time.perf_counter() - begun)
        except Exception as error:
            print(f"    {name}: {type(error).__name__}: {error}")
        model.load_state_dict(states[0][-1])
    note = f"{n} rows, {n_subsets} halves of them, {seeds} trainings of each, {len(reported[0])} rows explained."
    bench.results.append({"world": world.name, "note": note, "scores": scores})
    bench.write(plot=False)


def main() -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)  # the networks are tiny
    bench = InfluenceBenchmark("influence", "Influences of training rows, measured by training again")
    bench.text = (
        "The linear datamodeling score: 1 foretells which halves of the training rows make the better model for a row, 0 "
        "foretells nothing. *Damping chosen* on other explained rows. The seconds are of a machine that was busy with other "
        "work, for all explained rows and one fit. Bergson reads gradients by hooks on inputs of three axes: it takes the "
        "language model, on the CPU too, and refuses the CNN (`AssertionError: Expected input of shape [N, S, I]`); its EK-FAC "
        "is a command over a saved model, and is not measured. Without embeddings and norms, which it leaves out, its inner "
        "products are those of `tw.TracIn(model, layer=...)`.\n"
    )
    print("CNN")
    measure(bench, digits(bench.quick), {})
    print("language model")
    world, train_words, test_words = sentences(bench.quick)
    measure(bench, world, {"BM25": lambda: bm25(train_words, test_words)})
    bench.finish()


if __name__ == "__main__":
    main()
