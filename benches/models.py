"""A whole model with random weights on a CPU or a card: qpipe beside transformers, torchao and bitsandbytes.

    cargo build --release --workspace
    python benches/models.py target/release/qpipe DATA [QUESTIONS] [--layers L] [--dtypes float32 bfloat16] [--peers NAME …] [--rounds R]
    python benches/models.py target/release/qpipe DATA [QUESTIONS] --device cuda --shape llama-3.1-8b --dtypes bfloat16 [--batches 1 8 32]

DATA is the folder of QPIPE_TEST_DATA (mmlu/test.jsonl and tokenizers/gpt2_tokenizer.json are read). Python has torch 2.11.0,
transformers 5.17.0, torchao 0.18.0, bitsandbytes 0.50.2, accelerate 1.15.0 and tokenizers 0.23.3; `--compile` needs a C++
compiler, too. The worker must lie beside the program. All is written to a temporary folder (TMPDIR says where) that is removed
in the end: 12 GB. The table comes last, to stdout; each row, as it is measured, to stderr.

One pipeline makes the model (Qwen3-0.6B's shape: hidden 1024, intermediate 3072, 28 layers, 16 heads, 8 of keys and values, head_dim
128, vocabulary 151936, tied embeddings; or Llama-3.1-8B's) in float32 and in bfloat16, quantizes each of the two, and measures all of them. GPTQ's 4 bits
are stored and multiplied as W4A16 is, SmoothQuant's dynamic W8A8 as W8A8: they have no rows of their own. `int8 head`: the
embedding, which is the output projection as well, in int8 besides. The peers read the checkpoints that qpipe made, a process
each. On a CPU all have two threads. torchao's 4-bit rows are its prototypes, the only ones that it has for CPUs. Peers run
eagerly; `--compile` adds rows through torch.compile. A row that cannot be measured says why.

Columns:
- `linears`, `whole`: MiB of the decoder blocks' linear layers, and of all weights (a tied matrix counts once), as loaded;
  `of base`: the linears beside those of the base in the first type.
- `sequential`: study A's protocol: QUESTIONS (default 5) four-choice questions of 90 to 120 tokens, one forward pass a
  candidate, the last token scored and not read, logits of all places, tokenizing included; after three questions to warm up.
  Tokens of prompt + candidate over all candidates a second; then its ratio to qpipe's base in the first type and to transformers'.
- `prefill`: tokens/s of a prompt of 512 tokens, to the first new token; `decode`: tokens/s of 32 greedy tokens after it, through
  the KV cache. Medians of three repetitions, of steps.
- `bound`: tokens/s if a step took as long as reading its weights (here all of them) at the rate at which this machine copies,
  each byte read and written; `of it`: decode beside that.
- `busy`: the part of all cores that other programs kept busy just before, of qpipe's rows meanwhile, too. Above 10 % a row is worth little.
With `--batches` of more than one prompt a second table has `prefill` and `decode` of each, over all prompts, and `peak`, MiB of the
card's memory at most meanwhile, weights, keys and values, and activations together.
With `--rounds R` every row is measured R times, all rows before the next round; medians of the rounds.
"""

import argparse
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

THREADS = 2
# Where a peer's process computes.
DEVICE = os.environ.get("QPIPE_BENCH_DEVICE", "cpu")
SHAPES = {
    "qwen3-0.6b": dict(
        architectures=["Qwen3ForCausalLM"], model_type="qwen3", vocab_size=151936, hidden_size=1024, intermediate_size=3072,
        num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8, head_dim=128, hidden_act="silu",
        max_position_embeddings=40960, initializer_range=0.02, rms_norm_eps=1e-6, rope_theta=1000000, attention_bias=False,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=0, use_cache=True, dtype="bfloat16",
    ),
    "llama-3.1-8b": dict(
        architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=128256, hidden_size=4096, intermediate_size=14336,
        num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, head_dim=128, hidden_act="silu",
        max_position_embeddings=131072, initializer_range=0.02, rms_norm_eps=1e-5, rope_theta=500000.0, attention_bias=False,
        mlp_bias=False, tie_word_embeddings=False, bos_token_id=None, eos_token_id=0, use_cache=True, dtype="bfloat16",
    ),
}
TOPIC = "general knowledge"
# The published study's questions have 104 tokens on average.
SHORTEST, LONGEST = 90, 120
WARM_UP, PROMPT, NEW, REPEATS = 3, 512, 32, 3
SIZES = dict(float32=4, bfloat16=2)
SHORT = dict(float32="f32", bfloat16="bf16")
# A peer that needs longer than this for a row is not waited for.
PATIENCE = 1800
MIB = 1 << 20


