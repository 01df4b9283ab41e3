// --- joint ---------------------------------------------------------------------------------------------------------

static const int64_t FOUR = 4;        // rows that share a tile's loads
static const int64_t DIMENSIONS = 32;  // summed in float32 before they go to float64

// e[q][j] = c_j - sum_d (a_jd (z_qd - mu_jd))^2 + weights, base 2, for four rows and a tile of components
DV_FN void exponents(const DensityJob& job, int64_t k, const float* const* z, const int64_t* row, int64_t j0,
                     double (*e)[TILE]) {
  const float *mu = job.mu_t.data() + job.tile(k, j0), *a = job.a_t.data() + job.tile(k, j0);
  const double* c = job.c_sum.data() + k * job.width + j0;
  for (int q = 0; q < FOUR; ++q) memcpy(e[q], c, TILE * sizeof(double));
  for (int64_t d0 = 0; d0 < job.d; d0 += DIMENSIONS) {
    const int64_t d1 = smaller(job.d, d0 + DIMENSIONS);
    for (int64_t j = 0; j < TILE; j += DV_LANES) {
      dv_f s0 = {}, s1 = {}, s2 = {}, s3 = {};
      for (int64_t d = d0; d < d1; ++d) {
        const dv_f m = load(mu + d * TILE + j), aa = load(a + d * TILE + j);
        const dv_f u0 = aa * (dv_k(z[0][d]) - m), u1 = aa * (dv_k(z[1][d]) - m);
        const dv_f u2 = aa * (dv_k(z[2][d]) - m), u3 = aa * (dv_k(z[3][d]) - m);
        s0 = dv_fma(u0, u0, s0);
        s1 = dv_fma(u1, u1, s1);
        s2 = dv_fma(u2, u2, s2);
        s3 = dv_fma(u3, u3, s3);
      }
      float s[FOUR][DV_LANES];
      store(s[0], s0);
      store(s[1], s1);
      store(s[2], s2);
      store(s[3], s3);
      for (int q = 0; q < FOUR; ++q)
        for (int l = 0; l < DV_LANES; ++l) e[q][j + l] -= (double)s[q][l];
    }
  }
  if (!job.weighted) return;
  for (int q = 0; q < FOUR; ++q) {
    const int64_t own = job.own_of(row[q]), next = job.next_of(row[q]);
    if (own >= j0 && own < j0 + TILE) e[q][own - j0] = job.excluded ? -1e300 : e[q][own - j0] + job.own2;
    if (next >= j0 && next < j0 + TILE && !(job.excluded && next == own)) e[q][next - j0] += job.next2;
  }
}

DV_FN double exact_joint_pair(const DensityJob& job, int64_t k, int64_t i, int64_t j) {
  const float *z = job.z + (k * job.n + i) * job.d, *mu = job.mu + (k * job.m + j) * job.d;
  const float* lv = job.logvar + (k * job.m + j) * job.d;
  if (job.weighted && weight(job, i, j) == -__builtin_inf()) return -__builtin_inf();
  double e = 0.0;
  for (int64_t d = 0; d < job.d; ++d) {
    const double t = (double)z[d] - (double)mu[d];
    e += (double)lv[d] + t * t * exp(-(double)lv[d]);
  }
  return -0.5 * LOG2E * e + (job.weighted ? weight(job, i, j) : 0.0);
}

static double exact_joint(const DensityJob& job, int64_t k, int64_t i) {
  double most = -__builtin_inf(), sum = 0.0;
  for (int64_t j = 0; j < job.m; ++j) {
    const double e = exact_joint_pair(job, k, i, j);
    if (e != e) return e;
    if (e > most) sum *= exp2(most - e), most = e;
    if (most > -__builtin_inf()) sum += exp2(e - most);
  }
  return most + log2(sum);
}

