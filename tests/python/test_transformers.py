# SPDX-License-Identifier: Apache-2.0
"""Models of transformers: loaded from bundles, saved as bundles, packed as they are loaded."""

from __future__ import annotations

import filecmp
import json
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
hf = pytest.importorskip("transformers", minversion="5.17")

import unweight
import unweight.torch as uw
import unweight.transformers
from unweight.errors import InvalidData, UnweightError
from unweight.torch.modules import _Packed

import models
from conftest import assert_same


@pytest.fixture(autouse=True)
def _decoded():
    with uw.use_plan(uw.Decoded()):
        yield


def load(folder: Path, device: str = "cpu", **options):
    model, info = hf.AutoModelForCausalLM.from_pretrained(
        folder, device_map=None if device == "cpu" else device, output_loading_info=True, **options
    )
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    return model


def packed_names(model) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, _Packed)}


def layer_names(model) -> set[str]:
    kinds = (torch.nn.Linear, torch.nn.Embedding)
    return {name for name, module in model.named_modules() if isinstance(module, kinds)}


def same_model(a, b) -> None:
    for (name, found), (wanted_name, wanted) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert name == wanted_name and torch.equal(found.cpu(), wanted.cpu()), name


@pytest.mark.parametrize("family", models.FAMILIES)
def test_family(family, device, tmp_path):
    original = models.save(family, tmp_path / "source").to(device)
    unweight.compress(tmp_path / "source", tmp_path / "bundle")
    model = load(tmp_path / "bundle", device)
    ids = models.tokens()
    assert torch.equal(models.logits(model, ids), models.logits(original, ids))
    assert model.hf_quantizer.report.raw == {}
    assert packed_names(model) == layer_names(original)
    assert {type(m).__name__ for m in original.modules()} <= {type(m).__name__ for m in model.modules()} | {
        "Linear",
        "Embedding",
    }
    tied = original.config.tie_word_embeddings
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    assert model.config.quantization_config.quant_method == "unweight"

    found = model.generate(ids.to(device), max_new_tokens=5, do_sample=False)
    assert torch.equal(found, original.generate(ids.to(device), max_new_tokens=5, do_sample=False))

    # Saved again, the bundle stands for the same BF16 checkpoint.
    model.save_pretrained(tmp_path / "again")
    unweight.decompress(tmp_path / "again", tmp_path / "back")
    assert filecmp.cmp(tmp_path / "back" / "model.safetensors", tmp_path / "source" / "model.safetensors", False)
    assert torch.equal(models.logits(load(tmp_path / "again", device), ids), models.logits(original, ids))

    restored = model.dequantize()
    assert packed_names(restored) == set()
    same_model(restored, original)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3"])
def test_packed_as_it_is_loaded(family, device, tmp_path):
    original = models.save(family, tmp_path / "source").to(device)
    config = unweight.transformers.UnweightConfig(modules_to_not_convert=["*.o_proj"])
    model = load(tmp_path / "source", device, quantization_config=config)
    ids = models.tokens()
    assert torch.equal(models.logits(model, ids), models.logits(original, ids))
    skipped = {name for name in layer_names(original) if name.endswith("o_proj")}
    assert packed_names(model) == layer_names(original) - skipped and skipped
    assert set(model.hf_quantizer.report.raw) == skipped
    model.save_pretrained(tmp_path / "bundle")
    unweight.compress(tmp_path / "source", tmp_path / "compressed")
    for name in ("model.safetensors", "config.json"):
        assert filecmp.cmp(tmp_path / "bundle" / name, tmp_path / "compressed" / name, False), name
    unweight.verify(tmp_path / "bundle", against=tmp_path / "source")


