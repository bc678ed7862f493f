// Attention over the paged cache for a ragged batch: decoding (a query token of a sequence, its splits side by side, then merged) and
// prefill (any number of query tokens, split after split). Both read what the host listed in device memory as work items, and leave what
// is beyond the list alone. Knows items, rows and where they lie; the arithmetic is that of attention.cuh, the order of items the host's.
#include "attention.cuh"

// Waits until tile `tile` of those asked for `ahead` tiles in advance has come: that many less one may be on their way.
__device__ __forceinline__ void wait_for_tile(int ahead) {
  if (ahead <= 1) wait_for_copies<0>();
  else if (ahead == 2) wait_for_copies<1>();
  else wait_for_copies<2>();
}

// Takes tiles [begin, end) into this warp's running softmax, all warps of the block together; after the last tile of a split, and after
// the last of all, `at_split_end` is called. `stages` (1 to 4) tiles have room in `shared`.
template <class T, class KV, int D, int THREADS, class AtSplitEnd>
__device__ __forceinline__ void walk(Running<T, D>& running, const Step<T, KV>& step, const Source<KV, D>& source,
                                     const Queries<T, D>& queries, const Sight& sight, int context, int begin, int end,
                                     int stages, unsigned char* shared, AtSplitEnd at_split_end) {
  const ScoreRule rule(step.scale, step.soft_cap);
  const int ahead = stages - 1;
#pragma unroll 1
  for (int tile = begin; tile < begin + ahead; tile++) {
    if (tile < end) source.template copy<THREADS>(tile, shared + (tile - begin) * Stage<KV, D>::BYTES);
    commit_copies();
  }
  int here = 0;  // the stage of this tile; the one asked for meanwhile takes that of the tile before
#pragma unroll 1
  for (int tile = begin; tile < end; tile++) {
    if (ahead > 0) wait_for_tile(ahead);
    __syncthreads();  // the tile is everyone's, and everyone is done with the stage that is filled now
    if (tile + ahead < end) source.template copy<THREADS>(tile + ahead, shared + (here == 0 ? ahead : here - 1) * Stage<KV, D>::BYTES);
    commit_copies();
    if (ahead == 0) {
      wait_for_copies<0>();
      __syncthreads();
    }
    unsigned char* stage = shared + here * Stage<KV, D>::BYTES;
    const int first_key = tile * TILE;
    if (first_key + TILE > context) {
      clear_values<KV, D, THREADS>(stage, context - first_key);
      __syncthreads();
    }
    if (sight.any(first_key)) add_tile<T, KV, D>(running, queries, stage, rule, sight, first_key);
    if ((first_key + TILE) % SPLIT == 0 || tile + 1 == end) at_split_end(tile + 1 == end);
    here = here + 1 == stages ? 0 : here + 1;
  }
}

// The packed rows of one key head: token after token, each with the heads of the group.
struct Rows {
  int group, num_rows, context, first_position;
  unsigned first_token;
  __device__ __forceinline__ Rows(int group, unsigned first_token, int num_tokens, int context)
      : group(group), num_rows(num_tokens * group), context(context), first_position(context - num_tokens), first_token(first_token) {}
  __device__ __forceinline__ int position(int row) const { return first_position + min(row, num_rows - 1) / group; }
  // Where the row begins in rows of `width` numbers that begin with queries.
  __device__ __forceinline__ size_t place(int row, int width, int kv_head, int head_dim) const {
    return (first_token + row / group) * size_t(width) + (kv_head * group + row % group) * head_dim;
  }
  // Of the 16 rows from `first` on.
  __device__ __forceinline__ Sight sight(int first, int window) const {
    Sight sight;
    sight.window = window;
#pragma unroll
    for (int half = 0; half < 2; half++) sight.position[half] = first < num_rows ? position(first + threadIdx.x % 32 / 4 + 8 * half) : -1;
    return sight;
  }
  template <class T, int D>
  __device__ __forceinline__ const T* query(const T* rows, int width, int kv_head, int row) const {
    return row < num_rows ? rows + place(row, width, kv_head, D) : nullptr;
  }
};

// ---- decoding: a warp has 16 heads of a group and one split

// A split's outcome for a head: largest, sum, two numbers of padding, outputs [D].
template <int D>
constexpr int RECORD = D + 4;

