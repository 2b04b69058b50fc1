// SPDX-License-Identifier: Apache-2.0
//
// Input: a plan file. What is accepted must come back from its own text, and survive being decided on and shown as a
// table; whatever it asks for, no lookup leads outside of it.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <tune/resolve.hpp>
#include <unweight/plan.hpp>
#include <unweight/tune.hpp>

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

/// Every choice of the plan's own weights, on the plan's own device.
void look_up(const unweight::Plan& plan) {
  for (const unweight::PlanWeight& entry : plan.weights) {
    unweight::tune::LookupRules rules;
    rules.weight = entry.weight;
    rules.device = {plan.origin.gpu, plan.origin.multiprocessors, plan.origin.kernels};
    rules.cublaslt = plan.origin.cublaslt;
    rules.can_implement = [](std::uint32_t, const unweight::MatmulConfig& config) -> unweight::Result<void> {
      if (config.strips <= 16 && config.stages <= 8) return {};
      return unweight::fail(unweight::ErrorCode::kInvalidArgument, "too many");
    };
    rules.choose_config = [](std::uint32_t) -> unweight::Result<unweight::MatmulConfig> {
      return unweight::MatmulConfig{};
    };
    const auto table = unweight::tune::resolve({{}, &plan, {}}, rules);
    if (!table) require(table.error().code == unweight::ErrorCode::kInvalidArgument);
    for (std::uint32_t tokens = 1; table && tokens <= unweight::kMaxMatmulTokens; tokens *= 2) {
      const unweight::Choice& choice = table->at(tokens).choice;
      require(choice.pipeline != unweight::Pipeline::kFused ||
              (choice.config.strips <= 16 && choice.config.stages <= 8));
      (void)unweight::nearest_cell(entry, tokens);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto plan = unweight::parse_plan({reinterpret_cast<const char*>(data), size});
  if (!plan) {
    require(!plan.error().message.empty() && plan.error().message.find('\n') == std::string::npos);
    return 0;
  }
  const std::string text = unweight::plan_text(*plan);
  const auto again = unweight::parse_plan(text);
  require(again.has_value() && unweight::plan_text(*again) == text);  // times are rounded once
  const std::string table = unweight::plan_table_text(*plan);
  require(table.find('\\') == std::string::npos);
  look_up(*plan);
  (void)unweight::memory_report(*plan);
  const unweight::ModelMatrices model{plan->request.model, plan->matrices, plan->request.other_bytes, 0};
  unweight::Plan decided = *plan;
  (void)unweight::plan_memory(decided, model, {.batch_sizes = plan->request.batch_sizes});
  return 0;
}
