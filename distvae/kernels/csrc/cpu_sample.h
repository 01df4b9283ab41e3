// sample_kl: the noise of up to SAMPLES elements at a time, then the elements (kl.h).

// Words of the blocks whose examples' ids are `ids` and whose places in a row are `places`: [4, n], word by word,
// `stride` apart. Buffers are long enough to finish the last vector.
DV_FN void draw(const dv_keys& keys, unsigned step, unsigned stream, unsigned sample, const unsigned* ids,
                const unsigned* places, int64_t n, unsigned* w, int64_t stride) {
  for (int64_t j = 0; j < n; j += DV_LANES) {
    const dv_words out = dv_philox(keys, load(ids + j), step, sample, (stream << 24) + load(places + j));
    for (int word = 0; word < 4; ++word) __builtin_memcpy(w + word * stride + j, &out.w[word], sizeof out.w[word]);
  }
}

DV_FN void fill_ids(const int64_t* index, int64_t rows, int64_t blocks, unsigned* ids) {
  for (int64_t i = 0; i < rows; ++i) {
    const unsigned id = (unsigned)index[i], four[4] = {id, id, id, id};
    int64_t j = 0;  // rounded up to fours: what is too much is overwritten by the next row
    do {
      __builtin_memcpy(ids + j, four, sizeof four);
    } while ((j += 4) < blocks);
    ids += blocks;
  }
}

// [4, n] (rows `stride` apart) to [n, 4]
template <class T>
DV_FN void interleave(const T* from, int64_t stride, int64_t n, T* __restrict to) {
  const T *a = from, *b = a + stride, *c = b + stride, *d = c + stride;
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) {
    to[4 * j] = a[j];
    to[4 * j + 1] = b[j];
    to[4 * j + 2] = c[j];
    to[4 * j + 3] = d[j];
  }
}

static void sample_task(const SampleJob& job, int64_t task) {
  const int64_t groups = ceil_div(job.chunks(), job.group());
  const int64_t k = task / groups, first = (task % groups) * job.group();
  const int64_t d = job.d, blocks = ceil_div(d, 4), padded = 4 * blocks;
  const int64_t last = smaller(job.chunks(), first + job.group());
  const float r = job.r[k], p = job.p_keep[k], floor = job.floor[k], inverse = 1.0f / p;
  const double edge = __builtin_floor((double)p * 4294967296.0 + 0.5);  // kept: w + 1/2 <= p 2^32
  const unsigned limit = edge >= 4294967296.0 ? 0xffffffffu : (unsigned)edge - (edge > 0.0);
  const uint8_t* mask = job.mask ? job.mask + k * d : nullptr;
  const bool plain = p == 1.0f && floor == 0.0f;
  const int64_t stride = ceil_div(job.rows() * blocks, DV_LANES) * DV_LANES;
  Scratch words(16 * stride, false), eps(16 * stride + 64, false), keep(16 * stride + 64, false), soa(16 * stride, false);
  Scratch numbers(8 * stride + 128);
  unsigned *ids = numbers.words(), *places = ids + stride + 16;
  for (int64_t j = 0; j < stride; ++j) places[j] = (unsigned)(j % blocks);
  const dv_keys keys = dv_schedule((uint64_t)job.seed[k]);
  const unsigned step = (unsigned)job.step[k];
  for (int64_t i = 0; i < 4 * stride + 16; ++i) keep.floats()[i] = 1.0f;

  for (int64_t chunk = first; chunk < last; ++chunk) {
    const int64_t row = chunk * job.rows(), rows = smaller(job.rows(), job.b - row), n = rows * blocks;
    unsigned* w = words.words();
    float *e = eps.floats(), *s = soa.floats();
    fill_ids(job.index + k * job.index_stride + row, rows, blocks, ids);
    draw(keys, step, job.stream, job.sample, ids, places, n, w, stride);
    for (int64_t j = 0; j < n; j += DV_LANES) {
      dv_f first_, second;
      for (int pair = 0; pair < 4; pair += 2) {
        dv_normals(load(w + pair * stride + j), load(w + (pair + 1) * stride + j), &first_, &second);
        store(s + pair * stride + j, first_);
        store(s + (pair + 1) * stride + j, second);
      }
    }
    interleave(s, stride, n, e);
    if (p < 1.0f) {
      draw(keys, step, 1u, 0u, ids, places, n, w, stride);
      for (int64_t j = 0; j < 4 * stride; ++j) s[j] = w[j] <= limit ? inverse : 0.0f;
      interleave(s, stride, n, keep.floats());
    }
    // rows lie end to end where D needs no padding: one long loop
    const int64_t lines = padded == d && !mask ? 1 : rows, length = padded == d && !mask ? rows * d : d;
    for (int64_t line = 0; line < lines; ++line) {
      const int64_t at = (k * job.b + row + line) * d;
      const float *m = job.mu + at, *lv = job.logvar + at, *e_ = e + line * padded, *g = keep.floats() + line * padded;
      float *__restrict one = job.first + at, *__restrict two = job.second + at;
      int64_t i = 0;
      if (!job.gz) {
        for (; i + DV_LANES <= length; i += DV_LANES) {
          const dv_sampled out = dv_sample_kl(load(m + i), load(lv + i), load(e_ + i), load(g + i), r, floor, plain);
          store(one + i, out.z);
          store(two + i, out.kl);
        }
        if (i < length) {
          const int64_t rest = length - i;
          const dv_sampled out =
              dv_sample_kl(load(m + i, rest), load(lv + i, rest), load(e_ + i), load(g + i), r, floor, plain);
          store(one + i, out.z, rest);
          store(two + i, out.kl, rest);
        }
      } else {
        const float *gz = job.gz + at, *gkl = job.gkl + at;
        for (; i + DV_LANES <= length; i += DV_LANES) {
          const dv_gradient out = dv_sample_kl_backward(load(gz + i), load(gkl + i), load(m + i), load(lv + i),
                                                        load(e_ + i), load(g + i), r, floor, plain);
          store(one + i, out.mu);
          store(two + i, out.logvar);
        }
        if (i < length) {
          const int64_t rest = length - i;
          const dv_gradient out =
              dv_sample_kl_backward(load(gz + i, rest), load(gkl + i, rest), load(m + i, rest), load(lv + i, rest),
                                    load(e_ + i), load(g + i), r, floor, plain);
          store(one + i, out.mu, rest);
          store(two + i, out.logvar, rest);
        }
      }
      if (mask)
        for (int64_t i = 0; i < length; ++i)
          if (!mask[i]) one[i] = two[i] = 0.0f;
    }
  }
}
