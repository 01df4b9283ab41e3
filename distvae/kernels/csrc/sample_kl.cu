// sample_kl: dropout, floor, reparameterisation and KL in one pass (formulas: kernels/sampling.py, kl.h).
//
// One thread, four dimensions: a Philox call gives four words. Bound by bandwidth (16 bytes an element forward, 24
// backward in float32), so accesses are 16 bytes wide where D and the addresses allow (`vector`). Backward draws the
// noise again. A variance is kept iff (w + 1/2) / 2^32 <= p, which is w < T = floor(p 2^32 + 1/2), in exact integers.
#include "device.h"
#include "fours.h"
#include "kl.h"

#define THREADS 128
#define DROPOUT_STREAM 1u

struct sample_kl_args {
  const void *gz, *gkl, *mu, *logvar;  // [K, B, D]; no gz, gkl forward
  void *first, *second;                // [K, B, D]: z and kl, or the gradients of mu and logvar
  const long long *seed, *step;        // [K]
  const long long* index;              // [B], or [K, B] where index_stride is B
  const float *r, *p_keep, *floor;     // [K]
  const unsigned char* mask;           // [K, D] or null: 0 where there is no such dimension
  long long b, d, index_stride, blocks, vector, stream, sample;
};

template <class T, bool BACKWARD>
DV_FN void sample_kl(const sample_kl_args& p) {
  unsigned trial = blockIdx.x / (unsigned)p.blocks;
  long long id = (long long)(blockIdx.x - trial * (unsigned)p.blocks) * THREADS + threadIdx.x;
  long long quads = (p.d + 3) / 4, all = p.b * quads;
  if (id >= all) return;
  long long row = all >> 32 ? id / quads : (long long)((unsigned)id / (unsigned)quads);
  long long quad = id - row * quads, at = (trial * p.b + row) * p.d + 4 * quad;
  int count = (int)(p.d - 4 * quad < 4 ? p.d - 4 * quad : 4);
  bool vector = p.vector != 0;

  float mu[4], logvar[4], gz[4], gkl[4], first[4], second[4];
  load<T>(mu, p.mu, at, count, vector);
  load<T>(logvar, p.logvar, at, count, vector);
  if (BACKWARD) {
    load<T>(gz, p.gz, at, count, vector);
    load<T>(gkl, p.gkl, at, count, vector);
  }
  bool there[4] = {true, true, true, true};
  if (p.mask)
    for (int i = 0; i < 4; ++i) there[i] = i < count && p.mask[trial * p.d + 4 * quad + i];

  unsigned k0 = (unsigned)p.seed[trial], k1 = (unsigned)((unsigned long long)p.seed[trial] >> 32);
  unsigned id_word = (unsigned)p.index[trial * p.index_stride + row], step = (unsigned)p.step[trial];
  dv_words w = dv_philox(k0, k1, id_word, step, (unsigned)p.sample, ((unsigned)p.stream << 24) + (unsigned)quad);
  float eps[4], g[4] = {1.0f, 1.0f, 1.0f, 1.0f};
  dv_normals(w.w[0], w.w[1], &eps[0], &eps[1]);
  dv_normals(w.w[2], w.w[3], &eps[2], &eps[3]);

  float keep = p.p_keep[trial], r = p.r[trial], floor = p.floor[trial];
  if (keep != 1.0f) {
    unsigned long long threshold = (unsigned long long)((double)keep * 4294967296.0 + 0.5);
    w = dv_philox(k0, k1, id_word, step, 0u, (DROPOUT_STREAM << 24) + (unsigned)quad);
    for (int i = 0; i < 4; ++i) g[i] = w.w[i] < threshold ? 1.0f / keep : 0.0f;
  }

  bool plain = keep == 1.0f && floor == 0.0f;
  for (int i = 0; i < 4; ++i) {
    if (BACKWARD) {
      dv_gradient out = dv_sample_kl_backward(gz[i], gkl[i], mu[i], logvar[i], eps[i], g[i], r, floor, plain);
      first[i] = out.mu, second[i] = out.logvar;
    } else {
      dv_sampled out = dv_sample_kl(mu[i], logvar[i], eps[i], g[i], r, floor, plain);
      first[i] = out.z, second[i] = out.kl;
    }
    first[i] = there[i] ? first[i] : 0.0f;
    second[i] = there[i] ? second[i] : 0.0f;
  }
  store<T>(p.first, at, first, count, vector);
  store<T>(p.second, at, second, count, vector);
}

DV_KERNEL(sample_kl_float32, sample_kl_args, THREADS, 8) { sample_kl<float, false>(p); }
DV_KERNEL(sample_kl_bfloat16, sample_kl_args, THREADS, 8) { sample_kl<dv_bf16, false>(p); }
DV_KERNEL(sample_kl_float16, sample_kl_args, THREADS, 8) { sample_kl<dv_f16, false>(p); }
DV_KERNEL(sample_kl_backward_float32, sample_kl_args, THREADS, 8) { sample_kl<float, true>(p); }
DV_KERNEL(sample_kl_backward_bfloat16, sample_kl_args, THREADS, 8) { sample_kl<dv_bf16, true>(p); }
DV_KERNEL(sample_kl_backward_float16, sample_kl_args, THREADS, 8) { sample_kl<dv_f16, true>(p); }
