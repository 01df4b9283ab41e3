// noise: normals, uniforms or Bernoulli draws, up to SAMPLES of them at a time (draw and interleave: cpu_sample.h).

DV_FN double half_above(unsigned w) {  // w + 1/2, exactly, by the signed conversion that vectors have
  return (double)(int32_t)(w ^ 0x80000000u) + 2147483648.5;
}

DV_FN void uniforms(const unsigned* w, int64_t n, double* __restrict out) {
  for (int64_t i = 0; i < n; ++i) out[i] = half_above(w[i]) * 0x1p-32;
}

DV_FN void bernoullis(const unsigned* w, const float* p, int64_t n, float* __restrict out) {  // 1 where u < p
  for (int64_t i = 0; i < n; ++i) out[i] = half_above(w[i]) < (double)p[i] * 0x1p32 ? 1.0f : 0.0f;
}

static void noise_task(const NoiseJob& job, int64_t task) {
  const int64_t groups = ceil_div(job.chunks(), job.group());
  const int64_t k = task / groups, first = (task % groups) * job.group();
  const int64_t dim = job.dim, blocks = ceil_div(dim, 4), padded = 4 * blocks;
  const int64_t last = smaller(job.chunks(), first + job.group());
  const int64_t stride = ceil_div(job.rows() * blocks, DV_LANES) * DV_LANES;
  Scratch words(16 * stride, false), line(16 * stride, false), numbers(8 * stride + 128);
  unsigned *w = words.words(), *ids = numbers.words(), *places = ids + stride + 16;
  for (int64_t j = 0; j < stride; ++j) places[j] = (unsigned)(j % blocks);
  const dv_keys keys = dv_schedule((uint64_t)job.seed[k]);
  const unsigned step = (unsigned)job.step[k];

  for (int64_t chunk = first; chunk < last; ++chunk) {
    const int64_t row = chunk * job.rows(), rows = smaller(job.rows(), job.b - row), n = rows * blocks;
    fill_ids(job.index + k * job.index_stride + row, rows, blocks, ids);
    for (int64_t sample = 0; sample < job.samples; ++sample) {
      draw(keys, step, job.stream, (unsigned)sample, ids, places, n, w, stride);
      for (int64_t j = 0; job.kind == NORMALS && j < n; j += DV_LANES) {
        for (int pair = 0; pair < 4; pair += 2) {
          unsigned *one = w + pair * stride + j, *two = one + stride;
          dv_f cosine, sine;
          dv_normals(load(one), load(two), &cosine, &sine);
          store((float*)one, cosine);
          store((float*)two, sine);
        }
      }
      interleave(w, stride, n, line.words());
      // rows lie end to end where they need no padding and have one sample: one long run
      const bool whole = padded == dim && job.samples == 1;
      const int64_t runs = whole ? 1 : rows, length = whole ? rows * dim : dim;
      for (int64_t run = 0; run < runs; ++run) {
        const int64_t at = ((k * job.b + row + run) * job.samples + sample) * dim;
        const unsigned* drawn = line.words() + run * padded;
        if (job.kind == NORMALS) __builtin_memcpy((float*)job.out + at, drawn, 4 * length);
        else if (job.kind == UNIFORMS) uniforms(drawn, length, (double*)job.out + at);
        else bernoullis(drawn, job.p + (k * job.p_stride + row + run) * dim, length, (float*)job.out + at);
      }
    }
  }
}
