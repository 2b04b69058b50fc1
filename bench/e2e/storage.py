# SPDX-License-Identifier: Apache-2.0
"""Loading from files, memory, how many models a GPU holds, and exactness; for one of the two kinds of checkpoint, in a
process of its own, so that memory is what that kind needs.

    python storage.py write SHAPE FOLDER             a BF16 checkpoint with random weights, and its bundle
    python storage.py dense|packed FOLDER OUT.pt     loads FOLDER/dense or FOLDER/packed; prints a line of JSON
"""

from __future__ import annotations

import copy
import json
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

import unweight
import unweight.torch as uw
import unweight.transformers  # from_pretrained() then knows bundles

from linears import use_blas
from shape import BF16, SHAPES, Shape, random_matrix
from timing import gib, relative_error, say, synchronise

LAYERS_PER_FILE = 4
PROMPT = 128  #: tokens whose logits are compared
GENERATED = 16
RESERVE_BYTES = 3 << 30  #: that every copy of a model must leave free, to generate with


def write_checkpoint(shape: Shape, folder: Path, device: str) -> None:
    """All layers different, as in a trained model, so that nothing is stored once for two of them."""
    folder.mkdir(parents=True)
    shape.config().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config.update(architectures=["LlamaForCausalLM"], dtype="bfloat16")
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    generator = torch.Generator(device=device).manual_seed(3)
    heads, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    sizes = {
        "self_attn.q_proj": (heads, shape.hidden),
        "self_attn.k_proj": (kv, shape.hidden),
        "self_attn.v_proj": (kv, shape.hidden),
        "self_attn.o_proj": (shape.hidden, heads),
        "mlp.gate_proj": (shape.intermediate, shape.hidden),
        "mlp.up_proj": (shape.intermediate, shape.hidden),
        "mlp.down_proj": (shape.hidden, shape.intermediate),
    }
    places: dict[str, str] = {}

    def norm() -> torch.Tensor:
        return (1 + 0.05 * torch.randn(shape.hidden, device=device, generator=generator)).to(BF16)

    def write(name: str, tensors: dict[str, torch.Tensor]) -> None:
        save_file({key: tensor.cpu() for key, tensor in tensors.items()}, folder / name, metadata={"format": "pt"})
        places.update(dict.fromkeys(tensors, name))

    for begin in range(0, shape.layers, LAYERS_PER_FILE):
        tensors = {}
        for layer in range(begin, min(begin + LAYERS_PER_FILE, shape.layers)):
            prefix = f"model.layers.{layer}"
            for name, (rows, cols) in sizes.items():
                tensors[f"{prefix}.{name}.weight"] = random_matrix(rows, cols, generator)
            tensors[f"{prefix}.input_layernorm.weight"] = norm()
            tensors[f"{prefix}.post_attention_layernorm.weight"] = norm()
        write(f"model-{begin:05d}.safetensors", tensors)
    write(
        "model-ends.safetensors",
        {
            "model.embed_tokens.weight": torch.randn(
                shape.vocabulary, shape.hidden, device=device, generator=generator
            ).to(BF16),
            "model.norm.weight": norm(),
            "lm_head.weight": random_matrix(shape.vocabulary, shape.hidden, generator),
        },
    )
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


class HostMemory:
    """The most memory that the process had of its own, beyond what it had before: without mapped files, whose pages the
    system takes back when it likes."""

    def __enter__(self) -> HostMemory:
        self.before = self.peak = self._now()
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.005):
            self.peak = max(self.peak, self._now())

    @staticmethod
    def _now() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))

    @property
    def grown(self) -> int:
        return self.peak - self.before


