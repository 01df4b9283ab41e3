// One element of sample_kl, forward and backward (formulas: kernels/sampling.py). Shared by host and device.

struct dv_sampled {
  float z, kl;
};

DV_FN dv_sampled dv_sample_kl(float mu, float logvar, float eps, float g, float r, float floor) {
  float var = dv_fma(g, dv_exp(logvar), floor);
  int plain = g == 1.0f && floor == 0.0f;
  float gap = plain ? dv_exp_minus_1_minus(logvar) : dv_v_minus_1_minus_log(var);
  float location = dv_abs(mu) - r;
  dv_sampled out;
  out.z = dv_fma(dv_sqrt(var), eps, mu);
  out.kl = 0.5f * dv_fma(location, location, gap);
  return out;
}

struct dv_gradient {
  float mu, logvar;
};

DV_FN dv_gradient dv_sample_kl_backward(
    float gz, float gkl, float mu, float logvar, float eps, float g, float r, float floor) {
  float dropped = g * dv_exp(logvar), var = dropped + floor;
  int plain = g == 1.0f && floor == 0.0f;
  // 1/2 dropped (1 - 1/var): expm1(logvar) / 2 where plain, accurate near 0
  float slope = plain ? dv_exp_minus_1_minus(logvar) + logvar : dropped * (var - 1.0f) / var;
  float noise = gz * eps * (dropped / dv_sqrt(var));
  float away = mu >= 0.0f ? mu - r : mu + r;
  dv_gradient out;
  out.mu = dv_fma(gkl, away, gz);
  out.logvar = dropped == 0.0f ? 0.0f : 0.5f * dv_fma(gkl, slope, noise);
  return out;
}