def test_compress_model(device, tmp_path):
    original = models.save("llama-tied", tmp_path / "source").to(device)
    model = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "source").to(device)
    report = unweight.transformers.compress_model(model)
    assert set(report.packed) == layer_names(original)
    uw.fuse_model(model)
    model.save_pretrained(tmp_path / "bundle", max_shard_size="150KB")
    index = json.loads((tmp_path / "bundle" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    unweight.decompress(tmp_path / "bundle", tmp_path / "back")
    same_model(hf.AutoModelForCausalLM.from_pretrained(tmp_path / "back"), original)
    same_model(load(tmp_path / "bundle", device).dequantize(), original)


def test_saving_over_an_older_model(tmp_path):
    models.save("llama", tmp_path / "source")
    unweight.compress(tmp_path / "source", tmp_path / "bundle")
    model = load(tmp_path / "bundle")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tokenizer.json").write_text("{}")
    model.save_pretrained(tmp_path / "out", max_shard_size="100KB")
    model.save_pretrained(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "unweight",
    ]
    unweight.verify(tmp_path / "out", against=tmp_path / "source")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    with pytest.raises(UnweightError, match="push_to_hub"):
        model.save_pretrained(tmp_path / "other", push_to_hub=True)
    with pytest.raises(UnweightError, match=r"unweight.transformers.save_pretrained"):
        type(model).save_pretrained(model, tmp_path / "other")


def test_distribution_bundles(tmp_path):
    original = models.save("qwen3", tmp_path / "source")
    unweight.compress(tmp_path / "source", tmp_path / "small", profile="distribution")
    model = load(tmp_path / "small")
    ids = models.tokens()
    assert packed_names(model) == layer_names(original)
    assert torch.equal(models.logits(model, ids), models.logits(original, ids))
    unweight.compress(tmp_path / "source", tmp_path / "bundle")
    assert torch.equal(model.lm_head.weight, load(tmp_path / "bundle").lm_head.weight)


def test_aliases_that_the_model_does_not_tie(tmp_path):
    """Norms of equal values, and two layers with the same weight: stored once, loaded twice."""
    models.make("llama").save_pretrained(tmp_path / "first")
    model = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "first")
    with torch.no_grad():
        a, b = model.model.layers
        b.mlp.down_proj.weight.copy_(a.mlp.down_proj.weight)
        model.lm_head.weight.copy_(model.model.embed_tokens.weight)
        wide = torch.nn.Parameter(torch.ones(4096, dtype=torch.bfloat16))
        model.register_parameter("one", wide)
        model.register_parameter("two", torch.nn.Parameter(wide.clone()))
    type(model)._keys_to_ignore_on_load_unexpected = ["one", "two"]
    model.save_pretrained(tmp_path / "source")
    assert unweight.compress(tmp_path / "source", tmp_path / "bundle").tensors_alias == 3
    loaded = load(tmp_path / "bundle")
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert loaded.model.layers[0].mlp.down_proj.weight is loaded.model.layers[1].mlp.down_proj.weight
    ids = models.tokens()
    assert torch.equal(models.logits(loaded, ids), models.logits(model, ids))
    loaded.save_pretrained(tmp_path / "again")
    unweight.decompress(tmp_path / "again", tmp_path / "back")
    back = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "back")
    assert torch.equal(models.logits(back, ids), models.logits(model, ids))


class TwoNorms(hf.LlamaForCausalLM):
    """With norms long enough to be stored once, and a matrix that no layer has."""

    def __init__(self, config):
        super().__init__(config)
        self.first, self.second = (torch.nn.Parameter(torch.ones(4096)) for _ in range(2))
        self.table = torch.nn.Parameter(torch.zeros(128, 128))
        self.deep = torch.nn.Parameter(torch.zeros(3, 64, 128))
        self.post_init()


def test_raw_parameters(device, tmp_path):
    """Blobs of parameters that are no layer's weight are decoded; copies of raw ones are copies."""
    original = TwoNorms(models.make("llama").config).to(torch.bfloat16)
    with torch.no_grad():
        original.table.normal_(std=0.02)
        original.deep.normal_(std=0.02)
    original.save_pretrained(tmp_path / "source")
    report = unweight.compress(tmp_path / "source", tmp_path / "bundle")
    assert report.tensors_alias >= 1
    model = TwoNorms.from_pretrained(tmp_path / "bundle", device_map=None if device == "cpu" else device)
    assert set(model.hf_quantizer.report.raw) == {"table", "deep"}
    assert "no module" in model.hf_quantizer.report.raw["table"]
    for name in ("first", "second", "table", "deep"):
        assert torch.equal(getattr(model, name).cpu(), getattr(original, name)), name
    assert model.first.data_ptr() != model.second.data_ptr()


