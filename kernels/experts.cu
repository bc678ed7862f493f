// What a mixture of experts does around and in its products (src/ops/experts.rs): choosing experts for each token, grouping rows by
// expert, and putting weighted expert rows together again. All on the device: the host knows no counts. The products are in
// grouped_product.cuh. Knows row numbers and weights; knows nothing of what an expert computes.
#include "grouped_product.cuh"

constexpr int MAX_EXPERTS = 512;

// ---- routing

// Scores in f32's total order, and of equal ones the lower number first, as one number; 0 is none. `index` < 2^32 - 1.
__device__ __forceinline__ unsigned long long ranked(float score, unsigned index) {
  const unsigned bits = __float_as_uint(score);
  const unsigned ordered = bits >> 31 ? ~bits : bits | 0x80000000u;
  return (unsigned long long)ordered << 32 | (0xffffffffu - index);
}
__device__ __forceinline__ unsigned index_of(unsigned long long rank) { return 0xffffffffu - unsigned(rank); }
__device__ __forceinline__ float score_of(unsigned long long rank) {
  const unsigned ordered = unsigned(rank >> 32);
  return __uint_as_float(ordered >> 31 ? ordered & 0x7fffffffu : ~ordered);
}

// Lane i gets the i-th best of the warp's scores, i < k. `scores` holds E numbers.
template <class T>
__device__ __forceinline__ unsigned long long best_scores(const T* scores, int num_experts, int k) {
  const int lane = threadIdx.x % 32;
  constexpr int KEPT = MAX_EXPERTS / 32;
  unsigned long long kept[KEPT], mine = 0;
#pragma unroll
  for (int i = 0; i < KEPT; i++) {
    const int expert = i * 32 + lane;
    kept[i] = expert < num_experts ? ranked(to_f32(scores[expert]), unsigned(expert)) : 0;
  }
#pragma unroll 1
  for (int place = 0; place < k; place++) {
    unsigned long long best = 0;
#pragma unroll
    for (int i = 0; i < KEPT; i++) best = kept[i] > best ? kept[i] : best;
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      const unsigned long long other = __shfl_xor_sync(0xffffffffu, best, distance);
      best = other > best ? other : best;
    }
#pragma unroll
    for (int i = 0; i < KEPT; i++) kept[i] = kept[i] == best ? 0 : kept[i];
    if (lane == place) mine = best;
  }
  return mine;
}

// One token by a warp.
template <class T>
__device__ __forceinline__ void route_token(const T* scores, unsigned* chosen, float* weights, int num_experts, int k, bool is_normalised,
                                            const float* expert_scale) {
  const int lane = threadIdx.x % 32;
  const unsigned long long mine = best_scores(scores, num_experts, k);
  const unsigned expert = index_of(mine);
  const float best = score_of(__shfl_sync(0xffffffffu, mine, 0));
  const float weight = lane < k ? expf(score_of(mine) - best) : 0.0f;
  float share = weight;
  if (!is_normalised) {
    share = 0.0f;
    for (int other = lane; other < num_experts; other += 32) share += expf(to_f32(scores[other]) - best);
  }
  const float total = warp_sum(share);
  int place = 0;
  for (int other = 0; other < k; other++) place += __shfl_sync(0xffffffffu, expert, other) < expert;
  if (lane < k) {
    chosen[place] = expert;
    weights[place] = weight / total * (expert_scale ? expert_scale[expert] : 1.0f);
  }
}

// ---- grouping: a counting sort that keeps the order of what is equal

constexpr int SORT_WARPS = 16;

// Calls each(index, is it there, expert, lanes with the same expert) for the entries of this warp's part, in order, whole warps at once. As
// one block has all of them to read, it asks for many before it waits for the first.
template <class Each>
__device__ __forceinline__ void for_each_entry(const unsigned* chosen, int count, Each each) {
  constexpr int AHEAD = 8;
  const int part = (count + SORT_WARPS * 32 - 1) / (SORT_WARPS * 32) * 32;
  const int first = int(threadIdx.x / 32) * part, end = min(first + part, count), lane = threadIdx.x % 32;
  for (int start = first; start < end; start += 32 * AHEAD) {
    unsigned experts[AHEAD];
#pragma unroll
    for (int n = 0; n < AHEAD; n++) {
      const int index = start + n * 32 + lane;
      experts[n] = index < end ? chosen[index] : 0xffffffffu;
    }
#pragma unroll
    for (int n = 0; n < AHEAD; n++) {
      if (start + n * 32 >= end) break;
      const int index = start + n * 32 + lane;
      const unsigned same = __match_any_sync(0xffffffffu, experts[n]);
      each(index, index < end, experts[n], same);
      __syncwarp();
    }
  }
}

