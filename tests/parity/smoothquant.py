"""Holds `quantize` with `method: smoothquant` to llm-compressor, and its W8A8 and W4A8 layers to transformers.

    pip install torch==2.11.0 transformers==5.17.0 llmcompressor==0.14.0.1 compressed-tensors==0.19.0 datasets
    python tests/parity/smoothquant.py golden tests/golden/smoothquant     # what worker/tests/smoothquant.rs reads
    cargo build --release -p qpipe-worker --bins --examples
    python tests/parity/smoothquant.py compare                             # random models

`golden` writes CASE.safetensors for a tiny random Llama in float32 and bfloat16: the weights of block 0 (q, k, v, gate,
up, both norms), the extremes of the norms' outputs that SmoothQuantModifier collected on random tokens (`minimum.*`,
`maximum.*`), and the weights that it made of them (`smoothed.*`), alpha 0.8 and 0.5. Two channels are dead, and one
column of weights is 0.

`compare` lets llm-compressor smooth and round random models (SmoothQuantModifier, then QuantizationModifier), hands the
extremes that it collected to the worker as a calibration, and exits with 1 unless
- norms, codes and scales are equal; the scales of static activations are within 1e-5 in float32 and 5 % in bfloat16:
  llm-compressor measures them on the smoothed model, whose weights were rounded to bfloat16 once more,
- transformers loads the worker's folder, and one of its layers gives on one input the integers that the worker gives
  and, scaled, the same to 1e-3 of the largest,
- the largest and the mean |difference| of logits from transformers' SDPA run are at most twice those between its own
  eager and SDPA runs, over all prompts. Not so for static activations in float32: there its two runs differ in
  nothing but a code here and there, or not at all.
For `qpipe-w4a8`, which no other program reads, the layer is recomputed as docs/formats/qpipe-w4a8.md says.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import datasets
import tokenizers
import torch
import transformers
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme, preset_name_to_scheme
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier
from safetensors.torch import load_file, save_file

SEED = 20240611
VOCABULARY = 256
SIZE = dict(
    vocab_size=VOCABULARY, hidden_size=256, intermediate_size=640, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.05,
)
GOLDEN_SIZE = SIZE | dict(hidden_size=32, intermediate_size=48, num_hidden_layers=1, vocab_size=64)
FAMILIES = {
    "llama": dict(attention_bias=True, mlp_bias=True),
    "qwen3": dict(head_dim=64, tie_word_embeddings=True),
}
INPUTS = {
    "self_attn.q_proj": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "self_attn.o_proj": ["self_attn.o_proj"],
    "mlp.gate_proj": ["mlp.gate_proj", "mlp.up_proj"],
    "mlp.down_proj": ["mlp.down_proj"],
}
NORMS = {"self_attn.q_proj": "input_layernorm", "mlp.gate_proj": "post_attention_layernorm"}
LAYERS = ("self_attn.q_proj", "mlp.down_proj")


class RecordingModifier(SmoothQuantModifier):
    """Keeps the extremes that it collects."""

    def _apply_smoothing(self, model):
        for name, scale in self.scales_.items():
            EXTREMES[name] = scale.min_channel_vals.clone(), scale.max_channel_vals.clone()
        super()._apply_smoothing(model)


EXTREMES = {}


def make_source(family, dtype, settings, folder, seed):
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(family, **settings)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
            if name.endswith("layernorm.weight"):
                parameter.uniform_(0.5, 1.5)
                parameter[7] *= 8
        block = model.model.layers[0]
        block.input_layernorm.weight[3] = 0
        block.post_attention_layernorm.weight[5] = 0
        for part in ("q_proj", "k_proj", "v_proj"):
            getattr(block.self_attn, part).weight[:, 9] = 0
        block.self_attn.k_proj.weight[1] = 0
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    words = tokenizers.models.WordLevel({str(token): token for token in range(settings["vocab_size"])}, "0")
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(words), pad_token="0")
    return tokenizer


def samples(vocabulary, count, length, seed):
    return torch.randint(0, vocabulary, (count, length), generator=torch.Generator().manual_seed(seed))


def rounding(scheme, activations, group):
    if scheme == "W8A8" and activations == "static":
        weights = preset_name_to_scheme("W8A8", ["Linear"]).weights
        settings = dict(num_bits=8, type="int", symmetric=True, strategy="tensor", dynamic=False)
        # The largest magnitude of all samples; the default observer averages.
        inputs = QuantizationArgs(observer="static_minmax", **settings)
        groups = {"group_0": QuantizationScheme(targets=["Linear"], weights=weights, input_activations=inputs)}
        return QuantizationModifier(config_groups=groups, ignore=["lm_head"])
    if scheme == "W4A8" and group != 128:
        preset = preset_name_to_scheme(scheme, ["Linear"])
        weights = QuantizationArgs(**preset.weights.model_dump() | {"group_size": group})
        inputs = preset.input_activations
        groups = {"group_0": QuantizationScheme(targets=["Linear"], weights=weights, input_activations=inputs)}
        return QuantizationModifier(config_groups=groups, ignore=["lm_head"])
    return QuantizationModifier(targets="Linear", scheme=scheme, ignore=["lm_head"])


def llm_compressor(source, tokenizer, ids, alpha, modifiers, folder=None):
    """The smoothed (and rounded) model; EXTREMES holds what it collected."""
    EXTREMES.clear()
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype="auto", attn_implementation="eager")
    rows = datasets.Dataset.from_dict({"input_ids": ids.tolist(), "attention_mask": torch.ones_like(ids).tolist()})
    recipe = [RecordingModifier(smoothing_strength=alpha), *modifiers]
    oneshot(
        model=model, dataset=rows, processor=tokenizer, recipe=recipe,
        num_calibration_samples=len(ids), max_seq_length=ids.shape[1], shuffle_calibration_samples=False, batch_size=1,
    )
    if folder is not None:
        model.save_pretrained(folder, save_compressed=True)
    return model


@torch.no_grad()
def inputs_of(source, ids):
    """Minimum, maximum and sum of magnitudes of each linear layer's input, in the unsmoothed model."""
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype="auto", attn_implementation="eager")
    seen = {}

    def hook(name):
        def keep(module, arguments):
            x = arguments[0].reshape(-1, arguments[0].shape[-1])
            low, high, total = x.amin(0).float(), x.amax(0).float(), x.double().abs().sum(0)
            if name in seen:
                before = seen[name]
                low, high, total = torch.minimum(low, before[0]), torch.maximum(high, before[1]), total + before[2]
            seen[name] = low, high, total
        return keep

    for index, block in enumerate(model.model.layers):
        for part in INPUTS:
            block.get_submodule(part).register_forward_pre_hook(hook(f"model.layers.{index}.{part}"))
    for row in ids:
        model(row.unsqueeze(0))
    return seen


