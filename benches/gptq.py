"""GPTQ of a small random Llama: qpipe beside llm-compressor and GPTQModel, in one run on one machine.

    cargo build --release --workspace
    python benches/gptq.py --llmc LLMC_PYTHON --gptqmodel GPTQMODEL_PYTHON [--samples 20 200] [--threads 2] [--repeat 3]

LLMC_PYTHON has torch 2.11.0, transformers 5.17.0, llmcompressor 0.14.0.1 and datasets; GPTQMODEL_PYTHON gptqmodel 7.3.4.
This script needs torch, transformers and tokenizers itself (LLMC_PYTHON will do).

Model: 8 layers, hidden 512, intermediate 1408, vocabulary 4096, float32; samples of 256 tokens; 4 bits, groups of 128.
Printed for each tool: seconds of wall time from the loaded package to quantized weights in memory (peers), or from the
start of the worker's process to the written checkpoint (qpipe: calibration and quantization together); CPU seconds;
peak resident memory of the process in MiB. And the mean KL divergence of each result from the model on held-out
random tokens, so that nobody is fast by being wrong. Times are medians of the repetitions.

Measured on two cores of an AMD EPYC without AVX-512, 20 samples: qpipe 8.6 s (peak 370 MiB, KL 0.210), with `propagate`
10.8 s (417 MiB, 0.210); llm-compressor 36.9 s (1,223 MiB, 0.209); GPTQModel 89.5 s (1,229 MiB, 0.205). 200 samples: qpipe
46.0 s (411 MiB, 0.190), with `propagate` 69.2 s (822 MiB, 0.191); llm-compressor 149.4 s (1,321 MiB, 0.191); GPTQModel 694.2 s
(1,313 MiB, 0.191).
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

VOCABULARY, LENGTH, HELD_OUT = 4096, 256, 8


def make_inputs(folder, samples):
    import tokenizers
    import torch
    import transformers

    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=8, max_position_embeddings=512, initializer_range=0.05, bos_token_id=0, eos_token_id=1,
    )
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder / "model")
    # Special tokens are found inside of words too: they must begin none.
    word = lambda token: f"<{token}>" if token < 2 else f"t{token}"
    words = tokenizers.models.WordLevel({word(token): token for token in range(VOCABULARY)}, word(0))
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=word(0), eos_token=word(1), pad_token=word(1)
    ).save_pretrained(folder / "model")
    # Tokens of a skewed distribution, as in text.
    weights = 1 / torch.arange(1, VOCABULARY + 1).float()
    ids = torch.multinomial(weights, (samples + HELD_OUT) * LENGTH, True).view(-1, LENGTH)
    (folder / "ids.json").write_text(json.dumps(ids.tolist()))
    rows = [json.dumps({"text": " ".join(map(word, row))}) for row in ids[:samples].tolist()]
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n")
    return model, ids


def qpipe(options, folder, samples, propagate):
    """One worker process, two actions."""
    begin = time.perf_counter()
    statistics = dict(none="moments", quantized="samples")[propagate]
    actions = [
        ("calibrate", dict(samples=samples, max_length=LENGTH, seed=0, statistics=statistics), dict(model=folder / "model", data=folder / "rows.jsonl")),
        ("quantize", dict(method="gptq", bits=4, group_size=128, propagate=propagate), dict(model=folder / "model", calibration=folder / "calibrate/out")),
    ]
    process = subprocess.Popen([options.worker], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for number, (kind, params, inputs) in enumerate(actions):
        action = dict(
            request="run", id=number, kind=kind, params=params, scratch=str(folder / kind), device="cpu", threads=options.threads,
            inputs={port: {"one": str(path)} for port, path in inputs.items()},
        )
        (folder / kind).mkdir()
        process.stdin.write(json.dumps(action) + "\n")
        process.stdin.flush()
        last = next(
            event for event in map(json.loads, process.stdout) if event["event"] in ("done", "failed", "stopped")
        )
        assert last["event"] == "done", last
    seconds = time.perf_counter() - begin
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    process.stdin.close()
    _, _, used = os.wait4(process.pid, 0)
    return dict(seconds=seconds, cpu=used.ru_utime + used.ru_stime, peak=peak, folder=folder / "quantize/out")


def llmc(folder, samples):
    import datasets
    import torch
    import transformers
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier

    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    ids = json.loads((folder / "ids.json").read_text())[:samples]
    data = datasets.Dataset.from_dict(dict(input_ids=ids, attention_mask=[[1] * LENGTH] * samples))
    begin = time.perf_counter()
    oneshot(
        model=model, dataset=data, processor=transformers.AutoTokenizer.from_pretrained(folder / "model"),
        recipe=GPTQModifier(targets="Linear", scheme="W4A16", ignore=["lm_head"]), num_calibration_samples=samples,
        max_seq_length=LENGTH, shuffle_calibration_samples=False, batch_size=1,
    )
    seconds = time.perf_counter() - begin
    model.save_pretrained(folder / "out", save_compressed=True)
    return seconds


def gptqmodel(folder, samples):
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig

    ids = json.loads((folder / "ids.json").read_text())[:samples]
    data = [dict(input_ids=row, attention_mask=[1] * LENGTH) for row in ids]
    model = GPTQModel.load(str(folder / "model"), QuantizeConfig(bits=4, group_size=128), device="cpu")
    begin = time.perf_counter()
    model.quantize(data, batch_size=1, backend=BACKEND.TORCH)
    seconds = time.perf_counter() - begin
    model.save(str(folder / "out"))
    return seconds


PEERS = dict(llmc=llmc, gptqmodel=gptqmodel)
# A sweep's default, and what the peers do: each layer calibrated behind the quantized ones.
OWN = {"qpipe": "none", "qpipe, propagate": "quantized"}


def run_peer(options, name, folder, samples):
    python = getattr(options, name)
    environment = os.environ | dict(
        HF_HUB_OFFLINE="1", OMP_NUM_THREADS=str(options.threads), MKL_NUM_THREADS=str(options.threads),
        OMP_WAIT_POLICY="PASSIVE", GPTQMODEL_CPU_WORKERS=str(options.threads), CUDA_VISIBLE_DEVICES="",
    )
    command = [python, pathlib.Path(__file__).resolve(), "--peer", name, "--folder", folder, "--samples", str(samples)]
    with open(folder / f"{name}.log", "w") as log:
        # GPTQModel leaves a folder of logs where it runs.
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
        _, status, used = os.wait4(process.pid, 0)
    assert status == 0, (folder / f"{name}.log").read_text()[-3000:]
    found = json.loads((folder / f"{name}.json").read_text())
    return dict(seconds=found["seconds"], cpu=used.ru_utime + used.ru_stime, peak=used.ru_maxrss / 1024, folder=folder / "out")


def divergence(model, ids, folder):
    """Mean KL divergence of the quantized model in `folder` on held-out rows."""
    import torch
    from safetensors.torch import load_file

    import copy

    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
    other = copy.deepcopy(model)
    nibbles = lambda packed: torch.stack([(packed >> (4 * place)) & 15 for place in range(8)], -1).flatten(-2)
    for name, parameter in other.named_parameters():
        layer = name.removesuffix(".weight")
        if f"{layer}.weight_packed" in tensors:
            codes, scale = nibbles(tensors[f"{layer}.weight_packed"]) - 8, tensors[f"{layer}.weight_scale"]
            parameter.data.copy_((codes.view(*scale.shape, -1) * scale.unsqueeze(-1)).flatten(1))
        elif f"{layer}.qweight" in tensors:
            codes, scale = nibbles(tensors[f"{layer}.qweight"].T.contiguous()) - 8, tensors[f"{layer}.scales"].float().T
            parameter.data.copy_((codes.view(*scale.shape, -1) * scale.unsqueeze(-1)).flatten(1))
        else:
            parameter.data.copy_(tensors[name])
    with torch.no_grad():
        base, mine = model(ids).logits.log_softmax(-1), other(ids).logits.log_softmax(-1)
        return (base.exp() * (base - mine)).sum(-1).mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", default="target/release/qpipe-worker")
    parser.add_argument("--llmc")
    parser.add_argument("--gptqmodel")
    parser.add_argument("--samples", type=int, nargs="+", default=[20, 200])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--peer", choices=PEERS)
    parser.add_argument("--folder", type=pathlib.Path)
    options = parser.parse_args()
    if options.peer:
        seconds = PEERS[options.peer](options.folder, options.samples[0])
        (options.folder / f"{options.peer}.json").write_text(json.dumps(dict(seconds=seconds)))
        return
    for samples in options.samples:
        rows = {}
        for repetition in range(options.repeat):
            for name in [*OWN, *(name for name in PEERS if getattr(options, name))]:
                with tempfile.TemporaryDirectory() as scratch:
                    folder = pathlib.Path(scratch)
                    model, ids = make_inputs(folder, samples)
                    if name in OWN:
                        run = qpipe(options, folder, samples, OWN[name])
                    else:
                        run = run_peer(options, name, folder, samples)
                    run["kl"] = divergence(model, ids[-HELD_OUT:], run["folder"])
                    rows.setdefault(name, []).append(run)
        median = lambda name, key: statistics.median(run[key] for run in rows[name])
        own = median("qpipe", "seconds")
        for name in rows:
            print(
                f"{samples:4} samples  {name:16} {median(name, 'seconds'):7.2f} s  x{median(name, 'seconds') / own:5.1f}  "
                f"CPU {median(name, 'cpu'):7.2f} s  peak {median(name, 'peak'):6.0f} MiB  KL {median(name, 'kl'):.5f}",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
