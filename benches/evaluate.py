"""Seconds that `evaluate` and lm-evaluation-harness 0.4.13 take for the same questions, side by side in one run.

    python benches/evaluate.py target/release/qpipe-worker DATA [LIMIT [alone] [short] [TASK:SHOTS …]]     # DATA: the folder of QPIPE_TEST_DATA

in the environment of tests/parity/harness.py; with `alone` without lm-eval. All subjects
of mmlu are asked where they are named, `mmlu:5`, and without lm-eval, too. A random-weight Llama of 8 layers, hidden 512, intermediate 1408, float32, two
threads. Its tokens are GPT-2's, a text has about as many as with a newer model's; with `short` they are the 900 of the parity scripts, of which a
text has more than twice as many, so that attention is twice the part of the whole. lm-eval runs with several batch sizes and its best one counts. Start-up (loading, and of qpipe also starting) is
what one question without examples takes; it is listed apart. The floor is 2 x (parameters of linear layers x tokens, each
once + head x scored positions) over the rate of this machine's float32 products, measured here. The second floor counts the two
products of attention, too: every token with those that it sees.
"""

import json
import pathlib
import shutil
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests/parity"))

import lm_eval
import torch
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

from harness import FILES, data, task_config, tokenizer
from worker import run_action

SHAPE = dict(hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=8)
# Task, examples, lm-eval's batch sizes: on a CPU long prompts are fastest in small batches, and 64 of them take minutes each.
RUNS = (
    ("arc_easy", 0, (8, 32, 64)), ("hellaswag", 0, (8, 32, 64)), ("mmlu_professional_law", 0, (4, 8, 32)),
    ("mmlu_professional_law", 5, (1, 4, 8)), ("mmlu_moral_scenarios", 5, (1, 4, 8)), ("mmlu_miscellaneous", 5, (1, 4, 8)),
    ("mmlu", 5, ()),
)
# Subjects that the parity script leaves out.
FILES |= {f"mmlu_{subject}": f"mmlu/default/mmlu_{subject}.yaml" for subject in ("moral_scenarios", "miscellaneous")}


def checkpoint(folder, shared, is_short):
    if is_short:
        tokenizer(folder, shared, True, None)
        ends = {"vocab_size": 4096, "bos_token_id": 0, "eos_token_id": 1}
    else:
        mark = "<|endoftext|>"
        file = str(shared / "tokenizers/gpt2_tokenizer.json")
        PreTrainedTokenizerFast(tokenizer_file=file, bos_token=mark, eos_token=mark).save_pretrained(folder)
        ends = {"vocab_size": 50257, "bos_token_id": 50256, "eos_token_id": 50256}
    config = LlamaConfig(**SHAPE, **ends, max_position_embeddings=16384)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    linear = 8 * (4 * 512 * 512 + 3 * 512 * 1408)
    return linear, 512 * ends["vocab_size"]


def matmul_rate():
    """Operations a second of [512, 512] x [512, 1408] in float32, the best of several."""
    a, b = torch.randn(512, 512), torch.randn(512, 1408)
    best = 0.0
    for _ in range(30):
        began = time.perf_counter()
        for _ in range(10):
            a @ b
        best = max(best, 10 * 2 * 512 * 512 * 1408 / (time.perf_counter() - began))
    return best


def lm_seconds(model, config, task, shots, limit, sizes):
    """Of the best batch size: seconds in requests, seconds of everything, the size."""
    best = None
    for size in sizes:
        began = time.perf_counter()
        lm = HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=size)
        asked = {"seconds": 0.0}
        answer = lm.loglikelihood

        def timed(requests, **options):
            start = time.perf_counter()
            found = answer(requests, **options)
            asked["seconds"] += time.perf_counter() - start
            return found

        lm.loglikelihood = timed
        lm_eval.simple_evaluate(
            model=lm, tasks=[{**config, "task": task}], num_fewshot=shots, limit=limit, bootstrap_iters=0, log_samples=False,
            confirm_run_unsafe_code=True)
        found = (asked["seconds"], time.perf_counter() - began, size)
        best = min(best, found) if best else found
    return best


def qpipe_seconds(program, model, folder, task, shots, limit, scratch):
    began = time.perf_counter()
    params = {"tasks": [task], "num_fewshot": shots, "limit": limit}
    out = run_action(program, "evaluate", params, {"model": model, "data": folder}, scratch, threads=2)
    return time.perf_counter() - began, out


