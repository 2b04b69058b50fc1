#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints what a plan file says in Markdown.

    plan_table.py PLAN.json                    cuBLAS's time by that of the best choice for compressed weights
    plan_table.py QUICK.json EXHAUSTIVE.json   what a quick search missed

A cell of the first is without / with dependent launch; `*` marks a decode before cuBLASLt. The second needs an exhaustive
plan that was made with the quick one as --incumbent, so that the quick one's choices were timed in the same rounds.
"""
import json
import sys

LLAMA_LAYER = ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336))


def read(name: str) -> dict:
    """Cells of tiled weights by shape and number of tokens."""
    with open(name, encoding="utf-8") as file:
        weights = json.load(file)["weights"]
    return {
        (weight["rows"], weight["cols"]): {cell["tokens"]: cell for cell in weight["cells"]}
        for weight in weights
        if weight["layout"] == "tiled"
    }


def best(cell: dict, kind: str) -> dict:
    """The fastest of a list; who may launch dependently need not."""
    return min(cell[kind] + (cell["isolated"] if kind == "dependent" else []), key=lambda one: one["us"])


def ratios(cublas_us: float, isolated_us: float, dependent_us: float, mark: str = "") -> str:
    return f"{cublas_us / isolated_us:.2f} / {cublas_us / dependent_us:.2f}{mark}"


def print_speed_ups(plan: dict) -> None:
    tokens = sorted({count for cells in plan.values() for count in cells})
    print("| N x K | " + " | ".join(map(str, tokens)) + " |")
    print("|---" * (1 + len(tokens)) + "|")
    for (rows, cols), cells in plan.items():
        words = []
        for count in tokens:
            cell = cells.get(count)
            if cell is None:
                words.append("")
                continue
            isolated, dependent = best(cell, "isolated"), best(cell, "dependent")
            mark = "*" if isolated["pipeline"] == "decoded" else ""
            words.append(ratios(cell["cublas_us"], isolated["us"], dependent["us"], mark))
        print(f"| {rows} x {cols} | " + " | ".join(words) + " |")
    if not all(shape in plan for shape in LLAMA_LAYER):
        return
    words = []
    for count in tokens:
        cells = [plan[shape][count] for shape in LLAMA_LAYER if count in plan[shape]]
        times = [
            sum(cell["cublas_us"] for cell in cells),
            sum(best(cell, "isolated")["us"] for cell in cells),
            sum(best(cell, "dependent")["us"] for cell in cells),
        ]
        words.append(ratios(*times) if len(cells) == len(LLAMA_LAYER) else "")
    print("| a layer of Llama-3.1-8B | " + " | ".join(words) + " |")


def same_choice(one: dict, other: dict) -> bool:
    return all(one.get(key) == other.get(key) for key in ("pipeline", "config", "algorithm"))


def print_missed(quick: dict, exhaustive: dict) -> None:
    print("| N x K | tokens | launch | missed | cuBLAS by the quick choice |")
    print("|---|---|---|---|---|")
    worst, least = 0.0, float("inf")
    for (rows, cols), cells in quick.items():
        for count, cell in cells.items():
            found = exhaustive[rows, cols][count]
            for kind in ("isolated", "dependent"):
                timed = [one for one in found[kind] if same_choice(one, cell[kind][0])]
                if not timed:
                    sys.exit(f"{rows} x {cols}, {count} tokens, {kind}: the quick plan's choice was not timed again")
                missed = timed[0]["us"] / min(one["us"] for one in found[kind]) - 1
                ratio = found["cublas_us"] / timed[0]["us"]
                worst, least = max(worst, missed), min(least, ratio)
                print(f"| {rows} x {cols} | {count} | {kind} | {100 * missed:.1f}% | {ratio:.2f} |")
    print(f"\nat most {100 * worst:.1f}% missed; at least {least:.2f} of cuBLAS")


def main() -> None:
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    plans = [read(name) for name in sys.argv[1:]]
    if len(plans) == 1:
        print_speed_ups(plans[0])
    else:
        print_missed(*plans)


if __name__ == "__main__":
    main()
