"""Tokens and questions a second of `evaluate` on one CUDA card, bfloat16 and int8, beside transformers with the same requests.

    python benches/evaluate_gpu.py target/release/qpipe-worker DATA [TASK:SHOTS …] [--limit N] [--layers L] [--batches 16 64]
        [--rounds R] [--exact Q] [--skip transformers int8] [--device cuda|cpu] [--hidden H] [--scratch FOLDER]

DATA is the folder of QPIPE_TEST_DATA; hellaswag/hellaswag_val_1000_preprocessed.jsonl, mmlu/{dev,test}.jsonl and
tokenizers/gpt2_tokenizer.json are read. Python has torch 2.11.0, transformers 5.17.0 and tokenizers 0.23.3, no lm_eval. To try
the script out without a card: `--device cpu --layers 1 --hidden 256 --limit 4`.

The model has the shape of Llama-3.1-8B and random weights in bfloat16, made on the card by transformers; its folder (16 GB) is
written for qpipe. qpipe's worker is asked directly, as `qpipe` asks it, one process for all: its `quantize` (int8-dynamic) makes
the int8 model, 18 GB more for a while. All lies in FOLDER, by default /dev/shm where there is room, else a temporary folder, and
is removed in the end.

Both are measured without start-up: qpipe from the moment when its weights are loaded (laying out batches counts) to the last
answer, after a run of all tasks without examples; transformers after its longest batch, with tokens ready. transformers does
what lm-eval's hf backend does: requests with the longest first, right padding without a mask, one pass for requests that differ
in their last token only, logits of all places, sdpa; but without a KV cache, and log-probabilities only of what is scored.
`seconds` are the best of R rounds.

Columns: `tokens/s` counts lm-eval's way, tokens of context + continuation of every request, shared or not; `of floor` is 2 x
(parameters of linear layers x tokens, each once as qpipe counts them + head x scored places) over this card's measured bfloat16
rate, as a part of the seconds; `of int8`, of int8 rows, takes the int8 rate for the linear layers. `x` is transformers' best
time over these seconds. Other lines say by how much log-likelihoods of whole continuations differ, how many questions get the
same answer, and both accuracies; `exact` is transformers in float32 with the first Q questions of each task. Each line is
printed as it is measured; the table comes last, of transformers with the best batch size.
"""

import argparse
import json
import math
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

RUNS = ("hellaswag:0", "mmlu_professional_law:0", "mmlu_moral_scenarios:5", "mmlu_miscellaneous:5")
SHAPE = dict(
    architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=128256, hidden_size=4096, intermediate_size=14336,
    num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, head_dim=128, hidden_act="silu",
    max_position_embeddings=131072, initializer_range=0.02, rms_norm_eps=1e-5, rope_theta=500000.0,
    rope_scaling=dict(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192, rope_type="llama3"),
    attention_bias=False, mlp_bias=False, tie_word_embeddings=False, bos_token_id=None, eos_token_id=50256, use_cache=True,
    torch_dtype="bfloat16",
)
BEGAN = time.perf_counter()


def say(text):
    print(f"{time.perf_counter() - BEGAN:5.0f} s  {text}", flush=True)


# ---------------------------------------------------------------------------------------------------------------- model