# ---------------------------------------------------------------------------------------------------------------- qpipe


def variants(dtype, shape):
    """The `quantize` nodes from a base of this type, by their rows' names; None is the base itself."""
    rows = {
        "base": None,
        "W8A8": dict(method="int8-dynamic"),
        "LLM.int8": dict(method="bnb-int8"),
        "NF4": dict(method="bnb-nf4", compute_dtype=dtype),
        "W4A16 g128": dict(method="rtn", scheme="W4A16", group_size=128),
        "W4A8 g128": dict(method="smoothquant", scheme="W4A8", group_size=128, calibration=f"ranges_{SHORT[dtype]}"),
    }
    # An embedding that is not tied is no matrix of a product. bitsandbytes' formats have no place for a head in int8.
    head = dict(lm_head="int8", embeddings="int8") if SHAPES[shape]["tie_word_embeddings"] else dict(lm_head="int8")
    for name in ("W8A8", "W4A16 g128", "W4A8 g128"):
        rows[f"{name}, int8 head"] = rows[name] | head
    if dtype == "float32":
        # What bitsandbytes does on a CPU with a model in float32, whatever its type to compute in.
        rows["NF4, bf16 products"] = dict(method="bnb-nf4", compute_dtype="bfloat16")
    return rows


def pipeline(options, folder):
    """The pipeline, and of each row the node that measures it."""
    resources = dict(threads=THREADS, device=options.device)
    nodes, speeds = {name: dict(kind="download", data=f"{name}.jsonl") for name in ("questions", "texts")}, {}
    for dtype in options.dtypes:
        short = SHORT[dtype]
        nodes[f"base_{short}"] = dict(
            kind="download", model="random:config.json", tokenizer="tokenizer.json", dtype=dtype, label=f"base {short}")
        # Speed does not depend on what a calibration found: a short one will do.
        nodes[f"ranges_{short}"] = dict(
            kind="calibrate", model=f"base_{short}", data="texts", samples=4, max_length=64, statistics="ranges",
            resources=resources)
        for number, (name, method) in enumerate(variants(dtype, options.shape).items()):
            if method and options.only and name not in options.only:
                continue
            model = f"base_{short}"
            if method:
                nodes[f"model_{short}_{number}"] = dict(kind="quantize", model=model, **method, label=f"{name} {short}")
                model = f"model_{short}_{number}"
            speeds[name, dtype] = f"speed_{short}_{number}"
            nodes[f"speed_{short}_{number}"] = dict(
                kind="benchmark", model=model, data="questions", topic=TOPIC, questions=options.questions, protocol="sequential",
                candidates="letters", dtype=dtype, resources=resources,
                generation=dict(batches=options.batches, prompt=PROMPT, new=NEW, repeats=REPEATS))
    # JSON is YAML.
    (folder / "models.yaml").write_text(json.dumps(dict(version=1, name="models", nodes=nodes), indent=1))
    return speeds


def run_pipeline(options, folder, forced):
    """Runs it: the last event of every node."""
    command = [options.program, "run", "models.yaml", "--jobs", "1", "--results", "results", "--events", "events.jsonl"]
    command += ["--force", *forced] if forced else []
    environment = os.environ | dict(QPIPE_CACHE=str(folder / "cache"), QPIPE_DEVICE=options.device)
    with open(folder / "qpipe.log", "w") as log:
        ran = subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=log)
    # 4: a node failed, and its row says why.
    assert ran.returncode in (0, 4), (folder / "qpipe.log").read_text()[-3000:]
    events = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    return {event["node"]: event for event in events if event["event"] == "node_finished"}


def artifact(folder, event):
    """The files of a node's result in the store, by their names."""
    key = event["key"]
    record = json.loads((folder / f"cache/actions/{event['kind']}/{key[:2]}/{key}.json").read_text().splitlines()[0])
    digests = {name: file["digest"] for name, file in record["output"]["files"].items()}
    return {name: folder / f"cache/cas/{digest[:2]}/{digest}" for name, digest in digests.items()}


