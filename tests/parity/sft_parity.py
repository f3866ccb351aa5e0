"""Holds `sft` and `sft-merge` to transformers 5.17, torch 2.11 and peft 0.21.

    python tests/parity/sft_parity.py generate              writes tests/golden/sft (committed; read by worker/tests/sft.rs)
    python tests/parity/sft_parity.py check [WORKER]        runs WORKER (default target/release/qpipe-worker) against peft

`generate`: a Qwen3 model of 21,000 random weights, rows of the four shapes, and what HF's forward pass with
torch.optim.AdamW makes of them: the loss of every step of a full-parameter run and of a LoRA run; an adapter that
peft wrote (a subset of the layers, rank-stabilised) with the weights that peft merges it to.

`check`: an adapter that qpipe trained is loaded by peft; its losses and its merged weights are those of sft-merge.
"""

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/golden/sft"
MASK = (1 << 64) - 1

WORDS = (
    "<eos> <user> <assistant> <unk> the cat dog bird fox sat ran flew slept on under over a mat tree wall "
    "who what where did ? . red blue green is was Below Answer : yes no"
).split()
TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}> {{ message.content }} <eos> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
ROWS = [
    {"text": "the cat sat on the mat ."},
    {"text": "the dog ran under a tree ."},
    {"prompt": "who sat on the mat ?", "completion": " the cat"},
    {"prompt": "where did the dog ran ?", "completion": " under a tree ."},
    {"text": "a bird flew over the red wall . the fox slept under the wall ."},
    {"messages": [{"role": "user", "content": "what is red ?"}, {"role": "assistant", "content": "the wall is red ."}]},
    {
        "messages": [
            {"role": "user", "content": "did the fox slept ?"},
            {"role": "assistant", "content": "yes ."},
            {"role": "user", "content": "where ?"},
            {"role": "assistant", "content": "under the wall"},
        ]
    },
    {"prompt": "the wall was", "completion": " red ."},
    {"text": "blue is the bird . green was the tree ."},
    {"prompt": "did the cat flew ?", "completion": " no ."},
]
FULL = dict(steps=8, batch_size=2, grad_accumulation=2, learning_rate=1e-2, warmup=2, weight_decay=0.1, clip=0.5, seed=3)
LORA = dict(steps=6, batch_size=4, grad_accumulation=1, learning_rate=2e-2, warmup=0, weight_decay=0.0, clip=1.0, seed=5)
RANK, ALPHA, TARGETS = 4, 8.0, ["q_proj", "v_proj", "down_proj"]


class Random:
    """worker/src/sft/random.rs: SplitMix64."""

    def __init__(self, seed, stream):
        self.state = seed & MASK
        self.state = self.next() ^ stream
        self.next()

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def below(self, bound):
        threshold = (-bound & MASK) % bound
        while True:
            product = self.next() * bound
            if product & MASK >= threshold:
                return product >> 64

    def symmetric(self, bound):
        return (2 * ((self.next() >> 40) / (1 << 24)) - 1) * bound

    def permutation(self, length):
        order = list(range(length))
        for last in range(length - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order


def make_model(folder):
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=64, tie_word_embeddings=True,
        initializer_range=0.2, bos_token_id=None, eos_token_id=0, pad_token_id=None, dtype="float32",
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)


def encode(tokenizer, row):
    """Token ids and labels (-100: not learned), as TRL's SFTTrainer makes them."""
    eos = tokenizer.eos_token_id
    if "messages" in row:
        ids = tokenizer.apply_chat_template(row["messages"], tokenize=True, return_dict=False)
        labels = [-100] * len(ids)
        for turn, message in enumerate(row["messages"]):
            if message["role"] != "assistant":
                continue
            before = tokenizer.apply_chat_template(
                row["messages"][:turn], tokenize=True, add_generation_prompt=True, return_dict=False
            )
            upto = tokenizer.apply_chat_template(row["messages"][: turn + 1], tokenize=True, return_dict=False)
            labels[len(before) : len(upto)] = ids[len(before) : len(upto)]
        return ids, labels
    prompt, text = ("", row["text"]) if "text" in row else (row["prompt"], row["completion"])
    border = len(tokenizer(prompt).input_ids)
    ids = tokenizer(prompt + text).input_ids + [eos]
    return ids, [-100] * border + ids[border:]


def loss_of(model, rows):
    """Sum over the learned tokens, by HF's forward pass on a padded batch with an attention mask."""
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in rows])
    labels = torch.tensor([labels + [-100] * (longest - len(labels)) for _, labels in rows])
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in rows])
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum"
    )