def write_calibration(source, ids, folder):
    """What the `calibrate` node would have written, with the extremes that llm-compressor collected."""
    folder.mkdir()
    seen = inputs_of(source, ids)
    layers = json.loads((source / "config.json").read_text())["num_hidden_layers"]
    summary = []
    for index in range(layers):
        tensors = {}
        for part, linears in INPUTS.items():
            name = f"model.layers.{index}.{part}"
            low, high, total = seen[name]
            if part in NORMS:
                low, high = (extreme.float() for extreme in EXTREMES[f"model.layers.{index}.{NORMS[part]}"])
            tensors |= {f"{name}.minimum": low, f"{name}.maximum": high, f"{name}.magnitude": total}
            summary.append(dict(
                linears=[f"model.layers.{index}.{linear}" for linear in linears], channels=len(low),
                dead=int(((low == 0) & (high == 0)).sum()), tokens=ids.numel(), file=f"block-{index:05}.safetensors",
            ))
        tensors = {key: tensor.clone().contiguous() for key, tensor in tensors.items()}
        save_file(tensors, folder / f"block-{index:05}.safetensors")
    lengths = torch.tensor([ids.shape[1]] * len(ids), dtype=torch.int32)
    save_file(dict(ids=ids.flatten().int(), lengths=lengths), folder / "samples.safetensors")
    about = dict(format=1, statistics="ranges", samples=len(ids), tokens=ids.numel(), cut=0, inputs=summary)
    (folder / "statistics.json").write_text(json.dumps(about))