def checkpoints(options, folder, events):
    """A folder for each base, with the files that qpipe made."""
    for dtype in options.dtypes:
        (folder / dtype).mkdir()
        for name, path in artifact(folder, events[f"base_{SHORT[dtype]}"]).items():
            (folder / dtype / name).symlink_to(path)


def own_row(folder, event, name, dtype, options):
    if event["status"] not in ("ran", "cached"):
        return dict(failure=event["reason"])
    found = json.loads(artifact(folder, event)["benchmark.json"].read_text())
    assert found["threads"] == THREADS and found["dtype"] == dtype, found
    shape, size = SHAPES[options.shape], SIZES[dtype]
    hidden, head_norms = shape["hidden_size"], 2 * shape["head_dim"] if shape["model_type"] == "qwen3" else 0
    norms = (options.layers * (2 * hidden + head_norms) + hidden) * size
    # An int8 row has one scale in the model's type.
    row = hidden + size if "int8 head" in name else hidden * size
    if not shape["tie_word_embeddings"]:
        row += hidden * size
    generation = {
        str(one["batch"]): [one["prefill_tokens_per_s"], one["decode_tokens_per_s"], one["peak_MB"]] for one in found["generation"]}
    return dict(
        linear=found["weight_bytes"] - norms - shape["vocab_size"] * row, whole=found["weight_bytes"],
        tokens=round(found["tokens_per_s"] * found["avg_time_s"] * found["questions"]), sequential=found["tokens_per_s"],
        generation=generation, busy=max(found.get("busy_before") or 0.0, found.get("busy_meanwhile") or 0.0))


# ---------------------------------------------------------------------------------------------------------------- peers


def load(folder, dtype, **options):
    import torch
    from transformers import AutoModelForCausalLM

    options = dict(device_map=DEVICE) | options
    return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), **options).eval()


def torchao(folder, dtype, config):
    import torchao.quantization
    from torchao.prototype.quantization import int4

    make = getattr(torchao.quantization, config, None) or getattr(int4, config)
    model = load(folder, dtype)
    arguments = dict(group_size=128) if "Int4" in config else {}
    if config == "Int8DynamicActivationInt8WeightConfig":
        import torch
        from torchao.utils import should_reduce_range

        # Without VNNI, sums of products of full codes could overflow on a CPU.
        if DEVICE == "cpu":
            arguments["reduce_range"] = should_reduce_range(torch.device("cpu"))
    # The default spares embeddings; the output projection is one here.
    blocks = lambda module, name: name.startswith("model.layers.") and type(module).__name__ == "Linear"
    torchao.quantization.quantize_(model, make(**arguments), filter_fn=blocks)
    return model


def bitsandbytes(folder, dtype, **options):
    import torch
    from transformers import BitsAndBytesConfig

    if "load_in_4bit" in options:
        options |= dict(bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=getattr(torch, dtype))
    return load(folder, dtype, quantization_config=BitsAndBytesConfig(**options))


PEERS = {
    "transformers": load,
    "torchao int8 dynamic": lambda folder, dtype: torchao(folder, dtype, "Int8DynamicActivationInt8WeightConfig"),
    "torchao int8 weights": lambda folder, dtype: torchao(folder, dtype, "Int8WeightOnlyConfig"),
    "torchao int4 weights": lambda folder, dtype: torchao(folder, dtype, "PrototypeInt4WeightOnlyConfig"),
    "torchao W4A8": lambda folder, dtype: torchao(folder, dtype, "Int8DynamicActivationInt4WeightConfig"),
    "bitsandbytes LLM.int8": lambda folder, dtype: bitsandbytes(folder, dtype, load_in_8bit=True),
    "bitsandbytes NF4": lambda folder, dtype: bitsandbytes(folder, dtype, load_in_4bit=True),
}
COMPILED = ", compiled"


