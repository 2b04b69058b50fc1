# SPDX-License-Identifier: Apache-2.0
"""Operators and modules: on the CPU, and on a GPU where weights are decoded, bit for bit what PyTorch computes from the
original weights."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest

from conftest import assert_same, every_value, trained_bits

torch = pytest.importorskip("torch")

import unweight
import unweight.torch as uw
from unweight import blob
from unweight.errors import InvalidArgument

BF16 = torch.bfloat16


def weight_of(bits: np.ndarray, device: str = "cpu") -> torch.Tensor:
    return torch.from_numpy(bits.view(np.int16)).view(BF16).to(device)


@pytest.fixture(autouse=True)
def _decoded():
    with uw.use_plan(uw.Decoded()):
        yield


@pytest.fixture
def pair(device):
    """A linear layer and its packed twin."""
    linear = torch.nn.Linear(128, 80, device=device, dtype=BF16)
    with torch.no_grad():
        linear.weight.copy_(weight_of(trained_bits((80, 128))))
    return linear, uw.Linear.from_weight(linear.weight, linear.bias)


def test_pack_and_unpack(device):
    weight = weight_of(every_value(), device)
    packed = uw.pack(weight)
    assert packed.device == weight.device and packed.dtype == torch.uint8
    assert torch.equal(uw.unpack(packed).view(torch.int16), weight.view(torch.int16))
    assert np.array_equal(packed.cpu().numpy(), blob.encode(every_value()))
    with pytest.raises(InvalidArgument, match="bfloat16 matrix"):
        uw.pack(weight.float())


@pytest.mark.parametrize("shape", [(128,), (1, 128), (7, 128), (2, 3, 128), (0, 128)])
def test_linear(pair, device, shape):
    linear, packed = pair
    x = torch.randn(shape, device=device, dtype=BF16)
    assert torch.equal(packed(x), linear(x))


def test_linear_of_strided_activations(pair, device):
    linear, packed = pair
    wide = torch.randn(5, 4, 300, device=device, dtype=BF16)
    for x in (
        wide[:, :, 3:131],
        wide.transpose(0, 1)[..., :128],
        wide[:, :1, :128].expand(5, 6, 128),
        wide[..., ::2][..., :128],
    ):
        assert torch.equal(packed(x), linear(x))


def test_gradients(pair, device):
    linear, packed = pair
    x = torch.randn(2, 5, 128, device=device, dtype=BF16, requires_grad=True)
    y = torch.randn(2, 5, 80, device=device, dtype=BF16)
    of_x, of_bias = [], []
    for layer in (linear, packed):
        layer.bias.requires_grad_()
        x.grad = layer.bias.grad = None
        layer(x).backward(y)
        of_x.append(x.grad)
        of_bias.append(layer.bias.grad)
    assert_same(*of_x, device)
    assert_same(*of_bias, device)
    assert packed.weight.grad is None and not packed.weight.requires_grad


def test_second_gradients(pair, device):
    _, packed = pair
    x = torch.randn(3, 128, device=device, dtype=BF16, requires_grad=True)
    (first,) = torch.autograd.grad(packed(x).float().pow(2).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.float().sum(), x)
    w = packed.decoded_weight().float()
    torch.testing.assert_close(second.float(), (2 * (w.T @ w)).sum(1).expand(3, -1), rtol=0.05, atol=0.05)


def test_operators_are_registered_soundly(pair, device):
    _, packed = pair
    x = torch.randn(4, 128, device=device, dtype=BF16, requires_grad=True)
    y = torch.randn(4, 80, device=device, dtype=BF16, requires_grad=True)
    ids = torch.tensor([[3, 0], [79, 3]], device=device)
    ops = torch.ops.unweight
    torch.library.opcheck(ops.linear.default, (x, packed.weight, packed.bias, 80))
    torch.library.opcheck(ops.linear.default, (x, packed.weight, None, 80))
    torch.library.opcheck(ops.linear_input_gradient.default, (y, packed.weight, 128))
    torch.library.opcheck(ops.embedding.default, (ids, packed.weight, 128))
    torch.library.opcheck(ops.decode.default, (packed.weight, 80, 128))


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_compile_without_graph_breaks(pair, device, backend):
    _, packed = pair
    torch._dynamo.reset()

    def step(x):
        return torch.nn.functional.silu(packed(x) * 2).sum(-1)

    compiled = torch.compile(step, fullgraph=True, backend=backend)
    for batch in (1, 3, 5):
        x = torch.randn(batch, 128, device=device, dtype=BF16)
        # Compiled, what lies between operators is rounded less often.
        torch.testing.assert_close(compiled(x), step(x), rtol=0.05, atol=0.1)
    x = torch.randn(3, 128, device=device, dtype=BF16, requires_grad=True)
    compiled(x).float().sum().backward()
    found, x.grad = x.grad, None
    step(x).float().sum().backward()
    torch.testing.assert_close(found, x.grad, rtol=0.05, atol=0.1)


def test_autocast(pair, device):
    linear, packed = pair
    x = torch.randn(3, 128, device=device, requires_grad=True)
    with pytest.raises(InvalidArgument, match="float32"):
        packed(x)
    with torch.autocast(device, torch.bfloat16):
        y = packed(x)
        assert y.dtype == BF16 and torch.equal(y, linear(x))
    y.float().sum().backward()
    assert x.grad.dtype == torch.float32


def test_embedding(device):
    table = weight_of(every_value(), device)
    embedding = uw.Embedding.from_weight(table, padding_idx=0)
    reference = torch.nn.Embedding.from_pretrained(table)
    for ids in (
        torch.randint(0, 256, (4, 7)),
        torch.tensor(255),
        torch.empty(0, 3, dtype=torch.int64),
        torch.arange(256, dtype=torch.int32).flip(0),
        torch.randint(0, 256, (6, 9)).T,
    ):
        ids = ids.to(device)
        assert torch.equal(embedding(ids).view(torch.int16), reference(ids).view(torch.int16))


def test_row_numbers_out_of_range(device):
    embedding = uw.Embedding.from_weight(weight_of(trained_bits((40, 64)), device))
    ids = torch.tensor([3, 40, -1], device=device)
    if device == "cpu":
        with pytest.raises(IndexError, match="40"):
            embedding(ids)
    else:
        found = embedding(ids)
        assert found[0].isfinite().all() and found[1:].isnan().all()


def test_arguments(pair, device):
    _, packed = pair
    x = torch.randn(3, 128, device=device, dtype=BF16)
    ops = torch.ops.unweight
    with pytest.raises(InvalidArgument, match=r"80 x 128, not 80 x 127"):
        packed(x[:, :127])
    with pytest.raises(InvalidArgument, match="80 x 128, not 79 x 128"):
        ops.linear(x, packed.weight, None, 79)
    with pytest.raises(InvalidArgument, match="bias has shape"):
        ops.linear(x, packed.weight, packed.bias[:79], 80)
    with pytest.raises(InvalidArgument, match=r"bias is torch\.float32"):
        ops.linear(x, packed.weight, packed.bias.float(), 80)
    with pytest.raises(unweight.UnweightError):
        ops.linear(x, packed.weight[:-128], None, 80)
    with pytest.raises(InvalidArgument, match="row_numbers"):
        ops.embedding(torch.zeros(3, device=device), packed.weight, 128)
    with pytest.raises(InvalidArgument, match="one-dimensional uint8"):
        uw.Linear(128, 80, x)
    with pytest.raises(InvalidArgument, match="not 80 x 127"):
        uw.Linear(127, 80, packed.weight)


def test_modules_are_ordinary_ones(pair, device):
    _, packed = pair
    x = torch.randn(3, 128, device=device, dtype=BF16)
    y = packed(x)
    assert isinstance(packed, torch.nn.Linear)
    assert "bits_per_weight=" in repr(packed) and "out_features=80" in repr(packed)
    for twin in (copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
        assert torch.equal(twin(x), y) and twin.weight.data_ptr() != packed.weight.data_ptr()
    file = io.BytesIO()
    torch.save(packed.state_dict(), file)
    file.seek(0)
    assert set(packed.state_dict()) == {"weight", "bias"}
    other = uw.Linear.from_weight(
        weight_of(trained_bits((80, 128), 5), device), torch.zeros(80, device=device, dtype=BF16)
    )
    before = other(x)
    other.load_state_dict(torch.load(file))
    assert torch.equal(other(x), y) and not torch.equal(before, y)
    assert packed.half().weight.dtype == torch.uint8


def test_state_dicts_of_other_sizes_and_kinds(device):
    a = weight_of(trained_bits((80, 128), 1), device)
    b = weight_of(every_value()[:80, :128].copy(), device)  # more exceptions: a larger blob
    layer, larger = uw.Linear.from_weight(a), uw.Linear.from_weight(b)
    assert layer.weight.shape != larger.weight.shape
    x = torch.randn(3, 128, device=device, dtype=BF16)
    layer(x)
    layer.load_state_dict(larger.state_dict())
    assert torch.equal(layer.decoded_weight().view(torch.int16), b.view(torch.int16))
    layer.load_state_dict({"weight": a})  # a plain weight is packed
    assert torch.equal(layer.decoded_weight(), a)
    with pytest.raises(RuntimeError, match="holds 80 x 64"):
        layer.load_state_dict(uw.Linear.from_weight(a[:, :64]).state_dict())


def test_written_weights_are_looked_at_again(device):
    """The same memory with another blob."""
    a, b = (weight_of(trained_bits((64, 128), seed), device) for seed in (1, 2))
    packed_a, packed_b = uw.pack(a), uw.pack(b)
    size = max(packed_a.numel(), packed_b.numel())
    memory = torch.zeros(size, dtype=torch.uint8, device=device)
    x = torch.randn(2, 128, device=device, dtype=BF16)
    for weight, packed in ((a, packed_a), (b, packed_b)):
        memory[: packed.numel()].copy_(packed)
        found = torch.ops.unweight.linear(x, memory, None, 64)
        assert torch.equal(found, torch.nn.functional.linear(x, weight))
