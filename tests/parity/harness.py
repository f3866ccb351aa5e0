"""Questions of lm-eval's tasks: every prompt, continuation, log-likelihood, greedy flag, metric and standard error of
`evaluate` against lm-evaluation-harness 0.4.13, on random checkpoints and on rows made here.

    python tests/parity/harness.py target/release/qpipe-worker DATA [LIMIT [MODEL …]]     # DATA: the folder of QPIPE_TEST_DATA

in an environment with lm_eval==0.4.13, torch==2.11.0 and transformers==5.17.0. lm-eval's own task files are used, but for the
place of their data. Prints a line a run; ends with an error where a text, a flag or a metric differs, or a
log-likelihood by more than 1e-3.
"""

import json
import os
import pathlib
import random
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

import lm_eval
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks._yaml_loader import load_yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen3Config

from worker import run_action

TASKS = pathlib.Path(lm_eval.__file__).parent / "tasks"
FILES = {
    "arc_easy": "arc/arc_easy.yaml", "arc_challenge": "arc/arc_challenge.yaml", "hellaswag": "hellaswag/hellaswag.yaml",
    "mmlu_anatomy": "mmlu/default/mmlu_anatomy.yaml", "mmlu_professional_law": "mmlu/default/mmlu_professional_law.yaml",
    "piqa": "piqa/piqa.yaml", "winogrande": "winogrande/default.yaml", "openbookqa": "openbookqa/openbookqa.yaml",
    "boolq": "super_glue/boolq/default.yaml",
}
TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] + eos_token + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system message') }}{% endif %}" + TEMPLATE
WORDS = "the a of to river bread Étude naïve 東京 stone runs falls slowly why green seven 'quoted' [step] semi;colon ﬁn ß x2".split()


def sentence(rng, words):
    return " ".join(rng.choice(WORDS) for _ in range(words))


def rows(task, rng, count):
    """Rows of a task whose data is not in DATA, with what makes trouble: doubled spaces, markers, unicode."""
    for index in range(count):
        if task == "hellaswag":
            yield {
                "ind": index, "activity_label": sentence(rng, 2), "ctx_a": sentence(rng, rng.randint(1, 30)) + " [title] A  b.",
                "ctx_b": rng.choice(["", "the Man", "ß " + sentence(rng, 3)]), "label": str(rng.randrange(4)),
                "endings": [rng.choice(["", "[step] ", " "]) + sentence(rng, rng.randint(1, 12)) + rng.choice([".", "  ", ""])
                            for _ in range(4)],
            }
        elif task == "piqa":
            yield {"goal": sentence(rng, 5), "sol1": sentence(rng, 6), "sol2": sentence(rng, 9), "label": rng.randrange(2)}
        elif task == "winogrande":
            yield {"sentence": f"{sentence(rng, 4)} _ {sentence(rng, 5)}.", "option1": "Ann", "option2": "the  box", "answer": rng.choice("12")}
        elif task == "openbookqa":
            yield {
                "id": str(index), "question_stem": sentence(rng, 6), "answerKey": rng.choice(["A", " B", "C", "D"]),
                "choices": {"text": [sentence(rng, rng.randint(1, 4)) for _ in range(4)], "label": list("ABCD")},
            }
        else:
            yield {"passage": sentence(rng, 60), "question": sentence(rng, 6), "label": rng.randrange(2), "idx": index}


def data(folder, shared):
    """A folder of files a task, as qpipe and lm-eval read them."""
    rng = random.Random(5)
    folders = {}
    for task in FILES:
        if task.startswith("arc"):
            folders[task] = shared / "arc_easy"
        elif task.startswith("mmlu"):
            folders[task] = shared / "mmlu"
        else:
            folders[task] = folder / task
            folders[task].mkdir()
            made = list(rows(task, rng, 60))
            made += made[:2]  # duplicates
            for split, some in (("train", made[:25]), ("validation", made[20:]), ("test", made[20:])):
                text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in some)
                (folders[task] / f"{split}.jsonl").write_text(text)
    return folders


def task_config(task, folders, scratch):
    """lm-eval's own task, its data from `folders`."""
    config = load_yaml(TASKS / FILES[task], resolve_func=True, recursive=True)
    files = {path.stem: str(path) for path in folders[task].glob("*.jsonl")}
    if task.startswith("mmlu"):
        # A file a subject, as lm-eval's dataset has it.
        for split, path in files.items():
            target = scratch / f"{task}-{split}.jsonl"
            lines = [line for line in open(path) if json.loads(line)["subject"] == config["dataset_name"]]
            target.write_text("".join(lines))
            files[split] = str(target)
    return config | {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}


