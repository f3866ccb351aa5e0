"""Makes the golden logits of tests/golden/logits: tiny random checkpoints and what transformers computes on them.

    pip install torch==2.11.0 transformers==5.17.0
    python tests/parity/golden_logits.py tests/golden/logits
    python tests/parity/golden_logits.py tests/golden/logits --stories FOLDER   # the trained stories260K

Read by worker/tests/golden_logits.rs. Each folder is a checkpoint in the Hub's layout plus golden.safetensors:
`ids` [1, T], `places` [P] (positions whose logits are kept) and `logits` [P, vocabulary], computed in float32
on the weights as stored. Its metadata hold the provenance and `bf16_distance`: the largest |difference| between
transformers' own bfloat16 logits and these.
"""

import argparse
import json
import pathlib

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

SEED = 20240607
SMALL = dict(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
)
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

# name: (model_type, what differs from SMALL, stored type, prompt length, layout of config.json, largest shard)
CASES = {
    "llama-tied": ("llama", dict(tie_word_embeddings=True), "float32", 24, 5, None),
    "llama-biases-linear-rope-layout4": (
        "llama",
        dict(attention_bias=True, mlp_bias=True, rope_parameters={"rope_type": "linear", "rope_theta": 500.0, "factor": 2.5}),
        "bfloat16",
        24,
        4,
        None,
    ),
    "llama3-rope": ("llama", dict(rope_parameters=LLAMA3_ROPE, tie_word_embeddings=True), "bfloat16", 80, 5, None),
    "llama3-rope-layout4": ("llama", dict(rope_parameters=LLAMA3_ROPE, head_dim=12), "float16", 80, 4, None),
    "mistral-window": ("mistral", dict(sliding_window=7), "bfloat16", 24, 5, None),
    "qwen2-window": (
        "qwen2",
        dict(use_sliding_window=True, sliding_window=7, max_window_layers=1, tie_word_embeddings=True),
        "bfloat16",
        24,
        5,
        None,
    ),
    "qwen3": ("qwen3", dict(head_dim=16, tie_word_embeddings=True), "bfloat16", 24, 5, None),
    "qwen3-sharded-layout4": ("qwen3", dict(head_dim=10, attention_bias=True), "bfloat16", 24, 4, "12KB"),
}


def randomise(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Weights large enough that every part of the network moves the logits; norms and biases not trivial."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "norm" in name:
            parameter.data = 1.0 + 0.2 * noise
        elif name.endswith("bias"):
            parameter.data = 0.3 * noise
        else:
            parameter.data = noise / parameter.shape[-1] ** 0.5


def to_layout_4(file: pathlib.Path) -> None:
    """Rewrites a config.json of transformers 5 as transformers 4 wrote it."""
    config = json.loads(file.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope if rope["rope_type"] != "default" else None
    if rope["rope_type"] == "linear":
        rope["type"] = rope.pop("rope_type")
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.51.3"
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def logits(folder: pathlib.Path, ids: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").eval()
    with torch.no_grad():
        return model(ids).logits[0].float()


def make(folder: pathlib.Path, case: tuple) -> None:
    model_type, changes, dtype, length, layout, shard = case
    generator = torch.Generator().manual_seed(SEED)
    config = AutoConfig.for_model(model_type, **{**SMALL, **changes})
    model = AutoModelForCausalLM.from_config(config)
    randomise(model, generator)
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=shard or "1GB")
    (folder / "generation_config.json").unlink(missing_ok=True)
    if layout == 4:
        to_layout_4(folder / "config.json")

    ids = torch.randint(0, SMALL["vocab_size"], (1, length), generator=generator)
    places = torch.arange(0, length, max(1, length // 12))
    places = torch.unique(torch.cat([places, torch.tensor([length - 1])]))
    wide = logits(folder, ids, torch.float32)
    narrow = logits(folder, ids, torch.bfloat16)
    save_file(
        {"ids": ids, "places": places, "logits": wide[places].contiguous()},
        folder / "golden.safetensors",
        metadata={
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "seed": str(SEED),
            "bf16_distance": repr((narrow - wide)[places].abs().max().item()),
        },
    )
    print(f"{folder.name}: |logit| up to {wide.abs().max():.2f}, bf16 off by {(narrow - wide)[places].abs().max():.4f}")


def stories(out: pathlib.Path, folder: pathlib.Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompt = [1]
    with torch.no_grad():
        ids = model.generate(
            torch.tensor([prompt]), max_new_tokens=64, min_new_tokens=64, do_sample=False, eos_token_id=None
        )
    golden = {
        "transformers": transformers.__version__,
        "model": "stories260K, float32",
        "prompt": prompt,
        "greedy": ids[0, len(prompt) :].tolist(),
    }
    (out / "stories260K.json").write_text(json.dumps(golden) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--stories", type=pathlib.Path, help="the folder of stories260K")
    arguments = parser.parse_args()
    if arguments.stories:
        stories(arguments.out, arguments.stories)
        return
    for name, case in CASES.items():
        make(arguments.out / name, case)


if __name__ == "__main__":
    main()
