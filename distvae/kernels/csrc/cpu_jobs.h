// What a kernel call is: sizes and pointers (the structs that kernels/cpu.py fills), and how it is cut into tasks.

static const int64_t ROWS = 64;     // rows a task of the densities takes
static const int64_t TILE = 64;     // components of the joint density held at a time
static const int64_t STRIP = 256;   // components of a marginal held at a time
static const int64_t SAMPLES = 512;  // elements of sample_kl that share a buffer of noise
static const int64_t LINE = 64;     // elements of mixture_kl at a time
static const int64_t NLL_RUN = 32;  // vectors of bernoulli_nll that are summed in float32

// No std templates in code that is compiled per instruction set: an instantiation is shared by all of them, and one
// made for AVX-512 would then run everywhere.
static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

struct Scratch {  // aligned memory of one task
  char* at;
  explicit Scratch(int64_t bytes, bool zero = true) {
    const size_t size = ((size_t)bytes + 127) / 64 * 64;
    at = (char*)aligned_alloc(64, size);
    if (!at) throw std::bad_alloc();
    if (zero) memset(at, 0, size);
  }
  ~Scratch() { free(at); }
  Scratch(const Scratch&) = delete;
  float* floats() const { return (float*)at; }
  double* doubles() const { return (double*)at; }
  unsigned* words() const { return (unsigned*)at; }
};

static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct SampleJob {  // mu, logvar, z, kl, gz, gkl, dmu, dlogvar [K, B, D]; seed .. floor [K]; mask [K, D] or null
  int64_t k, b, d;
  int64_t index_stride;  // 0: index [B]; B: index [K, B]
  const float *mu, *logvar;
  const int64_t *seed, *step, *index;
  const float *r, *p_keep, *floor;
  const uint8_t* mask;
  uint32_t stream, sample;
  float *first, *second;   // z and kl, or d mu and d logvar
  const float *gz, *gkl;   // null: forward
  int64_t rows() const { return std::max<int64_t>(1, SAMPLES / (4 * ceil_div(std::max<int64_t>(d, 1), 4))); }
  int64_t chunks() const { return ceil_div(b, rows()); }
  int64_t group() const { return std::max<int64_t>(1, ceil_div(16384, rows() * std::max<int64_t>(d, 1))); }
  int64_t tasks() const { return d ? k * ceil_div(chunks(), group()) : 0; }
};

enum { NORMALS = 0, UNIFORMS = 1, BERNOULLI = 2 };

struct NoiseJob {  // out [K, B, samples, dim]: float32 normals, float64 uniforms, or float32 draws of p; seed, step [K]
  int64_t k, b, samples, dim;
  int64_t index_stride, p_stride;  // 0: index [B], p [B, dim]; B: index [K, B], p [K, B, dim]
  const int64_t *seed, *step, *index;
  const float* p;
  void* out;
  uint32_t stream, kind;
  int64_t rows() const { return std::max<int64_t>(1, SAMPLES / (4 * ceil_div(std::max<int64_t>(dim, 1), 4))); }
  int64_t chunks() const { return ceil_div(b, rows()); }
  int64_t group() const { return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, rows() * dim * samples)); }
  int64_t tasks() const { return dim && samples ? k * ceil_div(chunks(), group()) : 0; }
};

struct NllJob {  // y [K, B, S, P], x [B, P] or [K, B, P], g [K, B, S]; out [K, B, S], or dy like y
  int64_t k, b, s, p;
  int64_t x_stride;  // 0: x [B, P]; B: x [K, B, P]
  const float *y, *x, *g;  // no g: forward
  float* out;
  int64_t rows() const { return k * b * s; }
  int64_t group() const { return std::max<int64_t>(1, 16384 / std::max<int64_t>(p, 1)); }
  int64_t tasks() const { return ceil_div(rows(), group()); }
};

