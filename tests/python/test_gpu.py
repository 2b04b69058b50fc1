# SPDX-License-Identifier: Apache-2.0
"""What only a GPU shows: the fused kernels through the operators, streams, CUDA graphs, memory."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import trained_bits

torch = pytest.importorskip("torch")
import torch.nn.functional as F

import unweight
import unweight.torch as uw
from unweight.errors import DeviceProblem, InvalidArgument

pytestmark = pytest.mark.gpu
BF16 = torch.bfloat16
SHAPES = ((1024, 2048), (4096, 4096), (300, 520), (28672, 4096))


def weight_of(shape: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(trained_bits(shape, seed).view(np.int16)).view(BF16).cuda()


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("shape", SHAPES)
def test_fused_multiplication(shape):
    weight = weight_of(shape)
    layer = uw.Linear.from_weight(weight, torch.randn(shape[0], device="cuda", dtype=BF16))
    for tokens in (1, 2, 8, 17, 32, 33, 64, 65, 128, 200, 1024):
        x = torch.randn(tokens, shape[1], device="cuda", dtype=BF16)
        exact = F.linear(x.double(), weight.double(), layer.bias.double())
        with uw.use_plan(uw.Rules(fused_tokens=65536)):
            found = [layer(x) for _ in range(3)]
        assert all(torch.equal(found[0], other) for other in found[1:]), tokens
        assert error(found[0], exact) < 1.2 * error(F.linear(x, weight, layer.bias), exact) + 1e-6, tokens


def test_strided_activations_are_not_copied_wrongly():
    layer = uw.Linear.from_weight(weight_of((1024, 2048)))
    wide = torch.randn(8, 4096, device="cuda", dtype=BF16)
    for x in (wide[:, :2048], wide[:, 2048:], wide[::2, 1:2049], wide[:1, :2048].expand(5, 2048), wide[:, ::2]):
        assert torch.equal(layer(x), layer(x.contiguous()))


def test_above_the_limit_weights_are_decoded():
    weight = weight_of((1024, 2048))
    layer = uw.Linear.from_weight(weight)
    x = torch.randn(70, 2048, device="cuda", dtype=BF16)
    with uw.use_plan(uw.Rules(fused_tokens=64)):
        assert torch.equal(layer(x), F.linear(x, weight))
        x = x[:64]
        assert torch.equal(layer(x), layer(x))
    x = torch.randn(65537, 2048, device="cuda", dtype=BF16)
    with uw.use_plan(uw.Rules(fused_tokens=65536)):
        assert torch.equal(layer(x), F.linear(x, weight))


class Chain(torch.nn.Module):
    """Enough layers, of shapes that split K, for a workspace to be used again while another call might still run."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([uw.Linear.from_weight(weight_of((2048, 2048), seed + i)) for i in range(8)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + layer(torch.nn.functional.rms_norm(x, (2048,)))
        return x


def capture(function):
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function()
    return graph, result


@pytest.mark.parametrize("tokens", [1, 16, 64, 256])
def test_graphs_and_streams(tokens):
    """Two graphs that were captured one after the other, replayed at the same time on two streams."""
    chains = [Chain(100 * i) for i in range(2)]
    x = torch.randn(tokens, 2048, device="cuda", dtype=BF16)
    with torch.no_grad():
        expected = [chain(x) for chain in chains]
        graphs = [capture(lambda chain=chain: chain(x)) for chain in chains]
    streams = [torch.cuda.Stream() for _ in chains]
    for _ in range(20):
        for _, result in graphs:
            result.zero_()
        torch.cuda.synchronize()
        for stream, (graph, _) in zip(streams, graphs, strict=True):
            with torch.cuda.stream(stream):
                graph.replay()
        torch.cuda.synchronize()
        for (_, result), wanted in zip(graphs, expected, strict=True):
            assert torch.equal(result, wanted)
    found = [None, None]
    for _ in range(20):
        for i, stream in enumerate(streams):
            with torch.cuda.stream(stream), torch.no_grad():
                found[i] = chains[i](x)
        torch.cuda.synchronize()
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_workspaces_of_graphs_come_back():
    """Graphs by the hundred, as a tuner makes them, need no memory that grows."""
    chain = Chain(50)
    x = torch.randn(1, 2048, device="cuda", dtype=BF16)
    with torch.no_grad():
        expected = chain(x)
        for count in range(40):
            graph, result = capture(lambda: chain(x))
            result.zero_()
            graph.replay()
            assert torch.equal(result, expected)
            del graph, result
            if count == 10:
                torch.cuda.synchronize()
                before = torch.cuda.memory_allocated()
        torch.cuda.synchronize()
        assert torch.cuda.memory_allocated() <= before + (64 << 20)


def test_first_use_while_capturing_is_refused():
    chain = Chain(1).cpu().cuda()  # packing has seen the weights where they lay before
    x = torch.randn(1, 2048, device="cuda", dtype=BF16)
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(DeviceProblem, match="prepare"), torch.cuda.graph(graph), torch.no_grad():
        chain(x)
    torch.cuda.synchronize()
    assert uw.prepare(chain) == 8
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), torch.no_grad():
        found = chain(x)
    graph.replay()
    with torch.no_grad():
        assert torch.equal(found, chain(x))