// A far row's dz / (-2 ln 2), in float64
static void exact_joint_row(const DensityJob& job, int64_t k, int64_t i, double* dz) {
  const double lse = (job.lse[k * job.n + i] + 0.5 * LN_2PI * (double)job.d) * LOG2E, g = job.g[k * job.n + i];
  const float* z = job.z + (k * job.n + i) * job.d;
  for (int64_t d = 0; d < job.d; ++d) dz[d] = 0.0;
  for (int64_t j = 0; j < job.m; ++j) {
    const double w = g * exp2(exact_joint_pair(job, k, i, j) - lse);
    if (w == 0.0) continue;
    for (int64_t d = 0; d < job.d; ++d) {
      const int64_t at = (k * job.m + j) * job.d + d;
      dz[d] += w * ((double)z[d] - (double)job.mu[at]) * exp(-(double)job.logvar[at]) / (2.0 * LN2);
    }
  }
}

// A far row's part of a tile of columns, in float64
static void exact_joint_columns(const DensityJob& job, int64_t k, int64_t i, int64_t j0, double* w0, double* w1,
                                double* w2) {
  const double lse = (job.lse[k * job.n + i] + 0.5 * LN_2PI * (double)job.d) * LOG2E, g = job.g[k * job.n + i];
  const float* z = job.z + (k * job.n + i) * job.d;
  for (int64_t j = 0; j < TILE && j0 + j < job.m; ++j) {
    const double w = g * exp2(exact_joint_pair(job, k, i, j0 + j) - lse);
    if (w == 0.0) continue;
    w0[j] += w;
    for (int64_t d = 0; d < job.d; ++d) {
      const double t = (double)z[d] - (double)job.mu[(k * job.m + j0 + j) * job.d + d];
      w1[d * TILE + j] += w * t;
      w2[d * TILE + j] += w * t * t;
    }
  }
}

// Is even the likeliest component so far away that a float32 sum of squares loses the fraction of the exponent?
DV_FN bool far_joint(const DensityJob& job, double quadratic) { return quadratic > 256.0 + (double)job.d; }

DV_FN void four_rows(const DensityJob& job, int64_t k, int64_t first, int64_t last, const float** z, int64_t* row) {
  for (int q = 0; q < FOUR; ++q) {
    row[q] = smaller(first + q, last - 1);
    z[q] = job.z + (k * job.n + row[q]) * job.d;
  }
}

static void joint_forward_task(const DensityJob& job, int64_t task) {
  const int64_t k = task / job.row_blocks(), first = task % job.row_blocks() * ROWS;
  const int64_t last = smaller(job.n, first + ROWS);
  const double* c = job.c_sum.data() + k * job.width;
  double e[FOUR][TILE], most[ROWS + FOUR], total[ROWS + FOUR] = {}, quadratic[ROWS + FOUR] = {};
  for (int64_t i = 0; i < ROWS + FOUR; ++i) most[i] = -1e300;
  for (int64_t j0 = 0; j0 < job.width; j0 += TILE)
    for (int64_t i = first; i < last; i += FOUR) {
      const float* z[FOUR];
      int64_t row[FOUR];
      four_rows(job, k, i, last, z, row);
      exponents(job, k, z, row, j0, e);
      for (int64_t q = 0; q < FOUR; ++q) {
        const int64_t at = i - first + q;
        double peak = e[q][0];
        for (int j = 1; j < TILE; ++j) peak = e[q][j] > peak ? e[q][j] : peak;
        if (peak > most[at]) {
          int j = 0;
          while (j < TILE - 1 && e[q][j] != peak) ++j;
          quadratic[at] = c[j0 + j] - peak;
          total[at] *= exp2(most[at] - peak);
          most[at] = peak;
        }
        const double base = most[at];
        float x[TILE];
        for (int j = 0; j < TILE; ++j) x[j] = (float)(e[q][j] - base);
        dv_f s = {};
        for (int j = 0; j < TILE; j += DV_LANES) s += dv_exp2(load(x + j));
        total[at] += (double)sum(s);
      }
    }
  for (int64_t i = first; i < last; ++i) {
    const int64_t at = i - first;
    // no term above the padding's, or a NaN: the exact sum says which
    const bool exact = !(most[at] > -1e299) || far_joint(job, quadratic[at]);
    double lse = exact && total[at] == total[at] ? exact_joint(job, k, i) : most[at] + log2(total[at]);
    lse = lse * LN2 - 0.5 * LN_2PI * (double)job.d;
    job.lse[k * job.n + i] = lse;
    job.out[k * job.n + i] = (float)(lse + job.base);
  }
}

