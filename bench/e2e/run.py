#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""End to end: a model of the shape of Llama-3.1-8B with random weights, decoding and first token, BF16 beside packed.

    python bench/e2e/run.py OUT.json [--parts decode,prompt,plain,storage] [--seconds 350] [--commit ID]

Everything runs in one process and by turns, but for `storage`, whose two kinds have a process each:

    decode    tokens/s at 1 to 64 sequences of 1024 tokens: the strongest BF16 recipe known, and the same recipe with
              packed weights (decoder.py, linears.py), both with the settings that a search found best (search.py)
    prompt    first token after 512, 2048 and 8192 tokens, the same two
    plain     transformers with static cache, torch.compile and a CUDA graph: BF16, and packed
    storage   loading from files, memory, models on the card, exactness (storage.py)

Needs PyTorch, Triton, transformers and the package unweight with its CUDA part; UNWEIGHT_LIBRARY and PYTHONPATH may
name one that is not installed. --shape tiny tries everything out, also without a GPU (then with TRITON_INTERPRET=1).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import traceback
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
import triton

import unweight
import unweight.torch as uw

from decoder import Decoder, Glue
from linears import Dense, Measured, Packed, dense_choice, describe, tune_dense, tune_packed, use_blas
from plain import StaticStep, build, logits_after
from search import Settings, descend
from shape import SHAPES, Weights, synthesise
from timing import Budget, Graph, gib, interleaved_ms, median, relative_error, say, spread, synchronise, wall_ms

STEPS_PER_SAMPLE = 10


class Run:
    """What the parts share: weights, tuned choices, options, and the record."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.budget = Budget(options.seconds)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.shape = SHAPES[options.shape]
        self.record: dict[str, Any] = {"facts": facts(options)}
        self.weights: Weights | None = None
        self.choices: dict[int, dict[str, Any]] = {}
        self.configs: dict[int, dict[str, list[Any]]] = {}  #: by tokens and matrix, the best first

    def save(self) -> None:
        self.options.out.write_text(json.dumps(self.record, indent=1) + "\n")

    def prepare(self) -> None:
        """Weights, and the best way to multiply with each."""
        self.weights = synthesise(self.shape, self.device)
        synchronise()
        self.record["weights"] = {
            "dense_gib": gib(self.weights.dense_bytes),
            "packed_gib": gib(self.weights.packed_bytes),
            "bits_per_weight": 16 * self.weights.packed_bytes / self.weights.dense_bytes,
        }
        say("weights:", self.record["weights"])
        batches = self.options.batches
        tuned = tune_dense(self.weights, batches)
        self.choices = {batch: dense_choice(of_batch) for batch, of_batch in tuned.items()}
        self.configs, packed = tune_packed(self.weights, batches, self.budget)
        self.record["linears"] = {str(batch): {"dense": tuned[batch], "packed": packed[batch]} for batch in batches}
        for batch in batches:
            say(
                f"linears of {batch:2d} tokens, us:",
                ", ".join(
                    f"{name} {best['us']:.1f} ({best['backend']})"
                    + (f" packed {packed[batch][name]['us']:.1f}" if name in packed[batch] else "")
                    for name, best in tuned[batch].items()
                ),
            )

    def plan(self, batch: int, settings: Settings | None = None) -> Measured:
        """The best configurations for so many tokens, or those of `settings`, by the matrices' names."""
        best = {name: configs[0] for name, configs in self.configs.get(batch, {}).items()} | (settings or {})
        shapes = self.shape.matrices
        return Measured({(*shapes[name], batch): best[name] for name in shapes if name in best})


