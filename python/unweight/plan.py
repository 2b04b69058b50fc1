# SPDX-License-Identifier: Apache-2.0
"""Plan files: which way to multiply, for every weight and number of tokens, as `unweight tune` has measured it on one
GPU. docs/tuning.md describes them; unweight.torch.TunedPlan follows them.

    plan = PlanFile.read("plan.json")
    plan.keeps_raw("model.layers.0.self_attn.q_proj.weight")
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from ctypes import byref, c_size_t, c_void_p
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from . import _library
from ._library import check, library, sized
from .errors import InvalidArgument

Path = str | os.PathLike[str]
_BUFFER_TOO_SMALL = 12
_MOST_TOKENS = 65536


@dataclass(frozen=True)
class RefineProgress:
    """How far a refinement is."""

    tried: int  #: alternatives
    total: int  #: at most
    seconds: float  #: since the beginning
    first_us: float  #: of the step at the beginning
    best_us: float  #: and now
    current: str  #: what is tried next


#: Returns False to stop: the plan is then the best so far. Anything else, None included, goes on.
RefineCallback = Callable[[RefineProgress], Any]


@dataclass(frozen=True)
class RefineReport:
    """What a refinement did."""

    first_us: float  #: of the step at the beginning
    best_us: float  #: at the end
    seconds: float
    tried: int  #: alternatives
    accepted: int  #: of these
    stopped: bool  #: by the time limit or the progress callback


class PlanFile:
    """A plan. Made by read() or parse(); everything but refine() leaves it as it is."""

    def __init__(self, handle: c_void_p) -> None:
        self._handle = handle

    @classmethod
    def read(cls, path: Path) -> PlanFile:
        """Reads a file. Raises FileProblem, or as parse()."""
        handle = c_void_p()
        check(library().unweight_plan_read(os.fsencode(path), byref(handle)))
        return cls(handle)

    @classmethod
    def parse(cls, text: str | bytes) -> PlanFile:
        """Reads JSON text. Raises InvalidData for what is no plan, InvalidArgument for values out of range."""
        data = text.encode() if isinstance(text, str) else text
        handle = c_void_p()
        check(library().unweight_plan_parse(data, len(data), byref(handle)))
        return cls(handle)

    def __del__(self) -> None:
        # At the interpreter's end the library may be gone; and there is no handle where __init__() was not reached.
        with contextlib.suppress(Exception):
            library().unweight_plan_destroy(self._handle)

    def __reduce__(self) -> tuple[Any, ...]:
        return PlanFile.parse, (self.text,)

    @property
    def text(self) -> str:
        """The JSON text."""
        return _text_of(self._handle).decode()

    def write(self, path: Path) -> None:
        """Writes the file in one step: readers see the old one or the new one."""
        check(library().unweight_plan_write(self._handle, os.fsencode(path)))

    def keeps_raw(self, tensor_name: str) -> bool:
        """Whether the tensor of that name, or the matrix that it is merged into, is to be raw; whatever the GPU."""
        raw = ctypes.c_int()
        check(library().unweight_plan_keeps_raw(self._handle, tensor_name.encode(), byref(raw)))
        return bool(raw.value)

    @property
    def gpu(self) -> str:
        """The name of the GPU that it was made for."""
        return str(json.loads(self.text)["gpu"]["name"])

    @property
    def dependent_launch(self) -> bool:
        """Whether it was decided by times with dependent launch: by which of a cell's lists."""
        return bool(json.loads(self.text)["request"]["dependent_launch"])

    def refine(
        self,
        step: Callable[[PlanFile], float],
        *,
        seconds: float = 60,
        tokens: Sequence[int] = (),
        progress: RefineCallback | bool = False,
        least_gain: float = 0.002,
        rounds: int = 5,
        passes: int = 2,
    ) -> RefineReport:
        """Tries the measured alternatives of one cell of one weight at a time in the whole model, and keeps those with
        which the step becomes faster beyond the noise. Changes the plan; also after an exception it is the best so far.

        :param step: microseconds of one step with a plan, which is like this one but for what is tried. What it raises
            ends the refinement and is raised again
        :param seconds: no new trial after that; 0: no limit
        :param tokens: numbers of tokens that the step has; none: all of the plan's
        :param progress: called before each trial; True: a line on stderr
        :param least_gain: share of the step's time that a change must bring, beyond the noise
        :param rounds: measurements of each side in a trial
        :param passes: over all cells; ends early when one changes nothing
        """
        options = refine_options(seconds, tokens, least_gain, rounds, passes)
        return refine_file(self, step, lambda file: file, lambda file: None, options, progress)

    def __repr__(self) -> str:
        return f"PlanFile(for {self.gpu})"


def _text_of(handle: Any) -> bytes:
    size = c_size_t()
    status = library().unweight_plan_text(handle, None, 0, byref(size))
    if status != _BUFFER_TOO_SMALL:
        check(status)
    text = ctypes.create_string_buffer(size.value)
    check(library().unweight_plan_text(handle, text, size.value, byref(size)))
    return text.raw


