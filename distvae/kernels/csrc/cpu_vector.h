// Vectors of DV_LANES floats, ints and words: what math.h is written in here.

typedef float dv_f __attribute__((vector_size(4 * DV_LANES)));
typedef int dv_i __attribute__((vector_size(4 * DV_LANES)));
typedef unsigned dv_u __attribute__((vector_size(4 * DV_LANES)));
typedef unsigned long long dv_l __attribute__((vector_size(4 * DV_LANES)));

DV_FN dv_f dv_k(float x) { return x - (dv_f){}; }
DV_FN dv_f dv_as_float(dv_i x) { return (dv_f)x; }
DV_FN dv_i dv_as_int(dv_f x) { return (dv_i)x; }
DV_FN dv_f dv_abs(dv_f x) { return (dv_f)((dv_i)x & 0x7fffffff); }
DV_FN dv_f dv_from_int(dv_i x) { return __builtin_convertvector(x, dv_f); }
DV_FN dv_f load(const float* at) {
  dv_f x;
  __builtin_memcpy(&x, at, sizeof x);
  return x;
}

DV_FN dv_f load(const float* at, int64_t n) {  // the first n, the others 0
  dv_f x = {};
  for (int64_t l = 0; l < n; ++l) x[l] = at[l];
  return x;
}

DV_FN dv_u load(const unsigned* at) {
  dv_u x;
  __builtin_memcpy(&x, at, sizeof x);
  return x;
}

DV_FN void store(float* at, dv_f x) { __builtin_memcpy(at, &x, sizeof x); }

DV_FN void store(float* at, dv_f x, int64_t n) {
  for (int64_t l = 0; l < n; ++l) at[l] = x[l];
}

DV_FN float sum(dv_f x) {  // in a fixed order
  float lane[DV_LANES];
  store(lane, x);
  for (int n = DV_LANES / 2; n; n /= 2)
    for (int l = 0; l < n; ++l) lane[l] += lane[l + n];
  return lane[0];
}
