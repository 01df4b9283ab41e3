// log_marginals: lse_id = ln sum_j exp(l_ijd), l_ijd = ln N(z_id; mu_jd, e^logvar_jd) + log-weight of (i, j), and its
// gradients. In base 2, with h_jd = -1/2 log2(e) logvar_jd and the bound m_d = max_j h_jd, every exponent is <= 0
// beforehand (log-weights are), so there is no running maximum:
//
//     e_ijd = c_jd - [a_jd (z_id - mu_jd)]^2,   a = sqrt(log2(e)/2) exp(-logvar/2),   c = h - m
//     lse   = ln2 (log2 sum_j 2^e + m_d) - 1/2 ln 2 pi
//
// FADD, FMUL, FFMA, MUFU.EX2, FADD a pair-dimension. MUFU has 16 lanes an SM and is the limit, so the rest must only
// keep up: a thread holds ROWS rows of one dimension against components in shared memory. Sums are float32 within a
// tile of TILE, float64 across tiles. Blocks split the long axis; partial sums share the bound, so they only add up.
//
// Rescue. A (row, dimension) whose sum is below 2^-48 of its bound is far from every component, and float32 exponents
// are inaccurate or all 0: its block computes it anew in float64 with the exact maximum.
//
// Backward, w = g exp(l - lse) = G 2^e with G_id = g 2^-(lse - bound):  with s = a (z - mu)
//     dz_id = -2 ln2 G sum_j 2^e s a,   dmu_jd = 2 ln2 a sum_i G 2^e s,   dlogvar_jd = ln2 sum_i G 2^e (s^2 - 1/(2 ln2))
// in two kernels, by rows and by components, each computing 2^e again: no atomics, and the same bits every time.
#include "device.h"
#include "sums.h"

#define THREADS 128
#define ROWS 8     // rows of a thread, by rows
#define COLUMNS 4  // components of a thread, by components
#define TILE 64    // components (rows) in shared memory
#define LANES 32   // dimensions of a block, at most
#define FAR -48.0
#define RESCUED ((int)0x7fd15ea5)  // a NaN no arithmetic makes: G of a rescued (row, dimension)

// --- preparation: a, c and the bound ---------------------------------------------------------------------------------

#define BOUND_GROUPS 8

struct marginals_bound_args {
  const float* logvar;  // [K, M, D]
  double* partial;      // [K, S, D]: max h of a split
  long long m, d, splits, tiles;  // tiles of LANES dimensions
};

DV_FN double half_log2(float logvar) { return -0.5 * DV_LOG2E * logvar; }

DV_KERNEL(marginals_bound, marginals_bound_args, LANES* BOUND_GROUPS, 4) {
  __shared__ double best[BOUND_GROUPS][LANES];
  int lane = threadIdx.x % LANES, group = threadIdx.x / LANES;
  long long b = blockIdx.x, d = b % p.tiles * LANES + lane;
  b /= p.tiles;
  long long split = b % p.splits, k = b / p.splits;
  double high = -DV_INFINITY;
  if (d < p.d)
    for (long long j = split * BOUND_GROUPS + group; j < p.m; j += p.splits * BOUND_GROUPS)
      high = fmax(high, half_log2(p.logvar[(k * p.m + j) * p.d + d]));  // a NaN is lost here, and stays in c
  best[group][lane] = high;
  __syncthreads();
  if (group || d >= p.d) return;
  for (int i = 1; i < BOUND_GROUPS; ++i) high = fmax(high, best[i][lane]);
  p.partial[(k * p.splits + split) * p.d + d] = high;
}

struct marginals_prepare_args {
  const float* logvar;    // [K, M, D]
  const double* partial;  // [K, S, D]
  double* bound;          // [K, D]
  float *a, *c;           // [K, M, D]
  long long m, d, splits, tiles, rows;  // rows of a block
};

DV_KERNEL(marginals_prepare, marginals_prepare_args, LANES* BOUND_GROUPS, 4) {
  int lane = threadIdx.x % LANES, group = threadIdx.x / LANES;
  long long b = blockIdx.x, d = b % p.tiles * LANES + lane;
  b /= p.tiles;
  long long parts = (p.m + p.rows - 1) / p.rows, part = b % parts, k = b / parts;
  if (d >= p.d) return;
  double high = -DV_INFINITY;
  for (long long s = 0; s < p.splits; ++s) high = fmax(high, p.partial[(k * p.splits + s) * p.d + d]);
  if (part == 0 && group == 0) p.bound[k * p.d + d] = high;
  for (long long j = part * p.rows + group; j < p.m && j < (part + 1) * p.rows; j += BOUND_GROUPS) {
    long long at = (k * p.m + j) * p.d + d;
    float logvar = p.logvar[at];
    p.a[at] = (float)(0.8493218002880191 * exp(-0.5 * logvar));
    p.c[at] = (float)(half_log2(logvar) - high);
  }
}

