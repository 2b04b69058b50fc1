# SPDX-License-Identifier: Apache-2.0
"""One tensor, NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import unweight
from unweight import blob
from unweight.errors import InvalidArgument, InvalidData

from conftest import every_value, trained_bits

FORMS = ("runtime", "distribution")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(1, 1), (48, 129), (3, 40, 100), (256, 768), (0, 5)])
def test_round_trip(form, shape):
    bits = every_value() if shape == (256, 768) else trained_bits(shape)
    encoded = blob.encode(bits, form=form, threads=2)
    assert encoded.dtype == np.uint8 and encoded.ndim == 1
    assert np.array_equal(blob.decode(encoded, form=form), bits)
    info = blob.verify(encoded, form=form)
    assert info == blob.inspect(encoded, form=form)
    assert info.shape == (1, *shape)[-3:]
    assert info.blob_bytes == encoded.size and info.value_bytes == 2 * bits.size


@pytest.mark.parametrize("form", FORMS)
def test_rows(form):
    bits = trained_bits((3, 40, 100))
    encoded = blob.encode(bits, form=form)
    rows = bits.reshape(120, 100)
    for begin, end in ((0, 120), (17, 95), (5, 5), (119, 120)):
        assert np.array_equal(blob.decode_rows(encoded, begin, end, form=form), rows[begin:end])
    out = np.empty((2, 100), dtype=np.uint16)
    assert blob.decode_rows(encoded, 7, 9, form=form, out=out) is out
    assert np.array_equal(out, rows[7:9])
    with pytest.raises(InvalidArgument, match="rows"):
        blob.decode_rows(encoded, 100, 121, form=form)
    with pytest.raises(InvalidArgument, match="no range"):
        blob.decode_rows(encoded, 5, 4, form=form)


def test_transcode_and_sizes():
    bits = trained_bits((512, 1024))
    runtime, distribution = blob.encode(bits), blob.encode(bits, form="distribution")
    assert np.array_equal(blob.transcode(distribution, to="runtime"), runtime)
    assert np.array_equal(blob.transcode(runtime, to="distribution"), distribution)
    assert 10 < blob.inspect(distribution, form="distribution").bits_per_weight < 10.8
    assert 11 < blob.inspect(runtime).bits_per_weight < 11.5
    assert blob.inspect(runtime).content_checksum == blob.inspect(distribution, form="distribution").content_checksum


def test_slice():
    bits = trained_bits((96, 256))
    part = blob.slice_blob(blob.encode(bits), rows=(16, 64), cols=(64, 256))
    assert np.array_equal(blob.decode(part), bits[16:64, 64:])
    with pytest.raises(InvalidArgument, match="row"):
        blob.slice_blob(blob.encode(bits), rows=(15, 64))


@pytest.mark.parametrize("form", FORMS)
def test_damage_is_reported(form):
    encoded = blob.encode(trained_bits((64, 128)), form=form)
    with pytest.raises(InvalidData) as raised:
        blob.decode(encoded[:-128], form=form)
    assert raised.value.code == 20
    damaged = encoded.copy()
    damaged[damaged.size // 2] ^= 1
    with pytest.raises(InvalidData) as raised:
        blob.verify(damaged, form=form)
    assert raised.value.code == 25
    with pytest.raises(InvalidData) as raised:
        blob.inspect(np.zeros(300, dtype=np.uint8), form=form)
    assert raised.value.code == 21
    with pytest.raises(InvalidData):
        blob.decode(encoded, form="runtime" if form == "distribution" else "distribution")


def test_arguments():
    with pytest.raises(InvalidArgument, match="float32"):
        blob.encode(np.zeros((4, 4), dtype=np.float32))
    with pytest.raises(InvalidArgument, match=r"rows, cols"):
        blob.encode(np.zeros(4, dtype=np.uint16))
    with pytest.raises(InvalidArgument, match="uint8"):
        blob.inspect(np.zeros((2, 300), dtype=np.uint8))
    with pytest.raises(InvalidArgument, match="form"):
        blob.inspect(np.zeros(300, dtype=np.uint8), form="other")
    encoded = blob.encode(trained_bits((16, 64)))
    with pytest.raises(InvalidArgument, match="writeable"):
        blob.decode(encoded, out=np.zeros((16, 64), dtype=np.int16))
    with pytest.raises(unweight.UnweightError) as raised:
        blob.decode(encoded, out=np.zeros((16, 63), dtype=np.uint16))
    assert raised.value.code == 11
    assert np.array_equal(blob.decode(bytes(encoded)), blob.decode(encoded))


def test_not_contiguous_values():
    bits = trained_bits((128, 96))
    assert np.array_equal(blob.decode(blob.encode(bits.T)), bits.T)
    assert np.array_equal(blob.decode(blob.encode(bits[::2, ::3])), bits[::2, ::3])