def shape(options):
    """config.json, and the parameters of its linear layers and of its head."""
    config = SHAPE | dict(num_hidden_layers=options.layers)
    if options.hidden != SHAPE["hidden_size"]:
        heads = max(options.hidden // config["head_dim"], 1)
        config |= dict(
            hidden_size=options.hidden, intermediate_size=options.hidden * 7 // 2, num_attention_heads=heads,
            num_key_value_heads=heads // 4 or 1)
    hidden, width = config["hidden_size"], config["head_dim"]
    queries, values = config["num_attention_heads"] * width, config["num_key_value_heads"] * width
    block = hidden * (2 * queries + 2 * values + 3 * config["intermediate_size"])
    return config, config["num_hidden_layers"] * block, hidden * config["vocab_size"]


def make_model(folder, config, data, device):
    """Makes the model on the device, and its folder: the model."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    shutil.copyfile(data / "tokenizers/gpt2_tokenizer.json", folder / "tokenizer.json")
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(folder), dtype=torch.bfloat16, attn_implementation="sdpa")
    model = model.to(device).eval()
    if device == "cuda":
        torch.cuda.synchronize()
    say("the model is made")
    # A file a decoder block, written side by side; in files of 5 GB it would take one core half a minute.
    files = {}
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == torch.bfloat16, (name, tensor.dtype)
        part = name.split(".")[2] if name.startswith("model.layers.") else name.removesuffix(".weight")
        files.setdefault(f"model-{part}.safetensors", {})[name] = tensor
    with ThreadPoolExecutor(min(threads(), 8)) as pool:
        list(pool.map(lambda item: write_safetensors(folder / item[0], item[1]), files.items()))
    index = {name: file for file, tensors in files.items() for name in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps(dict(metadata={}, weight_map=index)))
    size = sum(path.stat().st_size for path in folder.iterdir())
    say(f"its folder is written, {size / 1e9:.1f} GB")
    return model


def write_safetensors(path, tensors):
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = dict(dtype="BF16", shape=list(tensor.shape), data_offsets=[begin, end])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            # Both steps leave other threads running.
            file.write(tensor.detach().contiguous().cpu().view(torch.uint8).numpy().data)


def threads():
    return len(os.sched_getaffinity(0))


def rate(device, kind):
    """Operations a second of a large product, the best of several; not a number where there is none of the kind."""
    side = 8192 if device == "cuda" else 1024
    if kind == torch.int8:
        if device == "cpu":
            return math.nan
        make = lambda: torch.randint(-100, 100, (side, side), dtype=torch.int8, device=device)
        # As weights lie: cuBLAS wants the second matrix by columns.
        a, b, multiply = make(), make().t(), torch._int_mm
    else:
        a, b = (torch.randn(side, side, dtype=kind, device=device) for _ in range(2))
        multiply = torch.mm
    try:
        multiply(a, b)
    except RuntimeError as error:
        say(f"no product of {kind}: {str(error)[:160]}")
        return math.nan
    seconds = math.inf
    for number in range(8):
        times = 20 if device == "cuda" else 2
        synchronize(device)
        began = time.perf_counter()
        for _ in range(times):
            multiply(a, b)
        synchronize(device)
        if number > 1:
            seconds = min(seconds, (time.perf_counter() - began) / times)
    return 2 * side**3 / seconds


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


# ---------------------------------------------------------------------------------------------------------------- qpipe


class Worker:
    """qpipe's worker, asked as `qpipe` asks it."""

    def __init__(self, program, scratch, device):
        self.program, self.scratch, self.device = program, scratch, device
        self.process, self.asked, self.told = None, 0, set()

    def start(self):
        self.log = open(self.scratch / "worker.log", "a")
        self.process = subprocess.Popen(
            [self.program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)

    def run(self, kind, params, inputs, device=None):
        """Runs an action: its folder, and of an evaluation seconds from the moment when all is loaded to the last answer."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        self.asked += 1
        folder = self.scratch / f"action-{self.asked}"
        folder.mkdir()
        device = device or self.device
        action = dict(
            request="run", id=self.asked, kind=kind, params=params,
            inputs={port: {"one": str(path)} for port, path in inputs.items()}, scratch=str(folder),
            device={"cuda": 0} if device == "cuda" else device, threads=threads())
        self.process.stdin.write(json.dumps(action) + "\n")
        self.process.stdin.flush()
        began = ended = None
        for line in self.process.stdout:
            now, event = time.perf_counter(), json.loads(line)
            match event["event"]:
                # Written down when the weights are loaded, and before batches are laid out.
                case "unit" if event["name"] == "memory":
                    began = now
                case "progress" if event["unit"] == "questions":
                    ended = now
                case "log" if event["message"] not in self.told and len(self.told) < 3:
                    self.told.add(event["message"])
                    say(f"qpipe says: {event['message'][:160]}")
                case "done":
                    return folder, ended - began if began and ended else None
                case "failed" | "stopped":
                    raise RuntimeError(f"{event.get('message', 'stopped')} {event.get('help') or ''}".strip())
        self.process.wait()
        lines = (self.scratch / "worker.log").read_text().splitlines()
        raise RuntimeError(f"the worker ended with {self.process.returncode}: {' / '.join(lines[-3:])}")

    def end(self):
        if self.process is not None:
            try:
                # The end of its input ends it.
                self.process.stdin.close()
                self.process.wait(20)
            except (subprocess.TimeoutExpired, OSError):
                self.process.kill()


def evaluate(worker, model, data, tasks, shots, limit):
    """Asks tasks that have their data in the same place."""
    params = dict(tasks=tasks, num_fewshot=shots, limit=limit)
    return worker.run("evaluate", params, dict(model=model, data=data_of(data, tasks[0])))


def data_of(data, task):
    return data / ("mmlu" if task.startswith("mmlu") else "hellaswag/hellaswag_val_1000_preprocessed.jsonl")


def warm_up(worker, model, data, runs, limit):
    """Every task without examples; kernels are compiled and chosen then."""
    mmlu = [task for task, _ in runs if task.startswith("mmlu")]
    began = time.perf_counter()
    for tasks in ([list(dict.fromkeys(mmlu))] if mmlu else []) + ([["hellaswag"]] if len(mmlu) < len(runs) else []):
        try:
            evaluate(worker, model, data, tasks, 0, limit)
        except (RuntimeError, OSError) as error:
            say(f"no warm-up with {', '.join(tasks)}: {str(error)[:300]}")
    say(f"qpipe is warm after {time.perf_counter() - began:.1f} s")


class Asked:
    """What was asked, read from an evaluation's folder."""

    def __init__(self, out, task, tokenizer, device):
        found = json.loads((out / "out/evaluation.json").read_text())
        if (found["dtype"], found["device"]) != ("bfloat16", device):
            raise RuntimeError(f"computed in {found['dtype']} on {found['device']}")
        encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
        self.requests, self.questions, self.gold, self.scores = [], [], [], []
        self.scored = 0
        for line in (out / f"out/{task}.jsonl").open():
            sample = json.loads(line)
            context, = sample["contexts"]
            first, known = len(self.requests), encode(context.rstrip())
            for text in sample["continuations"]:
                # lm-eval's way: what ends the context in spaces begins the continuation.
                whole = encode(context + text)
                self.requests.append((known, whole[len(known):]))
            self.questions.append(range(first, len(self.requests)))
            self.gold.append(sample["gold"])
            # The end of the context once, and all but the last token of each continuation.
            self.scored += 1 + sum(len(continuation) - 1 for _, continuation in self.requests[first:])
            self.scores += sample["scores"]
        self.tokens = sum(len(context) + len(continuation) for context, continuation in self.requests)
        self.once = found["tasks"][task]["tokens"]


# --------------------------------------------------------------------------------------------------------- transformers


@torch.inference_mode()
def answer(model, requests, size, most=None):
    """The log-likelihood of each request's continuation, in batches of `size`; of the first `most` batches only."""
    device = model.device
    # What is read, and the requests that it answers.
    asked = {}
    for index, (context, continuation) in enumerate(requests):
        asked.setdefault((*context, *continuation[:-1]), []).append(index)
    inputs = sorted(asked, key=lambda ids: (-len(ids), ids))
    scores = [0.0] * len(requests)
    for first in range(0, len(inputs), size)[:most]:
        some = inputs[first:first + size]
        width = len(some[0])
        batch = torch.tensor([ids + (0,) * (width - len(ids)) for ids in some], device=device)
        logits = model(input_ids=batch, use_cache=False).logits
        rows, places, tokens, owners, indices = [], [], [], [], []
        for row, ids in enumerate(some):
            for index in asked[ids]:
                continuation = requests[index][1]
                rows += [row] * len(continuation)
                places += range(len(ids) - len(continuation), len(ids))
                tokens += continuation
                owners += [len(indices)] * len(continuation)
                indices.append(index)
        rows, places, tokens, owners = (torch.tensor(each, device=device) for each in (rows, places, tokens, owners))
        likely = logits[rows, places].float().log_softmax(-1).gather(1, tokens[:, None])[:, 0].double()
        sums = torch.zeros(len(indices), dtype=torch.float64, device=device).index_add_(0, owners, likely)
        for index, score in zip(indices, sums.tolist()):
            scores[index] = score
        # Before the next batch takes as much.
        del logits
    return scores


def peer(model, requests, size, rounds, device):
    """Seconds, and log-likelihoods."""
    answer(model, requests, size, most=1)
    best = math.inf
    for _ in range(rounds):
        synchronize(device)
        began = time.perf_counter()
        scores = answer(model, requests, size)
        best = min(best, time.perf_counter() - began)
    return best, scores


# ---------------------------------------------------------------------------------------------------------------- table


def choices(scores, questions):
    return [max(range(len(question)), key=lambda place: scores[question[place]]) for question in questions]


def difference(asked, one, other, questions=None):
    """By how much two ways to score the first `questions` differ."""
    some = asked.questions[:questions]
    each = [abs(one[index] - other[index]) for question in some for index in question]
    return f"{sum(each) / len(each):.4f} mean, {max(each):.4f} most"


def agreement(label, names, asked, one, other):
    mine, theirs = choices(one, asked.questions), choices(other, asked.questions)
    count = len(mine)
    same = sum(a == b for a, b in zip(mine, theirs)) / count
    right = lambda picked: sum(pick in gold for pick, gold in zip(picked, asked.gold)) / count
    say(f"{label}, {names}: {difference(asked, one, other)}; {same:.1%} same, accuracy {right(mine):.3f} {right(theirs):.3f}")


HEADER = f"{'task':23} {'':23} {'seconds':>7} {'tokens/s':>8} {'quest./s':>8} {'of floor':>8} {'of int8':>7} {'x':>5}"


class Table:
    def __init__(self, linear, head, rates):
        self.linear, self.head, self.rates, self.rows, self.peers = linear, head, rates, [], {}

    def add(self, label, who, asked, seconds):
        if who.startswith("transformers"):
            self.peers[label] = min(seconds, self.peers.get(label, math.inf))
        self.rows.append((label, who, asked, seconds))
        say(self.line(*self.rows[-1]))

    def fail(self, label, who, error):
        self.rows.append((label, who, None, str(error)))
        say(self.line(*self.rows[-1]))

    def line(self, label, who, asked, seconds):
        if asked is None:
            return f"{label:23} {who:23} not measured: {seconds[:300]}"
        wide, narrow = self.rates
        linear, head = 2 * self.linear * asked.once, 2 * self.head * asked.scored
        of_int8 = f"{(linear / narrow + head / wide) / seconds:.0%}" if "int8" in who and narrow == narrow else ""
        ratio = f"{self.peers[label] / seconds:.2f}" if label in self.peers else ""
        return (
            f"{label:23} {who:23} {seconds:7.3f} {asked.tokens / seconds:8.0f} {len(asked.questions) / seconds:8.1f} "
            f"{(linear + head) / wide / seconds:8.1%} {of_int8:>7} {ratio:>5}")

    def print(self):
        """All rows, of transformers' those of the best batch size."""
        print(HEADER)
        for row in self.rows:
            label, who, asked, seconds = row
            if asked is None or not who.startswith("transformers") or seconds == self.peers[label]:
                print(self.line(*row), flush=True)


# ----------------------------------------------------------------------------------------------------------------- main


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=lambda path: pathlib.Path(path).resolve(), help="qpipe-worker")
    parser.add_argument("data", type=lambda path: pathlib.Path(path).resolve(), help="the folder of QPIPE_TEST_DATA")
    parser.add_argument("runs", nargs="*", default=RUNS, metavar="TASK:SHOTS")
    parser.add_argument("--limit", type=int, default=200, help="questions a task")
    parser.add_argument("--layers", type=int, default=SHAPE["num_hidden_layers"])
    parser.add_argument("--hidden", type=int, default=SHAPE["hidden_size"], help="a narrower model, to try the script")
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64], help="transformers' batch sizes")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--exact", type=int, default=10, help="questions a task in float32")
    parser.add_argument("--skip", nargs="+", choices=["transformers", "int8"], default=[])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--scratch", help="where to make the temporary folder")
    options = parser.parse_args()
    options.runs = [(task, int(shots)) for task, shots in (run.split(":") for run in options.runs)]
    return options


