# SPDX-License-Identifier: Apache-2.0
"""Coordinate descent on the time of a whole step: what is best for a kernel alone need not be so among others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from timing import Graph, interleaved_ms, median

LEAST_GAIN = 0.002  #: share of the step's time
ROUNDS, REPEATS = 3, 5
PASSES = 2  #: over all settings, the later ones only while something gets better

Settings = dict[str, Any]


def descend(
    start: Settings,
    alternatives: Mapping[str, Sequence[Any]],
    capture: Callable[[Settings], Graph],
    reset: Callable[[], None],
    allowed: Callable[[], bool],
) -> Settings:
    """The best settings found: one at a time takes its alternatives' values, and keeps what makes the step faster.

    `reset` is called ahead of every sample; once `allowed` says no, nothing more is tried.
    """
    best, incumbent = dict(start), capture(start)
    for _ in range(PASSES):
        before = best
        for name, values in alternatives.items():
            for value in values:
                if value == best[name]:
                    continue
                if not allowed():
                    return best
                trial = {**best, name: value}
                challenger = capture(trial)
                graphs = {"best": incumbent.run, "trial": challenger.run}
                times = interleaved_ms(graphs, rounds=ROUNDS, repeats=REPEATS, before=dict.fromkeys(graphs, reset))
                if median(times["trial"]) < median(times["best"]) * (1 - LEAST_GAIN):
                    best, incumbent = trial, challenger
        if best is before:
            break
    return best
