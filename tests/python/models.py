# SPDX-License-Identifier: Apache-2.0
"""Small models of the families that are supported, with weights distributed as trained ones are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf

VOCABULARY = 320
_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "max_position_embeddings": 256,
}


def _model(config: type, model: type, **more: Any) -> Callable[[], Any]:
    return lambda: model(config(**{**_COMMON, **more}))


#: Name -> a new model; weights are tied or not as in the family's large models.
FAMILIES: dict[str, Callable[[], Any]] = {
    "llama": _model(hf.LlamaConfig, hf.LlamaForCausalLM, tie_word_embeddings=False),
    "llama-tied": _model(hf.LlamaConfig, hf.LlamaForCausalLM, tie_word_embeddings=True),
    "mistral": _model(hf.MistralConfig, hf.MistralForCausalLM),
    "qwen2": _model(hf.Qwen2Config, hf.Qwen2ForCausalLM, tie_word_embeddings=True),
    "qwen3": _model(hf.Qwen3Config, hf.Qwen3ForCausalLM, head_dim=32),
    "gemma": _model(hf.GemmaConfig, hf.GemmaForCausalLM, head_dim=32),
    "gemma2": _model(hf.Gemma2Config, hf.Gemma2ForCausalLM, head_dim=32),
    "gemma3": _model(hf.Gemma3TextConfig, hf.Gemma3ForCausalLM, head_dim=32),
    "phi": _model(hf.PhiConfig, hf.PhiForCausalLM, num_key_value_heads=4),
    "phi3": _model(hf.Phi3Config, hf.Phi3ForCausalLM),
}


def make(family: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model = FAMILIES[family]().to(torch.bfloat16)
    with torch.no_grad():
        for parameter in {id(p): p for p in model.parameters()}.values():
            if parameter.dim() == 2:
                scale = 0.03 * torch.exp2(0.5 * torch.randn(parameter.shape[0], 1))
                parameter.copy_(torch.randn(parameter.shape) * scale)
            else:
                # No two alike, as in a trained model.
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return model.eval()


def save(family: str, folder: Path, seed: int = 0) -> Any:
    """Saves a model and returns it as transformers loads it."""
    make(family, seed).save_pretrained(folder)
    return hf.AutoModelForCausalLM.from_pretrained(folder)


def tokens(batch: int = 2, length: int = 9, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (batch, length), generator=generator)


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(ids.to(model.device)).logits.cpu()
