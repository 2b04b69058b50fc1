# SPDX-License-Identifier: Apache-2.0
"""How many bytes DFloat11 takes, computed: its packages need a GPU.

What dfloat11 0.5.0 stores for a group of tensors (DFloat11, arXiv 2504.11651): one byte of sign and mantissa for each
value; the exponents' Huffman codes; for each 8 bytes of them a gap of 5 bits, for each 512 * 8 bytes a position of 4
bytes; and tables of 256 bytes, one for each byte-long prefix of a code, and the lengths. The model is taken as one group,
which has the fewest tables, and without the names and headers of files: both in DFloat11's favour.
"""

import heapq

import numpy as np

VERSION = "0.5.0"

_BYTES_PER_THREAD = 8
_THREADS_PER_BLOCK = 512
_GAP_BITS = 5
_TABLE_BYTES = 256


def huffman_codes(counts: dict[int, int]) -> dict[int, str]:
    heap = [(count, order, {symbol: ""}) for order, (symbol, count) in enumerate(sorted(counts.items()))]
    heapq.heapify(heap)
    order = len(heap)
    while len(heap) > 1:
        low, high = heapq.heappop(heap), heapq.heappop(heap)
        merged = {symbol: "0" + code for symbol, code in low[2].items()}
        merged |= {symbol: "1" + code for symbol, code in high[2].items()}
        heapq.heappush(heap, (low[0] + high[0], order, merged))
        order += 1
    return {symbol: code or "0" for symbol, code in heap[0][2].items()}


def compressed_bytes(values: bytes) -> int:
    exponents = np.frombuffer(values, "<u2") >> 7 & 255
    counts = {int(symbol): int(count) for symbol, count in enumerate(np.bincount(exponents, minlength=256)) if count}
    codes = huffman_codes(counts)
    code_bytes = -(-sum(counts[symbol] * len(code) for symbol, code in codes.items()) // 8)
    threads_bytes = _BYTES_PER_THREAD * _THREADS_PER_BLOCK
    blocks = -(-code_bytes // threads_bytes)
    gap_bytes = blocks * _THREADS_PER_BLOCK * _GAP_BITS // 8
    position_bytes = 4 * (blocks + 1)
    prefixes = {code[: (len(code) - 1) // 8 * 8] for code in codes.values()} | {""}
    table_bytes = _TABLE_BYTES * (len(prefixes) + 1)
    return exponents.size + code_bytes + gap_bytes + position_bytes + table_bytes
