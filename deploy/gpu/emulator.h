// CUDA's words for a C++ compiler of the CPU; `emulator.py` says what for.
#pragma once
#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)
#define __host__
#define __align__(size) __attribute__((aligned(size)))
#define alignas(size) __attribute__((aligned(size)))  // may stand behind static

struct dim3_ {
  unsigned x, y, z;
};
static dim3_ blockIdx, threadIdx, gridDim, blockDim;

#define VECTOR(type, name)                                                            \
  struct alignas(2 * sizeof(type)) name##2 {                                          \
    type x, y;                                                                        \
  };                                                                                  \
  struct alignas(4 * sizeof(type)) name##4 {                                          \
    type x, y, z, w;                                                                  \
  };                                                                                  \
  static inline name##2 make_##name##2(type x, type y) { return {x, y}; }             \
  static inline name##4 make_##name##4(type x, type y, type z, type w) {              \
    return {x, y, z, w};                                                              \
  }
VECTOR(float, float)
VECTOR(int, int)
VECTOR(unsigned char, uchar)
VECTOR(unsigned short, ushort)
#undef VECTOR

template <class T>
static inline T max(T a, T b) {
  return a > b ? a : b;
}
template <class T>
static inline T min(T a, T b) {
  return a < b ? a : b;
}

// The threads of a block that has barriers: contexts of their own, switched at each barrier, by
// jumps, as swapcontext enters the kernel of the operating system each time.
namespace emulation {
constexpr size_t kStack = 32 << 10;
constexpr unsigned kMost = 1024;
static ucontext_t start[kMost];
static jmp_buf scheduler, threads[kMost];
static bool started[kMost], finished[kMost];
static unsigned running;
static char* stacks;
static void (*body)();

static void enter() {
  body();
  finished[running] = true;
  _longjmp(scheduler, 1);
}

static void set_thread(unsigned number) {
  threadIdx.x = number % blockDim.x;
  threadIdx.y = number / blockDim.x % blockDim.y;
  threadIdx.z = number / blockDim.x / blockDim.y;
}

static void run_block(bool barriers, volatile bool backwards) {
  const volatile unsigned count = blockDim.x * blockDim.y * blockDim.z;
  if (!barriers) {
    for (unsigned i = 0; i < count; ++i) {
      set_thread(backwards ? count - 1 - i : i);
      body();
    }
    return;
  }
  if (stacks == nullptr) stacks = static_cast<char*>(malloc(kStack * kMost));
  for (unsigned i = 0; i < count; ++i) {
    started[i] = finished[i] = false;
    getcontext(&start[i]);
    start[i].uc_stack.ss_sp = stacks + i * kStack;
    start[i].uc_stack.ss_size = kStack;
    makecontext(&start[i], enter, 0);
  }
  // Volatile, as a jump back leaves the values of other local variables open.
  volatile unsigned next, alive;
  for (alive = count; alive;) {
    for (next = 0; next < count; next = next + 1) {
      running = backwards ? count - 1 - next : next;
      if (finished[running]) continue;
      set_thread(running);
      if (_setjmp(scheduler) == 0) {
        if (started[running]) _longjmp(threads[running], 1);
        started[running] = true;
        setcontext(&start[running]);
      }
      if (finished[running]) alive = alive - 1;
    }
  }
}

template <class... A, size_t... I>
static void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
  kernel(static_cast<A>(arguments[I])...);
}
template <class... A>
static unsigned count(void (*)(A...)) {
  return sizeof...(A);
}
template <class... A>
static void call(void (*kernel)(A...), void** arguments) {
  call(kernel, arguments, std::index_sequence_for<A...>{});
}
}  // namespace emulation

static void __syncthreads() {
  if (_setjmp(emulation::threads[emulation::running]) == 0) _longjmp(emulation::scheduler, 1);
}

// Two functions for each kernel: it, where sizes are those of the grid and the block, and how many
// arguments it has.
#define EMULATE(kernel, barriers)                                                     \
  static void** kernel##_arguments;                                                   \
  static void kernel##_body() { emulation::call(kernel, kernel##_arguments); }        \
  extern "C" unsigned arguments_##kernel() { return emulation::count(kernel); }      \
  extern "C" void emulate_##kernel(void** arguments, const unsigned* sizes, int backwards) { \
    gridDim = {sizes[0], sizes[1], sizes[2]};                                         \
    blockDim = {sizes[3], sizes[4], sizes[5]};                                        \
    kernel##_arguments = arguments;                                                   \
    emulation::body = kernel##_body;                                                  \
    for (blockIdx.z = 0; blockIdx.z < gridDim.z; ++blockIdx.z)                        \
      for (blockIdx.y = 0; blockIdx.y < gridDim.y; ++blockIdx.y)                      \
        for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x)                    \
          emulation::run_block(barriers, backwards);                                  \
  }
