"""Holds the tables and files of `report::lm_eval` to lm-evaluation-harness.

    pip install lm_eval==0.4.13                             # or 0.4.11; with pytablewriter 1.2.1
    cargo build --release --example lm_eval_table
    python tests/parity/lm_eval_table.py compare [CASES [PROGRAM]]
    python tests/parity/lm_eval_table.py golden tests/golden/lm_eval_table

Both run lm-eval's own `evaluate` on tasks of random figures (groups in groups, several metrics and filters, unknown standard
errors, NaN, infinities, whole numbers, versions of all kinds, names in many scripts) and print with its `make_table`.

`compare` (2,000 cases; target/release/examples/lm_eval_table) exits with 1 unless PROGRAM prints the same characters, for
both tables, also once its own have been read back. With lm-eval 0.4.13 also unless
- what `evaluate` returned is in PROGRAM's results file, in the same order and with the same floats,
- lm-eval's `make_table` of that file gives the same tables,
- PROGRAM's sample lines and task hash are those that lm-eval's tracker saves.

`golden` writes a few cases and what lm-eval prints of them: what src/report/lm_eval/table_tests.rs reads.
"""

import argparse
import importlib.metadata
import json
import logging
import math
import pathlib
import random
import subprocess
import sys
import tempfile

import lm_eval.evaluator
import lm_eval.evaluator_utils
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from lm_eval.utils import make_table

VERSION = importlib.metadata.version("lm_eval")
IS_OLD = VERSION == "0.4.11"
SEED = 20261122
METRICS = ["acc", "acc_norm", "exact_match", "word_perplexity", "f1", "bits_per_byte", "Acc", "mcc"]
FILTERS = ["none", "strict-match", "flexible-extract", "top 5", "1", "get|answer"]
ALIASES = [
    "arc easy", "日本語の課題", "한국어 과제", "ｆｕｌｌ　ｗｉｄｔｈ", "naïve", "e\u0301tude", "מבחן", "🦀 crab", "a|b", "'quoted'", '"twice"',
    "tab\there", "two\nlines", "12", "0.50", "1e5", "1,234", "nan", "true", "x" * 40, "№ 7", "± 3", "",
]
VERSIONS = [1.0, 1.0, 1.0, 2, 2.0, 0, 0.0, 1.5, 0.001, 3.25, "Yaml", "2", "1.0", "v1", "N/A"]

logging.disable(logging.CRITICAL)


class Tagged(float):
    """A document's figure that knows its key, so that `aggregation` can look the real figure up."""


class Answer(tuple):
    """A response that knows the filter it went through."""


class StubTask(Task):
    """A task whose figures are given."""

    OUTPUT_TYPE = "multiple_choice"

    def __init__(self, name, spec, documents):
        self.name, self.spec, self.documents = name, spec, documents
        self.VERSION = spec["version"]
        self.figures = {(m["name"], m["filter"]): m for m in spec["metrics"]}
        self.requests = [
            Instance("loglikelihood", doc["doc"], (doc["prompt"], choice[0]), index, (name, number, 1))
            for number, doc in enumerate(documents) for index, choice in enumerate(doc["choices"])
        ]

    task_name = property(lambda self: self.name)
    eval_docs = property(lambda self: range(self.spec["n_original"]))
    instances = property(lambda self: self.requests)
    config = property(lambda self: self.dump_config())

    def build_all_requests(self, **_):
        pass

    def dump_config(self):
        return {"task": self.name, "task_alias": self.spec["alias"], "num_fewshot": self.spec["n_shot"]}

    def apply_filters(self):
        filters = list(dict.fromkeys(m["filter"] for m in self.spec["metrics"])) or ["none"]
        for request in self.requests:
            for name in filters:
                answer = Answer(request.resps[0])
                answer.filter = name
                request.filtered_resps[name] = answer

    def doc_iterator(self, **_):
        return enumerate(doc["doc"] for doc in self.documents)

    def doc_to_target(self, doc):
        return next(document["target"] for document in self.documents if document["doc"] is doc)

    def process_results(self, doc, results):
        document = next(document for document in self.documents if document["doc"] is doc)
        values = {}
        for metric in self.spec["metrics"]:
            if metric["filter"] == results[0].filter:
                values[metric["name"]] = Tagged(document["values"][metric["name"]])
                values[metric["name"]].metric = metric
        return values

    def aggregation(self):
        def figure(items):
            return items[0].metric["value"]

        return {metric["name"]: figure for metric in self.spec["metrics"]}

    def higher_is_better(self):
        return {metric["name"]: metric["higher_is_better"] for metric in self.spec["metrics"]}


# The rest of a task's methods is for those that have data.
StubTask.__abstractmethods__ = frozenset()


