"""Compares `evaluate` with transformers, question by question, and prints what both cost.

    python tests/parity/mcqa.py --model $QPIPE_TEST_DATA/hf/stories260K --data $QPIPE_TEST_DATA/mmlu/test.jsonl
    python tests/parity/mcqa.py --random qwen3 --tokenizer $QPIPE_TEST_DATA/tokenizers/gpt2_tokenizer.json \
        --data $QPIPE_TEST_DATA/mmlu/test.jsonl --candidates text

Needs transformers 5 with torch 2.11, and the built worker. The reference is the plain loop of the published
study: batch 1, one forward pass a candidate, log-softmax in float32. A score is a sum over a candidate's tokens, and
so is its error: exits with 1 when a score is further away than --tolerance a token. Questions that are longer than the model's context are left out first.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import torch
import transformers

LETTERS = "ABCD"
# Questions that `benchmark` answers before it measures.
WARM_UP = 3


def prompt_and_candidates(row, topic, candidates):
    prompt = f"The following are multiple choice questions about {topic}.\n\n{row['question']}\n"
    if candidates == "letters":
        prompt += "".join(f"{letter}. {choice}\n" for letter, choice in zip(LETTERS, row["choices"]))
        return prompt + "Answer:", [f" {letter}" for letter in LETTERS]
    return prompt + "Answer:", [f" {choice}" for choice in row["choices"]]


def encode(tokenizer, row, options):
    prompt, candidates = prompt_and_candidates(row, options.topic, options.candidates)
    start = len(tokenizer(prompt, add_special_tokens=False).input_ids)
    return start, [tokenizer(prompt + text, add_special_tokens=False).input_ids for text in candidates]


@torch.no_grad()
def reference(model, tokenizer, row, options):
    start, sequences = encode(tokenizer, row, options)
    scores = []
    for ids in sequences:
        logits = model(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1].float()
        targets = torch.tensor(ids[start:]).unsqueeze(1)
        scores.append(logits.log_softmax(-1).gather(1, targets).double().sum().item())
    return scores


def random_model(family, tokenizer_file, folder):
    """A small model of `family` with fresh weights, saved as a checkpoint folder."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(
        family, vocab_size=50304, hidden_size=256, intermediate_size=512, num_hidden_layers=4,
        num_attention_heads=8, num_key_value_heads=4, head_dim=32, max_position_embeddings=2048,
        initializer_range=0.08, bos_token_id=None, eos_token_id=None, pad_token_id=None, tie_word_embeddings=True,
    )
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    shutil.copy(tokenizer_file, pathlib.Path(folder) / "tokenizer.json")


class Worker:
    def __init__(self, path):
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([path], stdin=pipe, stdout=pipe, text=True)
        self.event()

    def event(self):
        return json.loads(self.process.stdout.readline())

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def run(self, kind, params, model, data, scratch, threads):
        """Runs one node and returns the processor time it took in seconds."""
        action = {
            "request": "run", "id": 1, "kind": kind, "params": params, "scratch": str(scratch), "device": "cpu",
            "threads": threads, "inputs": {"model": {"one": str(model)}, "data": {"one": str(data)}},
        }
        began = self.cpu_seconds()
        print(json.dumps(action), file=self.process.stdin, flush=True)
        while (event := self.event())["event"] not in ("done", "failed"):
            pass
        if event["event"] == "failed":
            sys.exit(f"the worker failed: {event}")
        return self.cpu_seconds() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", default="target/release/qpipe-worker")
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--random", metavar="FAMILY", help="llama, mistral, qwen2, qwen3")
    parser.add_argument("--tokenizer", type=pathlib.Path)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--candidates", choices=["letters", "text"], default="letters")
    parser.add_argument("--topic", default="general knowledge")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        if options.random:
            options.model = folder / "model"
            random_model(options.random, options.tokenizer, options.model)
        model = transformers.AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(options.model / "tokenizer.json"))
        context = model.config.max_position_embeddings
        rows = [json.loads(line) for line in options.data.read_text().split("\n") if line]
        rows = [row for row in rows if max(map(len, encode(tokenizer, row, options)[1])) <= context]
        rows = rows[:: max(1, len(rows) // options.questions)][: options.questions]
        data = folder / "questions.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))

        began = time.process_time()
        expected = [reference(model, tokenizer, row, options) for row in rows]
        reference_seconds = time.process_time() - began

        worker = Worker(options.worker)
        params = {"topic": options.topic, "candidates": options.candidates, "dtype": "float32"}
        seconds = worker.run("evaluate", params, options.model, data, folder / "evaluate", options.threads)
        params["questions"] = len(rows)
        sequential_seconds = worker.run("benchmark", params, options.model, data, folder / "benchmark", options.threads)
        answers = [json.loads(line) for line in (folder / "evaluate/out/mcqa.jsonl").read_text().split("\n") if line]
        benchmark = json.loads((folder / "benchmark/out/benchmark.json").read_text())

    distances, a_token = [], []
    for row, answer, scores in zip(rows, answers, expected):
        start, sequences = encode(tokenizer, row, options)
        for ids, found, score in zip(sequences, answer["scores"], scores):
            distances.append(abs(found - score))
            a_token.append(distances[-1] / (len(ids) - start))
    same = sum(answer["pred"] == scores.index(max(scores)) for answer, scores in zip(answers, expected))
    count = len(rows)
    print(f"questions                 {count} ({options.candidates})")
    print(f"furthest score            {max(distances):.2e}, {max(a_token):.2e} a token")
    print(f"same answer               {same}")
    print(f"transformers, plain loop  {reference_seconds / count * 1e3:.2f} ms of processor time a question")
    print(f"benchmark, sequential     {sequential_seconds / (count + WARM_UP) * 1e3:.2f}")
    print(f"evaluate                  {seconds / count * 1e3:.2f}")
    print(f"peak                      {benchmark['avg_peak_vram_MB']:.1f} MiB, weights {benchmark['weight_bytes'] / 2**20:.1f} MiB")
    sys.exit(len(answers) != len(rows) or max(a_token) > options.tolerance)


if __name__ == "__main__":
    main()