def run_worker(worker, params, inputs, folder):
    folder.mkdir()
    action = {
        "request": "run", "id": 1, "kind": "quantize", "params": {"method": "smoothquant"} | params,
        "inputs": {port: {"one": str(path)} for port, path in inputs.items()},
        "scratch": str(folder), "device": "cpu", "threads": 1,
    }
    with subprocess.Popen([worker], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        process.stdin.write(json.dumps(action) + "\n")
        process.stdin.flush()
        # The pipe stays open until the action has ended: the end of input stops it.
        ends = (json.loads(line) for line in process.stdout)
        last = next(event for event in ends if event["event"] in ("done", "failed", "stopped"))
        process.stdin.close()
    assert last["event"] == "done", last
    return folder / "out"


def worker_linear(program, folder, name, x, scratch):
    given, result = scratch / "x.safetensors", scratch / "y.safetensors"
    save_file({"x": x}, given)
    subprocess.run([program, folder, name, given, result], check=True)
    return load_file(result)["y"]


def worker_logits(program, folder, ids, dtype, scratch):
    request, result = scratch / "ids.json", scratch / "logits.safetensors"
    request.write_text(json.dumps(ids.tolist()))
    subprocess.run([program, folder, request, result, dtype], check=True)
    return load_file(result)["logits"]


@torch.no_grad()
def logits(folder, ids, attention):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention, dtype="auto")
    return torch.cat([model.eval()(row.unsqueeze(0)).logits for row in ids])


def distances(one, other):
    difference = (one.float() - other.float()).abs()
    return torch.tensor([difference.max(), difference.mean()])


def integers(y, x, scale, weight_scale, bias):
    """The int32 sums of codes that `y` = sums · scale of the token · scale of the channel + bias was made of."""
    y = y.double() if bias is None else y.double() - bias.double()
    return y / (scale.double() * weight_scale.double().view(1, -1))


def quantization_config(folder):
    return json.loads((folder / "config.json").read_text())["quantization_config"]


def compare_tensors(ours, theirs):
    """Names of tensors that differ, scales of static activations apart, and how far those are."""
    left, right = load_file(ours / "model.safetensors"), load_file(theirs / "model.safetensors")
    assert left.keys() == right.keys(), left.keys() ^ right.keys()
    unequal, furthest = [], 0.0
    for name, tensor in left.items():
        assert (tensor.dtype, tensor.shape) == (right[name].dtype, right[name].shape), name
        if name.endswith("input_scale"):
            furthest = max(furthest, (tensor.float() / right[name].float() - 1).abs().max().item())
        elif not torch.equal(tensor, right[name]):
            unequal.append(name)
    return unequal, furthest