def given_stderr(items):
    stderr = items[0].metric["stderr"]
    return "N/A" if stderr is None else stderr


lm_eval.evaluator_utils.stderr_for_metric = lambda metric, bootstrap_iters: given_stderr


def random_value(rng, wild):
    n = rng.choice([1, 5, 10, 40, 100, 237, 1319])
    kinds = [lambda: rng.randint(0, n) / n, lambda: rng.random(), lambda: float(rng.randint(0, 1))]
    if wild:
        kinds += [
            lambda: rng.uniform(-3, 60), lambda: math.nan, lambda: math.inf, lambda: -math.inf, lambda: -0.0,
            lambda: 10.0 ** rng.randint(-7, 20), lambda: rng.randint(0, 9) / 10, lambda: float(rng.randint(0, 10**6)),
            lambda: rng.uniform(0, 1e13),
        ]
    return rng.choice(kinds)()


def random_doc(rng, depth=0):
    kinds = [
        lambda: rng.choice(ALIASES), lambda: rng.randint(-(2**63), 2**64 - 1), lambda: rng.randint(-9, 9), lambda: rng.random(),
        lambda: rng.uniform(-1, 1) * 10.0 ** rng.randint(-30, 30), lambda: None, lambda: rng.random() < 0.5,
        lambda: "".join(chr(rng.choice([*range(0, 160), 0x2028, 0x1F980, 0xE9])) for _ in range(9)),
    ]
    if depth < 3:
        kinds += [
            lambda: [random_doc(rng, depth + 1) for _ in range(rng.randint(0, 3))],
            lambda: {f"{rng.choice('zyxab')}{i}": random_doc(rng, depth + 1) for i in range(rng.randint(0, 3))},
        ]
    return rng.choice(kinds)()


def random_case(rng):
    """`results` and `aggregate` for the program, and each task's documents."""
    wild = rng.random() < 0.5
    names = [f"{rng.choice('abcxyz')}{i}{rng.choice(['', '_task', 'Z'])}" for i in range(rng.choice([IS_OLD, 1, 2, 3, 5, 8, 12]))]
    shots = rng.sample([0, 1, 5, 8, 10, 25], rng.choice([1, 1, 2, 3]))
    directions = {metric: rng.choice([True, True, False, None]) for metric in METRICS}
    metrics_here = rng.sample(METRICS, rng.randint(1, 4))
    tasks, documents = {}, {}
    for name in names:
        original = rng.choice([1, 2, 3, 5, 9, 30])
        n = rng.randint(1, min(original, 6))
        metrics = []
        for filter_name in rng.sample(FILTERS, rng.choice([1, 1, 1, 2, 3])) if rng.random() < 0.4 else ["none"]:
            for metric in rng.sample(metrics_here, rng.randint(1, len(metrics_here))):
                unknown = n == 1 or rng.random() < (0.3 if wild else 0.1)
                metrics.append({
                    "name": metric, "filter": filter_name, "value": random_value(rng, wild),
                    "stderr": None if unknown else abs(random_value(rng, wild and rng.random() < 0.3)),
                    "higher_is_better": directions[metric],
                })
        if rng.random() < 0.1:
            for metric in metrics:
                metric["higher_is_better"] = {True: False, False: None, None: True}[metric["higher_is_better"]]
        tasks[name] = {
            "alias": rng.choice(ALIASES) if rng.random() < (0.5 if wild else 0.1) else name,
            "version": rng.choice(VERSIONS) if wild else 1.0, "n_shot": rng.choice(shots),
            "n_original": original, "n_effective": n, "metrics": metrics,
        }
        documents[name] = [{
            "doc_id": i, "doc": {"id": i, "x": random_doc(rng), "y": random_doc(rng)}, "target": str(rng.randint(0, 3)),
            "prompt": f"{rng.choice(ALIASES)}\nAnswer:",
            "choices": [[f" {c}", rng.uniform(-200, 0), rng.random() < 0.5] for c in range(rng.randint(1, 3))],
            "values": {metric: rng.choice([0.0, 1.0, rng.random()]) for metric in metrics_here},
        } for i in range(n)]

    groups, aggregate, free = {}, {}, list(tasks)
    for number in range(rng.choice([0, 0, 1, 2, 3, 5]) if tasks else 0):
        name = f"{rng.choice('agmz')}_group{number}"
        if not free:
            break
        children = rng.sample(free, rng.randint(1, min(4, len(free))))
        free = [child for child in free if child not in children] + [name]
        if not IS_OLD and wild and rng.random() < 0.3:
            children += [task for task in rng.sample(names, 1) if task not in children]
        groups[name] = {
            # Of a group without an alias the versions think differently.
            "alias": (rng.choice(ALIASES) if wild and rng.random() < 0.5 else "") or name.removeprefix("a_"),
            "version": rng.choice([None, *VERSIONS]) if wild else 2, "children": children,
        }
        below = leaves(groups, name)
        known = sorted({metric["name"] for task in below for metric in tasks[task]["metrics"]})
        aggregate[name] = rng.sample(known, rng.randint(1, len(known))) if rng.random() < 0.8 else []
    return {"results": {"tasks": tasks, "groups": groups}, "aggregate": aggregate}, documents


