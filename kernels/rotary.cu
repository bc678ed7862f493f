// Rotary position embedding with the norms around it (src/ops/rotary.rs), in place on merged rows [q | k | v], whose keys and values go
// to the cache in the same pass. Knows angles, heads and slots; knows nothing of sequences or of who owns a block.
#include "common.cuh"

constexpr int WARPS = 16;
constexpr int MAX_HEAD_DIM = 512;

// Which elements a norm of queries or keys takes together (NormSpan of src/ops/rotary.rs).
enum NormSpan { HEAD, OWN_HEAD, TOKEN };

// The parts of a merged row.
enum Part { QUERIES, KEYS, VALUES };

struct Rules {
  const float* query_norm;  // weights, each or null
  const float* key_norm;
  const float* value_norm;
  int heads, kv_heads, head_dim, pairs, span;
  bool after_rotation, is_layer;
  float eps;

  __device__ const float* norm(int part) const { return part == QUERIES ? query_norm : part == KEYS ? key_norm : value_norm; }
};

// What a norm takes away from numbers, and what it multiplies them by besides the weights.
struct Moments { float mean, scale; };

// By the warp: a head in whole pieces on its way to f32 in shared memory, while the warp may still be at the one before.
template <class T>
struct Coming {
  static constexpr int LEN = Piece<T>::LEN, EACH = MAX_HEAD_DIM / (32 * LEN);
  Piece<T> pieces[EACH];

  __device__ __forceinline__ void ask(const T* row, int dim) {
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      const int first = (i * 32 + int(threadIdx.x) % 32) * LEN;
      if (first < dim) pieces[i] = load_piece(row + first);
    }
  }
  __device__ __forceinline__ void take(float* head, int dim) const {
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      const int first = (i * 32 + int(threadIdx.x) % 32) * LEN;
      if (first < dim) store_span(head + first, load_span<LEN>(pieces[i].at));
    }
    __syncwarp();
  }
};
// By the warp: a head to f32 and back. `head` lies in shared memory.
template <class T>
__device__ __forceinline__ void load_head(float* head, const T* row, int dim, bool in_pieces) {
  if (in_pieces) {
    Coming<T> pieces;
    pieces.ask(row, dim);
    return pieces.take(head, dim);
  }
  for (int index = threadIdx.x % 32; index < dim; index += 32) head[index] = to_f32(row[index]);
  __syncwarp();
}
template <class T>
__device__ __forceinline__ void store_head(T* row, const float* head, int dim, bool in_pieces) {
  constexpr int LEN = Piece<T>::LEN;
  const int lane = threadIdx.x % 32;
  if (in_pieces) {
#pragma unroll 1
    for (int first = lane * LEN; first < dim; first += 32 * LEN) store_span(row + first, load_span<LEN>(head + first));
  } else {
    for (int index = lane; index < dim; index += 32) row[index] = from_f32<T>(head[index]);
  }
}

// Pairs are (i, i + pairs); what lies behind them stays.
__device__ __forceinline__ void rotate_head(float* head, const float* cos_sin, int pairs) {
  for (int pair = threadIdx.x % 32; pair < pairs; pair += 32) {
    const float cos = cos_sin[2 * pair], sin = cos_sin[2 * pair + 1], x = head[pair], y = head[pair + pairs];
    head[pair] = x * cos - y * sin;
    head[pair + pairs] = y * cos + x * sin;
  }
  __syncwarp();
}

// This lane's part of the sum over a head of (x - mean) to the power of 1 or 2: of the numbers that it changes in norm_head.
__device__ __forceinline__ float lane_sum(const float* head, int dim, float mean, bool squared) {
  float sum = 0.0f;
#pragma unroll 2
  for (int index = threadIdx.x % 32; index < dim; index += 32) {
    const float distance = head[index] - mean;
    sum += squared ? distance * distance : distance;
  }
  return sum;
}