# ---- refinement -----------------------------------------------------------------------------------------------------

_Made = TypeVar("_Made")


class _Line:
    """Progress as a line on stderr: rewritten on a terminal, one after the other elsewhere."""

    def __init__(self) -> None:
        self._rewrites = sys.stderr.isatty()

    def __call__(self, now: RefineProgress) -> None:
        gain = now.first_us / now.best_us - 1
        text = (
            f"refine: {now.tried} of at most {now.total} tried in {now.seconds:.0f} s, {now.best_us:.1f} us a step "
            f"({gain:+.2%}); {now.current}"
        )
        if self._rewrites:
            columns = shutil.get_terminal_size().columns - 1
            print("\r" + text[:columns].ljust(columns), end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._rewrites:
            print(file=sys.stderr, flush=True)


class _Callbacks(Generic[_Made]):
    """Python callbacks as C functions. What one raises stops the work and is raised again by the caller."""

    def __init__(
        self,
        step: Callable[[_Made], float],
        make: Callable[[PlanFile], _Made],
        forget: Callable[[_Made], Any],
        progress: RefineCallback | None,
    ) -> None:
        self.error: BaseException | None = None
        self._step = step
        self._make = make
        self._forget = forget
        self._progress = progress
        #: By text, the two that take turns in a trial: the caller's copies, since the library's end with the call.
        self._made: dict[bytes, _Made] = {}
        self.c_step = _library.STEP_TIMER(self._on_step)
        self.c_progress = _library.REFINE_CALLBACK(self._on_progress) if progress else _library.REFINE_CALLBACK()

    def _made_of(self, handle: Any) -> _Made:
        text = _text_of(handle)
        if text in self._made:
            self._made[text] = self._made.pop(text)  # the latest is the last
        else:
            while len(self._made) > 1:
                self._forget(self._made.pop(next(iter(self._made))))
            self._made[text] = self._make(PlanFile.parse(text))
        return self._made[text]

    def _on_step(self, _: Any, handle: Any) -> float:
        try:
            return float(self._step(self._made_of(handle)))
        except BaseException as error:  # KeyboardInterrupt too must not pass through C
            self.error = error
            return 0.0

    def _on_progress(self, _: Any, progress: Any) -> int:
        assert self._progress is not None
        seen = progress.contents
        try:
            answer = self._progress(
                RefineProgress(
                    tried=seen.tried,
                    total=seen.total,
                    seconds=seen.seconds,
                    first_us=seen.first_us,
                    best_us=seen.best_us,
                    current=(seen.current or b"").decode(errors="replace"),
                )
            )
        except BaseException as error:
            self.error = error
            return 0
        return 0 if answer is False else 1

    def close(self) -> None:
        for made in self._made.values():
            self._forget(made)
        self._made.clear()


def refine_options(
    seconds: float, tokens: Sequence[int], least_gain: float, rounds: int, passes: int
) -> _library.RefineOptions:
    """Those of the C interface, where 0 stands for a default."""
    for count, name in ((rounds, "rounds"), (passes, "passes")):
        if not 1 <= count < 1 << 32:
            raise InvalidArgument(f"refine: {name} = {count} must be 1 or more", 10)
    for count in tokens:
        if not 1 <= count <= _MOST_TOKENS:
            raise InvalidArgument(f"refine: tokens = {count} must be 1 to {_MOST_TOKENS}", 10)
    options: _library.RefineOptions = sized(_library.RefineOptions)
    if tokens:
        options.tokens = (ctypes.c_uint32 * len(tokens))(*tokens)
        options.token_count = len(tokens)
    options.seconds = seconds
    options.least_gain = least_gain or sys.float_info.min
    options.rounds, options.passes = rounds, passes
    return options


def refine_file(
    file: PlanFile,
    step: Callable[[_Made], float],
    make: Callable[[PlanFile], _Made],
    forget: Callable[[_Made], Any],
    options: _library.RefineOptions,
    progress: RefineCallback | bool,
) -> RefineReport:
    """As PlanFile.refine(). The step gets what `make` makes of a plan; `forget` is told what it will not see again."""
    line = _Line() if progress is True else None
    callbacks = _Callbacks(step, make, forget, line or (None if isinstance(progress, bool) else progress))
    options.step_us = callbacks.c_step
    options.progress = callbacks.c_progress
    report = sized(_library.RefineReportStruct)
    try:
        status = library().unweight_plan_refine(file._handle, byref(options), byref(report))
    finally:
        callbacks.close()
        if line is not None:
            line.close()
    if callbacks.error is not None:
        raise callbacks.error
    check(status)
    return RefineReport(
        first_us=report.first_us,
        best_us=report.best_us,
        seconds=report.seconds,
        tried=report.tried,
        accepted=report.accepted,
        stopped=bool(report.stopped),
    )