def leaves(groups, name):
    if name not in groups:
        return [name]
    return [leaf for child in groups[name]["children"] for leaf in leaves(groups, child)]


class Model(lm_eval.api.model.LM):
    """Answers what the documents say."""

    def __init__(self, documents):
        super().__init__()
        self.documents = documents

    def loglikelihood(self, requests):
        # lm-eval keeps the order of a task's requests, so `idx` and the document find the answer.
        return [tuple(self.documents[r.task_name][r.doc_id]["choices"][r.idx][1:]) for r in requests]

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError

    def generate_until(self, requests):
        raise NotImplementedError


def tops(results):
    inner = {child for group in results["groups"].values() for child in group["children"]}
    return sorted(name for name in {**results["groups"], **results["tasks"]} if name not in inner)


def evaluate(case, documents, log_samples):
    results = case["results"]
    stubs = {name: StubTask(name, spec, documents[name]) for name, spec in results["tasks"].items()}
    if IS_OLD:
        from lm_eval.api.group import ConfigurableGroup

        def nested(name):
            if name in stubs:
                return {name: stubs[name]}
            spec = results["groups"][name]
            wanted = [
                {"metric": metric, "aggregation": "mean", "weight_by_size": True, "filter_list": FILTERS}
                for metric in case["aggregate"][name]
            ]
            group = ConfigurableGroup({
                "group": name, "group_alias": spec["alias"], "aggregate_metric_list": wanted or None,
                "metadata": None if spec["version"] is None else {"version": spec["version"]},
            })
            inner = {}
            for child in spec["children"]:
                inner.update(nested(child))
            return {group: inner}

        loaded = {}
        for name in tops(results):
            loaded.update(nested(name))
    else:
        from lm_eval.api.group import Group
        from lm_eval.config.group import AggMetricConfig

        built = {}

        def build(name):
            if name in stubs:
                return stubs[name]
            if name not in built:
                spec = results["groups"][name]
                wanted = [AggMetricConfig(metric=metric) for metric in case["aggregate"][name]]
                metadata = None if spec["version"] is None else {"version": spec["version"]}
                built[name] = Group(name, spec["alias"], wanted or None, metadata)
                for child in spec["children"]:
                    built[name].add(build(child))
            return built[name]

        tasks, groups = {}, {}
        for name in tops(results):
            item = build(name)
            if name in stubs:
                tasks[name] = item
            else:
                groups[name] = item
                tasks.update((task.task_name, task) for task in item.get_all_tasks())
                groups.update((group.name, group) for group in item.get_all_groups())
        loaded = {"tasks": tasks, "groups": groups}
    return lm_eval.evaluator.evaluate(
        Model(documents), loaded, bootstrap_iters=100000, log_samples=log_samples, write_out=False
    )


def printed(results):
    # 0.4.11 takes the aliases out of what it prints.
    copy = {key: {name: dict(value) for name, value in part.items()} if key in ("results", "groups") else part
            for key, part in results.items()}
    return make_table(copy), make_table(copy, "groups") if "groups" in copy else None