// One block of 512 threads.
ENTRY(32 * SORT_WARPS, pairwright_group_rows, const unsigned* chosen, unsigned* rows, unsigned* places, unsigned* bounds, int tokens,
      int num_experts, int k) {
  // First how many rows of an expert each warp's part has, then where the next of them goes.
  __shared__ unsigned next[SORT_WARPS][MAX_EXPERTS];
  __shared__ unsigned sums[2][MAX_EXPERTS];
  const unsigned thread = threadIdx.x, lane = thread % 32, warp = thread / 32, below = (1u << lane) - 1;
  for (int part = 0; part < SORT_WARPS; part++) next[part][thread] = 0;
  __syncthreads();
  for_each_entry(chosen, tokens * k, [&](int, bool there, unsigned expert, unsigned same) {
    if (there && (same & below) == 0) next[warp][expert] += unsigned(__popc(same));
  });
  __syncthreads();
  // Sums over parts here, over experts by doubling (Hillis & Steele 1986).
  unsigned count = 0;
  for (int part = 0; part < SORT_WARPS; part++) count += next[part][thread];
  sums[0][thread] = count;
  __syncthreads();
  int now = 0;
  for (unsigned distance = 1; distance < MAX_EXPERTS; distance *= 2, now ^= 1) {
    sums[now ^ 1][thread] = sums[now][thread] + (thread >= distance ? sums[now][thread - distance] : 0);
    __syncthreads();
  }
  if (int(thread) < num_experts) bounds[thread + 1] = sums[now][thread];
  if (thread == 0) bounds[0] = 0;
  unsigned start = sums[now][thread] - count;
  for (int part = 0; part < SORT_WARPS; part++) {
    const unsigned in_part = next[part][thread];
    next[part][thread] = start;
    start += in_part;
  }
  __syncthreads();
  for_each_entry(chosen, tokens * k, [&](int index, bool there, unsigned expert, unsigned same) {
    if (there) {
      const unsigned place = next[warp][expert] + unsigned(__popc(same & below));
      rows[place] = unsigned(index / k);
      places[index] = place;
    }
    __syncwarp();
    if (there && (same & below) == 0) next[warp][expert] += unsigned(__popc(same));
  });
}

// ---- combining

// In the order of `places`; rows are asked for some at a time.
template <int LEN, class T>
__device__ __forceinline__ void combine_token(const T* y, const unsigned* places, const float* weights, T* out, int width, int k) {
  constexpr int AT_ONCE = 4;
  for (int first = int(threadIdx.x) * LEN; first < width; first += int(blockDim.x) * LEN) {
    Span<LEN> sum{};
    for (int j = 0; j < k; j += AT_ONCE) {
      Stored<LEN, T> rows[AT_ONCE];
#pragma unroll
      for (int n = 0; n < AT_ONCE; n++) rows[n] = ask_stored<LEN>(y + size_t(places[min(j + n, k - 1)]) * width + first);
#pragma unroll
      for (int n = 0; n < AT_ONCE; n++) {
        const float weight = weights[min(j + n, k - 1)];
#pragma unroll
        for (int i = 0; i < LEN; i++) {
          if (j + n < k) sum.at[i] = fmaf(to_f32(rows[n].at[i]), weight, sum.at[i]);
        }
      }
    }
    store_span(out + first, sum);
  }
}

// route: a block of one warp per token; up to 512 experts and 16 chosen. combine: a block per token.
#define EXPERTS(NAME, T)                                                                                                                   \
  ENTRY(32, pairwright_route_##NAME, const T* scores, unsigned* chosen, float* weights, int num_experts, int k, int is_normalised,           \
        const float* expert_scale) {                                                                                                       \
    const size_t token = blockIdx.x;                                                                                                       \
    route_token(scores + token * num_experts, chosen + token * k, weights + token * k, num_experts, k,                                     \
                is_normalised != 0, expert_scale);                                                                                         \
  }                                                                                                                                        \
  ENTRY(512, pairwright_combine_##NAME, const T* y, const unsigned* places, const float* weights, T* out, int width, int k) {              \
    places += size_t(blockIdx.x) * k, weights += size_t(blockIdx.x) * k, out += size_t(blockIdx.x) * width;                                \
    if (width % Piece<T>::LEN == 0 && are_aligned(y, out)) {                                                                               \
      combine_token<Piece<T>::LEN>(y, places, weights, out, width, k);                                                                     \
    } else {                                                                                                                               \
      combine_token<1>(y, places, weights, out, width, k);                                                                                 \
    }                                                                                                                                      \
  }                                                                                                                                        \
  ENTRY(PRODUCT_THREADS, pairwright_grouped_product_##NAME, const T* x, const unsigned* rows, const unsigned* bounds, const T* weights,    \
        const float* bias, void* y, int groups, int num_rows, int in, int out, int is_wide) {                                              \
    grouped_product(x, rows, bounds, weights, bias, y, groups, num_rows, in, out, is_wide != 0);                                           \
  }
EXPERTS(f32, float)
EXPERTS(f16, f16)
EXPERTS(bf16, bf16)
