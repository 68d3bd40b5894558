"""The demo on text: which words, and which sentence, made a language model's answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from torchwhy.backprop.lrp import LRP
from torchwhy.samples.prompt import Prompt
from torchwhy.shapley.exact_shapley import ExactShapley
from torchwhy.shapley.kernel_shap import KernelSHAP
from torchwhy.targets.of_classes import Contrast

if TYPE_CHECKING:
    from torchwhy.explanation import Explanation
    from torchwhy.models.language import LanguageModel

STORY = "Anna lives in Berlin. Her brother Tom lives in Madrid. The weather is nice today. Where does Tom live? Tom lives in"
RIGHT, WRONG = " Madrid", " Berlin"
# not the words that are to be gone on with: without them nothing would be
WHOLE_SENTENCE = r"[^.?!]+[.?!]\s*"


class Answer(NamedTuple):
    """One answer to why a model said something.

    Args:
        question: what was asked, in words.
        explanation: what was found.
    """

    question: str
    explanation: Explanation

    @property
    def lines(self) -> list[str]:
        """The units by what they have to do with the answer, those that speak for it the most first."""
        values, names = self.explanation.features()[0], (self.explanation.names or [[]])[0]
        values = values.sum(0) if values.dim() == 2 else values
        return [f"{float(values[i]):+8.2f}  {names[i]}" for i in values.argsort(descending=True).tolist()]


def explain_answer(loaded: LanguageModel, story: str = STORY, *, effort: float = 1.0) -> Iterator[Answer]:
    """Yield why a language model goes on as it does: by word, by sentence, by token of the answer.

    LRP and KernelSHAP are taken because they put the word first that holds the answer. DeepLIFT, although it adds up to the
    change of the score, does not, and integrated gradients from padding have a large gap on this model.

    Args:
        loaded: the model and its tokenizer.
        story: a text whose last sentence is to be gone on with.
        effort: a factor for the number of samples.
    """
    model, tokenizer = loaded
    contrast, words = Contrast(RIGHT, WRONG), Prompt(tokenizer, story)
    asked = f"why{RIGHT} and not{WRONG}"
    yield Answer(f"{asked}, by LRP", LRP(model).explain(words, contrast))
    shap = KernelSHAP(model, n_samples=max(64, round(200 * effort)), generator=0)
    yield Answer(f"{asked}, by KernelSHAP", shap.explain(words, contrast))
    sentences = Prompt(tokenizer, story, RIGHT, units=WHOLE_SENTENCE, absent="remove")
    yield Answer(f"which sentence made{RIGHT}, by removal (Shapley values)", ExactShapley(model).explain(sentences))
    said = Prompt(tokenizer, story, max_new_tokens=8)
    yield Answer("every token of the answer, by LRP", LRP(model).explain(said, target="each"))
