"""Holds int8 embeddings and output projections (`quantize` with `lm_head`, `embeddings`) to llm-compressor and transformers.

    pip install torch==2.11.0 transformers==5.17.0 llmcompressor==0.14.0.1 compressed-tensors==0.19.0
    cargo build --release -p qpipe-worker --bins --examples
    python tests/parity/outside.py                   # random models, two seeds each

For Llama (not tied) and Qwen3 (tied), in float32 and bfloat16, with blocks in W8A8 and in W4A16, it exits with 1 unless
- codes and scales of both matrices equal those of llm-compressor's QuantizationModifier, which packs an embedding, too;
  of an output projection by itself the config group and every tensor are equal,
- the worker's logits on the folder that llm-compressor wrote equal, bit by bit, those on its own (not tied: llm-compressor
  writes no tied checkpoint of this kind that could be compared),
- transformers loads the worker's folder, tied and not tied, and the embedding and output projection that it has are the
  codes times the scales; the worker's logits are within 1e-4 of max|logit| of its (W4A16, in float32), or no further
  than twice what its eager and SDPA runs are apart, over all prompts of a case (W8A8, in the stored type),
- the worker loads a checkpoint of llm-compressor's with `scheme="W8A8", ignore=[]`, and its logits are as near.
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
from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme, preset_name_to_scheme
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import QuantizationModifier
from safetensors.torch import load_file

TYPES = ("float32", "bfloat16")
SCHEMES = ("W8A8", "W4A16")
FAMILIES = {
    "llama": dict(attention_bias=True, mlp_bias=True),
    "qwen3": dict(head_dim=64, tie_word_embeddings=True),
}
SIZE = dict(
    vocab_size=514, hidden_size=256, intermediate_size=640, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.1,
)
HEAD, EMBEDDING = "lm_head", "model.embed_tokens"
PROMPTS = (4, 96)


def make_source(family, dtype, folder, seed):
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(family, **(SIZE | FAMILIES[family])))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
        model.model.embed_tokens.weight[7] = 0
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


def worker_logits(program, folder, ids, dtype, scratch):
    request, result = scratch / "ids.json", scratch / "logits.safetensors"
    request.write_text(json.dumps(ids.tolist()))
    subprocess.run([program, folder, request, result, dtype], check=True)
    return load_file(result)["logits"]


def llm_compressor(source, scheme, targets, folder):
    """Blocks in `scheme`, `targets` in int8 with a scale a row and nothing said of activations."""
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype="auto")
    groups = {"group_0": preset_name_to_scheme(scheme, ["Linear"])}
    if targets:
        weights = QuantizationArgs(num_bits=8, strategy="channel", symmetric=True)
        groups["group_1"] = QuantizationScheme(targets=targets, weights=weights)
    recipe = QuantizationModifier(config_groups=groups, ignore=[] if HEAD in targets or not targets else [HEAD])
    oneshot(model=model, recipe=recipe, pipeline="datafree")
    model.save_pretrained(folder, save_compressed=True)


def load(folder, attention, dtype):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention, dtype=dtype).eval()


@torch.no_grad()
def logits_of(model, ids):
    return torch.cat([model(row.unsqueeze(0)).logits for row in ids])


def codes_and_scale(folder, layer):
    tensors = load_file(folder / "model.safetensors")
    scale = tensors[f"{layer}.weight_scale"]
    if f"{layer}.weight" in tensors:
        return tensors[f"{layer}.weight"], scale
    return unpack_from_int32(tensors[f"{layer}.weight_packed"], 8, tensors[f"{layer}.weight_shape"]), scale


def group_of(folder, target):
    groups = json.loads((folder / "config.json").read_text())["quantization_config"]["config_groups"].values()
    return next(group for group in groups if target in group["targets"])


def equal_tensors(one, other, layer):
    one, other = (load_file(folder / "model.safetensors") for folder in (one, other))
    names = {name for name in one if name.startswith(f"{layer}.")}
    assert names == {name for name in other if name.startswith(f"{layer}.")}, (layer, names)
    return all(one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in names)


def distances(one, other):
    difference = (one.float() - other.float()).abs()
    return difference.max().item(), difference.mean().item()


def against_transformers(folder, scheme, dtype, ids, options, work):
    """What the worker's logits differ by from transformers', what is allowed, and transformers' model."""
    run_type = dtype if scheme == "W8A8" else "float32"
    mine = worker_logits(options.logits, folder, ids, run_type, work)
    model = load(folder, "sdpa", getattr(torch, run_type))
    sdpa = logits_of(model, ids)
    if scheme == "W8A8":
        eager = logits_of(load(folder, "eager", getattr(torch, run_type)), ids)
        allowed = [2 * d for d in distances(eager, sdpa)]
    else:
        allowed = [1e-4 * sdpa.abs().max().item()] * 2
    return distances(mine, sdpa), allowed, model


