# SPDX-License-Identifier: Apache-2.0
"""The linear layers of the recipe: in BF16 by the best backend known for each, or packed with a tuned plan."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

import unweight.torch as uw
from unweight import _library
from unweight.torch._device import device_blob
from unweight.torch.plan import Choice

from glue import GEMV_BLOCKS, gemv, gemv_fits
from shape import LAYER_MATRICES, Weights
from timing import Budget, Graph, interleaved_ms, median, say

PADDED_TOKENS = (16, 32, 64)  #: more tokens than there are, where cuBLAS is faster with them
MOST_PADDED = max(PADDED_TOKENS)


def use_blas(name: str) -> None:
    if torch.cuda.is_available():
        torch.backends.cuda.preferred_blas_library(name)


class Dense:
    """BF16. Called with a matrix's name, the layer, activations of at least MOST_PADDED rows or `tokens`, and tokens;
    returns [tokens or more, N]. `choice`: by the matrix's name ("cublas" | "cublaslt", tokens) or ("gemv", block)."""

    def __init__(self, weights: Weights, choice: dict[str, tuple[str, Any]] | None = None) -> None:
        self.weights = weights.dense
        self.choice = choice or {}

    def __call__(self, name: str, layer: int, x: torch.Tensor, tokens: int) -> torch.Tensor:
        weight = self.weights[name][layer]
        backend, how = self.choice.get(name, ("cublas", tokens))
        if backend == "gemv":
            return gemv(x, weight, how)
        use_blas(backend)
        return F.linear(x[:how], weight)


class Packed:
    """Packed weights, by the operator that users call. Called as Dense is."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights.packed
        self.rows = {name: rows for name, (rows, _) in weights.shape.matrices.items()}

    def __call__(self, name: str, layer: int, x: torch.Tensor, tokens: int) -> torch.Tensor:
        return torch.ops.unweight.linear(x[:tokens], self.weights[name][layer], None, self.rows[name])


def _all_layers(call: Callable[[int], torch.Tensor], layers: int) -> Callable[[], None]:
    """One after the other through all weights, so that none is in the L2 cache when its turn comes."""

    def run() -> None:
        for _ in range(4 if layers == 1 else 1):  # the head alone is larger than the cache
            for layer in range(layers):
                call(layer)

    return run


def _time_us(
    calls: dict[Any, Callable[[int], torch.Tensor]], layers: int, rounds: int, repeats: int
) -> dict[Any, float]:
    graphs = {name: Graph(_all_layers(call, layers)) for name, call in calls.items()}
    times = interleaved_ms({name: graph.run for name, graph in graphs.items()}, rounds=rounds, repeats=repeats)
    count = 4 if layers == 1 else layers
    return {name: median(samples) * 1e3 / count for name, samples in times.items()}


def _by_blas(dense: list[torch.Tensor], x: torch.Tensor, backend: str, layer: int) -> torch.Tensor:
    use_blas(backend)
    return F.linear(x, dense[layer])


def _by_gemv(dense: list[torch.Tensor], x: torch.Tensor, block: tuple[int, int, int], layer: int) -> torch.Tensor:
    return gemv(x, dense[layer], block)


def tune_dense(weights: Weights, batches: list[int], rounds: int = 3) -> dict[int, dict[str, dict[str, Any]]]:
    """The best BF16 backend of each matrix for each number of tokens, with its time."""
    found: dict[int, dict[str, dict[str, Any]]] = {batch: {} for batch in batches}
    for name, dense in weights.dense.items():
        x = torch.randn(MOST_PADDED, dense[0].shape[1], device=dense[0].device, dtype=dense[0].dtype)
        calls: dict[Any, Callable[[int], torch.Tensor]] = {}
        for tokens, backend in itertools.product(sorted({*batches, *PADDED_TOKENS}), ("cublas", "cublaslt")):
            calls[backend, tokens] = partial(_by_blas, dense, x[:tokens], backend)
        if 1 in batches and torch.cuda.is_available():
            for block in GEMV_BLOCKS:
                if gemv_fits(dense[0], block):
                    calls["gemv", block] = partial(_by_gemv, dense, x, block)
        times = _time_us(calls, len(dense), rounds, 2)
        for batch in batches:
            able = {
                how: time
                for how, time in times.items()
                if (how[0] == "gemv" and batch == 1)
                or (how[0] != "gemv" and (how[1] == batch or (how[1] > batch and how[1] in PADDED_TOKENS)))
            }
            best = min(able, key=able.__getitem__)
            found[batch][name] = {
                "backend": best[0],
                "how": best[1],
                "us": able[best],
                "cublas_us": min(able["cublas", batch], able["cublaslt", batch]),
            }
    use_blas("default")
    return found


def dense_choice(tuned: dict[str, dict[str, Any]]) -> dict[str, tuple[str, Any]]:
    return {name: (best["backend"], best["how"]) for name, best in tuned.items()}


class Measured:
    """A plan of measured configurations, by rows, columns and tokens; the library's rules for all else."""

    def __init__(self, configs: dict[tuple[int, int, int], Any] | None = None) -> None:
        self.configs = configs or {}
        self._rules = uw.Rules()

    def choose(self, weight: Any, tokens: int) -> Choice:
        config = self.configs.get((weight.rows, weight.cols, tokens))
        return Choice("fused", config) if config is not None else self._rules.choose(weight, tokens)


