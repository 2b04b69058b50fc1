#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks machine code for writes to registers that wgmma may still be reading: wgmma_registers.py SASS...

SASS is the output of `nvdisasm -c`. From every HGMMA whose A operand is in registers, all paths are followed to the
WARPGROUP.DEPBAR that waits for it; no instruction on them may write these registers. ptxas does not see to that across the
back edge of a loop (src/cuda/ptx/wgmma.cuh, wgmma_hold()).
"""
import re
import sys

INSTRUCTION = re.compile(r"/\*([0-9a-f]+)\*/\s+(?:@!?U?P\w+\s+)?(\S+)\s*(.*?)\s*;")
LABEL = re.compile(r"^\s*(\.L\w+):")
NO_RESULT = ("ST", "BAR", "BRA", "BSSY", "BSYNC", "EXIT", "SYNCS", "UTMA", "UBLKCP", "R2UR", "ISETP", "PLOP3", "NOP")
WIDTHS = ((".128", 4), ("M88.4", 4), (".64", 2), ("WIDE", 2), ("CS2R", 2), ("HMMA", 4))


def results(opcode: str, operands: str) -> range:
    """The registers that an instruction writes."""
    if opcode.startswith(NO_RESULT):
        return range(0)
    words = [word.strip() for word in operands.split(",")]
    word = words[1] if opcode.startswith("SHFL") and len(words) > 1 else words[0]
    match = re.match(r"R(\d+)", word)
    if match is None:
        return range(0)
    width = next((count for part, count in WIDTHS if part in opcode), 1)
    return range(int(match[1]), int(match[1]) + width)


def functions(text: str):
    """Yields name, instructions (opcode, operands) and the index that each label stands at."""
    for part in text.split("\n.text.")[1:]:
        name, _, body = part.partition("\n")
        code, labels = [], {}
        for line in body.splitlines():
            if line.startswith("\t.section"):
                break
            if label := LABEL.match(line):
                labels[label[1]] = len(code)
            elif instruction := INSTRUCTION.search(line):
                predicated = "@" in line.split("*/", 1)[1].lstrip()[:2]
                code.append((instruction[2], instruction[3], predicated))
        yield name.rstrip(":"), code, labels


def check(name: str, code: list, labels: dict) -> int:
    products = 0
    for start, (opcode, operands, _) in enumerate(code):
        operand = re.match(r"R\d+, R(\d+), gdesc", operands) if opcode.startswith("HGMMA") else None
        if operand is None:
            continue
        products += 1
        first = int(operand[1])
        read = set(range(first, first + 4))
        # Places in the code, each with how many series of products have ended their list since, this one's included: the
        # last HGMMA of a series has gsb0.
        seen, todo = set(), [(start + 1, "gsb0" in operands)]
        while todo:
            at, series = todo.pop()
            if (at, series) in seen or at >= len(code):
                continue
            seen.add((at, series))
            opcode, operands, predicated = code[at]
            if opcode.startswith("WARPGROUP.DEPBAR") and series > int(operands.split(",")[1], 16):
                continue  # waits for all series but so many
            if opcode.startswith("HGMMA"):
                series = min(series + ("gsb0" in operands), 3)
            if not opcode.startswith("HGMMA") and read.intersection(results(opcode, operands)):
                sys.exit(f"{name}: '{opcode} {operands}' writes what an HGMMA may still read: R{first}..R{first + 3}")
            target = re.search(r"`\((\.L\w+)\)", operands) if opcode.startswith("BRA") else None
            if target is not None:
                todo.append((labels[target[1]], series))
            if not (opcode == "EXIT" and not predicated) and not (opcode == "BRA" and not predicated
                                                                  and "P" not in operands.split("`")[0]):
                todo.append((at + 1, series))
    return products


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    products = 0
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as file:
            for name, code, labels in functions(file.read()):
                products += check(name, code, labels)
    if products == 0:
        sys.exit("no HGMMA with an operand in registers was found")
    print(f"{products} products, none of whose operands is overwritten")


if __name__ == "__main__":
    main()
