// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cuda_runtime_api.h>
#include <device_facts.hpp>
#include <failure.hpp>
#include <fmt/format.h>
#include <map>
#include <matmul_case.hpp>
#include <matmul_report.hpp>
#include <matmul_workload.hpp>
#include <memory>
#include <optional>
#include <progress.hpp>
#include <shapes.hpp>
#include <tuple>
#include <unweight/cublas.hpp>

namespace unweight::bench {
namespace {

constexpr double kMaxRelativeError = 1e-2;
constexpr double kKeptWithin = 1.10;  ///< of the best in screening

/// Something to be timed: a captured chain of launches.
template <class What>
struct Runner {
  What what;
  DeviceMemory workspace;  ///< of this chain alone
  std::unique_ptr<TimedGraph> graph;
  double us = 0;  ///< last median

  void measure(int replays) {
    graph->clear();
    for (int i = 0; i < replays; ++i) graph->run();
    settle();
  }
  void settle() { us = spread_of(graph->samples_us()).median; }
  [[nodiscard]] Timed<What> timed() const { return {what, spread_of(graph->samples_us())}; }
};

using ConfigRunner = Runner<MatmulConfig>;
using CublasRunner = Runner<std::string>;

template <class What>
void keep_best(std::vector<Runner<What>>& runners, std::size_t most) {
  std::sort(runners.begin(), runners.end(), [](const auto& a, const auto& b) { return a.us < b.us; });
  std::size_t kept = 0;
  while (kept < std::min(most, runners.size()) && runners[kept].us <= kKeptWithin * runners.front().us) ++kept;
  runners.erase(runners.begin() + static_cast<std::ptrdiff_t>(kept), runners.end());
}

template <class What>
void run_in_turn(std::vector<Runner<What>>& runners) {
  for (Runner<What>& runner : runners) runner.graph->run();
}

template <class What>
Timed<What> best_of(std::vector<Runner<What>>& runners) {
  for (Runner<What>& runner : runners) runner.settle();
  keep_best(runners, 1);
  return runners.front().timed();
}

/// Two streams beside another one; blocks of the first go first.
class SideStreams {
 public:
  SideStreams() {
    int least = 0, greatest = 0;
    check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "priorities of streams");
    check(cudaStreamCreateWithPriority(&first_, cudaStreamNonBlocking, greatest), "make a stream");
    check(cudaStreamCreateWithPriority(&other_, cudaStreamNonBlocking, least), "make a stream");
    for (cudaEvent_t* event : {&forked_, &first_done_, &other_done_}) {
      check(cudaEventCreateWithFlags(event, cudaEventDisableTiming), "make an event");
    }
  }
  SideStreams(const SideStreams&) = delete;
  SideStreams& operator=(const SideStreams&) = delete;
  ~SideStreams() {
    for (const cudaEvent_t event : {forked_, first_done_, other_done_}) cudaEventDestroy(event);
    cudaStreamDestroy(first_);
    cudaStreamDestroy(other_);
  }

  [[nodiscard]] cudaStream_t first() const { return first_; }
  [[nodiscard]] cudaStream_t other() const { return other_; }

  void fork(cudaStream_t from) const {
    check(cudaEventRecord(forked_, from), "fork");
    check(cudaStreamWaitEvent(first_, forked_, 0), "fork");
    check(cudaStreamWaitEvent(other_, forked_, 0), "fork");
  }
  void join(cudaStream_t to) const {
    check(cudaEventRecord(first_done_, first_), "join");
    check(cudaEventRecord(other_done_, other_), "join");
    check(cudaStreamWaitEvent(to, first_done_, 0), "join");
    check(cudaStreamWaitEvent(to, other_done_, 0), "join");
  }

 private:
  cudaStream_t first_ = nullptr, other_ = nullptr;
  cudaEvent_t forked_ = nullptr, first_done_ = nullptr, other_done_ = nullptr;
};

/// One number of tokens.
class CellBench {
 public:
  CellBench(const MatmulWorkload& workload, const CublasBaseline& cublas, const MatmulBenchOptions& options,
            std::uint32_t tokens, double read_gb_per_s)
      : workload_(workload), cublas_(cublas), options_(options), tokens_(tokens), read_gb_per_s_(read_gb_per_s) {
    cell_.tokens = tokens;
  }

