// SPDX-License-Identifier: Apache-2.0
//
// Errors and results. Nothing in unweight throws across its public boundary, prints or aborts: every function that can
// fail returns a Result<T> that holds either the value or one Error with a message that carries the offending values.
#pragma once

#include <cstdint>
#include <string>
#include <tl/expected.hpp>
#include <utility>

#pragma GCC visibility push(default)  // the library hides all other symbols
namespace unweight {

/// What went wrong, as a number that never changes its meaning between releases. Grouped in tens, in the order of the
/// three gates (arguments, bytes, environment); the C ABI returns the same numbers as unweight_status.
enum class ErrorCode : std::uint32_t {
  kOk = 0,

  // 10..19: the caller's arguments.
  kInvalidArgument = 10,   ///< a value is outside its documented range
  kShapeMismatch = 11,     ///< a buffer does not have the size that the shape asks for
  kBufferTooSmall = 12,    ///< the output buffer is smaller than the documented bound
  kUnsupportedDtype = 13,  ///< the operation exists, but not for this element type

  // 20..29: bytes of one blob.
  kTruncated = 20,           ///< fewer bytes than the header announces
  kBadMagic = 21,            ///< the bytes are not an unweight blob
  kUnsupportedVersion = 22,  ///< written by a later, incompatible format version
  kCorruptHeader = 23,       ///< a header field contradicts the format or another field
  kCorruptPayload = 24,      ///< a table or a tile contradicts the format
  kChecksumMismatch = 25,    ///< stored and computed checksums differ

  // 30..39: checkpoints and bundles.
  kBadSafetensors = 30,  ///< a safetensors file violates its format
  kBadJson = 31,         ///< a JSON document does not parse or lacks a required member
  kBadCheckpoint = 32,   ///< the files of a checkpoint contradict each other
  kBadBundle = 33,       ///< the files of a compressed bundle contradict each other
  kNotIdentical = 34,    ///< decoded bytes differ from the original bytes
  kSourceChanged = 35,   ///< the source changed since the interrupted run that is being continued

  // 40..49: the file system.
  kIo = 40,        ///< the operating system refused a read or a write
  kNoSpace = 41,   ///< no space left on the device, or over quota
  kExists = 42,    ///< the output exists already
  kNotFound = 43,  ///< the input does not exist
  kBusy = 44,      ///< another process holds the lock of the same output

  // 50..59: the device.
  kNoDevice = 50,  ///< no usable GPU or no driver
  kCuda = 51,      ///< a CUDA call failed

  // 60..69: everything else.
  kOutOfMemory = 60,
  kCancelled = 61,  ///< the caller's callback asked to stop
  kInternal = 62,   ///< a defect of the library
};

/// The enumerator's name without its `k`, in words: "checksum mismatch". Never null.
const char* error_name(ErrorCode code) noexcept;

/// One failure. `message` is one line without a final period or newline, and names the values that matter:
/// "row_palettes[17] = 9 is out of range: the blob has 4 palettes".
struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
};

template <class T>
using Result = tl::expected<T, Error>;

/// Shorthand for the failing branch: `return fail(ErrorCode::kTruncated, fmt::format(...));`
[[nodiscard]] inline tl::unexpected<Error> fail(ErrorCode code, std::string message) {
  return tl::unexpected<Error>(Error{code, std::move(message)});
}

}  // namespace unweight
#pragma GCC visibility pop