def _config(strips: int, stages: int, split: int, warpgroup: int) -> Any:
    config = _library.sized(_library.MatmulConfig)
    config.strips, config.stages, config.split, config.warpgroup = strips, stages, split, warpgroup
    config.dependent_launch = 1
    return config


def describe(config: Any) -> dict[str, int]:
    return {name: getattr(config, name) for name in ("strips", "stages", "split", "warpgroup")}


def _candidates(weight: Any, tokens: int) -> dict[Any, Any]:
    chosen = weight.choose_config(tokens)
    found = {"rules": _config(chosen.strips, chosen.stages, chosen.split, chosen.warpgroup)}
    for strips, stages, split in itertools.product((1, 2, 4, 8, 16), (3, 4, 5, 6), (0, 1)):
        for warpgroup in (0, 1):
            config = _config(strips, stages, split, warpgroup)
            if weight.can_implement(tokens, config):
                found[strips, stages, split, warpgroup] = config
    return found


class _Only:
    """A plan of one configuration."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def choose(self, weight: Any, tokens: int) -> Choice:
        return Choice("fused", self.config)


def tune_packed(weights: Weights, batches: list[int], budget: Budget) -> tuple[dict, dict[int, dict[str, Any]]]:
    """By tokens and matrix: the best configurations in a chain of dependent launches, best first; and the times."""
    configs: dict[int, dict[str, list[Any]]] = {batch: {} for batch in batches}
    found: dict[int, dict[str, Any]] = {batch: {} for batch in batches}
    if not torch.cuda.is_available():
        return configs, found
    linears = Packed(weights)
    for batch, name in itertools.product(batches, weights.packed):
        if not budget.allows(f"tuning {name} for {batch} tokens", 20):
            continue
        cols = weights.shape.matrices[name][1]
        x = torch.randn(batch, cols, device="cuda", dtype=torch.bfloat16)
        blob = device_blob(weights.packed[name][0])
        layers = len(weights.packed[name]) if name in LAYER_MATRICES else 1
        candidates = _candidates(blob, batch)

        def call(i: int, only: _Only, name: str = name, x: torch.Tensor = x, batch: int = batch) -> torch.Tensor:
            with uw.use_plan(only):
                return linears(name, i, x, batch)

        plans = {key: _Only(config) for key, config in candidates.items()}
        times = _time_us({key: lambda i, p=p: call(i, p) for key, p in plans.items()}, layers, 2, 1)
        close = dict.fromkeys(sorted(times, key=times.__getitem__)[:4])
        close["rules"] = None
        final = _time_us({key: lambda i, p=plans[key]: call(i, p) for key in close}, layers, 5, 2)
        order = sorted(final, key=final.__getitem__)
        best, configs[batch][name] = order[0], [candidates[key] for key in order]
        found[batch][name] = {"config": describe(candidates[best]), "us": final[best], "rules_us": final["rules"]}
        for packed in weights.packed[name]:
            device_blob(packed).choices.clear()  # of the search
    say("packed configurations tuned")
    return {batch: _with_neighbours(weights, batches, batch, configs) for batch in batches}, found


def _with_neighbours(
    weights: Weights, batches: list[int], batch: int, configs: dict[int, dict[str, list[Any]]]
) -> dict[str, list[Any]]:
    """The batch's own configurations, and the best of the next smaller and larger batch where they are legal: what is
    a little slower alone may be faster in a step."""
    at = batches.index(batch)
    together = {}
    for name, own in configs[batch].items():
        shown = [describe(config) for config in own]
        together[name] = list(own)
        blob = device_blob(weights.packed[name][0])
        for other in batches[max(at - 1, 0) : at + 2]:
            for config in configs[other].get(name, [])[:1]:
                if describe(config) not in shown and blob.can_implement(batch, config):
                    together[name].append(config)
                    shown.append(describe(config))
    return together