  MatmulCell measure(std::string* clocks) {
    std::vector<CublasRunner> dense = screen_cublas();
    std::vector<CublasRunner> decoded, overlapped;
    if (tokens_ > 64) {
      decoded = after_decoding(dense);
      if (!options_.quick) overlapped = while_decoding();
    }
    std::vector<ConfigRunner> ours = screen(workload_.compressed(), false);
    std::vector<ConfigRunner> dependent = screen(workload_.compressed(), true);
    std::vector<ConfigRunner> raw;
    if (options_.sweep) {
      raw = screen(workload_.raw(), false);
    } else {
      raw.push_back(runner(workload_.raw(), fitted(workload_.raw(), ours.front().what)));
    }
    MatmulConfig config = value_of(choose_matmul_config(workload_.compressed().blobs.front(), tokens_));
    std::vector<ConfigRunner> chosen, chosen_dependent;
    config.dependent_launch = false;
    chosen.push_back(runner(workload_.compressed(), config));
    config.dependent_launch = true;
    chosen_dependent.push_back(runner(workload_.compressed(), config));

    const auto all = {&ours, &dependent, &raw, &chosen, &chosen_dependent};
    for (int round = 0; round < options_.rounds + 1; ++round) {
      run_in_turn(dense);
      run_in_turn(decoded);
      run_in_turn(overlapped);
      for (auto* runners : all) run_in_turn(*runners);
      if (round > 0) continue;
      for (CublasRunner& r : dense) r.graph->clear();  // the first round warms up
      for (CublasRunner& r : decoded) r.graph->clear();
      for (CublasRunner& r : overlapped) r.graph->clear();
      for (auto* runners : all) {
        for (ConfigRunner& r : *runners) r.graph->clear();
      }
    }
    cell_.cublas = best_of(dense);
    if (!decoded.empty()) cell_.decoded = best_of(decoded);
    if (!overlapped.empty()) cell_.overlapped = best_of(overlapped);
    cell_.ours = best_of(ours);
    cell_.ours_dependent = best_of(dependent);
    cell_.raw = best_of(raw);
    cell_.chosen = best_of(chosen);
    cell_.chosen_dependent = best_of(chosen_dependent);
    for (auto* runners : all) check_result(runners->front());  // also after many runs
    if (clocks != nullptr) *clocks = clocks_under_load(*ours.front().graph);
    return std::move(cell_);
  }

 private:
  /// A lower bound for a launch that reads such a blob.
  [[nodiscard]] double guessed_us(const RotatedBlob& blob) const {
    return 2 + static_cast<double>(blob.bytes) / read_gb_per_s_ / 1000;
  }

  [[noreturn]] void wrong(const std::string& what) const {
    stop(fmt::format("{}, {} tokens: {}", to_string(workload_.shape()), tokens_, what));
  }

  /// Y by raw weights: what every configuration of the same kind must give, to the bit.
  /// Itself checked against float64. None if raw mode cannot have that kind.
  const std::vector<std::uint16_t>* reference(const MatmulConfig& kind) {
    const std::tuple key(kind.strips, kind.split, kind.warpgroup);
    if (const auto found = references_.find(key); found != references_.end()) return &found->second;
    const DeviceBlob& blob = workload_.raw().blobs.front();
    const MatmulConfig config{.strips = kind.strips, .stages = 2, .split = kind.split, .warpgroup = kind.warpgroup};
    if (!can_implement(blob, tokens_, config)) return nullptr;
    workload_.poison_y();
    const DeviceMemory workspace = make_workspace();
    workload_.multiply(blob, tokens_, config, workspace.get(), nullptr);
    std::vector<std::uint16_t> y = workload_.download_y(tokens_);
    const double error = workload_.relative_error(y, tokens_);
    if (!(error < kMaxRelativeError))
      wrong(fmt::format("raw weights, configuration {}: relative error {:.3g}", config_name(config), error));
    cell_.relative_error = std::max(cell_.relative_error, error);
    return &references_.emplace(key, std::move(y)).first->second;
  }

