// log_density: lse_i = ln sum_j exp(l_ij), l_ij = sum_d ln N(z_id; mu_jd, e^logvar_jd) + log-weight of (i, j), and its
// gradients. In base 2,
//
//     e_ij = C_j - Q_ij + weight,   C_j = sum_d -1/2 log2(e) logvar_jd   (float64)
//     Q_ij = sum_d [a_jd (z_id - mu_jd)]^2,   a = sqrt(log2(e)/2) exp(-logvar/2)
//     lse  = ln2 log2 sum_j 2^e - D/2 ln 2 pi
//
// The direct form: the product form z^2 - 2 z mu + mu^2 cancels at small sigma. Three float32 instructions a
// pair-dimension (FADD, FMUL, FFMA) over tiles of 64 x 64 pairs, 4 x 4 a thread, in chunks of 32 dimensions added up in
// float64. Exponentials are one a pair, so each thread keeps a running maximum of its pairs of a row.
//
// Rescue. Q has the relative accuracy of float32, so a row whose best component has Q > 256 + D is computed anew in
// float64; backward, single pairs are, where Q is that large and the pair can matter.
//
// Backward, w_ij = g_i exp(l_ij - lse_i), with s = a (z - mu):
//     dz_id = -2 ln2 sum_j w a s,   dmu_jd = 2 ln2 a sum_i w s,   dlogvar_jd = ln2 sum_i w (s^2 - 1/(2 ln2))
// in two kernels, by rows and by components. A block owns 64 of them and 32 dimensions; a tile's w pass through shared
// memory. Beyond 32 dimensions each block of dimensions computes Q again. No atomics, and the same bits every time.
#include "device.h"
#include "sums.h"

#define THREADS 256
#define TILE 64    // rows and components of a tile
#define SIDE 4     // rows and components of a thread
#define CHUNK 32   // dimensions in shared memory
#define STRIDE 68  // of a dimension there: TILE, and 16 bytes against bank conflicts

struct density_prepare_args {
  const float *mu, *logvar;  // [K, M, D]
  float* a;                  // [K, M, D]
  double* precision;         // [K, M, D]: 1 / var, for what is computed in float64
  double* constant;          // [K, M]: C
  long long rows, d;         // K M
};

DV_KERNEL(density_prepare, density_prepare_args, FINISH_THREADS, 4) {
  __shared__ double sums[FINISH_THREADS];
  // 8 threads a component: enough for the loads to be whole sectors
  int lane = threadIdx.x % 8;
  long long j = (long long)blockIdx.x * (FINISH_THREADS / 8) + threadIdx.x / 8;
  double sum = 0.0;
  if (j < p.rows)
    for (long long d = lane; d < p.d; d += 8) {
      double logvar = p.logvar[j * p.d + d];
      p.a[j * p.d + d] = (float)(0.8493218002880191 * exp(-0.5 * logvar));
      p.precision[j * p.d + d] = exp(-logvar);
      sum += logvar;
    }
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (lane || j >= p.rows) return;
  for (int i = 1; i < 8; ++i) sum += sums[threadIdx.x + i];
  p.constant[j] = -0.5 * DV_LOG2E * sum;
}

// --- a tile of exponents --------------------------------------------------------------------------------------------

struct density_args {
  const float *z, *mu, *a;              // [K, N, D], [K, M, D]
  const double *constant, *precision;   // [K, M], [K, M, D]
  const double* lse;                    // [K, N] backward
  const float* g;                       // [K, N] backward
  double* partial;                      // [S, K, N, 3] forward; [S, K, N, D] by rows; [S, 2, K, M, D] by components
  long long k, n, m, d, splits, share;  // share: components (rows) of a split
  long long offset;
  double own, next;                     // log-weights, base 2
};

struct tile_memory {
  alignas(16) float z[CHUNK * STRIDE], mu[CHUNK * STRIDE], a[CHUNK * STRIDE];  // [dimension][row or component]
};

struct alignas(16) float_4 {
  float at[4];
};

