// The words of CUDA's cuda_fp16.h that generated source uses, for a C++ compiler of the CPU.
#pragma once
#include <cuda.h>

#ifndef __FLT16_MANT_DIG__
#error this compiler has no half (_Float16): emulating fp16 needs g++ 12 (13 on ARM) or clang++ 15
#endif
// Converted to nearest, ties to even, as on the GPU.
using half = _Float16;
using __half = half;
struct __align__(4) half2 {
  half x, y;
};
using __half2 = half2;
static inline bool __hgt(half a, half b) { return a > b; }
static inline bool __hlt(half a, half b) { return a < b; }
static inline float __half2float(half a) { return a; }
static inline half __float2half(float a) { return half(a); }