  [[nodiscard]] DeviceMemory make_workspace() const {
    const std::size_t bytes = matmul_workspace_bytes(workload_.raw().blobs.front());
    DeviceMemory workspace = allocate(bytes);
    check(cudaMemset(workspace.get(), 0, bytes), "clear a workspace");
    return workspace;
  }

  void check_result(ConfigRunner& candidate) {
    workload_.poison_y();
    candidate.graph->run();
    if (workload_.download_y(tokens_) != *reference(candidate.what)) {
      wrong(fmt::format("configuration {}{}: Y differs from raw weights with the same kind of configuration",
                        config_name(candidate.what), candidate.what.dependent_launch ? " with dependent launch" : ""));
    }
  }

  /// With as many stages as fit.
  MatmulConfig fitted(const RotatedBlob& blob, MatmulConfig config) const {
    while (config.stages > 2 && !can_implement(blob.blobs.front(), tokens_, config)) --config.stages;
    return config;
  }

  /// Checked.
  ConfigRunner runner(const RotatedBlob& blob, const MatmulConfig& config) {
    ConfigRunner result{config, make_workspace(), nullptr};
    if (reference(config) == nullptr) {
      wrong(fmt::format("configuration {}: raw mode has none of that kind", config_name(config)));
    }
    result.graph =
        std::make_unique<TimedGraph>(launches_for(guessed_us(blob), blob.count()), [&](cudaStream_t stream, int i) {
          workload_.multiply(blob.turn(i), tokens_, config, result.workspace.get(), stream);
        });
    check_result(result);
    return result;
  }

  [[nodiscard]] std::vector<std::uint32_t> stage_choices() const {
    if (options_.sweep) return {2, 3, 4, 5, 6, 7, 8};
    if (options_.quick) return {3, 4, 5};
    return {2, 3, 4, 5, 6};
  }

  /// Warpgroups only pay for more than 16 tokens; a sweep says what they cost otherwise.
  [[nodiscard]] std::vector<MatmulConfig> kinds() const {
    if (tokens_ > 64) return {{.strips = 8, .warpgroup = true}, {.strips = 12, .warpgroup = true}};
    std::vector<MatmulConfig> all = {{.strips = 1}, {.strips = 2}, {.strips = 4}};
    if (tokens_ > 16 || options_.sweep) {
      all.push_back({.strips = 4, .warpgroup = true});
      all.push_back({.strips = 8, .warpgroup = true});
      all.push_back({.strips = 16, .warpgroup = true});
    }
    return all;
  }

  /// The best two of the candidates.
  std::vector<ConfigRunner> screen(const RotatedBlob& blob, bool dependent) {
    std::vector<ConfigRunner> kept;
    double best_us = 1e300;
    for (const MatmulConfig& kind : kinds()) {
      for (const std::uint32_t stages : stage_choices()) {
        if (!kind.uses_stages(tokens_) && stages != MatmulConfig{}.stages) continue;
        for (const bool split : {false, true}) {
          MatmulConfig config = kind;
          config.stages = stages;
          config.split = split;
          config.dependent_launch = dependent;
          if (!can_implement(blob.blobs.front(), tokens_, config) || reference(config) == nullptr) {
            ++cell_.candidates_refused;
            continue;
          }
          ConfigRunner candidate = runner(blob, config);
          candidate.measure(options_.quick ? 2 : 3);
          cell_.screened.push_back({config, &blob == &workload_.raw(), candidate.us});
          best_us = std::min(best_us, candidate.us);
          if (candidate.us <= kKeptWithin * best_us) kept.push_back(std::move(candidate));
        }
      }
    }
    if (kept.empty()) wrong("no configuration fits");
    if (!options_.quick) {
      keep_best(kept, options_.sweep ? 16 : 8);
      for (int i = 0; i < 5; ++i) run_in_turn(kept);
      for (ConfigRunner& r : kept) r.settle();
    }
    keep_best(kept, 2);
    return kept;
  }