def plain_tensors(value):
    """The tensors of which a quantized one is made; itself where it is an ordinary one."""
    import torch

    if hasattr(value, "__tensor_flatten__"):
        for name in value.__tensor_flatten__()[0]:
            yield from plain_tensors(getattr(value, name))
    elif isinstance(value, torch.Tensor):
        yield value
        # What bitsandbytes hangs on its weights.
        for name in ("CB", "SCB"):
            yield from plain_tensors(getattr(value, name, None))
    elif type(value).__name__ in ("QuantState", "MatmulLtState"):
        for part in vars(value).values():
            if isinstance(part, torch.Tensor) or type(part).__name__ == "QuantState":
                yield from plain_tensors(part)


def weight_bytes(modules):
    """Bytes of all that lies in `modules`, each storage once."""
    import torch

    storages = {}
    for module in modules:
        kept = [*module._parameters.values(), *module._buffers.values()]
        kept += [getattr(module.weight, "quant_state", None), getattr(module, "state", None)] if hasattr(module, "weight") else []
        for tensor in (part for value in kept for part in plain_tensors(value)):
            try:
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            except (NotImplementedError, RuntimeError):  # opaque: oneDNN's own layout
                storages[id(tensor)] = torch.Tensor.numel(tensor) * tensor.element_size()
    return sum(storages.values())


def prompt_of(question):
    lines = "".join(f"{letter}. {choice}\n" for letter, choice in zip("ABCD", question["choices"]))
    return f"The following are multiple choice questions about {TOPIC}.\n\n{question['question']}\n{lines}Answer:"


def answer(model, encode, question):
    """One question of the sequential protocol: its tokens."""
    import torch

    prompt, tokens = prompt_of(question), 0
    context = len(encode(prompt))
    for letter in "ABCD":
        ids = encode(f"{prompt} {letter}")
        tokens += len(ids)
        # The last token is scored, never read.
        logits = model(torch.tensor([ids[:-1]], device=DEVICE), use_cache=False).logits[0, context - 1:]
        scores = logits.float().log_softmax(-1).gather(1, torch.tensor(ids[context:], device=DEVICE)[:, None])
        assert scores.sum().isfinite()
    return tokens


def write(model, ids, batch, new):
    """Seconds to the first token after `batch` times `ids`, and to each of the others."""
    import torch

    times, past, step = [], None, torch.tensor([ids] * batch, device=DEVICE)
    for _ in range(new):
        began = time.perf_counter()
        out = model(step, past_key_values=past, use_cache=True, logits_to_keep=1)
        past, step = out.past_key_values, out.logits[:, -1:].argmax(-1)
        step.tolist()
        times.append(time.perf_counter() - began)
    return times


def generation_of(model, prompt, batch):
    """Tokens/s of prefill and decode, and MiB of the card's memory."""
    import torch

    write(model, prompt, batch, 2)
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    runs = [write(model, prompt, batch, NEW) for _ in range(REPEATS)]
    peak = torch.cuda.max_memory_allocated() / MIB if DEVICE == "cuda" else 0.0
    return [
        batch * PROMPT / statistics.median(times[0] for times in runs),
        batch / statistics.median(step for times in runs for step in times[1:]), peak]


