#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints the results of matmul_bench as a Markdown table: matmul_table.py FILE.json

A cell is the time in us and its ratio to the best of cuBLAS, without / with dependent launch.
"""
import json
import sys


def cell(result: dict) -> str:
    def one(key: str) -> str:
        us = result[key]["us"]["median"]
        ratio = result["cublas"]["us"]["median"] / us
        return f"{us:.1f} ({ratio:.2f})" if us < 100 else f"{us:.0f} ({ratio:.2f})"

    return f"{one('ours')} / {one('ours_dependent')}"


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as file:
        results = json.load(file)
    shapes = results["matmul"]
    tokens = [result["tokens"] for result in shapes[0]["cells"]]
    print("| N x K | " + " | ".join(f"M = {count}" for count in tokens) + " |")
    print("|---" * (1 + len(tokens)) + "|")
    for shape in shapes:
        cells = [cell(result) for result in shape["cells"]]
        print(f"| {shape['rows']} x {shape['cols']} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