  /// The best three algorithms.
  std::vector<CublasRunner> screen_cublas() {
    std::vector<CublasRunner> kept;
    algorithms_ =
        cublas_.algorithms({workload_.shape().rows, workload_.shape().cols, tokens_, workload_.x(), workload_.y()});
    for (const auto& algorithm : algorithms_) {
      workload_.poison_y();
      double error = kMaxRelativeError;
      if (algorithm->enqueue(workload_.raw_weights(0), nullptr)) {
        error = workload_.relative_error(workload_.download_y(tokens_), tokens_);
      }
      if (!(error < kMaxRelativeError)) {
        cell_.cublas_wrong.push_back(algorithm->name());
        continue;
      }
      cell_.cublas_relative_error = std::max(cell_.cublas_relative_error, error);
      const RotatedBlob& raw = workload_.raw();
      CublasRunner candidate{algorithm->name(), nullptr, nullptr};
      candidate.graph =
          std::make_unique<TimedGraph>(launches_for(guessed_us(raw), raw.count()), [&](cudaStream_t stream, int i) {
            if (!algorithm->enqueue(workload_.raw_weights(i), stream)) wrong(algorithm->name() + " cannot be captured");
          });
      candidate.graph->run();
      candidate.measure(options_.quick ? 2 : 3);
      cell_.cublas_screened.emplace_back(candidate.what, candidate.us);
      kept.push_back(std::move(candidate));
      keep_best(kept, 3);
    }
    if (kept.empty()) wrong("cuBLAS has no algorithm");
    return kept;
  }

  /// The same algorithms on weights that are decoded to memory before each: Y must have the same bits.
  std::vector<CublasRunner> after_decoding(const std::vector<CublasRunner>& dense) {
    const MatrixShape& shape = workload_.shape();
    decoded_ = allocate(shape.rows * shape.cols * sizeof(std::uint16_t));
    std::vector<CublasRunner> result;
    for (const CublasRunner& runner : dense) {
      const auto algorithm = std::find_if(algorithms_.begin(), algorithms_.end(),
                                          [&](const auto& candidate) { return candidate->name() == runner.what; });
      workload_.poison_y();
      (void)(*algorithm)->enqueue(workload_.raw_weights(0), nullptr);
      const std::vector<std::uint16_t> expected = workload_.download_y(tokens_);
      const RotatedBlob& blob = workload_.compressed();
      auto* values = static_cast<std::uint16_t*>(decoded_.get());
      CublasRunner candidate{runner.what, nullptr, nullptr};
      candidate.graph =
          std::make_unique<TimedGraph>(launches_for(guessed_us(blob), blob.count()), [&](cudaStream_t stream, int i) {
            check(decode(blob.turn(i), values, shape.cols, stream));
            if (!(*algorithm)->enqueue(values, stream)) wrong(runner.what + " cannot be captured");
          });
      workload_.poison_y();
      check(cudaMemset(values, 0xff, shape.rows * shape.cols * sizeof(std::uint16_t)), "poison decoded weights");
      candidate.graph->run();
      if (workload_.download_y(tokens_) != expected) {
        wrong(runner.what + ": Y differs between weights and decoded weights");
      }
      result.push_back(std::move(candidate));
    }
    return result;
  }

