# SPDX-License-Identifier: Apache-2.0
"""Plans in a whole model: times that were measured one weight at a time leave out what neighbours do to each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

import torch

from ..errors import DeviceProblem, InvalidArgument
from ..plan import PlanFile, RefineCallback, RefineReport, refine_file, refine_options
from ._device import forget_choices
from .plan import Plan, TunedPlan, use_plan


def refine(
    plan: TunedPlan,
    step: Callable[[TunedPlan], float],
    *,
    seconds: float = 60,
    tokens: Sequence[int] = (),
    progress: RefineCallback | bool = False,
    least_gain: float = 0.002,
    rounds: int = 5,
    passes: int = 2,
) -> RefineReport:
    """Tries the measured alternatives of one cell of one weight at a time in the whole model, and keeps those that make
    the step faster beyond the noise. Changes the plan, whose file can then be written; also after an exception,
    KeyboardInterrupt included, it is the best so far. Graphs that were captured before keep what they have.

        refine(plan, StepTimer(lambda: model(ids)), tokens=[1], seconds=120, progress=True)

    :param plan: with a file
    :param step: microseconds of one step of the model with the plan given, such as a StepTimer; what it raises ends the
        refinement and is raised again
    :param seconds: no new trial after that; 0: no limit
    :param tokens: numbers of tokens that the step has; none: all of the plan's
    :param progress: called before each trial; True: a line on stderr
    :param least_gain: share of the step's time that a change must bring, beyond the noise
    :param rounds: measurements of each side in a trial
    :param passes: over all cells; ends early when one changes nothing
    """
    if plan.file is None:
        raise InvalidArgument("refine: the plan has no file, whose alternatives could be tried", 10)
    if plan.dependent_launch != plan.file.dependent_launch:
        raise InvalidArgument(
            f"refine: the plan was decided with dependent_launch={plan.file.dependent_launch}, and is followed with "
            f"{plan.dependent_launch}",
            10,
        )
    fused_tokens = plan.fused_tokens

    def made(file: PlanFile) -> TunedPlan:
        return TunedPlan(file, fused_tokens=fused_tokens)

    try:
        options = refine_options(seconds, tokens, least_gain, rounds, passes)
        return refine_file(plan.file, step, made, forget_choices, options, progress)
    finally:
        plan.forget()
        forget_choices(plan)


class StepTimer:
    """Microseconds of one step under a plan, for refine(): the step is captured in a CUDA graph, which is replayed.

    :param function: the step, without gradients: called once before it is captured, and once for the capture, whenever
        the plan is another; so its inputs and whatever it changes must lie where they lay
    :param samples: replays of which the median counts
    """

    _GRAPHS = 2  #: that are kept: refine() compares two plans in turns

    def __init__(self, function: Callable[[], Any], *, samples: int = 11) -> None:
        if samples < 1:
            raise InvalidArgument(f"samples = {samples} must be 1 or more", 10)
        self._function = function
        self._samples = samples
        self._graphs: list[tuple[Plan, torch.cuda.CUDAGraph]] = []

    def __call__(self, plan: Plan) -> float:
        if not torch.cuda.is_available():
            raise DeviceProblem("a StepTimer needs a GPU", 50)
        graph = self._graph_of(plan)
        graph.replay()
        events = [torch.cuda.Event(enable_timing=True) for _ in range(self._samples + 1)]
        events[0].record()
        for event in events[1:]:
            graph.replay()
            event.record()
        events[-1].synchronize()
        return 1e3 * float(median(a.elapsed_time(b) for a, b in pairwise(events)))

    def _graph_of(self, plan: Plan) -> torch.cuda.CUDAGraph:
        for i, (known, graph) in enumerate(self._graphs):
            if known is plan:
                self._graphs.append(self._graphs.pop(i))  # the latest is the last
                return graph
        torch.cuda.synchronize()
        del self._graphs[: len(self._graphs) - (self._GRAPHS - 1)]
        graph = torch.cuda.CUDAGraph()
        with use_plan(plan), torch.no_grad():
            self._function()
            with torch.cuda.graph(graph):
                self._function()
        self._graphs.append((plan, graph))
        return graph
