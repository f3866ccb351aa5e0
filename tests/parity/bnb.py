"""Holds `quantize` with `method: bnb-nf4` and `bnb-int8` to bitsandbytes, and its format to transformers.

    pip install torch==2.11.0 transformers==5.17.0 bitsandbytes==0.50.2 accelerate
    python tests/parity/bnb.py golden tests/golden/bnb      # what worker/tests/bnb.rs reads
    cargo build --release -p qpipe-worker --bins --examples
    python tests/parity/bnb.py compare                      # random models

All on a CPU. `golden` writes
- matrices.safetensors: random matrices, and what bitsandbytes makes of them,
- llm_int8.safetensors: an activation with outliers, its codes, and the output of a layer,
- CASE/FORMAT: the checkpoint CASE of tests/golden/quant, quantized and saved by transformers, and logits.safetensors: `ids`
  [B, T] and the `logits` that transformers computes, in float32.

`compare` exits with 1 unless, for random models of many shapes (blocks that cross rows, a short last block, K that four
does not divide, rows and blocks of zeros, outliers) in float32, bfloat16 and float16,
- every byte of every tensor, and the `quantization_config`, are what transformers saves with bitsandbytes,
- transformers loads the worker's folder; nf4: the worker's logits are within 1e-4 of max|logit| of its, in float32;
  int8: the output of a layer is within 1e-3 of its largest,
- the worker loads what transformers saved with other options (skipped modules, codes stored as bfloat16, a compute type),
- bitsandbytes' own functions with other block sizes are read, and FP4 is refused.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import bitsandbytes
import torch
import transformers
from bitsandbytes import functional
from safetensors.torch import load_file, save_file

# On CPUs with bfloat16 instructions bitsandbytes rounds scales and activations to bfloat16 whatever it is asked for.
bitsandbytes.nn.modules.has_avx512bf16 = lambda: False

SEED = 20240611
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
METHODS = {
    "nf4": (
        dict(method="bnb-nf4"),
        dict(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    ),
    "nf4-double": (
        dict(method="bnb-nf4", double_quant=True),
        dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
    ),
    "int8": (dict(method="bnb-int8"), dict(load_in_8bit=True)),
}
MATRICES = [(1, 2), (3, 33), (5, 64), (7, 100), (40, 40), (1, 1), (130, 130)]
# hidden, intermediate, heads, key heads, head size
SIZES = {
    "multiples": (128, 320, 4, 2, 32),
    "crossing": (80, 200, 4, 4, 20),
    "odd": (36, 51, 3, 1, 13),
    "large": (512, 1376, 8, 2, 64),
}


def random_matrix(rows, columns, dtype, generator):
    matrix = torch.randn(rows, columns, generator=generator) * 0.05
    matrix.view(-1)[:: 97] *= 12
    if rows > 3:
        matrix[2] = 0
        matrix.view(-1)[64 * 3 : 64 * 4] = 0
    return matrix.to(dtype)


def quantize(matrix):
    """Every tensor that bitsandbytes' state of a matrix has in a checkpoint, by format and name."""
    results = {}
    for name, double in (("nf4", False), ("nf4-double", True)):
        packed, state = functional.quantize_4bit(matrix, blocksize=64, compress_statistics=double, quant_type="nf4")
        results[f"{name}.weight"] = packed
        results |= {f"{name}.weight.{key}": tensor for key, tensor in state.as_dict(packed=True).items()}
    results["int8.weight"], results["int8.SCB"], _ = functional.int8_vectorwise_quant(matrix.half())
    return results


def golden_matrices():
    generator, tensors = torch.Generator().manual_seed(SEED), {}
    for dtype in DTYPES:
        for rows, columns in MATRICES:
            if rows * columns > 1 << 14 and dtype != "bfloat16":
                continue
            matrix = random_matrix(rows, columns, DTYPES[dtype], generator)
            name = f"{dtype}-{rows}-{columns}"
            tensors[f"{name}.source"] = matrix
            tensors |= {f"{name}.{key}": value.contiguous() for key, value in quantize(matrix).items()}
    return tensors


