"""What the scripts in this folder have in common: an action of the worker, and the logits that it computes."""

import json
import subprocess

from safetensors.torch import load_file


def run_action(program, kind, params, inputs, folder, threads=1):
    """Runs one action in a new `folder`: the folder of its artifact."""
    folder.mkdir()
    action = {
        "request": "run", "id": 1, "kind": kind, "params": params,
        "inputs": {port: {"one": str(path)} for port, path in inputs.items()},
        "scratch": str(folder), "device": "cpu", "threads": threads,
    }
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        process.stdin.write(json.dumps(action) + "\n")
        process.stdin.flush()
        # The pipe stays open until the action has ended: the end of input stops it.
        ends = (json.loads(line) for line in process.stdout)
        last = next(event for event in ends if event["event"] in ("done", "failed", "stopped"))
        process.stdin.close()
    assert last["event"] == "done", last
    return folder / "out"


def worker_logits(program, folder, ids, dtype, scratch):
    """The logits of `ids` [B, T] by the example program `logits`."""
    request, result = scratch / "ids.json", scratch / "logits.safetensors"
    request.write_text(json.dumps(ids.tolist()))
    subprocess.run([program, folder, request, result, dtype], check=True)
    return load_file(result)["logits"]
