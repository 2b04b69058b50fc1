// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cstring>
#include <format/layout.hpp>
#include <io/json_document.hpp>
#include <io/json_text.hpp>
#include <io/safetensors_file.hpp>
#include <io/try.hpp>
#include <limits>
#include <optional>
#include <tuple>
#include <unordered_set>

namespace unweight {
namespace {

struct DtypeTraits {
  Dtype dtype;
  std::string_view name;
  unsigned bits;
};

/// In the order of the enumeration.
constexpr std::array<DtypeTraits, 20> kDtypes = {{
    {Dtype::kBool, "BOOL", 8},      {Dtype::kU8, "U8", 8},          {Dtype::kI8, "I8", 8},
    {Dtype::kF8E5M2, "F8_E5M2", 8}, {Dtype::kF8E4M3, "F8_E4M3", 8}, {Dtype::kF8E8M0, "F8_E8M0", 8},
    {Dtype::kI16, "I16", 16},       {Dtype::kU16, "U16", 16},       {Dtype::kF16, "F16", 16},
    {Dtype::kBF16, "BF16", 16},     {Dtype::kI32, "I32", 32},       {Dtype::kU32, "U32", 32},
    {Dtype::kF32, "F32", 32},       {Dtype::kC64, "C64", 64},       {Dtype::kF64, "F64", 64},
    {Dtype::kI64, "I64", 64},       {Dtype::kU64, "U64", 64},       {Dtype::kF4, "F4", 4},
    {Dtype::kF6E2M3, "F6_E2M3", 6}, {Dtype::kF6E3M2, "F6_E3M2", 6},
}};
static_assert([] {
  for (std::size_t i = 0; i < kDtypes.size(); ++i) {
    if (static_cast<std::size_t>(kDtypes[i].dtype) != i) return false;
  }
  return true;
}());

const DtypeTraits& traits_of(Dtype dtype) noexcept { return kDtypes[static_cast<std::size_t>(dtype)]; }

std::optional<Dtype> dtype_by_name(std::string_view name) {
  for (const DtypeTraits& traits : kDtypes) {
    if (traits.name == name) return traits.dtype;
  }
  return std::nullopt;
}

tl::unexpected<Error> bad(std::string message) { return fail(ErrorCode::kBadSafetensors, std::move(message)); }

std::string named(std::string_view name) { return "tensor " + io::quoted_name(name); }

/// Bytes of a tensor; nothing when a product overflows or the bits do not fill whole bytes.
std::optional<std::uint64_t> shape_bytes(Dtype dtype, std::span<const std::uint64_t> shape) {
  if (std::find(shape.begin(), shape.end(), 0u) != shape.end()) return 0;
  std::uint64_t bits = dtype_bits(dtype);
  for (const std::uint64_t extent : shape) {
    if (extent > std::numeric_limits<std::uint64_t>::max() / bits) return std::nullopt;
    bits *= extent;
  }
  if (bits % 8 != 0) return std::nullopt;
  return bits / 8;
}

Result<std::vector<std::pair<std::string, std::string>>> parse_metadata(simdjson::dom::element value) {
  simdjson::dom::object object;
  if (value.get(object) != simdjson::SUCCESS) return bad("__metadata__ is not an object");
  std::vector<std::pair<std::string, std::string>> metadata;
  std::unordered_set<std::string_view> keys;
  for (const auto member : object) {
    std::string_view text;
    if (member.value.get(text) != simdjson::SUCCESS) return bad("__metadata__: a value is not a string");
    if (!keys.insert(member.key).second) return bad("__metadata__: a key occurs twice");
    metadata.emplace_back(member.key, text);
  }
  return metadata;
}

Result<std::vector<std::uint64_t>> parse_extents(const std::string& tensor, const char* name,
                                                 simdjson::dom::element value) {
  simdjson::dom::array array;
  if (value.get(array) != simdjson::SUCCESS) return bad(tensor + ": " + name + " is not an array");
  std::vector<std::uint64_t> numbers;
  for (const simdjson::dom::element element : array) {
    std::uint64_t number = 0;
    if (element.get(number) != simdjson::SUCCESS) {
      return bad(tensor + ": " + name + "[" + std::to_string(numbers.size()) +
                 "] is not an integer from 0 to 2^64 - 1");
    }
    numbers.push_back(number);
  }
  return numbers;
}

Result<TensorEntry> parse_entry(std::string_view name, simdjson::dom::element value) {
  const std::string tensor = named(name);
  simdjson::dom::object object;
  if (value.get(object) != simdjson::SUCCESS) return bad(tensor + ": not an object");
  TensorEntry entry;
  entry.name = name;
  bool has_dtype = false, has_shape = false, has_offsets = false;
  for (const auto member : object) {
    bool* seen = member.key == "dtype"          ? &has_dtype
                 : member.key == "shape"        ? &has_shape
                 : member.key == "data_offsets" ? &has_offsets
                                                : nullptr;
    if (seen == nullptr) return bad(tensor + ": it has a member that is not dtype, shape or data_offsets");
    if (*seen) return bad(tensor + ": member '" + std::string(member.key) + "' occurs twice");
    *seen = true;
    if (seen == &has_dtype) {
      std::string_view text;
      if (member.value.get(text) != simdjson::SUCCESS) return bad(tensor + ": dtype is not a string");
      const auto dtype = dtype_by_name(text);
      if (!dtype) return bad(tensor + ": dtype " + io::quoted_name(text) + " is unknown");
      entry.dtype = *dtype;
    } else if (seen == &has_shape) {
      UNWEIGHT_ASSIGN(entry.shape, parse_extents(tensor, "shape", member.value));
    } else {
      UNWEIGHT_ASSIGN(const auto offsets, parse_extents(tensor, "data_offsets", member.value));
      if (offsets.size() != 2) {
        return bad(tensor + ": data_offsets has " + std::to_string(offsets.size()) + " entries, not 2");
      }
      entry.begin = offsets[0];
      entry.end = offsets[1];
    }
  }
  if (!has_dtype) return bad(tensor + ": dtype is missing");
  if (!has_shape) return bad(tensor + ": shape is missing");
  if (!has_offsets) return bad(tensor + ": data_offsets is missing");
  return entry;
}

/// What one entry must fulfil on its own.
Result<void> check_entry(const TensorEntry& entry, std::uint64_t data_bytes) {
  const auto range = [&] {
    return "data_offsets [" + std::to_string(entry.begin) + ", " + std::to_string(entry.end) + "]";
  };
  if (entry.begin > entry.end) return bad(named(entry.name) + ": " + range() + " are reversed");
  if (entry.end > data_bytes) {
    return bad(named(entry.name) + ": " + range() + " end beyond the file's " + std::to_string(data_bytes) +
               " bytes of data");
  }
  const auto bytes = shape_bytes(entry.dtype, entry.shape);
  if (!bytes) return bad(named(entry.name) + ": its shape has no whole number of bytes below 2^61");
  if (*bytes != entry.size_bytes()) {
    return bad(named(entry.name) + ": " + range() + " hold " + std::to_string(entry.size_bytes()) +
               " bytes, its dtype and shape need " + std::to_string(*bytes));
  }
  return {};
}

/// What the entries, in order, must fulfil together: they tile the data area.
Result<void> check_tiling(const std::vector<TensorEntry>& tensors, std::uint64_t data_bytes) {
  std::uint64_t expected = 0;
  for (const TensorEntry& entry : tensors) {
    if (entry.begin != expected) {
      return bad(named(entry.name) + ": data begins at " + std::to_string(entry.begin) + ", " +
                 (entry.begin < expected ? "overlapping the tensor before it, which ends at "
                                         : "leaving a hole behind the tensor before it, which ends at ") +
                 std::to_string(expected));
    }
    expected = entry.end;
  }
  if (expected != data_bytes) {
    return bad("the tensors end at byte " + std::to_string(expected) + " of the data, but the file has " +
               std::to_string(data_bytes) + " bytes of data");
  }
  return {};
}

/// Members of the root object into entries, each checked on its own. `padded_owner`, if given, holds `json` with the
/// padding that the parser needs, and is freed once the document is built: at the limit, text, document and entries
/// would be half a gigabyte together.
Result<void> read_members(std::string_view json, std::string* padded_owner, SafetensorsHeader& header) {
  auto document = padded_owner != nullptr ? io::JsonDocument::parse_padded(json) : io::JsonDocument::parse(json);
  if (padded_owner != nullptr) *padded_owner = std::string();
  if (!document) {
    Error error = std::move(document).error();
    if (error.code == ErrorCode::kBadJson) error.code = ErrorCode::kBadSafetensors;
    return io::fail_within("header", std::move(error));
  }
  simdjson::dom::object object;
  if (document->root().get(object) != simdjson::SUCCESS) return bad("the header is not a JSON object");
  header.tensors.reserve(object.size());
  bool has_metadata = false;
  for (const auto member : object) {
    if (member.key == "__metadata__") {
      if (has_metadata) return bad("__metadata__ occurs twice");
      has_metadata = true;
      UNWEIGHT_ASSIGN(header.metadata, parse_metadata(member.value));
    } else {
      UNWEIGHT_ASSIGN(TensorEntry entry, parse_entry(member.key, member.value));
      UNWEIGHT_TRY(check_entry(entry, header.data_bytes));
      header.tensors.push_back(std::move(entry));
    }
  }
  return {};
}

Result<SafetensorsHeader> parse_header(std::string_view json, std::uint64_t file_bytes, std::string* padded_owner) {
  if (json.size() > kMaxSafetensorsHeaderBytes) {
    return bad("the header has " + std::to_string(json.size()) + " bytes, more than the limit of " +
               std::to_string(kMaxSafetensorsHeaderBytes));
  }
  if (json.empty() || json.front() != '{') return bad("the header does not begin with '{'");
  SafetensorsHeader header;
  header.data_begin = 8 + json.size();
  if (file_bytes < header.data_begin) {
    return bad("the file has " + std::to_string(file_bytes) + " bytes, its header alone " +
               std::to_string(header.data_begin));
  }
  header.data_bytes = file_bytes - header.data_begin;
  UNWEIGHT_TRY(read_members(json, padded_owner, header));

  std::unordered_set<std::string_view> names;
  names.reserve(header.tensors.size());
  for (const TensorEntry& entry : header.tensors) {
    if (!names.insert(entry.name).second) return bad(named(entry.name) + " occurs twice");
  }
  std::sort(header.tensors.begin(), header.tensors.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  UNWEIGHT_TRY(check_tiling(header.tensors, header.data_bytes));
  return header;
}

}  // namespace

unsigned dtype_bits(Dtype dtype) noexcept { return traits_of(dtype).bits; }

std::string_view dtype_name(Dtype dtype) noexcept { return traits_of(dtype).name; }

Result<SafetensorsHeader> parse_safetensors_header(std::string_view json, std::uint64_t file_bytes) {
  return io::guarded([&] { return parse_header(json, file_bytes, nullptr); });
}

std::string make_safetensors_header(std::span<const TensorEntry> tensors,
                                    std::span<const std::pair<std::string, std::string>> metadata,
                                    std::uint64_t alignment, std::uint64_t min_data_begin) {
  std::string text(8, '\0');
  text += '{';
  if (!metadata.empty()) {
    text += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      if (text.back() != '{') text += ',';
      io::append_json_string(text, key);
      text += ':';
      io::append_json_string(text, value);
    }
    text += '}';
  }
  for (const TensorEntry& entry : tensors) {
    if (text.back() != '{') text += ',';
    io::append_tensor_json(text, entry);
  }
  text += '}';
  text.resize(format::align_up(std::max<std::uint64_t>(text.size(), min_data_begin), alignment), ' ');
  const std::uint64_t json_bytes = text.size() - 8;
  std::memcpy(text.data(), &json_bytes, 8);
  return text;
}

namespace io {

void append_tensor_json(std::string& out, const TensorEntry& entry) {
  append_json_string(out, entry.name);
  out += ":{\"dtype\":\"";
  out += dtype_name(entry.dtype);
  out += "\",\"shape\":[";
  for (std::size_t i = 0; i < entry.shape.size(); ++i) {
    if (i > 0) out += ',';
    out += std::to_string(entry.shape[i]);
  }
  out += "],\"data_offsets\":[";
  out += std::to_string(entry.begin);
  out += ',';
  out += std::to_string(entry.end);
  out += "]}";
}

Result<SafetensorsHead> SafetensorsHead::read(const File& file) {
  UNWEIGHT_ASSIGN(const std::uint64_t file_bytes, file.size_bytes());
  std::uint64_t json_bytes = 0;
  if (file_bytes < sizeof json_bytes) {
    return bad("'" + file.path().native() + "': " + std::to_string(file_bytes) + " bytes are no safetensors file");
  }
  UNWEIGHT_TRY(file.read(0, std::as_writable_bytes(std::span(&json_bytes, 1))));
  if (json_bytes > kMaxSafetensorsHeaderBytes || json_bytes > file_bytes - 8) {
    return bad("'" + file.path().native() + "': a header of " + std::to_string(json_bytes) + " bytes is " +
               (json_bytes > kMaxSafetensorsHeaderBytes
                    ? "over the limit of " + std::to_string(kMaxSafetensorsHeaderBytes)
                    : "longer than the file of " + std::to_string(file_bytes) + " bytes"));
  }
  SafetensorsHead head;
  head.size_ = 8 + json_bytes;
  head.padded_.resize(head.size_ + kJsonPaddingBytes);
  UNWEIGHT_TRY(file.read(0, std::as_writable_bytes(std::span(head.padded_)).first(head.size_)));
  return head;
}

Result<SafetensorsHeader> SafetensorsHead::parse(std::uint64_t file_bytes) && {
  return parse_header(bytes().substr(8), file_bytes, &padded_);
}

Result<SafetensorsHeader> read_safetensors_header(const File& file) {
  UNWEIGHT_ASSIGN(const std::uint64_t file_bytes, file.size_bytes());
  UNWEIGHT_ASSIGN(SafetensorsHead head, SafetensorsHead::read(file));
  auto header = std::move(head).parse(file_bytes);
  if (!header) return fail_within("'" + file.path().native() + "'", std::move(header).error());
  return header;
}

}  // namespace io
}  // namespace unweight
