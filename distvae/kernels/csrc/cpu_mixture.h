// KL(q || 1/2 N(-r, 1) + 1/2 N(r, 1)) and its gradient (formulas: kernels/mixture.py), LINE elements at a time. Every
// node is one vector loop; elements with r sigma >= 1 take the Laguerre form, whose sums are only made if one is there.


static void mixture_task(const MixtureJob& job, int64_t task) {
  const int64_t pieces = ceil_div(job.size, 4096), k = task / pieces, first = (task % pieces) * 4096;
  const int64_t last = smaller(job.size, first + 4096);
  const float r = job.r[k], two_r = 2.0f * (r < 1e-30f ? 1e-30f : r);
  for (int64_t start = first; start < last; start += LINE) {
    const int64_t at = k * job.size + start, n = smaller(LINE, last - start);
    float mu[LINE] = {}, lv[LINE] = {}, sigma[LINE], a[LINE], b[LINE], c[LINE], cosh_[LINE], tanh_[LINE], sech[LINE], gap[LINE];
    memcpy(mu, job.mu + at, n * sizeof(float));
    memcpy(lv, job.logvar + at, n * sizeof(float));
    int hard = 0, easy = 0;
    for (int64_t i = 0; i < LINE; i += DV_LANES) store(sigma + i, dv_exp(0.5f * load(lv + i)));
    for (int64_t i = 0; i < LINE; ++i) {
      a[i] = b[i] = c[i] = 0.0f;
      hard |= r * sigma[i] >= 1.0f;
      easy |= !(r * sigma[i] >= 1.0f);
    }
    for (int64_t node = 0; easy && node < job.hermite_n; ++node) {
      const float x = (float)job.hermite_x[node], w = (float)job.hermite_w[node];
      for (int64_t i = 0; i < LINE; i += DV_LANES) {
        const dv_f t = r * dv_fma(load(sigma + i), dv_k(x), load(mu + i)), e = dv_exp(-2.0f * dv_abs(t));
        const dv_f tanh = (1.0f - e) / (1.0f + e);
        store(a + i, dv_fma(dv_k(w), dv_abs(t) + dv_log(1.0f + e), load(a + i)));
        store(b + i, dv_fma(dv_k(w), t < 0.0f ? -tanh : tanh, load(b + i)));
        store(c + i, dv_fma(dv_k(w), 4.0f * e / ((1.0f + e) * (1.0f + e)), load(c + i)));
      }
    }
    for (int64_t i = 0; i < LINE; ++i) {
      cosh_[i] = a[i] - 0.693147181f;
      tanh_[i] = b[i];
      sech[i] = c[i];
      a[i] = b[i] = c[i] = 0.0f;
    }
    for (int64_t node = 0; hard && node < job.laguerre_n; ++node) {
      const double s = job.laguerre_x[node], v = job.laguerre_w[node], e = exp(-s);
      const float t = (float)(s / two_r), v1 = (float)(v * log1p(e)), v2 = (float)(v * 2.0 * e / (1.0 + e)),
                  v3 = (float)(v * 4.0 * e / ((1.0 + e) * (1.0 + e)));
      for (int64_t i = 0; i < LINE; i += DV_LANES) {
        const dv_f near = (t - load(mu + i)) / load(sigma + i), beyond = (t + load(mu + i)) / load(sigma + i);
        const dv_f above = dv_exp(-0.5f * near * near), below = dv_exp(-0.5f * beyond * beyond);
        store(a + i, dv_fma(dv_k(v1), above + below, load(a + i)));
        store(b + i, dv_fma(dv_k(v2), above - below, load(b + i)));
        store(c + i, dv_fma(dv_k(v3), above + below, load(c + i)));
      }
    }
    for (int64_t i = 0; i < LINE; i += DV_LANES) store(gap + i, dv_exp_minus_1_minus(load(lv + i)));
    for (int64_t i = 0; i < n; ++i) {
      if (r * sigma[i] >= 1.0f) {
        const float scale = 0.398942280f / (two_r * sigma[i]), u = mu[i] / sigma[i], erf = erff(u * 0.707106781f);
        const float mean_abs = 0.797884561f * sigma[i] * expf(-0.5f * u * u) + mu[i] * erf;  // E|z|
        cosh_[i] = scale * a[i] + (r * mean_abs - 0.693147181f);
        tanh_[i] = erf - scale * b[i];
        sech[i] = scale * c[i];
      }
      if (!job.g) {
        job.first[at + i] = 0.5f * (gap[i] + (mu[i] * mu[i] + r * r)) - cosh_[i];
      } else {
        job.first[at + i] = job.g[at + i] * (mu[i] - r * tanh_[i]);
        job.second[at + i] = job.g[at + i] * 0.5f * ((gap[i] + lv[i]) - r * sigma[i] * r * sigma[i] * sech[i]);
      }
    }
  }
}
