# SPDX-License-Identifier: Apache-2.0
"""How transformers loads bundles: straight to packed layers, without the BF16 model in between.

blob    -> weight of a packed layer, or of several that share it (tied weights, aliases)
        -> decoded, where the parameter is no weight of a layer that can be packed: it is listed in the report
raw     -> as in any checkpoint
alias   -> a copy of its original; not stored in the bundle
"""

from __future__ import annotations

import types
from collections import defaultdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
from transformers.quantizers.auto import register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils import logging
from transformers.utils.hub import cached_file

from ..bundle import StoredTensor, find_manifest, read_aliases, read_tensors
from ..errors import InvalidData, UnweightError
from ..torch.convert import KEPT_BY_PLAN, LEAST_VALUES, PackReport, decompress_model, packed_modules, prepare
from ..torch.modules import packed_shape
from ..torch.plan import current_plan, keeps_raw
from .config import METHOD, UnweightConfig
from .conversions import (
    DecodeBlobs,
    PackValues,
    PlaceBlob,
    PlaceValues,
    can_pack,
    converter,
    replace_by_packed,
    tied_names,
)

logger = logging.get_logger(__name__)


@register_quantizer(METHOD)
class UnweightHfQuantizer(HfQuantizer):
    """Registered for `quant_method: unweight`."""

    requires_calibration = False
    quantization_config: UnweightConfig

    def __init__(self, quantization_config: UnweightConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        #: What was packed and what stayed raw, and why.
        self.report = PackReport()
        self._files: list[str] = []
        self._model: Any = None

    # ---- before loading ---------------------------------------------------------------------------------------------

    def validate_environment(self, *args: Any, device_map: Any = None, **kwargs: Any) -> None:
        if isinstance(device_map, dict) and "disk" in device_map.values():
            raise UnweightError("device_map: packed layers cannot be offloaded to disk", 10)

    def update_dtype(self, dtype: torch.dtype) -> torch.dtype:
        if dtype != torch.bfloat16:
            logger.warning_once(f"dtype={dtype} is not used: unweight's models are bfloat16, as they were stored")
        return torch.bfloat16

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> None:
        self._model = model
        self._files = [str(file) for file in kwargs.get("checkpoint_files") or ()]

    def update_weight_conversions(self, weight_conversions: list[Any]) -> list[Any]:
        """The first place where all of the model's own conversions are known, and the last before loading begins."""
        model, self._model = self._model, None
        if model is None or not self.pre_quantized:
            return weight_conversions
        return _Placement(model, self, weight_conversions).conversions()

    # ---- packing a plain checkpoint as it is loaded -----------------------------------------------------------------

    def why_left(self, weight_name: str) -> str | None:
        """Whether the user, or the current plan, wants a weight left raw."""
        name = weight_name.removesuffix(".weight")
        if any(fnmatchcase(name, pattern) for pattern in self.quantization_config.modules_to_not_convert):
            return "skipped"
        return KEPT_BY_PLAN if keeps_raw(current_plan(), weight_name) else None

    def param_needs_quantization(self, model: Any, param_name: str, **kwargs: Any) -> bool:
        if not param_name.endswith(".weight") or model.get_parameter_or_buffer(param_name).dim() != 2:
            return False
        reason = self.why_left(param_name) or can_pack(model, param_name)
        if reason is None and model.get_parameter_or_buffer(param_name).numel() >= LEAST_VALUES:
            return True
        self.report.raw[param_name.removesuffix(".weight")] = reason or f"fewer than {LEAST_VALUES} values"
        return False

    def get_quantize_ops(self) -> Any:
        return PackValues(self.quantization_config.threads, self.report)

    # ---- after loading ----------------------------------------------------------------------------------------------

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        model._weight_conversions = [c for c in model._weight_conversions if not _is_ours(c)]
        # Loading shared what is tied by itself; from now on the model may know of it again.
        model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)
        for name, _, module in packed_modules(model):
            if module.weight.device.type != "meta" and packed_shape(module.weight) != module._matrix():
                raise InvalidData(f"'{name}.weight' holds {packed_shape(module.weight)}, not {module._matrix()}", 33)
        prepare(model)
        if self.report.raw:
            names = ", ".join(sorted(self.report.raw))
            logger.info(f"unweight: {self.report}: {names}")
        attach(model, self)
        return model

    def _dequantize(self, model: Any, dtype: torch.dtype | None = None) -> Any:
        decompress_model(model)
        model.__dict__.pop("save_pretrained", None)
        return model.to(dtype) if dtype not in (None, torch.bfloat16) else model

    # ---- what the model can do --------------------------------------------------------------------------------------

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        """Adapters and whatever stayed raw; packed weights are frozen."""
        return True

    @property
    def is_compileable(self) -> bool:
        return True

    def get_state_dict_and_metadata(self, model: Any) -> tuple[None, dict[str, str]]:
        if getattr(model, "_hf_peft_config_loaded", False):
            return None, {}
        raise UnweightError(
            "this model's save_pretrained() was replaced or lost: call unweight.transformers.save_pretrained(model, "
            "folder)",
            10,
        )