  /// DecodedMatmul on some of the multiprocessors, while the others decode the next matrix to another place. The best
  /// three.
  std::vector<CublasRunner> while_decoding() {
    const MatrixShape& shape = workload_.shape();
    const RotatedBlob& blob = workload_.compressed();
    const MatmulArguments arguments{
        .x = workload_.x(), .x_stride = shape.cols, .y = workload_.y(), .y_stride = shape.rows, .tokens = tokens_};
    next_decoded_ = allocate(shape.rows * shape.cols * sizeof(std::uint16_t));
    cublas_workspace_ = allocate(DecodedMatmul::kWorkspaceBytes);
    const std::array<std::uint16_t*, 2> places = {static_cast<std::uint16_t*>(decoded_.get()),
                                                  static_cast<std::uint16_t*>(next_decoded_.get())};
    std::vector<CublasRunner> kept;
    for (const std::uint32_t spared : {4U, 8U, 12U, 20U, 32U}) {
      for (std::uint32_t number = 0; number < (options_.quick ? 1U : 3U); ++number) {
        const std::uint32_t used = blob.blobs.front().multiprocessors() - spared;
        const auto multiplication = DecodedMatmul::create(blob.blobs.front(), arguments, number, used);
        if (!multiplication) continue;
        const auto multiply = [&](const void* values, cudaStream_t stream) {
          check(multiplication->multiply(static_cast<const std::uint16_t*>(values), arguments, cublas_workspace_.get(),
                                         stream));
        };
        check(cudaMemset(decoded_.get(), 0xff, 2 * shape.rows * shape.cols), "poison decoded weights");
        check(decode(blob.blobs.front(), places[0], shape.cols, nullptr));
        workload_.poison_y();
        multiply(places[0], nullptr);
        const std::vector<std::uint16_t> expected = workload_.download_y(tokens_);
        const double error = workload_.relative_error(expected, tokens_);
        if (!(error < kMaxRelativeError)) continue;  // an algorithm that is wrong on fewer multiprocessors
        CublasRunner candidate{fmt::format("algorithm {} on {} multiprocessors", number, used), nullptr, nullptr};
        candidate.graph =
            std::make_unique<TimedGraph>(launches_for(guessed_us(blob), blob.count()), [&](cudaStream_t stream, int i) {
              const auto place = [&](int launch) { return places[static_cast<std::size_t>(launch % 2)]; };
              if (i == 0) check(decode(blob.turn(0), place(0), shape.cols, stream));
              sides_.fork(stream);
              multiply(place(i), sides_.first());
              check(decode(blob.turn(i + 1), place(i + 1), shape.cols, sides_.other()));
              sides_.join(stream);
            });
        workload_.poison_y();
        candidate.graph->run();
        if (workload_.download_y(tokens_) != expected) wrong(candidate.what + ": Y differs while weights are decoded");
        candidate.measure(options_.quick ? 2 : 3);
        kept.push_back(std::move(candidate));
        keep_best(kept, 3);
      }
    }
    return kept;
  }

  const MatmulWorkload& workload_;
  const CublasBaseline& cublas_;
  const MatmulBenchOptions& options_;
  std::uint32_t tokens_;
  double read_gb_per_s_;
  MatmulCell cell_;
  std::vector<std::unique_ptr<DenseAlgorithm>> algorithms_;
  DeviceMemory decoded_, next_decoded_, cublas_workspace_;
  SideStreams sides_;
  std::map<std::tuple<std::uint32_t, bool, bool>, std::vector<std::uint16_t>> references_;  ///< by kind
};

}  // namespace

MatmulCase measure_matmul(const MatrixShape& shape, const MatmulBenchOptions& options, const CublasBaseline& cublas,
                          double read_gb_per_s) {
  const double begin_s = elapsed_s();
  progress(fmt::format("{}: making weights", to_string(shape)));
  const MatmulWorkload workload(shape, *std::max_element(options.tokens.begin(), options.tokens.end()));
  MatmulCase result;
  result.shape = shape;
  result.blob_bytes = workload.compressed().bytes;
  result.raw_bytes = workload.raw().bytes;
  result.copies = workload.compressed().count();
  result.raw_copies = workload.raw().count();
  result.preparation_s = elapsed_s() - begin_s;
  for (const std::uint32_t tokens : options.tokens) {
    CellBench bench(workload, cublas, options, tokens, read_gb_per_s);
    result.cells.push_back(bench.measure(tokens == options.tokens.back() ? &result.clocks : nullptr));
    const MatmulCell& cell = result.cells.back();
    progress(fmt::format("{}, {} tokens: {:.2f} us, with dependent launch {:.2f} us, cuBLAS {:.2f} us",
                         to_string(shape), tokens, cell.ours.us.median, cell.ours_dependent.us.median,
                         cell.cublas.us.median));
  }
  result.seconds = elapsed_s() - begin_s;
  return result;
}

}  // namespace unweight::bench