def test_skipped_modules_are_decoded(device, tmp_path):
    original = models.save("llama", tmp_path / "source").to(device)
    unweight.compress(tmp_path / "source", tmp_path / "bundle")
    config = json.loads((tmp_path / "bundle" / "config.json").read_text())
    config["quantization_config"]["modules_to_not_convert"] = ["lm_head", "*.mlp.*"]
    (tmp_path / "bundle" / "config.json").write_text(json.dumps(config))
    model = load(tmp_path / "bundle", device)
    raw = {name for name in layer_names(original) if name == "lm_head" or ".mlp." in name}
    assert packed_names(model) == layer_names(original) - raw
    assert model.hf_quantizer.report.raw == dict.fromkeys(raw, "skipped")
    assert torch.equal(models.logits(model, models.tokens()), models.logits(original, models.tokens()))


def test_other_dtypes_are_not_used(tmp_path):
    models.save("llama", tmp_path / "source")
    unweight.compress(tmp_path / "source", tmp_path / "bundle")
    assert load(tmp_path / "bundle", dtype=torch.float16).dtype == torch.bfloat16


def test_damaged_bundles_are_refused(tmp_path):
    models.save("llama", tmp_path / "source")
    unweight.compress(tmp_path / "source", tmp_path / "bundle")
    manifest = tmp_path / "bundle" / "unweight" / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"', "'", 1))
    with pytest.raises(InvalidData, match="SHA-256"):
        load(tmp_path / "bundle")
    shutil.rmtree(tmp_path / "bundle" / "unweight")
    with pytest.raises(UnweightError, match=r"no unweight/manifest.json"):
        load(tmp_path / "bundle")


def test_deepcopies_save_themselves(tmp_path):
    import copy

    models.save("llama", tmp_path / "source")
    unweight.compress(tmp_path / "source", tmp_path / "bundle")
    model = load(tmp_path / "bundle")
    twin = copy.deepcopy(model)
    assert twin.save_pretrained.__self__ is twin
    twin.save_pretrained(tmp_path / "out")
    unweight.verify(tmp_path / "out", against=tmp_path / "source")


@pytest.mark.parametrize("attach", ["peft", "transformers"])
def test_adapters(attach, device, tmp_path):
    """LoRA on packed layers: same results and gradients as on the original ones."""
    peft = pytest.importorskip("peft")
    models.save("llama", tmp_path / "source")
    unweight.compress(tmp_path / "source", tmp_path / "bundle")
    lora = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    ids, found = models.tokens().to(device), []
    for folder in ("source", "bundle"):
        model = hf.AutoModelForCausalLM.from_pretrained(
            tmp_path / folder, device_map=None if device == "cpu" else device
        )
        torch.manual_seed(1)
        if attach == "peft":
            adapted = peft.get_peft_model(model, lora)
        else:
            model.add_adapter(lora)
            adapted = model
        adapted.train()
        # PEFT gives adapters the dtype of the weights that they adapt, where it can tell.
        if folder == "source":
            adapters = {n: p.detach().clone() for n, p in adapted.named_parameters() if "lora" in n}
        for name, parameter in adapted.named_parameters():
            if "lora" in name:
                parameter.data = adapters[name].clone()
        embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
        output = adapted(inputs_embeds=embedded, labels=ids)
        output.loss.backward()
        gradients = {n: p.grad.float().cpu() for n, p in adapted.named_parameters() if p.requires_grad}
        assert gradients and all("lora" in name for name in gradients)
        found.append((output.logits.detach(), embedded.grad, gradients))
        adapted.save_pretrained(tmp_path / f"adapter-{folder}")
        assert (tmp_path / f"adapter-{folder}" / "adapter_model.safetensors").exists()
    (logits, of_x, of_adapters), (packed_logits, packed_of_x, packed_of_adapters) = found
    assert torch.equal(logits, packed_logits)
    assert_same(of_x, packed_of_x, device)
    assert of_adapters.keys() == packed_of_adapters.keys()
    for name, gradient in of_adapters.items():
        assert_same(gradient, packed_of_adapters[name], device)


def test_merging_adapters_needs_the_original_weights(tmp_path):
    peft = pytest.importorskip("peft")
    models.save("llama", tmp_path / "source")
    unweight.compress(tmp_path / "source", tmp_path / "bundle")
    model = peft.get_peft_model(
        load(tmp_path / "bundle"), peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)
    )
    before = model.base_model.model.model.layers[0].self_attn.q_proj.base_layer.weight.clone()
    with pytest.raises(RuntimeError):
        model.merge_adapter()
    assert torch.equal(before, model.base_model.model.model.layers[0].self_attn.q_proj.base_layer.weight)