def golden_layer():
    generator = torch.Generator().manual_seed(SEED)
    tensors = {}
    weight, scale, _ = functional.int8_vectorwise_quant(torch.randn(24, 50, generator=generator).half())
    x = torch.randn(9, 50, generator=generator)
    x[1, 7], x[4, 30], x[5] = 9, -6.0, 0
    tensors |= {"weight": weight, "SCB": scale, "bias": torch.randn(24, generator=generator), "x": x}
    for threshold in (6.0, 0.0):
        codes, absmax, outliers = functional.int8_vectorwise_quant(x.half(), threshold)
        sums = functional.int8_linear_matmul(codes, weight)
        name = f"threshold-{threshold:.0f}"
        tensors |= {f"{name}.codes": codes, f"{name}.absmax": absmax, f"{name}.sums": sums}
        if outliers is not None:
            tensors[f"{name}.outliers"] = outliers
        for dtype, kind in DTYPES.items():
            layer = bitsandbytes.nn.Linear8bitLt(50, 24, has_fp16_weights=False, threshold=threshold).eval()
            layer.weight = bitsandbytes.nn.Int8Params(weight.clone(), requires_grad=False, CB=weight, SCB=scale)
            layer.bias.data = tensors["bias"].to(kind)
            with torch.no_grad():
                tensors[f"{name}.{dtype}"] = layer(x.to(kind))
    return {name: tensor.contiguous().clone() for name, tensor in tensors.items()}


def transformers_quantize(source, folder, **options):
    """transformers' own checkpoint of `source`, quantized as `options` say."""
    config = transformers.BitsAndBytesConfig(**options)
    model = transformers.AutoModelForCausalLM.from_pretrained(source, quantization_config=config, device_map="cpu")
    model.save_pretrained(folder)


@torch.no_grad()
def logits(folder, ids, dtype=torch.float32):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, device_map="cpu").eval()
    # One by one: LLM.int8() makes an answer depend on the others of its batch.
    return torch.cat([model(row.unsqueeze(0)).logits for row in ids]).float()


def write_golden(out):
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    provenance = dict(
        made_by="tests/parity/bnb.py", seed=str(SEED), bitsandbytes=bitsandbytes.__version__, torch=torch.__version__,
        transformers=transformers.__version__,
    )
    save_file(golden_matrices(), out / "matrices.safetensors", provenance)
    save_file(golden_layer(), out / "llm_int8.safetensors", provenance)
    ids = torch.randint(0, 32, (6, 24), generator=torch.Generator().manual_seed(SEED))
    for source in sorted((out.parent / "quant").iterdir()):
        for name, (_, options) in METHODS.items():
            folder = out / source.name / name
            transformers_quantize(source / "source", folder, **options)
            (folder / "generation_config.json").unlink()
            save_file(dict(ids=ids, logits=logits(folder, ids)), folder / "logits.safetensors", provenance)
    print(f"{out}: {sum(file.stat().st_size for file in out.rglob('*') if file.is_file())} bytes")


def make_source(family, dtype, size, folder, seed):
    """Random weights, some of them outliers, rows and blocks of zeros."""
    hidden, inner, heads, key_heads, head_dim = SIZES[size]
    torch.manual_seed(seed)
    settings = dict(
        vocab_size=256, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=2, num_attention_heads=heads,
        num_key_value_heads=key_heads, head_dim=head_dim + head_dim % 2, max_position_embeddings=256,
    )
    if family == "llama":
        settings |= dict(attention_bias=True, mlp_bias=True)
    else:
        settings |= dict(tie_word_embeddings=True)
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(family, **settings))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "_proj.weight" in name:
                parameter.copy_(random_matrix(*parameter.shape, torch.float32, generator))
            elif name.endswith("bias"):
                parameter.normal_(0, 0.1)
            elif name.endswith("layernorm.weight"):
                # Outliers among the activations, as in trained models.
                parameter.uniform_(0.5, 1.5)
                parameter[torch.randperm(len(parameter))[:3]] *= 8
    model.to(DTYPES[dtype]).save_pretrained(folder)