@torch.no_grad()
def compare_seed(family, dtype, scheme, seed, options, work):
    """What is wrong, by name, and the distances of logits found and allowed."""
    source, wrong, found, allowed = work / "source", [], [], []
    make_source(family, dtype, source, seed)
    ids = torch.randint(0, SIZE["vocab_size"], PROMPTS, generator=torch.Generator().manual_seed(seed))
    is_tied = FAMILIES[family].get("tie_word_embeddings", False)
    variants = [[EMBEDDING]] if is_tied else [[HEAD], [EMBEDDING], [HEAD, EMBEDDING]]
    for layers in variants:
        name = "+".join(layer.split(".")[-1] for layer in layers)
        asked = {"lm_head": "int8" if HEAD in layers else "keep", "embeddings": "int8" if EMBEDDING in layers else "keep"}
        ours = run_worker(options.worker, source, dict(method="rtn", scheme=scheme, **asked), work / f"ours-{name}")
        distance, limit, model = against_transformers(ours, scheme, dtype, ids, options, work)
        found.append(distance)
        allowed.append(limit)
        modules = dict(model.named_modules())
        for layer in [*layers, HEAD] if is_tied else layers:
            codes, scale = codes_and_scale(ours, EMBEDDING if is_tied else layer)
            if not torch.equal(modules[layer].weight.to(scale.dtype), codes.to(scale.dtype) * scale):
                wrong.append(f"{name}: transformers' {layer}")
        if is_tied:
            assert not any(name in load_file(ours / "model.safetensors") for name in ("lm_head.weight", "lm_head.weight_packed"))
        theirs = work / f"theirs-{name}"
        llm_compressor(source, scheme, [layer.replace(EMBEDDING, "Embedding") for layer in layers], theirs)
        for layer in layers:
            if not all(map(torch.equal, codes_and_scale(ours, layer), codes_and_scale(theirs, layer))):
                wrong.append(f"{name}: codes or scales of {layer}")
        if HEAD in layers and not equal_tensors(ours, theirs, HEAD):
            wrong.append(f"{name}: tensors of {HEAD}")
        if layers == [HEAD] and group_of(ours, HEAD) != group_of(theirs, HEAD):
            wrong.append(f"{name}: the config group of {HEAD}")
        if not is_tied:
            mine, through_theirs = (worker_logits(options.logits, folder, ids, dtype, work) for folder in (ours, theirs))
            if not torch.equal(mine, through_theirs):
                wrong.append(f"{name}: logits of llm-compressor's folder")
    if scheme == "W8A8" and not is_tied:
        llm_compressor(source, scheme, [], work / "all")
        assert codes_and_scale(work / "all", HEAD)[0].dtype == torch.int8
        distance, limit, _ = against_transformers(work / "all", scheme, dtype, ids, options, work)
        found.append(distance)
        allowed.append(limit)
    return wrong, found, allowed


def compare_case(family, dtype, scheme, options, scratch):
    """Prints one line; returns whether everything holds."""
    wrong, found, allowed = [], [], []
    for seed in range(options.seeds):
        work = scratch / f"{family}-{dtype}-{scheme}-{seed}"
        work.mkdir()
        results = compare_seed(family, dtype, scheme, seed, options, work)
        for total, part in zip((wrong, found, allowed), results):
            total.extend(part)
        shutil.rmtree(work)
    count = len(found)
    found, allowed = torch.tensor(found), torch.tensor(allowed)
    largest = found[:, 0].max().item(), allowed[:, 0].max().item()
    mean = found[:, 1].mean().item(), allowed[:, 1].mean().item()
    holds = not wrong and largest[0] <= largest[1] and mean[0] <= mean[1]
    print(
        f"{family:5} {dtype:8} {scheme:5} {count} checkpoints, wrong: {', '.join(wrong) or 'nothing'}; logits from "
        f"transformers': largest {largest[0]:.2e} of {largest[1]:.2e} allowed, mean {mean[0]:.2e} of {mean[1]:.2e}: "
        f"{'ok' if holds else 'NO'}",
        flush=True,
    )
    return holds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", default="target/release/qpipe-worker")
    parser.add_argument("--logits", default="target/release/examples/logits")
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        cases = [(family, dtype, scheme) for family in FAMILIES for dtype in TYPES for scheme in SCHEMES]
        return 0 if all([compare_case(*case, options, pathlib.Path(scratch)) for case in cases]) else 1


if __name__ == "__main__":
    sys.exit(main())