def scored_positions(out, task, tokens):
    """Places whose prediction is needed: the end of each context once, and all but the last token of each continuation."""
    total = 0
    for line in (out / f"{task}.jsonl").open():
        sample = json.loads(line)
        lengths = [len(tokens(text, add_special_tokens=False).input_ids) for text in sample["continuations"]]
        total += 1 + sum(length - 1 for length in lengths)
    return total


def attended(out, task, tokens):
    """Pairs of a token and one that it sees. What all contexts begin with is there once, and what the continuations of a
    question begin with."""
    questions = []
    for line in (out / f"{task}.jsonl").open():
        sample = json.loads(line)
        context = sample["contexts"][0]
        ends = [tokens(context + text).input_ids[:-1] for text in sample["continuations"]]
        questions.append((ends, common(ends)))
    prefix = min(common([ends[0] for ends, _ in questions]), min(shared for _, shared in questions))
    pairs = prefix**2 / 2
    for ends, shared in questions:
        pairs += (shared**2 - prefix**2) / 2 + sum((len(end) ** 2 - shared**2) / 2 for end in ends)
    return pairs


def common(rows):
    """How many tokens all `rows` begin with."""
    return next((place for place, column in enumerate(zip(*rows)) if len(set(column)) > 1), min(map(len, rows)))


def operations(out, tokens, linear, head):
    """Those of the floor, and those of attention, of what was asked."""
    floor = attention = 0
    width = SHAPE["num_hidden_layers"] * SHAPE["hidden_size"]
    for task, result in json.loads((out / "evaluation.json").read_text())["tasks"].items():
        floor += 2 * (linear * result["tokens"] + head * scored_positions(out, task, tokens))
        attention += 2 * 2 * width * attended(out, task, tokens)
    return floor, attention


def main(program, shared, limit=400, *wanted):
    shared, limit = pathlib.Path(shared), int(limit)
    is_alone, is_short = "alone" in wanted, "short" in wanted
    wanted = [word for word in wanted if word not in ("alone", "short")]
    unknown = set(wanted) - {f"{task}:{shots}" for task, shots, _ in RUNS}
    if unknown:
        sys.exit(f"not among the runs: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        model = scratch / "model"
        model.mkdir()
        linear, head = checkpoint(model, shared, is_short)
        folders = data(scratch, shared)
        folders["mmlu"] = shared / "mmlu"
        folders["hellaswag"] = scratch / "hellaswag-real"
        folders["hellaswag"].mkdir()
        shutil.copy(shared / "hellaswag/hellaswag_val_1000_preprocessed.jsonl", folders["hellaswag"] / "validation.jsonl")
        tokens = AutoTokenizer.from_pretrained(model)
        rate = matmul_rate()
        print(f"float32 products: {rate / 1e9:.0f} GFLOP/s; {limit} questions a task", flush=True)
        print(f"{'task':24} {'lm-eval':>9} {'batch':>5} {'qpipe':>8} {'ratio':>7} {'of floor':>9} {'with attention':>14} | with start-up: lm-eval, qpipe")
        for index, (task, shots, sizes) in enumerate(RUNS):
            if f"{task}:{shots}" not in wanted and (wanted or not sizes):
                continue
            requests = whole = size = float("nan")
            if sizes and not is_alone:
                config = task_config(task, folders, scratch)
                if task == "hellaswag":
                    # The rows are prepared already, and there are no others.
                    config |= {"process_docs": None, "training_split": None}
                requests, whole, size = lm_seconds(model, config, task, shots, limit, sizes)
            start, _ = qpipe_seconds(program, model, folders[task], "mmlu_anatomy" if task == "mmlu" else task, 0, 1, scratch / f"one-{index}")
            took, out = qpipe_seconds(program, model, folders[task], task, shots, limit, scratch / f"all-{index}")
            floor, attention = (count / rate for count in operations(out, tokens, linear, head))
            label = f"{task} {shots}-shot"
            print(
                f"{label:24} {requests:8.1f}s {size:5} {took - start:7.1f}s {requests / (took - start):6.2f}x "
                f"{floor / (took - start):9.0%} {(floor + attention) / (took - start):14.0%} | {whole:.1f} s, {took:.1f} s", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(2)
    main(*sys.argv[1:])