__device__ __forceinline__ Moments head_moments(const float* head, int dim, bool is_layer, float eps) {
  const float mean = is_layer ? warp_sum(lane_sum(head, dim, 0.0f, false)) / float(dim) : 0.0f;
  return {mean, 1.0f / sqrtf(warp_sum(lane_sum(head, dim, mean, true)) / float(dim) + eps)};
}

// Over all `heads` of a token's queries or keys, by the block: the norm of Span TOKEN. Heads are read again for each sum.
template <class T>
__device__ __forceinline__ Moments token_moments(float* head, const T* first_head, int heads, const float* cos_sin, const Rules& rules,
                                                 bool in_pieces, float* scratch) {
  Moments moments{};
#pragma unroll 1
  for (int power = rules.is_layer ? 1 : 2; power <= 2; power++) {
    float sum = 0.0f;
    for (int number = threadIdx.x / 32; number < heads; number += blockDim.x / 32) {
      load_head(head, first_head + size_t(number) * rules.head_dim, rules.head_dim, in_pieces);
      if (rules.after_rotation) rotate_head(head, cos_sin, rules.pairs);
      sum += lane_sum(head, rules.head_dim, moments.mean, power == 2);
      __syncwarp();
    }
    const float mean = block_sum(sum, scratch) / float(heads * rules.head_dim);
    if (power == 1) moments.mean = mean;
    if (power == 2) moments.scale = 1.0f / sqrtf(mean + rules.eps);
  }
  return moments;
}

__device__ __forceinline__ void norm_head(float* head, const float* weight, int dim, Moments moments) {
  for (int index = threadIdx.x % 32; index < dim; index += 32) {
    head[index] = (head[index] - moments.mean) * moments.scale * weight[index];
  }
  __syncwarp();
}

// Norm and rotation of head `number` of a part, in shared memory. `whole`: the part's moments, for Span TOKEN.
__device__ __forceinline__ void treat_head(float* head, Part part, int number, const float* cos_sin, const Rules& rules,
                                           const Moments& whole) {
  const int span = part == VALUES ? HEAD : rules.span;
  const float* norm = rules.norm(part);
  if (norm && span != HEAD) norm += size_t(number) * rules.head_dim;
  if (part != VALUES && (!norm || rules.after_rotation)) rotate_head(head, cos_sin, rules.pairs);
  if (!norm) return;
  const bool is_layer = rules.is_layer && part != VALUES;
  const Moments moments = span == TOKEN ? whole : head_moments(head, rules.head_dim, is_layer, rules.eps);
  norm_head(head, norm, rules.head_dim, moments);
  if (part != VALUES && !rules.after_rotation) rotate_head(head, cos_sin, rules.pairs);
}

// Where the token's keys and values go; no keys: nowhere.
template <class KV>
struct Cache {
  KV* keys;    // [blocks, Hkv, block size, D]
  KV* values;  // [blocks, Hkv, D, block size]
  int block, offset, block_size;

  __device__ void store_key(int number, const float* head, const Rules& rules) const {
    KV* row = keys + ((size_t(block) * rules.kv_heads + number) * block_size + offset) * rules.head_dim;
    store_head(row, head, rules.head_dim, rules.head_dim % Piece<KV>::LEN == 0 && are_aligned(keys));
  }
  __device__ void store_value(int number, const float* head, const Rules& rules) const {
    KV* column = values + (size_t(block) * rules.kv_heads + number) * rules.head_dim * block_size + offset;
    for (int index = threadIdx.x % 32; index < rules.head_dim; index += 32) {
      column[size_t(index) * block_size] = from_f32<KV>(head[index]);
    }
  }
};

