"""Captum's attribution of language models over :class:`torchwhy.Prompt`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

import torchwhy as tw
from torchwhy.captum.methods import CaptumMethod
from torchwhy.captum.question import CaptumCall
from torchwhy.captum.signatures import bind
from torchwhy.captum.text_inputs import InterpretableInput
from torchwhy.engine.structure import AnyForm, Keywords
from torchwhy.samples.tokens import TokenizerLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GENERATION = {"max_new_tokens": 25, "do_sample": False, "temperature": None, "top_p": None}  # Captum's defaults
FOR_EACH_TOKEN = (
    "FeatureAblation",
    "ShapleySampling",
    "ExactShapley",
    "IntegratedGradients",
    "DeepLIFT",
    "InputXGradient",
)


@dataclass
class LLMAttributionResult:
    """What a language model's response is explained by.

    Args:
        input_tokens: the d features of the prompt.
        output_tokens: the T tokens of the response.
        seq_attr: ``(d,)``, for the log probability of the whole response.
        token_attr: ``(T, d)``, for that of each of its tokens; None of methods that fit the whole.
        output_probs: Captum's; None here.
        inp: the input.
    """

    input_tokens: list[str]
    output_tokens: list[str]
    seq_attr: Tensor
    token_attr: Tensor | None = None
    output_probs: Tensor | None = None
    inp: InterpretableInput | None = None

    @property
    def seq_attr_dict(self) -> dict[str, float]:
        """The attribution of each feature by name; of features of one name the last one's."""
        return dict(zip(self.input_tokens, self.seq_attr.tolist()))

    def plot_token_attr(self, show: bool = False) -> tuple[Figure, Axes]:
        """Draw the table of responses' tokens by features.

        Raises:
            ValueError: there is no attribution of each token.
        """
        if self.token_attr is None:
            raise ValueError("token_attr is None: the method explained the whole response")
        figure = tw.visualize.matrix(self.token_attr, rows=self.output_tokens, columns=self.input_tokens)
        return figure, figure.axes[0]

    def plot_seq_attr(self, show: bool = False) -> tuple[Figure, Axes]:
        """Draw a bar for each feature."""
        figure = tw.visualize.bars(self.seq_attr, names=self.input_tokens)
        return figure, figure.axes[0]


class LLMAttribution(CaptumMethod):
    """The log probability of a response, and of each of its tokens, explained by the features of a prompt.

    Args:
        attr_method: one of this module, made of the language model.
        tokenizer: its tokenizer.
        attr_target: ``"log_prob"``.
    """

    init = "attr_method, tokenizer, attr_target='log_prob'"
    call = (
        "inp, target=None, num_trials=1, gen_args=None, use_cached_outputs=True, _inspect_forward=None, "
        "forward_in_tokens=True, **kwargs"
    )

    def __init__(self, *args: object, **kwargs: object) -> None:
        given = bind(type(self).__name__, self.init, args, kwargs)
        self.attr_method: CaptumMethod = given["attr_method"]
        self.tokenizer: TokenizerLike = given["tokenizer"]
        if not isinstance(self.attr_method, CaptumMethod):
            raise TypeError(f"attr_method: expected one of torchwhy.captum.attr, got {type(self.attr_method).__name__}")
        if given.get("attr_target", "log_prob") != "log_prob":
            raise NotImplementedError("torchwhy.captum: attr_target='prob'; tw.Prompt takes a target of your own")

    def attribute(self, *args: object, **kwargs: object) -> LLMAttributionResult:
        """Return the attributions of the response.

        Raises:
            NotImplementedError: other settings of the generation than the number of tokens.
        """
        given = bind(f"{type(self).__name__}.attribute", self.call, args, kwargs)
        inp, target, generation = given.pop("inp"), given.pop("target"), {**GENERATION, **(given.pop("gen_args") or {})}
        trials = given.pop("num_trials", 1)
        given = {
            k: v for k, v in given.items() if k not in ("use_cached_outputs", "_inspect_forward", "forward_in_tokens")
        }
        if any(v != GENERATION.get(k) for k, v in generation.items() if k != "max_new_tokens"):
            raise NotImplementedError(
                "torchwhy.captum: gen_args other than max_new_tokens; generate first, and give target="
            )
        prompt = inp.as_prompt(self.tokenizer, target, int(generation["max_new_tokens"] or 0))
        ready = prompt.bind(self.attr_method.model)  # one response for all trials
        found = [self._explain(ready, given) for _ in range(trials)]
        each = torch.stack([e.attributions[0] for e in found]).mean(0)
        per_token = each.dim() == 2
        return LLMAttributionResult(
            list(inp.values), list(ready.details["response"][0]),
            each.sum(0) if per_token else each, each if per_token else None, inp=inp,
        )  # fmt: skip

    def _explain(self, prompt: tw.Sample, given: Keywords) -> tw.Explanation:
        """Return what our method says of a prompt that is ready: of each token, where it can."""
        inner = self.attr_method
        call: CaptumCall = inner.question(bind(type(inner).__name__, inner.row.attribute, (prompt,), given))
        settings: AnyForm = call.settings if call.layer is None else {**call.settings, "layer": call.layer}
        target = "each" if inner.row.ours in FOR_EACH_TOKEN else None
        return call.ours(call.model, **settings).explain(prompt, target)


class LLMGradientAttribution(LLMAttribution):
    """The same for methods of gradients at the embeddings, such as ``LayerIntegratedGradients(model, embeddings)``.

    Args:
        attr_method: one of this module, made of the language model and the layer.
        tokenizer: its tokenizer.
    """

    init = "attr_method, tokenizer"
    call = "inp, target=None, gen_args=None, **kwargs"
