"""Holds `quantize` with `method: int8-dynamic` to torchao and llm-compressor, and its checkpoints to transformers.

    pip install torch==2.11.0 transformers==5.17.0 torchao==0.18.0 llmcompressor==0.14.0.1 compressed-tensors==0.19.0
    python tests/parity/int8_dynamic.py golden tests/golden/int8_dynamic     # what worker/tests/int8_dynamic.rs reads
    cargo build --release -p qpipe-worker --bins --examples
    python tests/parity/int8_dynamic.py compare                              # random models, three seeds each

`golden` writes a file a type (float32, bfloat16, float16): `weight` [N, K] with a row of zeros and one of tiny numbers,
`bias`, `x` [M, K] with a row of zeros, and what torchao makes of them: `codes` and `scale` of the weight, `x_codes` and
`x_scale` of the activations, `y` [M, N], the output of a linear layer.

`compare` quantizes random models (Llama with biases, Qwen3; float32, bfloat16, float16) and exits with 1 unless
- `convention: torchao`: every code and scale equals that of torchao's `Int8DynamicActivationInt8WeightConfig`, and the
  worker's output of every linear layer of the first block on random inputs equals torchao's, bit by bit,
- the worker's logits are no further from those of the model that torchao quantized than twice what this model's own eager
  and SDPA runs are from each other, in the stored type, over all prompts of a case,
- `convention: llmc`: the folder is that of `method: rtn, scheme: W8A8`, byte by byte, except what it says of its method,
- transformers loads both folders, and reads from the torchao one the weights that torchao has.
"""

import argparse
import filecmp
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import torch
import torchao
import transformers
from safetensors.torch import load_file, save_file
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8Tensor, PerRow, quantize_

SEED = 20250221
TYPES = ("float32", "bfloat16", "float16")
FAMILIES = {
    "llama": dict(attention_bias=True, mlp_bias=True),
    "qwen3": dict(head_dim=64, tie_word_embeddings=True),
}
SIZE = dict(
    vocab_size=512, hidden_size=256, intermediate_size=640, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.1,
)
# What a folder says of the method that made it.
DESCRIPTION = "qpipe_quantization.json"
INPUT_ROWS = 19
PROMPTS = (4, 96)


def linear_with(weight, bias):
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    linear.weight.data, linear.bias.data = weight, bias
    quantize_(linear, Int8DynamicActivationInt8WeightConfig())
    return linear


@torch.no_grad()
def write_golden(out):
    out.mkdir(parents=True, exist_ok=True)
    provenance = dict(made_by="tests/parity/int8_dynamic.py", torchao=torchao.__version__, torch=torch.__version__)
    for name in TYPES:
        torch.manual_seed(SEED)
        dtype = getattr(torch, name)
        weight, x = torch.randn(24, 80), torch.randn(9, 80)
        weight[3], x[5] = 0, 0
        weight[7] *= 1e-6
        weight, x, bias = weight.to(dtype), x.to(dtype), torch.randn(24).to(dtype)
        quantized, activations = Int8Tensor.from_hp(weight, PerRow()), Int8Tensor.from_hp(x, PerRow())
        tensors = dict(
            weight=weight, bias=bias, x=x, codes=quantized.qdata, scale=quantized.scale, x_codes=activations.qdata,
            x_scale=activations.scale, y=linear_with(weight, bias)(x),
        )
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, out / f"{name}.safetensors", provenance)


def make_source(family, dtype, folder, seed):
    """A checkpoint with random weights and biases; a row is zero and one tiny."""
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(family, **(SIZE | FAMILIES[family]))
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
        attention = model.model.layers[0].self_attn
        attention.q_proj.weight[3] = 0
        attention.k_proj.weight[5] *= 1e-6
    model.to(getattr(torch, dtype)).save_pretrained(folder)


def run_worker(worker, source, params, folder):
    action = {
        "request": "run", "id": 1, "kind": "quantize", "params": params, "inputs": {"model": {"one": str(source)}},
        "scratch": str(folder), "device": "cpu", "threads": 1,
    }
    folder.mkdir()
    with subprocess.Popen([worker], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        process.stdin.write(json.dumps(action) + "\n")
        process.stdin.flush()
        # The pipe stays open until the action has ended: the end of input stops it.
        ends = (json.loads(line) for line in process.stdout)
        last = next(event for event in ends if event["event"] in ("done", "failed", "stopped"))
        process.stdin.close()
    assert last["event"] == "done", last
    return folder / "out"


def load(folder, attention="sdpa"):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention, dtype="auto").eval()


@torch.no_grad()
def logits_of(model, ids):
    return torch.cat([model(row.unsqueeze(0)).logits for row in ids])


def torchao_model(source, attention):
    model = load(source, attention)
    is_block = lambda module, name: isinstance(module, torch.nn.Linear) and name != "lm_head"
    quantize_(model, Int8DynamicActivationInt8WeightConfig(), filter_fn=is_block)
    return model


