"""All 57 subjects of MMLU, without examples and with five: every prompt, log-likelihood and figure of `evaluate` against
lm-evaluation-harness 0.4.13.

    python tests/parity/mmlu.py target/release/qpipe-worker DATA [LIMIT]     # DATA: the folder of QPIPE_TEST_DATA

in the environment of tests/parity/harness.py, on its first checkpoint. Prints a line a run; ends with an error where something differs.
"""

import pathlib
import sys
import tempfile

import torch
from lm_eval.models.huggingface import HFLM

import harness


def main(program, shared, limit=2):
    shared = pathlib.Path(shared)
    subjects = sorted(path.stem for path in (harness.TASKS / "mmlu/default").glob("mmlu_*.yaml"))
    assert len(subjects) == 57, subjects
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        name, model = next(harness.checkpoints(scratch, shared))
        lm = HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=16)
        for task in subjects:
            harness.FILES[task] = f"mmlu/default/{task}.yaml"
            folders = {task: shared / "mmlu"}
            config = harness.task_config(task, folders, scratch)
            for shots in (0, 5):
                harness.run(program, name, model, lm, task, config, folders, scratch, shots, int(limit), False)


if __name__ == "__main__":
    torch.set_num_threads(2)
    main(*sys.argv[1:])