def scratch_of(options, bytes_needed):
    if options.scratch is None and shutil.disk_usage("/dev/shm").free > bytes_needed:
        return "/dev/shm"
    return options.scratch


def measure_own(worker, table, model, who, options, tokenizer):
    """A row a run: what each asked, its folder and its log-likelihoods."""
    found = {}
    for task, shots in options.runs:
        label, seconds = f"{task.removeprefix('mmlu_')} {shots}-shot", math.inf
        try:
            for _ in range(options.rounds):
                out, took = evaluate(worker, model, options.data, [task], shots, options.limit)
                seconds = min(seconds, took)
            asked = Asked(out, task, tokenizer, options.device)
            found[label] = asked
            table.add(label, who, asked, seconds)
        except (RuntimeError, OSError) as error:
            table.fail(label, who, error)
    return found


def measure_peer(table, model, found, options):
    """A row a run and batch size: log-likelihoods of each run."""
    scores = {}
    for label, asked in found.items():
        each = {}
        for size in options.batches:
            try:
                seconds, each[size] = peer(model, asked.requests, size, options.rounds, options.device)
                table.add(label, f"transformers, batch {size}", asked, seconds)
            except torch.OutOfMemoryError:
                table.fail(label, f"transformers, batch {size}", "no memory")
                torch.cuda.empty_cache()
        if each:
            scores[label] = each[max(each)]
            agreement(label, "qpipe/transformers", asked, asked.scores, scores[label])
        if len(each) > 1:
            # How far two ways of the same program are apart.
            agreement(label, f"batch {min(each)}/{max(each)}", asked, each[min(each)], each[max(each)])
    return scores


