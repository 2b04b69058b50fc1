// SPDX-License-Identifier: Apache-2.0
//
// The instructions that decoding lives on, each with a host twin of the same result: code built from them runs on
// the CPU bit for bit as on the device.
#pragma once

#include <cstdint>
#include <cstring>
#include <format/layout.hpp>

/// Before a loop over registers, whose indices must be constants. Compilers for the CPU do not know the order.
#if defined(__CUDA_ARCH__)
#define UNWEIGHT_UNROLL _Pragma("unroll")
#define UNWEIGHT_UNROLL_4 _Pragma("unroll 4")   // so that loads of later rounds go out early
#define UNWEIGHT_NO_UNROLL _Pragma("unroll 1")  // the opposite: where copies of the body would only cost registers
#else
#define UNWEIGHT_UNROLL
#define UNWEIGHT_UNROLL_4
#define UNWEIGHT_NO_UNROLL
#endif

namespace unweight::device {

/// PRMT: byte i of the result is byte (selector >> 4 * i) & 7 of the eight bytes of `low`, then `high`. Only the lower
/// 16 bits of `selector` count, and bit 3 of each nibble must be 0 (it would ask for the byte's sign, eight times).
/// Not __byte_perm(): that masks the selector, an instruction that decoding does not need.
UNWEIGHT_HOST_DEVICE inline std::uint32_t byte_permute(std::uint32_t low, std::uint32_t high, std::uint32_t selector) {
#if defined(__CUDA_ARCH__)
  std::uint32_t result;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(result) : "r"(low), "r"(high), "r"(selector));
  return result;
#else
  const std::uint64_t bytes = std::uint64_t{high} << 32 | low;
  std::uint32_t result = 0;
  for (std::uint32_t i = 0; i < 4; ++i) {
    result |= static_cast<std::uint32_t>(bytes >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
  }
  return result;
#endif
}

/// LOP3: bit i of the result is bit 4 a + 2 b + c of `kTable`, where a, b, c are bit i of the operands. A table is the
/// wanted expression of 0xf0, 0xcc and 0xaa.
template <std::uint8_t kTable>
UNWEIGHT_HOST_DEVICE inline std::uint32_t logic3(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
#if defined(__CUDA_ARCH__)
  std::uint32_t result;
  asm("lop3.b32 %0, %1, %2, %3, %4;" : "=r"(result) : "r"(a), "r"(b), "r"(c), "n"(kTable));
  return result;
#else
  std::uint32_t result = 0;
  for (std::uint32_t i = 0; i < 32; ++i) {
    const std::uint32_t entry = (a >> i & 1) << 2 | (b >> i & 1) << 1 | (c >> i & 1);
    result |= (kTable >> entry & 1U) << i;
  }
  return result;
#endif
}

/// Bits of `if_set` where `mask` has ones, of `if_clear` elsewhere. Written in C++ with a constant mask, the compiler
/// makes two instructions of it.
UNWEIGHT_HOST_DEVICE inline std::uint32_t select_bits(std::uint32_t mask, std::uint32_t if_set,
                                                      std::uint32_t if_clear) {
  return logic3<(0xf0 & 0xcc) | (~0xf0 & 0xaa)>(mask, if_set, if_clear);
}

/// SHF: the 32 bits from bit `shift`, below 32, of the 64 of `low`, then `high`.
UNWEIGHT_HOST_DEVICE inline std::uint32_t funnel_shift(std::uint32_t low, std::uint32_t high, std::uint32_t shift) {
#if defined(__CUDA_ARCH__)
  return __funnelshift_r(low, high, shift);
#else
  return static_cast<std::uint32_t>((std::uint64_t{high} << 32 | low) >> shift);
#endif
}

/// (low + 2^32 high) * factor + addend in 64 bits, in two instructions: the high half's product joins the addend
/// (IMAD), beside the path of the low half, which waits for one multiplication that adds (IMAD.WIDE). ptxas makes that
/// of this pair alone: mad.wide, or C++, become a product and two additions behind it.
UNWEIGHT_HOST_DEVICE inline std::uint64_t multiply_add(std::uint32_t low, std::uint32_t high, std::uint32_t factor,
                                                       std::uint64_t addend) {
#if defined(__CUDA_ARCH__)
  std::uint64_t result;
  asm("{\n\t.reg .u32 l, h;\n\t"
      "mov.b64 {l, h}, %4;\n\tmad.lo.u32 h, %2, %3, h;\n\t"
      "mad.lo.cc.u32 l, %1, %3, l;\n\tmadc.hi.u32 h, %1, %3, h;\n\tmov.b64 %0, {l, h};\n\t}"
      : "=l"(result)
      : "r"(low), "r"(high), "r"(factor), "l"(addend));
  return result;
#else
  return (std::uint64_t{high} << 32 | low) * factor + addend;
#endif
}

/// Exact.
UNWEIGHT_HOST_DEVICE inline float float_of_bf16(std::uint16_t value) {
  const std::uint32_t bits = std::uint32_t{value} << 16;
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
#endif
}

/// To nearest, ties to even; a NaN becomes 0x7fff.
UNWEIGHT_HOST_DEVICE inline std::uint16_t round_to_bf16(float value) {
#if defined(__CUDA_ARCH__)
  std::uint16_t result;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result) : "f"(value));
  return result;
#else
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return 0x7fff;
  return static_cast<std::uint16_t>((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
#endif
}

}  // namespace unweight::device
