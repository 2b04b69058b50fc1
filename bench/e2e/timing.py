# SPDX-License-Identifier: Apache-2.0
"""CUDA graphs and times. On the CPU functions run as they are, so that the programs can be tried out anywhere."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

_began = time.monotonic()


def say(*what: Any) -> None:
    print(f"[{time.monotonic() - _began:6.1f} s]", *what, file=sys.stderr, flush=True)


class Budget:
    """Seconds that are left of those that the whole may take."""

    def __init__(self, seconds: float) -> None:
        self._end = _began + seconds

    def left(self) -> float:
        return self._end - time.monotonic()

    def allows(self, what: str, seconds: float) -> bool:
        if self.left() >= seconds:
            return True
        say(f"left out, {self.left():.0f} s are too few: {what}")
        return False


class Graph:
    """A function captured into a CUDA graph: run() replays it. What it returns lies in `result`."""

    def __init__(self, function: Callable[[], Any], *, warm_ups: int = 1) -> None:
        self._function = function
        self._graph: torch.cuda.CUDAGraph | None = None
        if not torch.cuda.is_available():
            self.result = function()
            return
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(warm_ups):
                function()
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        # Not torch.cuda.graph(), which collects garbage before each of the hundreds of captures.
        with torch.cuda.stream(stream):
            self._graph.capture_begin()
            try:
                self.result = function()
            finally:
                self._graph.capture_end()
        torch.cuda.current_stream().wait_stream(stream)

    def run(self) -> Any:
        if self._graph is None:
            self.result = self._function()
        else:
            self._graph.replay()
        return self.result


def _time_ms(run: Callable[[], Any], repeats: int) -> float:
    if not torch.cuda.is_available():
        begin = time.perf_counter()
        for _ in range(repeats):
            run()
        return (time.perf_counter() - begin) * 1e3 / repeats
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / repeats


def interleaved_ms(
    variants: dict[Any, Callable[[], Any]],
    *,
    rounds: int = 5,
    repeats: int = 10,
    before: dict[Any, Callable[[], Any]] | None = None,
) -> dict[Any, list[float]]:
    """Milliseconds of each variant, by turns: one sample a round, after one run that does not count."""
    times: dict[Any, list[float]] = {name: [] for name in variants}
    if not torch.cuda.is_available():
        rounds = repeats = 1
    for round_number in range(rounds):
        order = list(variants)
        order = order[round_number % len(order) :] + order[: round_number % len(order)]
        for name in order:
            if before and name in before:
                before[name]()
            variants[name]()
            times[name].append(_time_ms(variants[name], repeats))
    return times


def median(values: list[float]) -> float:
    return statistics.median(values)


def spread(values: list[float]) -> list[float]:
    return [min(values), max(values)]


def wall_ms(function: Callable[[], Any], repeats: int) -> list[float]:
    """Of whole calls, the host's work included."""
    times = []
    for _ in range(repeats):
        synchronise()
        begin = time.perf_counter()
        function()
        synchronise()
        times.append((time.perf_counter() - begin) * 1e3)
    return times


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.float() - wanted.float()).norm() / wanted.float().norm())


def gib(size_bytes: float) -> float:
    return round(size_bytes / 2**30, 3)
