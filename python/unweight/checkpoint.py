# SPDX-License-Identifier: Apache-2.0
"""Whole checkpoints: a Hugging Face style folder, or one .safetensors file, into a bundle and back, byte for byte.

Sources are only read. Output appears under its final name when it is complete and checked; the same call continues
interrupted work. Errors are those of `unweight.errors`.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from ctypes import byref, c_void_p
from dataclasses import dataclass
from typing import Any, Literal

from . import _library
from ._library import check, library, sized
from .errors import InvalidArgument

Profile = Literal["runtime", "distribution"]
Path = str | os.PathLike[str]

_PROFILES: tuple[Profile, Profile] = ("runtime", "distribution")
_STORED = ("blob", "raw", "alias")


@dataclass(frozen=True)
class Progress:
    """What a progress callback is told, at most about ten times a second."""

    bytes_done: int
    bytes_total: int
    bytes_resumed: int
    tensors_done: int
    tensors_total: int
    current: str


#: Returns False to stop: the call raises Cancelled and can be continued later. Anything else, None included, goes on.
ProgressCallback = Callable[[Progress], Any]


@dataclass(frozen=True)
class CompressReport:
    profile: Profile
    source_bytes: int
    bundle_bytes: int  #: 0 until the bundle is finished
    tensors: int
    tensors_blob: int
    tensors_raw: int
    tensors_alias: int
    blob_value_bytes: int  #: source bytes of the tensors stored as blobs
    blob_bytes: int
    bytes_resumed: int
    peak_memory_bytes: int
    seconds: float
    finished: bool  #: the bundle stands under its final name
    verified: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class RestoreReport:
    files: int
    tensors: int  #: 0 after a decompression
    bytes: int
    peak_memory_bytes: int
    seconds: float


@dataclass(frozen=True)
class TensorReport:
    file: str
    name: str
    dtype: str  #: of the source, as safetensors names it
    shape: tuple[int, ...]  #: of the source
    stored: Literal["blob", "raw", "alias"]
    alias_of: str
    source_bytes: int
    stored_bytes: int
    bits_per_weight: float
    exponent_entropy_bits: float
    exception_count: int
    palette_count: int


@dataclass(frozen=True)
class InspectReport:
    is_bundle: bool
    profile: Profile
    source_bytes: int
    stored_bytes: int
    tensors: tuple[TensorReport, ...]


class _Callbacks:
    """Python callbacks as C functions. What one raises stops the work and is raised again by the caller."""

    def __init__(self, progress: ProgressCallback | None) -> None:
        self.error: BaseException | None = None
        self.warnings: list[str] = []
        self._progress = progress
        # NULL where there is none: then the library makes no calls, which take the GIL.
        self.c_progress = _library.PROGRESS_CALLBACK(self._on_progress) if progress else _library.PROGRESS_CALLBACK()
        self.c_warning = _library.WARNING_CALLBACK(self._on_warning)

    def _on_progress(self, progress: Any, _: Any) -> int:
        assert self._progress is not None
        seen = progress.contents
        try:
            answer = self._progress(
                Progress(
                    bytes_done=seen.bytes_done,
                    bytes_total=seen.bytes_total,
                    bytes_resumed=seen.bytes_resumed,
                    tensors_done=seen.tensors_done,
                    tensors_total=seen.tensors_total,
                    current=(seen.current or b"").decode(errors="surrogateescape"),
                )
            )
        except BaseException as error:  # noqa: BLE001: KeyboardInterrupt too must not pass through C
            self.error = error
            return 1
        return 1 if answer is False else 0

    def _on_warning(self, message: bytes, _: Any) -> None:
        self.warnings.append(message.decode(errors="replace"))

    def check(self, status: int) -> None:
        if self.error is not None:
            raise self.error
        check(status)


def _path(path: Path) -> bytes:
    return os.fsencode(path)


def _profile_number(profile: str) -> int:
    if profile not in _PROFILES:
        raise InvalidArgument(f"profile = {profile!r} must be 'runtime' or 'distribution'", 10)
    return _PROFILES.index(profile)


def _run_compress(function: Any, source: Path, out: Path, callbacks: _Callbacks, **members: int) -> CompressReport:
    options = sized(_library.CompressOptions)
    options.progress = callbacks.c_progress
    options.warning = callbacks.c_warning
    for name, value in members.items():
        setattr(options, name, value)
    report = sized(_library.CompressReport)
    callbacks.check(function(_path(source), _path(out), byref(options), byref(report)))
    return CompressReport(
        profile=_PROFILES[report.profile],
        finished=bool(report.finished),
        verified=bool(report.verified),
        warnings=tuple(callbacks.warnings),
        **{
            name: getattr(report, name)
            for name in (
                "source_bytes",
                "bundle_bytes",
                "tensors",
                "tensors_blob",
                "tensors_raw",
                "tensors_alias",
                "blob_value_bytes",
                "blob_bytes",
                "bytes_resumed",
                "peak_memory_bytes",
                "seconds",
            )
        },
    )


def compress(
    source: Path,
    out: Path,
    *,
    profile: Profile = "runtime",
    threads: int = 0,
    verify: bool = True,
    shard: tuple[int, int] = (0, 1),
    progress: ProgressCallback | None = None,
) -> CompressReport:
    """Compresses a checkpoint into the bundle `out`, which must not exist.

    :param shard: this process's share of the work and the number of shares; finish() joins them
    """
    return _run_compress(
        library().unweight_compress_checkpoint,
        source,
        out,
        _Callbacks(progress),
        profile=_profile_number(profile),
        threads=threads,
        no_verify=0 if verify else 1,
        shard_index=shard[0],
        shard_count=shard[1],
    )


def finish(
    source: Path,
    out: Path,
    *,
    threads: int = 0,
    verify: bool = True,
    shards: int = 1,
    progress: ProgressCallback | None = None,
) -> CompressReport:
    """Joins the shares of compressions of the same source."""
    return _run_compress(
        library().unweight_finish_compress,
        source,
        out,
        _Callbacks(progress),
        threads=threads,
        no_verify=0 if verify else 1,
        shard_count=shards,
    )


def transcode(
    bundle: Path,
    out: Path,
    *,
    profile: Profile,
    threads: int = 0,
    verify: bool = True,
    progress: ProgressCallback | None = None,
) -> CompressReport:
    """Makes a bundle of the other profile, with the bytes that compressing the source would give."""
    return _run_compress(
        library().unweight_transcode_bundle,
        bundle,
        out,
        _Callbacks(progress),
        profile=_profile_number(profile),
        threads=threads,
        no_verify=0 if verify else 1,
    )


def _restore_options(threads: int, callbacks: _Callbacks) -> Any:
    options = sized(_library.RestoreOptions)
    options.threads = threads
    options.progress = callbacks.c_progress
    return options


def _restore_report(report: Any) -> RestoreReport:
    return RestoreReport(
        files=report.files,
        tensors=report.tensors,
        bytes=report.bytes,
        peak_memory_bytes=report.peak_memory_bytes,
        seconds=report.seconds,
    )


def decompress(bundle: Path, out: Path, *, threads: int = 0, progress: ProgressCallback | None = None) -> RestoreReport:
    """Restores the source of a bundle under `out`, which must not exist; every file's SHA-256 is checked."""
    callbacks = _Callbacks(progress)
    report = sized(_library.RestoreReport)
    callbacks.check(
        library().unweight_decompress_bundle(
            _path(bundle), _path(out), byref(_restore_options(threads, callbacks)), byref(report)
        )
    )
    return _restore_report(report)


