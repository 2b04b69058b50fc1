#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Markdown tables from bench/results/codec_cpu.json; run alone, renews those in bench/README.md."""

import json

import records

BEGIN = "<!-- codec tables: made by bench/run-codec -->"
END = "<!-- end of codec tables -->"

DECODE_TARGET = 2.0  # times zipnn, on one thread
ENCODE_TARGET = 1.5


class Case:
    def __init__(self, case: dict):
        self.case = case
        self.by_key = {(entry["name"], entry["threads"]): entry for entry in case["operations"]}
        self.threads = sorted({entry["threads"] for entry in case["operations"]})

    def rate(self, name: str, threads: int = 1) -> float:
        return self.by_key[name, threads]["median_gb_per_s"]

    def cell(self, name: str, threads: int = 1) -> str:
        entry = self.by_key[name, threads]
        size = self.case["values"] * 2 / 1e9
        return f"{entry['median_gb_per_s']:.2f} ({size / entry['max_s']:.2f}..{entry['best_gb_per_s']:.2f})"

    def ratio(self, name: str, baseline: str, target: float | None = None) -> str:
        ours, theirs = self.by_key[name, 1], self.by_key[baseline, 1]
        median = theirs["median_s"] / ours["median_s"]
        text = f"{median:.2f}x (best to best {theirs['min_s'] / ours['min_s']:.2f}x)"
        return text if target is None else f"{text}, target {target}x: {'met' if median >= target else 'MISSED'}"


def case_tables(case: Case) -> list[str]:
    bits = case.case["bits_per_weight"]
    lines = [
        f"### {case.case['name']}",
        "",
        f"{case.case['values'] * 2 / 1e6:.1f} MB of BF16; meanwhile other work used "
        f"{case.case['other_work_cpus']:.2f} CPUs.",
        "",
        "| one thread, GB/s of BF16: median (worst..best) | bits/weight | compress | decompress |",
        "|---|---|---|---|",
        f"| unweight | {bits['unweight']:.3f} | {case.cell('encode')} | {case.cell('decode')} |",
        f"| zipnn | {bits['zipnn']:.3f} | {case.cell('zipnn compress')} | {case.cell('zipnn decompress')} |",
        f"| zstd -3 | {bits['zstd']:.3f} | {case.cell('zstd compress')} | {case.cell('zstd decompress')} |",
        "",
        f"- decode / zipnn decompress: {case.ratio('decode', 'zipnn decompress', DECODE_TARGET)}",
        f"- encode / zipnn compress: {case.ratio('encode', 'zipnn compress', ENCODE_TARGET)}",
        f"- decode / zstd decompress: {case.ratio('decode', 'zstd decompress')}",
        f"- encode / zstd compress: {case.ratio('encode', 'zstd compress')}",
        "",
        "| threads | encode | decode | decode unchecked | encode untouched | decode untouched |",
        "|---|---|---|---|---|---|",
    ]
    operations = ["encode", "decode", "decode unchecked", "encode untouched", "decode untouched"]
    for threads in case.threads:
        scaled = [
            f"{case.cell(name, threads)}, {case.rate(name, threads) / case.rate(name):.2f}x" for name in operations
        ]
        lines.append(f"| {threads} | " + " | ".join(scaled) + " |")
    return lines + [""]


def markdown(results: dict) -> str:
    machine, versions = results["machine"], results["versions"]
    lines = [
        f"Machine: {machine['cpu']}, {machine['cpus']} CPUs, load {machine['load_before']:.2f} before the run. "
        f"{versions['compiler']} ({versions['build_type']}), zipnn {versions['zipnn']}, zstd {versions['zstd_version']}, "
        f"Python {versions['python']}. Commit {results['commit']}, {results['date']}: `{results['command']}`, "
        f"{results['rounds']} rounds.",
        "",
    ]
    for case in results["cases"]:
        lines += case_tables(Case(case))
    return "\n".join(lines).rstrip() + "\n"


def renew(tables: str) -> None:
    records.renew_tables(BEGIN, END, tables)


if __name__ == "__main__":
    renew(markdown(json.loads((records.RESULTS / "codec_cpu.json").read_text())))
