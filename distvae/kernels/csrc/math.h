// Elementary functions in float32, shared by host and device, without branches so that loops over them vectorise.
// Every multiply-add is written out (dv_fma), so the same input gives the same bits in a vector or in its remainder.
// Polynomials: our own minimax fits (Lawson's iteration in float64); the maximal relative error stands beside each.
// No include guard: cpu.cpp includes this file once per instruction set, in a namespace of its own.

DV_FN float dv_exp2(float x) {  // 7.5e-8 and rounding; x is clamped to [-126, 127], so nothing is denormal; NaN stays
  x = x < -126.0f ? -126.0f : x;
  x = x > 127.0f ? 127.0f : x;
  float shifted = x + 12582912.0f;  // 1.5 * 2^23: the integer nearest x, in the low bits
  float f = x - (shifted - 12582912.0f);
  float p = dv_fma(0.00132764725f, f, 0.00967554189f);
  p = dv_fma(p, f, 0.0555071309f);
  p = dv_fma(p, f, 0.240221202f);
  p = dv_fma(p, f, 0.693146944f);
  p = dv_fma(p, f, 1.0f);
  return dv_as_float(dv_as_int(p) + (int)((unsigned)dv_as_int(shifted) << 23));
}

DV_FN float dv_exp(float x) {  // 3.3e-9 and rounding; below -87.3 the smallest normal number, above 88.7 infinity
  float y = x < -87.0f ? -87.0f : x;
  y = y > 88.0f ? 88.0f : y;
  float shifted = dv_fma(y, 1.44269504f, 12582912.0f);
  float n = shifted - 12582912.0f;
  float f = dv_fma(n, -0.693145752f, y);
  f = dv_fma(n, -1.42860677e-6f, f);
  float p = dv_fma(0.00138131448f, f, 0.00836941879f);
  p = dv_fma(p, f, 0.041668456f);
  p = dv_fma(p, f, 0.166665152f);
  p = dv_fma(p, f, 0.49999994f);
  p = dv_fma(p * f, f, f) + 1.0f;
  float e = dv_as_float(dv_as_int(p) + (int)((unsigned)dv_as_int(shifted) << 23));
  return x > 88.7f ? dv_as_float(0x7f800000) : e;
}

DV_FN float dv_exp_minus_1_minus(float x) {  // e^x - 1 - x, relatively accurate near 0
  float s = x < -0.5f ? 0.0f : x;
  s = s > 0.5f ? 0.0f : s;
  float p = dv_fma(2.75573192e-6f, s, 2.48015873e-5f);
  p = dv_fma(p, s, 1.98412698e-4f);
  p = dv_fma(p, s, 1.38888889e-3f);
  p = dv_fma(p, s, 8.33333333e-3f);
  p = dv_fma(p, s, 4.16666667e-2f);
  p = dv_fma(p, s, 1.66666667e-1f);
  p = dv_fma(p, s, 0.5f);
  float far = (dv_exp(x) - 1.0f) - x;
  return s == x ? p * s * s : far;
}

// x - ln(1 + x) for x in [sqrt(1/2) - 1, sqrt(2) - 1], relatively accurate: x^2/2 - x^3 P(x), 7.5e-10
DV_FN float dv_minus_log1p(float x) {
  float p = dv_fma(0.0674459189f, x, -0.116748244f);
  p = dv_fma(p, x, 0.118885905f);
  p = dv_fma(p, x, -0.124057524f);
  p = dv_fma(p, x, 0.14219521f);
  p = dv_fma(p, x, -0.166679859f);
  p = dv_fma(p, x, 0.200021192f);
  p = dv_fma(p, x, -0.250000089f);
  p = dv_fma(p, x, 0.333333135f);
  return x * x * dv_fma(-p, x, 0.5f);
}

struct dv_split {
  float x;  // v = (1 + x) 2^e with 1 + x in [sqrt(1/2), sqrt(2))
  float e;
};

DV_FN dv_split dv_decompose(float v) {  // of a positive normal number
  int bits = dv_as_int(v) - 0x3f3504f3;
  int e = bits >> 23;
  dv_split out;
  out.x = dv_as_float((bits & 0x007fffff) + 0x3f3504f3) - 1.0f;
  out.e = (float)e;
  return out;
}