// --- by rows: the sums, and backward those of dz --------------------------------------------------------------------

struct marginals_rows_args {
  const float *z, *mu, *a, *c;  // [K, N, D], [K, M, D]
  double* partial;              // [S, K, N, D]
  long long k, n, m, d, lanes, splits, share, offset;  // lanes: dimensions of a block; share: components of a split
  double own, next;             // log-weights, base 2
};

template <bool BACKWARD>
DV_FN void by_rows(const marginals_rows_args& p) {
  __shared__ float mus[TILE * LANES], as[TILE * LANES], cs[TILE * LANES];
  int lanes = (int)p.lanes, lane = threadIdx.x & (lanes - 1), group = threadIdx.x / lanes, groups = THREADS / lanes;
  long long rows = (long long)groups * ROWS, b = blockIdx.x;
  long long row_tiles = (p.n + rows - 1) / rows, dim_tiles = (p.d + lanes - 1) / lanes;
  long long i0 = b % row_tiles * rows;
  b /= row_tiles;
  long long d = b % dim_tiles * lanes + lane;
  b /= dim_tiles;
  long long split = b % p.splits, k = b / p.splits;

  float z[ROWS];
  double sums[ROWS];
  for (int r = 0; r < ROWS; ++r) {
    long long i = i0 + group + r * groups;
    z[r] = i < p.n && d < p.d ? p.z[(k * p.n + i) * p.d + d] : 0.0f;
    sums[r] = 0.0;
  }
  float own = (float)p.own, next = (float)p.next;
  long long end = (split + 1) * p.share < p.m ? (split + 1) * p.share : p.m;
  for (long long j0 = split * p.share; j0 < end; j0 += TILE) {
    int count = (int)(end - j0 < TILE ? end - j0 : TILE);
    __syncthreads();
#pragma unroll 4
    for (int j = group; j < count; j += groups) {
      long long at = (k * p.m + j0 + j) * p.d + d;
      int e = j * lanes + lane;
      mus[e] = d < p.d ? p.mu[at] : 0.0f;
      as[e] = d < p.d ? p.a[at] : 0.0f;
      cs[e] = d < p.d ? p.c[at] : 0.0f;
    }
    __syncthreads();
    float sum[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) sum[r] = 0.0f;
    if (!dv_weighted(i0, rows, j0, count, p.m, p.offset, p.own, p.next)) {
#pragma unroll 1
      for (int j = 0; j < count; ++j) {
        float mu = mus[j * lanes + lane], a = as[j * lanes + lane], c = cs[j * lanes + lane];
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
          float s = (z[r] - mu) * a, x = dv_ex2(dv_fma(-s, s, c));
          sum[r] = BACKWARD ? dv_fma(x, s * a, sum[r]) : sum[r] + x;
        }
      }
    } else {
#pragma unroll 1
      for (int j = 0; j < count; ++j) {
        float mu = mus[j * lanes + lane], a = as[j * lanes + lane], c = cs[j * lanes + lane];
        int own_at = (int)(j0 + j - (i0 + group + p.offset));
        int next_at = j0 + j ? own_at - 1 : own_at + (int)p.m - 1;
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
          float weight = dv_weight(r * groups, own_at, next_at, own, next);
          float s = (z[r] - mu) * a, x = dv_ex2(dv_fma(-s, s, c) + weight);
          float y = BACKWARD ? dv_fma(x, s * a, sum[r]) : sum[r] + x;
          sum[r] = weight < -1e30f ? sum[r] : y;  // an excluded pair's NaN stays out
        }
      }
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r) sums[r] += sum[r];
  }
  for (int r = 0; r < ROWS; ++r) {
    long long i = i0 + group + r * groups;
    if (i < p.n && d < p.d) p.partial[((split * p.k + k) * p.n + i) * p.d + d] = sums[r];
  }
}

DV_KERNEL(marginals_sums, marginals_rows_args, THREADS, 6) { by_rows<false>(p); }
DV_KERNEL(marginals_rows, marginals_rows_args, THREADS, 6) { by_rows<true>(p); }

// --- rows, finished: rescue, logarithm, rounding --------------------------------------------------------------------

struct marginals_finish_args {
  const float *z, *mu, *logvar;  // [K, N, D], [K, M, D]
  const double *partial, *bound;  // [S, K, N, D], [K, D]
  double* lse;                   // [K, N, D]: out of the forward, into the backward
  float* out;                    // [K, N, D]: lse + base, or dz
  const float* g;                // [K, N, D] backward
  float* scale;                  // [K, N, D] backward: G, or RESCUED
  long long k, n, m, d, splits, offset;
  double base, own, next;        // nats
};

