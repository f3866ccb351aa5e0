"""Holds `quantize` with `method: awq` to llm-compressor's AWQModifier, and its formats to their readers.

    pip install torch==2.11.0 transformers==5.17.0 llmcompressor==0.14.0.1 compressed-tensors==0.19.0 datasets
    cargo build --release -p qpipe-worker --bins --examples
    python tests/parity/awq.py quality MODEL ROWS     # a checkpoint folder; JSONL with `prompt` and `completion`
    python tests/parity/awq.py quality                # random weights, random tokens
    python tests/parity/awq.py formats                # random weights

`quality` quantizes the model to 4 bits in groups of 128, with and without zero points: rounded to nearest, with AWQ here,
and with llm-compressor's AWQModifier, which measures its error behind the attention and the feed-forward network. Both are
calibrated on the first half of the rows; printed are, of the other half, the mean KL divergence from the model and the mean
negative log-likelihood. It exits with 1 unless AWQ here has at most 1.1 times the divergence of llm-compressor's.

`formats` exits with 1 unless
- pack-quantized: transformers loads the folder, and the worker's logits are within 1e-4 of max|logit| of its, in float32,
- awq: codes, zero points and scales, unpacked as AutoAWQ unpacks them, make a model whose logits the worker's are within
  1e-4 of. With GPTQMODEL_PYTHON, a Python with gptqmodel and transformers, theirs too (5e-2: on a CPU gptqmodel 7.3.4
  multiplies in bfloat16, 4e-3 a layer).
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file

from worker import run_action, worker_logits

GROUP = 128
ORDER = [0, 2, 4, 6, 1, 3, 5, 7]
SIZE = dict(
    vocab_size=256, hidden_size=256, intermediate_size=640, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.05,
)
FAMILIES = {
    "llama": dict(attention_bias=True, mlp_bias=True, num_key_value_heads=4),
    "qwen3": dict(head_dim=64, tie_word_embeddings=True),
}


def make_source(family, dtype, folder, seed):
    """Random weights; some channels of the norms are large, as in trained models."""
    import tokenizers

    torch.manual_seed(seed)
    settings = SIZE | FAMILIES[family]
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(family, **settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
            if name.endswith("layernorm.weight"):
                parameter.uniform_(0.5, 1.5)
                parameter[torch.randperm(len(parameter))[:6]] *= 12
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    words = tokenizers.models.WordLevel({str(token): token for token in range(settings["vocab_size"])}, "0")
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="0").save_pretrained(folder)


def load(folder, dtype=torch.float32):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def nibbles(packed):
    """i32 [R, W] to [R, W, 8], the lowest nibble first."""
    return torch.stack([(packed >> (4 * place)) & 15 for place in range(8)], 2)


def unpack_awq(packed):
    """As AutoAWQ's `unpack_awq` and `reverse_awq_order` do it: [R, N/8] to [R, N]."""
    places = [ORDER.index(channel) for channel in range(8)]
    return nibbles(packed)[:, :, places].flatten(1)


def weight_of(tensors, name, shape):
    """The float32 weight of a linear layer in any of the two formats."""
    if f"{name}.qweight" in tensors:
        codes, zeros = unpack_awq(tensors[f"{name}.qweight"]), unpack_awq(tensors[f"{name}.qzeros"])
        scales = tensors[f"{name}.scales"]
        assert scales.dtype == torch.float16
        groups = codes.view(len(zeros), -1, codes.shape[1])
        return ((groups - zeros.unsqueeze(1)) * scales.float().unsqueeze(1)).flatten(0, 1).T
    codes = nibbles(tensors[f"{name}.weight_packed"]).flatten(1)[:, : shape[1]] - 8
    scale = tensors[f"{name}.weight_scale"].float()
    zeros = torch.zeros_like(scale)
    if f"{name}.weight_zero_point" in tensors:
        zeros = nibbles(tensors[f"{name}.weight_zero_point"].T.contiguous()).flatten(1)[:, : shape[0]].T - 8
    groups = codes.view(*scale.shape, -1)
    return ((groups - zeros.unsqueeze(-1)) * scale.unsqueeze(-1)).flatten(1)


