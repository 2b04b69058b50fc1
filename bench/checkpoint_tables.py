#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Markdown tables from bench/results/checkpoint_*.json; run alone, renews those in bench/README.md."""

import json

import records

BEGIN = "<!-- checkpoint tables: made by bench/run-checkpoint -->"
END = "<!-- end of checkpoint tables -->"

STEPS = {
    "synth": "write the synthetic checkpoint",
    "compress": "compress, every tensor decoded and compared",
    "verify": "verify --against the source",
    "decompress": "decompress, SHA-256 of every file checked",
}


def checkpoint_lines(result: dict) -> list[str]:
    machine, tensors = result["machine"], result["tensors"]
    mib = 1 << 20
    lines = [
        f"### {result['model']}",
        "",
        f"{result['source_bytes'] / 1e9:.3f} GB became {result['bundle_bytes'] / 1e9:.3f} GB "
        f"({100 * result['ratio']:.2f}%): {tensors['blob']} tensors compressed to {result['bits_per_weight']:.3f} "
        f"bits/weight, {tensors['raw']} raw, {tensors['alias']} duplicates. All {result['sha256_identical_files']} "
        "restored files have the source's SHA-256, computed with `sha256sum`.",
        "",
        f"Machine: {machine['cpu']}, {machine['cpus']} CPUs, load {machine['load_before']:.2f} before the run. Commit "
        f"{result['commit']}, {result['date']}: `{result['command']}`. Peak memory may be 512 MiB and twice the largest "
        f"tensor, which has {result['largest_tensor_bytes'] / mib:.0f} MiB: "
        f"{result['memory_limit_bytes'] / mib:.0f} MiB.",
        "",
        "| step | seconds | CPU seconds | GB/s | peak memory, MiB |",
        "|---|---|---|---|---|",
    ]
    for name, step in result["steps"].items():
        held = {True: ", within the limit", False: ", ABOVE THE LIMIT", None: ""}[step.get("within_memory_limit")]
        lines.append(
            f"| {STEPS[name]} | {step['wall_s']:.1f} | {step['user_s'] + step['system_s']:.1f} "
            f"| {step['gb_per_s']:.2f} | {step['peak_rss_bytes'] / mib:.0f}{held} |"
        )
    return lines + [""]


def markdown(results: list[dict]) -> str:
    lines = [line for result in results for line in checkpoint_lines(result)]
    return "\n".join(lines).rstrip() + "\n"


def renew() -> None:
    results = [json.loads(path.read_text()) for path in records.RESULTS.glob("checkpoint_*.json")]
    results.sort(key=lambda result: -result["source_bytes"])
    records.renew_tables(BEGIN, END, markdown(results))


if __name__ == "__main__":
    renew()
