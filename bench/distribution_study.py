#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What contexts are worth to an entropy coder of BF16 weights: groundwork for the distribution form.

    python3 bench/distribution_study.py MODEL.safetensors [--out bench/results/distribution_study.json]

A symbol is the exponent and the first `mantissa_bits` bits of the mantissa; sign and the other bits are stored as they
are. The context is the row's scale, the mean magnitude of its values: the exponent is coded relative to the scale's
whole octave, with one of `classes` frequency tables for the fraction, so that rows of any scale share tables. Bits a
weight are those of an ideal coder with exact frequencies, and with frequencies of 12 bits; tables, states and indices
of a real format come on top. For the synthetic recipe and for the large matrices of a checkpoint, rounded to BF16.
Needs numpy and safetensors.
"""

import argparse
import json

import numpy as np
from format_study import studied_tensors
from records import commit, today

FREQUENCY_BITS = 12
MANTISSA_BITS = (0, 1, 2, 3)
CLASSES = (1, 2, 4, 8, 16)


def ideal_bits(counts: np.ndarray) -> float:
    present = counts[counts > 0].astype(float)
    return float(-(present * np.log2(present / present.sum())).sum())


def quantized_bits(counts: np.ndarray) -> float:
    """With frequencies that are multiples of 2^-12, none of them 0: rounded, then the error taken from the largest."""
    present = counts[counts > 0].astype(float)
    total = 1 << FREQUENCY_BITS
    frequencies = np.maximum(1, np.round(present / present.sum() * total))
    order = np.argsort(-present)
    excess = int(frequencies.sum()) - total
    for i in order:
        step = int(min(max(excess, -total), frequencies[i] - 1))
        frequencies[i] -= step
        excess -= step
        if excess == 0:
            break
    return float(-(present * np.log2(frequencies / total)).sum())


def study(name: str, values: np.ndarray) -> dict:
    exponent, mantissa = (values >> 7 & 255).astype(np.int32), (values & 127).astype(np.int32)
    magnitude = np.abs((values.astype(np.uint32) << 16).view(np.float32)).mean(1, dtype=np.float64)
    scale = np.log2(np.maximum(magnitude, 2.0**-126))
    cells = []
    for bits in MANTISSA_BITS:
        raw_bits = 8 - bits  # sign and the rest of the mantissa
        leading = mantissa >> (7 - bits)
        whole = ideal_bits(np.bincount((exponent << bits | leading).ravel()))
        cells.append({"mantissa_bits": bits, "classes": 0, "ideal": raw_bits + whole / values.size})
        for classes in CLASSES:
            position = np.round(scale * classes).astype(np.int64)
            octave, fraction = np.divmod(position, classes)
            # Relative exponents of one tensor lie close together; the offset keeps them positive.
            symbols = np.clip(exponent - octave[:, None] + 64, 0, 511) << bits | leading
            ideal = quantized = 0.0
            for c in np.unique(fraction):
                counts = np.bincount(symbols[fraction == c].ravel())
                ideal += ideal_bits(counts)
                quantized += quantized_bits(counts)
            cells.append({"mantissa_bits": bits, "classes": classes, "ideal": raw_bits + ideal / values.size,
                          "frequencies_12_bits": raw_bits + quantized / values.size})
    return {"name": name, "rows": values.shape[0], "cols": values.shape[1], "bits_per_weight": cells}


def weighted_mean(tensors: list[dict]) -> list[dict]:
    sizes = np.array([t["rows"] * t["cols"] for t in tensors], float)
    cells = []
    for i, cell in enumerate(tensors[0]["bits_per_weight"]):
        mean = {key: float(np.average([t["bits_per_weight"][i][key] for t in tensors], weights=sizes))
                for key in ("ideal", "frequencies_12_bits") if key in cell}
        cells.append({**cell, **mean})
    return cells


def print_table(title: str, cells: list[dict]) -> None:
    print(f"\n{title}\nmantissa bits | no context | " + " | ".join(f"{c} classes" for c in CLASSES))
    for bits in MANTISSA_BITS:
        row = [c for c in cells if c["mantissa_bits"] == bits]
        figures = [f"{c.get('frequencies_12_bits', c['ideal']):.3f}" for c in row]
        print(f"{bits} | " + " | ".join(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--out", default="bench/results/distribution_study.json")
    arguments = parser.parse_args()
    tensors = [study(name, values) for name, values in studied_tensors(arguments.model)]
    trained = weighted_mean(tensors[1:])
    result = {"command": "bench/distribution_study.py", "commit": commit(["bench/distribution_study.py"]),
              "date": today(), "trained_mean": trained, "tensors": tensors}
    with open(arguments.out, "w", encoding="utf-8") as out:
        json.dump(result, out, indent=1)
    print_table("synthetic", tensors[0]["bits_per_weight"])
    print_table(f"trained, mean of {len(tensors) - 1} matrices by size", trained)


if __name__ == "__main__":
    main()
