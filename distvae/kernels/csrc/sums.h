// Fixed-order sums: the partial results of a kernel that splits its long axis over blocks, and sums over a block.
#pragma once

#define FINISH_THREADS 256

struct sum_partials_args {
  const double* partial;  // [splits, size]
  float* out;             // [size]
  long long size, splits;
};

DV_KERNEL(sum_partials, sum_partials_args, FINISH_THREADS, 4) {
  long long at = (long long)blockIdx.x * FINISH_THREADS + threadIdx.x;
  if (at >= p.size) return;
  double sum = 0.0;
  for (long long s = 0; s < p.splits; ++s) sum += p.partial[s * p.size + at];
  p.out[at] = (float)sum;
}

// The block's FINISH_THREADS values reduced in a tree; every thread of the block calls, every thread gets the result.
DV_FN dv_lse block_merge(dv_lse mine) {
  __shared__ dv_lse parts[FINISH_THREADS];
  int t = threadIdx.x;
  __syncthreads();
  parts[t] = mine;
  for (int half = FINISH_THREADS / 2; half; half /= 2) {
    __syncthreads();
    if (t < half) parts[t] = dv_merge(parts[t], parts[t + half]);
  }
  __syncthreads();
  return parts[0];
}

DV_FN double block_sum(double mine) {
  __shared__ double parts[FINISH_THREADS];
  int t = threadIdx.x;
  __syncthreads();
  parts[t] = mine;
  for (int half = FINISH_THREADS / 2; half; half /= 2) {
    __syncthreads();
    if (t < half) parts[t] += parts[t + half];
  }
  __syncthreads();
  return parts[0];
}
