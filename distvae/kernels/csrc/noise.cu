// noise: normals, uniforms and Bernoulli draws by address (kernels/noise.py). One thread, four dimensions, as sample_kl.
#include "device.h"
#include "fours.h"

#define THREADS 128

struct noise_args {
  const long long *seed, *step;  // [K]
  const long long* index;        // [B], or [K, B] where index_stride is B
  const void* p;                 // [B, D], or [K, B, D] where p_stride is B; Bernoulli alone
  void* out;                     // [K, B, samples, D]
  long long b, samples, d, index_stride, p_stride, blocks, vector, stream;
};

struct noise_four {
  long long row, at;  // the row (example, sample) of the trial; the first element in out
  unsigned trial;
  int count;          // elements; 0: nothing to do
  dv_words w;
};

DV_FN noise_four draw(const noise_args& p) {
  noise_four my;
  my.trial = blockIdx.x / (unsigned)p.blocks;
  long long id = (long long)(blockIdx.x - my.trial * (unsigned)p.blocks) * THREADS + threadIdx.x;
  long long quads = (p.d + 3) / 4, rows = p.b * p.samples;
  my.count = 0;
  if (id >= rows * quads) return my;
  my.row = (rows * quads) >> 32 ? id / quads : (long long)((unsigned)id / (unsigned)quads);
  long long quad = id - my.row * quads;
  my.at = (my.trial * rows + my.row) * p.d + 4 * quad;
  my.count = (int)(p.d - 4 * quad < 4 ? p.d - 4 * quad : 4);
  long long example = my.row / p.samples;
  unsigned sample = (unsigned)(my.row - example * p.samples);
  unsigned long long seed = (unsigned long long)p.seed[my.trial];
  my.w = dv_philox((unsigned)seed, (unsigned)(seed >> 32), (unsigned)p.index[my.trial * p.index_stride + example],
                   (unsigned)p.step[my.trial], sample, ((unsigned)p.stream << 24) + (unsigned)quad);
  return my;
}

DV_FN double half_above(unsigned w) { return (double)w + 0.5; }

template <class T>
DV_FN void normals(const noise_args& p) {
  noise_four my = draw(p);
  if (!my.count) return;
  float x[4];
  dv_normals(my.w.w[0], my.w.w[1], &x[0], &x[1]);
  dv_normals(my.w.w[2], my.w.w[3], &x[2], &x[3]);
  store<T>(p.out, my.at, x, my.count, p.vector != 0);
}

template <class T>
DV_FN void bernoullis(const noise_args& p) {  // 1 where u < p
  noise_four my = draw(p);
  if (!my.count) return;
  float chance[4], x[4];
  long long at = my.at + (p.p_stride - p.b) * p.d * my.trial;
  load<T>(chance, p.p, at, my.count, p.vector != 0);
  for (int i = 0; i < 4; ++i) x[i] = half_above(my.w.w[i]) < (double)chance[i] * 4294967296.0 ? 1.0f : 0.0f;
  store<T>(p.out, my.at, x, my.count, p.vector != 0);
}

DV_KERNEL(uniforms_float64, noise_args, THREADS, 8) {
  noise_four my = draw(p);
  for (int i = 0; i < 4; ++i)
    if (i < my.count) ((double*)p.out)[my.at + i] = half_above(my.w.w[i]) * 2.3283064365386963e-10;
}
DV_KERNEL(normals_float32, noise_args, THREADS, 8) { normals<float>(p); }
DV_KERNEL(normals_bfloat16, noise_args, THREADS, 8) { normals<dv_bf16>(p); }
DV_KERNEL(normals_float16, noise_args, THREADS, 8) { normals<dv_f16>(p); }
DV_KERNEL(bernoulli_float32, noise_args, THREADS, 8) { bernoullis<float>(p); }
DV_KERNEL(bernoulli_bfloat16, noise_args, THREADS, 8) { bernoullis<dv_bf16>(p); }
DV_KERNEL(bernoulli_float16, noise_args, THREADS, 8) { bernoullis<dv_f16>(p); }
