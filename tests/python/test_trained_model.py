# SPDX-License-Identifier: Apache-2.0
"""A real trained model (tests/data/byte-model, by examples/train_byte_model.py): what it writes through a bundle is
what it writes from its own weights."""

from __future__ import annotations

import filecmp
import json
import math
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
hf = pytest.importorskip("transformers", minversion="5.17")

import unweight
import unweight.torch as uw
import unweight.transformers

SOURCE = Path(__file__).parents[1] / "data" / "byte-model"
PROMPTS = (b"\0The statement ", b"\0class Point:\n    def __init__(self", b"\0An object's type")
pytestmark = pytest.mark.skipif(
    not (SOURCE / "model.safetensors").exists(),
    reason="tests/data/byte-model is not there: examples/train_byte_model.py makes it",
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    # As it is in the repository, whatever the files' modes there.
    folder = tmp_path_factory.mktemp("model")
    shutil.copytree(SOURCE, folder / "source")
    unweight.compress(folder / "source", folder / "bundle")
    unweight.verify(folder / "bundle", against=folder / "source")
    return folder / "bundle"


def load(folder: Path, device: str):
    return hf.AutoModelForCausalLM.from_pretrained(folder, device_map=None if device == "cpu" else device)


def write(model, prompt: bytes, length: int = 96) -> bytes:
    ids = torch.tensor([list(prompt)], device=model.device)
    with torch.no_grad():
        return bytes(model.generate(ids, max_new_tokens=length, do_sample=False)[0].tolist())


def test_it_is_a_trained_model():
    facts = json.loads((SOURCE / "training.json").read_text())
    assert facts["held_out_bits_per_byte"] < 4.5
    report = unweight.inspect(SOURCE)
    matrices = [t for t in report.tensors if t.stored == "blob"]
    assert len(matrices) == 29 and sum(math.prod(t.shape) for t in matrices) > 2e6
    assert all(t.exponent_entropy_bits < 3.2 for t in matrices)
    assert sum(t.stored_bytes for t in matrices) < 0.73 * sum(t.source_bytes for t in matrices)


def test_what_it_writes_is_the_same(bundle, device):
    original, model = load(SOURCE, device), load(bundle, device)
    assert model.hf_quantizer.report.raw == {}
    for prompt in PROMPTS:
        ids = torch.tensor([list(prompt)], device=device)
        with uw.use_plan(uw.Decoded()), torch.no_grad():
            assert torch.equal(model(ids).logits, original(ids).logits)
            assert write(model, prompt) == write(original, prompt)
        fused = [write(model, prompt) for _ in range(2)]
        assert fused[0] == fused[1]
        with torch.no_grad():
            # Sums in another order: as far from the original's logits as another algorithm of PyTorch's is.
            torch.testing.assert_close(model(ids).logits, original(ids).logits, rtol=0.05, atol=0.15)


def test_restored_files_are_identical(bundle, tmp_path):
    unweight.decompress(bundle, tmp_path / "restored")
    for file in SOURCE.iterdir():
        assert filecmp.cmp(file, tmp_path / "restored" / file.name, shallow=False)
    model = load(bundle, "cpu")
    model.save_pretrained(tmp_path / "saved")
    unweight.decompress(tmp_path / "saved", tmp_path / "again")
    assert filecmp.cmp(SOURCE / "model.safetensors", tmp_path / "again" / "model.safetensors", shallow=False)
