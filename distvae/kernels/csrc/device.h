// What every .cu file stands on: the host-and-device mathematics of math.h, half types and block reductions.
// No includes but ours: NVRTC has no standard headers. tests/kernels/emulate defines DV_EMULATE and its own shims, so
// that g++ compiles the same kernels, run there one block after the other, one fiber a thread.
//
// A kernel takes one struct whose fields are 8 bytes each (pointers, long long, double): the same bytes for the
// driver's launch and for the emulator. Grids are one-dimensional; a kernel takes its block number apart itself.
#pragma once

#ifndef DV_EMULATE
#define DV_FN static __device__ __forceinline__
#define DV_KERNEL(name, args, threads, blocks) \
  extern "C" __global__ void __launch_bounds__(threads, blocks) name(const args p)
#define dv_fma(a, b, c) __fmaf_rn(a, b, c)
#define dv_as_float(x) __int_as_float(x)
#define dv_as_int(x) __float_as_int(x)
#define dv_abs(x) fabsf(x)
#define dv_to_float(w) __uint2float_rn(w)
#define DV_INFINITY __longlong_as_double(0x7ff0000000000000LL)

// 2^x in one MUFU.EX2: 2 ulp, denormal results are 0
DV_FN float dv_ex2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// One step of Newton's from MUFU.RSQ, correctly rounded nearly everywhere: __fsqrt_rn branches to a call. Denormals
// count as 0.
DV_FN float dv_sqrt(float x) {
  float y;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  float s = x * y;
  s = __fmaf_rn(__fmaf_rn(-s, s, x), 0.5f * y, s);
  s = x > 3.4e38f ? x : s;
  return x < 1.17549435e-38f && x >= 0.0f ? 0.0f : s;
}

DV_FN float dv_from_f16(unsigned short bits) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
}

DV_FN unsigned short dv_to_f16(float x) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}
#endif

#include "math.h"

// --- storage types: read as float32, written rounded to nearest even ------------------------------------------------

struct dv_bf16 {
  unsigned short bits;
};
struct dv_f16 {
  unsigned short bits;
};

DV_FN float dv_read(float x) { return x; }
DV_FN float dv_read(dv_bf16 x) { return dv_as_float((int)((unsigned)x.bits << 16)); }
DV_FN float dv_read(dv_f16 x) { return dv_from_f16(x.bits); }

DV_FN void dv_write(float* to, float x) { *to = x; }
DV_FN void dv_write(dv_f16* to, float x) { to->bits = dv_to_f16(x); }
DV_FN void dv_write(dv_bf16* to, float x) {
  unsigned u = (unsigned)dv_as_int(x);
  to->bits = (unsigned short)(x == x ? (u + 0x7fffu + ((u >> 16) & 1u)) >> 16 : 0x7fc0u);
}

template <class T>
struct alignas(4 * sizeof(T)) dv_four {  // one 16-byte (or 8-byte) access
  T at[4];
};

#ifdef DV_EMULATE
template <class T>
DV_FN void dv_store(dv_four<T>* to, const dv_four<T>& x) { *to = x; }
#else  // __stcg because a plain store is split where the other branch stores the same values one by one
DV_FN void dv_store(dv_four<float>* to, const dv_four<float>& x) {
  __stcg((float4*)to, make_float4(x.at[0], x.at[1], x.at[2], x.at[3]));
}
template <class T>
DV_FN void dv_store(dv_four<T>* to, const dv_four<T>& x) {
  unsigned low = x.at[0].bits | (unsigned)x.at[1].bits << 16, high = x.at[2].bits | (unsigned)x.at[3].bits << 16;
  __stcg((uint2*)to, make_uint2(low, high));
}
#endif

// --- constants ------------------------------------------------------------------------------------------------------

#define DV_LOG2E 1.4426950408889634
#define DV_LN2 0.6931471805599453
#define DV_LN_2PI 1.8378770664093453

// --- log-sum-exp in float64, where float32 would underflow ----------------------------------------------------------

struct dv_lse {
  double top, sum;  // ln sum exp = top + ln(sum)
};

DV_FN void dv_add(dv_lse& to, double l) {  // a NaN stays in the sum
  if (l > to.top) {
    to.sum = to.sum * exp(to.top - l) + 1.0;
    to.top = l;
  } else if (l != -DV_INFINITY) {
    to.sum += exp(l - to.top);
  }
}

DV_FN dv_lse dv_merge(dv_lse a, dv_lse b) {
  dv_lse high = b.top > a.top ? b : a, low = b.top > a.top ? a : b;
  high.sum += low.top == -DV_INFINITY ? low.sum : low.sum * exp(low.top - high.top);
  return high;
}

// ln N(z; mu, e^logvar)
DV_FN double dv_log_normal(double z, double mu, double logvar) {
  double t = z - mu;
  return -0.5 * (t * t * exp(-logvar) + logvar + DV_LN_2PI);
}

// --- log-weights: pair (i, j) has `own` where j = i + offset and `next` where j = i + offset + 1 mod m --------------
// Where there are weights, 0 <= offset and offset + n <= m: every row has a component of its own. A pair's weight is
// asked for by its place in a thread's run of rows or components: own_at and next_at are the places of the two.

template <class I, class T>
DV_FN T dv_weight(I at, I own_at, I next_at, T own, T next) {
  return (at == own_at ? own : (T)0) + (at == next_at ? next : (T)0);
}

// the component `next` of row i
DV_FN long long dv_next(long long i, long long m, long long offset) { return i + offset + 1 == m ? 0 : i + offset + 1; }

// does a tile of rows [i0, i0 + rows) and components [j0, j0 + columns) hold a weighted pair?
DV_FN bool dv_weighted(long long i0, long long rows, long long j0, long long columns, long long m, long long offset,
                       double own, double next) {
  long long first = i0 + offset, last = first + rows - 1;  // own components
  if (own != 0.0 && first < j0 + columns && j0 <= last) return true;
  return next != 0.0 && ((first + 1 < j0 + columns && j0 <= last + 1) || (j0 == 0 && last + 1 >= m));
}