def tokenizer(folder, shared, adds_bos, template):
    """A byte-level BPE tokenizer, and one that puts <s> before every text."""
    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    text = (shared / "arc_easy/train.jsonl").read_text()
    tokens.train_from_iterator([text] + [" ".join(WORDS)] * 20, trainer)
    if adds_bos:
        tokens.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    special = {"eos_token": "</s>"} | ({"bos_token": "<s>"} if adds_bos else {})
    fast = PreTrainedTokenizerFast(tokenizer_object=tokens, **special)
    fast.chat_template = template
    fast.save_pretrained(folder)


def checkpoints(folder, shared):
    """Name and folder of each model. Weights are large, so that log-likelihoods differ."""
    shape = dict(vocab_size=902, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2, max_position_embeddings=768, initializer_range=0.15)
    for name, config, bos, template in (
        ("llama-bos", LlamaConfig(**shape, bos_token_id=0, eos_token_id=1), True, TEMPLATE),
        ("qwen2", Qwen2Config(**shape, eos_token_id=1), False, NO_SYSTEM),
        ("qwen3-tied", Qwen3Config(**shape, head_dim=16, eos_token_id=1, tie_word_embeddings=True), False, TEMPLATE),
    ):
        torch.manual_seed(len(name))
        target = folder / name
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(target)
        tokenizer(target, shared, bos, template)
        # transformers gives models of the type qwen2 that family's splitting of words, whatever tokenizer.json says: here it does.
        AutoTokenizer.from_pretrained(target).save_pretrained(target)
        yield name, target


def compare(label, ours, samples):
    """Ends the program where they differ, except in the last digits of log-likelihoods: the largest difference of those."""
    assert len(ours) == len(samples), (label, len(ours), len(samples))
    worst = 0.0
    for mine, sample in zip(ours, samples):
        where = f"{label}, question {sample['doc_id']}"
        contexts = mine["contexts"] * (len(mine["continuations"]) if len(mine["contexts"]) == 1 else 1)
        asked = [tuple(arguments) for arguments in sample["arguments"]]
        assert list(zip(contexts, mine["continuations"])) == asked, (where, contexts[0], asked[0])
        for index, (score, greedy) in enumerate(sample["filtered_resps"]):
            worst = max(worst, abs(mine["scores"][index] - score))
            assert abs(mine["scores"][index] - score) <= 1e-3, (where, index, mine["scores"][index], score)
            assert mine["greedy"][index] == greedy, (where, index)
        for name, value in mine["filtered"][0]["metrics"].items():
            assert sample[name] == value, (where, name, value, sample[name])
        assert mine["target"] == str(sample["target"]), where
    return worst


def run(program, name, model, lm, task, config, folders, scratch, shots, limit, chat):
    label = f"{name} {task} {shots}-shot" + (" chat" if chat else "")
    theirs = lm_eval.simple_evaluate(
        model=lm, tasks=[{**config, "task": task}], num_fewshot=shots, limit=limit, bootstrap_iters=1000,
        apply_chat_template=chat, fewshot_as_multiturn=chat, log_samples=True, confirm_run_unsafe_code=True,
    )
    params = {"tasks": [task], "num_fewshot": shots, "limit": limit, "chat_template": chat}
    out = run_action(program, "evaluate", params, {"model": model, "data": folders[task]}, scratch / label.replace(" ", "-"))
    ours = [json.loads(line) for line in (out / f"{task}.jsonl").open()]
    worst = compare(label, ours, theirs["samples"][task])
    result = json.loads((out / "evaluation.json").read_text())["tasks"][task]["harness"]
    for metric in result["metrics"]:
        value, stderr = (theirs["results"][task][f"{metric['name']}{part},none"] for part in ("", "_stderr"))
        assert abs(metric["value"] - value) < 1e-12 and abs(metric["stderr"] - stderr) < 1e-12, (label, metric, value, stderr)
    assert result["version"] == theirs["versions"][task], label
    print(f"{label}: {len(ours)} questions, log-likelihoods within {worst:.1e}", flush=True)


def main(program, shared, limit=23, *wanted):
    shared = pathlib.Path(shared)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        folders = data(scratch, shared)
        asked = set(wanted)
        for name, model in checkpoints(scratch, shared):
            if wanted and name not in wanted:
                continue
            asked.discard(name)
            lm = HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=16)
            for task in FILES:
                config = task_config(task, folders, scratch)
                for shots, chat in ((0, False), (3, False), (2, True)):
                    run(program, name, model, lm, task, config, folders, scratch, shots, int(limit), chat)
        assert not asked, f"no such model: {', '.join(sorted(asked))}"


if __name__ == "__main__":
    torch.set_num_threads(2)
    main(*sys.argv[1:])
