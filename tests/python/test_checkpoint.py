# SPDX-License-Identifier: Apache-2.0
"""Whole checkpoints, without PyTorch."""

from __future__ import annotations

import filecmp
import json
import struct
from pathlib import Path

import numpy as np
import pytest

import unweight
from unweight import blob, bundle
from unweight.errors import Cancelled, FileProblem, InvalidArgument, InvalidData

from conftest import trained_bits


def write_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """uint16 arrays as BF16, others by their dtype."""
    names = {"uint16": "BF16", "float32": "F32", "uint8": "U8"}
    header, data = {}, b""
    for name, array in tensors.items():
        header[name] = {
            "dtype": names[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + array.nbytes],
        }
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    write_safetensors(
        folder / "model.safetensors",
        {
            "a.weight": trained_bits((96, 128), 1),
            "b.weight": trained_bits((96, 128), 1),
            "c.weight": trained_bits((3, 48, 128), 2),
            "norm": trained_bits((1, 64), 3)[0],
            "scale": np.ones(5, dtype=np.float32),
            "looks_like_one": np.zeros(400, dtype=np.uint8),
        },
    )
    (folder / "config.json").write_text('{"model_type": "none"}')
    return folder


def same_tree(a: Path, b: Path) -> bool:
    names = sorted(p.relative_to(a) for p in a.rglob("*") if p.is_file())
    return names == sorted(p.relative_to(b) for p in b.rglob("*") if p.is_file()) and all(
        filecmp.cmp(a / name, b / name, shallow=False) for name in names
    )


def test_round_trip(source, tmp_path):
    seen = []
    report = unweight.compress(source, tmp_path / "bundle", progress=seen.append)
    assert report.finished and report.verified and report.profile == "runtime"
    assert (report.tensors, report.tensors_blob, report.tensors_raw, report.tensors_alias) == (6, 2, 3, 1)
    assert report.bundle_bytes > 0 and report.seconds > 0 and report.warnings == ()
    assert seen[-1].bytes_done == seen[-1].bytes_total > 0 and seen[-1].tensors_done == seen[-1].tensors_total
    checked = unweight.verify(tmp_path / "bundle", against=source)
    assert checked.tensors == 6 and checked.bytes == report.source_bytes
    assert unweight.decompress(tmp_path / "bundle", tmp_path / "restored").files == 2
    assert same_tree(source, tmp_path / "restored")

    unweight.transcode(tmp_path / "bundle", tmp_path / "small", profile="distribution")
    unweight.verify(tmp_path / "small", against=source)
    unweight.compress(source, tmp_path / "small2", profile="distribution")
    assert same_tree(tmp_path / "small", tmp_path / "small2")


def test_shares(source, tmp_path):
    for share in range(2):
        assert not unweight.compress(source, tmp_path / "shared", shard=(share, 2)).finished
    assert unweight.finish(source, tmp_path / "shared", shards=2).finished
    unweight.compress(source, tmp_path / "whole")
    assert same_tree(tmp_path / "shared", tmp_path / "whole")


def test_inspect(source, tmp_path):
    unweight.compress(source, tmp_path / "bundle")
    plain, packed = unweight.inspect(source), unweight.inspect(tmp_path / "bundle")
    assert not plain.is_bundle and packed.is_bundle
    tensors = {t.name: t for t in packed.tensors}
    assert {name: t.stored for name, t in tensors.items()} == {
        "a.weight": "blob",
        "b.weight": "alias",
        "c.weight": "blob",
        "norm": "raw",
        "scale": "raw",
        "looks_like_one": "raw",
    }
    assert tensors["b.weight"].alias_of == "model.safetensors:a.weight"
    assert tensors["c.weight"].shape == (3, 48, 128) and tensors["c.weight"].dtype == "BF16"
    assert 2 < tensors["a.weight"].exponent_entropy_bits < 3
    assert unweight.inspect(tmp_path / "bundle", values=False).tensors[0].exponent_entropy_bits == 0


def test_warnings_reach_the_caller(source, tmp_path):
    (source / "config.json").write_text('{"quantization_config": {}}')
    report = unweight.compress(source, tmp_path / "bundle")
    assert len(report.warnings) == 1 and "config.json" in report.warnings[0]


def test_errors(source, tmp_path):
    with pytest.raises(FileProblem, match="cannot find"):
        unweight.compress(tmp_path / "none", tmp_path / "bundle")
    unweight.compress(source, tmp_path / "bundle")
    with pytest.raises(OSError) as raised:
        unweight.compress(source, tmp_path / "bundle")
    assert raised.value.code == 42
    with pytest.raises(InvalidData):
        unweight.decompress(source, tmp_path / "restored")
    with pytest.raises(InvalidArgument, match="profile"):
        unweight.compress(source, tmp_path / "other", profile="other")
    (source / "more").write_text("")
    with pytest.raises(InvalidData) as raised:
        unweight.verify(tmp_path / "bundle", against=source)
    assert raised.value.code == 34


def test_callbacks_stop_the_work(source, tmp_path):
    with pytest.raises(Cancelled):
        unweight.compress(source, tmp_path / "bundle", progress=lambda _: False)

    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unweight.compress(source, tmp_path / "bundle", progress=interrupted)
    assert not (tmp_path / "bundle").exists()
    unweight.compress(source, tmp_path / "bundle")  # continues
    unweight.verify(tmp_path / "bundle", against=source)


def test_bundle_reader(source, tmp_path):
    unweight.compress(source, tmp_path / "bundle")
    tensors = bundle.read_tensors(tmp_path / "bundle" / "model.safetensors")
    assert {name: t.form for name, t in tensors.items()} == {
        "a.weight": "runtime",
        "c.weight": "runtime",
        "norm": None,
        "scale": None,
        "looks_like_one": None,
    }
    a = tensors["a.weight"]
    assert a.matrix == (1, 96, 128)
    data = np.fromfile(a.file, dtype=np.uint8)[a.begin : a.end]
    bundle.check_blob(a, data)
    assert np.array_equal(blob.decode(data), trained_bits((96, 128), 1))
    manifest = bundle.find_manifest([a.file])
    assert manifest == tmp_path / "bundle" / "unweight" / "manifest.json"
    assert bundle.read_aliases(manifest, lambda path: True) == [
        bundle.Alias("b.weight", "a.weight", "model.safetensors")
    ]
    assert bundle.read_aliases(manifest, lambda path: False) == []
    manifest.write_bytes(manifest.read_bytes() + b" ")
    with pytest.raises(InvalidData, match="SHA-256"):
        bundle.read_aliases(manifest, lambda path: True)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        struct.pack("<Q", 10),
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{{",
        struct.pack("<Q", 8) + b'{"a": 1}',
        struct.pack("<Q", 56) + b'{"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}   ',
    ],
)
def test_bundle_reader_refuses(data, tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(data)
    with pytest.raises(InvalidData):
        bundle.read_tensors(tmp_path / "bad.safetensors")
