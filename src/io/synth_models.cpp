// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <io/synth_models.hpp>

namespace unweight::io {
namespace {

constexpr std::string_view kGemma2_2bItConfig = R"json({
  "architectures": [
    "Gemma2ForCausalLM"
  ],
  "attention_bias": false,
  "attention_dropout": 0.0,
  "attn_logit_softcapping": 50.0,
  "bos_token_id": 2,
  "cache_implementation": "hybrid",
  "eos_token_id": [
    1,
    107
  ],
  "final_logit_softcapping": 30.0,
  "head_dim": 256,
  "hidden_act": "gelu_pytorch_tanh",
  "hidden_activation": "gelu_pytorch_tanh",
  "hidden_size": 2304,
  "initializer_range": 0.02,
  "intermediate_size": 9216,
  "max_position_embeddings": 8192,
  "model_type": "gemma2",
  "num_attention_heads": 8,
  "num_hidden_layers": 26,
  "num_key_value_heads": 4,
  "pad_token_id": 0,
  "query_pre_attn_scalar": 256,
  "rms_norm_eps": 1e-06,
  "rope_theta": 10000.0,
  "sliding_window": 4096,
  "torch_dtype": "bfloat16",
  "transformers_version": "4.42.4",
  "use_cache": true,
  "vocab_size": 256000
}
)json";

constexpr std::string_view kGemma2_2bItGeneration = R"json({
  "_from_model_config": true,
  "bos_token_id": 2,
  "cache_implementation": "hybrid",
  "eos_token_id": [
    1,
    107
  ],
  "pad_token_id": 0,
  "transformers_version": "4.42.4"
}
)json";

constexpr std::string_view kLlama31_8bConfig = R"json({
  "architectures": [
    "LlamaForCausalLM"
  ],
  "attention_bias": false,
  "attention_dropout": 0.0,
  "bos_token_id": 128000,
  "eos_token_id": 128001,
  "hidden_act": "silu",
  "hidden_size": 4096,
  "initializer_range": 0.02,
  "intermediate_size": 14336,
  "max_position_embeddings": 131072,
  "mlp_bias": false,
  "model_type": "llama",
  "num_attention_heads": 32,
  "num_hidden_layers": 32,
  "num_key_value_heads": 8,
  "pretraining_tp": 1,
  "rms_norm_eps": 1e-05,
  "rope_scaling": {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3"
  },
  "rope_theta": 500000.0,
  "tie_word_embeddings": false,
  "torch_dtype": "bfloat16",
  "transformers_version": "4.43.0.dev0",
  "use_cache": true,
  "vocab_size": 128256
}
)json";

constexpr std::string_view kLlama31Generation = R"json({
  "_from_model_config": true,
  "bos_token_id": 128000,
  "eos_token_id": 128001,
  "transformers_version": "4.43.0.dev0",
  "do_sample": true,
  "temperature": 0.6,
  "top_p": 0.9
}
)json";

constexpr std::string_view kLlama31_70bConfig = R"json({
  "architectures": [
    "LlamaForCausalLM"
  ],
  "attention_bias": false,
  "attention_dropout": 0.0,
  "bos_token_id": 128000,
  "eos_token_id": 128001,
  "hidden_act": "silu",
  "hidden_size": 8192,
  "initializer_range": 0.02,
  "intermediate_size": 28672,
  "max_position_embeddings": 131072,
  "mlp_bias": false,
  "model_type": "llama",
  "num_attention_heads": 64,
  "num_hidden_layers": 80,
  "num_key_value_heads": 8,
  "pretraining_tp": 1,
  "rms_norm_eps": 1e-05,
  "rope_scaling": {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3"
  },
  "rope_theta": 500000.0,
  "tie_word_embeddings": false,
  "torch_dtype": "bfloat16",
  "transformers_version": "4.43.0.dev0",
  "use_cache": true,
  "vocab_size": 128256
}
)json";