@torch.no_grad()
def dequantized(source, folder):
    """MODEL in float32 with the weights that the quantized checkpoint in `folder` stands for."""
    model, tensors = load(source), load_file(folder / "model.safetensors")
    for name, parameter in model.named_parameters():
        if name in tensors:
            parameter.copy_(tensors[name].float())
        else:
            parameter.copy_(weight_of(tensors, name.removesuffix(".weight"), parameter.shape))
    return model


@torch.no_grad()
def figures(model, rows, base=None):
    """Mean KL divergence from the log-probabilities `base`, mean negative log-likelihood, and the log-probabilities."""
    divergence, likelihood, tokens, all_log_probabilities = 0.0, 0.0, 0, []
    for index, (ids, prompt) in enumerate(rows):
        log_probabilities = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        all_log_probabilities.append(log_probabilities)
        target = torch.tensor(ids[prompt:])
        likelihood -= log_probabilities[prompt - 1 : -1].gather(1, target.unsqueeze(1)).sum().item()
        tokens += len(target)
        if base is not None:
            divergence += (base[index].exp() * (base[index] - log_probabilities)).sum(-1).mean().item()
    return divergence / len(rows), likelihood / tokens, all_log_probabilities


def llm_compressor(source, rows, symmetric, folder):
    import datasets
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier

    if not torch.cuda.is_available():
        # AWQModifier pins memory without asking for whom.
        torch.Tensor.pin_memory = lambda tensor, *_: tensor
    model = load(source, "auto")
    ids = [ids for ids, _ in rows]
    data = datasets.Dataset.from_dict(dict(input_ids=ids, attention_mask=[[1] * len(row) for row in ids]))
    scheme = "W4A16" if symmetric else "W4A16_ASYM"
    recipe = [AWQModifier(), QuantizationModifier(targets="Linear", scheme=scheme, ignore=["lm_head"])]
    oneshot(
        model=model, dataset=data, processor=transformers.AutoTokenizer.from_pretrained(source), recipe=recipe,
        num_calibration_samples=len(ids), max_seq_length=256, shuffle_calibration_samples=False, batch_size=1,
    )
    model.save_pretrained(folder, save_compressed=True)


def text_rows(model, file):
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    encode = lambda text: tokenizer(text, add_special_tokens=False).input_ids
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return rows, [(encode(row["prompt"] + row["completion"]), len(encode(row["prompt"]))) for row in rows]


def random_rows(count, length):
    ids = torch.randint(0, SIZE["vocab_size"], (count, length), generator=torch.Generator().manual_seed(1))
    texts = [{"text": " ".join(map(str, row))} for row in ids.tolist()]
    return texts, [(row, 1) for row in ids.tolist()]


