"""Holds `quantize` with `method: gptq` to llm-compressor and to GPTQModel.

    pip install torch==2.11.0 transformers==5.17.0 llmcompressor==0.14.0.1 compressed-tensors==0.19.0 datasets
    cargo build --release -p qpipe-worker --bins --examples
    python tests/parity/gptq.py weights llmc          # random weights and second moments
    python tests/parity/gptq.py files                 # random models, loaded by transformers
    python tests/parity/gptq.py quality MODEL ROWS    # a checkpoint folder; JSONL with `prompt` and `completion`
    python tests/parity/gptq.py golden llmc           # writes tests/golden/gptq/llmc.safetensors

and in another environment (the two packages want different versions of transformers)

    pip install -U setuptools && pip install torch==2.11.0 && pip install --no-build-isolation gptqmodel==7.3.4
    python tests/parity/gptq.py weights gptqmodel
    python tests/parity/gptq.py theirs                # folders that GPTQModel writes, loaded by the worker
    python tests/parity/gptq.py golden gptqmodel      # tests/golden/gptq/gptqmodel.safetensors

`weights` gives the same weight and second moments to the reference and to the worker, for all bits, groups, orders and
types of weights, at one and at two threads, and exits with 1 unless codes, scales and zero points are equal to the bit.
`files` exits with 1 unless transformers loads what the worker wrote and its float32 logits are within 1e-4 of
max|logit| of the worker's: pack-quantized with compressed-tensors, gptq unpacked here as GPTQModel unpacks it.
`theirs` holds the worker's logits to those of the weights that GPTQModel's own folders stand for, likewise.
`quality` calibrates on the first half of the rows; printed are, of the other half, the mean KL divergence from the model
and the mean negative log-likelihood. It exits with 1 unless GPTQ here, calibrated as llm-compressor calibrates, has at
most 1.1 times the divergence of llm-compressor's.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file

import worker

# On two cores GPTQModel makes a pool of one CPU worker, and then asks two of it.
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")

ROOT = pathlib.Path(__file__).parents[2]
SHAPES = [(64, 128), (96, 320), (48, 512), (32, 64)]
DTYPES = dict(float32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16)


def make_case(rows, columns, dtype, seed):
    """Weights, and second moments of whole numbers: sums that are exact on every machine. One channel is dead. No two
    are equally loud: the references sort them unstably, so that ties stand in any order."""
    generator = torch.Generator().manual_seed(seed)
    weight = (torch.randn(rows, columns, generator=generator) * 0.05).to(dtype)
    spread = torch.linspace(1, 6, columns)[torch.randperm(columns, generator=generator)]
    x = (torch.randn(2 * columns, columns, generator=generator) * spread).round()
    x[:, columns // 3] = 0
    hessian = x.T @ x
    while len(hessian.diag().unique()) < columns:
        live = hessian.diag() > 0
        hessian.diagonal()[live] += torch.randint(0, 99, (int(live.sum()),), generator=generator).float()
    return weight, hessian * (2 / 64)


def llmc(weight, hessian, options):
    from compressed_tensors.quantization import QuantizationArgs
    from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight
    from llmcompressor.observers import Observer

    group = options["group_size"]
    args = QuantizationArgs(
        num_bits=options["bits"], symmetric=options["symmetric"], actorder=options["order"] if options["order"] != "none" else None,
        **(dict(strategy="channel") if group == -1 else dict(strategy="group", group_size=group)),
    )
    module = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    module.weight.data.copy_(weight)
    observer = Observer.load_from_registry("memoryless_minmax", base_name="weight", args=args, module=module)
    observer(module.weight)
    found = observer.get_qparams()
    scale, zero = found["scale"], found["zero_point"]
    result, _, fallback = quantize_weight(
        weight.float().clone().unsqueeze(0), hessian.clone().unsqueeze(0), scale.unsqueeze(0), zero.unsqueeze(0), None, args,
        percdamp=options["damping"],
    )
    assert not fallback.any()
    half = 2 ** (options["bits"] - 1)
    zero = (zero.float() if not options["symmetric"] else torch.zeros_like(scale, dtype=torch.float32)) + half
    # The codes that it rounded to. (When llm-compressor saves, it rounds the rounded weight again, in its own type: in
    # bfloat16 one 8-bit code in a hundred comes out as its neighbour.)
    groups = result[0].view(*scale.shape, -1)
    codes = (groups / scale.float().unsqueeze(-1)).round() + zero.unsqueeze(-1)
    return dict(codes=codes.flatten(1).to(torch.uint8), scale=scale.float(), zero=zero, values=result[0])


def gptqmodel(weight, hessian, options):
    from gptqmodel.quantization.config import QuantizeConfig
    from gptqmodel.quantization.gptq import GPTQ

    settings = QuantizeConfig(
        bits=options["bits"], group_size=options["group_size"], sym=options["symmetric"],
        desc_act=options["order"] == "desc_act", act_group_aware=options["order"] == "act_group_aware",
        static_groups=options["static_groups"], damp_percent=options["damping"],
    )
    module = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    module.weight.data.copy_(weight)
    gptq = GPTQ(module, settings)
    gptq.fallback = None
    gptq.quantizer.configure(perchannel=True)
    gptq.H, gptq.nsamples, gptq._hessian_dirty = hessian.clone(), 64, False
    values, scale, zero, group_of, *_ = gptq.quantize()
    group_of = group_of.long()
    # As `pack_block` recovers them, from values in the weights' type: of 8 bits in bfloat16, with zero points, one in
    # some thousand comes out as its neighbour.
    codes = ((values + (scale * zero)[:, group_of]) / scale[:, group_of]).round().clamp(0, 2 ** options["bits"] - 1)
    found = dict(codes=codes.to(torch.uint8), scale=scale, zero=zero, values=values)
    neighbours = torch.arange(weight.shape[1]) // (weight.shape[1] // scale.shape[1])
    if not torch.equal(group_of, neighbours):
        found["group_of"] = group_of
    return found


REFERENCES = dict(llmc=llmc, gptqmodel=gptqmodel)


def all_options(profile):
    orders = dict(
        llmc=[("none", True), ("weight", True)],
        gptqmodel=[("none", False), ("none", True), ("desc_act", False), ("desc_act", True), ("act_group_aware", False)],
    )[profile]
    for bits in (2, 3, 4, 8):
        for group in (32, 64, 128, -1):
            for symmetric in (True, False):
                for order, static in orders:
                    if group == -1 and (order == "act_group_aware" or (static and profile == "gptqmodel")):
                        continue
                    yield dict(
                        profile=profile, bits=bits, group_size=group, symmetric=symmetric, order=order,
                        static_groups=static, damping=dict(llmc=0.01, gptqmodel=0.05)[profile], format=(
                            "gptq_v2" if profile == "gptqmodel" else "pack-quantized"
                        ),
                    )


def mine(program, weight, hessian, options, folder, threads):
    save_file(dict(weight=weight, hessian=hessian), folder / "input.safetensors")
    command = [program, folder / "input.safetensors", json.dumps(options), folder / "result.safetensors"]
    subprocess.run(command, check=True, env=os.environ | dict(QPIPE_THREADS=str(threads)))
    return load_file(folder / "result.safetensors")


def values_of(found, dtype, profile):
    """What codes stand for: llm-compressor scales in the weights' type, GPTQModel in float32."""
    codes = found.pop("codes")
    columns, groups = codes.shape[1], found["scale"].shape[1]
    group_of = found.get("group_of", torch.arange(columns) // (columns // groups))
    steps, scale = codes - found["zero"][:, group_of], found["scale"][:, group_of]
    return steps.to(dtype) * scale.to(dtype) if profile == "llmc" else (steps * scale).to(dtype)


@torch.no_grad()
def compare_weights(options, folder):
    holds, count, differing = True, 0, 0
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for number, (rows, columns) in enumerate(SHAPES):
            for index, case in enumerate(all_options(options.profile)):
                if columns % max(case["group_size"], 1) != 0:
                    continue
                # Every shape and setting, the types in turn.
                dtype = list(DTYPES.values())[(index + number + threads) % 3]
                weight, hessian = make_case(rows, columns, dtype, 100 + number)
                expected = REFERENCES[options.profile](weight, hessian, case)
                found = mine(options.gptq, weight, hessian, case, folder, threads)
                # Values, not codes: of 8 bits in bfloat16 a value does not always tell the code.
                del expected["codes"]
                found["values"] = values_of(found, dtype, options.profile)
                assert found.keys() == expected.keys(), (found.keys(), expected.keys())
                count += 1
                for name, tensor in expected.items():
                    if not torch.equal(found[name].to(tensor.dtype), tensor):
                        wrong = (found[name].to(tensor.dtype) != tensor).float().mean().item()
                        print(f"{threads} threads {rows}x{columns} {dtype} {case}: {name} {wrong:.2%} differ", flush=True)
                        differing += 1
                        holds = False
    print(f"{options.profile}: {count} cases, {differing} tensors differ")
    return holds


def unpack(words, bits, count):
    """A stream of bits in 32-bit words, [R, W], to codes [R, count]."""
    stream = torch.stack([(words.long() >> place) & 1 for place in range(32)], -1).flatten(1)
    codes = stream[:, : count * bits].view(len(words), count, bits)
    return (codes << torch.arange(bits)).sum(-1)


@torch.no_grad()
def dequantized(source, folder):
    """The model in `source` in float32 with the weights that GPTQ's tensors in `folder` stand for."""
    import awq

    settings = json.loads((folder / "config.json").read_text())["quantization_config"]
    model, tensors = awq.load(source), load_file(folder / "model.safetensors")
    for name, parameter in model.named_parameters():
        layer = name.removesuffix(".weight")
        if f"{layer}.qweight" not in tensors:
            parameter.copy_(tensors[name].float())
            continue
        rows, columns = parameter.shape
        codes = unpack(tensors[f"{layer}.qweight"].T.contiguous(), settings["bits"], columns)
        zeros = unpack(tensors[f"{layer}.qzeros"], settings["bits"], rows).T
        if settings["checkpoint_format"] == "gptq":
            zeros = (zeros + 1) % 2 ** settings["bits"]
        group_of = tensors[f"{layer}.g_idx"].long()
        parameter.copy_((codes - zeros[:, group_of]) * tensors[f"{layer}.scales"].float().T[:, group_of])
    return model


@torch.no_grad()
def compare_files(options, folder):
    import awq

    holds = True
    for family in awq.FAMILIES:
        for dtype in ("float32", "bfloat16"):
            work = folder / f"{family}-{dtype}"
            work.mkdir()
            source = work / "source"
            awq.make_source(family, dtype, source, 5)
            texts, _ = awq.random_rows(20, 64)
            (work / "rows.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
            params = dict(samples=20, max_length=256, seed=0, statistics="moments")
            inputs = dict(model=source, data=work / "rows.jsonl")
            statistics = worker.run_action(options.worker, "calibrate", params, inputs, work / "calibrate")
            ids = torch.randint(0, 256, (3, 40), generator=torch.Generator().manual_seed(2))
            for number, case in enumerate([
                dict(), dict(symmetric=False), dict(bits=8, group_size=-1), dict(propagate="quantized"),
                dict(profile="gptqmodel"), dict(profile="gptqmodel", symmetric=False, bits=3),
                dict(profile="gptqmodel", order="desc_act", group_size=32), dict(format="gptq", bits=2),
            ]):
                given = dict(model=source, calibration=statistics)
                made = worker.run_action(options.worker, "quantize", dict(method="gptq") | case, given, work / str(number))
                packed = "qweight" not in "".join(load_file(made / "model.safetensors"))
                model = awq.load(made) if packed else dequantized(source, made)
                expected = model(ids).logits
                found = worker.worker_logits(options.logits, made, ids, "float32", work)
                distance = ((found - expected).abs().max() / expected.abs().max()).item()
                print(f"{family:6} {dtype:9} {case}: logits within {distance:.1e}", flush=True)
                holds &= distance <= 1e-4
    return holds


def compare_theirs(options, folder):
    import awq
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig

    source = folder / "source"
    awq.make_source("llama", "float16", source, 5)
    data = [dict(input_ids=row, attention_mask=[1] * len(row)) for row, _ in awq.random_rows(20, 64)[1]]
    ids = torch.randint(0, 256, (3, 40), generator=torch.Generator().manual_seed(2))
    holds = True
    for number, case in enumerate([dict(), dict(sym=False), dict(desc_act=True, act_group_aware=False)]):
        model = GPTQModel.load(str(source), QuantizeConfig(bits=4, group_size=128, **case), device="cpu")
        model.quantize(data, batch_size=1, backend=BACKEND.TORCH)
        model.save(str(folder / str(number)))
        with torch.no_grad():
            expected = dequantized(source, folder / str(number))(ids).logits
        found = worker.worker_logits(options.logits, folder / str(number), ids, "float32", folder)
        distance = ((found - expected).abs().max() / expected.abs().max()).item()
        print(f"GPTQModel's {case}: logits within {distance:.1e}", flush=True)
        holds &= distance <= 1e-4
    return holds


def llmc_model(source, rows, folder):
    """What llm-compressor's GPTQModifier makes of the model in `source`."""
    import awq
    import datasets
    import transformers
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier

    model = awq.load(source, "auto")
    ids = [ids for ids, _ in rows]
    data = datasets.Dataset.from_dict(dict(input_ids=ids, attention_mask=[[1] * len(row) for row in ids]))
    oneshot(
        model=model, dataset=data, processor=transformers.AutoTokenizer.from_pretrained(source),
        recipe=GPTQModifier(targets="Linear", scheme="W4A16", ignore=["lm_head"]), num_calibration_samples=len(ids),
        max_seq_length=256, shuffle_calibration_samples=False, batch_size=1,
    )
    model.save_pretrained(folder, save_compressed=True)


def compare_quality(options, folder):
    import awq

    texts, rows = awq.text_rows(options.model, options.rows)
    half = len(rows) // 2
    (folder / "rows.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts[:half]))
    params = dict(samples=half, max_length=256, seed=0, statistics="moments")
    inputs = dict(model=options.model, data=folder / "rows.jsonl")
    statistics = worker.run_action(options.worker, "calibrate", params, inputs, folder / "calibrate")
    base = awq.figures(awq.load(options.model), rows[half:])
    print(f"model                    nll {base[1]:.4f}", flush=True)
    given = dict(model=options.model, calibration=statistics)
    made = {"rtn": worker.run_action(options.worker, "quantize", dict(method="rtn", scheme="W4A16"), dict(model=options.model), folder / "rtn")}
    for propagate in ("none", "quantized"):
        params = dict(method="gptq", propagate=propagate)
        made[f"propagate: {propagate}"] = worker.run_action(options.worker, "quantize", params, given, folder / propagate)
    made["llm-compressor"] = folder / "theirs"
    llmc_model(options.model, rows[:half], made["llm-compressor"])
    divergence = {}
    for name, quantized in made.items():
        divergence[name], likelihood, _ = awq.figures(awq.dequantized(options.model, quantized), rows[half:], base[2])
        print(f"{name:24} nll {likelihood:.4f} KL {divergence[name]:.5f}", flush=True)
    return divergence["propagate: quantized"] <= 1.1 * divergence["llm-compressor"]


@torch.no_grad()
def write_golden(options, folder):
    import importlib.metadata

    torch.set_num_threads(1)
    profile = options.profile
    package = dict(llmc="llmcompressor", gptqmodel="gptqmodel")[profile]
    tensors, cases = {}, []
    for name in ("float32", "bfloat16"):
        weight, _ = make_case(8, 160, DTYPES[name], 7)
        tensors[f"{name}.weight"] = weight
    generator = torch.Generator().manual_seed(8)
    x = torch.zeros(200, 160)
    while len((x * x).sum(0).unique()) < 160:
        x = (torch.randn(200, 160, generator=generator) * torch.linspace(1, 6, 160)).round()
        x[:, 77] = 0
    x = x.to(torch.int8)
    tensors["x"] = x
    hessian = (x.float().T @ x.float()) * (2 / 64)
    for case in all_options(profile):
        if case["group_size"] in (64, 128):
            continue
        for name in ("float32", "bfloat16"):
            if name == "bfloat16" and case["bits"] != 4:
                continue
            key = f"case-{len(cases):02}"
            found = REFERENCES[profile](tensors[f"{name}.weight"], hessian, case)
            found.pop("values", None)
            tensors |= {f"{key}.{part}": tensor.contiguous() for part, tensor in found.items()}
            cases.append(dict(weight=name, options=case))
    folder = ROOT / "tests/golden/gptq"
    folder.mkdir(parents=True, exist_ok=True)
    provenance = f"{package} {importlib.metadata.version(package)}, torch {torch.__version__.split('+')[0]}, one thread"
    metadata = dict(made_by=f"tests/parity/gptq.py golden {profile}", provenance=provenance)
    save_file(tensors, folder / f"{profile}.safetensors", metadata)
    (folder / f"{profile}.json").write_text(json.dumps(dict(provenance=provenance, cases=cases), indent=0) + "\n")
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("weights", "golden"):
        command = commands.add_parser(name)
        command.add_argument("profile", choices=REFERENCES)
        command.add_argument("--gptq", default="target/release/examples/gptq")
    quality = commands.add_parser("quality")
    quality.add_argument("model", type=pathlib.Path)
    quality.add_argument("rows", type=pathlib.Path)
    for command in (commands.add_parser("files"), commands.add_parser("theirs"), quality):
        command.add_argument("--worker", default="target/release/qpipe-worker")
        command.add_argument("--logits", default="target/release/examples/logits")
    options = parser.parse_args()
    commands = dict(
        weights=compare_weights, golden=write_golden, files=compare_files, theirs=compare_theirs, quality=compare_quality
    )
    run = commands[options.command]
    with tempfile.TemporaryDirectory() as scratch:
        return 0 if run(options, pathlib.Path(scratch)) else 1


if __name__ == "__main__":
    sys.exit(main())
