// The warpgroup products of attention on Hopper: descriptors of swizzled operands, and the four shapes in use.
//
// Operands in shared memory lie in panels of rows of 128 bytes, 1024-byte aligned, with the 128-byte swizzle. A product
// of 64 rows leaves the usual accumulator in each warp: warp w of the warpgroup holds rows 16w..16w+15.
// A product runs until `wgmma_wait` has covered it; `settle` keeps the compiler from touching its registers before.
#pragma once

#include <moac/element.cuh>
#include <moac/ptx/hopper.cuh>
#include <moac/tile.cuh>

namespace moac {
namespace sm90 {

// The upper word of every descriptor: groups of eight rows 1024 bytes apart, 128-byte swizzle.
constexpr u32 kDescriptorHigh = 64u | 1u << 30;

// The lower word: address and the distance of panels, in 16 bytes. Adding bytes / 16 moves the operand.

// Q or K: rows are the free dimension.
__device__ __forceinline__ u32 row_operand(u32 address) {
  return address >> 4 | 1u << 16;
}

// V: rows are the summed dimension; the panels of 64 columns are `kPanelBytes` apart.
template <int kPanelBytes>
__device__ __forceinline__ u32 column_operand(u32 address) {
  return address >> 4 | static_cast<u32>(kPanelBytes >> 4) << 16;
}

template <class A, class B>
constexpr bool kSame = false;
template <class A>
constexpr bool kSame<A, A> = true;

// The accumulators as operands, four of a block of eight columns at a time.
#define MOAC_BLOCK(d, i) "+f"(d.value[i][0]), "+f"(d.value[i][1]), "+f"(d.value[i][2]), "+f"(d.value[i][3])
#define MOAC_BLOCKS_8(d, i)                                                                           \
  MOAC_BLOCK(d, i), MOAC_BLOCK(d, i + 1), MOAC_BLOCK(d, i + 2), MOAC_BLOCK(d, i + 3), MOAC_BLOCK(d, i + 4), \
      MOAC_BLOCK(d, i + 5), MOAC_BLOCK(d, i + 6), MOAC_BLOCK(d, i + 7)
#define MOAC_REGISTERS_32                                                                                    \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29," \
  "%30,%31"
#define MOAC_REGISTERS_64                                                                                  \
  MOAC_REGISTERS_32                                                                                        \
  ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58," \
  "%59,%60,%61,%62,%63"

// d = a b, or d += a b if `add`; both operands in shared memory, rows along the free dimension.
#define MOAC_SCORES(type, n, registers, a_operand, b_operand, add_operand, ...)                            \
  asm volatile("{\n.reg .pred add;\n.reg .b64 a, b;\nsetp.ne.b32 add, " add_operand ", 0;\n"               \
               "mov.b64 a, {" a_operand "};\nmov.b64 b, {" b_operand "};\n"                                \
               "wgmma.mma_async.sync.aligned.m64n" n "k16.f32." type "." type " {" registers "}, a, b, add, " \
               "1, 1, 0, 0;\n}"                                                                            \
               : __VA_ARGS__                                                                               \
               : "r"(a), "r"(b), "r"(add), "n"(kDescriptorHigh))

// d += a b; a in registers, b with rows along the summed dimension.
#define MOAC_VALUES(type, n, registers, a_operands, b_operand, ...)                                            \
  asm volatile("{\n.reg .b64 b;\nmov.b64 b, {" b_operand "};\n"                                               \
               "wgmma.mma_async.sync.aligned.m64n" n "k16.f32." type "." type " {" registers "}, {" a_operands   \
               "}, b, 1, 1, 1, 1;\n}"                                                                          \
               : __VA_ARGS__                                                                                   \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "n"(kDescriptorHigh))

template <class Element>
struct Wgmma {
  static constexpr bool kBf16 = kSame<Element, bf16>;
  static_assert(kBf16 || kSame<Element, f16>, "an element type without products");

  static __device__ __forceinline__ void scores(Accumulator<128>& d, u32 a, u32 b, int add) {
    if constexpr (kBf16) {
      MOAC_SCORES("bf16", "128", MOAC_REGISTERS_64, "%64,%67", "%65,%67", "%66", MOAC_BLOCKS_8(d, 0),
                  MOAC_BLOCKS_8(d, 8));
    } else {
      MOAC_SCORES("f16", "128", MOAC_REGISTERS_64, "%64,%67", "%65,%67", "%66", MOAC_BLOCKS_8(d, 0),
                  MOAC_BLOCKS_8(d, 8));
    }
  }

  static __device__ __forceinline__ void scores(Accumulator<64>& d, u32 a, u32 b, int add) {
    if constexpr (kBf16) {
      MOAC_SCORES("bf16", "64", MOAC_REGISTERS_32, "%32,%35", "%33,%35", "%34", MOAC_BLOCKS_8(d, 0));
    } else {
      MOAC_SCORES("f16", "64", MOAC_REGISTERS_32, "%32,%35", "%33,%35", "%34", MOAC_BLOCKS_8(d, 0));
    }
  }

  static __device__ __forceinline__ void values(Accumulator<128>& d, const u32 (&a)[4], u32 b) {
    if constexpr (kBf16) {
      MOAC_VALUES("bf16", "128", MOAC_REGISTERS_64, "%64,%65,%66,%67", "%68,%69", MOAC_BLOCKS_8(d, 0),
                  MOAC_BLOCKS_8(d, 8));
    } else {
      MOAC_VALUES("f16", "128", MOAC_REGISTERS_64, "%64,%65,%66,%67", "%68,%69", MOAC_BLOCKS_8(d, 0),
                  MOAC_BLOCKS_8(d, 8));
    }
  }

  static __device__ __forceinline__ void values(Accumulator<64>& d, const u32 (&a)[4], u32 b) {
    if constexpr (kBf16) {
      MOAC_VALUES("bf16", "64", MOAC_REGISTERS_32, "%32,%33,%34,%35", "%36,%37", MOAC_BLOCKS_8(d, 0));
    } else {
      MOAC_VALUES("f16", "64", MOAC_REGISTERS_32, "%32,%33,%34,%35", "%36,%37", MOAC_BLOCKS_8(d, 0));
    }
  }
};

#undef MOAC_BLOCK
#undef MOAC_BLOCKS_8
#undef MOAC_REGISTERS_32
#undef MOAC_REGISTERS_64
#undef MOAC_SCORES
#undef MOAC_VALUES

// Holds back every use of the accumulators that stands behind it.
template <int kColumns>
__device__ __forceinline__ void settle(Accumulator<kColumns>& d) {
#pragma unroll
  for (int i = 0; i < Accumulator<kColumns>::kBlocks; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) asm volatile("" : "+f"(d.value[i][j])::"memory");
  }
}

// Keeps the arithmetic that `x` comes from in front of the waits behind it: the assembler moves a wait as far ahead as
// the basic block reaches, and the products that it waits for would run under nothing. `x` is never that large.
__device__ __forceinline__ void finish_before_waiting(float x) {
  if (x > 3e38f) asm volatile("nanosleep.u32 20;");
}

}  // namespace sm90
}  // namespace moac