// w[q][j] = g exp(l - lse) of four rows and a tile; also each row's peak exponent and its quadratic part
DV_FN void responsibilities(const DensityJob& job, int64_t k, const int64_t* row, double (*e)[TILE], float (*w)[TILE]) {
  for (int q = 0; q < FOUR; ++q) {
    const int64_t at = k * job.n + row[q];
    const double lse = (job.lse[at] + 0.5 * LN_2PI * (double)job.d) * LOG2E;
    const dv_f g = dv_k(job.g[at]);
    float x[TILE];
    for (int j = 0; j < TILE; ++j) x[j] = (float)(e[q][j] - lse);
    for (int j = 0; j < TILE; j += DV_LANES) store(w[q] + j, g * dv_exp2(load(x + j)));
  }
}

// dz of a block of rows
static void joint_rows_task(const DensityJob& job, int64_t task) {
  const int64_t k = task / job.row_blocks(), first = task % job.row_blocks() * ROWS;
  const int64_t last = smaller(job.n, first + ROWS);
  const double* c = job.c_sum.data() + k * job.width;
  double e[FOUR][TILE];
  float w[FOUR][TILE];
  Scratch sums(8 * FOUR * job.d);
  for (int64_t i = first; i < last; i += FOUR) {
    const float* z[FOUR];
    int64_t row[FOUR];
    double most[FOUR], quadratic[FOUR] = {};
    four_rows(job, k, i, last, z, row);
    double* dz = sums.doubles();
    memset(dz, 0, 8 * FOUR * job.d);
    for (int q = 0; q < FOUR; ++q) most[q] = -1e300;
    for (int64_t j0 = 0; j0 < job.width; j0 += TILE) {
      exponents(job, k, z, row, j0, e);
      for (int q = 0; q < FOUR; ++q)
        for (int j = 0; j < TILE; ++j)
          if (e[q][j] > most[q]) most[q] = e[q][j], quadratic[q] = c[j0 + j] - most[q];
      responsibilities(job, k, row, e, w);
      const float *mu = job.mu_t.data() + job.tile(k, j0), *a = job.a_t.data() + job.tile(k, j0);
      for (int64_t d = 0; d < job.d; ++d) {
        const dv_f z0 = dv_k(z[0][d]), z1 = dv_k(z[1][d]), z2 = dv_k(z[2][d]), z3 = dv_k(z[3][d]);
        dv_f s0 = {}, s1 = {}, s2 = {}, s3 = {};
        for (int j = 0; j < TILE; j += DV_LANES) {
          const dv_f m = load(mu + d * TILE + j), aa = load(a + d * TILE + j);
          s0 = dv_fma(load(w[0] + j) * (aa * (z0 - m)), aa, s0);
          s1 = dv_fma(load(w[1] + j) * (aa * (z1 - m)), aa, s1);
          s2 = dv_fma(load(w[2] + j) * (aa * (z2 - m)), aa, s2);
          s3 = dv_fma(load(w[3] + j) * (aa * (z3 - m)), aa, s3);
        }
        dz[d] += (double)sum(s0);
        dz[job.d + d] += (double)sum(s1);
        dz[2 * job.d + d] += (double)sum(s2);
        dz[3 * job.d + d] += (double)sum(s3);
      }
    }
    for (int64_t q = 0; q < FOUR && i + q < last; ++q) {
      uint8_t& far = ((uint8_t*)job.far.data())[k * job.n + i + q];
      far = !(most[q] > -1e299) || far_joint(job, quadratic[q]);
      double* out = dz + q * job.d;
      if (far) exact_joint_row(job, k, i + q, out);
      for (int64_t d = 0; d < job.d; ++d) job.dz[(k * job.n + i + q) * job.d + d] = (float)(-2.0 * LN2 * out[d]);
    }
  }
}

