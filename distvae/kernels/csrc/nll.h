// One pixel of bernoulli_nll and its slope (formulas: kernels/cross_entropy.py). Shared by host and device, like math.h.
// Which side is less likely is the sign bit of the logit.

// e^x of x <= 0: 7.5e-8, 1.3e-8 |x| (the rounding of log2 e) and rounding; e^-87 below; NaN stays. The coefficients are
// those of dv_exp2_fraction; here the chain's length counts.
DV_FN dv_f dv_exp_of_negative(dv_f x) {
  x = dv_at_least(dv_k(-87.0f), x);
  const dv_f shifted = dv_fma(x, dv_k(1.44269504f), dv_k(12582912.0f)), n = shifted - dv_k(12582912.0f);
  const dv_f f = dv_fma(x, dv_k(1.44269504f), -n);
  return dv_scale(dv_poly(f, 1.0f, 0.693146944f, 0.240221202f, 0.0555071309f, 0.00967554189f, 0.00132764725f), shifted);
}

// ln(1 + e) of e in [0, 1], relatively accurate: e P(e), 3.7e-8 and rounding; by threes, a chain short enough for a CPU
DV_FN dv_f dv_log1p_of_unit(dv_f e) {
  const dv_f ee = e * e, eee = ee * e;
  const dv_f low = dv_fma(dv_k(0.33321324f), ee, dv_fma(dv_k(-0.499996483f), e, dv_k(1.0f)));
  const dv_f middle = dv_fma(dv_k(-0.137538031f), ee, dv_fma(dv_k(0.191536546f), e, dv_k(-0.248571634f)));
  const dv_f high = dv_fma(dv_k(0.00536482502f), ee, dv_fma(dv_k(-0.0300657954f), e, dv_k(0.079204537f)));
  return e * dv_fma(dv_fma(high, eee, middle), eee, low);
}

// |y| h + ln(1 + e^-|y|), h the target's share of the less likely side: no term is negative, so nothing cancels
DV_FN dv_f dv_bernoulli_nll(dv_f y, dv_f x) {
  const dv_f away = dv_abs(y), h = dv_as_int(y) < 0 ? x : dv_k(1.0f) - x;
  return dv_fma(away, h, dv_log1p_of_unit(dv_exp_of_negative(-away)));
}

// sigmoid(y) - x = +-(h - e^-|y| / (1 + e^-|y|)), accurate where sigmoid(y) rounds to 1
DV_FN dv_f dv_bernoulli_slope(dv_f y, dv_f x) {
  const dv_f h = dv_as_int(y) < 0 ? x : dv_k(1.0f) - x, e = dv_exp_of_negative(-dv_abs(y));
  const dv_f slope = h - e / (dv_k(1.0f) + e);
  return dv_as_float(dv_as_int(slope) ^ (dv_i)((dv_u)dv_as_int(y) & 0x80000000u));
}
