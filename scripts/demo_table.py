#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints the table that ends scripts/demo.

usage: demo_table.py WORK_FOLDER CHECKPOINT

Reads compress.json, verify.json, decompress.json and restored.sha256 of WORK_FOLDER. MB and GB are powers of ten.
"""

import json
import sys
from pathlib import Path


def megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.2f} MB"


def size_row(what: str, before: int, after: int) -> str:
    change = 100 * (after / before - 1) if before else 0.0
    return f"  {what:<28}{megabytes(before):>16}{megabytes(after):>16}{change:>10.2f} %"


def time_row(what: str, source_bytes: int, seconds: float, remark: str) -> str:
    return f"  {what:<28}{seconds:>14.2f} s{source_bytes / seconds / 1e9:>11.2f} GB/s   {remark}"


def main() -> int:
    work, checkpoint = Path(sys.argv[1]), Path(sys.argv[2])
    compress, verify, decompress = (
        json.loads((work / f"{name}.json").read_text()) for name in ("compress", "verify", "decompress")
    )
    files = len((work / "restored.sha256").read_text().splitlines())
    if not (compress["finished"] and verify["compared_with_source"]):
        print("the compression is not finished or was not compared with its source", file=sys.stderr)
        return 1

    other = compress["source_bytes"] - compress["blob_value_bytes"]
    other_after = compress["bundle_bytes"] - compress["blob_bytes"]
    print(checkpoint.name)
    print(f"  {'':<28}{'before':>16}{'after':>16}{'change':>12}")
    print(size_row(f"{compress['tensors_blob']} compressed tensors", compress["blob_value_bytes"], compress["blob_bytes"]))
    print(size_row("everything else, headers", other, other_after))
    print(size_row("all files", compress["source_bytes"], compress["bundle_bytes"]))
    if compress["blob_value_bytes"]:
        bits = 16 * compress["blob_bytes"] / compress["blob_value_bytes"]
        print(f"  {'bits a weight':<28}{16:>16.2f}{bits:>16.2f}   compressed tensors, everything counted")
    print()
    source_bytes = compress["source_bytes"]
    checked = "every tensor decoded and compared" if compress["verified"] else "without decoding again"
    print(time_row("compress", source_bytes, compress["seconds"], checked))
    print(time_row("verify --against source", source_bytes, verify["seconds"], "every file compared bit for bit"))
    print(time_row("decompress", source_bytes, decompress["seconds"], "every file's SHA-256 checked"))
    print()
    print(f"  exact: {files} of {files} files restored with the source's SHA-256 (checked again with sha256sum)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
