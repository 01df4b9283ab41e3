// --- marginals -----------------------------------------------------------------------------------------------------

// log2 q(z | x_j) of one dimension without its constant, in float64
DV_FN double exact_pair(const DensityJob& job, int64_t k, int64_t i, int64_t j, int64_t d, double z) {
  const int64_t at = (k * job.m + j) * job.d + d;
  const double lv = job.logvar[at], t = z - (double)job.mu[at];
  double e = -0.5 * LOG2E * (lv + t * t * exp(-lv));
  if (job.weighted) e = weight(job, i, j) == -__builtin_inf() ? -__builtin_inf() : e + weight(job, i, j);
  return e;
}

static double exact_marginal(const DensityJob& job, int64_t k, int64_t i, int64_t d, double z) {
  double most = -__builtin_inf(), sum = 0.0;
  for (int64_t j = 0; j < job.m; ++j) {
    const double e = exact_pair(job, k, i, j, d, z);
    if (e > most || e != e) most = e;
    if (e != e) return e;
  }
  if (most == -__builtin_inf()) return most;
  for (int64_t j = 0; j < job.m; ++j) sum += exp2(exact_pair(job, k, i, j, d, z) - most);
  return most + log2(sum);
}

struct Strip {  // up to STRIP components of one dimension
  const float *mu, *a, *c;
  float own_mu[STRIP], own_a[STRIP], own_c[STRIP];  // a row's copy, with its log-weights in
};

DV_FN bool touches(const DensityJob& job, int64_t i, int64_t j0, int64_t n) {
  const int64_t own = job.own_of(i), next = job.next_of(i);
  return (job.own2 != 0.0 && own >= j0 && own < j0 + n) || (job.next2 != 0.0 && next >= j0 && next < j0 + n);
}

// Row i's copy of a strip: the weights are added to c, an excluded pair becomes padding
DV_FN void copy_strip(const DensityJob& job, Strip& s, int64_t i, int64_t j0, int64_t n) {
  memcpy(s.own_mu, s.mu, n * sizeof(float));
  memcpy(s.own_a, s.a, n * sizeof(float));
  memcpy(s.own_c, s.c, n * sizeof(float));
  const int64_t pair[2] = {job.own_of(i), job.next_of(i)};
  for (int side = 0; side < (pair[0] == pair[1] ? 1 : 2); ++side) {
    const int64_t at = pair[side] - j0;
    if (at < 0 || at >= n) continue;
    const double w = weight(job, i, pair[side]);
    if (w == -__builtin_inf()) s.own_mu[at] = s.own_a[at] = 0.0f, s.own_c[at] = -1e30f;
    else s.own_c[at] += (float)w;
  }
}

// to + 2^e, e <= 0: dv_exp2 with 2^n as a factor, so that the last product and the sum are one operation
DV_FN dv_f add_pairs(dv_f to, dv_f z, dv_f mu, dv_f a, dv_f c) {
  const dv_f u = a * (mu - z), e = dv_at_least(dv_k(-126.0f), dv_fma(-u, u, c)), n = dv_round(e);
  const dv_i bits = dv_to_int(dv_fma(n, dv_k(8388608.0f), dv_k(1065353216.0f)));  // (n + 127) 2^23
  return dv_fma(dv_exp2_fraction(e - n), dv_as_float(bits), to);
}

DV_FN void sum_four(const float* z, const float* mu, const float* a, const float* c, int64_t n, double* out) {
  const dv_f z0 = dv_k(z[0]), z1 = dv_k(z[1]), z2 = dv_k(z[2]), z3 = dv_k(z[3]);
  dv_f s0 = {}, s1 = {}, s2 = {}, s3 = {};
  for (int64_t j = 0; j < n; j += DV_LANES) {
    const dv_f mu_ = load(mu + j), a_ = load(a + j), c_ = load(c + j);
    s0 = add_pairs(s0, z0, mu_, a_, c_);
    s1 = add_pairs(s1, z1, mu_, a_, c_);
    s2 = add_pairs(s2, z2, mu_, a_, c_);
    s3 = add_pairs(s3, z3, mu_, a_, c_);
  }
  out[0] += (double)sum(s0);
  out[1] += (double)sum(s1);
  out[2] += (double)sum(s2);
  out[3] += (double)sum(s3);
}

DV_FN double sum_one(float z, const float* mu, const float* a, const float* c, int64_t n) {
  const dv_f z_ = dv_k(z);
  dv_f s = {};
  for (int64_t j = 0; j < n; j += DV_LANES) s = add_pairs(s, z_, load(mu + j), load(a + j), load(c + j));
  return (double)sum(s);
}

