# SPDX-License-Identifier: Apache-2.0
"""The strongest recipe known to us for one token a sequence: fused q/k/v and gate/up, few kernels between, attention
split along the sequence, one CUDA graph a batch size. The linear layers come from outside (linears.py)."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton

from glue import (
    LOG2_E,
    add_norm_kernel,
    argmax_kernel,
    argmax_part_kernel,
    attention_kernel,
    combine_kernel,
    rope_kernel,
    silu_kernel,
)
from linears import MOST_PADDED, Dense, Packed
from shape import BF16, Weights

MOST_SPLITS = 32
ARGMAX_BLOCK = 2048
SILU_BLOCK = 1024


@dataclass(frozen=True)
class Glue:
    """How the kernels between the linear layers run."""

    dependent: bool = False  #: kernels begin while the one before them still runs
    early_attention: bool = True  #: so does attention's, if `dependent`
    keys: int = 64  #: of a step of an attention program
    splits: int = 4  #: parts of a sequence, each by a program of its own
    stages: int = 3  #: steps whose keys and values are on their way


#: (keys, splits) by the number of sequences: the best found for BF16 and 1024 tokens on an H100.
SPLITS = {1: (64, 24), 4: (32, 8), 8: (32, 4), 16: (64, 1), 32: (32, 1), 64: (32, 1)}


class Decoder:
    """Buffers of one batch size, and the step on them.

    :param tokens: of a step; `sequences` for decoding, the length of the one sequence for a prompt
    """

    def __init__(
        self,
        weights: Weights,
        linears: Dense | Packed,
        sequences: int,
        capacity: int,
        *,
        tokens: int | None = None,
    ) -> None:
        self.weights, self.shape, self.linears = weights, weights.shape, linears
        self.sequences, self.capacity, self.tokens = sequences, capacity, tokens or sequences
        self.packed_embedding = False
        keys, splits = SPLITS.get(sequences, (64, 4))
        self.glue = Glue(keys=keys, splits=splits)
        shape, device = self.shape, weights.embedding.device
        self.cuda = device.type == "cuda"
        rows = max(self.tokens, MOST_PADDED)  # of padding: zeros

        def zeros(*extents: int, dtype: torch.dtype = BF16) -> torch.Tensor:
            return torch.zeros(*extents, device=device, dtype=dtype)

        self.ids = zeros(self.tokens, dtype=torch.int64)
        self.position = zeros(self.tokens, dtype=torch.int64)
        self.hidden, self.x = zeros(rows, shape.hidden), zeros(rows, shape.hidden)
        self.query, self.attended = (zeros(rows, shape.heads * shape.head_dim) for _ in range(2))
        self.active = zeros(rows, shape.intermediate)
        cache = (sequences, shape.kv_heads, capacity, shape.head_dim)
        self.keys, self.values = ([zeros(*cache) for _ in range(shape.layers)] for _ in range(2))
        half = shape.head_dim // 2
        frequency = shape.rope_theta ** (-torch.arange(half, device=device, dtype=torch.float32) / half)
        angle = torch.arange(capacity, device=device, dtype=torch.float32)[:, None] * frequency
        self.cosine, self.sine = angle.cos().to(BF16), angle.sin().to(BF16)
        self.parts = zeros(sequences * shape.heads * MOST_SPLITS, shape.head_dim, dtype=torch.float32)
        self.part_stats = zeros(sequences * shape.heads * MOST_SPLITS * 2, dtype=torch.float32)
        self.argmax_parts = triton.cdiv(shape.vocabulary, ARGMAX_BLOCK)
        self.best = zeros(sequences, self.argmax_parts, dtype=torch.float32)
        self.best_at = zeros(sequences, self.argmax_parts, dtype=torch.int32)

    def reset(self, context: int, ids: torch.Tensor | None = None) -> None:
        self.position.fill_(context)
        if ids is not None:
            self.ids.copy_(ids)

    def fill_cache(self, length: int, seed: int = 7) -> None:
        """Random keys and values of `length` tokens."""
        generator = torch.Generator(device=self.ids.device).manual_seed(seed)
        for tensor in (*self.keys, *self.values):
            tensor[:, :, :length].normal_(generator=generator)

    def context(self, length: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """The first keys and values, for another implementation."""
        return [k[:, :, :length] for k in self.keys], [v[:, :, :length] for v in self.values]

    def variant(self, linears: Dense | Packed, glue: Glue, *, packed_embedding: bool = False) -> Decoder:
        """Another way to run on the same buffers."""
        other = copy.copy(self)
        other.linears, other.glue, other.packed_embedding = linears, glue, packed_embedding
        return other

    @property
    def dependent(self) -> bool:
        return self.glue.dependent and self.cuda

    @property
    def launch(self) -> dict[str, bool]:
        return {"launch_pdl": True} if self.dependent else {}

    # ---- the kernels between linear layers --------------------------------------------------------------------------

    def _norm(self, update: torch.Tensor | None, index: int) -> None:
        add_norm_kernel[(self.tokens,)](
            self.hidden,
            self.hidden if update is None else update,
            self.weights.norms[index],
            self.x,
            self.shape.epsilon,
            ADD=update is not None,
            COLS=self.shape.hidden,
            PDL=self.dependent,
            num_warps=8,
            **self.launch,
        )

    def _rope(self, qkv: torch.Tensor, layer: int, per_sequence: int) -> None:
        shape = self.shape
        rope_kernel[(self.tokens, shape.heads + 2 * shape.kv_heads)](
            qkv,
            self.cosine,
            self.sine,
            self.position,
            self.query,
            self.keys[layer],
            self.values[layer],
            self.capacity,
            PER_SEQUENCE=per_sequence,
            HEADS=shape.heads,
            KV_HEADS=shape.kv_heads,
            DIM=shape.head_dim,
            PDL=self.dependent,
            num_warps=1,
            **self.launch,
        )

    def attention(self, layer: int) -> None:
        shape, glue = self.shape, self.glue
        attention_kernel[(self.sequences, shape.kv_heads, glue.splits)](
            self.query,
            self.keys[layer],
            self.values[layer],
            self.position,
            self.attended,
            self.parts,
            self.part_stats,
            self.capacity,
            glue.splits,
            shape.head_dim**-0.5 * LOG2_E,
            KV_HEADS=shape.kv_heads,
            GROUP=shape.group,
            ROWS=16,
            DIM=shape.head_dim,
            KEYS=glue.keys,
            WHOLE=glue.splits == 1,
            PDL=self.dependent,
            INTERPRETED=not self.cuda,
            num_warps=4,
            num_stages=glue.stages,
            **(self.launch if glue.early_attention else {}),
        )
        if glue.splits > 1:
            combine_kernel[(self.sequences * shape.heads,)](
                self.parts,
                self.part_stats,
                self.attended,
                glue.splits,
                DIM=shape.head_dim,
                MOST_SPLITS=MOST_SPLITS,
                PDL=self.dependent,
                num_warps=4,
                **self.launch,
            )

    def _silu(self, gate_up: torch.Tensor) -> None:
        cols = self.shape.intermediate
        silu_kernel[(self.tokens, triton.cdiv(cols, SILU_BLOCK))](
            gate_up, self.active, COLS=cols, BLOCK=SILU_BLOCK, PDL=self.dependent, num_warps=4, **self.launch
        )

    def _argmax(self, logits: torch.Tensor) -> None:
        argmax_part_kernel[(self.sequences, self.argmax_parts)](
            logits,
            self.best,
            self.best_at,
            COLS=self.shape.vocabulary,
            PARTS=self.argmax_parts,
            BLOCK=ARGMAX_BLOCK,
            num_warps=4,
        )
        argmax_kernel[(self.sequences,)](
            self.best,
            self.best_at,
            self.ids,
            self.position,
            PARTS=self.argmax_parts,
            PARTS_POWER=triton.next_power_of_2(self.argmax_parts),
            num_warps=1,
        )

    # ---- the model --------------------------------------------------------------------------------------------------

    def _embed(self) -> None:
        if self.packed_embedding:
            rows = torch.ops.unweight.embedding(self.ids, self.weights.packed_embedding, self.shape.hidden)
        else:
            rows = F.embedding(self.ids, self.weights.embedding)
        self.hidden[: self.tokens].copy_(rows)

    def _layers(self, attend, per_sequence: int) -> None:
        self._embed()
        self._norm(None, 0)
        for layer in range(self.shape.layers):
            qkv = self.linears("qkv", layer, self.x, self.tokens)
            self._rope(qkv, layer, per_sequence)
            attend(layer)
            self._norm(self.linears("o", layer, self.attended, self.tokens), 2 * layer + 1)
            self._silu(self.linears("gate_up", layer, self.x, self.tokens))
            self._norm(self.linears("down", layer, self.active, self.tokens), 2 * layer + 2)

    def step(self) -> torch.Tensor:
        """The next token of every sequence, into `ids`; returns the logits."""
        self._layers(self.attention, 1)
        logits = self.linears("head", 0, self.x, self.tokens)[: self.tokens]
        self._argmax(logits)
        return logits

    def only_linears(self) -> torch.Tensor:
        """The linear layers of a step, to tell what share they have of it."""
        for layer in range(self.shape.layers):
            self.linears("qkv", layer, self.x, self.tokens)
            self.linears("o", layer, self.attended, self.tokens)
            self.linears("gate_up", layer, self.x, self.tokens)
            self.linears("down", layer, self.active, self.tokens)
        return self.linears("head", 0, self.x, self.tokens)

    def prompt(self) -> torch.Tensor:
        """The logits of the token after the one sequence whose tokens are `ids`."""
        shape, tokens = self.shape, self.tokens

        def attend(layer: int) -> None:
            query = self.query[:tokens].view(1, tokens, shape.heads, shape.head_dim).transpose(1, 2)
            found = F.scaled_dot_product_attention(
                query,
                self.keys[layer][:, :, :tokens],
                self.values[layer][:, :, :tokens],
                is_causal=True,
                enable_gqa=True,
            )
            self.attended[:tokens].copy_(found.transpose(1, 2).reshape(tokens, -1))

        self._layers(attend, 0)
        return self.linears("head", 0, self.x[tokens - 1 : tokens], 1)