constexpr std::string_view kMistral7bV03Config = R"json({
  "architectures": [
    "MistralForCausalLM"
  ],
  "attention_dropout": 0.0,
  "bos_token_id": 1,
  "eos_token_id": 2,
  "hidden_act": "silu",
  "hidden_size": 4096,
  "initializer_range": 0.02,
  "intermediate_size": 14336,
  "max_position_embeddings": 32768,
  "model_type": "mistral",
  "num_attention_heads": 32,
  "num_hidden_layers": 32,
  "num_key_value_heads": 8,
  "rms_norm_eps": 1e-05,
  "rope_theta": 1000000.0,
  "sliding_window": null,
  "tie_word_embeddings": false,
  "torch_dtype": "bfloat16",
  "transformers_version": "4.42.0.dev0",
  "use_cache": true,
  "vocab_size": 32768
}
)json";

constexpr std::string_view kMistral7bV03Generation = R"json({
  "_from_model_config": true,
  "bos_token_id": 1,
  "eos_token_id": 2,
  "transformers_version": "4.42.0.dev0"
}
)json";

constexpr std::string_view kQwen25_7bConfig = R"json({
  "architectures": [
    "Qwen2ForCausalLM"
  ],
  "attention_dropout": 0.0,
  "bos_token_id": 151643,
  "eos_token_id": 151643,
  "hidden_act": "silu",
  "hidden_size": 3584,
  "initializer_range": 0.02,
  "intermediate_size": 18944,
  "max_position_embeddings": 131072,
  "max_window_layers": 28,
  "model_type": "qwen2",
  "num_attention_heads": 28,
  "num_hidden_layers": 28,
  "num_key_value_heads": 4,
  "rms_norm_eps": 1e-06,
  "rope_theta": 1000000.0,
  "sliding_window": 131072,
  "tie_word_embeddings": false,
  "torch_dtype": "bfloat16",
  "transformers_version": "4.40.1",
  "use_cache": true,
  "use_mrope": false,
  "use_sliding_window": false,
  "vocab_size": 152064
}
)json";

constexpr std::string_view kQwen25_7bGeneration = R"json({
  "bos_token_id": 151643,
  "do_sample": false,
  "eos_token_id": 151643,
  "max_new_tokens": 2048,
  "transformers_version": "4.37.0"
}
)json";

constexpr std::string_view kQwen3_06bConfig = R"json({
  "architectures": [
    "Qwen3ForCausalLM"
  ],
  "attention_bias": false,
  "attention_dropout": 0.0,
  "bos_token_id": 151643,
  "eos_token_id": 151645,
  "head_dim": 128,
  "hidden_act": "silu",
  "hidden_size": 1024,
  "initializer_range": 0.02,
  "intermediate_size": 3072,
  "max_position_embeddings": 40960,
  "max_window_layers": 28,
  "model_type": "qwen3",
  "num_attention_heads": 16,
  "num_hidden_layers": 28,
  "num_key_value_heads": 8,
  "rms_norm_eps": 1e-06,
  "rope_scaling": null,
  "rope_theta": 1000000,
  "sliding_window": null,
  "tie_word_embeddings": true,
  "torch_dtype": "bfloat16",
  "transformers_version": "4.51.0",
  "use_cache": true,
  "use_sliding_window": false,
  "vocab_size": 151936
})json";

constexpr std::string_view kQwen3_06bGeneration = R"json({
    "bos_token_id": 151643,
    "do_sample": true,
    "eos_token_id": [
        151645,
        151643
    ],
    "pad_token_id": 151643,
    "temperature": 0.6,
    "top_k": 20,
    "top_p": 0.95,
    "transformers_version": "4.51.0"
})json";