@pytest.mark.parametrize("mode", [None, "reduce-overhead"])
def test_compiled(mode):
    chain = Chain(7)
    torch._dynamo.reset()
    compiled = torch.compile(chain, fullgraph=True, mode=mode)
    with torch.no_grad():
        for tokens in (1, 1, 1, 8, 8, 8):
            x = torch.randn(tokens, 2048, device="cuda", dtype=BF16)
            # Norms are fused, and round less often.
            torch.testing.assert_close(compiled(x).clone(), chain(x), rtol=0.05, atol=0.1)


def test_weights_move_between_devices():
    weight = weight_of((1024, 2048))
    layer = uw.Linear.from_weight(weight)
    x = torch.randn(3, 2048, device="cuda", dtype=BF16)
    expected = layer(x)
    for _ in range(3):  # memory is given back and taken again
        layer = layer.cpu()
        torch.cuda.empty_cache()
        others = [torch.zeros(layer.weight.numel(), dtype=torch.uint8, device="cuda") for _ in range(2)]
        layer = layer.cuda()
        assert torch.equal(layer(x), expected)
        del others
    with pytest.raises(InvalidArgument, match="x is on cpu"):
        layer(x.cpu())


def test_misaligned_weights_are_refused():
    packed = uw.pack(weight_of((1024, 2048)))
    memory = torch.empty(packed.numel() + 128, dtype=torch.uint8, device="cuda")
    memory[64 : 64 + packed.numel()].copy_(packed)
    with pytest.raises(InvalidArgument, match="128"):
        torch.ops.unweight.decode(memory[64 : 64 + packed.numel()], 1024, 2048)


def test_damaged_headers_are_refused():
    packed = uw.pack(weight_of((1024, 2048)))
    packed[40] ^= 1
    with pytest.raises(unweight.UnweightError):
        torch.ops.unweight.decode(packed, 1024, 2048)


def test_prefetch():
    layer = uw.Linear.from_weight(weight_of((1024, 2048)))
    uw.prefetch_l2(layer.weight)
    uw.prefetch_l2(layer.weight, 4096, 1 << 20)
    torch.cuda.synchronize()
    with pytest.raises(InvalidArgument, match="cpu"):
        uw.prefetch_l2(layer.weight.cpu())


def test_many_threads():
    import threading

    chain = Chain(3)
    x = torch.randn(4, 2048, device="cuda", dtype=BF16)
    with torch.no_grad():
        expected = chain(x)
    wrong = []

    def work():
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream), torch.no_grad():
            for _ in range(20):
                if not torch.equal(chain(x), expected):
                    wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_loading_never_holds_the_model_twice(tmp_path):
    hf = pytest.importorskip("transformers", minversion="5.17")
    import unweight.transformers

    import models

    config = hf.LlamaConfig(
        **{
            **models._COMMON,
            "hidden_size": 2048,
            "intermediate_size": 5632,
            "num_hidden_layers": 4,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "vocab_size": 32000,
        }
    )
    torch.manual_seed(0)
    model = hf.LlamaForCausalLM(config).to(BF16)
    model.save_pretrained(tmp_path / "source")
    dense_bytes = sum(2 * p.numel() for p in model.parameters())
    del model
    unweight.compress(tmp_path / "source", tmp_path / "bundle")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "bundle", device_map="cuda")
    peak = torch.cuda.max_memory_allocated() - before
    assert model.hf_quantizer.report.raw == {}
    packed_bytes = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    assert packed_bytes < 0.75 * dense_bytes
    assert peak < 1.15 * packed_bytes and torch.cuda.memory_allocated() - before < 1.05 * packed_bytes


@pytest.mark.skipif(not torch.cuda.is_available() or torch.cuda.device_count() < 2, reason="one GPU")
def test_several_gpus(tmp_path):
    hf = pytest.importorskip("transformers", minversion="5.17")
    import unweight.transformers

    import models

    for family in ("llama", "llama-tied"):
        folder = tmp_path / family
        original = models.save(family, folder / "source").cuda()
        unweight.compress(folder / "source", folder / "bundle")
        half = {
            "model.embed_tokens": 0,
            "model.layers.0": 0,
            "model.layers.1": 1,
            "model.norm": 1,
            "model.rotary_emb": 0,
            "lm_head": 0 if "tied" in family else 1,
        }
        ids = models.tokens()
        for device_map in (half, "balanced"):
            model = hf.AutoModelForCausalLM.from_pretrained(folder / "bundle", device_map=device_map)
            with uw.use_plan(uw.Decoded()), torch.no_grad():
                found = model(ids.cuda(0)).logits.cpu()
            assert torch.equal(found, models.logits(original, ids))
        report = uw.decompress_model(model)
        assert report
        with torch.no_grad():
            assert torch.equal(model(ids.cuda(0)).logits.cpu(), models.logits(original, ids))
