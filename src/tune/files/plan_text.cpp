// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <io/file.hpp>
#include <io/json_text.hpp>
#include <io/try.hpp>
#include <tune/choice.hpp>
#include <tune/files/plan_members.hpp>
#include <unistd.h>

namespace unweight {
namespace {

using io::JsonWriter;
using Style = JsonWriter::Style;
using namespace tune::plan_members;

void add_choice(JsonWriter& json, const Choice& choice) {
  json.member(kPipeline, pipeline_name(choice.pipeline));
  if (choice.pipeline != Pipeline::kFused) {
    if (!choice.algorithm.first_proposal()) json.member(kAlgorithm, tune::algorithm_text(choice.algorithm));
    return;
  }
  json.key(kConfig);
  json.begin_object(Style::kLine);
  for (const tune::ConfigMember& member : tune::kConfigMembers) {
    const std::uint32_t value = member.get(choice.config);
    json.key(member.name);
    json.raw(member.flag == nullptr ? std::to_string(value) : value != 0 ? "true" : "false");
  }
  json.end_object();
}

void add_measurements(JsonWriter& json, std::string_view name, const std::vector<Measurement>& measurements) {
  json.key(name);
  json.begin_array();
  for (const Measurement& measured : measurements) {
    json.begin_object(Style::kLine);
    add_choice(json, measured.choice);
    json.key(kUs);
    json.raw(fmt::format("{:.3f}", measured.us));
    json.key(kNoise);
    json.raw(fmt::format("{:.4f}", measured.noise));
    json.end_object();
  }
  json.end_array();
}

void add_origin(JsonWriter& json, const PlanOrigin& origin) {
  json.key(kGpu);
  json.begin_object(Style::kLine);
  json.member(kName, origin.gpu);
  json.member(kMultiprocessors, origin.multiprocessors);
  json.member(kMemoryBytes, origin.memory_bytes);
  json.end_object();
  json.key(kSoftware);
  json.begin_object(Style::kLine);
  json.member(kDriver, origin.driver);
  json.member(kCuda, origin.cuda);
  json.member(kCublaslt, origin.cublaslt);
  json.member(kLibrary, origin.library);
  json.member(kKernels, origin.kernels);
  json.end_object();
  json.member(kDate, origin.date);
  json.member(kCommand, origin.command);
}

void add_request(JsonWriter& json, const PlanRequest& request) {
  json.key(kRequest);
  json.begin_object();
  json.member(kObjective, objective_name(request.objective));
  json.key(kBatchSizes);
  json.begin_array(Style::kLine);
  for (const std::uint32_t tokens : request.batch_sizes) json.number(tokens);
  json.end_array();
  json.member(kMemoryBudgetBytes, request.memory_budget_bytes);
  json.key(kDependentLaunch);
  json.raw(request.dependent_launch ? "true" : "false");
  json.member(kModel, request.model);
  json.member(kOtherBytes, request.other_bytes);
  json.member(kKvBytesPerToken, request.kv_bytes_per_token);
  json.end_object();
}

void add_matrices(JsonWriter& json, const std::vector<PlanMatrices>& all) {
  json.key(kMatrices);
  json.begin_array();
  for (const PlanMatrices& equal : all) {
    json.begin_object();
    json.member(kKind, equal.kind);
    json.member(kRows, equal.rows);
    json.member(kCols, equal.cols);
    json.member(kExceptions, exception_class_name(equal.exceptions));
    json.member(kCompressedBytes, equal.compressed_bytes);
    json.member(kRawBytes, equal.raw_bytes);
    json.member(kRaw, equal.raw);
    json.key(kNames);
    json.begin_array();
    for (const std::string& name : equal.names) json.string(name);
    json.end_array();
    json.end_object();
  }
  json.end_array();
}

void add_weight(JsonWriter& json, const PlanWeight& entry) {
  json.begin_object();
  json.member(kRows, entry.weight.rows);
  json.member(kCols, entry.weight.cols);
  json.member(kLayout, layout_name(entry.weight.layout));
  json.member(kExceptions, exception_class_name(entry.weight.exceptions));
  json.member(kBytes, entry.bytes);
  json.key(kCells);
  json.begin_array();
  for (const PlanCell& cell : entry.cells) {
    json.begin_object();
    json.member(kTokens, cell.tokens);
    json.key(kCublasUs);
    json.raw(fmt::format("{:.3f}", cell.cublas_us));
    add_measurements(json, kIsolated, cell.isolated);
    add_measurements(json, kDependent, cell.dependent);
    json.end_object();
  }
  json.end_array();
  json.end_object();
}

}  // namespace

std::string plan_text(const Plan& plan) {
  JsonWriter json;
  json.begin_object();
  json.member(kVersion, std::uint64_t{kFileVersion});
  add_origin(json, plan.origin);
  add_request(json, plan.request);
  add_matrices(json, plan.matrices);
  json.key(kWeights);
  json.begin_array();
  for (const PlanWeight& entry : plan.weights) add_weight(json, entry);
  json.end_array();
  json.end_object();
  return json.text() + "\n";
}

Result<void> write_plan(const Plan& plan, const std::filesystem::path& path) {
  return io::guarded([&]() -> Result<void> {
    const std::filesystem::path full = std::filesystem::absolute(path);
    std::filesystem::path temporary = full;
    temporary += fmt::format(".{}.partial", getpid());
    auto written = io::write_text_atomically(full, temporary, plan_text(plan));
    if (!written) (void)io::remove_file(temporary);
    return written;
  });
}

}  // namespace unweight