def run_worker(worker, params, source, folder):
    folder.mkdir()
    action = {
        "request": "run", "id": 1, "kind": "quantize", "params": params, "inputs": {"model": {"one": str(source)}},
        "scratch": str(folder), "device": "cpu", "threads": torch.get_num_threads(),
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


def worker_logits(program, folder, ids, dtype, scratch):
    request, result = scratch / "ids.json", scratch / "logits.safetensors"
    request.write_text(json.dumps(ids.tolist()))
    subprocess.run([program, folder, request, result, dtype], check=True)
    return load_file(result)["logits"].float()


def worker_linear(program, folder, name, x, scratch):
    request, result = scratch / "x.safetensors", scratch / "y.safetensors"
    save_file(dict(x=x), request)
    subprocess.run([program, folder, name, request, result], check=True)
    return load_file(result)["y"]


def relative(mine, expected):
    return ((mine - expected).abs().max() / expected.abs().max()).item()


def tensors_of(folder):
    return load_file(folder / "model.safetensors")


def config_of(folder):
    return json.loads((folder / "config.json").read_text())["quantization_config"]


def unequal(mine, theirs):
    """Names of tensors that are not the same bytes."""
    def bytes_of(tensor):
        return tensor.contiguous().view(-1).view(torch.uint8)

    same = lambda a, b: a.dtype == b.dtype and a.shape == b.shape and torch.equal(bytes_of(a), bytes_of(b))
    return [name for name in mine.keys() | theirs.keys() if name not in mine or name not in theirs or not same(mine[name], theirs[name])]


@torch.no_grad()
def layer_outputs(folder, name, x):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=x.dtype, device_map="cpu").eval()
    return model.get_submodule(name)(x)


def compare_models(options, scratch):
    holds = True
    for size in SIZES:
        for family in ("llama", "qwen3"):
            for dtype in DTYPES:
                if size == "large" and (family, dtype) != ("qwen3", "bfloat16"):
                    continue
                work = scratch / f"{size}-{family}-{dtype}"
                work.mkdir()
                make_source(family, dtype, size, work / "source", 7)
                ids = torch.randint(0, 256, (3, 40), generator=torch.Generator().manual_seed(2))
                for name, (params, transformers_options) in METHODS.items():
                    mine = run_worker(options.worker, params, work / "source", work / name)
                    theirs = work / f"theirs-{name}"
                    transformers_quantize(work / "source", theirs, **transformers_options)
                    differ = unequal(tensors_of(mine), tensors_of(theirs))
                    holds &= not differ and config_of(mine) == config_of(theirs)
                    text = f"{size:9} {family:5} {dtype:8} {name:10} {len(differ)} of {len(tensors_of(theirs))} tensors differ"
                    if name == "int8":
                        for kind in DTYPES.values():
                            hidden = SIZES[size][0]
                            x = torch.randn(37, hidden, generator=torch.Generator().manual_seed(3)).to(kind)
                            x[:, 5] *= 7
                            layer = "model.layers.1.mlp.gate_proj"
                            expected = layer_outputs(mine, layer, x).float()
                            found = relative(worker_linear(options.linear, mine, layer, x, work).float(), expected)
                            holds &= found <= 1e-3
                            text += f", {str(kind).removeprefix('torch.')} layer within {found:.1e}"
                        found = relative(worker_logits(options.logits, mine, ids, "float32", work), logits(mine, ids))
                        text += f" (logits {found:.1e})"
                    else:
                        found = relative(worker_logits(options.logits, mine, ids, "float32", work), logits(mine, ids))
                        holds &= found <= 1e-4
                        text += f", logits within {found:.1e}"
                    print(text, flush=True)
                    if differ:
                        print("  ", differ[:6])
                shutil.rmtree(work)
    return holds