def load(folder: Path, device: str) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoModelForCausalLM

    begin = time.perf_counter()
    with HostMemory() as host:
        model = AutoModelForCausalLM.from_pretrained(folder, device_map=device, attn_implementation="sdpa")
        synchronise()
    facts: dict[str, Any] = {"load_s": time.perf_counter() - begin}
    if device == "cuda":
        facts["gpu_gib_after_load"] = gib(torch.cuda.memory_allocated())
        facts["gpu_gib_peak_of_load"] = gib(torch.cuda.max_memory_allocated())
    facts["host_gib_of_its_own"] = gib(host.grown)
    facts["host_gib_peak"] = gib(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    return model, facts


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    return model(ids).logits[0].float().cpu()


def generate(model: Any, ids: torch.Tensor) -> list[int]:
    return model.generate(ids, max_new_tokens=GENERATED, do_sample=False)[0, ids.shape[1] :].tolist()


def measure_dense(model: Any, ids: torch.Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
    found = {}
    for backend in ("cublas", "cublaslt"):
        use_blas(backend)
        found[f"logits_{backend}"] = logits(model, ids)
    use_blas("default")
    found["logits"] = logits(model, ids)
    found["logits_of_one"] = logits(model, ids[:, :1])
    found["generated"] = generate(model, ids)
    return {}, found


def measure_packed(model: Any, ids: torch.Tensor, source: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    found: dict[str, Any] = {}
    with uw.use_plan(uw.Decoded()):
        found["logits"], found["generated"] = logits(model, ids), generate(model, ids)
        found["logits_of_one"] = logits(model, ids[:, :1])
    with uw.use_plan(uw.Rules()):
        fused = [logits(model, ids) for _ in range(2)]
        generated = [generate(model, ids) for _ in range(2)]
        found["logits_fused"], found["generated_fused"] = fused[0], generated[0]
    facts = {
        "fused_logits_same_twice": bool(torch.equal(*fused)),
        "fused_tokens_same_twice": generated[0] == generated[1],
        **compare_weights(model, source),
    }
    return facts, found


def compare_weights(model: Any, source: Path) -> dict[str, Any]:
    """Every packed weight, decoded where it lies, with the file that it was made from."""
    modules = {name: module for name, module in model.named_modules() if isinstance(module, (uw.Linear, uw.Embedding))}
    same = values = 0
    for file in sorted(source.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                module = modules.get(name.removesuffix(".weight"))
                if module is None:
                    continue
                decoded = module.decoded_weight()
                original = tensors.get_tensor(name).to(decoded.device)
                same += int(torch.equal(decoded.view(torch.int16), original.view(torch.int16)))
                values += decoded.numel()
    return {"matrices": len(modules), "matrices_identical": same, "values_compared": values}


def fill_the_card(model: Any, ids: torch.Tensor) -> int:
    """How many such models lie in the GPU's memory, each with room to generate, which each does. The first one is
    loaded from files, the others are copies of it."""
    models = [model]
    expected = generate(model, ids)
    size = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    while (
        torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        > size + RESERVE_BYTES
    ):
        models.append(copy.deepcopy(model))
        if generate(models[-1], ids) != expected:
            raise AssertionError(f"copy {len(models)} generates something else")
    return len(models)


def main() -> None:
    torch.set_grad_enabled(False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    command, first, second = sys.argv[1:4]
    if command == "write":
        folder = Path(second)
        begin = time.perf_counter()
        write_checkpoint(SHAPES[first], folder / "dense", device)
        written = time.perf_counter()
        report = unweight.compress(folder / "dense", folder / "packed")
        facts = {
            "write_s": written - begin,
            "compress_s": report.seconds,
            "source_gib": gib(report.source_bytes),
            "bundle_gib": gib(report.bundle_bytes),
            "bits_per_weight": 16 * report.blob_bytes / report.blob_value_bytes,
        }
        print(json.dumps(facts))
        return
    folder = Path(first)
    model, facts = load(folder / command, device)
    say(f"{command}: loaded in {facts['load_s']:.1f} s")
    ids = torch.randint(0, model.config.vocab_size, (1, PROMPT), generator=torch.Generator().manual_seed(5)).to(device)
    more, found = measure_dense(model, ids) if command == "dense" else measure_packed(model, ids, folder / "dense")
    torch.save(found, second)
    if device == "cuda":
        facts["gpu_gib_peak"] = gib(torch.cuda.max_memory_allocated())
        torch.cuda.empty_cache()
        facts["models_on_the_card"] = fill_the_card(model, ids)
    print(json.dumps({**facts, **more}))


def compare(dense: dict[str, Any], packed: dict[str, Any]) -> dict[str, Any]:
    """The two processes' results."""
    return {
        "decoded_logits_identical": bool(torch.equal(dense["logits"], packed["logits"])),
        "decoded_logits_of_one_token_identical": bool(torch.equal(dense["logits_of_one"], packed["logits_of_one"])),
        "decoded_tokens_identical": dense["generated"] == packed["generated"],
        "fused_tokens_identical": dense["generated"] == packed["generated_fused"],
        "fused_logits_error": relative_error(packed["logits_fused"], dense["logits"]),
        "bf16_logits_error_between_backends": relative_error(dense["logits_cublaslt"], dense["logits_cublas"]),
        "fused_logits_error_of_last_token": relative_error(packed["logits_fused"][-1], dense["logits"][-1]),
        "bf16_logits_error_between_backends_of_last_token": relative_error(
            dense["logits_cublaslt"][-1], dense["logits_cublas"][-1]
        ),
    }


if __name__ == "__main__":
    main()
