// log_density and log_marginals (formulas: kernels/density.py; layout: DensityJob). Pairs are computed in float32
// where float32 can be exact enough, their sums go to float64 once a strip, and a row that is too far from every
// component for float32 is computed anew in float64 ("far" rows).

static const double LN2 = 0.69314718055994530942, LOG2E = 1.4426950408889634074, LN_2PI = 1.8378770664093454836;
static const float TWO_LN2 = 1.38629436112f;  // 1 / var = 2 ln 2 a^2
static const double FAR_SUM = 3.5527136788005009e-15;  // 2^-48 of the bound: below, terms may have underflowed

// Transposes and prepares the components: of one dimension for the marginals, of one trial for the joint density.
static void prepare_task(const DensityJob& job, int64_t task) {
  const int64_t k = job.joint ? task : task / job.d, d0 = job.joint ? 0 : task % job.d;
  const int64_t d1 = job.joint ? job.d : d0 + 1;
  double* total = job.joint ? (double*)job.c_sum.data() + k * job.width : nullptr;
  double extra = job.next2 > 0.0 ? job.next2 : 0.0;
  if (job.own2 > extra) extra = job.own2;
  for (int64_t d = d0; d < d1; ++d) {
    const int64_t from = (k * job.d + d) * job.width;
    float *mu = (float*)job.mu_t.data(), *a = (float*)job.a_t.data(), *c = (float*)job.c_t.data();
    double most = -__builtin_inf();
    for (int64_t j = 0; j < job.width; ++j) {
      const int64_t at = job.joint ? job.tile(k, j / TILE * TILE) + d * TILE + j % TILE : from + j;
      if (j >= job.m) {  // padding: probability 0
        mu[at] = a[at] = 0.0f;
        continue;
      }
      const float lv = job.logvar[(k * job.m + j) * job.d + d];
      const double each = -0.5 * LOG2E * (double)lv;
      mu[at] = job.mu[(k * job.m + j) * job.d + d];
      a[at] = (float)(0.84932180028801904 * exp(-0.5 * (double)lv));  // sqrt(log2(e) / 2)
      if (total) total[j] += each;
      if (each > most) most = each;
    }
    if (job.joint) continue;
    ((double*)job.bound.data())[k * job.d + d] = most + extra;
    for (int64_t j = 0; j < job.width; ++j) {
      const float lv = j < job.m ? job.logvar[(k * job.m + j) * job.d + d] : 0.0f;
      c[from + j] = j < job.m ? (float)(-0.5 * LOG2E * (double)lv - (most + extra)) : -1e30f;
    }
  }
  for (int64_t j = job.m; total && j < job.width; ++j) total[j] = -1e300;
}

// log-weight of a pair in base 2; only asked for where the job is weighted
DV_FN double weight(const DensityJob& job, int64_t i, int64_t j) {
  double w = 0.0;
  if (j == job.own_of(i)) w += job.own2;
  if (j == job.next_of(i)) w += job.next2;
  return w;
}