def train(model, samples, steps, batch_size, grad_accumulation, learning_rate, warmup, weight_decay, clip, seed):
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decays = lambda name, p: p.dim() >= 2 and "embed_tokens" not in name
    groups = [
        {"params": [p for n, p in trained if decays(n, p)], "weight_decay": weight_decay},
        {"params": [p for n, p in trained if not decays(n, p)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate)

    def factor(step):
        if step < warmup:
            return step / max(1, warmup)
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    per_step = batch_size * grad_accumulation
    stream = [row for epoch in range(99) for row in Random(seed, (1 << 32) + epoch).permutation(len(samples))]
    losses = []
    for step in range(steps):
        rows = [samples[i] for i in stream[step * per_step : (step + 1) * per_step]]
        learned = sum(label != -100 for _, labels in rows for label in labels[1:])
        optimizer.zero_grad()
        total = 0.0
        for start in range(0, per_step, batch_size):
            loss = loss_of(model, rows[start : start + batch_size]) / learned
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_([p for _, p in trained], clip)
        optimizer.step()
        schedule.step()
        losses.append(total)
    return losses


def start_lora(model):
    """Our first weights: A by layer in the model's order, B zero."""
    random = Random(LORA["seed"], 2 << 32)
    for layer in range(2):
        for part in ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                     "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]:
            if part.split(".")[1] in TARGETS:
                a = model.get_submodule(f"base_model.model.model.layers.{layer}.{part}").lora_A["default"].weight
                bound = 1 / math.sqrt(a.shape[1])
                values = [random.symmetric(bound) for _ in range(a.numel())]
                a.data.copy_(torch.tensor(values, dtype=torch.float32).view_as(a))


def generate():
    model_dir = GOLDEN / "model"
    make_model(model_dir)
    (GOLDEN / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model_dir)
    samples = [encode(tokenizer, row) for row in ROWS]
    load = lambda: AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)

    full = train(load(), samples, **FULL)
    lora_model = get_peft_model(
        load(), LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, task_type="CAUSAL_LM")
    )
    start_lora(lora_model)
    lora = train(lora_model, samples, **LORA)

    torch.manual_seed(1)
    subset = get_peft_model(
        load(), LoraConfig(r=2, lora_alpha=3, use_rslora=True, target_modules=["k_proj", "up_proj"], task_type="CAUSAL_LM")
    )
    for name, parameter in subset.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    subset.save_pretrained(GOLDEN / "peft_adapter")
    (GOLDEN / "peft_adapter/README.md").unlink(missing_ok=True)
    before = load().state_dict()
    merged = {
        name: tensor.contiguous()
        for name, tensor in subset.merge_and_unload().state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    save_file(merged, GOLDEN / "peft_merged.safetensors", metadata={"format": "pt"})
    expected = {
        "made_by": "tests/parity/sft_parity.py with transformers 5.17.0, torch 2.11.0, peft 0.21.2; model seed 0",
        "samples": [{"ids": ids, "learn": [label != -100 for label in labels]} for ids, labels in samples],
        "full": {"parameters": FULL, "losses": full},
        "lora": {"parameters": LORA | {"lora": {"rank": RANK, "alpha": ALPHA, "targets": TARGETS}}, "losses": lora},
    }
    (GOLDEN / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    print("full", full, "lora", lora, sep="\n")


def act(worker, kind, params, inputs, scratch):
    action = {
        "request": "run", "id": 1, "kind": kind, "params": params, "scratch": str(scratch), "device": "cpu", "threads": 1,
        "inputs": {name: {"one": str(path)} for name, path in inputs.items()},
    }
    process = subprocess.Popen([worker], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdin.write(json.dumps(action) + "\n")
    process.stdin.flush()
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] in ("done", "failed"):
            assert event["event"] == "done", event
            break
    process.stdin.close()
    process.wait()


def check(worker):
    model_dir = GOLDEN / "model"
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        lora = {"rank": RANK, "alpha": ALPHA, "targets": TARGETS}
        act(worker, "sft", LORA | {"lora": lora}, {"model": model_dir, "data": GOLDEN / "rows.jsonl"}, folder / "sft")
        adapter = folder / "sft/out"
        act(worker, "sft-merge", {}, {"model": model_dir, "adapter": adapter}, folder / "merge")
        ours = load_file(folder / "merge/out/model.safetensors")
        base = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
        model = PeftModel.from_pretrained(base, adapter)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(model_dir)
        samples = [encode(tokenizer, row) for row in ROWS]
        with torch.no_grad():
            loaded = loss_of(model, samples).item()
            theirs = model.merge_and_unload().state_dict()
            merged = loss_of(AutoModelForCausalLM.from_pretrained(folder / "merge/out", dtype=torch.float32), samples).item()
        worst = max((ours[name] - theirs[name]).abs().max().item() for name in ours)
        print(f"peft on qpipe's adapter: loss {loaded:.6f}; qpipe's merged model: {merged:.6f}; weights differ by {worst:.2e}")
        assert abs(loaded - merged) < 1e-4 * loaded and worst < 1e-6


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["generate"]:
        generate()
    elif sys.argv[1:2] == ["check"]:
        check(sys.argv[2] if len(sys.argv) > 2 else str(ROOT / "target/release/qpipe-worker"))
    else:
        sys.exit(__doc__)
