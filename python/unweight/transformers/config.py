# SPDX-License-Identifier: Apache-2.0
"""`quantization_config` of bundles, and the configuration that asks for packing when a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers.quantizers.auto import register_quantization_config
from transformers.utils.quantization_config import QuantizationConfigMixin

METHOD = "unweight"


@register_quantization_config(METHOD)
class UnweightConfig(QuantizationConfigMixin):
    """What `config.json` of a bundle says; or, given to from_pretrained() for a plain BF16 checkpoint, that its weights
    are to be packed as they are loaded.

    :param modules_to_not_convert: patterns (`fnmatch`) of names of modules to leave raw
    :param threads: of the CPU codec; 0: one per logical CPU
    """

    def __init__(
        self,
        *,
        modules_to_not_convert: Sequence[str] = (),
        threads: int = 0,
        format_version: int = 1,
        container_version: int = 1,
        profile: str = "runtime",
        manifest: str = "unweight/manifest.json",
        **ignored: Any,
    ) -> None:
        self.quant_method = METHOD  # type: ignore[assignment]
        if format_version != 1 or container_version not in (1, 2):
            raise ValueError(
                f"format version {format_version} in container version {container_version} is not supported: this "
                "version of unweight reads 1 in 1 and 2"
            )
        self.format_version = format_version
        self.container_version = container_version
        self.profile = profile
        self.manifest = manifest
        self.modules_to_not_convert = list(modules_to_not_convert)
        self.threads = threads