// Dimensions d0 ... of the tile's rows (or components), `count` of them from `from` on; 0 where there is none.
DV_FN void fill(float* to, const float* from, long long count, long long d0, long long d) {
  int u = threadIdx.x % CHUNK, x = threadIdx.x / CHUNK, left = d0 + u < d ? (int)(count < TILE ? count : TILE) : 0;
  from += x * d + d0 + u;
  to += u * STRIDE + x;
#pragma unroll 4
  for (int step = 0; step < TILE; step += THREADS / CHUNK) to[step] = x + step < left ? from[step * d] : 0.0f;
}

// Q of the thread's 4 x 4 pairs of the tile at (i0, j0) of trial k; chunk `last` is the one left in shared memory
DV_FN void distances(const density_args& p, tile_memory& tile, double (&sum)[SIDE][SIDE], long long k, long long i0,
                     long long j0, long long last) {
  int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll
  for (int r = 0; r < SIDE; ++r)
#pragma unroll
    for (int c = 0; c < SIDE; ++c) sum[r][c] = 0.0;
  long long d0 = last * CHUNK;
#pragma unroll 1
  for (long long left = p.d; left > 0; left -= CHUNK) {
    d0 = d0 + CHUNK < p.d ? d0 + CHUNK : 0;
    __syncthreads();
    fill(tile.z, p.z + (k * p.n + i0) * p.d, p.n - i0, d0, p.d);
    fill(tile.mu, p.mu + (k * p.m + j0) * p.d, p.m - j0, d0, p.d);
    fill(tile.a, p.a + (k * p.m + j0) * p.d, p.m - j0, d0, p.d);
    __syncthreads();
    int count = (int)(p.d - d0 < CHUNK ? p.d - d0 : CHUNK);
    float q[SIDE][SIDE];
#pragma unroll
    for (int r = 0; r < SIDE; ++r)
#pragma unroll
      for (int c = 0; c < SIDE; ++c) q[r][c] = 0.0f;
#pragma unroll 1
    for (int u = 0; u < count; ++u) {
      float_4 z = *(const float_4*)&tile.z[u * STRIDE + SIDE * ty];
      float_4 mu = *(const float_4*)&tile.mu[u * STRIDE + SIDE * tx];
      float_4 a = *(const float_4*)&tile.a[u * STRIDE + SIDE * tx];
#pragma unroll
      for (int r = 0; r < SIDE; ++r)
#pragma unroll
        for (int c = 0; c < SIDE; ++c) {
          float s = (z.at[r] - mu.at[c]) * a.at[c];
          q[r][c] = dv_fma(s, s, q[r][c]);
        }
    }
#pragma unroll
    for (int r = 0; r < SIDE; ++r)
#pragma unroll
      for (int c = 0; c < SIDE; ++c) sum[r][c] += q[r][c];
  }
}

// Takes the log-weights off Q; where a pair is excluded or no pair, Q becomes infinite, whatever it was.
DV_FN void weigh(const density_args& p, double (&q)[SIDE][SIDE], long long i0, long long j0) {
  int first = (int)j0 + SIDE * (threadIdx.x % 16), left = (int)p.m - first;
#pragma unroll
  for (int r = 0; r < SIDE; ++r) {
    long long i = i0 + SIDE * (threadIdx.x / 16) + r;
    int own_at = (int)(i + p.offset) - first, next_at = (int)dv_next(i, p.m, p.offset) - first;
#pragma unroll
    for (int c = 0; c < SIDE; ++c) {
      double weight = dv_weight(c, own_at, next_at, p.own, p.next);
      q[r][c] = c >= left || weight == -DV_INFINITY ? DV_INFINITY : q[r][c] - weight;
    }
  }
}

// C of a component of trial k, or 0 where there is none
DV_FN double constant_of(const density_args& p, long long k, long long j) {
  return j < p.m ? p.constant[k * p.m + j] : 0.0;
}

// --- forward ---------------------------------------------------------------------------------------------------------

