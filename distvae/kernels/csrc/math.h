// Elementary functions in float32, shared by host and device. Written once for two meanings of dv_f, dv_i, dv_u: one
// number (CUDA, and whoever includes this without DV_VECTOR), or a vector of them (cpu.cpp, once per instruction set,
// each time in a namespace of its own: hence no include guard). No branches; every multiply-add is written out
// (dv_fma), so an element has the same bits wherever in a vector it stands.
// Polynomials: our own minimax fits (Lawson's iteration in float64); the maximal relative error stands beside each.

#ifndef DV_VECTOR
typedef float dv_f;
typedef int dv_i;
typedef unsigned dv_u;
DV_FN dv_f dv_k(float x) { return x; }
DV_FN dv_f dv_at_least(dv_f low, dv_f x) { return x < low ? low : x; }    // NaN stays
DV_FN dv_f dv_at_most(dv_f high, dv_f x) { return x > high ? high : x; }  // NaN stays
DV_FN dv_f dv_from_int(dv_i x) { return (float)x; }
#endif

DV_FN dv_f dv_infinity() { return dv_as_float(dv_as_int(dv_k(0.0f)) + 0x7f800000); }

// c0 + c1 x + ... + c5 x^5. On vectors by pairs (Estrin): Horner's chain is longer than a CPU can look ahead. A GPU has
// other threads to run meanwhile, and would pay for the squares.
DV_FN dv_f dv_poly(dv_f x, float c0, float c1, float c2, float c3, float c4, float c5) {
#ifdef DV_VECTOR
  const dv_f xx = x * x, low = dv_fma(dv_k(c1), x, dv_k(c0)), middle = dv_fma(dv_k(c3), x, dv_k(c2));
  return dv_fma(dv_fma(dv_fma(dv_k(c5), x, dv_k(c4)), xx, middle), xx, low);
#else
  return dv_fma(dv_fma(dv_fma(dv_fma(dv_fma(c5, x, c4), x, c3), x, c2), x, c1), x, c0);
#endif
}

DV_FN dv_f dv_scale(dv_f p, dv_f shifted) {  // p 2^n, n in the low bits of `shifted`
  return dv_as_float(dv_as_int(p) + (dv_i)((dv_u)dv_as_int(shifted) << 23));
}

// 2^f for |f| <= 1/2: 7.5e-8 and rounding. Horner: sums over pairs are bound by throughput.
DV_FN dv_f dv_exp2_fraction(dv_f f) {
  dv_f p = dv_fma(dv_k(0.00132764725f), f, dv_k(0.00967554189f));
  p = dv_fma(p, f, dv_k(0.0555071309f));
  p = dv_fma(p, f, dv_k(0.240221202f));
  p = dv_fma(p, f, dv_k(0.693146944f));
  return dv_fma(p, f, dv_k(1.0f));
}

DV_FN dv_f dv_exp2(dv_f x) {  // x <= 127; x is at least taken to be -126, so nothing is denormal; NaN stays
  x = dv_at_least(dv_k(-126.0f), x);
  const dv_f shifted = x + dv_k(12582912.0f);  // 1.5 * 2^23: the integer nearest x, in the low bits
  return dv_scale(dv_exp2_fraction(x - (shifted - dv_k(12582912.0f))), shifted);
}

DV_FN dv_f dv_exp_reduced(dv_f x, dv_f n) {  // e^(x - n ln 2) of |x - n ln 2| <= (ln 2) / 2: 3.3e-9 and rounding
  dv_f f = dv_fma(n, dv_k(-0.693145752f), x);
  f = dv_fma(n, dv_k(-1.42860677e-6f), f);
  const dv_f ff = f * f, low = dv_fma(dv_k(0.166665152f), f, dv_k(0.49999994f));
  const dv_f high = dv_fma(dv_k(0.00138131448f), ff, dv_fma(dv_k(0.00836941879f), f, dv_k(0.041668456f)));
  return dv_fma(dv_fma(high, ff, low), ff, f) + dv_k(1.0f);
}

DV_FN dv_f dv_exp(dv_f x) {  // below -87.3 the smallest normal number, above 88.7 infinity
  const dv_f y = dv_at_most(dv_k(88.0f), dv_at_least(dv_k(-87.0f), x));
  const dv_f shifted = dv_fma(y, dv_k(1.44269504f), dv_k(12582912.0f));
  const dv_f p = dv_exp_reduced(y, shifted - dv_k(12582912.0f));
  return x > dv_k(88.7f) ? dv_infinity() : dv_scale(p, shifted);
}

DV_FN dv_f dv_exp_minus_1_minus_of(dv_f x, dv_f exp_x) {  // e^x - 1 - x, relatively accurate near 0
  const dv_f s = dv_at_most(dv_k(0.5f), dv_at_least(dv_k(-0.5f), x));
  const dv_f ss = s * s, high = dv_fma(dv_k(2.75573192e-6f), s, dv_k(2.48015873e-5f));
  const dv_f low = dv_poly(s, 0.5f, 1.66666667e-1f, 4.16666667e-2f, 8.33333333e-3f, 1.38888889e-3f, 1.98412698e-4f);
  const dv_f p = dv_fma(high, ss * ss * ss, low);
  return s == x ? p * s * s : (exp_x - dv_k(1.0f)) - x;
}

DV_FN dv_f dv_exp_minus_1_minus(dv_f x) { return dv_exp_minus_1_minus_of(x, dv_exp(x)); }