template <class T, class KV, int D>
__device__ __forceinline__ void decode(const Step<T, KV>& step, const unsigned* first_rows, const unsigned* items,
                                       const unsigned* num_items, float* partials, int stages) {
  DYNAMIC_SHARED(unsigned char, shared);
  if (blockIdx.x >= *num_items) return;
  const int kv_head = blockIdx.y, first_row = blockIdx.z * WARP_ROWS, g = threadIdx.x / 4, t = threadIdx.x % 4;
  Running<T, D> running;
  running.clear();
  {
    const unsigned sequence = items[2 * blockIdx.x];
    const int context = step.context_lens[sequence], begin = items[2 * blockIdx.x + 1] * SPLIT;
    const Rows rows(step.heads / step.kv_heads, first_rows[sequence], 1, context);
    const Queries<T, D> queries(rows.query<T, D>(step.rows, step.row_width, kv_head, first_row + g),
                                rows.query<T, D>(step.rows, step.row_width, kv_head, first_row + g + 8));
    const int seen = step.window == 0 || context < step.window ? 0 : context - step.window;
    walk<T, KV, D, 32>(running, step, Source<KV, D>(step, sequence, kv_head), queries, rows.sight(first_row, step.window), context,
                       max(begin, seen) / TILE, (min(begin + SPLIT, context) + TILE - 1) / TILE, stages, shared, [](bool) {});
  }
  const int group = step.heads / step.kv_heads;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int row = first_row + g + 8 * half;
    const float sum = row_sum(running.sum[half]);
    if (row >= group) continue;
    float* record = partials + (size_t(blockIdx.x) * step.heads + kv_head * group + row) * RECORD<D>;
    if (t == 0) record[0] = running.largest[half], record[1] = sum;
#pragma unroll
    for (int n = 0; n < D / 8; n++)
      *reinterpret_cast<float2*>(record + 4 + n * 8 + 2 * t) = {running.outputs[n].at[2 * half], running.outputs[n].at[2 * half + 1]};
  }
}

// A thread has 8 outputs of a head. A sequence without items keeps its rows.
template <class T, int D>
__device__ __forceinline__ void merge(const float* partials, const unsigned* cu_items, const unsigned* first_rows, const float* sinks,
                                      T* out, int heads) {
  const unsigned sequence = blockIdx.x, begin = cu_items[sequence], end = cu_items[sequence + 1];
  const int number = blockIdx.y * blockDim.x + threadIdx.x, head = number / (D / 8), d = number % (D / 8) * 8;
  if (begin == end || head >= heads) return;
  float largest = -INFINITY, sum = 0.0f, outputs[8] = {};
#pragma unroll 4
  for (unsigned item = begin; item < end; item++) {
    const float* record = partials + (size_t(item) * heads + head) * RECORD<D>;
    const Piece<float> front = load_piece(record + 4 + d), back = load_piece(record + 8 + d);
    const MergeWeights weights(largest, record[0]);
    largest = fmaxf(largest, record[0]);
    sum = weights.merged(sum, record[1]);
#pragma unroll
    for (int i = 0; i < 8; i++) outputs[i] = weights.merged(outputs[i], i < 4 ? front.at[i % 4] : back.at[i % 4]);
  }
  const float factor = final_factor(largest, sum, sinks, head);
  T* target = out + (size_t(first_rows[sequence]) * heads + head) * D + d;
#pragma unroll
  for (int start = 0; start < 8; start += Piece<T>::LEN) {
    Piece<T> piece;
#pragma unroll
    for (int i = 0; i < Piece<T>::LEN; i++) piece.at[i] = from_f32<T>(__fmul_rn(outputs[start + i], factor));
    store_piece(target + start, piece);
  }
}

// ---- prefill: a block has 64 packed rows (32 where D is above 192), 16 to a warp

template <int D>
constexpr int PREFILL_THREADS = D > 192 ? 64 : 128;
template <class T, int D>
constexpr int PREFILL_BLOCKS = D > 192 ? 4 : D > 128 || sizeof(T) == 4 ? 2 : 3;

// The total over the splits so far. While a split is summed it waits in the warp's part of shared memory, a column to a lane:
// outputs [D / 8][4][32], then of the lane's two rows largest [2][32] and sum [2][32].
template <class T, int D>
struct Total {
  static constexpr int FLOATS = (D / 2 + 4) * 32;
  float* kept;

