"""What each method costs in quality, beside the package that made it known, on one model and the same rows.

    python tests/parity/quality.py target/release/qpipe-worker [MODEL ROWS QUESTIONS]     # default: the shipped model and its data

in an environment with torch 2.11.0, transformers 5.17.0, llmcompressor 0.14.0.1, bitsandbytes 0.50.2 and datasets. Both sides are
calibrated on the same 200 rows (`prompt` and `completion`). Printed for each: perplexity of the completions of 1,000 other
rows, computed by transformers from the written folder, and right answers to all questions, by qpipe's evaluate. It exits
with 1 unless qpipe's perplexity is at most 1.02 times the package's, or their answers differ by chance alone (McNemar, p >= 0.05).

On the shipped model:

    the model                    perplexity 1.0245   right 502 of 1200
    gptq W4A16 g128              perplexity 1.0301, package 1.0301   right 491, package 479 (p 0.16)
    awq W4A16 g128               perplexity 1.0315, package 1.0331   right 487, package 478 (p 0.53)
    smoothquant W8A8             perplexity 1.0245, package 1.0245   right 503, package 499 (p 0.22)
    bnb-nf4                      perplexity 1.0293, package 1.0293   right 513, package 516 (p 0.51)
    bnb-int8                     perplexity 1.0245, package 1.0245   right 499, package 499 (p 1.00)
"""

import json
import math
import pathlib
import sys
import tempfile

import torch
import transformers

import awq
import gptq
from worker import run_action

ROOT = pathlib.Path(__file__).parents[2]
TINY = (ROOT / "examples/tiny", ROOT / "examples/data/base.jsonl", ROOT / "examples/data/heldout.jsonl")
CALIBRATED, SCORED = 200, 1000


def smoothquant_of_llm_compressor(source, rows, folder):
    import datasets
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    model = awq.load(source, "auto")
    ids = [ids for ids, _ in rows]
    data = datasets.Dataset.from_dict(dict(input_ids=ids, attention_mask=[[1] * len(row) for row in ids]))
    recipe = [SmoothQuantModifier(smoothing_strength=0.5), QuantizationModifier(targets="Linear", scheme="W8A8", ignore=["lm_head"])]
    oneshot(
        model=model, dataset=data, processor=transformers.AutoTokenizer.from_pretrained(source), recipe=recipe,
        num_calibration_samples=len(ids), max_seq_length=256, shuffle_calibration_samples=False, batch_size=1,
    )
    model.save_pretrained(folder, save_compressed=True)


def bitsandbytes(source, settings, folder):
    config = transformers.BitsAndBytesConfig(**settings)
    transformers.AutoModelForCausalLM.from_pretrained(source, quantization_config=config, device_map="cpu").save_pretrained(folder)


def mcnemar(ours, theirs):
    lost = sum(theirs[i] and not ours[i] for i in range(len(ours)))
    won = sum(ours[i] and not theirs[i] for i in range(len(ours)))
    n, k = lost + won, min(lost, won)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n) if n else 1.0


def main(program, model=TINY[0], rows_file=TINY[1], questions=TINY[2]):
    model, rows_file = pathlib.Path(model), pathlib.Path(rows_file)
    holds = True
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        prompted = scratch / "prompted.jsonl"
        prompted.write_text("".join(line for line in rows_file.open() if "prompt" in json.loads(line)))
        texts, rows = awq.text_rows(model, prompted)
        calibration, scored = rows[:CALIBRATED], rows[CALIBRATED : CALIBRATED + SCORED]
        (scratch / "rows.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts[:CALIBRATED]))
        params = dict(samples=CALIBRATED, max_length=256, seed=0, statistics="moments")
        statistics = run_action(program, "calibrate", params, dict(model=model, data=scratch / "rows.jsonl"), scratch / "calibrate")

        def measured(folder, name):
            for file in ("tokenizer.json", "tokenizer_config.json"):
                if not (folder / file).exists():
                    (folder / file).write_bytes((model / file).read_bytes())
            loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, device_map="cpu")
            likelihood = awq.figures(loaded.eval(), scored)[1]
            params = dict(tasks=["mcqa"], candidates="text", topic="general knowledge")
            out = run_action(program, "evaluate", params, dict(model=folder, data=questions), scratch / f"answers-{name}")
            answers = [json.loads(line)["correct"] for line in (out / "mcqa.jsonl").open()]
            return math.exp(likelihood), answers

        perplexity, answers = measured(model, "model")
        print(f"{'the model':28} perplexity {perplexity:.4f}   right {sum(answers)} of {len(answers)}", flush=True)
        for name, params, calibrated, peer in (
            ("gptq W4A16 g128", dict(method="gptq", bits=4, group_size=128), True, gptq.llmc_model),
            ("awq W4A16 g128", dict(method="awq", symmetric=True), True, lambda source, rows, folder: awq.llm_compressor(source, rows, True, folder)),
            ("smoothquant W8A8", dict(method="smoothquant", scheme="W8A8"), True, smoothquant_of_llm_compressor),
            ("bnb-nf4", dict(method="bnb-nf4"), False, lambda source, _, folder: bitsandbytes(
                source, dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16), folder)),
            ("bnb-int8", dict(method="bnb-int8"), False, lambda source, _, folder: bitsandbytes(source, dict(load_in_8bit=True), folder)),
        ):
            given = dict(model=model) | (dict(calibration=statistics) if calibrated else {})
            ours = run_action(program, "quantize", params, given, scratch / name.replace(" ", "-"))
            theirs = scratch / f"{name.replace(' ', '-')}-package"
            peer(model, calibration, theirs)
            mine, package = measured(ours, f"{name}-ours"), measured(theirs, f"{name}-theirs")
            p = mcnemar(mine[1], package[1])
            print(
                f"{name:28} perplexity {mine[0]:.4f}, package {package[0]:.4f}   right {sum(mine[1])}, package {sum(package[1])} (p {p:.2f})",
                flush=True)
            holds &= mine[0] <= 1.02 * package[0] or p >= 0.05
    return holds


if __name__ == "__main__":
    sys.exit(0 if main(*sys.argv[1:]) else 1)