def attach(model: Any, quantizer: UnweightHfQuantizer) -> None:
    """Makes the model save itself as a bundle."""
    from .save import save_pretrained

    model.hf_quantizer = quantizer
    model.save_pretrained = types.MethodType(save_pretrained, model)


def _is_ours(conversion: Any) -> bool:
    return isinstance(conversion, WeightConverter) and any(
        isinstance(operation, (PlaceBlob, PlaceValues)) for operation in conversion.operations
    )


class _Placement:
    """Where a bundle's tensors go in a model, which is on the meta device. Replaces modules by packed ones."""

    def __init__(self, model: Any, quantizer: UnweightHfQuantizer, model_conversions: list[Any]) -> None:
        self.model = model
        self.quantizer = quantizer
        self.report = quantizer.report
        self.threads = quantizer.quantization_config.threads
        self.model_conversions = model_conversions
        self.parameters = model.state_dict()
        self.stored: dict[str, StoredTensor] = {}
        for file in quantizer._files:
            if not file.endswith(".safetensors"):
                raise UnweightError(f"'{file}': a bundle's tensors lie in safetensors files", 33)
            self.stored.update(read_tensors(file))
        self.aliases: dict[str, list[str]] = defaultdict(list)
        for alias in self._read_aliases():
            self.aliases[alias.original].append(alias.name)

    def _read_aliases(self) -> list[Any]:
        files = self.quantizer._files
        manifest = find_manifest(files)
        if manifest is None and files:
            # A repository, of which only the files asked for are here.
            config = self.model.config
            where = {"revision": getattr(config, "_commit_hash", None), "_raise_exceptions_for_missing_entries": False}
            for name in ("unweight/manifest.sha256", "unweight/manifest.json"):
                found = cached_file(config.name_or_path, name, **where)
                manifest = Path(found) if found else None
        if manifest is None:
            raise UnweightError(
                f"'{self.model.config.name_or_path}' has no unweight/manifest.json: it is no bundle, or no whole one",
                33,
            )
        root = manifest.parent.parent
        loaded = {Path(file).absolute().relative_to(root).as_posix() for file in files}
        return read_aliases(manifest, loaded.__contains__)

    def conversions(self) -> list[Any]:
        """The model's own conversions and, before them, one for each tensor that does not just go to its place."""
        renamings = [c for c in self.model_conversions if isinstance(c, WeightRenaming)]
        converters = [c for c in self.model_conversions if isinstance(c, WeightConverter)]
        ours: list[WeightConverter] = []
        needs_decoding: dict[str, StoredTensor] = {}
        for name, stored in self.stored.items():
            target, pattern = self._target(name, renamings, converters)
            if pattern is not None:
                if self.aliases.get(name):
                    raise UnweightError(
                        f"'{name}' has aliases and is part of a conversion of this model's: decompress the bundle", 33
                    )
                if stored.form is not None:
                    needs_decoding[name] = stored
                continue
            if target not in self.parameters:
                continue  # the loader reports it
            made = self._place(stored, self._targets(name, target, renamings, converters))
            if made is not None:
                # The loader looks for conversions after the renamings alone, before it adds the base model's prefix.
                renamed, _ = rename_source_key(name, renamings, [])
                ours.append(converter(renamed, *made))
        if needs_decoding:
            for conversion in converters:
                conversion.operations.insert(0, DecodeBlobs(needs_decoding, self.threads))
            self.report.raw.update(dict.fromkeys(needs_decoding, "part of a conversion of this model's"))
        return ours + self.model_conversions

    def _target(self, name: str, renamings: list[Any], converters: list[Any]) -> tuple[str, str | None]:
        prefix = self.model.base_model_prefix
        target, pattern = rename_source_key(name, renamings, converters, prefix, self.parameters)
        if target not in self.parameters and name in self.parameters:
            return name, None
        return target, pattern

    def _targets(self, name: str, target: str, renamings: list[Any], converters: list[Any]) -> list[str]:
        """All parameters that get a tensor's values: its own, those of its aliases, those tied to them."""
        targets = [target]
        for alias in self.aliases.get(name, ()):
            of_alias, pattern = self._target(alias, renamings, converters)
            if pattern is not None:
                raise UnweightError(
                    f"'{alias}' is an alias and part of a conversion of this model's: decompress the bundle", 33
                )
            if of_alias in self.parameters:
                targets.append(of_alias)
        taken = set(self.stored) - {name}
        for known in list(targets):
            targets += [tied for tied in tied_names(self.model, known) if tied not in taken]
        for known in targets:
            for tied in tied_names(self.model, known):
                if tied in taken:
                    logger.warning(f"'{known}' and '{tied}' are stored with different values: not tied")
                    self.model.all_tied_weights_keys.pop(known, None)
                    self.model.all_tied_weights_keys.pop(tied, None)
        return list(dict.fromkeys(targets))

    def _place(self, stored: StoredTensor, targets: list[str]) -> tuple[list[str], Any] | None:
        """Targets and operation of a conversion, or None where the tensor just goes to its place."""
        if stored.form is not None:
            reasons = {target: self._why_raw(stored, target) for target in targets}
            if not any(reasons.values()):
                return self._pack(stored, targets)
            for target, reason in reasons.items():
                self.report.raw[target.removesuffix(".weight")] = reason or "it is tied to a raw one"
        elif len(targets) == 1 or all(target in tied_names(self.model, targets[0]) for target in targets[1:]):
            return None  # the loader ties by itself
        raw_targets = [t for i, t in enumerate(targets) if not any(t in tied_names(self.model, s) for s in targets[:i])]
        return raw_targets, PlaceValues(stored, self.threads)

    def _pack(self, stored: StoredTensor, targets: list[str]) -> tuple[list[str], Any] | None:
        size = stored.end - stored.begin  # of a distribution blob, less than it will be
        for target in targets:
            replace_by_packed(self.model, target, torch.empty(size, dtype=torch.uint8, device="meta"))
            self.report.packed.append(target.removesuffix(".weight"))
        assert stored.matrix is not None
        self.report.bytes_before += 2 * stored.matrix[1] * stored.matrix[2]
        self.report.bytes_after += size
        if len(targets) == 1 and stored.form == "runtime":
            return None
        return targets, PlaceBlob(stored, self.threads)

    def _why_raw(self, stored: StoredTensor, target: str) -> str | None:
        reason = self.quantizer.why_left(target) or can_pack(self.model, target)
        if reason is None and stored.matrix != (1, *self.parameters[target].shape):
            return f"it is {tuple(self.parameters[target].shape)}, stored as {stored.matrix}"
        return reason
