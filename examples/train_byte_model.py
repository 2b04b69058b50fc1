#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains a small language model of the Llama architecture on bytes, and saves it in BF16: a real trained model for
tests, small enough to keep (tests/data/byte-model is one that this script made).

    python examples/train_byte_model.py OUT [--minutes 1.5] [--steps 1000]

The text is that of Python's own help topics (the module pydoc_data.topics: part of Debian's libpython3-stdlib and of
every CPython, under the licence of Python): some 500 kB of English prose and code. A token is a byte; 0, which does not
occur, begins a text. Needs PyTorch and transformers; a GPU makes it quick.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import pydoc_data.topics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

BEGIN = 0
HELD_OUT = 0.05  #: of the text, its end

CONFIG = LlamaConfig(
    vocab_size=256,
    hidden_size=256,
    intermediate_size=768,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=1024,
    tie_word_embeddings=True,
    bos_token_id=BEGIN,
    eos_token_id=None,
    pad_token_id=None,
    rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
)


def text_bytes() -> torch.Tensor:
    """All topics, one after the other."""
    topics = pydoc_data.topics.topics
    data = b"\0".join(topics[name].encode() for name in sorted(topics))
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def batch(text: torch.Tensor, count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    begin = torch.randint(0, text.numel() - length - 1, (count, 1), generator=generator)
    return text[begin + torch.arange(length + 1)].long()


def loss_of(model: LlamaForCausalLM, tokens: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=tokens[:, :-1]).logits.float()
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, text: torch.Tensor, length: int, device: str) -> float:
    pieces = text.long()[: text.numel() // (length + 1) * (length + 1)].view(-1, length + 1)
    return sum(loss_of(model, piece.to(device)).item() * len(piece) for piece in pieces.split(16)) / len(pieces)


def train(options: argparse.Namespace, device: str) -> tuple[LlamaForCausalLM, dict]:
    torch.manual_seed(options.seed)
    text = text_bytes()
    border = int(text.numel() * (1 - HELD_OUT))
    model = LlamaForCausalLM(CONFIG).to(device).train()
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=options.rate,
        betas=(0.9, 0.95),
    )
    generator = torch.Generator().manual_seed(options.seed)
    end = time.monotonic() + 60 * options.minutes
    begin, done = time.monotonic(), 0
    for step in range(options.steps):
        # Of steps, or of time where that is shorter.
        share = max(step / options.steps, (time.monotonic() - begin) / (60 * options.minutes))
        if share >= 1 or time.monotonic() > end:
            break
        rate = options.rate * min(1, (step + 1) / 50) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * share)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        tokens = batch(text[:border], options.batch, options.length, generator).to(device)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = loss_of(model, tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done = step + 1
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.3f}, {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    model = model.to(torch.bfloat16).eval()
    loss = held_out_loss(model, text[border:], options.length, device)
    facts = {
        "steps": done,
        "seconds": round(time.monotonic() - begin),
        "held_out_bits_per_byte": round(loss / math.log(2), 3),
        "parameters": sum(p.numel() for p in model.parameters()),
        "text_bytes": text.numel(),
        "device": device,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    return model, facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=1.5, help="of training, at most")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, facts = train(options, device)
    model.save_pretrained(options.out)
    (options.out / "training.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts))
    prompt = torch.tensor([list(b"\0The statement ")], device=device)
    with torch.no_grad():
        written = model.generate(prompt, max_new_tokens=120, do_sample=False)[0, 1:]
    print(bytes(written.tolist()).decode(errors="replace"))


if __name__ == "__main__":
    main()
