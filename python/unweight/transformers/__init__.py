# SPDX-License-Identifier: Apache-2.0
"""transformers: importing this module registers `quant_method: unweight`.

import unweight.transformers
model = AutoModelForCausalLM.from_pretrained("bundle", device_map="cuda")   # packed layers
model.hf_quantizer.report                                                   # what is packed, what is not
model.save_pretrained("other-bundle")

# a plain BF16 checkpoint, packed as it is loaded
model = AutoModelForCausalLM.from_pretrained("model", quantization_config=unweight.transformers.UnweightConfig())
"""

from __future__ import annotations

from typing import Any

from ..errors import Missing

try:
    import transformers as _transformers
except ImportError as _error:
    raise Missing(f"unweight.transformers needs transformers, which cannot be imported: {_error}") from _error
try:
    import transformers.core_model_loading
except ImportError as _error:
    raise Missing(
        f"unweight.transformers needs transformers 5.17 or later, not {_transformers.__version__}: {_error}"
    ) from _error

from ..torch.convert import PackReport
from .config import UnweightConfig
from .quantizer import UnweightHfQuantizer, attach
from .save import save_pretrained

__all__ = ["UnweightConfig", "UnweightHfQuantizer", "compress_model", "save_pretrained"]


def compress_model(model: Any, **options: Any) -> PackReport:
    """As unweight.torch.compress_model(), for a model of transformers, which then also saves itself as a bundle."""
    from ..torch import compress_model as compress

    report = compress(model, **options)
    quantizer = UnweightHfQuantizer(UnweightConfig())
    quantizer.report = report
    model.config.quantization_config = quantizer.quantization_config
    attach(model, quantizer)
    return report