def distances(one, other):
    difference = (one.float() - other.float()).abs()
    return difference.max().item(), difference.mean().item()


@torch.no_grad()
def compare_seed(family, dtype, seed, options, work):
    """Counts of what differs, and distances: (unequal tensors, matrices, outputs, found, allowed)."""
    source = work / "source"
    make_source(family, dtype, source, seed)
    ours = run_worker(options.worker, source, dict(method="int8-dynamic", convention="torchao"), work / "torchao")
    llmc = run_worker(options.worker, source, dict(method="int8-dynamic", convention="llmc"), work / "llmc")
    rtn = run_worker(options.worker, source, dict(method="rtn", scheme="W8A8"), work / "rtn")
    names = [file.name for file in rtn.iterdir() if file.name != DESCRIPTION]
    assert sorted(names) == sorted(file.name for file in llmc.iterdir() if file.name != DESCRIPTION)
    unequal = len(filecmp.cmpfiles(llmc, rtn, names, shallow=False)[1])

    tensors, theirs = load_file(ours / "model.safetensors"), torchao_model(source, "sdpa")
    loaded = load(ours)
    ids = torch.randint(0, SIZE["vocab_size"], PROMPTS, generator=torch.Generator().manual_seed(seed))
    through_transformers, through_llmc = logits_of(loaded, ids), logits_of(load(llmc), ids)
    assert through_transformers.isfinite().all() and through_llmc.isfinite().all()
    modules, matrices, outputs = dict(loaded.named_modules()), 0, 0
    for name, module in theirs.named_modules():
        if not isinstance(getattr(module, "weight", None), Int8Tensor):
            continue
        matrices += 1
        scale = tensors[f"{name}.weight_scale"]
        assert scale.dtype == getattr(torch, dtype)
        unequal += not torch.equal(tensors[f"{name}.weight"], module.weight.qdata)
        unequal += not torch.equal(scale.float(), module.weight.scale)
        # transformers has decompressed it: codes times scale in the stored type.
        unequal += not torch.equal(modules[name].weight, module.weight.qdata.to(scale.dtype) * scale)
        if name.startswith("model.layers.0."):
            x = torch.randn(INPUT_ROWS, module.in_features, generator=torch.Generator().manual_seed(seed))
            save_file(dict(x=x.to(scale.dtype)), work / "x.safetensors")
            subprocess.run([options.linear, ours, name, work / "x.safetensors", work / "y.safetensors"], check=True)
            unequal += not torch.equal(load_file(work / "y.safetensors")["y"], module(x.to(scale.dtype)))
            outputs += 1
    (work / "ids.json").write_text(json.dumps(ids.tolist()))
    subprocess.run([options.logits, ours, work / "ids.json", work / "logits.safetensors", dtype], check=True)
    mine, sdpa = load_file(work / "logits.safetensors")["logits"], logits_of(theirs, ids)
    eager = logits_of(torchao_model(source, "eager"), ids)
    return unequal, matrices, outputs, distances(mine, sdpa), [2 * d for d in distances(eager, sdpa)]


def compare_case(family, dtype, options, scratch):
    """Prints one line; returns whether everything holds."""
    results = []
    for seed in range(options.seeds):
        work = scratch / f"{family}-{dtype}-{seed}"
        work.mkdir()
        results.append(compare_seed(family, dtype, seed, options, work))
        shutil.rmtree(work)
    unequal, matrices, outputs = (sum(column) for column in list(zip(*results))[:3])
    found, allowed = (torch.tensor(column) for column in list(zip(*results))[3:])
    largest = found[:, 0].max().item(), allowed[:, 0].max().item()
    mean = found[:, 1].mean().item(), allowed[:, 1].mean().item()
    holds = unequal == 0 and largest[0] <= largest[1] and mean[0] <= mean[1]
    print(
        f"{family:6} {dtype:8} {unequal} of {matrices} matrices, {outputs} outputs and {options.seeds} folders differ; "
        f"logits from torchao's: largest {largest[0]:.2e} of {largest[1]:.2e} allowed, mean {mean[0]:.2e} of "
        f"{mean[1]:.2e}: {'ok' if holds else 'NO'}",
        flush=True,
    )
    return holds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    golden = commands.add_parser("golden")
    golden.add_argument("out", type=pathlib.Path)
    compare = commands.add_parser("compare")
    compare.add_argument("--worker", default="target/release/qpipe-worker")
    compare.add_argument("--logits", default="target/release/examples/logits")
    compare.add_argument("--linear", default="target/release/examples/linear")
    compare.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "golden":
        write_golden(options.out)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        cases = [(family, dtype) for family in FAMILIES for dtype in TYPES]
        return 0 if all([compare_case(*case, options, pathlib.Path(scratch)) for case in cases]) else 1


if __name__ == "__main__":
    sys.exit(main())
