# SPDX-License-Identifier: Apache-2.0
"""save_pretrained() of models with packed layers: a bundle, as `unweight compress` makes of the BF16 checkpoint."""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from transformers.core_model_loading import revert_weight_conversion
from transformers.modeling_utils import PreTrainedModel

from .. import checkpoint
from ..checkpoint import Profile
from ..errors import InvalidArgument
from ..torch.convert import packed_modules
from ..torch.fuse import FusedLinear, FusedPart

_WEIGHTS = "model{suffix}.safetensors"
_INDEX = "model.safetensors.index.json"


def save_pretrained(
    model: Any,
    save_directory: str | os.PathLike[str],
    *,
    profile: Profile = "runtime",
    max_shard_size: int | str = "5GB",
    threads: int = 0,
    is_main_process: bool = True,
    **kwargs: Any,
) -> None:
    """Writes a bundle from which from_pretrained() makes the same model, and `unweight decompress` the BF16 checkpoint.

    Needs space beside the folder for the BF16 checkpoint, and memory for one of its shards. Files in the folder that
    are not the model's, such as a tokenizer, stay. With adapters of PEFT loaded, they alone are saved, as always.
    """
    if getattr(model, "_hf_peft_config_loaded", False):
        type(model).save_pretrained(model, save_directory, is_main_process=is_main_process, **kwargs)
        return
    unsupported = {
        name: value for name, value in kwargs.items() if value not in (None, False) and name != "safe_serialization"
    }
    if unsupported:
        raise InvalidArgument(f"save_pretrained() of a packed model does not support {sorted(unsupported)}", 10)
    if not is_main_process:
        return
    folder = Path(save_directory)
    if folder.exists() and not folder.is_dir():
        raise InvalidArgument(f"'{folder}' is no folder", 10)
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.absolute().parent) as work:
        source, made = Path(work) / "source", Path(work) / "bundle"
        write_checkpoint(model, source, max_shard_size)
        checkpoint.compress(source, made, profile=profile, threads=threads)
        _move_into(made, folder)


def _move_into(made: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for stale in (*folder.glob("model*.safetensors"), folder / _INDEX):
        stale.unlink(missing_ok=True)
    shutil.rmtree(folder / "unweight", ignore_errors=True)
    for entry in made.iterdir():
        os.replace(entry, folder / entry.name)


def write_checkpoint(model: Any, folder: Path, max_shard_size: int | str) -> None:
    """The BF16 checkpoint that the model stands for, as transformers writes it, one shard in memory at a time."""
    folder.mkdir()
    _write_config(model, folder)
    makers = _tensors(model)
    shapes = {name: maker.stand_in for name, maker in makers.items()}
    split = split_torch_state_dict_into_shards(shapes, filename_pattern=_WEIGHTS, max_shard_size=max_shard_size)
    for file, names in split.filename_to_tensors.items():
        save_file({name: makers[name].make() for name in names}, folder / file, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / _INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_config(model: Any, folder: Path) -> None:
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype = str(model.dtype).removeprefix("torch.")
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    if isinstance(model, PreTrainedModel) and model.can_generate():
        model.generation_config.save_pretrained(folder)


class _Maker:
    """A tensor of the checkpoint: something with its shape now, its values when they are written."""

    def __init__(self, stand_in: torch.Tensor, values: Callable[[], torch.Tensor]) -> None:
        self.stand_in = stand_in
        self._values = values

    def make(self) -> torch.Tensor:
        return self._values().detach().cpu().contiguous()


def _tensors(model: Any) -> dict[str, _Maker]:
    """By the names that they have in a checkpoint. Of tied ones, the one that the others are tied to."""
    state = {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, torch.Tensor)}
    makers: dict[int, _Maker] = {}
    stand_ins: dict[str, torch.Tensor] = {}

    def add(name: str, shape: tuple[int, ...], values: Callable[[], torch.Tensor]) -> None:
        stand_in = torch.empty(shape, dtype=torch.bfloat16, device="meta")
        stand_ins[name] = stand_in
        makers[id(stand_in)] = _Maker(stand_in, values)

    for name, _, module in packed_modules(model):
        del state[f"{name}.weight"]
        if not isinstance(module, FusedLinear):
            add(f"{name}.weight", module._matrix(), module.decoded_weight)
        else:
            state.pop(f"{name}.bias", None)
    for name, module in model.named_modules():
        if isinstance(module, FusedPart):
            add(f"{name}.weight", (module.out_features, module.in_features), module.decoded_weight)
            if module.bias is not None:
                state[f"{name}.bias"] = module.bias.clone()
    for pattern in getattr(model, "_keys_to_ignore_on_save", None) or ():
        stand_ins.pop(pattern, None)
        state.pop(pattern, None)
    for target, source in getattr(model, "all_tied_weights_keys", {}).items():
        if source in stand_ins or source in state:
            stand_ins.pop(target, None)
            state.pop(target, None)
    return _under_checkpoint_names(model, {**state, **stand_ins}, makers)


def _under_checkpoint_names(
    model: Any, tensors: dict[str, torch.Tensor], makers: dict[int, _Maker]
) -> dict[str, _Maker]:
    if not isinstance(model, PreTrainedModel):
        reverted = tensors
    else:
        reverted = revert_weight_conversion(model, dict(tensors))
        if any(tensor.device.type == "meta" and id(tensor) not in makers for tensor in reverted.values()):
            # One of the model's own conversions takes packed weights apart: it needs their values.
            tensors = {name: makers[id(t)].make() if id(t) in makers else t for name, t in tensors.items()}
            reverted = revert_weight_conversion(model, tensors)
    return {
        name: makers.get(id(tensor)) or _Maker(tensor, lambda t=tensor: t)  # type: ignore[misc]
        for name, tensor in reverted.items()
    }
