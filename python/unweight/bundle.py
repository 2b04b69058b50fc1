# SPDX-License-Identifier: Apache-2.0
"""Reading bundles (docs/CONTAINER.md) tensor by tensor, for loaders: which tensors are blobs, and which are aliases."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .blob import Form, inspect
from .errors import InvalidData

_MAGIC: dict[bytes, Form] = {b"UNWEIGHT": "runtime", b"UNWTDIST": "distribution"}
_HEADER_BYTES = 256  #: of a blob
_MOST_JSON_BYTES = 100_000_000
_BAD_BUNDLE = 33


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as it lies in one of a bundle's safetensors files."""

    name: str
    file: str  #: path of the safetensors file
    dtype: str
    shape: tuple[int, ...]
    begin: int  #: of its bytes in the file
    end: int
    form: Form | None  #: of a blob; None: raw
    matrix: tuple[int, int, int] | None  #: batch, rows and columns that a blob holds


@dataclass(frozen=True)
class Alias:
    """A tensor that is not stored, since another one has the same bytes."""

    name: str
    original: str
    original_file: str  #: relative to the bundle


def _bad(message: str) -> InvalidData:
    return InvalidData(message, _BAD_BUNDLE)


def read_tensors(path: str | os.PathLike[str]) -> dict[str, StoredTensor]:
    """All tensors of a safetensors file, by name."""
    file = os.fspath(path)
    with open(file, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        prefix = stream.read(8)
        if len(prefix) < 8:
            raise _bad(f"'{file}': {size} bytes are no safetensors file")
        (json_bytes,) = struct.unpack("<Q", prefix)
        if json_bytes > min(size - 8, _MOST_JSON_BYTES):
            raise _bad(f"'{file}': a header of {json_bytes} bytes in a file of {size}")
        try:
            header = json.loads(stream.read(json_bytes))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            return {name: _stored(stream, file, name, entry, 8 + json_bytes, size) for name, entry in entries.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, InvalidData):
                raise
            raise _bad(f"'{file}': its header is not one of safetensors: {error}") from error


def _stored(stream: Any, file: str, name: str, entry: dict[str, Any], data_begin: int, size: int) -> StoredTensor:
    begin, end = (data_begin + int(offset) for offset in entry["data_offsets"])
    shape = tuple(int(extent) for extent in entry["shape"])
    if not data_begin <= begin <= end <= size:
        raise _bad(f"'{file}': tensor '{name}' lies outside of the file")
    form: Form | None = None
    matrix = None
    if entry["dtype"] == "U8" and len(shape) == 1 and end - begin >= _HEADER_BYTES:
        stream.seek(begin)
        head = stream.read(_HEADER_BYTES)
        form = _MAGIC.get(head[:8])
        if form is not None:
            batch, rows, cols = struct.unpack_from("<QQQ", head, 32)
            matrix = (batch, rows, cols)
    return StoredTensor(name, file, str(entry["dtype"]), shape, begin, end, form, matrix)


def find_manifest(files: Iterable[str]) -> Path | None:
    """The manifest of the bundle that has one of these files; None where it does not lie there."""
    for file in files:
        for folder in list(Path(file).absolute().parents)[:4]:
            if (folder / "unweight" / "manifest.json").is_file():
                return folder / "unweight" / "manifest.json"
        break
    return None


def read_aliases(manifest: Path, is_loaded: Callable[[str], bool]) -> list[Alias]:
    """Aliases of the files for which is_loaded(path in the bundle) holds, after a check of the manifest's SHA-256."""
    data = manifest.read_bytes()
    recorded = (manifest.parent / "manifest.sha256").read_text(encoding="ascii").split()
    if not recorded or recorded[0] != hashlib.sha256(data).hexdigest():
        raise _bad(f"'{manifest}': its SHA-256 is not the recorded one")
    try:
        content = json.loads(data)
        if content["container_version"] not in (1, 2):
            raise _bad(f"'{manifest}': container version {content['container_version']} is not supported")
        found = []
        for entry in content["files"]:
            if not is_loaded(entry["path"]):
                continue
            for alias in entry.get("aliases", ()):
                if not is_loaded(alias["original_file"]):
                    raise _bad(
                        f"'{manifest}': '{alias['tensor']}' of '{entry['path']}' is stored in "
                        f"'{alias['original_file']}', which is not loaded"
                    )
                found.append(Alias(alias["tensor"], alias["original_tensor"], alias["original_file"]))
        return found
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InvalidData):
            raise
        raise _bad(f"'{manifest}': {error!r}") from error


def check_blob(stored: StoredTensor, data: Any) -> None:
    """Validates a blob's header and tables against what the file's header says of it."""
    assert stored.form is not None
    info = inspect(data, form=stored.form)
    if info.shape != stored.matrix or info.blob_bytes != stored.end - stored.begin:
        raise _bad(f"'{stored.file}': tensor '{stored.name}' is not the blob that its header announces")