@torch.no_grad()
def compare_layer(options, folder, static, work, seed):
    """Whether layers give transformers' integers, and the furthest scaled difference, relative to the largest."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    # The first forward pass decompresses the weights.
    model(torch.zeros((1, 1), dtype=torch.long))
    stored = load_file(folder / "model.safetensors")
    equal, furthest = True, 0.0
    for part in LAYERS:
        name = f"model.layers.1.{part}"
        module = model.get_submodule(name)
        x = torch.randn(24, module.in_features, generator=torch.Generator().manual_seed(seed)) * 2
        # Of two dimensions, compressed-tensors takes the second for tokens.
        theirs = module(x.unsqueeze(0)).squeeze(0)
        ours = worker_linear(options.linear, folder, name, x, work)
        furthest = max(furthest, ((ours - theirs).abs().max() / theirs.abs().max()).item())
        weight_scale = stored[f"{name}.weight_scale"].float()
        scale = x.abs().amax(1, keepdim=True) / 127.5
        if static:
            scale = stored[f"{name}.input_scale"].float()
        codes = (x / scale).clamp(-128, 127).round()
        weight = stored[f"{name}.weight"].double()
        if weight_scale.shape[1] == 1:
            sums = codes.double() @ weight.T
            mine = integers(ours, x, scale, weight_scale, stored.get(f"{name}.bias"))
            equal &= bool((mine.round() == sums).all()) and (mine - sums).abs().max().item() < 0.3
        else:
            groups = weight.view(*weight_scale.shape, -1) * weight_scale.double().unsqueeze(-1)
            bias = stored.get(f"{name}.bias", torch.zeros(())).double()
            value = codes.double() @ groups.flatten(1).T * scale.double() + bias
            equal &= ((ours - value).abs().max() / value.abs().max()).item() < 1e-5
    return equal, furthest


def compare_own_format(options, folder, work, seed):
    """docs/formats/qpipe-w4a8.md, word by word."""
    stored = load_file(folder / "model.safetensors")
    group = quantization_config(folder)["group_size"]
    equal, bits = True, 0.0
    for part in LAYERS:
        name = f"model.layers.1.{part}"
        packed, zero = stored[f"{name}.weight_packed"], stored[f"{name}.group_zero"].int()
        codes = torch.stack([(packed >> (4 * place)) & 15 for place in range(8)], 2).flatten(1) - 8
        groups = codes.view(len(codes), -1, group)
        weight = ((groups - zero.unsqueeze(-1)) * stored[f"{name}.group_scale"].int().unsqueeze(-1)).flatten(1)
        assert weight.min() >= -128 and weight.max() <= 127
        x = torch.randn(24, weight.shape[1], generator=torch.Generator().manual_seed(seed)) * 2
        ours = worker_linear(options.linear, folder, name, x, work)
        scale = x.abs().amax(1, keepdim=True) / 127.5
        sums = (x / scale).clamp(-128, 127).round().double() @ weight.double().T
        mine = integers(ours, x, scale, stored[f"{name}.channel_scale"], stored.get(f"{name}.bias"))
        equal &= bool((mine.round() == sums).all()) and (mine - sums).abs().max().item() < 0.3
        parts = ("weight_packed", "group_scale", "group_zero", "channel_scale")
        stored_bytes = sum(stored[f"{name}.{p}"].numel() * stored[f"{name}.{p}"].element_size() for p in parts)
        bits = max(bits, 8 * stored_bytes / weight.numel())
    return equal, bits


def compare_case(family, dtype, scheme, activations, alpha, options, scratch):
    found, allowed = torch.zeros(2), torch.zeros(2)
    unequal, static_error, layers_equal, layer_error = [], 0.0, True, 0.0
    group = 128
    for seed in range(options.seeds):
        work = scratch / f"{family}-{dtype}-{scheme}-{activations}-{seed}"
        settings = SIZE | FAMILIES[family]
        tokenizer = make_source(family, dtype, settings, work / "source", seed)
        ids = samples(VOCABULARY, 8, 64, seed)
        modifier = rounding(scheme, activations, group)
        llm_compressor(work / "source", tokenizer, ids, alpha, [modifier], work / "theirs")
        write_calibration(work / "source", ids, work / "calibration")
        inputs = dict(model=work / "source", calibration=work / "calibration")
        params = dict(scheme=scheme, alpha=alpha, activations=activations, format="int-quantized")
        ours = run_worker(options.worker, params, inputs, work / "scratch")
        differ, furthest = compare_tensors(ours, work / "theirs")
        unequal += differ
        static_error = max(static_error, furthest)
        assert quantization_config(ours) == quantization_config(work / "theirs")
        equal, furthest = compare_layer(options, ours, activations == "static", work, seed)
        layers_equal &= equal
        layer_error = max(layer_error, furthest)
        prompts = samples(VOCABULARY, 8, 64, seed + 1000)
        sdpa = logits(ours, prompts, "sdpa")
        mine = distances(worker_logits(options.logits, ours, prompts, dtype, work), sdpa)
        found = torch.stack([torch.maximum(found, mine)[0], found[1] + mine[1]])
        own = 2 * distances(logits(ours, prompts, "eager"), sdpa)
        allowed = torch.stack([torch.maximum(allowed, own)[0], allowed[1] + own[1]])
        if scheme == "W4A8":
            params = dict(scheme=scheme, alpha=alpha)
            own_format = run_worker(options.worker, params, inputs, work / "own")
            equal, bits = compare_own_format(options, own_format, work, seed)
            layers_equal &= equal and bits <= 4.3
        shutil.rmtree(work)
    is_near = (activations == "static" and dtype == "float32") or bool((found <= allowed).all())
    static_holds = static_error <= (1e-5 if dtype == "float32" else 0.05)
    holds = not unequal and static_holds and layers_equal and layer_error <= 1e-3 and is_near
    print(
        f"{family:6} {dtype:9} {scheme} {activations:7} alpha {alpha}: {len(unequal)} tensors differ, static scales "
        f"by {static_error:.1e}; a layer's integers {'equal' if layers_equal else 'DIFFER'}, scaled within "
        f"{layer_error:.1e}; logits: largest {found[0]:.2e} of {allowed[0]:.2e} allowed, mean {found[1]:.2e} of "
        f"{allowed[1]:.2e}: "
        f"{'ok' if holds else 'NO ' + str(unequal[:4])}",
        flush=True,
    )
    return holds


def write_golden(out):
    out.mkdir(parents=True, exist_ok=True)
    versions = {name: __import__(name).__version__ for name in ("torch", "transformers", "compressed_tensors")}
    for dtype in ("float32", "bfloat16"):
        tensors = {}
        for alpha in (0.8, 0.5):
            with tempfile.TemporaryDirectory() as scratch:
                source = pathlib.Path(scratch) / "source"
                tokenizer = make_source("llama", dtype, GOLDEN_SIZE, source, SEED)
                model = llm_compressor(source, tokenizer, samples(64, 4, 24, SEED), alpha, [])
                original = load_file(source / "model.safetensors")
                smoothed = model.state_dict()
                for name, tensor in original.items():
                    part = name.removeprefix("model.layers.0.").removesuffix(".weight")
                    in_block = name == f"model.layers.0.{part}.weight"
                    if in_block and not part.endswith(("o_proj", "down_proj")):
                        tensors[f"original.{part}"] = tensor
                        tensors[f"smoothed-{alpha}.{part}"] = smoothed[name].clone()
                for name, (low, high) in EXTREMES.items():
                    norm = name.rpartition(".")[2]
                    tensors |= {f"minimum.{norm}": low.clone(), f"maximum.{norm}": high.clone()}
        provenance = dict(made_by="tests/parity/smoothquant.py", llmcompressor="0.14.0.1", seed=str(SEED), **versions)
        save_file(tensors, out / f"{dtype}.safetensors", provenance)
    print(f"{out}: {sum(file.stat().st_size for file in out.iterdir())} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    golden = commands.add_parser("golden")
    golden.add_argument("out", type=pathlib.Path)
    compare = commands.add_parser("compare")
    compare.add_argument("--worker", default="target/release/qpipe-worker")
    compare.add_argument("--logits", default="target/release/examples/logits")
    compare.add_argument("--linear", default="target/release/examples/linear")
    compare.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "golden":
        write_golden(options.out)
        return 0
    cases = [
        (family, dtype, *case)
        for family in FAMILIES
        for dtype in ("float32", "bfloat16")
        for case in (("W8A8", "dynamic", 0.8), ("W8A8", "static", 0.5), ("W4A8", "dynamic", 0.5))
    ]
    with tempfile.TemporaryDirectory() as scratch:
        return 0 if all([compare_case(*case, options, pathlib.Path(scratch)) for case in cases]) else 1


if __name__ == "__main__":
    sys.exit(main())
