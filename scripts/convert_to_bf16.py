#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Converts the float32 tensors of a model folder to BF16, rounding to nearest even; all else is copied unchanged.

usage: convert_to_bf16.py SOURCE_FOLDER NEW_FOLDER

This step loses information (it drops the 16 low bits of every float32) and is no part of compression: unweight takes
BF16 checkpoints as they are. It exists so that a small float32 model can serve as a sample.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np


def round_to_bf16(values: np.ndarray) -> np.ndarray:
    """float32 bit patterns (uint32) to BF16 bit patterns (uint16): nearest, ties to even; NaNs stay NaNs."""
    rounded = (values + (((values >> 16) & 1) + np.uint32(0x7FFF))) >> 16
    is_nan = (values & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    quiet_nan = (values >> 16) | np.uint32(0x0040)
    return np.where(is_nan, quiet_nan, rounded).astype("<u2")


def convert_file(source: Path, target: Path) -> int:
    """Converts one safetensors file; returns the number of weights that were converted."""
    data = source.read_bytes()
    header_bytes = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + header_bytes])
    body = memoryview(data)[8 + header_bytes :]

    metadata = header.pop("__metadata__", None)
    new_header = {} if metadata is None else {"__metadata__": metadata}
    pieces = []
    offset = 0
    converted = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        piece = bytes(body[begin:end])
        if entry["dtype"] == "F32":
            piece = round_to_bf16(np.frombuffer(piece, dtype="<u4")).tobytes()
            entry["dtype"] = "BF16"
            converted += len(piece) // 2
        entry["data_offsets"] = [offset, offset + len(piece)]
        offset += len(piece)
        new_header[name] = entry
        pieces.append(piece)

    text = json.dumps(new_header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with target.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        out.writelines(pieces)
    return converted


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__.strip(), file=sys.stderr)
        return 1
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    if not source.is_dir():
        print(f"{source}: not a folder", file=sys.stderr)
        return 1
    if target.exists():
        print(f"{target}: exists already", file=sys.stderr)
        return 1
    converted = 0
    for path in sorted(source.rglob("*")):
        new_path = target / path.relative_to(source)
        if path.is_dir():
            new_path.mkdir(parents=True)
            continue
        new_path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            converted += convert_file(path, new_path)
        else:
            shutil.copyfile(path, new_path)
    print(f"{converted} weights rounded from float32 to BF16")
    return 0


if __name__ == "__main__":
    sys.exit(main())
