# SPDX-License-Identifier: Apache-2.0
"""Models packed in place: exact, restored exactly, fused, with tied weights, and what is left alone."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from conftest import assert_same, trained_bits

torch = pytest.importorskip("torch")
from torch import nn

import unweight.torch as uw

BF16 = torch.bfloat16


@pytest.fixture(autouse=True)
def _decoded():
    with uw.use_plan(uw.Decoded()):
        yield


class Scaled(nn.Embedding):
    def forward(self, input):
        return super().forward(input) * 3


class Direct(nn.Linear):
    def forward(self, input):
        return nn.functional.linear(input, self.weight * 2)


class ReadsChildren(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(128, 128)

    def forward(self, input):
        return self.inner(input.to(self.inner.weight.dtype))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = nn.Linear(128, 128), nn.Linear(128, 64), nn.Linear(128, 64)
        self.gate_proj, self.up_proj = nn.Linear(128, 192, bias=False), nn.Linear(128, 192, bias=False)
        self.down_proj = nn.Linear(192, 128, bias=False)

    def forward(self, x):
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        x = x + q + torch.cat([k, v], -1)
        return x + self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = Scaled(200, 128)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.norm = nn.LayerNorm(128)
        self.attention = nn.MultiheadAttention(128, 4, batch_first=True)
        self.direct = Direct(128, 128)
        self.reads = ReadsChildren()
        self.small = nn.Linear(128, 8)
        self.single = nn.Linear(128, 128).float()
        self.head = nn.Linear(128, 200, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = self.norm(block(x))
        x = self.reads(self.direct(self.attention(x, x, x)[0]))
        self.small(x), self.single(x.float())
        return self.head(x)


def make(device: str) -> Model:
    torch.manual_seed(0)
    model = Model().to(BF16)
    model.single.float()
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            if parameter.dim() == 2:
                bits = trained_bits(tuple(parameter.shape), seed)
                parameter.copy_(torch.from_numpy(bits.view(np.int16)).view(BF16))
    return model.to(device).eval()


@pytest.fixture
def ids(device):
    return torch.randint(0, 200, (2, 11), generator=torch.Generator().manual_seed(1)).to(device)


def test_compress_and_decompress(device, ids):
    model = make(device)
    original = copy.deepcopy(model)
    expected = model(ids)
    seen = []
    report = uw.compress_model(model, progress=seen.append)
    assert torch.equal(model(ids), expected)
    assert set(report.raw) == {"attention.out_proj", "direct", "reads.inner", "small", "single"}
    assert "reads its weight" in report.raw["reads.inner"] and "float32" in report.raw["single"]
    assert "uses its weight itself" in report.raw["direct"] and "4096" in report.raw["small"]
    assert len(report.packed) == 2 + 2 * 6 and len(seen) == len(report.packed) - 1  # the tied weight is packed once
    assert 10.9 < 16 * report.bytes_after / report.bytes_before < 13
    assert model.head.weight is model.embed.weight
    assert isinstance(model.embed, Scaled) and isinstance(model.embed, uw.Embedding)
    assert "13 " not in str(report) and "14 modules packed" in str(report)

    restored = uw.decompress_model(model)
    assert sorted(restored) == sorted(report.packed)
    assert type(model.embed) is Scaled and model.head.weight is model.embed.weight
    assert [type(m) for m in model.modules()] == [type(m) for m in original.modules()]
    for (name, found), (wanted_name, wanted) in zip(
        model.state_dict().items(), original.state_dict().items(), strict=True
    ):
        assert name == wanted_name and torch.equal(found, wanted), name
    assert torch.equal(model(ids), expected)


def test_skip(device, ids):
    model = make(device)
    expected = model(ids)
    report = uw.compress_model(model, skip=["blocks.0.*", "head"])
    assert report.raw["blocks.0.q_proj"] == report.raw["head"] == "skipped"
    assert not any(name.startswith("blocks.0.") for name in report.packed) and "embed" in report.packed
    assert torch.equal(model(ids), expected)


def test_weights_that_do_not_compress_stay(device):
    model = nn.Sequential(nn.Linear(128, 128)).to(BF16)
    with torch.no_grad():
        noise = np.random.default_rng(0).integers(0, 2**16, (128, 128), dtype=np.uint16)
        model[0].weight.copy_(torch.from_numpy(noise.view(np.int16)).view(BF16))
    report = uw.compress_model(model.to(device))
    assert report.packed == [] and "smaller" in report.raw["0"] and type(model[0]) is nn.Linear


def test_models_are_copied_and_pickled(device, ids):
    model = make(device)
    expected = model(ids)
    uw.compress_model(model, fuse=True)
    assert isinstance(model.blocks[1].q_proj, uw.FusedPart)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(ids), expected)
        assert twin.head.weight is twin.embed.weight
        assert twin.embed.weight.data_ptr() != model.embed.weight.data_ptr()
        assert twin.blocks[0].q_proj._fused[0] is twin.blocks[0].qkv_proj_packed


def test_state_dict_round_trip(device, ids):
    model, other = make(device), make(device)
    expected = model(ids)
    uw.compress_model(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    uw.compress_model(other)
    assert not torch.equal(other(ids), expected)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(ids), expected)


def test_fuse(device, ids):
    model = make(device)
    expected = model(ids)
    uw.compress_model(model)
    names = uw.fuse_model(model)
    assert names == [f"blocks.{i}.{n}" for i in range(2) for n in ("qkv_proj_packed", "gate_up_proj_packed")]
    fused = model(ids)
    # On a GPU a multiplication of another shape may sum in another order.
    torch.testing.assert_close(fused, expected, rtol=0.05, atol=0.05)
    if device == "cpu":
        assert torch.equal(fused, expected)
    block = model.blocks[0]
    assert block.qkv_proj_packed._input is None and block.qkv_proj_packed._outputs == []
    assert uw.fuse_model(model) == []
    assert "part 1" in repr(block.k_proj)

    # Called with other activations, or out of order, each part still computes its own.
    a, b = (torch.randn(3, 128, device=device, dtype=BF16) for _ in range(2))
    first = block.q_proj(a)
    assert torch.equal(block.k_proj(b), block.k_proj(b))
    assert torch.equal(block.q_proj(a), first)

    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 5, 128, device=device, dtype=BF16)
    with torch.no_grad():
        assert_same(compiled(x), block(x), device)

    assert uw.unfuse_model(model) == names
    assert torch.equal(model(ids), expected)
    uw.fuse_model(model)
    uw.decompress_model(model)
    for (name, found), wanted in zip(model.state_dict().items(), make(device).state_dict().values(), strict=True):
        assert torch.equal(found, wanted), name


def test_gradients_flow_through_fused_layers(device):
    block = make(device).blocks[0]
    x = torch.randn(2, 5, 128, device=device, dtype=BF16, requires_grad=True)
    block(x).float().pow(2).sum().backward()
    expected, x.grad = x.grad, None
    uw.compress_model(block)
    uw.fuse_model(block)
    block(x).float().pow(2).sum().backward()
    torch.testing.assert_close(x.grad, expected, rtol=0.1, atol=0.1)


def test_replaced_forwards_are_left_alone(device):
    model = nn.Sequential(nn.Linear(128, 128)).to(device, BF16)
    model[0].forward = lambda x: x
    assert uw.compress_model(model).raw == {"0": "its forward() was replaced"}


def test_modules_keep_their_hooks_and_mode(device):
    model = nn.Sequential(nn.Linear(128, 128)).to(device, BF16).train()
    calls = []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    uw.compress_model(model)
    model(torch.zeros(1, 128, device=device, dtype=BF16))
    assert calls == [1] and model[0].training and isinstance(model[0], uw.Linear)
