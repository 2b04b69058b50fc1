// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <io/plan_file.hpp>
#include <io/sha256.hpp>
#include <io/try.hpp>
#include <sstream>

namespace unweight::io {
namespace {

constexpr std::string_view kName = "plan";
constexpr std::string_view kFirstLine = "unweight-plan 1";
constexpr std::uint64_t kMaxBytes = std::uint64_t{1} << 30;

tl::unexpected<Error> other_run(const WorkFolder& work, const std::string& reason) {
  return fail(ErrorCode::kSourceChanged, "'" + work.root().native() + "' belongs to another run: " + reason +
                                             "; remove that folder to start again");
}

}  // namespace

Result<std::optional<PlanFile>> load_plan_file(const WorkFolder& work) {
  const auto text = read_text(work.path(kName), kMaxBytes);
  if (!text) {
    if (text.error().code == ErrorCode::kNotFound) return std::nullopt;
    return tl::unexpected(text.error());
  }
  // Written in one step: it is complete, or of another program.
  std::istringstream in(*text);
  std::string line;
  PlanFile plan;
  std::size_t alias_count = 0;
  std::getline(in, line);
  bool good = line == kFirstLine;
  good = good && static_cast<bool>(in >> plan.operation >> plan.shard_count >> plan.verify >> plan.fingerprint);
  good = good && static_cast<bool>(in >> alias_count) && is_sha256(plan.fingerprint) && plan.shard_count != 0;
  for (std::size_t i = 0; good && i < alias_count; ++i) {
    Alias alias;
    good = static_cast<bool>(in >> alias.tensor.file >> alias.tensor.tensor >> alias.original.file >>
                             alias.original.tensor);
    plan.aliases.push_back(alias);
  }
  if (!good) return other_run(work, "its plan cannot be read");
  return plan;
}

Result<void> save_plan_file(const WorkFolder& work, const PlanFile& plan) {
  std::string text = fmt::format("{}\n{} {} {} {}\n{}\n", kFirstLine, plan.operation, plan.shard_count,
                                 plan.verify ? 1 : 0, plan.fingerprint, plan.aliases.size());
  for (const Alias& alias : plan.aliases) {
    text += fmt::format("{} {} {} {}\n", alias.tensor.file, alias.tensor.tensor, alias.original.file,
                        alias.original.tensor);
  }
  return write_text_atomically(work.path(kName), work.path("plan.tmp"), text);
}

Result<void> check_same_plan(const WorkFolder& work, const PlanFile& found, const PlanFile& wanted) {
  if (found.operation != wanted.operation) return other_run(work, "it was made by " + found.operation);
  if (found.shard_count != wanted.shard_count) {
    return other_run(work,
                     fmt::format("its work is split over {} processes, not {}", found.shard_count, wanted.shard_count));
  }
  if (found.verify != wanted.verify) {
    return other_run(work, found.verify ? "it verifies what it encodes" : "it does not verify what it encodes");
  }
  if (found.fingerprint != wanted.fingerprint) {
    return other_run(work, "since then the source has changed, or it is another source, or another version ran");
  }
  return {};
}

}  // namespace unweight::io
