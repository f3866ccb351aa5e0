"""All 57 subjects of MMLU in one run of `evaluate`, without examples and with five: every prompt, log-likelihood and figure against
lm-evaluation-harness 0.4.13.

    python tests/parity/mmlu.py target/release/qpipe-worker DATA [LIMIT]     # DATA: the folder of QPIPE_TEST_DATA

in the environment of tests/parity/harness.py, on its first checkpoint with more positions, so that no context is cut. Prints a line
for each subject; ends with an error where something differs.
"""

import json
import pathlib
import sys
import tempfile

import lm_eval
import torch
from lm_eval.models.huggingface import HFLM

import harness


def main(program, shared, limit=2):
    shared, limit = pathlib.Path(shared), int(limit)
    subjects = sorted(path.stem for path in (harness.TASKS / "mmlu/default").glob("mmlu_*.yaml"))
    assert len(subjects) == 57, subjects
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        _, model = next(harness.checkpoints(scratch, shared))
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 16384}))
        lm = HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=1)
        for shots in (0, 5):
            params = {"tasks": ["mmlu"], "num_fewshot": shots, "limit": limit}
            inputs = {"model": model, "data": shared / "mmlu"}
            out = harness.run_action(program, "evaluate", params, inputs, scratch / f"{shots}-shot", threads=2)
            for task in subjects:
                harness.FILES[task] = f"mmlu/default/{task}.yaml"
                config = harness.task_config(task, {task: shared / "mmlu"}, scratch)
                theirs = lm_eval.simple_evaluate(
                    model=lm, tasks=[{**config, "task": task}], num_fewshot=shots, limit=limit, bootstrap_iters=0,
                    log_samples=True, confirm_run_unsafe_code=True)
                ours = [json.loads(line) for line in (out / f"{task}.jsonl").open()]
                worst = harness.compare(f"{task} {shots}-shot", ours, theirs["samples"][task])
                print(f"{task} {shots}-shot: {len(ours)} questions, log-likelihoods within {worst:.1e}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(2)
    main(*sys.argv[1:])
