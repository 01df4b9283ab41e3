// The CPU back end: a C ABI that kernels/cpu.py loads with ctypes; no torch, no Python.
//
// The cpu_*.h hold the work of one task (a block of rows, or of columns, of one trial). They are compiled here once per
// instruction set, each time in a namespace of its own, and chosen at run time. Tasks and the order of every sum depend
// on the sizes alone, never on the number of threads: results are the same bits on 1 or 64.

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <limits>
#include <new>
#include <vector>

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__)
#define DV_X86 1
#include <immintrin.h>
#endif

#define DV_FN static inline __attribute__((always_inline))
#define DV_VECTOR 1

#include "cpu_jobs.h"

// Each namespace brings DV_LANES and the few operations that are not the same in C++ for all vectors. v_max(low, x)
// must return x where x is NaN, as the x86 instructions do.

namespace baseline {
#define DV_LANES 4
#include "cpu_vector.h"
DV_FN dv_f dv_fma(dv_f a, dv_f b, dv_f c) { return a * b + c; }
DV_FN dv_f dv_round(dv_f x) { return (x + 12582912.0f) - 12582912.0f; }  // of |x| < 2^22
DV_FN dv_i dv_to_int(dv_f x) { return __builtin_convertvector(x, dv_i); }  // of whole numbers
DV_FN dv_f dv_at_least(dv_f low, dv_f x) { return low > x ? low : x; }
DV_FN dv_f dv_at_most(dv_f high, dv_f x) { return high < x ? high : x; }
DV_FN dv_f dv_sqrt(dv_f x) {
  for (int l = 0; l < DV_LANES; ++l) x[l] = __builtin_sqrtf(x[l]);
  return x;
}
DV_FN dv_l dv_product(dv_l a, dv_l b) { return (a & 0xffffffffull) * (b & 0xffffffffull); }
#include "cpu_isa.h"
#undef DV_LANES
}  // namespace baseline

#ifdef DV_X86
#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi2,f16c")
namespace avx2 {
#define DV_LANES 8
#include "cpu_vector.h"
DV_FN dv_f dv_fma(dv_f a, dv_f b, dv_f c) { return _mm256_fmadd_ps(a, b, c); }
DV_FN dv_f dv_at_least(dv_f low, dv_f x) { return _mm256_max_ps(low, x); }
DV_FN dv_f dv_at_most(dv_f high, dv_f x) { return _mm256_min_ps(high, x); }
DV_FN dv_f dv_sqrt(dv_f x) { return _mm256_sqrt_ps(x); }
DV_FN dv_f dv_round(dv_f x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
DV_FN dv_i dv_to_int(dv_f x) { return (dv_i)_mm256_cvtps_epi32(x); }
DV_FN dv_l dv_product(dv_l a, dv_l b) { return (dv_l)_mm256_mul_epu32((__m256i)a, (__m256i)b); }
#include "cpu_isa.h"
#undef DV_LANES
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi2,f16c,prefer-vector-width=512")
namespace avx512 {
#define DV_LANES 16
#include "cpu_vector.h"
DV_FN dv_f dv_fma(dv_f a, dv_f b, dv_f c) { return _mm512_fmadd_ps(a, b, c); }
DV_FN dv_f dv_at_least(dv_f low, dv_f x) { return _mm512_max_ps(low, x); }
DV_FN dv_f dv_at_most(dv_f high, dv_f x) { return _mm512_min_ps(high, x); }
DV_FN dv_f dv_sqrt(dv_f x) { return _mm512_sqrt_ps(x); }
DV_FN dv_f dv_round(dv_f x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
DV_FN dv_i dv_to_int(dv_f x) { return (dv_i)_mm512_cvtps_epi32(x); }
DV_FN dv_l dv_product(dv_l a, dv_l b) { return (dv_l)_mm512_mul_epu32((__m512i)a, (__m512i)b); }
#include "cpu_isa.h"
#undef DV_LANES
}  // namespace avx512
#pragma GCC pop_options
#endif

#define DV_TABLE(space, name)                                                                               \
  {name, space::sample_task, space::noise_task, space::nll_task, space::mixture_task, space::prepare_task, \
   space::marginal_forward_task, space::joint_forward_task, space::marginal_backward_task,                \
   space::marginal_gather_task, space::joint_rows_task, space::joint_columns_task}

static const Isa ISAS[] = {
    DV_TABLE(baseline, "baseline"),
#ifdef DV_X86
    DV_TABLE(avx2, "AVX2"),
    DV_TABLE(avx512, "AVX-512"),
#endif
};

static bool runs_here(int i) {
#ifdef DV_X86
  if (i == 2)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
  if (i == 1) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return i == 0;
}

static int best() {
  int i = (int)(sizeof ISAS / sizeof *ISAS) - 1;
  while (!runs_here(i)) --i;
  return i;
}

static int chosen = best();

// Every task of a job, on `threads` threads. An allocation that fails is reported as 1, never thrown across the ABI.
template <class Job>
static int work(const Job& job, int64_t tasks, void (*task)(const Job&, int64_t), int threads) {
  int failed = 0;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) reduction(| : failed) if (threads > 1 && tasks > 1)
  for (int64_t t = 0; t < tasks; ++t) {
    try {
      task(job, t);
    } catch (const std::bad_alloc&) {
      failed |= 1;
    }
  }
  return failed;
}

#define DV_API extern "C" __attribute__((visibility("default")))

DV_API int dv_abi() { return 2; }

DV_API const char* dv_isa() { return ISAS[chosen].name; }

// For tests: use instruction set i if it runs here (-1: the best). Returns the one in use.
DV_API int dv_use_isa(int i) {
  if (i < 0) chosen = best();
  else if (i < (int)(sizeof ISAS / sizeof *ISAS) && runs_here(i)) chosen = i;
  return chosen;
}

DV_API int dv_sample_kl(const SampleJob* job, int threads) {
  return work(*job, job->tasks(), ISAS[chosen].sample, threads);
}

DV_API int dv_noise(const NoiseJob* job, int threads) {
  return work(*job, job->tasks(), ISAS[chosen].noise, threads);
}

DV_API int dv_nll(const NllJob* job, int threads) { return work(*job, job->tasks(), ISAS[chosen].nll, threads); }

DV_API int dv_mixture_kl(const MixtureJob* job, int threads) {
  return work(*job, job->tasks(), ISAS[chosen].mixture, threads);
}

DV_API int dv_density(const DensityArgs* args, int threads) {
  try {
    const Isa& isa = ISAS[chosen];
    DensityJob job(*args);
    int failed = work(job, job.prepare_tasks(), isa.prepare, threads);
    if (!args->g)
      return failed | (args->joint ? work(job, job.row_tasks(), isa.joint_forward, threads)
                                   : work(job, job.marginal_row_tasks(), isa.marginal_forward, threads));
    if (args->joint)
      return failed | work(job, job.row_tasks(), isa.joint_rows, threads) |
             work(job, job.column_tasks(), isa.joint_columns, threads);
    failed |= work(job, job.marginal_column_tasks(), isa.marginal_backward, threads);
    return failed | work(job, job.k * job.d, isa.marginal_gather, threads);
  } catch (const std::bad_alloc&) {
    return 1;
  }
}
