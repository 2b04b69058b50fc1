// SPDX-License-Identifier: Apache-2.0
//
// The tensor cores through a warpgroup: four warps, the first of them a multiple of four, multiply together (PTX ISA,
// "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions"). A is in registers, 16 rows a warp, in the
// layout of mma.m16n8k16's A; B is in shared memory; a warp's part of D has the layout of mma.m16n8k16's D.
#pragma once

#include <cstddef>
#include <cstdint>

namespace unweight::ptx {

/// Keeps the compiler from moving accesses to D across this point: it does not know that wgmma() is asynchronous.
template <std::size_t Tiles>
__device__ __forceinline__ void pin(float (&d)[Tiles][4]) {
#pragma unroll
  for (auto& tile : d) {
#pragma unroll
    for (float& value : tile) asm volatile("" : "+f"(value)::"memory");
  }
}

/// Before a series of wgmma(): what this warp has put into its registers is there.
template <std::size_t Tiles>
__device__ __forceinline__ void wgmma_fence(float (&d)[Tiles][4]) {
  pin(d);
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

/// Likewise, before a further series on the D of one that may be under way.
__device__ __forceinline__ void wgmma_fence_again() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

/// After a series of wgmma().
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

/// Waits for all committed wgmma(): D is there, A and B may be overwritten.
template <std::size_t Tiles>
__device__ __forceinline__ void wgmma_wait(float (&d)[Tiles][4]) {
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  pin(d);
}

/// Waits for all committed series of wgmma() but the last.
__device__ __forceinline__ void wgmma_wait_for_all_but_one() {
  asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
}

/// Keeps the compiler from giving the registers of `a`, A operands of wgmma(), to other values before this point,
/// which comes after wgmma_wait(). It does not know that they are still being read: across the back edge of a loop,
/// ptxas of CUDA 13.0 loads the next operand into them. A store that never happens is what keeps it. `small` is below
/// 32, which the compiler must not know. tests/wgmma_registers.py looks at the machine code.
__device__ __forceinline__ void wgmma_hold(const std::uint32_t (&a)[4][4], std::uint32_t small) {
  asm volatile(
      "{\n"
      ".reg .pred never;\n"
      "setp.ge.u32 never, %16, 32;\n"
      "@never st.shared.v4.b32 [%16], {%0, %1, %2, %3};\n"
      "@never st.shared.v4.b32 [%16], {%4, %5, %6, %7};\n"
      "@never st.shared.v4.b32 [%16], {%8, %9, %10, %11};\n"
      "@never st.shared.v4.b32 [%16], {%12, %13, %14, %15};\n"
      "}\n" ::"r"(a[0][0]),
      "r"(a[0][1]), "r"(a[0][2]), "r"(a[0][3]), "r"(a[1][0]), "r"(a[1][1]), "r"(a[1][2]), "r"(a[1][3]), "r"(a[2][0]),
      "r"(a[2][1]), "r"(a[2][2]), "r"(a[2][3]), "r"(a[3][0]), "r"(a[3][1]), "r"(a[3][2]), "r"(a[3][3]), "r"(small));
}

/// Likewise for several operands at a time: stores to one address, that only keep registers alive, would be merged.
__device__ __forceinline__ void wgmma_hold_apart(const std::uint32_t (&a)[4][4], std::uint32_t small) {
  asm volatile(
      "{\n"
      ".reg .pred usual;\n"
      "setp.lt.u32 usual, %16, 32;\n"
      "@usual bra.uni done_%=;\n"
      "st.shared.v4.b32 [%16], {%0, %1, %2, %3};\n"
      "st.shared.v4.b32 [%16 + 16], {%4, %5, %6, %7};\n"
      "st.shared.v4.b32 [%16 + 32], {%8, %9, %10, %11};\n"
      "st.shared.v4.b32 [%16 + 48], {%12, %13, %14, %15};\n"
      "done_%=:\n"
      "}\n" ::"r"(a[0][0]),
      "r"(a[0][1]), "r"(a[0][2]), "r"(a[0][3]), "r"(a[1][0]), "r"(a[1][1]), "r"(a[1][2]), "r"(a[1][3]), "r"(a[2][0]),
      "r"(a[2][1]), "r"(a[2][2]), "r"(a[2][3]), "r"(a[3][0]), "r"(a[3][1]), "r"(a[3][2]), "r"(a[3][3]), "r"(small));
}

/// Makes ordinary stores to shared memory visible to wgmma() and the copy engine. By each thread that stored, before it
/// arrives at the barrier that tells the others.
__device__ __forceinline__ void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/// Describes B: columns of 64 values along K, a column a row of 128 bytes in shared memory, 8 columns 1 KiB, with the
/// 128-byte swizzle. `address` is that of the columns, a multiple of 1024. The lower word; the upper one is always
/// kOperandHigh.
__device__ __forceinline__ std::uint32_t wgmma_operand(std::uint32_t address) {
  constexpr std::uint32_t kUnusedOffset = 1U << 16;
  return kUnusedOffset | (address >> 4 & 0x3fffU);
}
inline constexpr std::uint32_t kOperandHigh = 1U << 30 /* 128-byte swizzle */ | 1024U >> 4 /* eight columns */;

/// The operand `values` further along K, a multiple of 8.
__device__ __forceinline__ std::uint32_t wgmma_operand_at(std::uint32_t operand, std::uint32_t values) {
  return operand + values * 2 / 16;
}

/// D[64 x 32] += A[64 x 16] * B[16 x 32] by four warps; see wgmma().
__device__ __forceinline__ void wgmma_64x32x16(float (&d)[4][4], const std::uint32_t (&a)[4], std::uint32_t b) {
  asm volatile(
      "{\n.reg .b64 b;\nmov.b64 b, {%20, %21};\n"
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
      "{%16, %17, %18, %19}, b, 1, 1, 1, 0;\n}\n"
      : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]), "+f"(d[1][2]),
        "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]), "+f"(d[3][0]), "+f"(d[3][1]),
        "+f"(d[3][2]), "+f"(d[3][3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "n"(kOperandHigh));
}

/// D[64 x 64] += A[64 x 16] * B[16 x 64] by four warps; see wgmma().
__device__ __forceinline__ void wgmma_64x64x16(float (&d)[8][4], const std::uint32_t (&a)[4], std::uint32_t b) {
  asm volatile(
      "{\n.reg .b64 b;\nmov.b64 b, {%36, %37};\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "
      "%24, %25, %26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, b, 1, 1, 1, 0;\n}\n"
      : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]), "+f"(d[1][2]),
        "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]), "+f"(d[3][0]), "+f"(d[3][1]),
        "+f"(d[3][2]), "+f"(d[3][3]), "+f"(d[4][0]), "+f"(d[4][1]), "+f"(d[4][2]), "+f"(d[4][3]), "+f"(d[5][0]),
        "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]), "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]),
        "+f"(d[7][0]), "+f"(d[7][1]), "+f"(d[7][2]), "+f"(d[7][3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "n"(kOperandHigh));
}

