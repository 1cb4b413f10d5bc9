// How does a warpgroup multiply tiles? (sm_90a)
//
// Inline assembly takes no array of operands, so each N names its registers: the macros below write
// the lists, ATTNEXT_WGMMA one N.
#pragma once

#include "ptx/declarations_sm90.h"

namespace attnext {

namespace ptx_detail {

template <int kN>
struct Wgmma;

// clang-format off
#define ATTNEXT_REGISTERS_8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define ATTNEXT_REGISTERS_16 ATTNEXT_REGISTERS_8 ", " "%8, %9, %10, %11, %12, %13, %14, %15"
#define ATTNEXT_REGISTERS_24 ATTNEXT_REGISTERS_16 ", " "%16, %17, %18, %19, %20, %21, %22, %23"
#define ATTNEXT_REGISTERS_32 ATTNEXT_REGISTERS_24 ", " "%24, %25, %26, %27, %28, %29, %30, %31"
#define ATTNEXT_REGISTERS_40 ATTNEXT_REGISTERS_32 ", " "%32, %33, %34, %35, %36, %37, %38, %39"
#define ATTNEXT_REGISTERS_48 ATTNEXT_REGISTERS_40 ", " "%40, %41, %42, %43, %44, %45, %46, %47"
#define ATTNEXT_REGISTERS_56 ATTNEXT_REGISTERS_48 ", " "%48, %49, %50, %51, %52, %53, %54, %55"
#define ATTNEXT_REGISTERS_64 ATTNEXT_REGISTERS_56 ", " "%56, %57, %58, %59, %60, %61, %62, %63"
#define ATTNEXT_REGISTERS_72 ATTNEXT_REGISTERS_64 ", " "%64, %65, %66, %67, %68, %69, %70, %71"
#define ATTNEXT_REGISTERS_80 ATTNEXT_REGISTERS_72 ", " "%72, %73, %74, %75, %76, %77, %78, %79"
#define ATTNEXT_REGISTERS_88 ATTNEXT_REGISTERS_80 ", " "%80, %81, %82, %83, %84, %85, %86, %87"
#define ATTNEXT_REGISTERS_96 ATTNEXT_REGISTERS_88 ", " "%88, %89, %90, %91, %92, %93, %94, %95"
#define ATTNEXT_REGISTERS_104 ATTNEXT_REGISTERS_96 ", " "%96, %97, %98, %99, %100, %101, %102, %103"
#define ATTNEXT_REGISTERS_112 ATTNEXT_REGISTERS_104 ", " "%104, %105, %106, %107, %108, %109, %110, %111"
#define ATTNEXT_REGISTERS_120 ATTNEXT_REGISTERS_112 ", " "%112, %113, %114, %115, %116, %117, %118, %119"
#define ATTNEXT_REGISTERS_128 ATTNEXT_REGISTERS_120 ", " "%120, %121, %122, %123, %124, %125, %126, %127"
#define ATTNEXT_EIGHT(i)                                                                    \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define ATTNEXT_OPERANDS_8 ATTNEXT_EIGHT(0)
#define ATTNEXT_OPERANDS_16 ATTNEXT_OPERANDS_8, ATTNEXT_EIGHT(8)
#define ATTNEXT_OPERANDS_24 ATTNEXT_OPERANDS_16, ATTNEXT_EIGHT(16)
#define ATTNEXT_OPERANDS_32 ATTNEXT_OPERANDS_24, ATTNEXT_EIGHT(24)
#define ATTNEXT_OPERANDS_40 ATTNEXT_OPERANDS_32, ATTNEXT_EIGHT(32)
#define ATTNEXT_OPERANDS_48 ATTNEXT_OPERANDS_40, ATTNEXT_EIGHT(40)
#define ATTNEXT_OPERANDS_56 ATTNEXT_OPERANDS_48, ATTNEXT_EIGHT(48)
#define ATTNEXT_OPERANDS_64 ATTNEXT_OPERANDS_56, ATTNEXT_EIGHT(56)
#define ATTNEXT_OPERANDS_72 ATTNEXT_OPERANDS_64, ATTNEXT_EIGHT(64)
#define ATTNEXT_OPERANDS_80 ATTNEXT_OPERANDS_72, ATTNEXT_EIGHT(72)
#define ATTNEXT_OPERANDS_88 ATTNEXT_OPERANDS_80, ATTNEXT_EIGHT(80)
#define ATTNEXT_OPERANDS_96 ATTNEXT_OPERANDS_88, ATTNEXT_EIGHT(88)
#define ATTNEXT_OPERANDS_104 ATTNEXT_OPERANDS_96, ATTNEXT_EIGHT(96)
#define ATTNEXT_OPERANDS_112 ATTNEXT_OPERANDS_104, ATTNEXT_EIGHT(104)
#define ATTNEXT_OPERANDS_120 ATTNEXT_OPERANDS_112, ATTNEXT_EIGHT(112)
#define ATTNEXT_OPERANDS_128 ATTNEXT_OPERANDS_120, ATTNEXT_EIGHT(120)

// One type of one N. p0 to p6 are the operands' numbers after the `count` registers of d.
#define ATTNEXT_WGMMA_OF(type, n, count, p0, p1, p2, p3, p4, p5, p6)                              \
  template <int kA, int kB>                                                                       \
  PTX_FN static void type(float (&d)[count], uint64_t a, uint64_t b, int accumulates) {           \
    asm volatile("{.reg .pred p; setp.ne.b32 p, %" #p2 ", 0;\n"                                   \
                 "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." #type "." #type                \
                 " {" ATTNEXT_REGISTERS_##count "}, %" #p0 ", %" #p1 ", p, 1, 1, %" #p3 ", %" #p4 \
                 ";}\n"                                                                           \
                 : ATTNEXT_OPERANDS_##count                                                       \
                 : "l"(a), "l"(b), "r"(accumulates), "n"(kA), "n"(kB));                           \
  }                                                                                               \
  template <int kB>                                                                               \
  PTX_FN static void type(float (&d)[count], const uint32_t (&a)[4], uint64_t b,                  \
                          int accumulates) {                                                      \
    asm volatile("{.reg .pred p; setp.ne.b32 p, %" #p5 ", 0;\n"                                   \
                 "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." #type "." #type                \
                 " {" ATTNEXT_REGISTERS_##count "}, {%" #p0 ", %" #p1 ", %" #p2 ", %" #p3         \
                 "}, %" #p4 ", p, 1, 1, %" #p6 ";}\n"                                             \
                 : ATTNEXT_OPERANDS_##count                                                       \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulates), "n"(kB)); \
  }
#define ATTNEXT_WGMMA(n, ...)               \
  template <>                               \
  struct Wgmma<n> {                         \
    ATTNEXT_WGMMA_OF(f16, n, __VA_ARGS__)   \
    ATTNEXT_WGMMA_OF(bf16, n, __VA_ARGS__)  \
  };
ATTNEXT_WGMMA(16, 8, 8, 9, 10, 11, 12, 13, 14)
ATTNEXT_WGMMA(32, 16, 16, 17, 18, 19, 20, 21, 22)
ATTNEXT_WGMMA(48, 24, 24, 25, 26, 27, 28, 29, 30)
ATTNEXT_WGMMA(64, 32, 32, 33, 34, 35, 36, 37, 38)
ATTNEXT_WGMMA(80, 40, 40, 41, 42, 43, 44, 45, 46)
ATTNEXT_WGMMA(96, 48, 48, 49, 50, 51, 52, 53, 54)
ATTNEXT_WGMMA(112, 56, 56, 57, 58, 59, 60, 61, 62)
ATTNEXT_WGMMA(128, 64, 64, 65, 66, 67, 68, 69, 70)
ATTNEXT_WGMMA(144, 72, 72, 73, 74, 75, 76, 77, 78)
ATTNEXT_WGMMA(160, 80, 80, 81, 82, 83, 84, 85, 86)
ATTNEXT_WGMMA(176, 88, 88, 89, 90, 91, 92, 93, 94)
ATTNEXT_WGMMA(192, 96, 96, 97, 98, 99, 100, 101, 102)
ATTNEXT_WGMMA(208, 104, 104, 105, 106, 107, 108, 109, 110)
ATTNEXT_WGMMA(224, 112, 112, 113, 114, 115, 116, 117, 118)
ATTNEXT_WGMMA(240, 120, 120, 121, 122, 123, 124, 125, 126)
ATTNEXT_WGMMA(256, 128, 128, 129, 130, 131, 132, 133, 134)

#undef ATTNEXT_REGISTERS_8
#undef ATTNEXT_OPERANDS_8
#undef ATTNEXT_REGISTERS_16
#undef ATTNEXT_OPERANDS_16
#undef ATTNEXT_REGISTERS_24
#undef ATTNEXT_OPERANDS_24
#undef ATTNEXT_REGISTERS_32
#undef ATTNEXT_OPERANDS_32
#undef ATTNEXT_REGISTERS_40
#undef ATTNEXT_OPERANDS_40
#undef ATTNEXT_REGISTERS_48
#undef ATTNEXT_OPERANDS_48
#undef ATTNEXT_REGISTERS_56
#undef ATTNEXT_OPERANDS_56
#undef ATTNEXT_REGISTERS_64
#undef ATTNEXT_OPERANDS_64
#undef ATTNEXT_REGISTERS_72
#undef ATTNEXT_OPERANDS_72
#undef ATTNEXT_REGISTERS_80
#undef ATTNEXT_OPERANDS_80
#undef ATTNEXT_REGISTERS_88
#undef ATTNEXT_OPERANDS_88
#undef ATTNEXT_REGISTERS_96
#undef ATTNEXT_OPERANDS_96
#undef ATTNEXT_REGISTERS_104
#undef ATTNEXT_OPERANDS_104
#undef ATTNEXT_REGISTERS_112
#undef ATTNEXT_OPERANDS_112
#undef ATTNEXT_REGISTERS_120
#undef ATTNEXT_OPERANDS_120
#undef ATTNEXT_REGISTERS_128
#undef ATTNEXT_OPERANDS_128
#undef ATTNEXT_EIGHT
#undef ATTNEXT_WGMMA_OF
#undef ATTNEXT_WGMMA
// clang-format on

}  // namespace ptx_detail

PTX_FN void ptx::wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
PTX_FN void ptx::wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kPending>
PTX_FN void ptx::wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

template <int kN, bool kTransposesA, bool kTransposesB>
PTX_FN void ptx::wgmma_f16(float (&d)[kN / 2], uint64_t a, uint64_t b, bool accumulates) {
  ptx_detail::Wgmma<kN>::template f16<kTransposesA, kTransposesB>(d, a, b, accumulates);
}
template <int kN, bool kTransposesA, bool kTransposesB>
PTX_FN void ptx::wgmma_bf16(float (&d)[kN / 2], uint64_t a, uint64_t b, bool accumulates) {
  ptx_detail::Wgmma<kN>::template bf16<kTransposesA, kTransposesB>(d, a, b, accumulates);
}
template <int kN, bool kTransposesB>
PTX_FN void ptx::wgmma_f16(float (&d)[kN / 2], const uint32_t (&a)[4], uint64_t b,
                           bool accumulates) {
  ptx_detail::Wgmma<kN>::template f16<kTransposesB>(d, a, b, accumulates);
}
template <int kN, bool kTransposesB>
PTX_FN void ptx::wgmma_bf16(float (&d)[kN / 2], const uint32_t (&a)[4], uint64_t b,
                            bool accumulates) {
  ptx_detail::Wgmma<kN>::template bf16<kTransposesB>(d, a, b, accumulates);
}

template <int kCount>
PTX_FN void ptx::keep(float (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(values[i])::"memory");
}
template <int kRegisters>
PTX_FN void ptx::increase_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
PTX_FN void ptx::decrease_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

}  // namespace attnext
