// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <io/file.hpp>
#include <io/json_document.hpp>
#include <io/json_text.hpp>
#include <io/try.hpp>
#include <limits>
#include <optional>
#include <tune/choice.hpp>
#include <tune/files/plan_members.hpp>
#include <tune/names.hpp>
#include <unweight/plan.hpp>

namespace unweight {
namespace {

using namespace tune::plan_members;
using simdjson::dom::element;
using simdjson::dom::object;

constexpr std::uint64_t kMaxExtent = std::uint64_t{1} << 40;
constexpr std::uint64_t kMaxBytes = std::uint64_t{1} << 60;
constexpr double kMaxUs = 1e12;
constexpr std::size_t kMaxWeights = 4096;

tl::unexpected<Error> out_of_range(const std::string& where, const std::string& why) {
  return fail(ErrorCode::kInvalidArgument, where + ": " + why);
}

/// One object, all of whose members must be asked for.
class Members {
 public:
  /// `where` names it in errors.
  static Result<Members> of(element value, std::string where) {
    object members;
    if (value.get(members) != simdjson::SUCCESS) return fail(ErrorCode::kBadJson, where + " is not an object");
    return Members(members, std::move(where));
  }

  [[nodiscard]] const std::string& where() const { return where_; }
  [[nodiscard]] std::string where(std::string_view name) const { return fmt::format("{}, {}", where_, name); }

  Result<element> get(std::string_view name) {
    asked_.push_back(name);
    return io::json_member(object_, name, where_);
  }
  bool has(std::string_view name) {
    asked_.push_back(name);
    return std::any_of(object_.begin(), object_.end(), [&](const auto& member) { return member.key == name; });
  }

  Result<std::string> text(std::string_view name) {
    asked_.push_back(name);
    UNWEIGHT_ASSIGN(const std::string_view value, io::json_string(object_, name, where_));
    return std::string(value);
  }
  Result<std::uint64_t> number(std::string_view name, std::uint64_t least, std::uint64_t most) {
    asked_.push_back(name);
    UNWEIGHT_ASSIGN(const std::uint64_t value, io::json_number(object_, name, where_));
    if (value >= least && value <= most) return value;
    return out_of_range(where_, fmt::format("{}={} must be {} to {}", name, value, least, most));
  }
  Result<std::uint32_t> small_number(std::string_view name, std::uint32_t most) {
    UNWEIGHT_ASSIGN(const std::uint64_t value, number(name, 0, most));
    return static_cast<std::uint32_t>(value);
  }
  Result<double> real(std::string_view name, double most) {
    UNWEIGHT_ASSIGN(const element value, get(name));
    double number = 0;
    if (value.get(number) != simdjson::SUCCESS) return wrong_type(name, "a number");
    if (number >= 0 && number <= most) return number;
    return out_of_range(where_, fmt::format("{}={} must be 0 to {}", name, number, most));
  }
  Result<bool> flag(std::string_view name) {
    UNWEIGHT_ASSIGN(const element value, get(name));
    bool set = false;
    if (value.get(set) != simdjson::SUCCESS) return wrong_type(name, "true or false");
    return set;
  }
  template <class Enum, std::size_t kCount>
  Result<Enum> name(std::string_view member, const std::array<std::string_view, kCount>& names) {
    UNWEIGHT_ASSIGN(const std::string value, text(member));
    if (const auto found = tune::enum_of<Enum>(names, value)) return *found;
    return out_of_range(where_,
                        fmt::format("{} {} is none of {}", member, io::quoted_name(value), fmt::join(names, ", ")));
  }
  /// Calls `read(element, where)` for every element of an array.
  template <class Read>
  Result<void> each(std::string_view name, const Read& read) {
    asked_.push_back(name);
    UNWEIGHT_ASSIGN(const simdjson::dom::array array, io::json_array(object_, name, where_));
    std::size_t index = 0;
    for (const element value : array) UNWEIGHT_TRY(read(value, fmt::format("{}, {}[{}]", where_, name, index++)));
    return {};
  }
  Result<Members> members(std::string_view name) {
    UNWEIGHT_ASSIGN(const element value, get(name));
    return of(value, where(name));
  }