def verify(
    bundle: Path, *, against: Path | None = None, threads: int = 0, progress: ProgressCallback | None = None
) -> RestoreReport:
    """Checks all of a bundle without writing; with `against`, also bit for bit against the source."""
    callbacks = _Callbacks(progress)
    report = sized(_library.RestoreReport)
    callbacks.check(
        library().unweight_verify_bundle(
            _path(bundle),
            _path(against) if against is not None else None,
            byref(_restore_options(threads, callbacks)),
            byref(report),
        )
    )
    return _restore_report(report)


def inspect(
    path: Path, *, values: bool = True, threads: int = 0, progress: ProgressCallback | None = None
) -> InspectReport:
    """Looks into a checkpoint or a bundle.

    :param values: read the values, for entropies and for what compression would bring to a plain checkpoint
    """
    callbacks = _Callbacks(progress)
    options = sized(_library.InspectOptions)
    options.threads = threads
    options.headers_only = 0 if values else 1
    options.progress = callbacks.c_progress
    inspection = c_void_p()
    callbacks.check(library().unweight_inspect_path(_path(path), byref(options), byref(inspection)))
    try:
        summary = sized(_library.InspectSummary)
        check(library().unweight_inspection_summary(inspection, byref(summary)))
        return InspectReport(
            is_bundle=bool(summary.is_bundle),
            profile=_PROFILES[summary.profile],
            source_bytes=summary.source_bytes,
            stored_bytes=summary.stored_bytes,
            tensors=tuple(_tensor(inspection, index) for index in range(summary.tensors)),
        )
    finally:
        library().unweight_inspection_destroy(inspection)


def _tensor(inspection: ctypes.c_void_p, index: int) -> TensorReport:
    tensor = sized(_library.TensorReport)
    check(library().unweight_inspection_tensor(inspection, index, byref(tensor)))
    text = {name: getattr(tensor, name).decode() for name in ("file", "name", "dtype", "alias_of")}
    return TensorReport(
        shape=tuple(tensor.shape[i] for i in range(tensor.rank)),
        stored=_STORED[tensor.stored],  # type: ignore[arg-type]
        source_bytes=tensor.source_bytes,
        stored_bytes=tensor.stored_bytes,
        bits_per_weight=tensor.bits_per_weight,
        exponent_entropy_bits=tensor.exponent_entropy_bits,
        exception_count=tensor.exception_count,
        palette_count=tensor.palette_count,
        **text,
    )
