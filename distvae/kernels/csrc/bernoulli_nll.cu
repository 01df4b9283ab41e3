// bernoulli_nll (formulas: kernels/cross_entropy.py, nll.h): forward a block a row, one image under one sample of one
// trial, each thread's fours summed in float32 (few: P / 1024) and the block's in float64; backward a thread four pixels.
#include "device.h"
#include "nll.h"
#include "fours.h"
#include "sums.h"

struct nll_args {
  const void* y;   // [K, B, S, P]
  const float* x;  // [B, P], or [K, B, P] where x_stride is B
  const float* g;  // [K, B, S]; backward
  void* out;       // [K, B, S] float32; or dy like y
  long long b, s, p, x_stride, rows, vector;
};

DV_FN const float* pixels(const nll_args& p, long long row) {
  long long image = row / p.s, trial = image / p.b;
  return p.x + (image + (p.x_stride - p.b) * trial) * p.p;
}

template <class T>
DV_FN void nll(const nll_args& p) {
  long long row = blockIdx.x;
  const float* x = pixels(p, row);
  float sum = 0.0f;
  for (long long i = 4 * threadIdx.x; i < p.p; i += 4 * FINISH_THREADS) {
    int count = (int)(p.p - i < 4 ? p.p - i : 4);
    float logit[4], pixel[4];
    load<T>(logit, p.y, row * p.p + i, count, p.vector != 0);
    load<float>(pixel, x, i, count, p.vector != 0);
    for (int j = 0; j < 4; ++j) sum += j < count ? dv_bernoulli_nll(logit[j], pixel[j]) : 0.0f;
  }
  double total = block_sum(sum);
  if (threadIdx.x == 0) ((float*)p.out)[row] = (float)total;
}

template <class T>
DV_FN void nll_backward(const nll_args& p) {
  long long id = (long long)blockIdx.x * FINISH_THREADS + threadIdx.x, quads = (p.p + 3) / 4, all = p.rows * quads;
  if (id >= all) return;
  long long row = all >> 32 ? id / quads : (long long)((unsigned)id / (unsigned)quads), i = 4 * (id - row * quads);
  int count = (int)(p.p - i < 4 ? p.p - i : 4);
  float logit[4], pixel[4], out[4], g = p.g[row];
  load<T>(logit, p.y, row * p.p + i, count, p.vector != 0);
  load<float>(pixel, pixels(p, row), i, count, p.vector != 0);
  for (int j = 0; j < 4; ++j) out[j] = g * dv_bernoulli_slope(logit[j], pixel[j]);
  store<T>(p.out, row * p.p + i, out, count, p.vector != 0);
}

DV_KERNEL(nll_float32, nll_args, FINISH_THREADS, 4) { nll<float>(p); }
DV_KERNEL(nll_bfloat16, nll_args, FINISH_THREADS, 4) { nll<dv_bf16>(p); }
DV_KERNEL(nll_float16, nll_args, FINISH_THREADS, 4) { nll<dv_f16>(p); }
DV_KERNEL(nll_backward_float32, nll_args, FINISH_THREADS, 4) { nll_backward<float>(p); }
DV_KERNEL(nll_backward_bfloat16, nll_args, FINISH_THREADS, 4) { nll_backward<dv_bf16>(p); }
DV_KERNEL(nll_backward_float16, nll_args, FINISH_THREADS, 4) { nll_backward<dv_f16>(p); }