  __device__ __forceinline__ explicit Total(float* warp_part) : kept(warp_part + threadIdx.x % 32) {
#pragma unroll
    for (int row = 0; row < 2; row++) largest(row) = -INFINITY, sum(row) = 0.0f;
  }
  __device__ __forceinline__ float& output(int n, int i) const { return kept[(n * 4 + i) * 32]; }
  __device__ __forceinline__ float& largest(int row) const { return kept[(D / 2 + row) * 32]; }
  __device__ __forceinline__ float& sum(int row) const { return kept[(D / 2 + 2 + row) * 32]; }

  // Merges a split; after the last one the total is left in `part`.
  __device__ __forceinline__ void merge(Running<T, D>& part, bool last) const {
#pragma unroll
    for (int row = 0; row < 2; row++) {
      const bool empty = largest(row) == -INFINITY;
      const MergeWeights weights(largest(row), part.largest[row]);
      part.largest[row] = fmaxf(largest(row), part.largest[row]);
      part.sum[row] = weights.merged(sum(row), row_sum(part.sum[row]));
#pragma unroll
      for (int n = 0; n < D / 8; n++) {
#pragma unroll
        for (int i = 2 * row; i < 2 * row + 2; i++)
          part.outputs[n].at[i] = weights.merged(empty ? 0.0f : output(n, i), part.outputs[n].at[i]);
      }
    }
    if (last) return;
#pragma unroll
    for (int row = 0; row < 2; row++) largest(row) = part.largest[row], sum(row) = part.sum[row];
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) output(n, i) = part.outputs[n].at[i];
    }
    part.clear();
  }
};

// Writes a warp's rows by way of its part of shared memory, so that what goes out are whole pieces.
template <class T, int D>
__device__ __forceinline__ void store_rows(const Running<T, D>& total, T* staged, const Rows& rows, int first_row, int kv_head,
                                           const float* sinks, int heads, T* out) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  __syncwarp();
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int row = g + 8 * half;
    const float factor = final_factor(total.largest[half], total.sum[half], sinks, kv_head * rows.group + (first_row + row) % rows.group);
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
#pragma unroll
      for (int i = 0; i < 2; i++) staged[row * D + n * 8 + 2 * t + i] = from_f32<T>(__fmul_rn(total.outputs[n].at[2 * half + i], factor));
    }
  }
  __syncwarp();
  constexpr int ROW_PIECES = D / Piece<T>::LEN;
  for (int piece = lane; piece < WARP_ROWS * ROW_PIECES; piece += 32) {
    const int row = first_row + piece / ROW_PIECES, d = piece % ROW_PIECES * Piece<T>::LEN;
    if (row < rows.num_rows) store_piece(out + rows.place(row, heads * D, kv_head, D) + d, load_piece(staged + piece * Piece<T>::LEN));
  }
}

template <class T, class KV>
__device__ __forceinline__ Rows prefill_rows(const Step<T, KV>& step, const unsigned* cu_seqlens_q, unsigned sequence) {
  const unsigned first_token = cu_seqlens_q[sequence];
  return Rows(step.heads / step.kv_heads, first_token, cu_seqlens_q[sequence + 1] - first_token, step.context_lens[sequence]);
}

