#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the inputs, runs codec_bench for the distribution form and the baselines in alternation, writes the results and
the tables of bench/README.md. See bench/run-distribution. Run alone with --tables, renews the tables only."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

BENCH = Path(__file__).resolve().parent
sys.path[:0] = [str(BENCH), str(BENCH / "baselines"), str(BENCH.parent / "scripts")]

import records  # noqa: E402

RESULTS = records.RESULTS / "distribution_cpu.json"
MEASURED_PATHS = ["include/unweight/distribution.hpp", "src/codec", "src/format", "cmake", "bench/codec_bench.cpp",
                  "bench/run_codec.py", "bench/run_distribution.py", "bench/CMakeLists.txt", "bench/baselines"]  # fmt: skip
BEGIN = "<!-- distribution tables: made by bench/run-distribution -->"
END = "<!-- end of distribution tables -->"

TARGET_RATIO = 1.3  # times the better of zipnn and lmzip, on one thread
TARGET_DECODE_GB_PER_S, TARGET_ENCODE_GB_PER_S = 1.5, 0.8
TARGET_SYNTHETIC_BITS = 10.52
SYNTHETIC = "synthetic 4096 x 4096"
RIVALS = ("zipnn", "lmzip")


def run_case(name: str, tensors: list, arguments: argparse.Namespace) -> dict:
    import dfloat11_size
    from lmzip_baseline import LmzipBaseline
    from run_codec import busy_cpu_s, summary
    from zipnn_baseline import ZipnnBaseline

    values = b"".join(tensor.tobytes() for tensor in tensors)
    path = arguments.work / "values.bf16"
    path.write_bytes(values)
    shapes = [f"{rows}x{cols}" for rows, cols in (tensor.shape for tensor in tensors)]
    command = [str(arguments.bench), str(path), "--form", "distribution", "--lockstep", "--rounds",
               str(arguments.rounds), "--max-threads", str(arguments.max_threads)]  # fmt: skip
    for shape in shapes:
        command += ["--shape", shape]

    baselines = {"zipnn": ZipnnBaseline(values), "lmzip": LmzipBaseline(values)}
    samples: dict[str, list[float]] = {
        f"{rival} {operation}": [] for rival in baselines for operation in ("compress", "decompress")
    }
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
            for rival, baseline in baselines.items():
                samples[f"{rival} compress"].append(baseline.compress())
                samples[f"{rival} decompress"].append(baseline.decompress())
        report = json.loads(bench.stdout.read())
    if bench.returncode != 0:
        raise RuntimeError(f"codec_bench failed with status {bench.returncode}")
    wall = time.monotonic() - wall_before
    foreign = busy_cpu_s() - busy_before - (sum(os.times()[:4]) - own_before)

    count = len(values) // 2
    measured = [(entry["name"], entry["threads"], entry["samples_s"]) for entry in report.pop("operations")]
    measured += [(operation, 1, each) for operation, each in samples.items()]
    return {
        "name": name,
        "shapes": shapes,
        "values": count,
        "bits_per_weight": {
            "unweight": 8 * report["blob_bytes"] / count,
            **{rival: 8 * baseline.compressed_bytes / count for rival, baseline in baselines.items()},
            "dfloat11, computed": 8 * dfloat11_size.compressed_bytes(values) / count,
            "zstd": 8 * report["zstd_bytes"] / count,
        },
        "other_work_cpus": max(0.0, foreign / wall),
        "operations": [
            {"name": operation, "threads": threads, **summary(each, len(values))}
            for operation, threads, each in measured
        ],
        "build": {key: report[key] for key in ("compiler", "build_type", "zstd_version", "zstd_level")},
    }


