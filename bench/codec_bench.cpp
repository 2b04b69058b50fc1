// SPDX-License-Identifier: Apache-2.0
//
// Times the CPU codec on whole tensors, with zstd -3 beside it in the same rounds; bench/run_codec.py runs it and turns
// its samples into figures.
//
//   codec_bench FILE --shape 4096x4096 [--shape ...] [--form runtime|distribution] [--rounds N] [--max-threads N]
//               [--lockstep]
//
// FILE holds the tensors one after another: row-major bfloat16, little-endian. A sample is the time for all of them.
// Each is first encoded and decoded once and compared with the input; nothing is timed that is not exact. A round then
// runs every operation once, and the order of the operations is rotated from round to round, so that whatever disturbs
// the machine for a while disturbs all of them. With --lockstep a round begins when a line is read from standard input
// and ends with the line "done", so that another program can run its own operations in between. The last line is JSON.
//
// Every operation writes to one buffer that is used again and again, as a loop over tensors does; only those called
// "untouched" write to memory that the process has not touched before, and so pay for its pages too.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fmt/format.h>
#include <fstream>
#include <functional>
#include <iostream>
#include <malloc.h>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unweight/blob.hpp>
#include <unweight/distribution.hpp>
#include <vector>
#include <zstd.h>

namespace {

using unweight::MatrixShape;

constexpr int kZstdLevel = 3;

struct Tensor {
  MatrixShape shape;
  std::span<const std::uint16_t> values;
  std::vector<std::byte> blob;
};

/// The functions of one form of blobs.
struct Form {
  unweight::Result<std::vector<std::byte>> (*encode)(std::span<const std::uint16_t>, const MatrixShape&,
                                                     const unweight::EncodeOptions&);
  unweight::Result<std::uint64_t> (*encode_into)(std::span<const std::uint16_t>, const MatrixShape&,
                                                 std::span<std::byte>, const unweight::EncodeOptions&);
  unweight::Result<void> (*decode)(std::span<const std::byte>, std::span<std::uint16_t>,
                                   const unweight::DecodeOptions&);
};

constexpr Form kRuntime{unweight::encode, unweight::encode_into, unweight::decode};
constexpr Form kDistribution{unweight::distribution::encode, unweight::distribution::encode_into,
                             unweight::distribution::decode};

struct Operation {
  std::string name;
  unsigned threads;
  std::function<double()> run_s;  ///< seconds for all tensors
  std::vector<double> samples_s;
};

template <class T>
T value_of(unweight::Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

std::size_t zstd_size(std::size_t code) {
  if (ZSTD_isError(code) != 0) throw std::runtime_error(fmt::format("zstd: {}", ZSTD_getErrorName(code)));
  return code;
}

template <class Body>
double seconds(const Body& body) {
  const auto begin = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

MatrixShape parse_shape(const std::string& text) {
  MatrixShape shape;
  const char* end = text.data() + text.size();
  const auto rows = std::from_chars(text.data(), end, shape.rows);
  if (rows.ec == std::errc() && rows.ptr != end && *rows.ptr == 'x') {
    const auto cols = std::from_chars(rows.ptr + 1, end, shape.cols);
    if (cols.ec == std::errc() && cols.ptr == end && value_of(unweight::encode_bound(shape)) > 0) return shape;
  }
  throw std::runtime_error(fmt::format("--shape {} is not ROWSxCOLS", text));
}

std::vector<std::uint16_t> read_values(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const std::streamoff size_bytes = file.tellg();
  if (!file || size_bytes <= 0 || size_bytes % 2 != 0) {
    throw std::runtime_error(fmt::format("{}: not a readable file of 16-bit values", path));
  }
  std::vector<std::uint16_t> values(static_cast<std::size_t>(size_bytes) / 2);
  file.seekg(0);
  file.read(reinterpret_cast<char*>(values.data()), size_bytes);
  if (!file) throw std::runtime_error(fmt::format("{}: read failed", path));
  return values;
}

std::unique_ptr<std::uint16_t[]> untouched_values(std::size_t count) {
  return std::make_unique_for_overwrite<std::uint16_t[]>(count);
}

/// Cuts `values` into tensors, encodes them, and proves every way of decoding exact for every number of threads.
std::vector<Tensor> encode_checked(const Form& form, std::span<const std::uint16_t> values,
                                   const std::vector<std::string>& shapes, std::span<const unsigned> thread_counts) {
  std::vector<Tensor> tensors;
  std::size_t begin = 0;
  for (const std::string& text : shapes) {
    Tensor tensor{parse_shape(text), {}, {}};
    const std::size_t count = tensor.shape.rows * tensor.shape.cols;
    if (count > values.size() - begin) {
      throw std::runtime_error(fmt::format("--shape {} asks for values beyond the file's {}", text, values.size()));
    }
    tensor.values = values.subspan(begin, count);
    begin += count;
    tensor.blob = value_of(form.encode(tensor.values, tensor.shape, {}));
    for (const unsigned threads : thread_counts) {
      if (value_of(form.encode(tensor.values, tensor.shape, {threads})) != tensor.blob) {
        throw std::runtime_error(fmt::format("{} threads produce another blob of {}", threads, text));
      }
      for (const bool verify : {true, false}) {
        const auto out = untouched_values(count);
        value_of(form.decode(tensor.blob, {out.get(), count}, {threads, verify}));
        if (!std::equal(tensor.values.begin(), tensor.values.end(), out.get())) {
          throw std::runtime_error(fmt::format("tensor {} is not exact with {} threads", text, threads));
        }
      }
    }
    tensors.push_back(std::move(tensor));
  }
  if (begin != values.size()) {
    throw std::runtime_error(fmt::format("the shapes cover {} of the file's {} values", begin, values.size()));
  }
  return tensors;
}

/// Calls body(tensor, out) for each tensor with its part of `out`; seconds for all.
template <class Body>
double decode_all(const std::vector<Tensor>& tensors, std::uint16_t* out, const Body& body) {
  return seconds([&] {
    for (const Tensor& tensor : tensors) {
      body(tensor, std::span(out, tensor.values.size()));
      out += tensor.values.size();
    }
  });
}

/// Memory that every round of every operation uses again.
struct WarmBuffers {
  std::vector<std::uint16_t> values;
  std::vector<std::byte> blobs;
};

std::vector<Operation> codec_operations(const Form& form, const std::vector<Tensor>& tensors, WarmBuffers& warm,
                                        unsigned threads) {
  const auto decode = [&tensors, &form](std::uint16_t* out, unweight::DecodeOptions options) {
    return decode_all(tensors, out, [&](const Tensor& tensor, std::span<std::uint16_t> values) {
      value_of(form.decode(tensor.blob, values, options));
    });
  };
  return {
      {"encode",
       threads,
       [&tensors, &warm, &form, threads] {
         return seconds([&] {
           for (const Tensor& tensor : tensors) {
             value_of(form.encode_into(tensor.values, tensor.shape, warm.blobs, {threads}));
           }
         });
       },
       {}},
      {"encode untouched",
       threads,
       [&tensors, &form, threads] {
         std::vector<std::vector<std::byte>> blobs(tensors.size());  // freed after the clock has stopped
         return seconds([&] {
           for (std::size_t i = 0; i < tensors.size(); ++i) {
             blobs[i] = value_of(form.encode(tensors[i].values, tensors[i].shape, {threads}));
           }
         });
       },
       {}},
      {"decode",
       threads,
       [=, &warm] {
         return decode(warm.values.data(), {threads, true});
       },
       {}},
      {"decode unchecked",
       threads,
       [=, &warm] {
         return decode(warm.values.data(), {threads, false});
       },
       {}},
      {"decode untouched",
       threads,
       [=, &warm] {
         const auto out = untouched_values(warm.values.size());
         return decode(out.get(), {threads, true});
       },
       {}},
  };
}

/// zstd sees the whole file as one buffer, on one thread.
std::vector<Operation> zstd_operations(std::span<const std::uint16_t> values, WarmBuffers& warm,
                                       std::vector<char>& frame) {
  const std::size_t bound = ZSTD_compressBound(values.size_bytes());
  frame.resize(bound);
  frame.resize(zstd_size(ZSTD_compress(frame.data(), bound, values.data(), values.size_bytes(), kZstdLevel)));
  const auto decompress = [values, &frame](std::uint16_t* out) {
    zstd_size(ZSTD_decompress(out, values.size_bytes(), frame.data(), frame.size()));
  };
  const auto restored = untouched_values(values.size());
  decompress(restored.get());
  if (!std::equal(values.begin(), values.end(), restored.get())) throw std::runtime_error("zstd is not exact");
  return {
      {"zstd compress",
       1,
       [=, &warm] {
         return seconds([&] {
           zstd_size(ZSTD_compress(warm.blobs.data(), bound, values.data(), values.size_bytes(), kZstdLevel));
         });
       },
       {}},
      {"zstd decompress", 1, [=, &warm] { return seconds([&] { decompress(warm.values.data()); }); }, {}},
  };
}

void run_rounds(std::vector<Operation>& operations, unsigned rounds, bool lockstep) {
  for (Operation& operation : operations) operation.run_s();  // warms caches and clocks; not counted
  std::string line;
  for (unsigned round = 0; round < rounds; ++round) {
    if (lockstep && !std::getline(std::cin, line)) throw std::runtime_error("standard input ended before all rounds");
    for (std::size_t i = 0; i < operations.size(); ++i) {
      Operation& operation = operations[(i + round) % operations.size()];
      operation.samples_s.push_back(operation.run_s());
    }
    if (lockstep) fmt::print("done\n");
    std::fflush(stdout);
  }
}

std::string to_json(const std::vector<Operation>& operations, const std::vector<Tensor>& tensors,
                    std::size_t value_count, std::size_t zstd_bytes) {
  std::size_t blob_bytes = 0;
  for (const Tensor& tensor : tensors) blob_bytes += tensor.blob.size();
  std::string json =
      fmt::format(R"({{"compiler": "{}", "build_type": "{}", "zstd_version": "{}", "zstd_level": {}, "tensors": {}, )"
                  R"("values": {}, "blob_bytes": {}, "zstd_bytes": {}, "operations": [)",
                  BENCH_COMPILER, BENCH_BUILD_TYPE, ZSTD_versionString(), kZstdLevel, tensors.size(), value_count,
                  blob_bytes, zstd_bytes);
  for (const Operation& operation : operations) {
    json += fmt::format(R"({}{{"name": "{}", "threads": {}, "samples_s": [{:.9f}]}})",
                        &operation == operations.data() ? "" : ", ", operation.name, operation.threads,
                        fmt::join(operation.samples_s, ", "));
  }
  return json + "]}";
}

/// 1, 2, 4, ... and `most` itself.
std::vector<unsigned> counts_up_to(unsigned most) {
  std::vector<unsigned> counts;
  for (unsigned threads = 1; threads < most; threads *= 2) counts.push_back(threads);
  counts.push_back(most);
  return counts;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Times the CPU codec on whole tensors.");
  std::string path;
  std::vector<std::string> shapes;
  std::string form_name = "runtime";
  unsigned rounds = 15;
  unsigned max_threads = 1;
  bool lockstep = false;
  app.add_option("file", path, "row-major bfloat16 values of all tensors")->required();
  app.add_option("--shape", shapes, "ROWSxCOLS of each tensor, in the file's order")->required();
  app.add_option("--form", form_name, "which form of blobs")->check(CLI::IsMember({"runtime", "distribution"}));
  app.add_option("--rounds", rounds, "samples of each operation")->check(CLI::Range(1U, 10000U));
  app.add_option("--max-threads", max_threads, "measure 1, 2, 4, ... up to this many")->check(CLI::Range(1U, 1024U));
  app.add_flag("--lockstep", lockstep, "wait for a line on standard input before each round");
  CLI11_PARSE(app, argc, argv);

  // Else the allocator keeps large blocks after they are freed, and memory that should be untouched is not.
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
  try {
    const std::vector<std::uint16_t> values = read_values(path);
    const Form& form = form_name == "runtime" ? kRuntime : kDistribution;
    const std::vector<unsigned> thread_counts = counts_up_to(max_threads);
    const std::vector<Tensor> tensors = encode_checked(form, values, shapes, thread_counts);
    std::size_t blob_bytes = ZSTD_compressBound(values.size() * sizeof(std::uint16_t));
    for (const Tensor& tensor : tensors) {
      blob_bytes = std::max(blob_bytes, static_cast<std::size_t>(value_of(unweight::encode_bound(tensor.shape))));
    }
    WarmBuffers warm{std::vector<std::uint16_t>(values.size()), std::vector<std::byte>(blob_bytes)};
    std::vector<char> frame;
    std::vector<Operation> operations = zstd_operations(values, warm, frame);
    for (const unsigned threads : thread_counts) {
      for (Operation& operation : codec_operations(form, tensors, warm, threads))
        operations.push_back(std::move(operation));
    }
    run_rounds(operations, rounds, lockstep);
    fmt::print("{}\n", to_json(operations, tensors, values.size(), frame.size()));
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "codec_bench: {}\n", error.what());
    return 1;
  }
}