def measure_exact(model, found, scores, options):
    """How far both are from float32."""
    model.float()
    for label, asked in found.items():
        count = min(options.exact, len(asked.questions))
        exact = answer(model, asked.requests[: asked.questions[count - 1].stop], 8)
        theirs = f"; transformers {difference(asked, scores[label], exact, count)}" if label in scores else ""
        say(f"{label}, to exact, {count} questions: qpipe {difference(asked, asked.scores, exact, count)}{theirs}")


def quantize(worker, model):
    """The folder of the int8 model; on the processor where the card fails."""
    for device in dict.fromkeys((worker.device, "cpu")):
        began = time.perf_counter()
        try:
            folder, _ = worker.run("quantize", dict(method="int8-dynamic"), dict(model=model), device=device)
        except (RuntimeError, OSError) as error:
            say(f"quantize on {device} failed: {str(error)[:300]}")
            continue
        shutil.rmtree(folder / "units", ignore_errors=True)
        say(f"quantize on {device}: {time.perf_counter() - began:.1f} s")
        return folder / "out"
    return None


def main():
    options = arguments()
    device = options.device
    config, linear, head = shape(options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    with tempfile.TemporaryDirectory(dir=scratch_of(options, 5 * (linear + 2 * head))) as scratch:
        scratch = pathlib.Path(scratch)
        name = torch.cuda.get_device_name() if device == "cuda" else f"{threads()} cores"
        rates = [rate(device, kind) for kind in (torch.bfloat16, torch.int8)]
        say(f"{name}; products {rates[0] / 1e12:.1f} TFLOP/s in bfloat16, {rates[1] / 1e12:.1f} TOP/s in int8")
        size = f"{options.layers} layers, hidden {options.hidden}, {(linear + 2 * head) / 1e9:.2f}e9 parameters"
        say(f"{size}; {options.limit} questions a task; {scratch}")
        model = make_model(scratch / "model", config, options.data, device)
        if device == "cuda":
            torch.cuda.empty_cache()
        tokenizer = Tokenizer.from_file(str(scratch / "model/tokenizer.json"))
        table, worker = Table(linear, head, rates), Worker(options.program, scratch, device)
        say(HEADER)
        try:
            warm_up(worker, scratch / "model", options.data, options.runs, options.limit)
            found = measure_own(worker, table, scratch / "model", "qpipe bfloat16", options, tokenizer)
            scores = {}
            if "transformers" not in options.skip:
                scores = measure_peer(table, model, found, options)
            if options.exact:
                try:
                    measure_exact(model, found, scores, options)
                except torch.OutOfMemoryError:
                    say("no memory for float32")
            del model
            if device == "cuda":
                torch.cuda.empty_cache()
            if "int8" not in options.skip and (narrow := quantize(worker, scratch / "model")):
                warm_up(worker, narrow, options.data, options.runs, options.limit)
                for label, asked in measure_own(worker, table, narrow, "qpipe int8", options, tokenizer).items():
                    if label in found:
                        agreement(label, "int8/bfloat16", asked, asked.scores, found[label].scores)
        except (RuntimeError, OSError) as error:
            say(f"not gone on with: {str(error)[:600]}")
        finally:
            worker.end()
    say("done")
    table.print()


if __name__ == "__main__":
    main()
