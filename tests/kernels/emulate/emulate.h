// Shims that let g++ compile the .cu files, and a launch that runs their blocks one after the other: every thread of a
// block is a fiber, __syncthreads passes to the next one. Running the fibers in the opposite order (`backwards`) gives
// other results where a barrier is missing. The half types are gcc's; ex2 is libm's, rounded better than MUFU's.
#pragma once
#define DV_EMULATE

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <vector>

struct dv_dim3 {
  unsigned x;
};
static dv_dim3 threadIdx, blockIdx;

#define __shared__ static
#define __constant__ const
#define DV_FN [[maybe_unused]] static inline

struct dv_fiber {
  ucontext_t context;
  bool done;
};

static std::vector<dv_fiber> fibers;
static std::vector<char> stacks;
static ucontext_t scheduler;
static unsigned current, barriers;
static void (*body)(const void*);
static const void* arguments;
static int votes[2];  // of __syncthreads_or, by the barrier's parity

static const size_t STACK = 64 * 1024;

static void dv_enter() {
  body(arguments);
  fibers[current].done = true;
}

static void __syncthreads() { swapcontext(&fibers[current].context, &scheduler); }

static int __syncthreads_or(int vote) {
  int* box = &votes[barriers % 2];
  *box |= vote != 0;
  __syncthreads();
  return *box;
}

static int dv_run(void (*kernel)(const void*), const void* args, long long blocks, int threads, int backwards) {
  body = kernel, arguments = args;
  fibers.resize(threads);
  stacks.resize(threads * STACK);
  for (long long b = 0; b < blocks; ++b) {
    blockIdx.x = (unsigned)b;
    barriers = 0;
    votes[0] = votes[1] = 0;
    for (int t = 0; t < threads; ++t) {
      dv_fiber& fiber = fibers[t];
      fiber.done = false;
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = &stacks[t * STACK];
      fiber.context.uc_stack.ss_size = STACK;
      fiber.context.uc_link = &scheduler;
      makecontext(&fiber.context, dv_enter, 0);
    }
    int running = threads;
    while (running) {  // one round: every thread to its next barrier or its end
      int ended = 0;
      for (int n = 0; n < threads; ++n) {
        int t = backwards ? threads - 1 - n : n;
        if (fibers[t].done) continue;
        current = threadIdx.x = t;
        swapcontext(&scheduler, &fibers[t].context);
        ended += fibers[t].done;
      }
      running -= ended;
      ++barriers;
      votes[barriers % 2] = 0;
    }
  }
  return 0;
}

#define DV_KERNEL(name, args, threads, blocks)                                                          \
  static void name(const args& p);                                                                      \
  static void name##_body(const void* p) { name(*(const args*)p); }                                     \
  extern "C" int name##_emulated(const void* p, long long size, long long grid, int block, int backwards) { \
    if (size != (long long)sizeof(args) || block != threads) return 1;                                  \
    return dv_run(name##_body, p, grid, block, backwards);                                              \
  }                                                                                                     \
  static void name(const args& p)

template <class To, class From>
static inline To dv_bits(From x) {
  To y;
  memcpy(&y, &x, sizeof y);
  return y;
}

#define DV_INFINITY HUGE_VAL
#define dv_fma(a, b, c) fmaf(a, b, c)
#define dv_as_float(x) dv_bits<float>((int)(x))
#define dv_as_int(x) dv_bits<int>((float)(x))
#define dv_sqrt(x) sqrtf(x)
#define dv_abs(x) fabsf(x)
#define dv_to_float(w) ((float)(unsigned)(w))

DV_FN float dv_ex2(float x) { return x < -126.0f ? 0.0f : exp2f(x); }
DV_FN float dv_from_f16(unsigned short bits) { return (float)dv_bits<_Float16>(bits); }
DV_FN unsigned short dv_to_f16(float x) { return dv_bits<unsigned short>((_Float16)x); }