template <class T, class KV, int D>
__device__ __forceinline__ void prefill(const Step<T, KV>& step, const unsigned* cu_seqlens_q, const unsigned* items,
                                        const unsigned* num_items, const float* sinks, T* out, int stages) {
  DYNAMIC_SHARED(unsigned char, shared);
  if (blockIdx.x >= *num_items) return;
  constexpr int THREADS = PREFILL_THREADS<D>, BLOCK_ROWS = THREADS / 32 * WARP_ROWS;
  const int kv_head = blockIdx.y, warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4;
  Running<T, D> running;
  running.clear();
  float* warp_part = reinterpret_cast<float*>(shared + stages * Stage<KV, D>::BYTES) + warp * Total<T, D>::FLOATS;
  const Total<T, D> total(warp_part);
  {
    const unsigned sequence = items[2 * blockIdx.x];
    const int block_row = items[2 * blockIdx.x + 1], first_row = block_row + warp * WARP_ROWS;
    const Rows rows = prefill_rows(step, cu_seqlens_q, sequence);
    const Queries<T, D> queries(rows.query<T, D>(step.rows, step.row_width, kv_head, first_row + g),
                                rows.query<T, D>(step.rows, step.row_width, kv_head, first_row + g + 8));
    const Sight sight = rows.sight(first_row, step.window);
    const int lowest = rows.position(block_row), highest = rows.position(block_row + BLOCK_ROWS - 1);
    const int seen = step.window == 0 || lowest < step.window ? 0 : lowest - step.window + 1;
    walk<T, KV, D, THREADS>(running, step, Source<KV, D>(step, sequence, kv_head), queries, sight, rows.context, seen / TILE,
                            highest / TILE + 1, stages, shared, [&](bool last) { total.merge(running, last); });
  }
  // Read anew, so as not to hold it in registers all the while.
  const Rows rows = prefill_rows(step, cu_seqlens_q, items[2 * blockIdx.x]);
  const int first_row = items[2 * blockIdx.x + 1] + warp * WARP_ROWS;
  store_rows<T, D>(running, reinterpret_cast<T*>(warp_part), rows, first_row, kv_head, sinks, step.heads, out);
}

// ---- entries. `items` are pairs (sequence, split) or (sequence, first packed row); `num_items` is one number

#define STEP_PARAMETERS(T, KV)                                                                                                       \
  const T *rows, int row_width, const KV *keys, const KV *values, const unsigned *context_lens, const unsigned *cu_blocks,           \
      const unsigned *block_tables, int heads, int kv_heads, int block_size, float scale, int window, float soft_cap
#define STEP(T, KV)                                                                                                                  \
  Step<T, KV> {                                                                                                                      \
    rows, row_width, keys, values, context_lens, cu_blocks, block_tables, heads, kv_heads, block_size, scale, window, soft_cap       \
  }

// Grid and dynamic shared memory: decoding [items or more, Hkv, 16-row parts of a group], `stages` (1 to 4) times Stage::BYTES; prefill
// [items or more, Hkv], as much and a Total::FLOATS per warp besides. Block sizes are powers of two from 32 on; rows are multiples of 16
// bytes apart.
#define ATTENTION(NAME, T, KV, D)                                                                                                    \
  RESIDENT_ENTRY(32, 8, pairwright_attention_decode_##NAME##_##D, STEP_PARAMETERS(T, KV), const unsigned* first_rows,                \
                 const unsigned* items, const unsigned* num_items, float* partials, int stages) {                                    \
    decode<T, KV, D>(STEP(T, KV), first_rows, items, num_items, partials, stages);                                                   \
  }                                                                                                                                  \
  RESIDENT_ENTRY(PREFILL_THREADS<D>, (PREFILL_BLOCKS<T, D>), pairwright_attention_prefill_##NAME##_##D, STEP_PARAMETERS(T, KV),      \
                 const unsigned* cu_seqlens_q, const unsigned* items, const unsigned* num_items, const float* sinks, T* out,         \
                 int stages) {                                                                                                       \
    prefill<T, KV, D>(STEP(T, KV), cu_seqlens_q, items, num_items, sinks, out, stages);                                              \
  }
#define MERGE(T, D)                                                                                                                  \
  ENTRY(128, pairwright_attention_merge_##T##_##D, const float* partials, const unsigned* cu_items, const unsigned* first_rows,      \
        const float* sinks, T* out, int heads) {                                                                                     \
    merge<T, D>(partials, cu_items, first_rows, sinks, out, heads);                                                                  \
  }
#define HEAD_SIZE(D)                 \
  ATTENTION(f32, f32, f32, D)        \
  ATTENTION(f16, f16, f16, D)        \
  ATTENTION(bf16, bf16, bf16, D)     \
  ATTENTION(f32_fp8, f32, fp8, D)    \
  ATTENTION(f16_fp8, f16, fp8, D)    \
  ATTENTION(bf16_fp8, bf16, fp8, D)  \
  MERGE(f32, D)                      \
  MERGE(f16, D)                      \
  MERGE(bf16, D)

using f32 = float;

HEAD_SIZE(16)
HEAD_SIZE(32)
HEAD_SIZE(64)
HEAD_SIZE(80)
HEAD_SIZE(96)
HEAD_SIZE(128)
HEAD_SIZE(192)
HEAD_SIZE(256)
