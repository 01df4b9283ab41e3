// bernoulli_nll: a row is one image under one sample of one trial (nll.h). Lanes sum in float32 over NLL_RUN vectors at
// most, then in float64.

DV_FN double nll_row(const float* y, const float* x, int64_t p) {
  double total = 0.0;
  for (int64_t start = 0; start < p; start += NLL_RUN * DV_LANES) {
    const int64_t last = smaller(p, start + NLL_RUN * DV_LANES);
    dv_f lanes = {};
    int64_t i = start;
    for (; i + DV_LANES <= last; i += DV_LANES) lanes += dv_bernoulli_nll(load(y + i), load(x + i));
    if (i < last) {
      const int64_t rest = last - i;
      dv_f term = dv_bernoulli_nll(load(y + i, rest), load(x + i, rest));
      for (int64_t l = rest; l < DV_LANES; ++l) term[l] = 0.0f;
      lanes += term;
    }
    total += sum(lanes);
  }
  return total;
}

static void nll_task(const NllJob& job, int64_t task) {
  const int64_t first = task * job.group(), last = smaller(job.rows(), first + job.group()), p = job.p;
  for (int64_t row = first; row < last; ++row) {
    const int64_t image = row / job.s % job.b, trial = row / (job.s * job.b);
    const float *y = job.y + row * p, *x = job.x + (trial * job.x_stride + image) * p;
    if (!job.g) {
      job.out[row] = (float)nll_row(y, x, p);
      continue;
    }
    const float g = job.g[row];
    float* __restrict out = job.out + row * p;
    int64_t i = 0;
    for (; i + DV_LANES <= p; i += DV_LANES) store(out + i, g * dv_bernoulli_slope(load(y + i), load(x + i)));
    if (i < p) store(out + i, g * dv_bernoulli_slope(load(y + i, p - i), load(x + i, p - i)), p - i);
  }
}