def measure_peer(name, dtype, folder, *batches):
    """What a peer's process does: prints its row."""
    import torch
    from tokenizers import Tokenizer

    torch.set_num_threads(THREADS)
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    questions = [json.loads(line) for line in open(f"{folder}/questions.jsonl")]
    busy = busy_share()
    with torch.inference_mode():
        # As inference tensors weights could not become what torchao makes of them.
        with torch.inference_mode(False), torch.no_grad():
            model = PEERS[name.removesuffix(COMPILED)](f"{folder}/{dtype}", dtype)
        if name.endswith(COMPILED):
            model.forward = torch.compile(model.forward, dynamic=True)
        for question in questions[:WARM_UP]:
            answer(model, encode, question)
        began = time.perf_counter()
        tokens = sum(answer(model, encode, question) for question in questions)
        sequential = tokens / (time.perf_counter() - began)
        text = [token for question in questions for token in encode(prompt_of(question) + " A")]
        prompt = (text * (PROMPT // len(text) + 1))[:PROMPT]
        generation = {batch: generation_of(model, prompt, int(batch)) for batch in batches}
    linears = [module for module in model.model.layers.modules() if "Linear" in type(module).__name__]
    row = dict(
        linear=weight_bytes(linears), whole=weight_bytes(model.modules()), tokens=tokens, sequential=sequential,
        generation=generation, busy=busy)
    print("\n" + json.dumps(row))


def peer_row(folder, name, dtype, options):
    environment = os.environ | dict(
        HF_HUB_OFFLINE="1", OMP_NUM_THREADS=str(THREADS), MKL_NUM_THREADS=str(THREADS), QPIPE_BENCH_DEVICE=options.device,
        TORCHINDUCTOR_CACHE_DIR=str(folder / "inductor"))
    environment |= dict(CUDA_VISIBLE_DEVICES="") if options.device == "cpu" else {}
    command = [sys.executable, pathlib.Path(__file__).resolve(), "--peer", name, dtype, folder, *map(str, options.batches)]
    try:
        ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return dict(failure=f"not done after {PATIENCE // 60} minutes")
    if ran.returncode == 0:
        return json.loads(ran.stdout.splitlines()[-1])
    if ran.returncode < 0:
        return dict(failure=f"ended by {signal.Signals(-ran.returncode).name}")
    return dict(failure=reason(ran.stderr))


def reason(text):
    """The line of a traceback's end that names the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if line.split(":")[0].split(".")[-1].endswith(("Error", "Exception", "Interrupt"))]
    return (named or lines or ["no message"])[-1]


# -------------------------------------------------------------------------------------------------------------- machine


def busy_share():
    """The part of all cores that is busy while this process waits."""
    def ticks():
        # user nice system idle iowait irq softirq steal; guests are in user.
        fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return fields[3] + fields[4], sum(fields)

    idle, whole = ticks()
    time.sleep(0.2)
    idle_after, whole_after = ticks()
    return 1 - (idle_after - idle) / max(whole_after - whole, 1)


def copy_rate(device):
    """Bytes a second of a copy, read and written, the best of several."""
    import torch

    torch.set_num_threads(THREADS)
    source = torch.zeros(256 << 20, dtype=torch.uint8, device=device)
    target, best = torch.empty_like(source), 0.0
    for _ in range(5):
        began = time.perf_counter()
        target.copy_(source)
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * source.numel() / (time.perf_counter() - began))
    return best


# --------------------------------------------------------------------------------------------------------------- inputs


def make_inputs(options, folder):
    from tokenizers import Tokenizer

    text = (options.data / "tokenizers/gpt2_tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text)
    (folder / "config.json").write_text(json.dumps(SHAPES[options.shape] | dict(num_hidden_layers=options.layers), indent=1))
    tokenizer = Tokenizer.from_str(text)
    rows = [json.loads(line) for line in (options.data / "mmlu/test.jsonl").open()]
    lengths = [len(one.ids) for one in tokenizer.encode_batch([prompt_of(row) + " A" for row in rows], add_special_tokens=False)]
    fitting = [row for row, length in zip(rows, lengths) if SHORTEST <= length <= LONGEST]
    # From all subjects.
    assert len(fitting) >= options.questions, f"there are {len(fitting)} questions of this length"
    chosen = fitting[:: len(fitting) // options.questions][: options.questions]
    keep = lambda row: dict(question=row["question"], choices=row["choices"], answer=row["answer"])
    (folder / "questions.jsonl").write_text("".join(json.dumps(keep(row)) + "\n" for row in chosen))
    (folder / "texts.jsonl").write_text("".join(json.dumps(dict(text=prompt_of(row))) + "\n" for row in fitting[:4]))


# ---------------------------------------------------------------------------------------------------------------- table


HEADER = (
    f"{'row':38} {'linears':>8} {'of base':>7} {'whole':>7} | {'sequential':>10} {'x qpipe':>8} {'x transf.':>9} | "
    f"{'prefill':>8} {'decode':>7} {'bound':>7} {'of it':>6} | {'busy':>5}"
)


def median_row(rows):
    """One row of a row's rounds; a failure if it failed in all of them."""
    good = [row for row in rows if "failure" not in row]
    if not good:
        return rows[0]
    numbers = [key for key in good[0] if key != "generation"]
    found = {key: statistics.median(row[key] or 0.0 for row in good) for key in numbers}
    each = lambda batch: [statistics.median(values) for values in zip(*(row["generation"][batch] for row in good))]
    return found | dict(generation={batch: each(batch) for batch in good[0]["generation"]})


def line(label, row, ours, theirs, linear, rate):
    if "failure" in row:
        return f"{label:38} not measured: {row['failure'][:160]}"
    ratio = lambda base: f"{row['sequential'] / base['sequential']:.2f}x" if base and "failure" not in base else "-"
    share = f"{row['linear'] / linear:.3f}" if linear else "-"
    bound = rate / row["whole"]
    prefill, decode, _ = next(iter(row["generation"].values()))
    return (
        f"{label:38} {row['linear'] / MIB:8.1f} {share:>7} {row['whole'] / MIB:7.1f} | "
        f"{row['sequential']:10.1f} {ratio(ours):>8} {ratio(theirs):>9} | "
        f"{prefill:8.1f} {decode:7.2f} {bound:7.2f} {decode / bound:6.0%} | {row['busy']:5.0%}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=lambda path: pathlib.Path(path).resolve(), help="qpipe, its worker beside it")
    parser.add_argument("data", type=lambda path: pathlib.Path(path).resolve(), help="the folder of QPIPE_TEST_DATA")
    parser.add_argument("questions", type=int, nargs="?", default=5)
    parser.add_argument("--layers", type=int, help="fewer, to try the script")
    parser.add_argument("--shape", choices=SHAPES, default="qwen3-0.6b")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--batches", type=int, nargs="+", default=[1], help="prompts that are continued together")
    parser.add_argument("--only", nargs="+", help="these rows of qpipe only, beside the base")
    parser.add_argument("--dtypes", nargs="+", choices=SIZES, default=[*SIZES])
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=[*PEERS], help="these only")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="peers through torch.compile, too")
    options = parser.parse_args()
    options.layers = options.layers or SHAPES[options.shape]["num_hidden_layers"]
    endings = ["", COMPILED] if options.compile else [""]
    peers = [(name + ending, dtype) for ending in endings for name in options.peers for dtype in options.dtypes]
    rows, rate = {}, 0.0

    def keep(key, row):
        """What is measured is told at once: a long run that is cut short leaves something."""
        rows.setdefault(key, []).append(row)
        print(*key, json.dumps(row), file=sys.stderr, flush=True)

    # Ends what runs and takes the temporary folder away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        make_inputs(options, folder)
        speeds = pipeline(options, folder)
        for number in range(options.rounds):
            rate = max(rate, copy_rate(options.device))
            events = run_pipeline(options, folder, list(speeds.values()) if number else [])
            for (name, dtype), node in speeds.items():
                keep(("qpipe", name, dtype), own_row(folder, events[node], name, dtype, options))
            if number == 0:
                checkpoints(options, folder, events)
            for name, dtype in peers:
                keep(("", name, dtype), peer_row(folder, name, dtype, options))
    found = {key: median_row(each) for key, each in rows.items()}
    first = options.dtypes[0]
    ours, theirs = found.get(("qpipe", "base", first)), found.get(("", "transformers", first))
    # All have read the same tokens, or the table compares nothing.
    tokens = {row["tokens"] for row in found.values() if "failure" not in row}
    assert len(tokens) <= 1, f"not all rows have the same tokens: {found}"
    linear = ours.get("linear") if ours else None
    print(f"{options.layers} layers, {options.questions} questions of {max(tokens, default=0) / options.questions:.1f} tokens, "
          f"{THREADS} threads, medians of {options.rounds} rounds; copies {rate / 1e9:.1f} GB/s. MiB, tokens/s.")
    print(HEADER)
    for (who, name, dtype), row in found.items():
        print(line(f"{who} {name} {SHORT[dtype]}".strip(), row, ours, theirs, linear, rate), flush=True)
    if len(options.batches) > 1:
        print(f"\n{'row':38}" + "".join(f" | {f'prefill x{batch}':>12} {'decode':>9} {'peak':>8}" for batch in options.batches))
        for (who, name, dtype), row in found.items():
            each = row.get("generation", {}).values()
            cells = (f" | {prefill:12.1f} {decode:9.2f} {peak:8.0f}" for prefill, decode, peak in each)
            print(f"{f'{who} {name} {SHORT[dtype]}'.strip():38}" + "".join(cells), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peer"]:
        measure_peer(*sys.argv[2:])
    else:
        main()