def speakable(value):
    """Figures as the program reads them."""
    if isinstance(value, dict):
        return {key: speakable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [speakable(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def samples_of(case, documents):
    """The first task's samples, a filter after the other."""
    for name, spec in case["results"]["tasks"].items():
        for filter_name in dict.fromkeys(metric["filter"] for metric in spec["metrics"]):
            metrics = [metric["name"] for metric in spec["metrics"] if metric["filter"] == filter_name]
            for document in documents[name]:
                rest = {key: document[key] for key in ("doc_id", "doc", "target", "prompt", "choices")}
                yield rest | {"filter": filter_name, "metrics": [[m, document["values"][m]] for m in metrics]}
        return


def saved(results, task):
    """What lm-eval's tracker writes: the lines of a task's samples, and its hash."""
    from lm_eval.loggers import EvaluationTracker

    with tempfile.TemporaryDirectory() as folder:
        tracker = EvaluationTracker(output_path=folder)
        tracker.general_config_tracker.log_experiment_args("none", {"pretrained": "a/b"}, None, None, False)
        samples = results.pop("samples")
        tracker.save_results_aggregated(results=results, samples=samples)
        tracker.save_results_samples(task_name=task, samples=samples[task])
        [lines] = pathlib.Path(folder, "a__b").glob(f"samples_{task}_*.jsonl")
        [file] = pathlib.Path(folder, "a__b").glob("results_*.json")
        hashes = json.loads(file.read_text(encoding="utf-8"))["task_hashes"]
        return lines.read_text(encoding="utf-8").removesuffix("\n").split("\n"), hashes[task]


def differences(case, documents, answer, with_samples):
    results = evaluate(case, documents, log_samples=with_samples)
    tasks, groups = printed(results)
    if answer["tasks"] != tasks:
        yield "tasks", tasks, answer["tasks"]
    if answer["groups"] != groups:
        yield "groups", groups, answer["groups"]
    ours = [table for table in (answer["tasks"], answer["groups"]) if table is not None]
    if answer["again"] != ours:
        yield "read back", ours, answer["again"]
    if IS_OLD:
        return
    file = json.loads(answer["file"])
    for key in ["results", "groups", "group_subtasks", "versions", "n-shot", "higher_is_better", "n-samples"]:
        sort = key == "higher_is_better"
        theirs, mine = (json.dumps(part.get(key), sort_keys=sort) for part in (results, file))
        if theirs != mine:
            yield key, theirs, mine
    wanted = [key for key in results if key not in ("samples", "configs")]
    if [key for key in file if key in wanted] != wanted:
        yield "keys", wanted, list(file)
    if printed(file) != (tasks, groups):
        yield "make_table of the file", (tasks, groups), printed(file)
    if with_samples and case["results"]["tasks"]:
        lines, task_hash = saved(results, next(iter(case["results"]["tasks"])))
        if answer["lines"] != lines:
            yield "samples", lines, answer["lines"]
        if answer["task_hash"] != task_hash:
            yield "task hash", task_hash, answer["task_hash"]


def cases(count, seed):
    rng = random.Random(seed)
    return [random_case(rng) for _ in range(count)]


def compare(arguments):
    made = cases(arguments.cases, SEED)
    lines = []
    for number, (case, documents) in enumerate(made):
        samples = list(samples_of(case, documents)) if number % 5 == 0 else []
        lines.append(json.dumps(speakable(case) | {"version": f"lm-eval-{VERSION}", "samples": samples}))
    run = subprocess.run([arguments.program], input="\n".join(lines) + "\n", stdout=subprocess.PIPE, text=True, check=True)
    answers = [json.loads(line) for line in run.stdout.removesuffix("\n").split("\n")]
    assert len(answers) == len(made)
    wrong, rows = 0, 0
    for number, ((case, documents), answer) in enumerate(zip(made, answers)):
        rows += answer["tasks"].count("\n")
        for what, theirs, ours in differences(case, documents, answer, number % 5 == 0):
            wrong += 1
            if wrong <= 5:
                print(f"case {number}, {what}:\n--- lm-eval\n{theirs}\n--- here\n{ours}\n")
    print(f"lm-eval {VERSION}: {len(made)} cases, {rows} lines of task tables, {wrong} differences")
    return int(wrong > 0)


def golden(arguments):
    chosen = []
    for case, documents in cases(400, SEED + 1):
        tasks = case["results"]["tasks"].values()
        if len(chosen) < 6 and case["results"]["groups"] and len(tasks) > 2 and len(json.dumps(case)) < 2500:
            tables = dict(zip(("tasks", "groups"), printed(evaluate(case, documents, log_samples=False))))
            chosen.append(json.dumps(speakable(case) | tables, ensure_ascii=False))
    made_by = (
        f"tests/parity/lm_eval_table.py golden, random figures with seed {SEED + 1}; "
        f"tables printed by lm_eval {VERSION} with pytablewriter {importlib.metadata.version('pytablewriter')}"
    )
    head = f'{{"made_by": {json.dumps(made_by)},\n"version": "lm-eval-{VERSION}",\n"cases": [\n'
    path = pathlib.Path(arguments.folder, f"{VERSION}.json")
    path.write_text(head + ",\n".join(chosen) + "\n]}\n", encoding="utf-8")
    return 0


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("compare")
    command.add_argument("cases", type=int, nargs="?", default=2000)
    command.add_argument("program", nargs="?", default="target/release/examples/lm_eval_table")
    command.set_defaults(run=compare)
    command = commands.add_parser("golden")
    command.add_argument("folder")
    command.set_defaults(run=golden)
    arguments = parser.parse_args()
    sys.exit(arguments.run(arguments))


if __name__ == "__main__":
    main()
