# SPDX-License-Identifier: Apache-2.0
"""Triton kernels for everything but the linear layers, of one decoding step: what both the BF16 recipe and the packed
one run, so that they differ in their linear layers alone.

With PDL, a kernel lets the next one of its stream begin at once, and waits for the end of the one before it ahead of
its first access to what that one wrote (programmatic dependent launch).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

LOG2_E = 1.4426950408889634


@triton.jit
def _begin(PDL: tl.constexpr):
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()


@triton.jit
def add_norm_kernel(hidden, update, scale, out, epsilon, ADD: tl.constexpr, COLS: tl.constexpr, PDL: tl.constexpr):
    """hidden += update; out = hidden / rms(hidden) * scale, with the roundings of transformers' LlamaRMSNorm."""
    col = tl.arange(0, COLS)
    at = tl.program_id(0) * COLS + col
    weight = tl.load(scale + col).to(tl.float32)  # constant: before the wait
    _begin(PDL)
    value = tl.load(hidden + at)
    if ADD:
        value = (value.to(tl.float32) + tl.load(update + at).to(tl.float32)).to(tl.bfloat16)
        tl.store(hidden + at, value)
    wide = value.to(tl.float32)
    normal = wide * (1.0 / tl.sqrt(tl.sum(wide * wide, axis=0) / COLS + epsilon))
    tl.store(out + at, (normal.to(tl.bfloat16).to(tl.float32) * weight).to(tl.bfloat16))


@triton.jit
def rope_kernel(
    qkv,
    cosine,
    sine,
    position,
    query,
    keys,
    values,
    capacity,
    PER_SEQUENCE: tl.constexpr,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    DIM: tl.constexpr,
    PDL: tl.constexpr,
):
    """Rotates queries and keys; queries to `query`, keys and values to the cache [batch, kv head, capacity, DIM].

    A program is one head of one token. PER_SEQUENCE: 1 where each token is of another sequence, 0 where all are of one.
    """
    HALF: tl.constexpr = DIM // 2
    token, head = tl.program_id(0), tl.program_id(1)
    half = tl.arange(0, HALF)
    _begin(PDL)
    place = tl.load(position + token)
    sequence = token * PER_SEQUENCE
    source = qkv + (token * (HEADS + 2 * KV_HEADS) + head) * DIM + half
    first, second = tl.load(source), tl.load(source + HALF)
    if head >= HEADS + KV_HEADS:
        to = values + ((sequence * KV_HEADS + head - HEADS - KV_HEADS) * capacity + place) * DIM + half
        tl.store(to, first)
        tl.store(to + HALF, second)
    else:
        c = tl.load(cosine + place * HALF + half).to(tl.float32)
        s = tl.load(sine + place * HALF + half).to(tl.float32)
        a, b = first.to(tl.float32), second.to(tl.float32)
        to = query + (token * HEADS + head) * DIM + half
        if head >= HEADS:
            to = keys + ((sequence * KV_HEADS + head - HEADS) * capacity + place) * DIM + half
        tl.store(to, (a * c - b * s).to(tl.bfloat16))
        tl.store(to + HALF, (b * c + a * s).to(tl.bfloat16))