def compare_options(options, scratch):
    """What transformers saves with other options is read."""
    holds = True
    four = dict(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    cases = {
        "skipped": (four | dict(llm_int8_skip_modules=["lm_head", "model.layers.1", "o_proj"]), 1e-4),
        "skipped int8": (dict(load_in_8bit=True, llm_int8_skip_modules=["lm_head", "down_proj"]), 2e-2),
        "threshold 0": (dict(load_in_8bit=True, llm_int8_threshold=0.0), 2e-2),
        "stored as bfloat16": (four | dict(bnb_4bit_quant_storage="bfloat16"), 1e-4),
        "stored as float32, double": (four | dict(bnb_4bit_quant_storage="float32", bnb_4bit_use_double_quant=True), 1e-4),
        "compute bfloat16": (four | dict(bnb_4bit_compute_dtype="bfloat16"), 3e-2),
        "compute float16": (four | dict(bnb_4bit_compute_dtype="float16"), 4e-3),
    }
    make_source("llama", "float32", "multiples", scratch / "source", 9)
    ids = torch.randint(0, 256, (3, 40), generator=torch.Generator().manual_seed(2))
    for number, (name, (settings, bound)) in enumerate(cases.items()):
        folder = scratch / str(number)
        transformers_quantize(scratch / "source", folder, **settings)
        found = relative(worker_logits(options.logits, folder, ids, "float32", scratch), logits(folder, ids))
        holds &= found <= bound
        print(f"{name:26} logits within {found:.1e} of {bound:.0e}", flush=True)
    return holds


def compare_blocks(options, scratch):
    """Other block sizes, which transformers cannot ask for, and FP4."""
    holds = True
    make_source("llama", "float32", "multiples", scratch / "source", 9)
    folder = scratch / "blocks"
    transformers_quantize(scratch / "source", folder, load_in_4bit=True, bnb_4bit_quant_type="nf4")
    source, saved = tensors_of(scratch / "source"), tensors_of(folder)
    name = "model.layers.0.mlp.down_proj"
    x = torch.randn(11, SIZES["multiples"][1], generator=torch.Generator().manual_seed(3))
    for block in (32, 64, 128, 256, 512, 1024, 2048, 4096):
        for double in (False, True):
            tensors = {key: value for key, value in saved.items() if not key.startswith(f"{name}.weight")}
            packed, state = functional.quantize_4bit(
                source[f"{name}.weight"], blocksize=block, compress_statistics=double, quant_type="nf4"
            )
            tensors[f"{name}.weight"] = packed
            tensors |= {f"{name}.weight.{key}": value for key, value in state.as_dict(packed=True).items()}
            save_file(tensors, folder / "model.safetensors", {"format": "pt"})
            weight = functional.dequantize_4bit(packed, state)
            expected = torch.nn.functional.linear(x, weight, source.get(f"{name}.bias"))
            found = relative(worker_linear(options.linear, folder, name, x, scratch), expected)
            holds &= found <= 1e-5
            print(f"blocks of {block:4}{', double' if double else '':8} layer within {found:.1e}", flush=True)
    fp4 = scratch / "fp4"
    transformers_quantize(scratch / "source", fp4, load_in_4bit=True)
    request = scratch / "ids.json"
    request.write_text("[[1, 2]]")
    refused = subprocess.run([options.logits, fp4, request, scratch / "y"], capture_output=True, text=True)
    print("FP4:", refused.stderr.strip())
    named = all(word in refused.stderr for word in ("bnb_4bit_quant_type", "fp4"))
    return holds and refused.returncode != 0 and named


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    golden, compare = commands.add_parser("golden"), commands.add_parser("compare")
    golden.add_argument("out", type=pathlib.Path)
    compare.add_argument("--worker", default="target/release/qpipe-worker")
    compare.add_argument("--logits", default="target/release/examples/logits")
    compare.add_argument("--linear", default="target/release/examples/linear")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if options.command == "golden":
        write_golden(options.out)
        return 0
    results = []
    for part in (compare_models, compare_options, compare_blocks):
        with tempfile.TemporaryDirectory() as scratch:
            results.append(part(options, pathlib.Path(scratch)))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