constexpr std::string_view kTinyLlamaConfig = R"json({
  "architectures": [
    "LlamaForCausalLM"
  ],
  "attention_bias": false,
  "attention_dropout": 0.0,
  "bos_token_id": 1,
  "eos_token_id": 2,
  "head_dim": 64,
  "hidden_act": "silu",
  "hidden_size": 256,
  "initializer_range": 0.02,
  "intermediate_size": 688,
  "max_position_embeddings": 2048,
  "mlp_bias": false,
  "model_type": "llama",
  "num_attention_heads": 4,
  "num_hidden_layers": 2,
  "num_key_value_heads": 2,
  "rms_norm_eps": 1e-05,
  "rope_theta": 10000.0,
  "tie_word_embeddings": false,
  "torch_dtype": "bfloat16",
  "transformers_version": "4.43.0",
  "use_cache": true,
  "vocab_size": 2000
}
)json";

constexpr std::string_view kTinyLlamaGeneration = R"json({
  "_from_model_config": true,
  "bos_token_id": 1,
  "eos_token_id": 2,
  "transformers_version": "4.43.0"
}
)json";

constexpr std::array<SynthModel, 7> kModels = {{
    {
        .name = "gemma-2-2b-it",
        .layers = 26,
        .hidden = 2304,
        .intermediate = 9216,
        .heads = 8,
        .kv_heads = 4,
        .head_dim = 256,
        .vocabulary = 256000,
        .feedforward_norms = true,
        .head = SynthHead::kAbsent,
        .config = kGemma2_2bItConfig,
        .generation_config = kGemma2_2bItGeneration,
    },
    {
        .name = "llama-3.1-70b",
        .layers = 80,
        .hidden = 8192,
        .intermediate = 28672,
        .heads = 64,
        .kv_heads = 8,
        .head_dim = 128,
        .vocabulary = 128256,
        .config = kLlama31_70bConfig,
        .generation_config = kLlama31Generation,
    },
    {
        .name = "llama-3.1-8b",
        .layers = 32,
        .hidden = 4096,
        .intermediate = 14336,
        .heads = 32,
        .kv_heads = 8,
        .head_dim = 128,
        .vocabulary = 128256,
        .config = kLlama31_8bConfig,
        .generation_config = kLlama31Generation,
    },
    {
        .name = "mistral-7b-v0.3",
        .layers = 32,
        .hidden = 4096,
        .intermediate = 14336,
        .heads = 32,
        .kv_heads = 8,
        .head_dim = 128,
        .vocabulary = 32768,
        .config = kMistral7bV03Config,
        .generation_config = kMistral7bV03Generation,
    },
    {
        .name = "qwen2.5-7b",
        .layers = 28,
        .hidden = 3584,
        .intermediate = 18944,
        .heads = 28,
        .kv_heads = 4,
        .head_dim = 128,
        .vocabulary = 152064,
        .qkv_biases = true,
        .layer_order = SynthLayerOrder::kNormsBeforeMlp,
        .max_file_bytes = 4'000'000'000,
        .config = kQwen25_7bConfig,
        .generation_config = kQwen25_7bGeneration,
    },
    {
        .name = "qwen3-0.6b",
        .layers = 28,
        .hidden = 1024,
        .intermediate = 3072,
        .heads = 16,
        .kv_heads = 8,
        .head_dim = 128,
        .vocabulary = 151936,
        .qk_norms = true,
        .head = SynthHead::kDuplicate,
        .config = kQwen3_06bConfig,
        .generation_config = kQwen3_06bGeneration,
    },
    {
        .name = "tiny-llama-test",
        .layers = 2,
        .hidden = 256,
        .intermediate = 688,
        .heads = 4,
        .kv_heads = 2,
        .head_dim = 64,
        .vocabulary = 2000,
        .max_file_bytes = 2'000'000,
        .config = kTinyLlamaConfig,
        .generation_config = kTinyLlamaGeneration,
    },
}};

}  // namespace

std::span<const SynthModel> synth_model_table() noexcept { return kModels; }

}  // namespace unweight::io