/// D[64 x 128] += A[64 x 16] * B[16 x 128] by four warps; see wgmma().
__device__ __forceinline__ void wgmma_64x128x16(float (&d)[16][4], const std::uint32_t (&a)[4], std::uint32_t b) {
  asm volatile(
      "{\n.reg .b64 b;\nmov.b64 b, {%68, %69};\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "{%64, %65, %66, %67}, b, 1, 1, 1, 0;\n}\n"
      : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]), "+f"(d[1][2]),
        "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]), "+f"(d[3][0]), "+f"(d[3][1]),
        "+f"(d[3][2]), "+f"(d[3][3]), "+f"(d[4][0]), "+f"(d[4][1]), "+f"(d[4][2]), "+f"(d[4][3]), "+f"(d[5][0]),
        "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]), "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]),
        "+f"(d[7][0]), "+f"(d[7][1]), "+f"(d[7][2]), "+f"(d[7][3]), "+f"(d[8][0]), "+f"(d[8][1]), "+f"(d[8][2]),
        "+f"(d[8][3]), "+f"(d[9][0]), "+f"(d[9][1]), "+f"(d[9][2]), "+f"(d[9][3]), "+f"(d[10][0]), "+f"(d[10][1]),
        "+f"(d[10][2]), "+f"(d[10][3]), "+f"(d[11][0]), "+f"(d[11][1]), "+f"(d[11][2]), "+f"(d[11][3]), "+f"(d[12][0]),
        "+f"(d[12][1]), "+f"(d[12][2]), "+f"(d[12][3]), "+f"(d[13][0]), "+f"(d[13][1]), "+f"(d[13][2]), "+f"(d[13][3]),
        "+f"(d[14][0]), "+f"(d[14][1]), "+f"(d[14][2]), "+f"(d[14][3]), "+f"(d[15][0]), "+f"(d[15][1]), "+f"(d[15][2]),
        "+f"(d[15][3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "n"(kOperandHigh));
}

