# SPDX-License-Identifier: Apache-2.0
"""Which pipeline multiplies with a packed weight, and how it is configured.

A plan is asked once for each weight and number of tokens; a CUDA graph keeps what was chosen when it was captured.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

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


_default: Plan = Rules()
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
