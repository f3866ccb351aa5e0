"""Tasks whose answers the model writes, texts that are scored whole, and task files: every prompt, reply, log-likelihood,
figure and standard error of qpipe against lm-evaluation-harness 0.4.13, on random checkpoints.

    python tests/parity/replies.py target/release/qpipe DATA [LIMIT]     # DATA: the folder of QPIPE_TEST_DATA

in the environment of tests/parity/harness.py, with lm_eval's extra `ifeval`. qpipe runs whole pipelines; what is compared is
what it writes under results/*/lm_eval. lm-eval's task files are given to qpipe as they are where they need no Python, but for
the place of their data. Prints a line a run; ends with an error where a prompt, a reply or a figure differs.
"""

import json
import pathlib
import random
import subprocess
import sys
import tempfile

import lm_eval
import torch
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml
from lm_eval.utils import make_table
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

from harness import TASKS, TEMPLATE, sentence, tokenizer

# Task files of a team's own: choices by template, replies with filters, texts, what follows a text; an included file, and groups
# in a group.
OWN = {
    "_defaults.yaml": {
        "dataset_path": "json", "test_split": "test", "fewshot_split": "train", "description": "About words.\n\n",
        "target_delimiter": ": ", "metadata": {"version": 1.5},
    },
    "own_choice.yaml": {
        "include": "_defaults.yaml", "task": "own_choice", "output_type": "multiple_choice",
        "doc_to_text": "Q{{ loop_index|default('') }} {{question.strip()}}\nA", "doc_to_choice": "{{[first, second, 'neither']}}",
        "doc_to_target": "{{label}}", "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}, {"metric": "acc_bytes"}],
        "fewshot_config": {"sampler": "first_n"}, "num_fewshot": 2,
    },
    "own_reply.yaml": {
        "include": "_defaults.yaml", "task": "own_reply", "output_type": "generate_until",
        "doc_to_text": "{% if question|length > 20 %}Long{% else %}Short{% endif %}: {{question}}", "doc_to_target": "first",
        "generation_kwargs": {"until": ["e", "\n\n"], "max_gen_toks": 24, "do_sample": False},
        "filter_list": [
            {"name": "letters", "filter": [{"function": "regex", "regex_pattern": "[a-z]+", "group_select": -1}, {"function": "take_first"}]},
            {"name": "whole", "filter": [{"function": "remove_whitespace"}, {"function": "lowercase"}, {"function": "take_first"}]},
        ],
        "metric_list": [{"metric": "exact_match", "ignore_case": True, "regexes_to_ignore": ["[aeiou]"]}],
    },
    "own_text.yaml": {
        "include": "_defaults.yaml", "task": "own_text", "output_type": "loglikelihood_rolling", "doc_to_text": "",
        "doc_to_target": "{{question}} {{first}}", "description": "",
    },
    "own_next.yaml": {
        "include": "_defaults.yaml", "task": "own_next", "output_type": "loglikelihood",
        "doc_to_text": "{{question.split(' ')[:-1]|join(' ')}}", "doc_to_target": "{{' '+question.split(' ')[-1]}}",
        "metric_list": [
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        ],
    },
    "own_other.yaml": {
        "include": "_defaults.yaml", "task": "own_other", "task_alias": "the other", "output_type": "multiple_choice",
        "doc_to_text": "{{second}}", "doc_to_choice": ["one", "two", "three", "four"], "doc_to_target": "label",
        "metric_list": [{"metric": "acc"}],
    },
    "own_inner.yaml": {
        "group": "own_inner", "group_alias": "inner ones", "task": ["own_other", "own_next"],
        "aggregate_metric_list": {"metric": "acc", "weight_by_size": False}, "metadata": {"version": 3}, "num_fewshot": 1,
    },
    "own.yaml": {
        "group": "own",
        "task": ["own_choice", "own_inner", {"group": "own_writing", "task": ["own_reply", "own_text"]}],
        "aggregate_metric_list": [{"metric": "acc", "aggregation": "mean", "weight_by_size": True}, {"metric": "acc_norm", "filter_list": "none"}],
    },
}
# Its tasks.
OWN_TASKS = ("own_choice", "own_other", "own_next", "own_reply", "own_text")


