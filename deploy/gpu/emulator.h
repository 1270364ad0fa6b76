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

// The threads of a block in which they wait for each other: contexts of their own, which end never
// and take block after block, switched where a thread waits, by jumps, as swapcontext enters the
// kernel of the operating system each time. A warp runs until all its threads wait at a barrier,
// then the next one does.
namespace emulation {
constexpr size_t kStack = 32 << 10;
constexpr unsigned kMost = 1024, kWarp = 32;
enum Wait { kNothing, kBarrier, kMask, kShuffle, kFinished };
struct Thread {
  ucontext_t start;
  jmp_buf at;
  bool started;
  Wait wait;
  // Of what a warp does together: where in the source, with whom, the lane read, and the value given,
  // then the one got.
  unsigned site, mask, from;
  unsigned long long value;
  bool met;
};
static Thread threads[kMost];
static jmp_buf scheduler;
static unsigned running;
static char* stacks;
static void (*body)();

static void wait_for(Wait what) {
  threads[running].wait = what;
  if (_setjmp(threads[running].at) == 0) _longjmp(scheduler, 1);
}

static void enter() {
  for (;;) {
    body();
    wait_for(kFinished);
  }
}

static void set_thread(unsigned number) {
  threadIdx.x = number % blockDim.x;
  threadIdx.y = number / blockDim.x % blockDim.y;
  threadIdx.z = number / blockDim.x / blockDim.y;
}

// A function of its own, so that a jump back finds its caller's variables as they were.
static void __attribute__((noinline)) resume(unsigned number) {
  Thread& thread = threads[number];
  running = number;
  set_thread(number);
  thread.wait = kNothing;
  if (_setjmp(scheduler)) return;
  if (thread.started) _longjmp(thread.at, 1);
  thread.started = true;
  getcontext(&thread.start);
  thread.start.uc_stack.ss_sp = stacks + number * kStack;
  thread.start.uc_stack.ss_size = kStack;
  makecontext(&thread.start, enter, 0);
  setcontext(&thread.start);
}

// Lanes of a warp whose threads wait for the same, by a field's value.
static unsigned together(unsigned first, unsigned count, Wait wait, unsigned Thread::*field,
                         unsigned value) {
  unsigned lanes = 0;
  for (unsigned i = 0; i < count; ++i) {
    const Thread& thread = threads[first + i];
    if (thread.wait == wait && thread.*field == value) lanes |= 1u << i;
  }
  return lanes;
}

// What the threads of a warp, all of which wait, do together. A shuffle is done once every thread
// that its mask names, and that has not returned, is at it; a lane that is not there has every bit
// set: as a float it is a NaN.
static void meet(unsigned first, unsigned count) {
  unsigned known = 0, lanes = 0, alive = 0;  // of the mask or the site of the lane before
  for (unsigned i = 0; i < count; ++i) alive |= (threads[first + i].wait != kFinished) * (1u << i);
  unsigned long long got[kWarp];
  for (unsigned i = 0; i < count; ++i) {
    Thread& thread = threads[first + i];
    thread.met = false;
    if (thread.wait == kMask) {
      if (!lanes || thread.site != known)
        lanes = together(first, count, kMask, &Thread::site, known = thread.site);
      got[i] = lanes;
      thread.met = true;
    }
  }
  lanes = 0;
  for (unsigned i = 0; i < count; ++i) {
    Thread& thread = threads[first + i];
    if (thread.wait != kShuffle) continue;
    if (!lanes || thread.mask != known)
      lanes = together(first, count, kShuffle, &Thread::mask, known = thread.mask);
    thread.met = (thread.mask >> i & 1) && !(thread.mask & alive & ~lanes);
    const bool there = lanes & thread.mask & (1u << thread.from);
    got[i] = there ? threads[first + thread.from].value : ~0ull;
  }
  for (unsigned i = 0; i < count; ++i) {
    Thread& thread = threads[first + i];
    if (!thread.met) continue;
    thread.value = got[i];
    thread.wait = kNothing;
  }
}

// Until every thread of a warp waits at a barrier or has returned. False where some wait for others
// of the warp that do not come.
static bool run_warp(unsigned first, unsigned count, bool backwards) {
  for (bool ran = true; ran;) {
    ran = false;
    for (unsigned i = 0; i < count; ++i) {
      const unsigned number = first + (backwards ? count - 1 - i : i);
      if (threads[number].wait != kNothing) continue;
      resume(number);
      ran = true;
    }
    if (ran) meet(first, count);
  }
  for (unsigned i = 0; i < count; ++i) {
    const Wait wait = threads[first + i].wait;
    if (wait != kBarrier && wait != kFinished) return false;
  }
  return true;
}

// False where threads wait for ever.
static bool run_block(bool waits, bool backwards) {
  const unsigned count = blockDim.x * blockDim.y * blockDim.z;
  if (!waits) {
    for (unsigned i = 0; i < count; ++i) {
      set_thread(backwards ? count - 1 - i : i);
      body();
    }
    return true;
  }
  if (stacks == nullptr) stacks = static_cast<char*>(malloc(kStack * kMost));
  for (unsigned i = 0; i < count; ++i) threads[i].wait = kNothing;
  const unsigned warps = (count + kWarp - 1) / kWarp;
  for (bool waiting = true; waiting;) {
    for (unsigned w = 0; w < warps; ++w) {
      const unsigned first = (backwards ? warps - 1 - w : w) * kWarp;
      if (run_warp(first, min(kWarp, count - first), backwards)) continue;
      for (unsigned i = 0; i < kMost; ++i) threads[i].started = false;  // they begin anew
      return false;
    }
    waiting = false;
    for (unsigned i = 0; i < count; ++i) {
      if (threads[i].wait != kBarrier) continue;
      threads[i].wait = kNothing;
      waiting = true;
    }
  }
  return true;
}

static unsigned active_mask(unsigned site) {
  threads[running].site = site;
  wait_for(kMask);
  return static_cast<unsigned>(threads[running].value);
}

template <class T>
static T shuffle(unsigned mask, T value, unsigned from) {
  static_assert(sizeof(T) <= sizeof(Thread::value), "at most 8 bytes");
  Thread& thread = threads[running];
  memcpy(&thread.value, &value, sizeof(T));
  thread.mask = mask;
  thread.from = from;
  wait_for(kShuffle);
  memcpy(&value, &thread.value, sizeof(T));
  return value;
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

static void __syncthreads() { emulation::wait_for(emulation::kBarrier); }

// Of a warp's 32 threads those that are at this very place, and values of other lanes of the
// `width` lanes that a thread is among: past their end it keeps its own.
#define __activemask() emulation::active_mask(__COUNTER__)
template <class T>
static T __shfl_sync(unsigned mask, T value, int lane, int width) {
  const unsigned own = emulation::running % emulation::kWarp;
  return emulation::shuffle(mask, value, own / width * width + lane % width);
}
template <class T>
static T __shfl_down_sync(unsigned mask, T value, unsigned by, int width) {
  const unsigned own = emulation::running % emulation::kWarp;
  return emulation::shuffle(mask, value, own % width + by < unsigned(width) ? own + by : own);
}
template <class T>
static T __shfl_up_sync(unsigned mask, T value, unsigned by, int width) {
  const unsigned own = emulation::running % emulation::kWarp;
  return emulation::shuffle(mask, value, own % width >= by ? own - by : own);
}

// Two functions for each kernel: it, where sizes are those of the grid and the block, which returns
// whether its threads waited for ever, and how many arguments it has.
#define EMULATE(kernel, waits)                                                        \
  static void** kernel##_arguments;                                                   \
  static void kernel##_body() { emulation::call(kernel, kernel##_arguments); }        \
  extern "C" unsigned arguments_##kernel() { return emulation::count(kernel); }      \
  extern "C" int emulate_##kernel(void** arguments, const unsigned* sizes, int backwards) { \
    gridDim = {sizes[0], sizes[1], sizes[2]};                                         \
    blockDim = {sizes[3], sizes[4], sizes[5]};                                        \
    kernel##_arguments = arguments;                                                   \
    emulation::body = kernel##_body;                                                  \
    for (blockIdx.z = 0; blockIdx.z < gridDim.z; ++blockIdx.z)                        \
      for (blockIdx.y = 0; blockIdx.y < gridDim.y; ++blockIdx.y)                      \
        for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x)                    \
          if (!emulation::run_block(waits, backwards)) return 1;                      \
    return 0;                                                                         \
  }