// x - ln(1 + x) for x in [sqrt(1/2) - 1, sqrt(2) - 1], relatively accurate: x^2/2 - x^3 P(x), 7.5e-10
DV_FN dv_f dv_minus_log1p(dv_f x) {
  const dv_f low = dv_poly(x, 0.333333135f, -0.250000089f, 0.200021192f, -0.166679859f, 0.14219521f, -0.124057524f);
  const dv_f high = dv_fma(dv_fma(dv_k(0.0674459189f), x, dv_k(-0.116748244f)), x, dv_k(0.118885905f));
  const dv_f xx = x * x, p = dv_fma(high, xx * xx * xx, low);
  return xx * dv_fma(-p, x, dv_k(0.5f));
}

struct dv_split {
  dv_f x;  // v = (1 + x) 2^e with 1 + x in [sqrt(1/2), sqrt(2))
  dv_f e;
};

DV_FN dv_split dv_decompose(dv_f v) {  // of a positive normal number
  const dv_i bits = dv_as_int(v) - 0x3f3504f3;
  dv_split out;
  out.x = dv_as_float((bits & 0x007fffff) + 0x3f3504f3) - dv_k(1.0f);
  out.e = dv_from_int(bits >> 23);
  return out;
}

DV_FN dv_f dv_log_of(dv_split s, dv_f minus_log1p) {
  const dv_f y = dv_fma(s.e, dv_k(1.42860677e-6f), s.x - minus_log1p);
  return dv_fma(s.e, dv_k(0.693145752f), y);
}

DV_FN dv_f dv_log(dv_f v) {  // of a positive normal number; NaN stays, infinity stays, anything else is -infinity
  const dv_split s = dv_decompose(v);
  dv_f y = dv_log_of(s, dv_minus_log1p(s.x));
  y = v > 3.4e38f ? v : y;
  y = v < 1.1754944e-38f ? -dv_infinity() : y;
  return v == v ? y : v;
}

// v - 1 - ln v >= 0 of a positive normal number, accurate near 1; infinity and NaN stay
DV_FN dv_f dv_v_minus_1_minus_log(dv_f v) {
  const dv_split s = dv_decompose(v);
  const dv_f near = dv_minus_log1p(s.x);
  return s.e == 0.0f ? near : (v - dv_k(1.0f)) - dv_log_of(s, near);
}

// --- noise: kernels/philox.py says what and why --------------------------------------------------------------------

struct dv_words {
  dv_u w[4];
};

#ifndef DV_VECTOR  // cpu_philox.h has the vectors
DV_FN dv_words dv_philox(unsigned k0, unsigned k1, dv_u a, dv_u b, dv_u c, dv_u d) {
  for (int round = 0; round < 10; ++round) {
    const unsigned long long p0 = 0xD2511F53ull * a, p1 = 0xCD9E8D57ull * c;
    a = (dv_u)(p1 >> 32) ^ b ^ k0;
    b = (dv_u)p1;
    c = (dv_u)(p0 >> 32) ^ d ^ k1;
    d = (dv_u)p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  const dv_words out = {{a, b, c, d}};
  return out;
}
#endif

// sqrt(-2 ln u) with u = (w + 1/2) / 2^32, relatively accurate at both ends: in the upper half it is ln(1 - q), q small
DV_FN dv_f dv_radius(dv_u w) {
  const dv_i upper = (dv_i)w >> 31;  // 0 or -1
  const dv_f q = (dv_from_int((dv_i)w ^ upper) + dv_k(0.5f)) * dv_k(2.3283064365386963e-10f);  // u, or 1 - u: at most 1/2
  dv_split s = dv_decompose(upper != 0 ? dv_k(1.0f) - q : q);
  const dv_f x = upper != 0 ? -q : s.x, e = upper != 0 ? dv_k(0.0f) : s.e;
  s.x = q <= dv_k(0.29289321f) ? x : s.x;
  s.e = q <= dv_k(0.29289321f) ? e : s.e;
  return dv_sqrt(dv_k(-2.0f) * dv_log_of(s, dv_minus_log1p(s.x)));
}

// cos and sin of 2 pi (w + 1/2) / 2^32: the quadrant from the top bits, exactly
DV_FN void dv_turn(dv_u w, dv_f* cosine, dv_f* sine) {
  const dv_u quadrant = (w + 0x20000000u) >> 30;
  const dv_f x = (dv_from_int((dv_i)(w - (quadrant << 30))) + dv_k(0.5f)) * dv_k(1.4629180792671596e-9f);  // [-pi/4, pi/4]
  const dv_f s = x * x;
  dv_f p = dv_fma(dv_k(-0.000195172979f), s, dv_k(0.008332178f));
  p = dv_fma(p, s, dv_k(-0.166666552f));
  const dv_f sin_x = dv_fma(p * s, x, x);
  dv_f q = dv_fma(dv_k(2.44384519e-5f), s, dv_k(-0.00138873677f));
  q = dv_fma(q, s, dv_k(0.0416666456f));
  const dv_f cos_x = dv_fma(q * s, s, dv_fma(dv_k(-0.5f), s, dv_k(1.0f)));
  const dv_f c = (quadrant & 1u) != 0u ? sin_x : cos_x;
  const dv_f t = (quadrant & 1u) != 0u ? cos_x : sin_x;
  *cosine = dv_as_float(dv_as_int(c) ^ (dv_i)(((quadrant + 1u) & 2u) << 30));
  *sine = dv_as_float(dv_as_int(t) ^ (dv_i)((quadrant & 2u) << 30));
}

// the two standard normals of a word pair (Box-Muller)
DV_FN void dv_normals(dv_u w0, dv_u w1, dv_f* first, dv_f* second) {
  const dv_f radius = dv_radius(w0);
  dv_f c, s;
  dv_turn(w1, &c, &s);
  *first = radius * c;
  *second = radius * s;
}