def facts(options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {
        "command": "bench/e2e/run.py " + " ".join(sys.argv[1:]),
        "commit": options.commit,
        "shape": options.shape,
        "context": options.context,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "transformers": transformers.__version__,
        "unweight": unweight.__version__,
        "cpus": os.cpu_count(),
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found.update(
            device=properties.name,
            gpu_gib=gib(properties.total_memory),
            multiprocessors=properties.multi_processor_count,
            cuda=torch.version.cuda,
        )
        query = ["nvidia-smi", "--query-gpu=driver_version,power.limit,clocks.max.sm", "--format=csv,noheader"]
        try:
            found["driver"] = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            found["driver"] = "unknown"
    return found


def first_ids(batch: int, vocabulary: int, device: str) -> torch.Tensor:
    return torch.randint(0, vocabulary, (batch,), generator=torch.Generator().manual_seed(batch)).to(device)


# ---- decoding -------------------------------------------------------------------------------------------------------


def glue_alternatives(batch: int, kv_heads: int, dependent: bool) -> dict[str, list[Any]]:
    """What a search tries of Glue's fields."""
    splits = [n for n in (1, 2, 4, 8, 16, 24, 32) if n == 1 or 100 <= batch * kv_heads * n <= 2200]
    of_dependent = {"early_attention": [False]} if dependent else {}
    return {"splits": splits, "keys": [32, 64], "stages": [2, 4], **of_dependent}


GLUE = [field.name for field in fields(Glue)]


def glue_of(settings: Settings) -> Glue:
    return Glue(**{name: settings[name] for name in GLUE})


def search_settings(run: Run, batch: int, kind: Decoder, *, packed: bool, context: int, ids: torch.Tensor) -> Settings:
    """The best of glue, and of configurations of packed weights, for the whole step."""
    start = {name: getattr(kind.glue, name) for name in GLUE}
    alternatives = glue_alternatives(batch, run.shape.kv_heads, kind.glue.dependent)
    if packed:
        configs = run.configs.get(batch, {})
        start |= {name: of_matrix[0] for name, of_matrix in configs.items()}
        alternatives |= configs

    def capture(settings: Settings) -> Graph:
        kind.reset(context, ids)  # the first run writes keys and values
        with uw.use_plan(run.plan(batch, settings)):
            return Graph(kind.variant(kind.linears, glue_of(settings), packed_embedding=packed).step)

    return descend(start, alternatives, capture, partial(kind.reset, context, ids), lambda: run.budget.left() > 5)


def decode_variants(
    run: Run, batch: int, base: Decoder, context: int, ids: torch.Tensor
) -> dict[str, tuple[Decoder, Measured, Settings]]:
    """Each with its plan, and what to report of its settings."""
    dependent = replace(base.glue, dependent=True)
    kinds = {
        "bf16": base,
        "bf16, dependent": base.variant(base.linears, dependent),
        "packed": base.variant(Packed(run.weights), dependent, packed_embedding=True),
    }
    variants = {
        "bf16, recipe as it was": (base, run.plan(batch), {}),
        "packed, glue as it was": (kinds["packed"], run.plan(batch), {}),
        "packed, not dependent": (kinds["packed"].variant(Packed(run.weights), base.glue), run.plan(batch), {}),
    }
    for name, kind in kinds.items():
        packed = name == "packed"
        found = search_settings(run, batch, kind, packed=packed, context=context, ids=ids)
        variant = kind.variant(kind.linears, glue_of(found), packed_embedding=packed)
        shown = {k: v if isinstance(v, (bool, int)) else describe(v) for k, v in found.items()}
        variants[name] = (variant, run.plan(batch, found if packed else None), shown)
    return variants


def part_decode(run: Run) -> None:
    context, rows = run.options.context, {}
    for batch in run.options.batches:
        if not run.budget.allows(f"decoding {batch} sequences", 25):
            continue
        base = Decoder(run.weights, Dense(run.weights, run.choices[batch]), batch, context + 64)
        base.fill_cache(context)
        ids = first_ids(batch, run.shape.vocabulary, run.device)
        reference = None
        if batch in (1, 4):
            keys, values = base.context(context)
            reference = logits_after(build(run.weights, packed=False), keys, values, ids)
        checks, graphs, resets, found, settings = {}, {}, {}, {}, {}
        for name, (variant, plan, settings[name]) in decode_variants(run, batch, base, context, ids).items():
            variant.reset(context, ids)
            with uw.use_plan(plan):
                graph = Graph(variant.step)
            runs = []
            for _ in range(2):
                variant.reset(context, ids)
                runs.append((graph.run().clone(), variant.ids.clone()))
            found[name] = runs[0][0]
            checks[name] = {
                "same_twice": bool(torch.equal(runs[0][0], runs[1][0]) and torch.equal(*[r[1] for r in runs]))
            }
            graphs[name] = graph
            resets[name] = partial(variant.reset, context, ids)
        with uw.use_plan(run.plan(batch)):
            packed_linears = base.variant(Packed(run.weights), replace(base.glue, dependent=True))
            linears = {"bf16": Graph(base.only_linears), "packed": Graph(packed_linears.only_linears)}
        for name, logits in found.items():
            checks[name]["settings"] = settings[name]
            checks[name]["error_to_bf16"] = relative_error(logits, found["bf16"])
            if reference is not None:
                checks[name]["error_to_transformers"] = relative_error(logits, reference)
        times = interleaved_ms({n: g.run for n, g in graphs.items()}, repeats=run.options.steps, before=resets)
        of_linears = interleaved_ms({n: g.run for n, g in linears.items()}, repeats=run.options.steps)
        rows[str(batch)] = summary = summarise_decode(batch, times, checks, of_linears)
        say(
            f"decode {batch:2d}: bf16 {summary['bf16_ms']:.3f} ms ({summary['bf16']}), packed "
            f"{summary['packed_ms']:.3f} ms ({summary['packed']}), {summary['ratio']:.3f}; "
            f"linears {summary['linears_ms']}"
        )
        run.record["decode"] = rows
        run.save()
        del base, graphs, linears, resets, found, packed_linears
        if run.device == "cuda":
            torch.cuda.empty_cache()


def summarise_decode(
    batch: int, times: dict[str, list[float]], checks: dict[str, Any], of_linears: dict[str, list[float]]
) -> dict[str, Any]:
    """The best variant of each kind, and all of them."""
    best = {
        kind: min((n for n in times if n.startswith(kind)), key=lambda n: median(times[n]))
        for kind in ("bf16", "packed")
    }
    dense_ms, packed_ms = median(times[best["bf16"]]), median(times[best["packed"]])
    return {
        "bf16": best["bf16"],
        "bf16_ms": dense_ms,
        "bf16_tokens_per_s": batch / dense_ms * 1e3,
        "packed": best["packed"],
        "packed_ms": packed_ms,
        "packed_tokens_per_s": batch / packed_ms * 1e3,
        "ratio": dense_ms / packed_ms,
        "linears_ms": {name: median(samples) for name, samples in of_linears.items()},
        "variants": {
            name: {"ms": median(samples), "spread": spread(samples), **checks[name]} for name, samples in times.items()
        },
    }


# ---- first token ----------------------------------------------------------------------------------------------------


def part_prompt(run: Run) -> None:
    rows = {}
    for length in run.options.prompts:
        if not run.budget.allows(f"first token of {length}", 15):
            continue
        base = Decoder(run.weights, Dense(run.weights), 1, length, tokens=length)
        base.position.copy_(torch.arange(length, device=run.device))
        base.ids.copy_(first_ids(length, run.shape.vocabulary, run.device))
        variants = {
            "bf16, cublas": (base, "cublas", None),
            "bf16, cublaslt": (base.variant(_CublasLt(run.weights), base.glue), "cublaslt", None),
        }
        packed = base.variant(Packed(run.weights), base.glue, packed_embedding=True)
        tuned = uw.TunedPlan() if run.options.plan is None else uw.TunedPlan.read(run.options.plan)
        plans: dict[str, Any] = {"tuned": tuned, "fused": uw.Rules(fused_tokens=65536), "decoded": uw.Decoded()}
        for name, plan in plans.items():
            variants[f"packed, {name}"] = (packed, "default", plan)
        graphs, found = {}, {}
        for name, (variant, backend, plan) in variants.items():
            use_blas(backend)
            with uw.use_plan(plan or tuned):
                graphs[name] = Graph(variant.prompt)
            found[name] = graphs[name].run().clone()
        use_blas("default")
        times = interleaved_ms({n: g.run for n, g in graphs.items()}, rounds=5, repeats=2)
        best = {
            k: min((n for n in times if n.startswith(k)), key=lambda n: median(times[n])) for k in ("bf16", "packed")
        }
        ratio = median(times[best["bf16"]]) / median(times[best["packed"]])
        rows[str(length)] = {
            **best,
            "ratio": ratio,
            "variants": {
                name: {
                    "ms": median(samples),
                    "spread": spread(samples),
                    "error_to_bf16": relative_error(found[name], found["bf16, cublas"]),
                }
                for name, samples in times.items()
            },
        }
        say(
            f"first token of {length}: "
            + ", ".join(f"{n} {median(s):.2f} ms" for n, s in times.items())
            + f"; {ratio:.3f}"
        )
        run.record["prompt"] = rows
        run.save()
        del base, packed, variants, graphs
        if run.device == "cuda":
            torch.cuda.empty_cache()


class _CublasLt(Dense):
    def __call__(self, name: str, layer: int, x: torch.Tensor, tokens: int) -> torch.Tensor:
        use_blas("cublaslt")
        return torch.nn.functional.linear(x[:tokens], self.weights[name][layer])


# ---- transformers as it is ------------------------------------------------------------------------------------------


def part_plain(run: Run) -> None:
    context, rows = run.options.context, {}
    models = {"bf16": build(run.weights, packed=False), "packed": build(run.weights, packed=True)}
    uw.prepare(models["packed"])
    for batch, compiled in ((b, c) for c in (False, True) for b in run.options.plain_batches):
        label = f"{batch}{', compiled' if compiled else ''}"
        if compiled and batch not in run.options.compiled_batches:
            continue
        if not run.budget.allows(f"transformers, {label} sequences", 90 if compiled else 15):
            continue
        source = Decoder(run.weights, Dense(run.weights), batch, context)
        source.fill_cache(context)
        keys, values = source.context(context)
        ids = first_ids(batch, run.shape.vocabulary, run.device)
        steps, graphs, found, first_call = {}, {}, {}, {}
        compile_with = (lambda f: torch.compile(f, fullgraph=True, dynamic=False)) if compiled else None
        with uw.use_plan(run.plan(batch)):
            for name, model in models.items():
                torch._dynamo.reset()
                steps[name] = StaticStep(model, keys, values, context + 64, compile_with)
                steps[name].reset(ids)
                first_call[name] = wall_ms(steps[name].run, 1)[0] / 1e3
                graphs[name] = Graph(steps[name].run, warm_ups=2)
                steps[name].reset(ids)
                found[name] = graphs[name].run().clone()
        times = interleaved_ms(
            {n: g.run for n, g in graphs.items()},
            repeats=run.options.steps,
            before={n: s.reset for n, s in steps.items()},
        )
        rows[label] = {
            "ratio": median(times["bf16"]) / median(times["packed"]),
            "error_to_bf16": relative_error(found["packed"], found["bf16"]),
            "variants": {
                name: {
                    "ms": median(samples),
                    "spread": spread(samples),
                    "tokens_per_s": batch / median(samples) * 1e3,
                    "first_call_s": first_call[name],
                }
                for name, samples in times.items()
            },
        }
        say(
            f"transformers, {label}:",
            {n: round(median(s), 3) for n, s in times.items()},
            f"ratio {rows[label]['ratio']:.3f}",
        )
        run.record["plain"] = rows
        run.save()
        del source, steps, graphs
        if run.device == "cuda":
            torch.cuda.empty_cache()


# ---- files and memory -----------------------------------------------------------------------------------------------


def part_storage(run: Run) -> None:
    run.weights = None
    torch._dynamo.reset()
    gc.collect()
    if run.device == "cuda":
        torch.cuda.empty_cache()
        run.record["storage_beside_gib"] = gib(torch.cuda.memory_reserved())
    if not run.budget.allows("loading from files", 60):
        return
    with tempfile.TemporaryDirectory(dir=run.options.work) as work:
        script = Path(__file__).parent / "storage.py"

        def child(*arguments: str) -> dict[str, Any]:
            done = subprocess.run(
                [sys.executable, str(script), *arguments],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                timeout=max(10, run.budget.left()),
            )
            return json.loads(done.stdout.strip().splitlines()[-1])

        import storage

        found: dict[str, Any] = {"checkpoint": child("write", run.options.shape, work)}
        say("checkpoint:", found["checkpoint"])
        for kind in ("dense", "packed"):
            found[kind] = child(kind, work, f"{work}/{kind}.pt")
            say(f"{kind}:", found[kind])
            run.record["storage"] = found
            run.save()
        found["exactness"] = storage.compare(*(torch.load(f"{work}/{kind}.pt") for kind in ("dense", "packed")))
        say("exactness:", found["exactness"])


PARTS = {"decode": part_decode, "prompt": part_prompt, "plain": part_plain, "storage": part_storage}


def parse() -> argparse.Namespace:
    def numbers(text: str) -> list[int]:
        return [int(number) for number in text.split(",") if number]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--parts", default=",".join(PARTS), help="of %(default)s, in this order")
    parser.add_argument("--seconds", type=float, default=350, help="parts that would take longer are left out")
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.1-8b")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--batches", type=numbers, default=[1, 4, 8, 16, 32, 64])
    parser.add_argument("--prompts", type=numbers, default=[512, 2048, 8192])
    parser.add_argument("--plain-batches", type=numbers, default=[1, 32])
    parser.add_argument("--compiled-batches", type=numbers, default=[1])
    parser.add_argument("--steps", type=int, default=STEPS_PER_SAMPLE, help="of a sample")
    parser.add_argument("--plan", type=Path, default=None, help="for prompts; by default the library's tables")
    parser.add_argument("--work", type=Path, default=None, help="folder for a checkpoint and its bundle, 28 GB")
    parser.add_argument("--commit", default="unknown")
    options = parser.parse_args()
    unknown = set(options.parts.split(",")) - set(PARTS)
    if unknown:
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}")
    return options


def main() -> int:
    options = parse()
    torch.set_grad_enabled(False)
    run = Run(options)
    # storage gives the weights back, so it is last
    parts = [part for part in PARTS if part in options.parts.split(",")]
    if set(parts) - {"storage"}:
        run.prepare()
    failed = []
    for part in parts:
        try:
            PARTS[part](run)
        except Exception:  # the other parts are worth having
            traceback.print_exc()
            failed.append(part)
        run.record["failed"] = failed
        run.save()
    say("failed:" if failed else "done", *failed)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
