#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Takes a synthetic checkpoint through compress, verify and decompress, and records what that took. See
bench/run-checkpoint."""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import checkpoint_tables  # noqa: E402
import records  # noqa: E402

# What the measured code is made of; changes elsewhere do not make a result dirty.
MEASURED_PATHS = ["include", "src", ":!src/cuda", "tools", "cmake", "bench/run_checkpoint.py"]
MEMORY_BYTES = 512 << 20  # beside twice the largest tensor: what the library promises
# Of the source's size: a bundle is about 0.71 of it, what is restored as large; the rest is for the index and luck.
BESIDE_SOURCE = 1.8


class Failure(Exception):
    pass


def need_space(folder: Path, size_bytes: float, purpose: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < size_bytes:
        raise Failure(f"{folder} has {free / 1e9:.1f} GB free, {purpose} takes about {size_bytes / 1e9:.1f} GB; "
                      "--work names another folder")  # fmt: skip


def guessed_source_bytes(model: str) -> float:
    """From the billions of weights in the name, so that a lack of space shows before anything is written."""
    found = re.search(r"-(\d+(?:\.\d+)?)b\b", model)
    return float(found.group(1)) * 2e9 if found else 0


def run_step(tool: Path, *arguments: str) -> dict:
    """Runs a command of the tool; its report, wall-clock and CPU seconds, and peak resident set."""
    name = arguments[0]
    print(f"{name:<12}", end="", flush=True)
    begin = time.monotonic()
    with subprocess.Popen([str(tool), *arguments, "--json"], stdout=subprocess.PIPE, text=True) as process:
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - begin
    if process.returncode != 0:
        raise Failure(f"unweight {name} ended with status {process.returncode}: {output.strip()}")
    print(f"{wall:9.2f} s   peak {usage.ru_maxrss / 1024:8.1f} MiB")
    return {
        "report": json.loads(output),
        "wall_s": wall,
        "user_s": usage.ru_utime,
        "system_s": usage.ru_stime,
        "peak_rss_bytes": usage.ru_maxrss * 1024,
    }


def largest_tensor_bytes(checkpoint: Path) -> int:
    largest = 0
    for path in checkpoint.rglob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        sizes = (entry["data_offsets"] for name, entry in header.items() if name != "__metadata__")
        largest = max([largest, *(end - begin for begin, end in sizes)])
    return largest


def checksums(root: Path) -> dict[str, str]:
    """SHA-256 of every file by sha256sum, which shares no code with the tool."""

    def digest(path: Path) -> str:
        run = subprocess.run(["sha256sum", "--", str(path)], check=True, capture_output=True, text=True)
        return run.stdout.split()[0].lstrip("\\")

    files = sorted(path for path in root.rglob("*") if path.is_file())
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return dict(zip((str(path.relative_to(root)) for path in files), pool.map(digest, files)))


def measure(arguments: argparse.Namespace, work: Path) -> dict:
    machine, commit = records.machine(), records.commit(MEASURED_PATHS)
    source, bundle, restored = work / "source", work / "bundle", work / "restored"
    guess = guessed_source_bytes(arguments.model)
    need_space(work, (1 + BESIDE_SOURCE) * guess, f"{arguments.model} with its bundle and the restored copy")
    steps = {"synth": run_step(arguments.tool, "synth", "--model", arguments.model, "--seed", str(arguments.seed),
                               str(source))}  # fmt: skip
    source_bytes = steps["synth"]["report"]["bytes"]
    need_space(work, BESIDE_SOURCE * source_bytes, "its bundle with the restored copy")

    steps["compress"] = run_step(arguments.tool, "compress", str(source), str(bundle))
    steps["verify"] = run_step(arguments.tool, "verify", str(bundle), "--against", str(source))
    steps["decompress"] = run_step(arguments.tool, "decompress", str(bundle), str(restored))
    compressed = steps["compress"]["report"]
    if not (compressed["finished"] and compressed["verified"] and steps["verify"]["report"]["compared_with_source"]):
        raise Failure("the bundle is not finished, was not decoded again, or was not compared with its source")

    print("sha256sum   ", end="", flush=True)
    digests = checksums(source)
    if checksums(restored) != digests:
        raise Failure("restored files differ from the source")
    print(f"{len(digests):9} files identical")

    largest_bytes = largest_tensor_bytes(source)
    limit = MEMORY_BYTES + 2 * largest_bytes
    return {
        "command": f"bench/run-checkpoint --model {arguments.model} --seed {arguments.seed}",
        "date": records.today(),
        "commit": commit,
        "machine": machine,
        "model": arguments.model,
        "seed": arguments.seed,
        "source_bytes": source_bytes,
        "bundle_bytes": compressed["bundle_bytes"],
        "ratio": compressed["bundle_bytes"] / source_bytes,
        "tensors": {kind: compressed[f"tensors_{kind}"] for kind in ("blob", "raw", "alias")},
        "bits_per_weight": 16 * compressed["blob_bytes"] / compressed["blob_value_bytes"],
        "largest_tensor_bytes": largest_bytes,
        "memory_limit_bytes": limit,
        "steps": {
            name: {
                **{key: step[key] for key in ("wall_s", "user_s", "system_s", "peak_rss_bytes")},
                "gb_per_s": source_bytes / step["wall_s"] / 1e9,
                # The promise is about checkpoints that are read, not about those that are made up.
                **({} if name == "synth" else {"within_memory_limit": step["peak_rss_bytes"] <= limit}),
            }
            for name, step in steps.items()
        },
        "sha256_identical_files": len(digests),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tool", type=Path, required=True, help="the unweight program")
    parser.add_argument("--model", default="llama-3.1-8b", help="a name of `unweight synth --list`")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, required=True, help="folder for the files")
    parser.add_argument("--keep", action="store_true", help="do not remove the files at the end")
    arguments = parser.parse_args()
    try:
        work = Path(tempfile.mkdtemp(prefix=f"checkpoint-{arguments.model}-", dir=arguments.work))
        try:
            results = measure(arguments, work)
        finally:
            if arguments.keep:
                print(f"kept: {work}")
            else:
                shutil.rmtree(work)
    except (Failure, OSError, subprocess.CalledProcessError) as error:
        print(f"run_checkpoint.py: {error}", file=sys.stderr)
        return 1
    records.RESULTS.mkdir(exist_ok=True)
    path = records.RESULTS / f"checkpoint_{arguments.model}.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    checkpoint_tables.renew()
    print(checkpoint_tables.markdown([results]))
    within = [step["within_memory_limit"] for name, step in results["steps"].items() if name != "synth"]
    if not all(within):
        print("run_checkpoint.py: a step took more memory than the limit", file=sys.stderr)
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
