"""Holds `quantize` with `method: rtn` to llm-compressor, and the quantized layers to transformers.

    pip install torch==2.11.0 transformers==5.17.0 llmcompressor==0.14.0.1 compressed-tensors==0.19.0
    python tests/parity/quant_rtn.py golden tests/golden/quant     # what worker/tests/quantize.rs reads
    cargo build --release -p qpipe-worker --bins --examples
    python tests/parity/quant_rtn.py compare                       # random models, three seeds each

`golden` writes a folder a case: `source` (a tiny checkpoint with random weights, one row and one group of them
zero), and for each scheme SCHEME.safetensors: the quantized tensors that llm-compressor's QuantizationModifier
writes, `ids` [B, T] and the logits that transformers computes on that checkpoint at the last P positions, `sdpa`
and for W8A8 `eager` [B, P, vocabulary], in the stored type (W8A8) or in float32 (W4A16); and SCHEME.json: the
`quantization_config`.

`compare` lets the worker and llm-compressor quantize the same random models (Llama with biases, Qwen3; float32,
bfloat16) and exits with 1 unless
- every code and every scale is equal,
- transformers loads the worker's folder,
- W4A16: the worker's logits are within 1e-4 of max|logit| of transformers', in float32,
- W8A8: over all prompts of a case, the largest and the mean |difference| from transformers' SDPA logits are at
  most twice those between transformers' own eager and SDPA runs, in the stored type. One prompt says little: where
  an activation lies near the middle between two codes, the last bit of a sum decides, on every side.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import torch
import transformers
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme, preset_name_to_scheme
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import QuantizationModifier
from safetensors.torch import load_file, save_file

SEED = 20240611
SCHEMES = ("W8A8", "W4A16")
GOLDEN = {
    "llama-f32": (
        "llama", "float32", dict(intermediate_size=32, num_hidden_layers=2, attention_bias=True, mlp_bias=True)
    ),
    "qwen3-bf16": ("qwen3", "bfloat16", dict(intermediate_size=96, head_dim=16, tie_word_embeddings=True)),
}
GOLDEN_SIZE = dict(
    vocab_size=32, hidden_size=64, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=64, initializer_range=0.2,
)
GOLDEN_PROMPTS = (12, 24)
GOLDEN_POSITIONS = 24
COMPARED = {
    f"{family}-{dtype}": (family, dtype, differences)
    for family, differences in (
        ("llama", dict(attention_bias=True, mlp_bias=True)),
        ("qwen3", dict(head_dim=64, tie_word_embeddings=True)),
    )
    for dtype in ("float32", "bfloat16")
}
COMPARED_SIZE = dict(
    vocab_size=512, hidden_size=256, intermediate_size=640, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.1,
)


def make_source(family, dtype, settings, folder, seed):
    """A checkpoint with random weights and biases; some weights are zero, so that scales of zero occur."""
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(family, **settings)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
        attention = model.model.layers[0].self_attn
        attention.q_proj.weight[3] = 0
        attention.k_proj.weight[5, 32:64] = 0
    model.to(getattr(torch, dtype)).save_pretrained(folder)


def recipe(scheme, group):
    """llm-compressor's preset, with another group size where it is asked for."""
    if scheme == "W8A8" or group == 128:
        return QuantizationModifier(targets="Linear", scheme=scheme, ignore=["lm_head"])
    weights = preset_name_to_scheme(scheme, ["Linear"]).weights.model_dump() | {"group_size": group}
    groups = {"group_0": QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**weights))}
    return QuantizationModifier(config_groups=groups, ignore=["lm_head"])


def llm_compressor(source, scheme, group, folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype="auto")
    oneshot(model=model, recipe=recipe(scheme, group), pipeline="datafree")
    model.save_pretrained(folder, save_compressed=True)


@torch.no_grad()
def logits(folder, ids, attention, dtype="auto"):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention, dtype=dtype)
    return torch.cat([model.eval()(row.unsqueeze(0)).logits for row in ids])


def quantized_tensors(folder):
    tensors = load_file(folder / "model.safetensors")
    layers = {name.removesuffix(".weight_scale") for name in tensors if name.endswith(".weight_scale")}
    return {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[0] in layers}


def quantization_config(folder):
    return json.loads((folder / "config.json").read_text())["quantization_config"]