// of one (row, dimension), by the whole block: ln sum_j exp(l_j), or sum_j exp(l_j - lse) (z - mu_j) / var_j
template <bool BACKWARD>
DV_FN double rescue(const marginals_finish_args& p, long long at, double lse) {
  long long d = at % p.d, row = at / p.d, i = row % p.n, k = row / p.n;
  long long own_at = i + p.offset, next_at = dv_next(i, p.m, p.offset);
  double z = p.z[at], sum = 0.0;
  dv_lse part = {-DV_INFINITY, 0.0};
  for (long long j = threadIdx.x; j < p.m; j += FINISH_THREADS) {
    double weight = dv_weight(j, own_at, next_at, p.own, p.next);
    if (weight == -DV_INFINITY) continue;
    double mu = p.mu[(k * p.m + j) * p.d + d], logvar = p.logvar[(k * p.m + j) * p.d + d];
    double l = dv_log_normal(z, mu, logvar) + weight;
    if (BACKWARD)
      sum += exp(l - lse) * (z - mu) * exp(-logvar);
    else
      dv_add(part, l);
  }
  if (BACKWARD) return block_sum(sum);
  part = block_merge(part);
  return part.top + log(part.sum);
}

template <bool BACKWARD>
DV_FN void finish(const marginals_finish_args& p) {
  __shared__ int far[FINISH_THREADS];
  long long first = (long long)blockIdx.x * FINISH_THREADS, at = first + threadIdx.x, size = p.k * p.n * p.d;
  double sum = 0.0, lse = 0.0, reach = 0.0, value = 0.0;  // reach: log2 of the sum relative to its bound
  if (at < size) {
    for (long long s = 0; s < p.splits; ++s) sum += p.partial[s * size + at];
    double bound = p.bound[at / p.d / p.n * p.d + at % p.d];
    if (BACKWARD) {
      lse = p.lse[at];
      reach = (lse + 0.5 * DV_LN_2PI) * DV_LOG2E - bound;
      double scale = p.g[at] * exp2(-reach);
      value = -2.0 * DV_LN2 * scale * sum;
      p.scale[at] = reach < FAR ? dv_as_float(RESCUED) : (float)scale;
    } else {
      reach = log2(sum);
      value = DV_LN2 * (reach + bound) - 0.5 * DV_LN_2PI;
    }
  }
  far[threadIdx.x] = reach < FAR;
  if (__syncthreads_or(reach < FAR)) {
    for (int t = 0; t < FINISH_THREADS; ++t) {
      if (!far[t]) continue;
      double exact = rescue<BACKWARD>(p, first + t, BACKWARD ? p.lse[first + t] : 0.0);
      if (t == (int)threadIdx.x) value = BACKWARD ? -p.g[at] * exact : exact;
    }
  }
  if (at >= size) return;
  if (!BACKWARD) p.lse[at] = value;
  p.out[at] = (float)(BACKWARD ? value : value + p.base);
}

DV_KERNEL(marginals_finish, marginals_finish_args, FINISH_THREADS, 4) { finish<false>(p); }
DV_KERNEL(marginals_rows_finish, marginals_finish_args, FINISH_THREADS, 4) { finish<true>(p); }

// --- by components: dmu and dlogvar ---------------------------------------------------------------------------------

struct marginals_columns_args {
  const float *z, *g, *scale;        // [K, N, D]
  const double* lse;                 // [K, N, D]
  const float *mu, *logvar, *a, *c;  // [K, M, D]
  double* partial;                   // [S, 2, K, M, D]: dmu, dlogvar
  long long k, n, m, d, lanes, splits, share, offset;  // share: rows of a split
  double own, next;                  // nats
};

// what the rescued rows [start, end) of dimension d add to the thread's components, in float64
DV_FN void add_rescued(const marginals_columns_args& p, long long k, long long split, long long start, long long end,
                       long long first, int groups, long long d) {
  long long size = p.k * p.m * p.d;
#pragma unroll 1
  for (long long i = start; i < end; ++i) {
    long long row = (k * p.n + i) * p.d + d;
    if (dv_as_int(p.scale[row]) != RESCUED) continue;
    double z = p.z[row], g = p.g[row], lse = p.lse[row];
    long long own_at = i + p.offset, next_at = dv_next(i, p.m, p.offset);
#pragma unroll 1
    for (long long j = first; j < first + COLUMNS * groups && j < p.m; j += groups) {
      double weight = dv_weight(j, own_at, next_at, p.own, p.next);
      if (weight == -DV_INFINITY) continue;
      long long component = (k * p.m + j) * p.d + d;
      double mu = p.mu[component], logvar = p.logvar[component], t = z - mu, tp = t * exp(-logvar);
      double w = g * exp(dv_log_normal(z, mu, logvar) + weight - lse);
      double* to = p.partial + split * 2 * size + component;
      to[0] += w * tp;
      to[size] += 0.5 * w * (t * tp - 1.0);
    }
  }
}

