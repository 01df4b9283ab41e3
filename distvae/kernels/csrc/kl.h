// One element of sample_kl, forward and backward (formulas: kernels/sampling.py). Shared by host and device, like
// math.h. `plain` is the common case of no dropout and no floor, known for a whole trial.

struct dv_sampled {
  dv_f z, kl;
};

DV_FN dv_sampled dv_sample_kl(dv_f mu, dv_f logvar, dv_f eps, dv_f g, float r, float floor, bool plain) {
  const dv_f e = dv_exp(logvar), location = dv_abs(mu) - r;
  dv_f var = e, gap;
  if (plain) {
    gap = dv_exp_minus_1_minus_of(logvar, e);
  } else {
    var = dv_fma(g, e, dv_k(floor));
    gap = dv_v_minus_1_minus_log(var);
    if (floor == 0.0f) gap = var < 1.1754944e-38f ? dv_infinity() : gap;  // dropped and no floor: no KL
  }
  dv_sampled out;
  out.z = dv_fma(dv_sqrt(var), eps, mu);
  out.kl = dv_k(0.5f) * dv_fma(location, location, gap);
  return out;
}

struct dv_gradient {
  dv_f mu, logvar;
};

DV_FN dv_gradient dv_sample_kl_backward(
    dv_f gz, dv_f gkl, dv_f mu, dv_f logvar, dv_f eps, dv_f g, float r, float floor, bool plain) {
  const dv_f e = dv_exp(logvar);
  dv_f dropped = e, slope, share;  // slope: dropped (1 - 1/var), share: dropped / sqrt(var)
  if (plain) {
    slope = dv_exp_minus_1_minus_of(logvar, e) + logvar;
    share = dv_sqrt(e);
  } else {
    dropped = g * e;
    const dv_f var = dropped + floor, inverse = dv_k(1.0f) / dv_sqrt(var);
    share = dropped * inverse;
    slope = share * (var - dv_k(1.0f)) * inverse;
  }
  const dv_f half = dv_k(0.5f) * dv_fma(gkl, slope, gz * eps * share);
  dv_gradient out;
  out.mu = dv_fma(gkl, mu >= 0.0f ? mu - r : mu + r, gz);
  out.logvar = dropped == 0.0f ? dv_k(0.0f) : half;
  return out;
}