def own_rows(rng, count):
    for index in range(count):
        # lm-eval looks at the first row; of later ones some have no right answer.
        yield {"question": sentence(rng, rng.randint(1, 9)), "first": sentence(rng, 2), "second": sentence(rng, 1), "label": index % 4}


def gsm8k_rows(rng, count):
    for index in range(count):
        yield {"question": sentence(rng, 12), "answer": f"{sentence(rng, 5)}\n{sentence(rng, 4)}\n#### {index * 1117:,}"}


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def data(folder, shared):
    rng = random.Random(11)
    folders = {name: folder / name for name in ("gsm8k", "own", "ifeval", "wikitext")}
    for name in folders.values():
        name.mkdir()
    for name, rows in (("gsm8k", gsm8k_rows), ("own", own_rows)):
        write(folders[name] / "train.jsonl", rows(rng, 12))
        write(folders[name] / "test.jsonl", rows(rng, 40))
    write(folders["ifeval"] / "train.jsonl", map(json.loads, open(shared / "ifeval/input_data.jsonl")))
    pages = [json.loads(line) for line in open(shared / "wikitext2/wikitext2_raw_test_pages.jsonl")]
    # Below, at and beyond the context, and nothing at all.
    write(folders["wikitext"] / "test.jsonl", [{"page": page["page"][:length]} for page, length in zip(pages, (900, 12000, 4000, 0, 30000))])
    return folders


def files_of(folder):
    return {path.stem: str(path) for path in folder.glob("*.jsonl")}


def checkpoints(folder, shared):
    shape = dict(vocab_size=902, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2, max_position_embeddings=2048, initializer_range=0.25)
    for name, config, bos in (
        ("llama-bos", LlamaConfig(**shape, bos_token_id=0, eos_token_id=1), True),
        ("qwen3", Qwen3Config(**shape, head_dim=16, eos_token_id=1, tie_word_embeddings=True), False),
    ):
        torch.manual_seed(len(name))
        target = folder / name
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(target)
        tokenizer(target, shared, bos, TEMPLATE)
        yield name, target