def compare_quality(options, scratch):
    source = options.model
    if source is None:
        source = scratch / "source"
        make_source("qwen3", "bfloat16", source, 3)
        texts, rows = random_rows(120, 64)
    else:
        texts, rows = text_rows(source, options.rows)
    half = len(rows) // 2
    (scratch / "rows.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts[:half]))
    inputs = dict(model=source, data=scratch / "rows.jsonl")
    params = dict(samples=half, max_length=256, seed=0, statistics="moments")
    statistics = run_action(options.worker, "calibrate", params, inputs, scratch / "calibrate")
    base = figures(load(source), rows[half:])
    print(f"model                      nll {base[1]:.4f}", flush=True)
    holds = True
    for symmetric in (False, True):
        results = {}
        variants = {
            "awq": (dict(method="awq", symmetric=symmetric), dict(model=source, calibration=statistics)),
            "awq, not clipped": (
                dict(method="awq", symmetric=symmetric, clip=False), dict(model=source, calibration=statistics)
            ),
        }
        if symmetric:
            variants["rtn"] = dict(method="rtn", scheme="W4A16"), dict(model=source)
        for number, (name, (params, given)) in enumerate(variants.items()):
            folder = run_action(options.worker, "quantize", params, given, scratch / f"{symmetric}-{number}")
            results[name] = figures(dequantized(source, folder), rows[half:], base[2])
        theirs = scratch / f"theirs-{symmetric}"
        llm_compressor(source, rows[:half], symmetric, theirs)
        results["llm-compressor's AWQ"] = figures(dequantized(source, theirs), rows[half:], base[2])
        for name, (divergence, likelihood, _) in results.items():
            print(f"{'sym ' if symmetric else 'asym'} {name:21} nll {likelihood:.4f} KL {divergence:.5f}", flush=True)
        holds &= results["awq"][0] <= 1.1 * results["llm-compressor's AWQ"][0]
    return holds


def compare_formats(options, scratch):
    holds = True
    for family in FAMILIES:
        for dtype in ("float32", "bfloat16", "float16"):
            work = scratch / f"{family}-{dtype}"
            work.mkdir()
            source = work / "source"
            make_source(family, dtype, source, 5)
            texts, _ = random_rows(20, 64)
            (work / "rows.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
            params = dict(samples=20, max_length=256, seed=0, statistics="moments")
            inputs = dict(model=source, data=work / "rows.jsonl")
            statistics = run_action(options.worker, "calibrate", params, inputs, work / "calibrate")
            ids = torch.randint(0, SIZE["vocab_size"], (3, 40), generator=torch.Generator().manual_seed(2))
            for format, symmetric in (("awq", False), ("pack-quantized", False), ("pack-quantized", True)):
                params = dict(method="awq", symmetric=symmetric, format=format)
                given = dict(model=source, calibration=statistics)
                folder = run_action(options.worker, "quantize", params, given, work / f"{format}-{symmetric}")
                model = load(folder) if format == "pack-quantized" else dequantized(source, folder)
                with torch.no_grad():
                    expected = model(ids).logits
                mine = worker_logits(options.logits, folder, ids, "float32", work)
                found = ((mine - expected).abs().max() / expected.abs().max()).item()
                text = f"{family:6} {dtype:9} {format:15} {'sym ' if symmetric else 'asym'} logits within {found:.1e}"
                holds &= found <= 1e-4
                python = os.environ.get("GPTQMODEL_PYTHON")
                if format == "awq" and dtype == "float16" and python:
                    save_file(dict(ids=ids), work / "reader_ids.safetensors")
                    subprocess.run([python, __file__, "awq_reader", folder, work / "reader_ids.safetensors"], check=True)
                    theirs = load_file(work / "reader_ids.safetensors")["logits"]
                    found = ((theirs - expected).abs().max() / expected.abs().max()).item()
                    text += f", gptqmodel's within {found:.1e}"
                    holds &= found <= 5e-2
                print(text, flush=True)
    return holds


@torch.no_grad()
def awq_reader(folder, file):
    """Adds to FILE, which holds `ids`, the logits that transformers computes with gptqmodel's layers."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16, device_map="cpu")
    ids = load_file(file)["ids"]
    save_file(dict(ids=ids, logits=model(ids).logits.float()), file)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    quality, formats = commands.add_parser("quality"), commands.add_parser("formats")
    quality.add_argument("model", type=pathlib.Path, nargs="?")
    quality.add_argument("rows", type=pathlib.Path, nargs="?")
    for command in (quality, formats):
        command.add_argument("--worker", default="target/release/qpipe-worker")
        command.add_argument("--logits", default="target/release/examples/logits")
    reader = commands.add_parser("awq_reader")
    reader.add_argument("folder", type=pathlib.Path)
    reader.add_argument("file", type=pathlib.Path)
    options = parser.parse_args()
    if options.command == "awq_reader":
        awq_reader(options.folder, options.file)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        compare = compare_quality if options.command == "quality" else compare_formats
        return 0 if compare(options, pathlib.Path(scratch)) else 1


if __name__ == "__main__":
    sys.exit(main())
