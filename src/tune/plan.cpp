// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <fmt/format.h>
#include <format/layout.hpp>
#include <new>
#include <tune/names.hpp>
#include <unweight/plan.hpp>
#include <unweight/version.h>

namespace unweight {
namespace {

/// "0.1" of "0.1.7".
std::string_view release_of(std::string_view version) {
  const std::size_t dot = version.find('.');
  return version.substr(0, dot == std::string_view::npos ? dot : version.find('.', dot + 1));
}

Result<void> refuse(const std::string& why) { return fail(ErrorCode::kInvalidArgument, "plan: " + why); }

}  // namespace

std::string_view pipeline_name(Pipeline pipeline) noexcept { return tune::name_of(tune::kPipelineNames, pipeline); }

std::string_view exception_class_name(ExceptionClass exceptions) noexcept {
  return tune::name_of(tune::kExceptionClassNames, exceptions);
}

std::string_view layout_name(BlobLayout layout) noexcept { return tune::name_of(tune::kLayoutNames, layout); }

std::string_view objective_name(Objective objective) noexcept {
  return tune::name_of(tune::kObjectiveNames, objective);
}

std::string_view choice_source_name(ChoiceSource source) noexcept {
  return tune::name_of(tune::kChoiceSourceNames, source);
}

ExceptionClass exception_class(std::uint64_t exception_units, std::uint64_t tiles) noexcept {
  constexpr std::uint64_t kUsualUnits = 24, kManyUnits = 128;  // a tile
  const std::uint64_t units = tiles == 0 ? 0 : exception_units / tiles;
  if (units <= kUsualUnits) return ExceptionClass::kUsual;
  return units <= kManyUnits ? ExceptionClass::kMany : ExceptionClass::kDense;
}

ExceptionClass exception_class(const BlobInfo& info) noexcept {
  // Extended entries take two units; there are so few that they do not matter here.
  return exception_class(info.exception_count + info.escaped_tiles * format::kEscapedTileUnits, info.tile_count);
}

std::string describe(const WeightClass& weight) {
  std::string text = fmt::format("{} x {}, {}", weight.rows, weight.cols, layout_name(weight.layout));
  if (weight.exceptions != ExceptionClass::kUsual) {
    text += fmt::format(", {} exceptions", exception_class_name(weight.exceptions));
  }
  return text;
}

const PlanWeight* Plan::find(const WeightClass& weight) const noexcept {
  const auto found = std::ranges::find(weights, weight, &PlanWeight::weight);
  return found == weights.end() ? nullptr : &*found;
}

bool Plan::keeps_raw(std::string_view tensor_name) const {
  const std::string merged = tune::merged_name(tensor_name);
  return std::ranges::any_of(matrices, [&](const PlanMatrices& equal) {
    const auto end =
        equal.names.begin() + static_cast<std::ptrdiff_t>(std::min<std::uint64_t>(equal.raw, equal.names.size()));
    return std::any_of(equal.names.begin(), end,
                       [&](const std::string& name) { return name == tensor_name || name == merged; });
  });
}

Result<void> plan_suits(const Plan& plan, const DeviceIdentity& device) try {
  const PlanOrigin& origin = plan.origin;
  if (origin.gpu != device.gpu || origin.multiprocessors != device.multiprocessors) {
    return refuse(fmt::format("it was made for {} with {} multiprocessors; this is {} with {}", origin.gpu,
                              origin.multiprocessors, device.gpu, device.multiprocessors));
  }
  if (release_of(origin.library) != release_of(UNWEIGHT_VERSION_STRING)) {
    return refuse(fmt::format("it was made by unweight {}; this is {}", origin.library, UNWEIGHT_VERSION_STRING));
  }
  if (origin.kernels != device.kernels) {
    return refuse(fmt::format("it was made for the kernels {}; this library has {}", origin.kernels, device.kernels));
  }
  return {};
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

}  // namespace unweight