@triton.jit(do_not_specialize=["splits"])
def attention_kernel(
    query,
    keys,
    values,
    position,
    out,
    part_sums,
    part_stats,
    capacity,
    splits,
    scale,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    DIM: tl.constexpr,
    KEYS: tl.constexpr,
    WHOLE: tl.constexpr,
    PDL: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """One token's attention: a program has all query heads of one key and value head, and one of `splits` parts of
    the sequence, which combine_kernel adds up. `scale` includes log2(e): exponentials are powers of 2. INTERPRETED:
    Triton's interpreter, on the CPU, cannot multiply matrices of bfloat16."""
    sequence, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row, dim, key = tl.arange(0, ROWS), tl.arange(0, DIM), tl.arange(0, KEYS)
    _begin(PDL)
    length = (tl.load(position + sequence) + 1).to(tl.int32)
    share = tl.cdiv(tl.cdiv(length, splits), 16) * 16
    begin = split * share
    end = tl.minimum(begin + share, length)
    head = (sequence * KV_HEADS + kv_head) * GROUP + row
    q = tl.load(query + head[:, None] * DIM + dim[None, :], mask=row[:, None] < GROUP, other=0.0)
    if INTERPRETED:
        q = q.to(tl.float32)
    cache = (sequence * KV_HEADS + kv_head).to(tl.int64) * capacity * DIM
    largest = tl.full([ROWS], -1e30, tl.float32)
    weight_sum = tl.zeros([ROWS], tl.float32)
    sums = tl.zeros([ROWS, DIM], tl.float32)
    for at in range(begin, end, KEYS):
        index = at + key
        inside = index < end
        k = tl.load(keys + cache + index[:, None] * DIM + dim[None, :], mask=inside[:, None], other=0.0)
        if INTERPRETED:
            k = k.to(tl.float32)
        score = tl.where(inside[None, :], tl.dot(q, tl.trans(k)) * scale, -1e30)
        higher = tl.maximum(largest, tl.max(score, 1))
        weight = tl.exp2(score - higher[:, None])
        shrink = tl.exp2(largest - higher)
        weight_sum = weight_sum * shrink + tl.sum(weight, 1)
        v = tl.load(values + cache + index[:, None] * DIM + dim[None, :], mask=inside[:, None], other=0.0)
        rounded = weight.to(tl.bfloat16)
        if INTERPRETED:
            v = v.to(tl.float32)
            rounded = rounded.to(tl.float32)
        sums = sums * shrink[:, None] + tl.dot(rounded, v)
        largest = higher
    if WHOLE:
        tl.store(
            out + head[:, None] * DIM + dim[None, :],
            (sums / weight_sum[:, None]).to(tl.bfloat16),
            mask=row[:, None] < GROUP,
        )
    else:
        part = head * splits + split
        tl.store(part_sums + part[:, None] * DIM + dim[None, :], sums, mask=row[:, None] < GROUP)
        tl.store(part_stats + part * 2, largest, mask=row < GROUP)
        tl.store(part_stats + part * 2 + 1, weight_sum, mask=row < GROUP)


@triton.jit(do_not_specialize=["splits"])
def combine_kernel(part_sums, part_stats, out, splits, DIM: tl.constexpr, MOST_SPLITS: tl.constexpr, PDL: tl.constexpr):
    """Adds up the parts of one head."""
    head = tl.program_id(0)
    part, dim = tl.arange(0, MOST_SPLITS), tl.arange(0, DIM)
    _begin(PDL)
    there = part < splits
    largest = tl.load(part_stats + (head * splits + part) * 2, mask=there, other=-1e30)
    weight_sum = tl.load(part_stats + (head * splits + part) * 2 + 1, mask=there, other=0.0)
    factor = tl.exp2(largest - tl.max(largest, 0))
    sums = tl.load(part_sums + (head * splits + part[:, None]) * DIM + dim[None, :], mask=there[:, None], other=0.0)
    value = tl.sum(sums * factor[:, None], 0) / tl.sum(weight_sum * factor, 0)
    tl.store(out + head * DIM + dim, value.to(tl.bfloat16))


@triton.jit
def silu_kernel(gate_up, out, COLS: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr):
    """silu(gate) * up, of rows [gate, up]."""
    token = tl.program_id(0)
    col = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = col < COLS
    _begin(PDL)
    gate = tl.load(gate_up + token * 2 * COLS + col, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + token * 2 * COLS + COLS + col, mask=inside, other=0.0).to(tl.float32)
    active = (gate * tl.sigmoid(gate)).to(tl.bfloat16).to(tl.float32)
    tl.store(out + token * COLS + col, (active * up).to(tl.bfloat16), mask=inside)


@triton.jit
def argmax_part_kernel(logits, best, best_at, COLS: tl.constexpr, PARTS: tl.constexpr, BLOCK: tl.constexpr):
    """The highest logit of a block of the vocabulary."""
    token, part = tl.program_id(0), tl.program_id(1)
    col = part * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(logits + token.to(tl.int64) * COLS + col, mask=col < COLS, other=-float("inf")).to(tl.float32)
    highest, index = tl.max(value, 0, return_indices=True)
    tl.store(best + token * PARTS + part, highest)
    tl.store(best_at + token * PARTS + part, index + part * BLOCK)


@triton.jit
def argmax_kernel(best, best_at, ids, position, PARTS: tl.constexpr, PARTS_POWER: tl.constexpr):
    """The highest of a token's parts: the next token; and one place further."""
    token = tl.program_id(0)
    part = tl.arange(0, PARTS_POWER)
    value = tl.load(best + token * PARTS + part, mask=part < PARTS, other=-float("inf"))
    _, index = tl.max(value, 0, return_indices=True)
    tl.store(ids + token, tl.load(best_at + token * PARTS + index).to(tl.int64))
    tl.store(position + token, tl.load(position + token) + 1)


@triton.jit
def gemv_kernel(x, weight, y, COLS: tl.constexpr, ROW_BLOCK: tl.constexpr, COL_BLOCK: tl.constexpr):
    """y = W x for one token, W in BF16: the best known kernel for it on a GPU whose cuBLAS is not."""
    row = tl.program_id(0) * ROW_BLOCK + tl.arange(0, ROW_BLOCK)
    col = tl.arange(0, COL_BLOCK)
    sums = tl.zeros([ROW_BLOCK, COL_BLOCK], tl.float32)
    source = weight + row.to(tl.int64)[:, None] * COLS + col[None, :]
    for begin in range(0, COLS, COL_BLOCK):
        w = tl.load(source + begin, eviction_policy="evict_first").to(tl.float32)
        sums += w * tl.load(x + begin + col).to(tl.float32)[None, :]
    tl.store(y + row, tl.sum(sums, 1).to(tl.bfloat16))


#: Rows and columns of a program's block, and warps.
GEMV_BLOCKS = ((1, 2048, 4), (2, 1024, 4), (4, 512, 4), (2, 2048, 8), (8, 512, 8))


def gemv(x: torch.Tensor, weight: torch.Tensor, block: tuple[int, int, int]) -> torch.Tensor:
    rows, cols = weight.shape
    y = torch.empty(1, rows, device=x.device, dtype=x.dtype)
    gemv_kernel[(rows // block[0],)](
        x, weight, y, COLS=cols, ROW_BLOCK=block[0], COL_BLOCK=block[1], num_warps=block[2]
    )
    return y


def gemv_fits(weight: torch.Tensor, block: tuple[int, int, int]) -> bool:
    return weight.shape[0] % block[0] == 0 and weight.shape[1] % block[1] == 0
