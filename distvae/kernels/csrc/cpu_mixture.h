// KL(q || 1/2 N(-r, 1) + 1/2 N(r, 1)) and its gradients (formulas and quadratures: kernels/mixture.py), LINE elements
// at a time; every node is one vector loop. Written with |mu| (the KL is even in mu) so that nothing cancels where
// r |mu| is large:
//     KL = 1/2 [e^lv - 1 - lv + (|mu| - r)^2] + [r |mu| - E ln cosh(r z)],    d/d|mu| = |mu| - r + r (1 - E tanh(r z))
// By Hermite nodes (r sigma < 1), t = r z, the bracket is r |mu| - E ln cosh t while r |mu| < 1, and beyond
// ln 2 - E[ln(1 + e^-2|t|) + 2 max(-t, 0)]; by Laguerre nodes ln 2 - r (E|z| - |mu|) - 1/(2r) int ln(1 + e^-s) [...] ds.

struct MixtureLine {
  float mu[LINE], lv[LINE], sigma[LINE], kl[LINE], slope[LINE], sech2[LINE];  // slope: 1 - E tanh, or E tanh while r |mu| < 1
};

DV_FN dv_f log_cosh(dv_f t, dv_f log1p) {  // relatively accurate near 0, exactly 0 there
  const dv_f s = t * t;
  dv_f p = dv_fma(dv_k(2.56512e-4f), s, dv_k(-7.38609906e-4f));
  p = dv_fma(p, s, dv_k(2.18694885e-3f));
  p = dv_fma(p, s, dv_k(-6.74603175e-3f));
  p = dv_fma(p, s, dv_k(2.22222222e-2f));
  p = dv_fma(p, s, dv_k(-8.33333333e-2f));
  p = dv_fma(p, s, dv_k(0.5f));
  return dv_abs(t) < 0.5f ? p * s : dv_abs(t) + log1p - 0.693147181f;
}

DV_FN void by_hermite(const MixtureJob& job, float r, MixtureLine& line) {
  for (int64_t node = 0; node < job.hermite_n; ++node) {
    const float x = (float)job.hermite_x[node];
    const dv_f w = dv_k((float)job.hermite_w[node]);
    for (int64_t i = 0; i < LINE; i += DV_LANES) {
      const dv_f mu = load(line.mu + i), t = r * dv_fma(load(line.sigma + i), dv_k(x), mu);
      const dv_f e = dv_exp(-2.0f * dv_abs(t)), one = 1.0f / (1.0f + e), log1p = dv_log(1.0f + e);
      const dv_f beyond = log1p + (t < 0.0f ? -2.0f * t : dv_k(0.0f));
      store(line.kl + i, dv_fma(w, r * mu < 1.0f ? log_cosh(t, log1p) : beyond, load(line.kl + i)));
      const dv_f tanh = (1.0f - e) * one, less = (t > 0.0f ? 2.0f * e : dv_k(2.0f)) * one;  // 1 - tanh
      store(line.slope + i, dv_fma(w, r * mu < 1.0f ? (t > 0.0f ? tanh : -tanh) : less, load(line.slope + i)));
      store(line.sech2 + i, dv_fma(w, 4.0f * e * one * one, load(line.sech2 + i)));
    }
  }
}

DV_FN void by_laguerre(const MixtureJob& job, float r, MixtureLine& line) {
  for (int64_t node = 0; node < job.laguerre_n; ++node) {
    const double s = job.laguerre_x[node], v = job.laguerre_w[node], e = exp(-s);
    const float at = (float)(s / (2.0 * r));
    const dv_f v1 = dv_k((float)(v * log1p(e))), v2 = dv_k((float)(v * 2.0 * e / (1.0 + e)));
    const dv_f v3 = dv_k((float)(v * 4.0 * e / ((1.0 + e) * (1.0 + e))));
    for (int64_t i = 0; i < LINE; i += DV_LANES) {
      const dv_f mu = load(line.mu + i), sigma = load(line.sigma + i);
      const dv_f near = (at - mu) / sigma, far = (at + mu) / sigma;
      const dv_f above = dv_exp(-0.5f * near * near), below = dv_exp(-0.5f * far * far);
      store(line.kl + i, dv_fma(v1, above + below, load(line.kl + i)));
      store(line.slope + i, dv_fma(v2, above - below, load(line.slope + i)));
      store(line.sech2 + i, dv_fma(v3, above + below, load(line.sech2 + i)));
    }
  }
}

static void mixture_task(const MixtureJob& job, int64_t task) {
  const int64_t pieces = ceil_div(job.size, 4096), k = task / pieces, first = (task % pieces) * 4096;
  const int64_t last = smaller(job.size, first + 4096);
  const float r = job.r[k], ln2 = 0.693147181f;
  for (int64_t start = first; start < last; start += LINE) {
    const int64_t at = k * job.size + start, n = smaller(LINE, last - start);
    MixtureLine easy = {}, hard = {};
    float gap[LINE];
    int any[2] = {0, 0};
    for (int64_t i = 0; i < n; ++i) {
      easy.mu[i] = __builtin_fabsf(job.mu[at + i]);
      easy.lv[i] = job.logvar[at + i];
    }
    for (int64_t i = 0; i < LINE; i += DV_LANES) {
      store(easy.sigma + i, dv_exp(0.5f * load(easy.lv + i)));
      store(gap + i, dv_exp_minus_1_minus(load(easy.lv + i)));
    }
    for (int64_t i = 0; i < n; ++i) ++any[r * easy.sigma[i] >= 1.0f];
    if (any[1]) {
      hard = easy;
      by_laguerre(job, r, hard);
    }
    if (any[0]) by_hermite(job, r, easy);
    for (int64_t i = 0; i < n; ++i) {
      const float mu = easy.mu[i], sigma = easy.sigma[i], away = mu - r;
      bool near = r * mu < 1.0f;
      float bracket = near ? r * mu - easy.kl[i] : ln2 - easy.kl[i];
      float slope = easy.slope[i], sech2 = easy.sech2[i];
      if (r * sigma >= 1.0f) {
        const float scale = 0.398942280f / (2.0f * r * sigma), a = mu / sigma, tail = erfcf(a * 0.707106781f);
        const float folded = 0.797884561f * sigma * expf(-0.5f * a * a) - mu * tail;  // E|z| - |mu|
        bracket = ln2 - r * folded - scale * hard.kl[i];
        slope = tail + scale * hard.slope[i];
        sech2 = scale * hard.sech2[i];
        near = false;
      }
      if (!job.g) {
        job.first[at + i] = 0.5f * (gap[i] + away * away) + bracket;
      } else {
        const float up = job.g[at + i], dmu = near ? mu - r * slope : away + r * slope, scaled = r * sigma;
        job.first[at + i] = up * (job.mu[at + i] >= 0.0f ? dmu : -dmu);
        job.second[at + i] = up * 0.5f * (gap[i] + easy.lv[i] - scaled * scaled * sech2);
      }
    }
  }
}
