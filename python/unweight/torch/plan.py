# SPDX-License-Identifier: Apache-2.0
"""Which pipeline multiplies with a packed weight, and how it is configured.

A plan is asked once for each weight and number of tokens; a CUDA graph keeps what was chosen when it was captured.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from ..plan import Path, PlanFile
from ._device import Resolved, resolve

if TYPE_CHECKING:
    from ._device import DeviceBlob

MOST_FUSED_TOKENS = 65536  #: UNWEIGHT_MAX_MATMUL_TOKENS


@dataclass(frozen=True)
class Choice:
    """What to do for one weight and one number of tokens.

    "fused": one kernel reads the packed weight and multiplies. "decoded": the weight is decoded into memory that is
    free again afterwards, and PyTorch multiplies, with the bits that the original weight gives.
    """

    pipeline: Literal["fused", "decoded"]
    config: Any = None  #: of "fused": a MatmulConfig of the C interface
    source: str = "rules"  #: where it comes from: "plan", "built-in table", "rules"

    @property
    def needs_workspace(self) -> bool:
        return self.config is not None and bool(self.config.split)


@runtime_checkable
class Plan(Protocol):
    """Decides. Objects are compared by identity and should not change once they have been used."""

    def choose(self, weight: DeviceBlob, tokens: int) -> Choice: ...


class Rules:
    """The library's rules for up to `fused_tokens` tokens; above, weights are decoded for PyTorch's multiplication.

    :param fused_tokens: above some thousand tokens decoding costs less than it gains (docs/kernels.md)
    :param dependent_launch: kernels may start, and load weights, while the one before them in the stream still runs
    """

    def __init__(self, *, fused_tokens: int = 1024, dependent_launch: bool = True) -> None:
        if not 0 <= fused_tokens <= MOST_FUSED_TOKENS:
            raise ValueError(f"fused_tokens = {fused_tokens} must be 0 to {MOST_FUSED_TOKENS}")
        self.fused_tokens = fused_tokens
        self.dependent_launch = dependent_launch

    def choose(self, weight: DeviceBlob, tokens: int) -> Choice:
        if tokens > self.fused_tokens:
            return Choice("decoded")
        config = weight.choose_config(tokens)
        config.dependent_launch = 1 if self.dependent_launch else 0
        return Choice("fused", config)

    def __repr__(self) -> str:
        return f"Rules(fused_tokens={self.fused_tokens}, dependent_launch={self.dependent_launch})"


class Decoded(Rules):
    """Always decodes: results have the bits that the same PyTorch gives with the original weights."""

    def __init__(self) -> None:
        super().__init__(fused_tokens=0)

    def __repr__(self) -> str:
        return "Decoded()"


# As the C interface numbers them.
_FUSED = 0
_SOURCES = {1: "plan", 2: "built-in table"}


class TunedPlan(Rules):
    """What was measured: the choices of a plan file, then those of the library's built-in table for the GPU; Rules
    where neither has a say.

    Where a plan names one of cuBLASLt's algorithms, PyTorch multiplies with the decoded weight by the algorithm that it
    chooses itself. Numbers of tokens between those that were measured take the nearest, as docs/tuning.md says. A plan
    that was made for another GPU, or for other kernels, is not used, with a warning; an illegal entry raises
    InvalidArgument when the weight is used.

    :param file: or None: the built-in table alone
    :param fused_tokens: as for Rules
    :param dependent_launch: as for Rules, and which of the times measured count; None: as the plan was decided
    """

    def __init__(
        self, file: PlanFile | None = None, *, fused_tokens: int = 1024, dependent_launch: bool | None = None
    ) -> None:
        if dependent_launch is None:
            dependent_launch = file.dependent_launch if file is not None else True
        super().__init__(fused_tokens=fused_tokens, dependent_launch=dependent_launch)
        self.file = file
        #: What of the plan could not be used, and why; each one line.
        self.notes: list[str] = []
        #: By device and class of weight.
        self._found: dict[Any, list[Resolved]] = {}

    @classmethod
    def read(cls, path: Path, **options: Any) -> TunedPlan:
        """From a file; with the options of __init__(). Raises as PlanFile.read()."""
        return cls(PlanFile.read(path), **options)

    @classmethod
    def parse(cls, text: str | bytes, **options: Any) -> TunedPlan:
        """From JSON text; with the options of __init__(). Raises as PlanFile.parse()."""
        return cls(PlanFile.parse(text), **options)

    def keeps_raw(self, tensor_name: str) -> bool:
        """Whether a tensor is to be left as it is when a model is packed or loaded: PlanFile.keeps_raw()."""
        return self.file is not None and self.file.keeps_raw(tensor_name)

    def choose(self, weight: DeviceBlob, tokens: int) -> Choice:
        if not 1 <= tokens <= MOST_FUSED_TOKENS:
            return Choice("decoded")
        found = self._resolved(weight, tokens)
        if found.source not in _SOURCES:
            return super().choose(weight, tokens)
        if found.pipeline == _FUSED:
            return Choice("fused", found.config, _SOURCES[found.source])
        return Choice("decoded", None, _SOURCES[found.source])

    def _resolved(self, weight: DeviceBlob, tokens: int) -> Resolved:
        key = (weight.device_index, weight.weight_class)
        for known in self._found.get(key, ()):
            if known.first_tokens <= tokens <= known.last_tokens:
                return known
        found = resolve(weight.weight_class, tokens, self.file, self.dependent_launch)
        self._found.setdefault(key, []).append(found)
        for note in found.notes:
            if self.file is not None and note not in self.notes:
                self.notes.append(note)
                warnings.warn(f"unweight: {note}", stacklevel=2)
        return found

    def forget(self) -> None:
        """What was found: after the file has changed."""
        self._found.clear()

    def __repr__(self) -> str:
        what = "built-in table" if self.file is None else repr(self.file)
        return f"TunedPlan({what}, fused_tokens={self.fused_tokens}, dependent_launch={self.dependent_launch})"


def keeps_raw(plan: Plan, tensor_name: str) -> bool:
    """Whether a plan, if it has a say in that, wants a tensor left raw."""
    asked = getattr(plan, "keeps_raw", None)
    return asked is not None and bool(asked(tensor_name))


_default: Plan = TunedPlan()
_active: ContextVar[Plan | None] = ContextVar("unweight_plan", default=None)


def set_plan(plan: Plan) -> None:
    """The plan of all threads that are not inside use_plan()."""
    global _default
    _default = plan


def current_plan() -> Plan:
    return _active.get() or _default


@contextlib.contextmanager
def use_plan(plan: Plan) -> Iterator[None]:
    """Another plan inside a `with` block, for this thread."""
    token = _active.set(plan)
    try:
        yield
    finally:
        _active.reset(token)


def choose(weight: DeviceBlob, tokens: int) -> Choice:
    """The one place where it is decided what runs."""
    plan = current_plan()
    key = (plan, tokens)
    choice = weight.choices.get(key)
    if choice is None:
        weight.choices[key] = choice = plan.choose(weight, tokens)
    return choice