struct row_sum {
  double top, sum, q;  // sum_j 2^e = 2^top sum; q: Q of the best pair
};

DV_FN row_sum no_pairs() {  // finite, so that top - top is no NaN
  row_sum out = {-1e300, 0.0, 0.0};
  return out;
}

DV_FN row_sum merge(row_sum a, row_sum b) {
  row_sum out = b.top > a.top ? b : a;
  double low = b.top > a.top ? a.top : b.top, sum = b.top > a.top ? a.sum : b.sum;
  out.sum += sum * exp2(low - out.top);
  return out;
}

DV_KERNEL(density_sums, density_args, THREADS, 2) {
  __shared__ union {
    tile_memory tile;
    row_sum rows[TILE * 16];
  } shared;
  int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  long long b = blockIdx.x, tiles = (p.n + TILE - 1) / TILE, i0 = b % tiles * TILE;
  b /= tiles;
  long long split = b % p.splits, k = b / p.splits;
  double top[SIDE];
  float sum[SIDE], best_q[SIDE];
#pragma unroll
  for (int r = 0; r < SIDE; ++r) top[r] = -1e300, sum[r] = best_q[r] = 0.0f;

  long long end = (split + 1) * p.share < p.m ? (split + 1) * p.share : p.m;
  for (long long j0 = split * p.share; j0 < end; j0 += TILE) {
    double q[SIDE][SIDE], constant[SIDE];
    distances(p, shared.tile, q, k, i0, j0, 0);
    bool weighted = dv_weighted(i0, TILE, j0, TILE, p.m, p.offset, p.own, p.next);
    if (weighted || j0 + TILE > p.m) weigh(p, q, i0, j0);
#pragma unroll
    for (int c = 0; c < SIDE; ++c) constant[c] = constant_of(p, k, j0 + SIDE * tx + c);
#pragma unroll
    for (int r = 0; r < SIDE; ++r) {
      double e[SIDE], before = top[r];
#pragma unroll
      for (int c = 0; c < SIDE; ++c) {
        e[c] = q[r][c] == DV_INFINITY ? -DV_INFINITY : constant[c] - q[r][c];  // where C is NaN too
        bool better = e[c] > top[r];
        best_q[r] = better ? (float)q[r][c] : best_q[r];
        top[r] = better ? e[c] : top[r];
      }
      float x = 0.0f;
#pragma unroll
      for (int c = 0; c < SIDE; ++c) x += dv_ex2((float)(e[c] - top[r]));
      sum[r] = dv_fma(sum[r], dv_ex2((float)(before - top[r])), x);
    }
  }
  __syncthreads();
#pragma unroll
  for (int r = 0; r < SIDE; ++r) {
    row_sum mine = {top[r], sum[r], best_q[r]};
    shared.rows[(SIDE * ty + r) * 16 + tx] = mine;
  }
  __syncthreads();
  long long i = i0 + threadIdx.x;
  if (threadIdx.x >= TILE || i >= p.n) return;
  row_sum all = no_pairs();
  for (int x = 0; x < 16; ++x) all = merge(all, shared.rows[threadIdx.x * 16 + x]);
  double* out = p.partial + ((split * p.k + k) * p.n + i) * 3;
  out[0] = all.top, out[1] = all.sum, out[2] = all.q;
}

struct density_finish_args {
  const float *z, *mu;                           // [K, N, D], [K, M, D]
  const double *constant, *precision, *partial;  // [K, M], [K, M, D], [S, K, N, 3]
  double* lse;                                   // [K, N]
  float* out;                                    // [K, N]
  long long k, n, m, d, splits, offset;
  double base, own, next;                        // nats
};

// e_ij - weight in float64, base 2
DV_FN double exact(const float* z, const float* mu, const double* precision, double constant, long long d) {
  double q = 0.0;
#pragma unroll 1
  for (long long u = 0; u < d; ++u) {
    double t = (double)z[u] - mu[u];
    q += t * t * precision[u];
  }
  return constant - 0.5 * DV_LOG2E * q;
}