def qpipe(program, folder, model, tasks, data, options):
    """The folder of lm-eval's files of one evaluation."""
    text = yaml.safe_dump({
        "version": 1, "name": "p",
        "nodes": {
            "model": {"kind": "download", "model": str(model)},
            "data": {"kind": "download", "data": str(data)},
            "scores": {"kind": "evaluate", "model": "model", "data": "data", "tasks": tasks, **options},
            "report": {"kind": "report", "evaluations": "scores", "table": "lm-eval-0.4.13"},
        },
    })
    folder.mkdir(parents=True)
    (folder / "p.yaml").write_text(text)
    done = subprocess.run([program, "run", "p.yaml"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "results/p/lm_eval/scores"


def samples_of(folder, task):
    path = next(folder.glob(f"samples_{task}_*.jsonl"))
    return [json.loads(line) for line in path.open()]


def close(mine, theirs):
    if isinstance(mine, list):
        return len(mine) == len(theirs) and all(map(close, mine, theirs))
    try:
        return abs(float(mine) - float(theirs)) <= 1e-3 * max(1.0, abs(float(theirs)) / 100)
    except (TypeError, ValueError):
        return mine == theirs or str(mine) == str(theirs)


def compare(label, folder, theirs, task):
    ours = samples_of(folder, task)
    wanted = theirs["samples"][task]
    assert len(ours) == len(wanted), (label, len(ours), len(wanted))
    order = lambda sample: (sample["doc_id"], sample["filter"])
    for mine, sample in zip(sorted(ours, key=order), sorted(wanted, key=order)):
        where = f"{label}, question {sample['doc_id']}, {sample['filter']}"
        assert order(mine) == order(sample), where
        arguments = [list(asked.values()) for asked in mine["arguments"].values()]
        assert close(arguments, json.loads(json.dumps(sample["arguments"]))), (where, arguments, sample["arguments"])
        assert close(mine["resps"], json.loads(json.dumps(sample["resps"]))), (where, mine["resps"], sample["resps"])
        assert close(mine["filtered_resps"], json.loads(json.dumps(sample["filtered_resps"]))), (
            where, mine["filtered_resps"], sample["filtered_resps"])
        for metric in sample["metrics"]:
            assert close(mine[metric], json.loads(json.dumps(sample[metric], default=int))), (where, metric, mine[metric], sample[metric])
    results = json.loads(next(folder.glob("results_*.json")).read_text())
    figures = {name: value for name, value in theirs["results"][task].items() if "," in name}
    for name, value in figures.items():
        found = results["results"][task][name]
        assert close(found, value), (label, name, found, value)
    print(f"{label}: {len(ours)} answers, {len(figures)} figures", flush=True)


def compare_groups(label, folder, theirs):
    results = json.loads(next(folder.glob("results_*.json")).read_text())
    compared = 0
    for group, figures in theirs["groups"].items():
        for name, value in figures.items():
            if "," in name:
                assert close(results["groups"][group][name], value), (label, group, name, results["groups"][group], value)
                compared += 1
    report = (folder.parents[1] / "report.md").read_text()
    for column in ("results", "groups"):
        # Log-likelihoods differ by rounding, which the table shows in no digit but those of a perplexity.
        table = [line for line in make_table(theirs, column).strip().splitlines() if "perplexity" not in line]
        missing = [line for line in table if line not in report]
        assert not missing, f"{label}\n{make_table(theirs, column)}\n{report}"
    print(f"{label}: {compared} figures of groups, and the tables", flush=True)


def main(program, shared, limit=6):
    program, shared, limit = str(pathlib.Path(program).resolve()), pathlib.Path(shared), int(limit)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        folders = data(scratch, shared)
        own = scratch / "tasks"
        own.mkdir()
        for file, content in OWN.items():
            if file == "_defaults.yaml":
                content = content | {"dataset_kwargs": {"data_files": files_of(folders["own"])}}
            (own / file).write_text(yaml.safe_dump(content))
        gsm8k = load_yaml(TASKS / "gsm8k/gsm8k.yaml", resolve_func=False, recursive=True)
        (own / "gsm8k_file.yaml").write_text(yaml.safe_dump(
            gsm8k | {"task": "gsm8k_file", "dataset_path": "json", "dataset_kwargs": {"data_files": files_of(folders["gsm8k"])}, "dataset_name": None}))
        manager = TaskManager(include_path=str(own), include_defaults=False)
        for name, model in checkpoints(scratch, shared):
            lm = HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=8)

            def theirs(tasks, bootstrap_iters=1000, **options):
                return lm_eval.simple_evaluate(
                    model=lm, tasks=tasks, task_manager=manager, limit=limit, bootstrap_iters=bootstrap_iters, log_samples=True,
                    confirm_run_unsafe_code=True, **options)

            for task, file in (("gsm8k", "gsm8k/gsm8k.yaml"), ("ifeval", "ifeval/ifeval.yaml"), ("wikitext", "wikitext/wikitext.yaml")):
                config = load_yaml(TASKS / file, resolve_func=True, recursive=True)
                config |= {"task": task, "dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files_of(folders[task])}}
                if task == "wikitext":
                    config |= {"training_split": None, "validation_split": None}  # not made here, and not used
                for chat in (False, True) if task != "wikitext" else (False,):
                    label = f"{name} {task}" + (" chat" if chat else "")
                    asked = theirs([config], apply_chat_template=chat, fewshot_as_multiturn=chat)
                    found = qpipe(program, scratch / label.replace(" ", "-"), model, [task], folders[task], {"limit": limit, "chat_template": chat})
                    compare(label, found, asked, task)
            asked = theirs(["own"], bootstrap_iters=100000)
            found = qpipe(program, scratch / f"{name}-own", model, [str(own / "own.yaml")], folders["own"], {"limit": limit})
            for task in OWN_TASKS:
                compare(f"{name} {task}", found, asked, task)
            compare_groups(f"{name} own", found, asked)
            asked = theirs(["gsm8k_file"])
            found = qpipe(program, scratch / f"{name}-file", model, [str(own / "gsm8k_file.yaml")], folders["gsm8k"], {"limit": limit})
            compare(f"{name} gsm8k from its file", found, asked, "gsm8k_file")


if __name__ == "__main__":
    torch.set_num_threads(2)
    main(*sys.argv[1:])