// One token by the block, a head at a time by each warp.
template <class T, class KV>
__device__ __forceinline__ void rotate_token(T* row, const float* cos_sin, float growth, const Cache<KV>& cache, const Rules& rules,
                                             bool in_pieces) {
  __align__(16) __shared__ float buffers[WARPS][MAX_HEAD_DIM];
  __shared__ float scratch[32];
  __shared__ Moments whole[3];
  float* head = buffers[threadIdx.x / 32];
  const int dim = rules.head_dim, heads = rules.heads, kv_heads = rules.kv_heads;
  if (rules.span == TOKEN) {
#pragma unroll 1
    for (int part = QUERIES; part <= KEYS; part++) {
      if (!rules.norm(part) || (part == KEYS && kv_heads == 0)) continue;
      const T* first = part == KEYS ? row + size_t(heads) * dim : row;
      const Moments moments = token_moments(head, first, part == KEYS ? kv_heads : heads, cos_sin, rules, in_pieces, scratch);
      if (threadIdx.x == 0) whole[part] = moments;
    }
    __syncthreads();
  }
  const int warps = blockDim.x / 32, places = heads + 2 * kv_heads, first_place = threadIdx.x / 32;
  Coming<T> next;
  if (in_pieces && first_place < places) next.ask(row + size_t(first_place) * dim, dim);
  for (int place = first_place; place < places; place += warps) {
    const Part part = place < heads ? QUERIES : place < heads + kv_heads ? KEYS : VALUES;
    const int number = part == QUERIES ? place : part == KEYS ? place - heads : place - heads - kv_heads;
    if (in_pieces) {
      next.take(head, dim);
      if (place + warps < places) next.ask(row + size_t(place + warps) * dim, dim);
    } else {
      load_head(head, row + size_t(place) * dim, dim, false);
    }
    treat_head(head, part, number, cos_sin, rules, whole[part]);
    if (part == QUERIES && growth != 1.0f) {
      for (int index = threadIdx.x % 32; index < dim; index += 32) head[index] *= growth;
      __syncwarp();
    }
    if (part == KEYS && cache.keys) cache.store_key(number, head, rules);
    if (part == VALUES && cache.keys) cache.store_value(number, head, rules);
    if (part != VALUES || rules.value_norm) store_head(row + size_t(place) * dim, head, dim, in_pieces);
    __syncwarp();
  }
}

// One block of whole warps per token; its number of threads is the same for all launches of a layer, as it decides the order of sums of
// Span TOKEN. A token with a negative slot is padding: nothing of it is read or written.
// Queries grow by 1 + beta ln(1 + floor(position / original)); beta 0: not at all.
#define ROTARY(NAME, T, KV)                                                                                                               \
  ENTRY(32 * WARPS, pairwright_rotary_##NAME, T* rows, int row_width, const unsigned* positions, const int* slots, KV* keys, KV* values, \
        const float* cos_sin, const float* query_norm, const float* key_norm, const float* value_norm, int heads, int kv_heads,           \
        int head_dim, int pairs, int block_size, int span, int after_rotation, int is_layer, float eps, float growth_beta,                \
        float growth_original) {                                                                                                          \
    const int slot = slots ? slots[blockIdx.x] : 0;                                                                                       \
    if (slot < 0) return;                                                                                                                 \
    const unsigned position = positions[blockIdx.x];                                                                                      \
    const float growth = growth_beta == 0.0f ? 1.0f : 1.0f + growth_beta * logf(1.0f + floorf(float(position) / growth_original));        \
    const Cache<KV> cache{slots ? keys : nullptr, values, slots ? slot / block_size : 0, slots ? slot % block_size : 0, block_size};      \
    const Rules rules{query_norm, key_norm, value_norm, heads, kv_heads, head_dim, pairs, span, after_rotation != 0, is_layer != 0, eps}; \
    const bool in_pieces = row_width % Piece<T>::LEN == 0 && head_dim % Piece<T>::LEN == 0 && are_aligned(rows);                          \
    rotate_token(rows + size_t(blockIdx.x) * row_width, cos_sin + size_t(position) * pairs * 2, growth, cache, rules, in_pieces);         \
  }
ROTARY(f32, float, float)
ROTARY(f16, f16, f16)
ROTARY(bf16, bf16, bf16)
ROTARY(f32_fp8, float, fp8)
ROTARY(f16_fp8, f16, fp8)
ROTARY(bf16_fp8, bf16, fp8)