DV_KERNEL(density_finish, density_finish_args, FINISH_THREADS, 4) {
  __shared__ int far[FINISH_THREADS];
  long long first = (long long)blockIdx.x * FINISH_THREADS, at = first + threadIdx.x, size = p.k * p.n;
  double value = 0.0, normalizer = 0.5 * DV_LN_2PI * p.d;
  int is_far = 0;
  if (at < size) {
    row_sum all = no_pairs();
    for (long long s = 0; s < p.splits; ++s) {
      const double* from = p.partial + (s * size + at) * 3;
      row_sum part = {from[0], from[1], from[2]};
      all = merge(all, part);
    }
    value = DV_LN2 * (all.top + log2(all.sum)) - normalizer;
    is_far = all.sum == 0.0 || all.q > 256.0 + p.d;
  }
  far[threadIdx.x] = is_far;
  if (__syncthreads_or(is_far)) {
    for (int t = 0; t < FINISH_THREADS; ++t) {
      if (!far[t]) continue;
      long long row = first + t, i = row % p.n, k = row / p.n;
      long long own_at = i + p.offset, next_at = dv_next(i, p.m, p.offset);
      dv_lse part = {-DV_INFINITY, 0.0};
      for (long long j = threadIdx.x; j < p.m; j += FINISH_THREADS) {
        double weight = dv_weight(j, own_at, next_at, p.own, p.next);
        if (weight == -DV_INFINITY) continue;
        long long c = k * p.m + j;
        double e = exact(p.z + row * p.d, p.mu + c * p.d, p.precision + c * p.d, p.constant[c], p.d);
        dv_add(part, DV_LN2 * e + weight);
      }
      part = block_merge(part);
      if (t == (int)threadIdx.x) value = part.top + log(part.sum) - normalizer;
    }
  }
  if (at >= size) return;
  p.lse[at] = value;
  p.out[at] = (float)(value + p.base);
}

// --- backward --------------------------------------------------------------------------------------------------------

// log2 sum_j 2^e of a row, from its lse
DV_FN double log2_density(const density_args& p, long long row) {
  return DV_LOG2E * (p.lse[row] + 0.5 * DV_LN_2PI * p.d);
}

struct weight_memory {
  alignas(16) float w[TILE * STRIDE];  // [component][row] by rows, [row][component] by components
  double level[TILE];                  // log2 sum_j 2^e of the tile's rows
  float g[TILE];
};

// The tile's w into shared memory.
template <bool BY_COLUMNS>
DV_FN void put_weights(const density_args& p, tile_memory& tile, weight_memory& to, long long k, long long i0,
                       long long j0, bool weighted, long long own_chunk) {
  int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  if (threadIdx.x < TILE) {
    long long i = i0 + threadIdx.x;
    to.g[threadIdx.x] = i < p.n ? p.g[k * p.n + i] : 0.0f;
    to.level[threadIdx.x] = i < p.n ? log2_density(p, k * p.n + i) : 0.0;
  }
  double q[SIDE][SIDE], constant[SIDE];
  distances(p, tile, q, k, i0, j0, own_chunk);
  if (weighted || j0 + TILE > p.m) weigh(p, q, i0, j0);
#pragma unroll
  for (int c = 0; c < SIDE; ++c) constant[c] = constant_of(p, k, j0 + SIDE * tx + c);
  float limit = 256.0f + (float)p.d;
  unsigned again = 0;  // pairs to be computed in float64: bit 4 r + c
#pragma unroll
  for (int r = 0; r < SIDE; ++r) {
    long long i = i0 + SIDE * ty + r;
    float g = to.g[SIDE * ty + r];
    double level = to.level[SIDE * ty + r];
#pragma unroll
    for (int c = 0; c < SIDE; ++c) {
      float distance = (float)q[r][c], reach = (float)(constant[c] - q[r][c] - level);
      bool out = i >= p.n || q[r][c] == DV_INFINITY;
      again |= !out && distance > limit && reach > -30.0f - distance * 3.81469727e-6f ? 1u << (SIDE * r + c) : 0u;
      to.w[BY_COLUMNS ? (SIDE * ty + r) * STRIDE + SIDE * tx + c : (SIDE * tx + c) * STRIDE + SIDE * ty + r] =
          out ? 0.0f : g * dv_ex2(reach);
    }
  }
#pragma unroll 1
  for (int bit = 0; again; ++bit, again >>= 1) {
    if (!(again & 1u)) continue;
    int r = SIDE * ty + bit / SIDE, c = SIDE * tx + bit % SIDE;
    long long i = k * p.n + i0 + r, j = k * p.m + j0 + c;
    double exponent = exact(p.z + i * p.d, p.mu + j * p.d, p.precision + j * p.d, p.constant[j], p.d);
    exponent += dv_weight(j0 + c, i0 + r + p.offset, dv_next(i0 + r, p.m, p.offset), p.own, p.next);
    to.w[BY_COLUMNS ? r * STRIDE + c : c * STRIDE + r] = p.g[i] * (float)exp2(exponent - log2_density(p, i));
  }
  __syncthreads();
}

