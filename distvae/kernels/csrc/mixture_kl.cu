// KL(N(mu, e^logvar) || 1/2 N(-r, 1) + 1/2 N(r, 1)) and its gradients (formulas and quadratures: kernels/mixture.py).
//
// Written with |mu| (the KL is even in mu) and as a difference that does not cancel where r |mu| is large:
//     KL = 1/2 (e^lv - 1 - lv) + 1/2 (|mu| - r)^2 + [r |mu| - E ln cosh(r z)]
// By Hermite nodes (r sigma < 1), t = r z, the bracket is
//     r |mu| - E ln cosh t            where r |mu| < 1, with ln cosh relatively accurate near 0, exact at r = 0
//     ln 2 - E ln(1 + e^(-2 t))       beyond: ln cosh t = t + ln(1 + e^(-2 t)) - ln 2
// and by Laguerre nodes ln 2 - r (2 sigma phi - |mu| erfc) - 1/(2 r) int ln(1 + e^-s) [q(s/2r) + q(-s/2r)] ds.
// d/dmu needs E tanh, near 1 as 1 - tanh. The nodes come from reference.py, as nodes.h.
#include "device.h"
#include "nodes.h"

#define THREADS 128

struct mixture_kl_args {
  const void *g, *mu, *logvar;  // [K, size]; no g forward
  const float* r;               // [K]
  void *first, *second;         // [K, size]: the KL, or the gradients of mu and logvar
  long long size, blocks;
};

DV_FN float log_cosh(float t) {
  float s = t * t, x = fabsf(t);
  float near = s * (0.5f + s * (-8.33333333e-2f + s * (2.22222222e-2f + s * (-6.74603175e-3f +
               s * (2.18694885e-3f + s * (-7.38609906e-4f + s * 2.56512e-4f))))));
  return x < 0.5f ? near : x + log1pf(expf(-2.0f * x)) - 0.693147181f;
}

// what is added to 1/2 (|mu| - r)^2 and to |mu| - r, and E sech^2
struct bracket {
  float kl, slope, sech2;
};

template <bool BACKWARD>
DV_FN bracket by_hermite(float mu, float sigma, float r) {
  bool near = r * mu < 1.0f;
  float kl = 0.0f, slope = 0.0f, sech2 = 0.0f;
#pragma unroll 2
  for (int i = 0; i < HERMITE; ++i) {
    float t = r * dv_fma(sigma, hermite_x[i], mu), w = hermite_w[i];
    if (BACKWARD) {
      float e = expf(-2.0f * fabsf(t)), one = 1.0f / (1.0f + e);
      slope = dv_fma(w, near ? tanhf(t) : (t > 0.0f ? 2.0f * e : 2.0f) * one, slope);
      sech2 = dv_fma(w, 4.0f * e * one * one, sech2);
    } else {
      float beyond = log1pf(expf(-2.0f * fabsf(t))) + (t < 0.0f ? -2.0f * t : 0.0f);
      kl = dv_fma(w, near ? log_cosh(t) : beyond, kl);
    }
  }
  bracket out = {near ? r * mu - kl : 0.693147181f - kl, near ? r - r * slope : r * slope, sech2};
  return out;
}

template <bool BACKWARD>
DV_FN bracket by_laguerre(float mu, float sigma, float r) {
  float step = 1.0f / (2.0f * r), narrow = 1.0f / sigma, a = mu * narrow;
  float scale = 0.398942280f * step * narrow;
  float far = erfcf(0.707106781f * a);
  float kl = 0.0f, slope = 0.0f, sech2 = 0.0f;
#pragma unroll 2
  for (int i = 0; i < LAGUERRE; ++i) {
    float at = laguerre_x[i] * step, high = (at - mu) * narrow, low = (at + mu) * narrow;
    float above = expf(-0.5f * high * high), below = expf(-0.5f * low * low);
    if (BACKWARD) {
      slope = dv_fma(above - below, laguerre_tanh[i], slope);
      sech2 = dv_fma(above + below, laguerre_sech2[i], sech2);
    } else {
      kl = dv_fma(above + below, laguerre_log[i], kl);
    }
  }
  float folded = 0.797884561f * sigma * expf(-0.5f * a * a) - mu * far;  // E|z| - |mu|
  bracket out = {0.693147181f - r * folded - scale * kl, r * (far + scale * slope), scale * sech2};
  return out;
}

template <class T, bool BACKWARD>
DV_FN void mixture_kl(const mixture_kl_args& p) {
  unsigned trial = blockIdx.x / (unsigned)p.blocks;
  long long id = (long long)(blockIdx.x - trial * (unsigned)p.blocks) * THREADS + threadIdx.x;
  if (id >= p.size) return;
  long long at = trial * p.size + id;
  float mu = dv_read(((const T*)p.mu)[at]), logvar = dv_read(((const T*)p.logvar)[at]), r = p.r[trial];
  float away = fabsf(mu), sigma = expf(0.5f * logvar), gap = dv_exp_minus_1_minus(logvar);
  bracket e = r * sigma < 1.0f ? by_hermite<BACKWARD>(away, sigma, r) : by_laguerre<BACKWARD>(away, sigma, r);
  float location = away - r;
  if (BACKWARD) {
    float g = dv_read(((const T*)p.g)[at]), slope = location + e.slope, rs = r * sigma;
    dv_write((T*)p.first + at, g * (mu < 0.0f ? -slope : slope));
    dv_write((T*)p.second + at, 0.5f * g * ((gap + logvar) - rs * rs * e.sech2));
  } else {
    dv_write((T*)p.first + at, 0.5f * dv_fma(location, location, gap) + e.kl);
  }
}

DV_KERNEL(mixture_kl_float32, mixture_kl_args, THREADS, 4) { mixture_kl<float, false>(p); }
DV_KERNEL(mixture_kl_bfloat16, mixture_kl_args, THREADS, 4) { mixture_kl<dv_bf16, false>(p); }
DV_KERNEL(mixture_kl_float16, mixture_kl_args, THREADS, 4) { mixture_kl<dv_f16, false>(p); }
DV_KERNEL(mixture_kl_backward_float32, mixture_kl_args, THREADS, 4) { mixture_kl<float, true>(p); }
DV_KERNEL(mixture_kl_backward_bfloat16, mixture_kl_args, THREADS, 4) { mixture_kl<dv_bf16, true>(p); }
DV_KERNEL(mixture_kl_backward_float16, mixture_kl_args, THREADS, 4) { mixture_kl<dv_f16, true>(p); }
