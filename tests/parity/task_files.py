"""What task files may say beyond tests/parity/replies.py: examples in the file, answers that have begun, filters, literals,
what templates print. Every prompt, reply, log-likelihood and figure of qpipe against lm-evaluation-harness 0.4.13, on random
checkpoints, with and without the chat template.

    python tests/parity/task_files.py target/release/qpipe DATA [LIMIT]     # DATA: the folder of QPIPE_TEST_DATA

in the environment of tests/parity/replies.py. Prints a line a run; ends with an error where a prompt, a reply or a figure differs.
"""

import pathlib
import random
import sys
import tempfile

import lm_eval
import torch
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from harness import sentence
from replies import checkpoints, compare, files_of, qpipe, write

LETTERS = {"doc_to_text": "{{question}}", "doc_to_choice": ["A", "B", "C"], "doc_to_target": "label", "output_type": "multiple_choice"}
WRITES = {"output_type": "generate_until", "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 24, "do_sample": False}}
SAMPLES = [
    {"question": f"{word} of {word}?", "answer": f"It is {word}.", "lead": lead, "label": index % 3, "asked": f"And {word}"}
    for index, (word, lead) in enumerate([("one", "Well,"), ("two", ""), ("three", "So "), ("four", "\n"), ("five", "Hence")])
]


def filters(**steps):
    return [{"name": name, "filter": list(of)} for name, of in steps.items()]


def step(function, **settings):
    return {"function": function, **settings}


FIRST = step("take_first")
# lm-eval takes minutes for their 100,000 selections of questions: with one model is enough.
LONG = ("tf_labels", "tf_correlation")
TASKS = {
    # bbh/fewshot, gsm8k-cot-llama: examples in the file, in their order.
    "tf_samples": WRITES | {
        "doc_to_text": "Q: {{question}}\nA:", "doc_to_target": "{{answer}}", "gen_prefix": "The answer is", "num_fewshot": 2,
        "fewshot_config": {"sampler": "first_n", "samples": SAMPLES}, "description": "About words.\n",
    },
    # Examples at random, with a form of their own.
    "tf_own_form": WRITES | {
        "doc_to_text": "{{question}}", "doc_to_target": "{{answer}}", "gen_prefix": "{{lead}}", "num_fewshot": 3,
        "fewshot_config": {
            "samples": SAMPLES, "doc_to_text": "{{asked}}:", "doc_to_target": "{{['no', 'yes', 'both'][label]}}", "gen_prefix": "{{lead}}",
            "fewshot_delimiter": "\n##\n", "target_delimiter": "=",
        },
    },
    # A split that is named goes before the examples in the file.
    "tf_split": LETTERS | {
        "fewshot_split": "train", "num_fewshot": 2,
        "fewshot_config": {"samples": SAMPLES, "doc_to_choice": ["(a)", "(b)", "(c)"], "fewshot_indices": [1, 2]},
    },
    # arc_challenge_chat, with and without a blank at the end; and where nothing begins.
    "tf_answer_begun": LETTERS | {"gen_prefix": "The best answer is", "fewshot_config": {"samples": SAMPLES, "sampler": "first_n"}, "num_fewshot": 2},
    "tf_begun_blank": LETTERS | {"gen_prefix": "Answer: ", "target_delimiter": ""},
    "tf_begun_field": LETTERS | {"gen_prefix": "lead"},
    "tf_begun_next": {"output_type": "loglikelihood", "doc_to_text": "{{question}}", "doc_to_target": "{{' ' ~ answer}}", "gen_prefix": "So:"},
    # Contexts to choose from.
    "tf_contexts": {
        "output_type": "multiple_choice", "doc_to_text": "{{label}}", "doc_to_choice": "{{[question, lead, answer]}}",
        "doc_to_target": "answer", "gen_prefix": "It is", "fewshot_split": "train", "num_fewshot": 2,
    },
    # super_glue/multirc: choices as a literal that a text renders to.
    "tf_literal": {
        "output_type": "multiple_choice", "doc_to_text": "{{question}}", "doc_to_target": "{{label}}",
        "doc_to_choice": "['''{{quoted}}\\nIs it? yes''', \"no\", r'maybe \\n', 'x' 'y']", "fewshot_split": "train", "num_fewshot": 2,
    },
    # Answers that are looked up among the choices, and several.
    "tf_looked_up": {
        "output_type": "multiple_choice", "doc_to_text": "{{question}}", "doc_to_choice": "digits", "doc_to_target": "digit",
        "fewshot_split": "train", "num_fewshot": 1,
    },
    "tf_several": {"output_type": "multiple_choice", "doc_to_text": "{{question}}", "doc_to_choice": "choices", "doc_to_target": "{{[label, 0]}}"},
    # super_glue/cb/t5-prompt: replies that are choices.
    "tf_reply_choice": WRITES | {
        "doc_to_text": "{{question}}", "doc_to_choice": ["a", "e", "o"], "doc_to_target": "label", "fewshot_split": "train", "num_fewshot": 1,
    },
    # gpqa, bbh, polemo2, gsm8k-cot-self-consistency.
    "tf_filters": WRITES | {
        "doc_to_text": "{{question}}", "doc_to_target": "right",
        "filter_list": filters(
            letters=[step("multi_choice_regex", regex_pattern=r"(\([A-Z]\))", ignore_case=True, ignore_punctuation=True), FIRST],
            last=[step("multi_choice_regex", group_select=-1, regexes_to_ignore=["q"]), FIRST],
            mapped=[step("regex", regex_pattern="[a-z]+"), FIRST, step("map", mapping_dict={"a": "(A)", "t": "(B)"}, default_value="(C)"), FIRST],
            whole=[step("lowercase"), step("map", mapping_dict={"": "(A)"}, default_value="(B)"), FIRST],
            voted=[step("take_first_k", k=1), step("regex", regex_pattern="[a-z]+", group_select=-1), step("majority_vote"), FIRST],
            spans=[step("format_span"), step("uppercase"), FIRST],
        ),
    },
    # translation, glue/cola, gsm8k-cot-self-consistency: all questions together; several replies to a question.
    "tf_texts": WRITES | {
        "doc_to_text": "{{question}}", "doc_to_target": "{{question}} {{answer}}",
        "metric_list": [{"metric": name} for name in ("bleu", "chrf", "chrf++", "ter", "exact_match")],
        "filter_list": filters(whole=[FIRST], lower=[step("lowercase"), FIRST]),
    },
    "tf_labels": {
        "output_type": "multiple_choice", "doc_to_text": "{{question}}", "doc_to_choice": ["no", "yes"], "doc_to_target": "{{label % 2}}",
        "metric_list": [{"metric": "f1", "aggregation": "f1"}, {"metric": "mcc"}, {"metric": "acc"}],
    },
    "tf_correlation": LETTERS | {"metric_list": [{"metric": "mcc", "aggregation": "matthews_corrcoef", "higher_is_better": True}]},
    "tf_repeats": WRITES | {
        "doc_to_text": "{{question}}", "doc_to_target": "{{answer}}", "repeats": 3,
        "filter_list": filters(
            first=[FIRST], voted=[step("take_first_k", k=2), step("regex", regex_pattern="[a-z]+"), step("majority_vote"), FIRST],
            all=[step("lowercase")],
        ),
    },
    # Scores are asked once, and stand in the files as often as they count.
    "tf_scored": LETTERS | {"repeats": 3},
    "tf_rolling": {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{question}}", "repeats": 2},
    # Several replies against several answers, place by place, and against a number.
    "tf_places": WRITES | {
        "doc_to_text": "{{question}}", "doc_to_target": "{{['a', 'e', 't']}}", "repeats": 3,
        "filter_list": filters(letters=[step("regex", regex_pattern="[a-z]")], voted=[step("regex", regex_pattern="[a-z]"), step("majority_vote")]),
    },
    "tf_number": WRITES | {
        "doc_to_text": "{{question}}", "doc_to_target": "label", "repeats": 2, "filter_list": filters(all=[step("regex", regex_pattern="[0-9]", fallback="1")]),
    },
    # What templates print.
    "tf_printed": {
        "output_type": "loglikelihood_rolling", "doc_to_text": "",
        "doc_to_target": (
            "{{numbers}} {{numbers[0]}} {{numbers|join('; ')}} {{mapping}} {{mapping|tojson}} {{(label, lead)}} {{range(label)}}"
            " {{mapping.items()|list}} {{question|truncate(20)}} {{question|wordcount}} {{question.partition(' ')}} {{lead|center(9)}}|"
            "{{'%05.1f'|format(numbers[2])}} {{question|urlencode}} {{question.title().rsplit(' ', 1)[-1]}} {{numbers|sum}}"
        ),
    },
}


def rows(rng, count):
    for index in range(count):
        choices = [sentence(rng, 1)[:2], sentence(rng, 2)[:1], "the"]
        yield {
            "question": sentence(rng, rng.randint(3, 9)), "answer": sentence(rng, 2), "lead": ["It is ", "So", "Well,\n"][index % 3],
            "label": index % 3, "choices": choices, "right": ["(A)", "(B)", "(C)"][index % 3], "quoted": f'it\'s "{sentence(rng, 1)}"',
            "digits": ["2", "0", "1"], "digit": str(index % 4), "numbers": [1e-7 * (index + 1), 1e16, 0.25 * index, 1.5],
            "mapping": {"b": "é<&'>", "a": [index, None, True]},
        }


def main(program, shared, limit=6):
    program, shared, limit = str(pathlib.Path(program).resolve()), pathlib.Path(shared), int(limit)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        rng = random.Random(5)
        data, own = scratch / "data", scratch / "tasks"
        data.mkdir()
        own.mkdir()
        for split in ("train", "test"):
            write(data / f"{split}.jsonl", rows(rng, 20))
        for name, task in TASKS.items():
            file = {"task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": files_of(data)}, "test_split": "test"} | task
            (own / f"{name}.yaml").write_text(yaml.safe_dump(file, sort_keys=False))
        manager = TaskManager(include_path=str(own), include_defaults=False)
        for model_name, model in checkpoints(scratch, shared):
            lm = HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=8)
            for chat in (False, True):
                # A text that is scored whole is no conversation.
                names = [name for name in TASKS if not (chat and name == "tf_printed")]
                if chat or model_name != "llama-bos":
                    names = [name for name in names if name not in LONG]
                theirs = lm_eval.simple_evaluate(
                    model=lm, tasks=names, task_manager=manager, limit=limit, bootstrap_iters=100000, log_samples=True,
                    apply_chat_template=chat, fewshot_as_multiturn=chat)
                label = f"{model_name} {'chat' if chat else 'plain'}"
                found = qpipe(program, scratch / label.replace(" ", "-"), model, [str(own / f"{name}.yaml") for name in names], data,
                              {"limit": limit, "chat_template": chat})
                for name in names:
                    compare(f"{label} {name}", found, theirs, name)


if __name__ == "__main__":
    torch.set_num_threads(2)
    main(*sys.argv[1:])