DV_KERNEL(marginals_columns, marginals_columns_args, THREADS, 5) {
  __shared__ float zs[TILE * LANES], scales[TILE * LANES];
  int lanes = (int)p.lanes, lane = threadIdx.x & (lanes - 1), group = threadIdx.x / lanes, groups = THREADS / lanes;
  long long columns = (long long)groups * COLUMNS, b = blockIdx.x;
  long long column_tiles = (p.m + columns - 1) / columns, dim_tiles = (p.d + lanes - 1) / lanes;
  long long j0 = b % column_tiles * columns;
  b /= column_tiles;
  long long d = b % dim_tiles * lanes + lane;
  b /= dim_tiles;
  long long split = b % p.splits, k = b / p.splits;

  long long first = j0 + group;  // the thread's components are first + r groups
  float own = (float)(DV_LOG2E * p.own), next = (float)(DV_LOG2E * p.next);
  float mu[COLUMNS], a[COLUMNS], c[COLUMNS];
  double dmu[COLUMNS], dlogvar[COLUMNS];
#pragma unroll
  for (int r = 0; r < COLUMNS; ++r) {
    long long j = first + r * groups, at = (k * p.m + j) * p.d + d;
    bool there = j < p.m && d < p.d;
    mu[r] = there ? p.mu[at] : 0.0f;
    a[r] = there ? p.a[at] : 0.0f;
    c[r] = there ? p.c[at] : 0.0f;
    dmu[r] = dlogvar[r] = 0.0;
  }
  int any_rescued = 0;
  long long end = (split + 1) * p.share < p.n ? (split + 1) * p.share : p.n;
  for (long long i0 = split * p.share; i0 < end; i0 += TILE) {
    int count = (int)(end - i0 < TILE ? end - i0 : TILE), rescued = 0;
    __syncthreads();
#pragma unroll 4
    for (int i = group; i < count; i += groups) {
      long long at = (k * p.n + i0 + i) * p.d + d;
      int e = i * lanes + lane;
      float scale = d < p.d ? p.scale[at] : 0.0f;
      int far = dv_as_int(scale) == RESCUED;
      zs[e] = d < p.d && !far ? p.z[at] : 0.0f;
      scales[e] = far ? 0.0f : scale;
      rescued |= far;
    }
    any_rescued |= __syncthreads_or(rescued);
    float sum_mu[COLUMNS], sum_logvar[COLUMNS];
#pragma unroll
    for (int r = 0; r < COLUMNS; ++r) sum_mu[r] = sum_logvar[r] = 0.0f;
    bool weighted = dv_weighted(i0, count, j0, columns, p.m, p.offset, p.own, p.next);
    if (!weighted) {
#pragma unroll 1
      for (int i = 0; i < count; ++i) {
        float z = zs[i * lanes + lane], scale = scales[i * lanes + lane];
#pragma unroll
        for (int r = 0; r < COLUMNS; ++r) {
          float s = (z - mu[r]) * a[r], w = dv_ex2(dv_fma(-s, s, c[r])) * scale;
          sum_mu[r] = dv_fma(w, s, sum_mu[r]);
          sum_logvar[r] = dv_fma(w, dv_fma(s, s, -0.721347520f), sum_logvar[r]);
        }
      }
    } else {
#pragma unroll 1
      for (int i = 0; i < count; ++i) {
        float z = zs[i * lanes + lane], scale = scales[i * lanes + lane];
        int own_at = (int)(i0 + i + p.offset - first), next_at = (int)(dv_next(i0 + i, p.m, p.offset) - first);
#pragma unroll
        for (int r = 0; r < COLUMNS; ++r) {
          float weight = dv_weight(r * groups, own_at, next_at, own, next);
          if (weight < -1e30f) continue;
          float s = (z - mu[r]) * a[r], w = dv_ex2(dv_fma(-s, s, c[r]) + weight) * scale;
          sum_mu[r] = dv_fma(w, s, sum_mu[r]);
          sum_logvar[r] = dv_fma(w, dv_fma(s, s, -0.721347520f), sum_logvar[r]);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < COLUMNS; ++r) {
      dmu[r] += 2.0 * DV_LN2 * a[r] * sum_mu[r];
      dlogvar[r] += DV_LN2 * sum_logvar[r];
    }
  }
#pragma unroll
  for (int r = 0; r < COLUMNS; ++r) {
    long long j = first + r * groups;
    if (j >= p.m || d >= p.d) continue;
    long long size = p.k * p.m * p.d, at = split * 2 * size + (k * p.m + j) * p.d + d;
    p.partial[at] = dmu[r];
    p.partial[at + size] = dlogvar[r];
  }
  if (any_rescued && d < p.d) add_rescued(p, k, split, split * p.share, end, first, groups, d);
}