struct MixtureJob {  // mu, logvar [K, size], r [K]; out kl, or d mu and d logvar
  int64_t k, size;
  const float *mu, *logvar, *r;
  float *first, *second;
  const float* g;  // null: forward
  const double *hermite_x, *hermite_w, *laguerre_x, *laguerre_w;
  int64_t hermite_n, laguerre_n;
  int64_t tasks() const { return k * ceil_div(size, 4096); }
};

struct DensityArgs {  // z, dz [K, N, D]; mu, logvar, dmu, dlogvar [K, M, D]; out, lse, g [K, N] or [K, N, D]
  int64_t k, n, m, d;
  const float *z, *mu, *logvar;
  double base, own, next;
  int64_t offset;
  int64_t joint;
  float* out;
  double* lse;
  const float* g;  // null: forward
  float *dz, *dmu, *dlogvar;
};

struct Isa;

// Columns are padded to a multiple of TILE and kept transposed: for the marginals [K, D, width], for the joint density
// in tiles [K, width / TILE, D, TILE] (rows of `width` floats would all fall into the same cache sets). Exponents are in base 2:
//   a = sqrt(log2(e) / 2) exp(-logvar / 2),   c = -logvar log2(e) / 2,   log2 q(z_d) = c - (a (z - mu))^2 + const
struct DensityJob : DensityArgs {
  int64_t width;                     // padded M
  std::vector<float> mu_t, a_t, c_t;  // c is relative to `bound`
  std::vector<double> bound;         // [K, D]: the largest c of a column, plus the largest log-weight
  std::vector<double> c_sum;         // joint: [K, width], sum of c over dimensions
  int64_t splits, split;             // marginal backward: parts of the components of a dimension, and their size
  std::vector<double> dz_part;       // [splits, K, D, N]
  std::vector<uint8_t> far;          // joint backward: [K, N], rows computed in float64
  double own2, next2;                // log-weights in base 2
  bool weighted, excluded;

  explicit DensityJob(const DensityArgs& args) : DensityArgs(args) {
    width = std::max<int64_t>(ceil_div(m, TILE) * TILE, TILE);
    mu_t.resize(k * d * width);
    a_t.resize(k * d * width);
    if (joint) c_sum.resize(k * width);
    else c_t.resize(k * d * width);
    bound.resize(k * d);
    split = std::max<int64_t>(2048, ceil_div(ceil_div(m, 8), STRIP) * STRIP);
    splits = std::max<int64_t>(1, ceil_div(m, split));
    if (g && !joint) dz_part.resize(splits * k * d * n);
    if (g && joint) far.resize(k * n);
    own2 = own * 1.4426950408889634;
    next2 = next * 1.4426950408889634;
    weighted = own != 0.0 || next != 0.0;
    excluded = own == -std::numeric_limits<double>::infinity();
  }
  int64_t prepare_tasks() const { return joint ? k : k * d; }
  int64_t row_blocks() const { return ceil_div(n, ROWS); }
  int64_t row_tasks() const { return k * row_blocks(); }
  int64_t column_tasks() const { return k * (m ? width / TILE : 0); }
  int64_t marginal_row_tasks() const { return k * d * ceil_div(n, 4 * ROWS); }
  int64_t marginal_column_tasks() const { return k * d * splits; }
  int64_t tile(int64_t trial, int64_t j0) const { return (trial * width + j0) * d; }
  int64_t own_of(int64_t i) const { return i + offset; }
  int64_t next_of(int64_t i) const { return m ? (i + offset + 1) % m : 0; }
};

struct Isa {
  const char* name;
  void (*sample)(const SampleJob&, int64_t);
  void (*noise)(const NoiseJob&, int64_t);
  void (*nll)(const NllJob&, int64_t);
  void (*mixture)(const MixtureJob&, int64_t);
  void (*prepare)(const DensityJob&, int64_t);
  void (*marginal_forward)(const DensityJob&, int64_t);
  void (*joint_forward)(const DensityJob&, int64_t);
  void (*marginal_backward)(const DensityJob&, int64_t);
  void (*marginal_gather)(const DensityJob&, int64_t);
  void (*joint_rows)(const DensityJob&, int64_t);
  void (*joint_columns)(const DensityJob&, int64_t);
};