/// D[64 x 256] += A[64 x 16] * B[16 x 256] by four warps; see wgmma().
__device__ __forceinline__ void wgmma_64x256x16(float (&d)[32][4], const std::uint32_t (&a)[4], std::uint32_t b) {
  asm volatile(
      "{\n.reg .b64 b;\nmov.b64 b, {%132, %133};\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
      "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
      "{%128, %129, %130, %131}, b, 1, 1, 1, 0;\n}\n"
      : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]), "+f"(d[1][2]),
        "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]), "+f"(d[3][0]), "+f"(d[3][1]),
        "+f"(d[3][2]), "+f"(d[3][3]), "+f"(d[4][0]), "+f"(d[4][1]), "+f"(d[4][2]), "+f"(d[4][3]), "+f"(d[5][0]),
        "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]), "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]),
        "+f"(d[7][0]), "+f"(d[7][1]), "+f"(d[7][2]), "+f"(d[7][3]), "+f"(d[8][0]), "+f"(d[8][1]), "+f"(d[8][2]),
        "+f"(d[8][3]), "+f"(d[9][0]), "+f"(d[9][1]), "+f"(d[9][2]), "+f"(d[9][3]), "+f"(d[10][0]), "+f"(d[10][1]),
        "+f"(d[10][2]), "+f"(d[10][3]), "+f"(d[11][0]), "+f"(d[11][1]), "+f"(d[11][2]), "+f"(d[11][3]), "+f"(d[12][0]),
        "+f"(d[12][1]), "+f"(d[12][2]), "+f"(d[12][3]), "+f"(d[13][0]), "+f"(d[13][1]), "+f"(d[13][2]), "+f"(d[13][3]),
        "+f"(d[14][0]), "+f"(d[14][1]), "+f"(d[14][2]), "+f"(d[14][3]), "+f"(d[15][0]), "+f"(d[15][1]), "+f"(d[15][2]),
        "+f"(d[15][3]), "+f"(d[16][0]), "+f"(d[16][1]), "+f"(d[16][2]), "+f"(d[16][3]), "+f"(d[17][0]), "+f"(d[17][1]),
        "+f"(d[17][2]), "+f"(d[17][3]), "+f"(d[18][0]), "+f"(d[18][1]), "+f"(d[18][2]), "+f"(d[18][3]), "+f"(d[19][0]),
        "+f"(d[19][1]), "+f"(d[19][2]), "+f"(d[19][3]), "+f"(d[20][0]), "+f"(d[20][1]), "+f"(d[20][2]), "+f"(d[20][3]),
        "+f"(d[21][0]), "+f"(d[21][1]), "+f"(d[21][2]), "+f"(d[21][3]), "+f"(d[22][0]), "+f"(d[22][1]), "+f"(d[22][2]),
        "+f"(d[22][3]), "+f"(d[23][0]), "+f"(d[23][1]), "+f"(d[23][2]), "+f"(d[23][3]), "+f"(d[24][0]), "+f"(d[24][1]),
        "+f"(d[24][2]), "+f"(d[24][3]), "+f"(d[25][0]), "+f"(d[25][1]), "+f"(d[25][2]), "+f"(d[25][3]), "+f"(d[26][0]),
        "+f"(d[26][1]), "+f"(d[26][2]), "+f"(d[26][3]), "+f"(d[27][0]), "+f"(d[27][1]), "+f"(d[27][2]), "+f"(d[27][3]),
        "+f"(d[28][0]), "+f"(d[28][1]), "+f"(d[28][2]), "+f"(d[28][3]), "+f"(d[29][0]), "+f"(d[29][1]), "+f"(d[29][2]),
        "+f"(d[29][3]), "+f"(d[30][0]), "+f"(d[30][1]), "+f"(d[30][2]), "+f"(d[30][3]), "+f"(d[31][0]), "+f"(d[31][1]),
        "+f"(d[31][2]), "+f"(d[31][3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "n"(kOperandHigh));
}

/// D[64 x 8 tiles] += A * B. Asynchronous: between wgmma_fence() and wgmma_commit(), and by all four warps.
__device__ __forceinline__ void wgmma(float (&d)[4][4], const std::uint32_t (&a)[4], std::uint32_t b) {
  wgmma_64x32x16(d, a, b);
}
__device__ __forceinline__ void wgmma(float (&d)[8][4], const std::uint32_t (&a)[4], std::uint32_t b) {
  wgmma_64x64x16(d, a, b);
}
__device__ __forceinline__ void wgmma(float (&d)[16][4], const std::uint32_t (&a)[4], std::uint32_t b) {
  wgmma_64x128x16(d, a, b);
}
__device__ __forceinline__ void wgmma(float (&d)[32][4], const std::uint32_t (&a)[4], std::uint32_t b) {
  wgmma_64x256x16(d, a, b);
}

}  // namespace unweight::ptx