def write_golden(out):
    versions = {name: __import__(name).__version__ for name in ("torch", "transformers", "compressed_tensors")}
    for case, (family, dtype, differences) in GOLDEN.items():
        folder = out / case
        shutil.rmtree(folder, ignore_errors=True)
        make_source(family, dtype, GOLDEN_SIZE | differences, folder / "source", SEED)
        ids = torch.randint(0, GOLDEN_SIZE["vocab_size"], GOLDEN_PROMPTS, generator=torch.Generator().manual_seed(SEED))
        for scheme in SCHEMES:
            with tempfile.TemporaryDirectory() as scratch:
                scratch = pathlib.Path(scratch)
                llm_compressor(folder / "source", scheme, 32, scratch)
                tensors = {
                    name: tensor
                    for name, tensor in quantized_tensors(scratch).items()
                    if not name.endswith(".bias")
                }
                run_type = "auto" if scheme == "W8A8" else torch.float32
                for attention in ("sdpa", "eager") if scheme == "W8A8" else ("sdpa",):
                    tensors[attention] = logits(scratch, ids, attention, run_type)[:, -GOLDEN_POSITIONS:].contiguous()
                tensors["ids"] = ids
                provenance = dict(made_by="tests/parity/quant_rtn.py", llmcompressor="0.14.0.1", seed=str(SEED), **versions)
                save_file(tensors, folder / f"{scheme}.safetensors", provenance)
                text = json.dumps(quantization_config(scratch), indent=1, sort_keys=True)
                (folder / f"{scheme}.json").write_text(text + "\n")
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    print(f"{out}: {size} bytes")


def run_worker(worker, source, scheme, folder):
    action = {
        "request": "run", "id": 1, "kind": "quantize", "params": {"method": "rtn", "scheme": scheme},
        "inputs": {"model": {"one": str(source)}}, "scratch": str(folder), "device": "cpu", "threads": 1,
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


def worker_logits(program, folder, ids, dtype, scratch):
    request, result = scratch / "ids.json", scratch / "logits.safetensors"
    request.write_text(json.dumps(ids.tolist()))
    subprocess.run([program, folder, request, result, dtype], check=True)
    return load_file(result)["logits"]


def distances(one, other):
    difference = (one.float() - other.float()).abs()
    return difference.max().item(), difference.mean().item()


def compare_case(case, scheme, options, scratch):
    """Prints one line; returns whether everything holds."""
    family, dtype, differences = COMPARED[case]
    codes_differ, scales_differ, codes = 0, 0, 0
    found, allowed = [], []
    for seed in range(options.seeds):
        work = scratch / f"{case}-{scheme}-{seed}"
        make_source(family, dtype, COMPARED_SIZE | differences, work / "source", seed)
        llm_compressor(work / "source", scheme, 128, work / "theirs")
        ours = run_worker(options.worker, work / "source", scheme, work / "scratch")
        theirs = quantized_tensors(work / "theirs")
        assert theirs.keys() == quantized_tensors(ours).keys()
        assert quantization_config(ours) == quantization_config(work / "theirs")
        for name, tensor in quantized_tensors(ours).items():
            assert (tensor.dtype, tensor.shape) == (theirs[name].dtype, theirs[name].shape), name
            unequal = (tensor != theirs[name]).sum().item()
            if name.endswith(("_scale", ".bias")):
                scales_differ += unequal
            else:
                codes_differ += unequal
                codes += tensor.numel()
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(0, COMPARED_SIZE["vocab_size"], (4, 96), generator=generator)
        run_type = dtype if scheme == "W8A8" else "float32"
        mine = worker_logits(options.logits, ours, ids, run_type, work)
        sdpa = logits(ours, ids, "sdpa", getattr(torch, run_type))
        found.append(distances(mine, sdpa))
        if scheme == "W8A8":
            allowed.append([2 * d for d in distances(logits(ours, ids, "eager", getattr(torch, run_type)), sdpa)])
        else:
            allowed.append([1e-4 * sdpa.abs().max().item()] * 2)
        shutil.rmtree(work)
    found, allowed = torch.tensor(found), torch.tensor(allowed)
    largest = found[:, 0].max().item(), allowed[:, 0].max().item()
    mean = found[:, 1].mean().item(), allowed[:, 1].mean().item()
    holds = codes_differ == scales_differ == 0 and largest[0] <= largest[1] and mean[0] <= mean[1]
    print(
        f"{case:15} {scheme:5} codes {codes_differ}/{codes} and scales {scales_differ} differ; logits: largest "
        f"{largest[0]:.2e} of {largest[1]:.2e} allowed, mean {mean[0]:.2e} of {mean[1]:.2e}: {'ok' if holds else 'NO'}",
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
    compare.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "golden":
        write_golden(options.out)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        cases = [(case, scheme) for case in COMPARED for scheme in SCHEMES]
        return 0 if all([compare_case(*case, options, pathlib.Path(scratch)) for case in cases]) else 1


if __name__ == "__main__":
    sys.exit(main())