// dmu and dlogvar of a tile of components
static void joint_columns_task(const DensityJob& job, int64_t task) {
  const int64_t tiles = job.width / TILE, k = task / tiles, j0 = task % tiles * TILE;
  const float* mu = job.mu_t.data() + job.tile(k, j0);
  const int64_t size = job.d * TILE;
  Scratch floats(4 * (2 * size + TILE)), doubles(8 * (2 * size + TILE));
  float *f1 = floats.floats(), *f2 = f1 + size, *f0 = f2 + size;
  double *w1 = doubles.doubles(), *w2 = w1 + size, *w0 = w2 + size;
  double e[FOUR][TILE];
  float w[FOUR][TILE];
  for (int64_t first = 0; first < job.n; first += ROWS) {
    const int64_t last = smaller(job.n, first + ROWS);
    memset(f1, 0, 4 * (2 * size + TILE));
    for (int64_t i = first; i < last; i += FOUR) {
      const float* z[FOUR];
      int64_t row[FOUR];
      four_rows(job, k, i, last, z, row);
      exponents(job, k, z, row, j0, e);
      responsibilities(job, k, row, e, w);
      for (int64_t q = 0; q < FOUR; ++q) {
        if (i + q < last && !job.far[k * job.n + i + q]) continue;
        memset(w[q], 0, sizeof w[q]);  // a repeated row, or one for float64
        if (i + q < last) exact_joint_columns(job, k, i + q, j0, w0, w1, w2);
      }
      for (int j = 0; j < TILE; ++j) f0[j] += (w[0][j] + w[1][j]) + (w[2][j] + w[3][j]);
      for (int64_t d = 0; d < job.d; ++d) {
        const dv_f z0 = dv_k(z[0][d]), z1 = dv_k(z[1][d]), z2 = dv_k(z[2][d]), z3 = dv_k(z[3][d]);
        float *one = f1 + d * TILE, *two = f2 + d * TILE;
        for (int j = 0; j < TILE; j += DV_LANES) {
          const dv_f m = load(mu + d * TILE + j);
          const dv_f t0 = z0 - m, t1 = z1 - m, t2 = z2 - m, t3 = z3 - m;
          const dv_f v0 = load(w[0] + j) * t0, v1 = load(w[1] + j) * t1;
          const dv_f v2 = load(w[2] + j) * t2, v3 = load(w[3] + j) * t3;
          store(one + j, load(one + j) + ((v0 + v1) + (v2 + v3)));
          store(two + j, load(two + j) + (dv_fma(v1, t1, v0 * t0) + dv_fma(v3, t3, v2 * t2)));
        }
      }
    }
    for (int64_t at = 0; at < size; ++at) w1[at] += (double)f1[at], w2[at] += (double)f2[at];
    for (int64_t j = 0; j < TILE; ++j) w0[j] += (double)f0[j];
  }
  for (int64_t j = 0; j < TILE && j0 + j < job.m; ++j)
    for (int64_t d = 0; d < job.d; ++d) {
      const int64_t out = (k * job.m + j0 + j) * job.d + d;
      const double p = exp(-(double)job.logvar[out]);
      job.dmu[out] = (float)(p * w1[d * TILE + j]);
      job.dlogvar[out] = (float)(0.5 * (p * w2[d * TILE + j] - w0[j]));
    }
}
