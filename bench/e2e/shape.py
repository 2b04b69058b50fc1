# SPDX-License-Identifier: Apache-2.0
"""The model that is measured: its extents, and where its weights come from."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

import unweight.torch as uw

BF16 = torch.bfloat16


@dataclass(frozen=True)
class Shape:
    """Extents of a model of the Llama architecture."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    epsilon: float = 1e-5
    rope_theta: float = 500000.0

    @property
    def group(self) -> int:
        """Query heads that share a key and value head."""
        return self.heads // self.kv_heads

    @property
    def qkv_rows(self) -> int:
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """Rows (N) and columns (K) of a layer's matrices, and of the head."""
        return {
            "qkv": (self.qkv_rows, self.hidden),
            "o": (self.hidden, self.heads * self.head_dim),
            "gate_up": (2 * self.intermediate, self.hidden),
            "down": (self.hidden, self.intermediate),
            "head": (self.vocabulary, self.hidden),
        }

    def config(self):
        """For transformers."""
        from transformers import LlamaConfig

        return LlamaConfig(
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            head_dim=self.head_dim,
            vocab_size=self.vocabulary,
            rms_norm_eps=self.epsilon,
            max_position_embeddings=131072,
            rope_parameters={"rope_type": "default", "rope_theta": self.rope_theta},
            tie_word_embeddings=False,
            bos_token_id=1,
            eos_token_id=2,
            attn_implementation="sdpa",
        )


SHAPES = {
    "llama-3.1-8b": Shape(4096, 14336, 32, 32, 8, 128, 128256),
    "tiny": Shape(256, 512, 2, 4, 2, 64, 2048),  # for trying the programs out, not for measuring
}

LAYER_MATRICES = ("qkv", "o", "gate_up", "down")


@dataclass
class Weights:
    """BF16 weights, and the same packed. Every layer has buffers of its own, so that weights are cold in the L2 cache
    when they are read, but only `distinct` layers have different contents."""

    shape: Shape
    dense: dict[str, list[torch.Tensor]]
    packed: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    embedding: torch.Tensor = None  # type: ignore[assignment]
    packed_embedding: torch.Tensor = None  # type: ignore[assignment]
    norms: list[torch.Tensor] = field(default_factory=list)  #: 2 a layer, in order, and the last one

    @property
    def dense_bytes(self) -> int:
        return sum(w.numel() * 2 for all_of in self.dense.values() for w in all_of) + 2 * self.embedding.numel()

    @property
    def packed_bytes(self) -> int:
        return sum(w.numel() for all_of in self.packed.values() for w in all_of) + self.packed_embedding.numel()


def random_matrix(rows: int, cols: int, generator: torch.Generator) -> torch.Tensor:
    """Distributed as trained weights are: normal, sigma 0.02 * 2^(0.5 n) for each row, n normal."""
    device = generator.device
    sigma = 0.02 * torch.exp2(0.5 * torch.randn(rows, 1, device=device, generator=generator))
    made = torch.empty(rows, cols, device=device, dtype=BF16)
    step = 16384
    for begin in range(0, rows, step):
        part = sigma[begin : begin + step]
        made[begin : begin + step] = torch.randn(part.shape[0], cols, device=device, generator=generator) * part
    return made


def synthesise(shape: Shape, device: str, distinct: int = 2, seed: int = 1) -> Weights:
    """Weights of all layers, packed too. The CPU's encoder sees `distinct` layers, the embedding and the head."""
    generator = torch.Generator(device=device).manual_seed(seed)
    weights = Weights(shape, {name: [] for name in shape.matrices}, {name: [] for name in shape.matrices})
    for name, (rows, cols) in shape.matrices.items():
        count = shape.layers if name in LAYER_MATRICES else 1
        for i in range(count):
            if i < distinct:
                weights.dense[name].append(random_matrix(rows, cols, generator))
                weights.packed[name].append(uw.pack(weights.dense[name][i]))
            else:
                weights.dense[name].append(weights.dense[name][i % distinct].clone())
                weights.packed[name].append(weights.packed[name][i % distinct].clone())
    weights.embedding = torch.randn(shape.vocabulary, shape.hidden, device=device, generator=generator).to(BF16)
    weights.packed_embedding = uw.pack(weights.embedding)
    weights.norms = [
        1 + 0.05 * torch.randn(shape.hidden, device=device, generator=generator) for _ in range(2 * shape.layers + 1)
    ]
    weights.norms = [norm.to(BF16) for norm in weights.norms]
    return weights
