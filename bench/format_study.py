#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Why the runtime format has one palette a row and an exact-size exception stream (docs/FORMAT.md, section 9).

    python3 bench/format_study.py MODEL.safetensors [--out bench/results/format_study.json]

Counts, for the synthetic recipe and for every large matrix of a float32 or BF16 checkpoint rounded to BF16: exceptions
under palettes of 8 exponents shared by a row, 16 rows, a 64 x 64 block or the tensor; and the bits a weight of the
exact-size stream against fixed slots in every tile, or in groups of 2 or 4 tiles, with lists for what overflows, of
which at most 1% of the groups may have one. Needs numpy and safetensors.
"""

import argparse
import json
from collections.abc import Iterator

import numpy as np
from records import commit, today
from safetensors import safe_open

TILE_BITS = 11.0  # sign+mantissa and codes
MOST_OVERFLOW = 0.01  # of the groups: each costs a kernel a dependent read from memory


def to_bf16(x: np.ndarray) -> np.ndarray:
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def synthetic(rows: int, cols: int) -> np.ndarray:
    random = np.random.default_rng(0)
    sigma = 0.02 * 2 ** (0.5 * random.standard_normal(rows))
    return to_bf16(random.standard_normal((rows, cols), dtype=np.float32) * sigma[:, None].astype(np.float32))


def palettes(histograms: np.ndarray) -> np.ndarray:
    """For each histogram, which exponents are among its 8 most frequent."""
    best = np.argsort(-histograms, axis=-1, kind="stable")[:, :8]
    member = np.zeros(histograms.shape, bool)
    np.put_along_axis(member, best, True, axis=-1)
    return member


def histogram(exponents: np.ndarray) -> np.ndarray:
    return np.stack([np.bincount(group, minlength=256) for group in exponents])


def fixed_slots(outside: np.ndarray, group: int) -> float | None:
    """Bits a weight with 16-byte steps of slots for `group` tiles, the fewest that overflow in at most 1% of groups."""
    rows, cols = outside.shape
    if cols % (64 * group):
        return None
    counts = outside.reshape(rows // 16, 16, cols // (64 * group), 64 * group).sum((1, 3)).ravel()
    for steps in range(1, 64 * group):
        overflow = counts > 8 * steps - group  # one unit a tile says how many there are
        if overflow.mean() <= MOST_OVERFLOW:
            extra = np.where(overflow, 8 + 2 * (counts - 8 * steps + group), 0).sum()
            return float(TILE_BITS + (16 * steps * counts.size + extra) * 8 / outside.size)
    return None


def study(name: str, values: np.ndarray) -> dict:
    rows, cols = values.shape[0] // 64 * 64, values.shape[1] // 64 * 64
    e = (values[:rows, :cols] >> 7 & 255).astype(np.uint8)
    by_row = histogram(e)
    total = by_row.sum(0)
    share = total[total > 0] / total.sum()
    row_palettes = palettes(by_row)
    outside = ~np.take_along_axis(row_palettes, e.astype(np.int64), 1)
    strips = palettes(by_row.reshape(-1, 16, 256).sum(1))
    blocks = e.reshape(rows // 64, 64, cols // 64, 64).transpose(0, 2, 1, 3).reshape(-1, 4096)
    stream_bits = TILE_BITS + 16 * outside.mean() + 16 / 1024
    return {
        "name": name,
        "rows": rows,
        "cols": cols,
        "exponent_entropy_bits": float(-(share * np.log2(share)).sum()),
        "distinct_row_palettes": int(len(np.unique(row_palettes, axis=0))),
        "exceptions": {
            "row": float(outside.mean()),
            "16 rows": float(1 - np.take_along_axis(np.repeat(strips, 16, 0), e.astype(np.int64), 1).mean()),
            "64 x 64": float(1 - np.take_along_axis(palettes(histogram(blocks)), blocks.astype(np.int64), 1).mean()),
            "tensor": float(1 - palettes(total[None])[0][e].mean()),
        },
        "bits_per_weight": {
            "stream": float(stream_bits),
            **{f"fixed slots, {g} tiles": fixed_slots(outside, g) for g in (1, 2, 4)},
        },
    }


def studied_tensors(model: str) -> Iterator[tuple[str, np.ndarray]]:
    """The synthetic recipe first, then the checkpoint's large matrices: names and BF16 bit patterns."""
    yield "synthetic 4096 x 4096", synthetic(4096, 4096)
    with safe_open(model, "np") as file:
        for name in file.keys():
            tensor = file.get_tensor(name)
            if tensor.ndim == 2 and min(tensor.shape) >= 64:
                yield name, to_bf16(tensor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--out", default="bench/results/format_study.json")
    args = parser.parse_args()
    tensors = [study(name, values) for name, values in studied_tensors(args.model)]
    result = {"command": "bench/format_study.py", "commit": commit(["bench/format_study.py"]), "date": today(),
              "tensors": tensors}  # fmt: skip
    with open(args.out, "w", encoding="utf-8") as out:
        json.dump(result, out, indent=1)
    trained = tensors[1:]
    print("synthetic", json.dumps(tensors[0], indent=1))
    for scheme in ("row", "16 rows", "64 x 64", "tensor"):
        rates = [t["exceptions"][scheme] for t in trained]
        print(f"trained, palette a {scheme}: {min(rates):.2%} to {max(rates):.2%} exceptions")
    best = sum(t["exceptions"]["row"] <= min(t["exceptions"].values()) for t in trained)
    print(f"a row is best in {best} of {len(trained)}; at most {max(t['distinct_row_palettes'] for t in trained)} palettes")


if __name__ == "__main__":
    main()