DV_FN float dv_log(float v) {  // of a positive normal number; NaN stays, infinity stays, anything else is -infinity
  dv_split s = dv_decompose(v);
  float y = dv_fma(s.e, 1.42860677e-6f, s.x - dv_minus_log1p(s.x));
  y = dv_fma(s.e, 0.693145752f, y);
  y = v > 3.4e38f ? v : y;
  y = v < 1.1754944e-38f ? dv_as_float((int)0xff800000) : y;
  return v == v ? y : v;
}

DV_FN float dv_v_minus_1_minus_log(float v) {  // v - 1 - ln v >= 0 of a positive normal number, accurate near 1
  dv_split s = dv_decompose(v);
  float near = dv_minus_log1p(s.x);
  float far = (v - 1.0f) - dv_log(v);
  return s.e == 0.0f && v == v ? near : far;
}

// --- noise: kernels/philox.py says what and why --------------------------------------------------------------------

struct dv_words {
  unsigned w[4];
};

DV_FN dv_words dv_philox(unsigned k0, unsigned k1, unsigned a, unsigned b, unsigned c, unsigned d) {
  for (int round = 0; round < 10; ++round) {
    unsigned long long p0 = (unsigned long long)0xD2511F53u * a, p1 = (unsigned long long)0xCD9E8D57u * c;
    unsigned h0 = (unsigned)(p0 >> 32), h1 = (unsigned)(p1 >> 32);
    a = h1 ^ b ^ k0;
    b = (unsigned)p1;
    c = h0 ^ d ^ k1;
    d = (unsigned)p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  dv_words out = {{a, b, c, d}};
  return out;
}

// sqrt(-2 ln u) with u = (w + 1/2) / 2^32, relatively accurate at both ends: near u = 1 it is ln(1 - v), v small
DV_FN float dv_radius(unsigned w) {
  int upper = (int)w < 0;
  float low = (dv_to_float(w) + 0.5f) * 2.3283064365386963e-10f;    // u
  float high = (dv_to_float(~w) + 0.5f) * 2.3283064365386963e-10f;  // v = 1 - u
  int tiny = high <= 0.29289321f;
  dv_split s = dv_decompose(upper ? 1.0f - high : low);
  float x = upper && tiny ? -high : s.x;
  float e = upper && tiny ? 0.0f : s.e;
  float y = dv_fma(e, 1.42860677e-6f, x - dv_minus_log1p(x));
  y = dv_fma(e, 0.693145752f, y);
  return dv_sqrt(-2.0f * y);
}

// cos and sin of 2 pi (w + 1/2) / 2^32: the quadrant from the top bits, exactly
DV_FN void dv_turn(unsigned w, float* cosine, float* sine) {
  unsigned quadrant = (w + 0x20000000u) >> 30;
  float x = ((float)(int)(w - (quadrant << 30)) + 0.5f) * 1.4629180792671596e-9f;  // [-pi/4, pi/4]
  float s = x * x;
  float p = dv_fma(-0.000195172979f, s, 0.008332178f);
  p = dv_fma(p, s, -0.166666552f);
  float sin_x = dv_fma(p * s, x, x);
  float q = dv_fma(2.44384519e-5f, s, -0.00138873677f);
  q = dv_fma(q, s, 0.0416666456f);
  float cos_x = dv_fma(q * s, s, dv_fma(-0.5f, s, 1.0f));
  float c = quadrant & 1u ? sin_x : cos_x;
  float t = quadrant & 1u ? cos_x : sin_x;
  *cosine = dv_as_float(dv_as_int(c) ^ (int)(((quadrant + 1u) & 2u) << 30));
  *sine = dv_as_float(dv_as_int(t) ^ (int)((quadrant & 2u) << 30));
}

// the two standard normals of a word pair (Box-Muller)
DV_FN void dv_normals(unsigned w0, unsigned w1, float* first, float* second) {
  float radius = dv_radius(w0), c, s;
  dv_turn(w1, &c, &s);
  *first = radius * c;
  *second = radius * s;
}
