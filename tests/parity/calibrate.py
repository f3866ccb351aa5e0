"""Holds `calibrate` to forward hooks in transformers 5.17 with torch 2.11.

    python tests/parity/calibrate.py [WORKER [MODEL [ROWS [SAMPLES]]]]

runs WORKER (default target/release/qpipe-worker) on SAMPLES (40) rows of ROWS (examples/data/train.jsonl) with MODEL
(examples/tiny), as it is and in bfloat16, and compares: the token ids of every sample with the tokenizer's; and of the
input of every linear layer the extremes, the mean magnitude and X'X with sums in float64 over what the layer was given
in transformers, sample by sample. Float32 figures agree within 1e-4 of the largest of their kind, bfloat16 ones
within twice the distance between transformers' own eager and SDPA runs, or 1e-2 where that is more.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
PARTS = ["self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"]
FIGURES = ["minimum", "maximum", "mean_magnitude", "moments"]


def calibrate(worker, model, rows, samples, scratch):
    action = {
        "request": "run", "id": 1, "kind": "calibrate",
        "params": {"samples": samples, "max_length": 2048, "seed": 0, "statistics": "moments"},
        "inputs": {"model": {"one": str(model)}, "data": {"one": str(rows)}},
        "scratch": str(scratch), "device": "cpu", "threads": 2,
    }
    process = subprocess.Popen([worker], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdin.write(json.dumps(action) + "\n")
    process.stdin.flush()
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "failed":
            raise SystemExit(event["message"])
        if event["event"] == "done":
            break
    process.stdin.close()
    process.wait()
    return Path(scratch) / "out"


def read(out):
    """Token ids of the samples, and the figures of every input."""
    samples = load_file(out / "samples.safetensors")
    sequences = torch.split(samples["ids"].long(), samples["lengths"].tolist())
    summary = json.loads((out / "statistics.json").read_text())
    figures = {}
    for entry in summary["inputs"]:
        name, size = entry["linears"][0], entry["channels"]
        tensors = load_file(out / entry["file"])
        full = torch.zeros(size, size, dtype=torch.float64)
        rows, columns = torch.tril_indices(size, size)
        full[rows, columns] = tensors[f"{name}.moments"].double()
        full = full + full.tril(-1).T
        figures[name] = {
            "minimum": tensors[f"{name}.minimum"].double(),
            "maximum": tensors[f"{name}.maximum"].double(),
            "mean_magnitude": tensors[f"{name}.magnitude"] / entry["tokens"],
            "moments": full,
        }
        assert tensors[f"{name}.tokens"].item() == entry["tokens"] == sum(len(ids) for ids in sequences)
    return sequences, figures


def hooked(model, sequences):
    """The same figures by forward hooks."""
    inputs = {}
    for name, module in model.named_modules():
        if any(name.endswith(part) for part in PARTS):
            inputs[name] = []
            module.register_forward_pre_hook(lambda _, args, name=name: inputs[name].append(args[0][0].double()))
    with torch.no_grad():
        for ids in sequences:
            model(ids[None], use_cache=False)
    figures = {}
    for name, seen in inputs.items():
        x = torch.cat(seen)
        figures[name] = {
            "minimum": x.amin(0), "maximum": x.amax(0), "mean_magnitude": x.abs().mean(0), "moments": x.T @ x,
        }
    return figures


def distances(found, expected):
    """For each figure the largest difference of any input, as a share of the largest value there."""
    def of(figure):
        pairs = ((found[name][figure], expected[name][figure]) for name in expected)
        return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)

    assert found.keys() == expected.keys(), (found.keys(), expected.keys())
    return {figure: of(figure) for figure in FIGURES}


def texts(rows):
    for line in Path(rows).read_text().splitlines():
        row = json.loads(line)
        yield row["text"] if "text" in row else row["prompt"] + row["completion"]


def main():
    defaults = [ROOT / "target/release/qpipe-worker", ROOT / "examples/tiny", ROOT / "examples/data/train.jsonl", "40"]
    worker, source, rows, samples = sys.argv[1:] + defaults[len(sys.argv) - 1 :]
    tokenizer = AutoTokenizer.from_pretrained(source)
    known = {tuple(tokenizer(text).input_ids) for text in texts(rows)}
    for dtype in (torch.float32, torch.bfloat16):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            load = lambda path, attention: AutoModelForCausalLM.from_pretrained(
                path, dtype=dtype, attn_implementation=attention
            ).eval()
            load(source, "eager").save_pretrained(folder / "model")
            tokenizer.save_pretrained(folder / "model")
            out = calibrate(worker, folder / "model", rows, int(samples), folder / "scratch")
            sequences, found = read(out)
            assert all(tuple(ids.tolist()) in known for ids in sequences)
            eager = hooked(load(folder / "model", "eager"), sequences)
            sdpa = hooked(load(folder / "model", "sdpa"), sequences)
            ours, own = distances(found, sdpa), distances(eager, sdpa)
            for figure in FIGURES:
                allowed = 1e-4 if dtype == torch.float32 else max(2 * own[figure], 1e-2)
                verdict = "ok" if ours[figure] <= allowed else "DIFFERS"
                print(f"{dtype} {figure}: {ours[figure]:.1e} (eager from sdpa {own[figure]:.1e}) {verdict}")
                assert ours[figure] <= allowed


if __name__ == "__main__":
    main()