static void marginal_forward_task(const DensityJob& job, int64_t task) {
  const int64_t block = 4 * ROWS, blocks = ceil_div(job.n, block);
  const int64_t k = task / (job.d * blocks), d = task / blocks % job.d, first = task % blocks * block;
  const int64_t rows = smaller(block, job.n - first), at = (k * job.d + d) * job.width;
  const double bound = job.bound[k * job.d + d];
  float z[4 * ROWS + 4];
  double total[4 * ROWS + 4] = {};
  for (int64_t i = 0; i < rows + 4; ++i)  // the last group of four repeats a row
    z[i] = job.z[(k * job.n + first + smaller(i, rows - 1)) * job.d + d];
  Strip s;
  for (int64_t j0 = 0; j0 < job.width; j0 += STRIP) {
    const int64_t n = smaller(STRIP, job.width - j0);
    s.mu = job.mu_t.data() + at + j0, s.a = job.a_t.data() + at + j0, s.c = job.c_t.data() + at + j0;
    for (int64_t i = 0; i < rows; i += 4) {
      double each[4] = {};
      sum_four(z + i, s.mu, s.a, s.c, n, each);
      for (int64_t q = 0; q < 4 && i + q < rows; ++q) {
        if (job.weighted && touches(job, first + i + q, j0, n)) {
          copy_strip(job, s, first + i + q, j0, n);
          each[q] = sum_one(z[i + q], s.own_mu, s.own_a, s.own_c, n);
        }
        total[i + q] += each[q];
      }
    }
  }
  for (int64_t i = 0; i < rows; ++i) {
    double lse = total[i] < FAR_SUM ? exact_marginal(job, k, first + i, d, z[i]) : bound + log2(total[i]);
    lse = lse * LN2 - 0.5 * LN_2PI;
    const int64_t to = (k * job.n + first + i) * job.d + d;
    job.lse[to] = lse;
    job.out[to] = (float)(lse + job.base);
  }
}

// One dimension's components [j0, j0 + split): sum over rows of w, w t, w t^2 for each component (t = z - mu), and for
// each row this part of sum_j w t a^2.
static void marginal_backward_task(const DensityJob& job, int64_t task) {
  const int64_t part = task % job.splits, d = task / job.splits % job.d, k = task / (job.splits * job.d);
  const int64_t from = part * job.split, to = smaller(job.width, from + job.split), at = (k * job.d + d) * job.width;
  const double bound = job.bound[k * job.d + d];
  const int64_t width = to - from;
  double* dz = (double*)job.dz_part.data() + ((part * job.k + k) * job.d + d) * job.n;
  Scratch columns(3 * 8 * width);
  double *w0 = columns.doubles(), *w1 = w0 + width, *w2 = w1 + width;
  float z[ROWS], scale[ROWS];
  bool far[ROWS];
  Strip s;
  for (int64_t first = 0; first < job.n; first += ROWS) {
    const int64_t rows = smaller(ROWS, job.n - first);
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t in = (k * job.n + first + i) * job.d + d;
      const double lse = (job.lse[in] + 0.5 * LN_2PI) * LOG2E, g = job.g[in];
      far[i] = lse - bound < -48.0;
      z[i] = far[i] ? 0.0f : job.z[in];
      scale[i] = far[i] ? 0.0f : (float)(g * exp2(bound - lse));
      if (!far[i]) continue;
      for (int64_t j = from; j < smaller(to, job.m); ++j) {  // in float64, by itself
        const double e = exact_pair(job, k, first + i, j, d, job.z[in]) - lse;
        if (e == -__builtin_inf()) continue;
        const int64_t pair = (k * job.m + j) * job.d + d;
        const double w = g * exp2(e), t = (double)job.z[in] - (double)job.mu[pair];
        w0[j - from] += w;
        w1[j - from] += w * t;
        w2[j - from] += w * t * t;
        dz[first + i] += w * t * exp(-(double)job.logvar[pair]) / (2.0 * LN2);
      }
    }
    for (int64_t j0 = from; j0 < to; j0 += STRIP) {
      const int64_t n = smaller(STRIP, to - j0);
      s.mu = job.mu_t.data() + at + j0, s.a = job.a_t.data() + at + j0, s.c = job.c_t.data() + at + j0;
      float f0[STRIP] = {}, f1[STRIP] = {}, f2[STRIP] = {};
      for (int64_t i = 0; i < rows; ++i) {
        const float *mu = s.mu, *a = s.a, *c = s.c, zi = z[i], si = scale[i];
        if (job.weighted && touches(job, first + i, j0, n)) {
          copy_strip(job, s, first + i, j0, n);
          mu = s.own_mu, a = s.own_a, c = s.own_c;
        }
        const dv_f z_ = dv_k(zi), scale_ = dv_k(si);
        dv_f total = {};
        for (int64_t j = 0; j < n; j += DV_LANES) {
          const dv_f a_ = load(a + j), t = z_ - load(mu + j), u = a_ * t;
          const dv_f w_ = scale_ * dv_exp2(dv_fma(-u, u, load(c + j))), v = w_ * t;
          store(f0 + j, load(f0 + j) + w_);
          store(f1 + j, load(f1 + j) + v);
          store(f2 + j, dv_fma(v, t, load(f2 + j)));
          total = dv_fma(w_ * u, a_, total);
        }
        dz[first + i] += (double)sum(total);
      }
      for (int64_t j = 0; j < n; ++j) {
        w0[j0 - from + j] += (double)f0[j];
        w1[j0 - from + j] += (double)f1[j];
        w2[j0 - from + j] += (double)f2[j];
      }
    }
  }
  for (int64_t j = from; j < smaller(to, job.m); ++j) {
    const int64_t out = (k * job.m + j) * job.d + d;
    const double p = exp(-(double)job.logvar[out]);
    job.dmu[out] = (float)(p * w1[j - from]);
    job.dlogvar[out] = (float)(0.5 * (p * w2[j - from] - w0[j - from]));
  }
}

static void marginal_gather_task(const DensityJob& job, int64_t task) {  // dz of one dimension from its parts
  const int64_t k = task / job.d, d = task % job.d;
  for (int64_t i = 0; i < job.n; ++i) {
    double sum = 0.0;
    for (int64_t part = 0; part < job.splits; ++part)
      sum += job.dz_part[((part * job.k + k) * job.d + d) * job.n + i];
    job.dz[(k * job.n + i) * job.d + d] = (float)(-2.0 * LN2 * sum);
  }
}

