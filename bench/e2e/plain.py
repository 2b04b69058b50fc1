# SPDX-License-Identifier: Apache-2.0
"""transformers' own model of the same weights, in BF16 or packed: static cache, torch.compile, CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from transformers import DynamicCache, LlamaForCausalLM, StaticCache
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

import unweight.torch as uw

from shape import BF16, Weights

#: Fused layers' names in the model, their parts, and the matrix of Weights.
_FUSED = (
    ("self_attn", "qkv_proj_packed", ("q_proj", "k_proj", "v_proj"), "qkv"),
    ("mlp", "gate_up_proj_packed", ("gate_proj", "up_proj"), "gate_up"),
)


def _frozen(weight: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(weight, requires_grad=False)


def build(weights: Weights, *, packed: bool) -> LlamaForCausalLM:
    """A model that shares the memory of `weights`."""
    shape, config = weights.shape, weights.shape.config()
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(BF16).eval()
    model.model.rotary_emb = LlamaRotaryEmbedding(config).to(weights.embedding.device)
    for i, layer in enumerate(model.model.layers):
        layer.input_layernorm.weight = _frozen(weights.norms[2 * i])
        layer.post_attention_layernorm.weight = _frozen(weights.norms[2 * i + 1])
        for parent_name, fused_name, members, matrix in _FUSED:
            _place_group(getattr(layer, parent_name), fused_name, members, weights, matrix, i, packed)
        for parent, member, matrix in ((layer.self_attn, "o_proj", "o"), (layer.mlp, "down_proj", "down")):
            _place(parent, member, weights, matrix, i, packed)
    model.model.norm.weight = _frozen(weights.norms[-1])
    _place(model, "lm_head", weights, "head", 0, packed)
    if packed:
        model.model.embed_tokens = uw.Embedding(shape.vocabulary, shape.hidden, weights.packed_embedding)
    else:
        model.model.embed_tokens.weight = _frozen(weights.embedding)
    return model


def _place(parent: nn.Module, member: str, weights: Weights, matrix: str, i: int, packed: bool) -> None:
    rows, cols = weights.shape.matrices[matrix]
    if packed:
        setattr(parent, member, uw.Linear(cols, rows, weights.packed[matrix][i]))
    else:
        getattr(parent, member).weight = _frozen(weights.dense[matrix][i])


def _place_group(
    parent: nn.Module, fused_name: str, members: tuple[str, ...], weights: Weights, matrix: str, i: int, packed: bool
) -> None:
    parts = [getattr(parent, member).out_features for member in members]
    if packed:
        fused = uw.FusedLinear(weights.shape.matrices[matrix][1], parts, weights.packed[matrix][i], None)
        setattr(parent, fused_name, fused)
        for index, member in enumerate(members):
            setattr(parent, member, uw.FusedPart(fused, index, nn.Linear))
    else:
        for member, part in zip(members, weights.dense[matrix][i].split(parts), strict=True):
            getattr(parent, member).weight = _frozen(part)


class StaticStep:
    """One decoding step on a static cache."""

    def __init__(
        self,
        model: LlamaForCausalLM,
        keys: list[torch.Tensor],
        values: list[torch.Tensor],
        capacity: int,
        compile_with: Callable[[Callable], Callable] | None = None,
    ) -> None:
        self.cache = StaticCache(config=model.config, max_cache_len=capacity)
        self.context = keys[0].shape[2]
        for layer in range(len(keys)):
            self.cache.update(keys[layer], values[layer], layer)
        self.ids = torch.zeros(keys[0].shape[0], 1, device=keys[0].device, dtype=torch.int64)

        def step(ids: torch.Tensor, cache: StaticCache) -> torch.Tensor:
            logits = model(input_ids=ids, past_key_values=cache, use_cache=True).logits[:, -1]
            ids.copy_(logits.argmax(-1, keepdim=True))
            return logits

        self._step = compile_with(step) if compile_with else step

    def reset(self, ids: torch.Tensor | None = None) -> None:
        for layer in self.cache.layers:
            layer.cumulative_length.fill_(self.context)
        if ids is not None:
            self.ids.copy_(ids.view_as(self.ids))

    def run(self) -> torch.Tensor:
        return self._step(self.ids, self.cache)


def logits_after(
    model: LlamaForCausalLM, keys: list[torch.Tensor], values: list[torch.Tensor], ids: torch.Tensor
) -> torch.Tensor:
    """The model's plain answer: eager, with a growing cache."""
    cache = DynamicCache(config=model.config)
    for layer in range(len(keys)):
        cache.update(keys[layer].clone(), values[layer].clone(), layer)
    return model(input_ids=ids.view(-1, 1), past_key_values=cache, use_cache=True).logits[:, -1]