// A thread owns 2 rows (components) x 4 dimensions of the block's 64 x 32.
#define OWNED 2
#define DIMS 4

// Sums of tiles are added up in float64 in memory that is this thread's alone: registers are short.
DV_FN void put(double* to, double x, bool first) { *to = first ? x : *to + x; }

// A tile's w into the thread's sums. In a tile with weights, w = 0 keeps an excluded pair's NaN out.
template <bool WEIGHTED>
DV_FN void add_rows(float (&sum)[OWNED][DIMS], const float (&z)[OWNED][DIMS], const tile_memory& tile, const float* ws,
                    int count) {
  int lane = threadIdx.x % 32, u0 = threadIdx.x / 32 * DIMS;
#pragma unroll 1
  for (int j = 0; j < count; ++j) {
#pragma unroll
    for (int h = 0; h < OWNED; ++h) {
      float w = ws[j * STRIDE + lane + 32 * h];
      if (WEIGHTED && w == 0.0f) continue;
#pragma unroll
      for (int u = 0; u < DIMS; ++u) {
        float mu = tile.mu[(u0 + u) * STRIDE + j], a = tile.a[(u0 + u) * STRIDE + j];
        sum[h][u] = dv_fma(w, (z[h][u] - mu) * (a * a), sum[h][u]);
      }
    }
  }
}

template <bool WEIGHTED>
DV_FN void add_columns(float (&sum_mu)[OWNED][DIMS], float (&sum_logvar)[OWNED][DIMS], const float (&mu)[OWNED][DIMS],
                       const float (&a)[OWNED][DIMS], const tile_memory& tile, const float* ws, int count) {
  int lane = threadIdx.x % 32, u0 = threadIdx.x / 32 * DIMS;
#pragma unroll 1
  for (int i = 0; i < count; ++i) {
#pragma unroll
    for (int h = 0; h < OWNED; ++h) {
      float w = ws[i * STRIDE + lane + 32 * h];
      if (WEIGHTED && w == 0.0f) continue;
#pragma unroll
      for (int u = 0; u < DIMS; ++u) {
        float s = (tile.z[(u0 + u) * STRIDE + i] - mu[h][u]) * a[h][u];
        sum_mu[h][u] = dv_fma(w, s, sum_mu[h][u]);
        sum_logvar[h][u] = dv_fma(w, dv_fma(s, s, -0.721347520f), sum_logvar[h][u]);
      }
    }
  }
}