def case_tables(case: dict) -> list[str]:
    bits = case["bits_per_weight"]
    by_key = {(entry["name"], entry["threads"]): entry for entry in case["operations"]}

    def cell(name: str, threads: int = 1) -> str:
        entry = by_key[name, threads]
        worst = case["values"] * 2 / 1e9 / entry["max_s"]
        return f"{entry['median_gb_per_s']:.2f} ({worst:.2f}..{entry['best_gb_per_s']:.2f})"

    def verdict(met: bool) -> str:
        return "met" if met else "MISSED"

    def speed(ours: str, theirs: str, target: float) -> str:
        own = by_key[ours, 1]
        rival = min((by_key[f"{r} {theirs}", 1] for r in RIVALS), key=lambda entry: entry["median_s"])
        ratio = rival["median_s"] / own["median_s"]
        return (f"- {ours}: {own['median_gb_per_s']:.2f} GB/s, target {target}: "
                f"{verdict(own['median_gb_per_s'] >= target)}; {ratio:.2f}x the better of zipnn and lmzip "
                f"({rival['name'].split()[0]}; best to best {rival['min_s'] / own['min_s']:.2f}x), "
                f"target {TARGET_RATIO}x: {verdict(ratio >= TARGET_RATIO)}")  # fmt: skip

    smallest = all(bits["unweight"] < size for name, size in bits.items() if name != "unweight")
    lines = [
        f"### {case['name']}",
        "",
        f"{case['values'] * 2 / 1e6:.1f} MB of BF16; meanwhile other work used {case['other_work_cpus']:.2f} CPUs.",
        "",
        "| one thread, GB/s of BF16: median (worst..best) | bits/weight | compress | decompress |",
        "|---|---|---|---|",
        f"| unweight, distribution form | {bits['unweight']:.3f} | {cell('encode')} | {cell('decode')} |",
        f"| lmzip | {bits['lmzip']:.3f} | {cell('lmzip compress')} | {cell('lmzip decompress')} |",
        f"| zipnn | {bits['zipnn']:.3f} | {cell('zipnn compress')} | {cell('zipnn decompress')} |",
        f"| DFloat11, computed | {bits['dfloat11, computed']:.3f} | - | - |",
        f"| zstd -3 | {bits['zstd']:.3f} | {cell('zstd compress')} | {cell('zstd decompress')} |",
        "",
        f"- smallest of all: {verdict(smallest)}",
    ]
    if case["name"] == SYNTHETIC:
        lines.append(f"- at most {TARGET_SYNTHETIC_BITS} bits/weight: "
                     f"{verdict(bits['unweight'] <= TARGET_SYNTHETIC_BITS)}")  # fmt: skip
    lines += [
        speed("decode", "decompress", TARGET_DECODE_GB_PER_S),
        speed("encode", "compress", TARGET_ENCODE_GB_PER_S),
        "",
        "| threads | encode | decode | decode unchecked | encode untouched | decode untouched |",
        "|---|---|---|---|---|---|",
    ]
    operations = ["encode", "decode", "decode unchecked", "encode untouched", "decode untouched"]
    for threads in sorted({entry["threads"] for entry in case["operations"]}):
        lines.append(f"| {threads} | " + " | ".join(cell(name, threads) for name in operations) + " |")
    return lines + [""]


def markdown(results: dict) -> str:
    machine, versions = results["machine"], results["versions"]
    lines = [
        f"Machine: {machine['cpu']}, {machine['cpus']} CPUs, load {machine['load_before']:.2f} before the run. "
        f"{versions['compiler']} ({versions['build_type']}), lmzip {versions['lmzip']}, zipnn {versions['zipnn']}, "
        f"DFloat11 as of {versions['dfloat11']}, zstd {versions['zstd_version']}, Python {versions['python']}. Commit "
        f"{results['commit']}, {results['date']}: `{results['command']}`, {results['rounds']} rounds.",
        "",
    ]
    for case in results["cases"]:
        lines += case_tables(case)
    return "\n".join(lines).rstrip() + "\n"


def measure(arguments: argparse.Namespace) -> dict:
    import dfloat11_size
    import lmzip_baseline
    import numpy as np
    import zipnn_baseline
    from run_codec import make_cases

    arguments.work.mkdir(parents=True, exist_ok=True)
    machine, commit = records.machine(), records.commit(MEASURED_PATHS)
    try:
        cases = [run_case(name, tensors, arguments) for name, tensors in make_cases()]
    finally:
        shutil.rmtree(arguments.work)
    builds = [case.pop("build") for case in cases]
    return {
        "command": f"bench/run-distribution --rounds {arguments.rounds} --max-threads {arguments.max_threads}",
        "date": records.today(),
        "commit": commit,
        "machine": machine,
        "versions": {**builds[0], "zipnn": zipnn_baseline.VERSION, "lmzip": lmzip_baseline.VERSION,
                     "dfloat11": dfloat11_size.VERSION, "numpy": np.__version__,
                     "python": sys.version.split()[0]},  # fmt: skip
        "rounds": arguments.rounds,
        "cases": cases,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", type=Path, help="the codec_bench program")
    parser.add_argument("--work", type=Path, help="folder for the inputs; removed at the end")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--max-threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--tables", action="store_true", help="renew the tables from the results that there are")
    arguments = parser.parse_args()
    if not arguments.tables:
        if arguments.bench is None or arguments.work is None:
            parser.error("--bench and --work are required")
        try:
            results = measure(arguments)
        except (OSError, RuntimeError) as error:
            print(f"run_distribution.py: {error}", file=sys.stderr)
            return 1
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    tables = markdown(json.loads(RESULTS.read_text()))
    records.renew_tables(BEGIN, END, tables)
    print(tables)
    return 0


if __name__ == "__main__":
    sys.exit(main())
