#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""BF16 matrix times one vector in Triton, the best of several block sizes: what uncompressed weights cost at one token.

    triton_gemv.py [--json FILE] [--commit C] [NxK ...]

Weights rotate through at least 400 MB, launches are replayed from a graph, times are medians of 21 replays.
Needs a GPU, PyTorch and Triton.
"""
import argparse
import itertools
import json
import math
import re
import statistics
import sys

import torch
import triton
import triton.language as tl

ROTATED_BYTES = 400e6
REPLAYS = 21
SHAPES = ["4096x4096", "6144x4096", "4096x14336", "28672x4096", "128256x4096", "57344x8192", "8192x28672"]


@triton.jit
def gemv(w, x, y, k, rows: tl.constexpr, cols: tl.constexpr):
    """y[n] = sum of w[n, :] * x in float32, `rows` outputs a program. k is a multiple of `cols`."""
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    col = tl.arange(0, cols)
    sums = tl.zeros((rows, cols), tl.float32)
    for begin in range(0, k, cols):
        weights = tl.load(w + row[:, None].to(tl.int64) * k + begin + col[None, :], eviction_policy="evict_first")
        sums += weights.to(tl.float32) * tl.load(x + begin + col)[None, :].to(tl.float32)
    tl.store(y + row, tl.sum(sums, 1).to(tl.bfloat16))


def time_us(launch, count: int) -> list[float]:
    """Times of one launch: a graph of `count` of them, replayed."""
    launch(0)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for turn in range(count):
            launch(turn)
    times = []
    for replay in range(REPLAYS + 1):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        if replay > 0:  # the first warms up
            times.append(begin.elapsed_time(end) * 1e3 / count)
    return times


def measure(rows: int, cols: int) -> dict:
    torch.manual_seed(1)
    copies = max(2, math.ceil(ROTATED_BYTES / (2 * rows * cols)))
    sigma = 0.02 * 2 ** (0.5 * torch.randn(rows, 1, device="cuda"))
    first = (torch.randn(rows, cols, device="cuda") * sigma).bfloat16()
    weights = [first] + [first.clone() for _ in range(copies - 1)]
    x = torch.randn(cols, device="cuda").bfloat16()
    y = torch.empty(rows, device="cuda", dtype=torch.bfloat16)
    expected = torch.cat([part.double() @ x.double() for part in first.split(8192)])
    best = None
    for block_rows, block_cols, warps in itertools.product((1, 2, 4, 8), (512, 1024, 2048, 4096), (2, 4, 8)):
        if cols % block_cols or rows % block_rows or not 16 <= block_rows * block_cols // (32 * warps) <= 64:
            continue

        def launch(turn, block_rows=block_rows, block_cols=block_cols, warps=warps):
            gemv[(rows // block_rows,)](
                weights[turn % copies], x, y, cols, rows=block_rows, cols=block_cols, num_warps=warps
            )

        y.zero_()
        launch(0)
        error = ((y.double() - expected).norm() / expected.norm()).item()
        if not error < 1e-2:
            sys.exit(f"{rows} x {cols}: relative error {error}")
        times = time_us(launch, max(copies, 20))
        result = {
            "median": statistics.median(times),
            "min": min(times),
            "max": max(times),
            "block": [block_rows, block_cols],
            "warps": warps,
            "relative_error": error,
        }
        if best is None or result["median"] < best["median"]:
            best = result
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="file to write")
    parser.add_argument("--commit", default="unknown")
    parser.add_argument("shapes", nargs="*", default=SHAPES, metavar="NxK")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("triton_gemv.py needs a GPU")
    results = {
        "command": "triton_gemv.py " + " ".join(arguments.shapes),
        "commit": arguments.commit,
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "us": {},
    }
    for shape in arguments.shapes:
        match = re.fullmatch(r"(\d+)x(\d+)", shape)
        if match is None:
            sys.exit(f"not a shape NxK: {shape}")
        best = measure(int(match[1]), int(match[2]))
        torch.cuda.empty_cache()
        results["us"][shape] = best
        print(f"{shape}: {best['median']:.2f} us, {best['block'][0]} x {best['block'][1]}, {best['warps']} warps")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    main()
