// SPDX-License-Identifier: Apache-2.0
#include <unweight/result.hpp>

namespace unweight {

const char* error_name(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::kOk:
      return "ok";
    case ErrorCode::kInvalidArgument:
      return "invalid argument";
    case ErrorCode::kShapeMismatch:
      return "shape mismatch";
    case ErrorCode::kBufferTooSmall:
      return "buffer too small";
    case ErrorCode::kUnsupportedDtype:
      return "unsupported dtype";
    case ErrorCode::kTruncated:
      return "truncated";
    case ErrorCode::kBadMagic:
      return "bad magic";
    case ErrorCode::kUnsupportedVersion:
      return "unsupported version";
    case ErrorCode::kCorruptHeader:
      return "corrupt header";
    case ErrorCode::kCorruptPayload:
      return "corrupt payload";
    case ErrorCode::kChecksumMismatch:
      return "checksum mismatch";
    case ErrorCode::kBadSafetensors:
      return "bad safetensors";
    case ErrorCode::kBadJson:
      return "bad json";
    case ErrorCode::kBadCheckpoint:
      return "bad checkpoint";
    case ErrorCode::kBadBundle:
      return "bad bundle";
    case ErrorCode::kNotIdentical:
      return "not identical";
    case ErrorCode::kSourceChanged:
      return "source changed";
    case ErrorCode::kIo:
      return "io error";
    case ErrorCode::kNoSpace:
      return "no space";
    case ErrorCode::kExists:
      return "exists";
    case ErrorCode::kNotFound:
      return "not found";
    case ErrorCode::kBusy:
      return "busy";
    case ErrorCode::kNoDevice:
      return "no device";
    case ErrorCode::kCuda:
      return "cuda error";
    case ErrorCode::kOutOfMemory:
      return "out of memory";
    case ErrorCode::kCancelled:
      return "cancelled";
    case ErrorCode::kInternal:
      return "internal error";
  }
  return "unknown error";
}

}  // namespace unweight
