// What one pass over a row of logits tells, run by run: the twin of src/engine/survey.rs, operation by operation, so that every bit is the
// CPU's. Needs correctly rounded f32 with subnormals: never compile it with fast-math flags. Knows runs of logits, and that some tokens may be
// forbidden; chooses nothing.
#pragma once
#include "common.cuh"

namespace sampling {

constexpr int RUN = 256;   // logits per run
constexpr int LANES = 16;  // of every sum: lane l has the logits l, l + 16, ... of a run, in that order

// Of one run, as in survey.rs: the largest logit (NaN is skipped), the sum of exp beside it, and the sum of weights beside it under the
// row's temperature, 0 without one. Where the token is chosen from other logits than the row's, `total` and `chosen_max` are those of these
// others, and `max` and `sum` still the row's own, which log-probabilities are of.
struct __align__(16) Run { float max, sum, total, chosen_max; };

// A row of logits. Tokens that are not allowed count as negative infinity.
struct Row {
  const float* logits;
  const unsigned* allowed;  // a bit per token, the lowest first; null: all are allowed
  int count;
  __device__ __forceinline__ bool allows(int token) const { return !allowed || (allowed[token / 32] >> token % 32 & 1); }
  __device__ __forceinline__ float at(int token) const { return allows(token) ? logits[token] : -INFINITY; }
  __device__ __forceinline__ int runs() const { return (count + RUN - 1) / RUN; }
};

// What a thread has of a run: its lane's logits, and whether they are the row's own. Half a warp has all of it, 64 bytes at a time, whatever
// the row's alignment.
struct Part {
  float x[RUN / LANES];
  bool is_own;

  // Past the row's end there are negative infinities. Bits of a mask are read by whole words, all of them before the logits.
  __device__ __forceinline__ Part(const Row& row, int run) : is_own(true) {
    unsigned words[RUN / 32];
#pragma unroll
    for (int i = 0; i < RUN / 32; i++) {
      const int word = run * (RUN / 32) + i;
      words[i] = !row.allowed ? ~0u : word * 32 < row.count ? row.allowed[word] : 0;
      is_own = is_own && words[i] == ~0u;
    }
    const int lane = int(threadIdx.x) % LANES;
#pragma unroll
    for (int step = 0; step < RUN / LANES; step++) {
      const int token = run * RUN + lane + step * LANES;
      const bool allowed = words[step * LANES / 32] >> (lane + step * LANES % 32) & 1;
      x[step] = token < row.count && allowed ? row.logits[token] : -INFINITY;
    }
  }

  // Another logit in the place of the run's one number `index`; the whole half of a warp is told.
  __device__ __forceinline__ void change(int index, float logit) {
#pragma unroll
    for (int step = 0; step < RUN / LANES; step++)
      x[step] = index == int(threadIdx.x) % LANES + step * LANES ? logit : x[step];
    is_own = false;
  }
};

// simd.rs's exp for x <= 0 and for NaN. Down to -87 its results are normal numbers, so the power of two multiplies in one step. Below, it is
// that power which is 0: a choice between results would make a branch.
__device__ __forceinline__ float exponential(float x) {
  const float ROUND = 12582912.0f;
  const bool vanishes = x < -87.0f;
  if (vanishes) x = -87.0f;
  const float shifted = __fmaf_rn(x, 1.44269504088896340736f, ROUND);
  const float n = __fadd_rn(shifted, -ROUND);
  const float r = __fmaf_rn(n, 2.1219444e-4f, __fmaf_rn(n, -0.6933594f, x));
  float p = __fmaf_rn(1.9875691e-4f, r, 1.3982e-3f);
  p = __fmaf_rn(p, r, 8.333452e-3f);
  p = __fmaf_rn(p, r, 4.1665796e-2f);
  p = __fmaf_rn(p, r, 1.6666665e-1f);
  p = __fmaf_rn(p, r, 0.5f);
  const float y = __fadd_rn(__fmaf_rn(__fmul_rn(r, r), p, r), 1.0f);
  const unsigned power = (__float_as_uint(shifted) << 23) + 0x3f800000u;
  return __fmul_rn(y, __uint_as_float(vanishes ? 0 : power));
}

// survey.rs's weight of a logit no larger than `best`.
__device__ __forceinline__ float weight(float logit, float best, float temperature) {
  const float share = fmaxf(exponential(__fdiv_rn(__fadd_rn(logit, -best), temperature)), 0.0f);
  return logit == best ? 1.0f : share;
}

// x / divisor in three operations, given the divisor's correctly rounded reciprocal: the remainder of the first guess, which is exact,
// mends it to the correctly rounded quotient (P. Markstein 1990, "Computation of elementary functions on the IBM RISC System/6000").
// Holds where nothing comes near the ends of the range: quotients near 0 may be off in the last place, all of which have the exponential
// 1; an infinite x gives NaN, which weighs nothing, as it should.
__device__ __forceinline__ float divided(float x, float divisor, float reciprocal) {
  const float guess = __fmul_rn(x, reciprocal);
  return __fmaf_rn(__fmaf_rn(-guess, divisor, x), reciprocal, guess);
}

// simd.rs's reduce_add of the sixteen lanes of half a warp.
__device__ __forceinline__ float lanes_sum(float x) {
#pragma unroll
  for (int distance = LANES / 2; distance > 0; distance /= 2) x = __fadd_rn(x, __shfl_xor_sync(0xffffffffu, x, distance, LANES));
  return x;
}

// Of a run of `present` logits, of which each thread of half a warp has its part. The whole warp has to come; a run past the end is empty.
__device__ __forceinline__ Run survey_run(Part part, int present, float temperature) {
  const int lane = int(threadIdx.x) % LANES;
  float(&x)[RUN / LANES] = part.x;
  float best = -INFINITY;
#pragma unroll
  for (int step = 0; step < RUN / LANES; step++) best = fmaxf(best, x[step]);
#pragma unroll
  for (int distance = LANES / 2; distance > 0; distance /= 2) best = fmaxf(best, __shfl_xor_sync(0xffffffffu, best, distance, LANES));

  float sum = 0.0f, unit_total = 0.0f, total = 0.0f;
  const bool infinite = fabsf(best) == INFINITY;
  if (infinite) {
#pragma unroll
    for (int step = 0; step < RUN / LANES; step++)
      total = __fadd_rn(total, lane + step * LANES < present && x[step] == best ? 1.0f : 0.0f);
  }
  const float beside = best == -INFINITY ? 0.0f : best;
#pragma unroll
  for (int step = 0; step < RUN / LANES; step++) {
    x[step] = __fadd_rn(x[step], -beside);
    const float term = exponential(x[step]);
    sum = __fadd_rn(sum, term);
    unit_total = __fadd_rn(unit_total, fmaxf(term, 0.0f));
  }
  if (!infinite && temperature == 1.0f) {
    total = unit_total;
  } else if (!infinite && temperature > 0x1p-20f && temperature < 0x1p20f) {
    const float reciprocal = __fdiv_rn(1.0f, temperature);
#pragma unroll
    for (int step = 0; step < RUN / LANES; step++)
      total = __fadd_rn(total, fmaxf(exponential(divided(x[step], temperature, reciprocal)), 0.0f));
  } else if (!infinite && temperature > 0.0f) {
#pragma unroll
    for (int step = 0; step < RUN / LANES; step++)
      total = __fadd_rn(total, fmaxf(exponential(__fdiv_rn(x[step], temperature)), 0.0f));
  }
  total = lanes_sum(temperature > 0.0f ? total : 0.0f);
  return Run{best, lanes_sum(sum), total, best};
}

}  // namespace sampling