  /// Fails unless everything that is there was asked for.
  [[nodiscard]] Result<void> finish() const {
    for (const auto member : object_) {
      if (std::ranges::find(asked_, member.key) != asked_.end()) continue;
      return fail(ErrorCode::kBadJson, fmt::format("{}: member {} is not known", where_, io::quoted_name(member.key)));
    }
    return {};
  }

 private:
  Members(object members, std::string where) : object_(members), where_(std::move(where)) {}

  [[nodiscard]] tl::unexpected<Error> wrong_type(std::string_view name, const char* type) const {
    return fail(ErrorCode::kBadJson, fmt::format("{}: member '{}' is not {}", where_, name, type));
  }

  object object_;
  std::string where_;
  std::vector<std::string_view> asked_;
};

Result<MatmulConfig> read_config(Members members) {
  MatmulConfig config;
  for (const tune::ConfigMember& member : tune::kConfigMembers) {
    if (!members.has(member.name)) continue;  // its default
    if (member.flag != nullptr) {
      UNWEIGHT_ASSIGN(const bool set, members.flag(member.name));
      member.set(config, set ? 1 : 0);
    } else {
      UNWEIGHT_ASSIGN(const std::uint32_t value,
                      members.small_number(member.name, std::numeric_limits<std::uint32_t>::max()));
      member.set(config, value);
    }
  }
  UNWEIGHT_TRY(members.finish());
  return config;
}

Result<Measurement> read_measurement(element value, std::string where) {
  UNWEIGHT_ASSIGN(Members members, Members::of(value, std::move(where)));
  Measurement measured;
  UNWEIGHT_ASSIGN(measured.choice.pipeline, members.name<Pipeline>(kPipeline, tune::kPipelineNames));
  if (measured.choice.pipeline == Pipeline::kFused) {
    UNWEIGHT_ASSIGN(const Members config, members.members(kConfig));
    UNWEIGHT_ASSIGN(measured.choice.config, read_config(config));
  } else if (members.has(kAlgorithm)) {
    UNWEIGHT_ASSIGN(const std::string text, members.text(kAlgorithm));
    if (!tune::parse_algorithm(text, measured.choice.algorithm)) {
      return out_of_range(members.where(),
                          fmt::format("algorithm {} is not 128 hexadecimal digits", io::quoted_name(text)));
    }
  }
  UNWEIGHT_ASSIGN(measured.us, members.real(kUs, kMaxUs));
  UNWEIGHT_ASSIGN(measured.noise, members.real(kNoise, kMaxUs));
  UNWEIGHT_TRY(members.finish());
  return measured;
}

Result<PlanCell> read_cell(element value, std::string where) {
  UNWEIGHT_ASSIGN(Members members, Members::of(value, std::move(where)));
  PlanCell cell;
  UNWEIGHT_ASSIGN(cell.tokens, members.small_number(kTokens, kMaxMatmulTokens));
  if (!std::has_single_bit(cell.tokens)) {
    return out_of_range(members.where(), fmt::format("tokens={} must be a power of two", cell.tokens));
  }
  UNWEIGHT_ASSIGN(cell.cublas_us, members.real(kCublasUs, kMaxUs));
  for (const auto& [name, list] : {std::pair(kIsolated, &cell.isolated), std::pair(kDependent, &cell.dependent)}) {
    UNWEIGHT_TRY(members.each(name, [&, measurements = list](element item, std::string item_where) -> Result<void> {
      UNWEIGHT_ASSIGN(Measurement measured, read_measurement(item, std::move(item_where)));
      measurements->push_back(std::move(measured));
      return {};
    }));
  }
  if (cell.isolated.empty() && cell.dependent.empty()) return out_of_range(members.where(), "it has no choice");
  UNWEIGHT_TRY(members.finish());
  return cell;
}

Result<PlanWeight> read_weight(element value, std::string where) {
  UNWEIGHT_ASSIGN(Members members, Members::of(value, std::move(where)));
  PlanWeight entry;
  UNWEIGHT_ASSIGN(entry.weight.rows, members.number(kRows, 1, kMaxExtent));
  UNWEIGHT_ASSIGN(entry.weight.cols, members.number(kCols, 1, kMaxExtent));
  UNWEIGHT_ASSIGN(entry.weight.layout, members.name<BlobLayout>(kLayout, tune::kLayoutNames));
  UNWEIGHT_ASSIGN(entry.weight.exceptions, members.name<ExceptionClass>(kExceptions, tune::kExceptionClassNames));
  UNWEIGHT_ASSIGN(entry.bytes, members.number(kBytes, 0, kMaxBytes));
  UNWEIGHT_TRY(members.each(kCells, [&](element item, std::string item_where) -> Result<void> {
    UNWEIGHT_ASSIGN(PlanCell cell, read_cell(item, std::move(item_where)));
    if (!entry.cells.empty() && cell.tokens <= entry.cells.back().tokens) {
      return out_of_range(members.where(), fmt::format("cells for {} and {} tokens: they must be in increasing order",
                                                       entry.cells.back().tokens, cell.tokens));
    }
    entry.cells.push_back(std::move(cell));
    return {};
  }));
  UNWEIGHT_TRY(members.finish());
  return entry;
}

Result<PlanMatrices> read_matrices(element value, std::string where) {
  UNWEIGHT_ASSIGN(Members members, Members::of(value, std::move(where)));
  PlanMatrices equal;
  UNWEIGHT_ASSIGN(equal.kind, members.text(kKind));
  UNWEIGHT_ASSIGN(equal.rows, members.number(kRows, 1, kMaxExtent));
  UNWEIGHT_ASSIGN(equal.cols, members.number(kCols, 1, kMaxExtent));
  UNWEIGHT_ASSIGN(equal.exceptions, members.name<ExceptionClass>(kExceptions, tune::kExceptionClassNames));
  UNWEIGHT_ASSIGN(equal.compressed_bytes, members.number(kCompressedBytes, 0, kMaxBytes));
  UNWEIGHT_ASSIGN(equal.raw_bytes, members.number(kRawBytes, 0, kMaxBytes));
  UNWEIGHT_TRY(members.each(kNames, [&](element item, const std::string& item_where) -> Result<void> {
    std::string_view name;
    if (item.get(name) != simdjson::SUCCESS) return fail(ErrorCode::kBadJson, item_where + " is not a string");
    equal.names.emplace_back(name);
    return {};
  }));
  UNWEIGHT_ASSIGN(equal.raw, members.number(kRaw, 0, equal.names.size()));
  UNWEIGHT_TRY(members.finish());
  return equal;
}

Result<PlanRequest> read_request(Members members) {
  PlanRequest request;
  UNWEIGHT_ASSIGN(request.objective, members.name<Objective>(kObjective, tune::kObjectiveNames));
  UNWEIGHT_TRY(members.each(kBatchSizes, [&](element item, const std::string& item_where) -> Result<void> {
    std::uint64_t tokens = 0;
    if (item.get(tokens) != simdjson::SUCCESS) return fail(ErrorCode::kBadJson, item_where + " is not a number");
    if (tokens == 0 || tokens > kMaxMatmulTokens) {
      return out_of_range(item_where, fmt::format("{} must be 1 to {}", tokens, kMaxMatmulTokens));
    }
    request.batch_sizes.push_back(static_cast<std::uint32_t>(tokens));
    return {};
  }));
  UNWEIGHT_ASSIGN(request.memory_budget_bytes, members.number(kMemoryBudgetBytes, 0, kMaxBytes));
  UNWEIGHT_ASSIGN(request.dependent_launch, members.flag(kDependentLaunch));
  UNWEIGHT_ASSIGN(request.model, members.text(kModel));
  UNWEIGHT_ASSIGN(request.other_bytes, members.number(kOtherBytes, 0, kMaxBytes));
  UNWEIGHT_ASSIGN(request.kv_bytes_per_token, members.number(kKvBytesPerToken, 0, kMaxBytes));
  UNWEIGHT_TRY(members.finish());
  return request;
}

Result<PlanOrigin> read_origin(Members& root) {
  constexpr std::uint32_t kMostMultiprocessors = 1 << 16;
  PlanOrigin origin;
  UNWEIGHT_ASSIGN(Members gpu, root.members(kGpu));
  UNWEIGHT_ASSIGN(origin.gpu, gpu.text(kName));
  UNWEIGHT_ASSIGN(origin.multiprocessors, gpu.small_number(kMultiprocessors, kMostMultiprocessors));
  UNWEIGHT_ASSIGN(origin.memory_bytes, gpu.number(kMemoryBytes, 0, kMaxBytes));
  UNWEIGHT_TRY(gpu.finish());
  UNWEIGHT_ASSIGN(Members software, root.members(kSoftware));
  UNWEIGHT_ASSIGN(origin.driver, software.text(kDriver));
  UNWEIGHT_ASSIGN(origin.cuda, software.text(kCuda));
  UNWEIGHT_ASSIGN(origin.cublaslt, software.number(kCublaslt, 0, std::numeric_limits<std::uint32_t>::max()));
  UNWEIGHT_ASSIGN(origin.library, software.text(kLibrary));
  UNWEIGHT_ASSIGN(origin.kernels, software.text(kKernels));
  UNWEIGHT_TRY(software.finish());
  UNWEIGHT_ASSIGN(origin.date, root.text(kDate));
  UNWEIGHT_ASSIGN(origin.command, root.text(kCommand));
  return origin;
}

Result<Plan> read_document(element value) {
  UNWEIGHT_ASSIGN(Members root, Members::of(value, "plan"));
  UNWEIGHT_ASSIGN(const std::uint64_t version, root.number(kVersion, 0, std::numeric_limits<std::uint64_t>::max()));
  if (version != kFileVersion) {
    return fail(ErrorCode::kUnsupportedVersion,
                fmt::format("plan: file version {}; this library reads version {}", version, kFileVersion));
  }
  Plan plan;
  UNWEIGHT_ASSIGN(plan.origin, read_origin(root));
  UNWEIGHT_ASSIGN(Members request, root.members(kRequest));
  UNWEIGHT_ASSIGN(plan.request, read_request(std::move(request)));
  UNWEIGHT_TRY(root.each(kMatrices, [&](element item, std::string where) -> Result<void> {
    UNWEIGHT_ASSIGN(PlanMatrices equal, read_matrices(item, std::move(where)));
    plan.matrices.push_back(std::move(equal));
    return {};
  }));
  UNWEIGHT_TRY(root.each(kWeights, [&](element item, std::string where) -> Result<void> {
    UNWEIGHT_ASSIGN(PlanWeight entry, read_weight(item, where));
    if (plan.weights.size() == kMaxWeights)
      return out_of_range(where, fmt::format("more than {} weights", kMaxWeights));
    if (plan.find(entry.weight) != nullptr) {
      return out_of_range(where, describe(entry.weight) + " has an entry already");
    }
    plan.weights.push_back(std::move(entry));
    return {};
  }));
  UNWEIGHT_TRY(root.finish());
  return plan;
}

}  // namespace

Result<Plan> parse_plan(std::string_view text) {
  return io::guarded([&]() -> Result<Plan> {
    if (text.size() > kMaxFileBytes) {
      return out_of_range("plan", fmt::format("{} bytes are more than {}", text.size(), kMaxFileBytes));
    }
    auto document = io::JsonDocument::parse(text);
    if (!document) return io::fail_within("plan", document.error());
    return read_document(document->root());
  });
}

Result<Plan> read_plan(const std::filesystem::path& path) {
  return io::guarded([&]() -> Result<Plan> {
    UNWEIGHT_ASSIGN(const std::string text, io::read_text(path, kMaxFileBytes));
    auto plan = parse_plan(text);
    if (!plan) return io::fail_within(path.native(), plan.error());
    return plan;
  });
}

}  // namespace unweight
