"""What each block of a transformer knows: the logit lens, the tuned lens, and latents. python examples/lenses.py

A GPT-2 of three blocks learns to pick a word: "the second of p, q, r" asks for q. A lens is tuned, and a sparse autoencoder
learned, on what passes its blocks. Takes a minute.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torchwhy as tw

PLACES, WORDS, LENGTH, WIDTH, LATENTS = 3, 20, 5, 48, 96  # tokens: which place, three words, a mark
MARK = PLACES + WORDS


def questions(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return token ids ``(n, 5)`` and the answers ``(n,)``: the word at the place that the first token names."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.randint(PLACES, (n, 1), generator=generator)
    words = torch.rand(n, WORDS, generator=generator).argsort(1)[:, :PLACES] + PLACES
    return torch.cat([place, words, torch.full((n, 1), MARK)], 1), words.gather(1, place)[:, 0]


def trained(steps: int = 500) -> nn.Module:
    """Return a model that answers."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = {"n_embd": WIDTH, "n_layer": 3, "n_head": 4, "n_positions": LENGTH}
    without = {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0, "bos_token_id": None, "eos_token_id": None}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=MARK + 1, **sizes, **without))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for step in range(steps):
        ids, answers = questions(128, step)
        optimizer.zero_grad()
        F.cross_entropy(model(ids).logits[:, -1], answers).backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


class SparseAutoencoder(nn.Module):
    """Latents ``(..., LATENTS)``, few of which are not 0, of what passes a block, ``(..., WIDTH)``."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(WIDTH, LATENTS), nn.Linear(LATENTS, WIDTH)

    def encode(self, x: Tensor) -> Tensor:
        """Return the latents."""
        return self.into(x).relu()

    def decode(self, latents: Tensor) -> Tensor:
        """Return what they stand for."""
        return self.out(latents)

    def learn(self, x: Tensor, steps: int = 600, sparsity: float = 0.05) -> float:
        """Learn from ``(rows, WIDTH)``; return the share of the variance that is left out."""
        optimizer = torch.optim.Adam(self.parameters(), 3e-3)
        for _ in range(steps):
            latents = self.encode(x)
            loss = (self.decode(latents) - x).square().sum(1).mean() + sparsity * latents.sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.requires_grad_(False)
        return float((self.decode(self.encode(x)) - x).square().sum() / (x - x.mean(0)).square().sum())


def main() -> None:
    torch.set_num_threads(1)
    model = trained()
    ids, answers = questions(200, 10_000)
    right = float((model(ids).logits[:, -1].argmax(1) == answers).float().mean())
    print(f"the model answers {right:.0%} of new questions")

    # what could be read after each block, as it is, and after a map that was learned
    lens = tw.LogitLens(model)
    tuned = tw.TunedLens(model, n_steps=150).fit([questions(200, 20_000)[0]])
    for name, one in (("logit lens", lens), ("tuned lens", tuned)):
        said = one.read(ids).tokens[:, :, -1, 0]  # at the mark, (200, blocks)
        shares = (said == answers[:, None]).float().mean(0)
        print(
            f"{name}: the answer stands there after block " + ", ".join(f"{i}: {s:.0%}" for i, s in enumerate(shares))
        )
    print("divergence from the final answer, in nats: " + ", ".join(f"{a:.2f} → {b:.2f}" for a, b in tuned.losses))
    some, answer = ids[:1], int(answers[0])
    tuned.read(some).plot(names=[str(i) for i in some[0].tolist()]).savefig("lens-tuned.png")

    # latents at the mark after block 1: which of them carry this answer, against the question about another place?
    block = "transformer.h.1"
    torch.manual_seed(0)
    seen: list[Tensor] = []
    handle = model.get_submodule(block).register_forward_hook(
        lambda module, given, output: seen.append((output[0] if isinstance(output, tuple) else output).flatten(0, 1))
    )
    try:
        model(questions(400, 30_000)[0])
    finally:
        handle.remove()
    autoencoder = SparseAutoencoder()
    print(f"the autoencoder leaves out {autoencoder.learn(seen[0]):.1%} of the variance after block 1")
    place = tw.Layer(block, latents=autoencoder)
    other = some.clone()
    other[0, 0] = (other[0, 0] + 1) % PLACES
    why = tw.targets.Contrast(answer, int(other[0, 1 + other[0, 0]]))  # the answer less that of the other question
    fast = tw.LinearApproximation(model, layer=place).explain(some, why, baselines=other)
    print(f"the other question lowers the score by {float(fast.scores - fast.base_scores):.2f}")
    at_mark = fast.attributions[0, -1]  # (latents,)
    exact = tw.FeatureAblation(model, layer=place).attribute(some, why, baselines=other)[0, -1]
    for latent in at_mark.abs().argsort(descending=True)[:3].tolist():
        print(
            f"latent {latent} at the mark: {at_mark[latent]:+.2f} to first order, {exact[latent]:+.2f} when exchanged alone"
        )
    latent = int(at_mark.abs().argmax())
    pull = tw.IntegratedGradients(model, layer="embeddings", n_steps=32).explain(
        some, tw.Neuron(place, (LENGTH - 1, latent)), baselines=other
    )
    by_token = zip(some[0].tolist(), pull.attributions[0].sum(-1).tolist())
    print(f"what moves latent {latent}: " + ", ".join(f"token {t} {v:+.2f}" for t, v in by_token))
    tw.visualize.bars(at_mark, [f"latent {i}" for i in range(LATENTS)], top=10).savefig("lens-latents.png")


if __name__ == "__main__":
    main()