DV_KERNEL(density_rows, density_args, THREADS, 2) {
  __shared__ tile_memory tile;
  __shared__ weight_memory weights;
  int lane = threadIdx.x % 32, u0 = threadIdx.x / 32 * DIMS;
  long long b = blockIdx.x, tiles = (p.n + TILE - 1) / TILE, chunks = (p.d + CHUNK - 1) / CHUNK, i0 = b % tiles * TILE;
  b /= tiles;
  long long chunk = b % chunks;
  b /= chunks;
  long long split = b % p.splits, k = b / p.splits;
  double* out = p.partial + (split * p.k + k) * p.n * p.d;
  long long start = split * p.share, end = start + p.share < p.m ? start + p.share : p.m;
  for (long long j0 = start; j0 < end; j0 += TILE) {
    bool weighted = dv_weighted(i0, TILE, j0, TILE, p.m, p.offset, p.own, p.next);
    put_weights<false>(p, tile, weights, k, i0, j0, weighted, chunk);
    float z[OWNED][DIMS], sum[OWNED][DIMS];
#pragma unroll
    for (int h = 0; h < OWNED; ++h)
#pragma unroll
      for (int u = 0; u < DIMS; ++u) z[h][u] = tile.z[(u0 + u) * STRIDE + lane + 32 * h], sum[h][u] = 0.0f;
    int count = (int)(p.m - j0 < TILE ? p.m - j0 : TILE);
    if (weighted)
      add_rows<true>(sum, z, tile, weights.w, count);
    else
      add_rows<false>(sum, z, tile, weights.w, count);
#pragma unroll
    for (int h = 0; h < OWNED; ++h)
#pragma unroll
      for (int u = 0; u < DIMS; ++u) {
        long long i = i0 + lane + 32 * h, d = chunk * CHUNK + u0 + u;
        if (i < p.n && d < p.d) put(out + i * p.d + d, -2.0 * DV_LN2 * sum[h][u], j0 == start);
      }
  }
}

DV_KERNEL(density_columns, density_args, THREADS, 2) {
  __shared__ tile_memory tile;
  __shared__ weight_memory weights;
  int lane = threadIdx.x % 32, u0 = threadIdx.x / 32 * DIMS;
  long long b = blockIdx.x, tiles = (p.m + TILE - 1) / TILE, chunks = (p.d + CHUNK - 1) / CHUNK, j0 = b % tiles * TILE;
  b /= tiles;
  long long chunk = b % chunks;
  b /= chunks;
  long long split = b % p.splits, k = b / p.splits;
  long long size = p.k * p.m * p.d;
  double* out = p.partial + split * 2 * size + k * p.m * p.d;
  long long start = split * p.share, end = start + p.share < p.n ? start + p.share : p.n;
  for (long long i0 = start; i0 < end; i0 += TILE) {
    bool weighted = dv_weighted(i0, TILE, j0, TILE, p.m, p.offset, p.own, p.next);
    put_weights<true>(p, tile, weights, k, i0, j0, weighted, chunk);
    float mu[OWNED][DIMS], a[OWNED][DIMS], sum_mu[OWNED][DIMS], sum_logvar[OWNED][DIMS];
#pragma unroll
    for (int h = 0; h < OWNED; ++h)
#pragma unroll
      for (int u = 0; u < DIMS; ++u) {
        mu[h][u] = tile.mu[(u0 + u) * STRIDE + lane + 32 * h];
        a[h][u] = tile.a[(u0 + u) * STRIDE + lane + 32 * h];
        sum_mu[h][u] = sum_logvar[h][u] = 0.0f;
      }
    int count = (int)(p.n - i0 < TILE ? p.n - i0 : TILE);
    if (weighted)
      add_columns<true>(sum_mu, sum_logvar, mu, a, tile, weights.w, count);
    else
      add_columns<false>(sum_mu, sum_logvar, mu, a, tile, weights.w, count);
#pragma unroll
    for (int h = 0; h < OWNED; ++h)
#pragma unroll
      for (int u = 0; u < DIMS; ++u) {
        long long j = j0 + lane + 32 * h, d = chunk * CHUNK + u0 + u;
        if (j >= p.m || d >= p.d) continue;
        put(out + j * p.d + d, 2.0 * DV_LN2 * a[h][u] * sum_mu[h][u], i0 == start);
        put(out + size + j * p.d + d, DV_LN2 * sum_logvar[h][u], i0 == start);
      }
  }
}
