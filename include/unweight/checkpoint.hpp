// SPDX-License-Identifier: Apache-2.0
//
// Whole checkpoints: a Hugging Face style folder (or one .safetensors file) in, a compressed bundle out, and back byte
// for byte. docs/CONTAINER.md describes the bundle's files.
//
// Guarantees shared by the functions here:
//  - The source is opened read-only and never changed.
//  - Output appears under its final name only when it is complete and checked: work happens in `<out>.partial`, on the
//    same file system, which is renamed at the end. An existing `out` is an error (kExists) before any work.
//  - An interrupted compression or decompression (kill -9, power, full disk) is continued by the same call; the result
//    has the same bytes as an uninterrupted run. A partial folder of another source, another version of the library, or
//    another `shard_count` or `verify` is refused (kSourceChanged).
//  - Peak memory stays below 512 MiB + 2 x the largest tensor, at any size of the model. This is for rows of at most
//    2^18 values: of longer ones, strips of 16 count too, three for each file at work, when a bundle is read.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <unweight/blob.hpp>
#include <unweight/result.hpp>
#include <unweight/safetensors.hpp>
#include <vector>

#pragma GCC visibility push(default)  // the library hides all other symbols
namespace unweight {

/// What a progress callback is told; at most about ten times a second, and once at the end. Called from one thread at a
/// time, but not always the caller's.
struct Progress {
  std::uint64_t bytes_done = 0;  ///< source bytes finished, those of a continued run included
  std::uint64_t bytes_total = 0;
  std::uint64_t bytes_resumed = 0;  ///< the part of bytes_done that an earlier run had finished
  std::uint64_t tensors_done = 0;
  std::uint64_t tensors_total = 0;
  std::string current;  ///< the tensor or file finished last
};

/// Return false to stop: the call ends with kCancelled and can be continued later.
using ProgressCallback = std::function<bool(const Progress&)>;

/// The form of a bundle's blobs.
enum class Profile : std::uint8_t {
  kRuntime,       ///< blob.hpp: about 11.25 bits a weight, read by GPU kernels as they are
  kDistribution,  ///< distribution.hpp: about 10.5 bits a weight, for storage and transfer
};

/// "runtime", "distribution": in manifests and on command lines.
[[nodiscard]] std::string_view profile_name(Profile profile) noexcept;

/// How one tensor of the source lies in the bundle.
enum class StoredAs : std::uint8_t {
  kBlob,   ///< a U8 tensor that holds an unweight blob
  kRaw,    ///< unchanged: another dtype, or compression does not pay
  kAlias,  ///< not stored: bit-identical to an earlier tensor of the same dtype and shape
};

struct CompressOptions {
  Profile profile = Profile::kRuntime;  ///< of the bundle; finish_compress() takes it from the shares
  unsigned threads = 0;                 ///< 0: one per logical CPU
  bool verify = true;                   ///< decode every blob again and compare before it is written
  std::uint32_t shard_index = 0;        ///< this process's share of the work: 0 <= shard_index < shard_count
  std::uint32_t shard_count = 1;        ///< above 1: only this share is done; finish_compress() joins the shares
  ProgressCallback progress{};
};

/// Totals of a compression.
struct CompressReport {
  Profile profile = Profile::kRuntime;  ///< of the bundle
  std::uint64_t source_bytes = 0;       ///< all files
  std::uint64_t bundle_bytes = 0;       ///< all files; 0 until the bundle is finished
  std::uint64_t tensors = 0;
  std::uint64_t tensors_blob = 0;
  std::uint64_t tensors_raw = 0;
  std::uint64_t tensors_alias = 0;
  std::uint64_t blob_value_bytes = 0;   ///< source bytes of the tensors stored as blobs
  std::uint64_t blob_bytes = 0;         ///< their blobs
  std::uint64_t bytes_resumed = 0;      ///< source bytes that an earlier, interrupted run had finished
  std::uint64_t peak_memory_bytes = 0;  ///< the process's peak resident set
  double seconds = 0;
  bool finished = false;              ///< the bundle stands under its final name
  bool verified = false;              ///< every blob was decoded and compared before it was written
  std::vector<std::string> warnings;  ///< for example: config.json already has a quantization_config
};

/// Compresses `source` (a folder, or one .safetensors file) into the folder `out`. Every file of a folder is carried,
/// sub-folders included; hidden files too. With shard_count > 1 this process does only its share and `out` does not
/// appear before finish_compress().
/// Errors: kNotFound, kExists, kBusy, kBadSafetensors, kBadCheckpoint, kBadJson, kNotIdentical, kSourceChanged, kIo,
/// kNoSpace, kInvalidArgument, kCancelled.
[[nodiscard]] Result<CompressReport> compress_checkpoint(const std::filesystem::path& source,
                                                         const std::filesystem::path& out,
                                                         const CompressOptions& options = {});

/// Joins the shares of a sharded compression of the same source. Fails with kBadCheckpoint, and names the missing
/// shares, when some are not done. The bundle is byte-identical to that of one process.
[[nodiscard]] Result<CompressReport> finish_compress(const std::filesystem::path& source,
                                                     const std::filesystem::path& out,
                                                     const CompressOptions& options = {});

struct DecompressOptions {
  unsigned threads = 0;
  ProgressCallback progress{};
};

struct DecompressReport {
  std::uint64_t files = 0;
  std::uint64_t bytes = 0;  ///< bytes restored
  std::uint64_t peak_memory_bytes = 0;
  double seconds = 0;
};

/// Restores the source of a bundle under `out`: every file byte for byte, checked against its recorded SHA-256 before
/// `out` appears. A bundle made from a single file restores a folder with that file.
[[nodiscard]] Result<DecompressReport> decompress_bundle(const std::filesystem::path& bundle,
                                                         const std::filesystem::path& out,
                                                         const DecompressOptions& options = {});

struct VerifyOptions {
  unsigned threads = 0;
  std::filesystem::path against{};  ///< empty, or the source: every file is compared bit for bit
  ProgressCallback progress{};
};

struct VerifyReport {
  std::uint64_t files = 0;
  std::uint64_t tensors = 0;
  std::uint64_t bytes = 0;  ///< source bytes covered
  std::uint64_t peak_memory_bytes = 0;
  bool compared_with_source = false;
  double seconds = 0;
};

/// Checks a bundle without writing: structure, every blob's checksums, every tensor decoded, and the SHA-256 of every
/// source file as it would be restored; with `against` also the source's own bytes.
[[nodiscard]] Result<VerifyReport> verify_bundle(const std::filesystem::path& bundle,
                                                 const VerifyOptions& options = {});

struct TranscodeOptions {
  Profile profile = Profile::kRuntime;  ///< of the new bundle; must not be that of the old one
  unsigned threads = 0;                 ///< 0: one per logical CPU
  bool verify = true;                   ///< decode every new blob again and compare before it is written
  ProgressCallback progress{};
};

/// Makes a bundle of the other profile: the same bytes as compress_checkpoint() makes of the source with that profile
/// by this version of the library. The source is not written anywhere. Every checksum of the old bundle is checked on
/// the way, and the SHA-256 of every source file as it would be restored. The report counts as though the source had
/// been compressed. Takes memory for the largest blob once more than the others. Errors: those of decompress_bundle()
/// and of compress_checkpoint(); kInvalidArgument when the bundle has that profile already.
[[nodiscard]] Result<CompressReport> transcode_bundle(const std::filesystem::path& bundle,
                                                      const std::filesystem::path& out,
                                                      const TranscodeOptions& options);

/// One tensor of a checkpoint or bundle, for reports.
struct TensorReport {
  std::string file;  ///< relative to the folder
  std::string name;
  Dtype dtype = Dtype::kBF16;        ///< of the source tensor
  std::vector<std::uint64_t> shape;  ///< of the source tensor
  StoredAs stored = StoredAs::kRaw;  ///< for a plain checkpoint: what compress would decide
  std::string alias_of;              ///< "file:name" when stored == kAlias
  std::uint64_t source_bytes = 0;
  std::uint64_t stored_bytes = 0;
  double bits_per_weight = 0;                           ///< 8 * stored_bytes / elements
  double exponent_entropy_bits = 0;                     ///< BF16 only
  std::array<std::uint64_t, 256> exponent_histogram{};  ///< BF16 only
  std::uint32_t palette_count = 0;                      ///< blobs of the runtime form only, as the next two
  std::uint64_t escaped_tiles = 0;
  std::uint64_t tile_count = 0;
  std::uint64_t block_count = 0;      ///< blobs of the distribution form only
  std::uint64_t exception_count = 0;  ///< runtime form: values outside of their row's palette; distribution: escapes
};

struct InspectOptions {
  unsigned threads = 0;
  /// Read the values of BF16 tensors for histogram and entropy. Without it only headers and tables are read, and the
  /// tensors of a plain checkpoint count as stored unchanged.
  bool histograms = true;
  ProgressCallback progress{};
};

struct InspectReport {
  bool is_bundle = false;
  Profile profile = Profile::kRuntime;  ///< of a bundle; for a checkpoint, that of the estimates
  std::vector<TensorReport> tensors;
  std::uint64_t source_bytes = 0;  ///< all files
  std::uint64_t stored_bytes = 0;  ///< all files of a bundle; an estimate (encoded, not written) for a checkpoint
};

/// Looks into a checkpoint (folder or .safetensors file) or a bundle.
[[nodiscard]] Result<InspectReport> inspect_path(const std::filesystem::path& path, const InspectOptions& options = {});

/// Writes a checkpoint with the exact tensor names, shapes, files and config.json of a named model, filled with the
/// synthetic recipe of docs/FORMAT.md (row sigma 0.02 * 2^(0.5 n)); the same seed gives the same bytes on every machine
/// and thread count. For tests and benchmarks: the weights are random.
struct SynthOptions {
  std::string model{};  ///< one of synth_models()
  std::uint64_t seed = 1;
  unsigned threads = 0;
  ProgressCallback progress{};
};

struct SynthReport {
  std::uint64_t files = 0;
  std::uint64_t tensors = 0;
  std::uint64_t bytes = 0;
  double seconds = 0;
};

/// Names that synth_checkpoint() knows: "llama-3.1-8b", "qwen3-0.6b", ... Throws bad_alloc, having no other way to say
/// that there is no memory for the list.
[[nodiscard]] std::vector<std::string> synth_models();

/// What an interrupted call has left is made anew. Errors: kInvalidArgument (unknown model), kExists, kIo, kNoSpace,
/// kCancelled.
[[nodiscard]] Result<SynthReport> synth_checkpoint(const std::filesystem::path& out, const SynthOptions& options);

}  // namespace unweight
#pragma GCC visibility pop
