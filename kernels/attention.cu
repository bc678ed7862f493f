// Attention over the paged cache for a ragged batch: decoding (a query token of a sequence, its splits side by side, then merged) and
// prefill (any number of query tokens, split after split; or, on Hopper, warpgroup_attention.cuh's). All read what the host listed in device memory as work items, and leave what
// is beyond the list alone. Knows items, rows and where they lie; the arithmetic is that of attention.cuh, the order of items the host's.
#include "warpgroup_attention.cuh"

// Waits until tile `tile` of those asked for `ahead` tiles in advance has come: that many less one may be on their way.
__device__ __forceinline__ void wait_for_tile(int ahead) {
  if (ahead <= 1) wait_for_copies<0>();
  else if (ahead == 2) wait_for_copies<1>();
  else wait_for_copies<2>();
}

// Takes tiles [begin, end) into this warp's running softmax, all warps of the block together; after the last tile of a split, and after
// the last of all, `at_split_end` is called: is it the first split, and is it the last? `stages` (1 to 4) tiles have room in `shared`.
template <class T, class KV, int D, int R, int THREADS, class AtSplitEnd>
__device__ __forceinline__ void walk(Running<T, D> (&running)[R], const Step<T, KV>& step, const Source<KV, D>& source,
                                     const Queries<T, D, R>& queries, const Sight (&sight)[R], int context, int begin, int end,
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
    bool any = false;
#pragma unroll
    for (int rows = 0; rows < R; rows++) any |= sight[rows].any(first_key, TILE);
    if (any) add_tile<T, KV, D, R>(running, queries, stage, rule, sight, first_key);
    if ((first_key + TILE) % SPLIT == 0 || tile + 1 == end) at_split_end(first_key / SPLIT == begin * TILE / SPLIT, tile + 1 == end);
    here = here + 1 == stages ? 0 : here + 1;
  }
}

// What a split, or several merged, give for a row: largest, sum, two numbers of padding, outputs [D].
template <int D>
constexpr int RECORD = D + 4;

// ---- decoding: a warp has 16 heads of a group and one split

template <class T, class KV, int D>
__device__ __forceinline__ void decode(const Step<T, KV>& step, const unsigned* first_rows, const unsigned* items,
                                       const unsigned* num_items, float* partials, int stages) {
  DYNAMIC_SHARED(unsigned char, shared);
  if (blockIdx.x >= *num_items) return;
  const int kv_head = blockIdx.y, first_row = blockIdx.z * WARP_ROWS, g = threadIdx.x / 4, t = threadIdx.x % 4;
  Running<T, D> summed[1];
  Running<T, D>& running = summed[0];
  running.clear();
  {
    const unsigned sequence = items[2 * blockIdx.x];
    const int context = step.context_lens[sequence], begin = items[2 * blockIdx.x + 1] * SPLIT;
    const Rows rows(step.heads / step.kv_heads, first_rows[sequence], 1, context);
    const Queries<T, D, 1> queries(shared + stages * Stage<KV, D>::BYTES,
                                   [&](int row) { return rows.query<T, D>(step.rows, step.row_width, kv_head, first_row + row); });
    const Sight sight[1] = {rows.sight(first_row, step.window)};
    const int seen = step.window == 0 || context < step.window ? 0 : context - step.window;
    walk<T, KV, D, 1, 32>(summed, step, Source<KV, D>(step, sequence, kv_head), queries, sight, context, max(begin, seen) / TILE,
                          (min(begin + SPLIT, context) + TILE - 1) / TILE, stages, shared, [](bool, bool) {});
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

// ---- prefill: a block's warps have 16 packed rows each, or where registers allow 32, so that keys and values are read for twice as many

template <class T, int D>
constexpr int ROW_TILES = sizeof(T) == 2 && D <= 128 ? 2 : 1;
template <class T, int D>
constexpr int PREFILL_WARPS = D * int(sizeof(T)) > 768 ? 2 : 4;
template <class T, int D>
constexpr int PREFILL_BLOCKS = sizeof(T) == 2 && D <= 64 ? 3 : 2;

// Merges a split of a warp's rows, `part`, with those before, which wait in `records` [T, H, RECORD]; after the last one the total is left
// in `part`.
template <class T, int D, int R>
__device__ __forceinline__ void merge_split(Running<T, D> (&part)[R], float* records, const Rows& rows, int first_row, int kv_head,
                                            int heads, bool first, bool last) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int tile = 0; tile < R; tile++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      Running<T, D>& own = part[tile];
      const int row = first_row + tile * WARP_ROWS + half * 8 + g;
      float* record = row < rows.num_rows ? records + rows.place(row, heads * RECORD<D>, kv_head, RECORD<D>) : nullptr;
      const bool has_total = !first && record != nullptr;
      const float largest = has_total ? record[0] : -INFINITY, sum = has_total ? record[1] : 0.0f;
      const MergeWeights weights(largest, own.largest[half]);
      own.largest[half] = fmaxf(largest, own.largest[half]);
      own.sum[half] = weights.merged(sum, row_sum(own.sum[half]));
#pragma unroll
      for (int n = 0; n < D / 8; n++) {
        const float2 total = has_total ? *reinterpret_cast<const float2*>(record + 4 + n * 8 + 2 * t) : float2{0.0f, 0.0f};
        own.outputs[n].at[2 * half] = weights.merged(total.x, own.outputs[n].at[2 * half]);
        own.outputs[n].at[2 * half + 1] = weights.merged(total.y, own.outputs[n].at[2 * half + 1]);
      }
      if (last) continue;
      __syncwarp();  // all four lanes of a row have read its largest and sum
      if (record == nullptr) continue;
      if (t == 0) record[0] = own.largest[half], record[1] = own.sum[half];
#pragma unroll
      for (int n = 0; n < D / 8; n++)
        *reinterpret_cast<float2*>(record + 4 + n * 8 + 2 * t) = {own.outputs[n].at[2 * half], own.outputs[n].at[2 * half + 1]};
    }
    if (!last) part[tile].clear();
  }
}

template <class T, class KV, int D>
__device__ __forceinline__ void prefill(const Step<T, KV>& step, const unsigned* cu_seqlens_q, const unsigned* items,
                                        const unsigned* num_items, const float* sinks, float* records, T* out, int stages) {
  DYNAMIC_SHARED(unsigned char, shared);
  if (blockIdx.x >= *num_items) return;
  constexpr int R = ROW_TILES<T, D>, WARPS = PREFILL_WARPS<T, D>, BLOCK_ROWS = WARPS * R * WARP_ROWS;
  const int kv_head = blockIdx.y, warp = threadIdx.x / 32;
  const unsigned sequence = items[2 * blockIdx.x];
  const int block_row = items[2 * blockIdx.x + 1], first_row = block_row + warp * R * WARP_ROWS;
  Running<T, D> running[R];
#pragma unroll
  for (int tile = 0; tile < R; tile++) running[tile].clear();
  {
    const Rows rows = prefill_rows(step, cu_seqlens_q, sequence);
    const Queries<T, D, R> queries(shared + stages * Stage<KV, D>::BYTES + warp * Queries<T, D, R>::KEPT_BYTES,
                                   [&](int row) { return rows.query<T, D>(step.rows, step.row_width, kv_head, first_row + row); });
    Sight sight[R];
#pragma unroll
    for (int tile = 0; tile < R; tile++) sight[tile] = rows.sight(first_row + tile * WARP_ROWS, step.window);
    const int lowest = rows.position(block_row), highest = rows.position(block_row + BLOCK_ROWS - 1);
    const int seen = step.window == 0 || lowest < step.window ? 0 : lowest - step.window + 1;
    // Where rows lie is found anew when it is wanted, so as not to be held in registers all the while.
    walk<T, KV, D, R, 32 * WARPS>(running, step, Source<KV, D>(step, sequence, kv_head), queries, sight, rows.context, seen / TILE,
                                  highest / TILE + 1, stages, shared, [&](bool first, bool last) {
                                    const Rows here = prefill_rows(step, cu_seqlens_q, sequence);
                                    merge_split<T, D, R>(running, records, here, first_row, kv_head, step.heads, first, last);
                                  });
  }
  __syncthreads();  // nobody reads a tile any more
  const Rows rows = prefill_rows(step, cu_seqlens_q, sequence);
  T* staged = reinterpret_cast<T*>(shared) + warp * WARP_ROWS * D;
#pragma unroll
  for (int tile = 0; tile < R; tile++)
    store_rows<T, D>(running[tile].outputs, running[tile].largest, running[tile].sum, staged, rows, first_row + tile * WARP_ROWS, kv_head, sinks,
                     step.heads, out);
}

// ---- entries. `items` are pairs (sequence, split) or (sequence, first packed row); `num_items` is one number

#define STEP_PARAMETERS(T, KV)                                                                                                       \
  const T *rows, int row_width, const KV *keys, const KV *values, const unsigned *context_lens, const unsigned *cu_blocks,           \
      const unsigned *block_tables, int heads, int kv_heads, int block_size, float scale, int window, float soft_cap
#define STEP(T, KV)                                                                                                                  \
  Step<T, KV> {                                                                                                                      \
    rows, row_width, keys, values, context_lens, cu_blocks, block_tables, heads, kv_heads, block_size, scale, window, soft_cap       \
  }

// Grid and dynamic shared memory: decoding [items or more, Hkv, 16-row parts of a group], `stages` (1 to 4) times Stage::BYTES and
// Queries::KEPT_BYTES per warp; prefill [items or more, Hkv], the same, and no less than 16 rows of outputs per warp. `records` may be null
// where no context is longer than a split. Block sizes are powers of two from 32 on; rows are multiples of 16 bytes apart.
#define ATTENTION(NAME, T, KV, D)                                                                                                    \
  RESIDENT_ENTRY(32, 8, pairwright_attention_decode_##NAME##_##D, STEP_PARAMETERS(T, KV), const unsigned* first_rows,                \
                 const unsigned* items, const unsigned* num_items, float* partials, int stages) {                                    \
    decode<T, KV, D>(STEP(T, KV), first_rows, items, num_items, partials, stages);                                                   \
  }                                                                                                                                  \
  RESIDENT_ENTRY((32 * PREFILL_WARPS<T, D>), (PREFILL_BLOCKS<T, D>), pairwright_attention_prefill_##NAME##_##D,                      \
                 STEP_PARAMETERS(T, KV), const unsigned* cu_seqlens_q, const unsigned* items, const unsigned* num_items,             \
                 const float* sinks, float* records, T* out, int stages) {                                                           \
    prefill<T, KV, D>(STEP(T, KV), cu_seqlens_q, items, num_items, sinks, records, out, stages);                                     \
  }
// Prefill by warpgroups: grid [items or more, Hkv], and shared memory for GroupShape's pieces and LINES_ALIGNMENT bytes more.
#ifdef HAS_WARPGROUPS
#define GROUP_PREFILL(T, D)                                                                                                          \
  RESIDENT_ENTRY(GroupShape<D>::THREADS, 1, pairwright_attention_group_prefill_##T##_##D, STEP_PARAMETERS(T, T),                     \
                 const unsigned* cu_seqlens_q, const unsigned* items, const unsigned* num_items, const float* sinks, T* out) {       \
    group_prefill<T, D>(STEP(T, T), cu_seqlens_q, items, num_items, sinks, out);                                                     \
  }
#define GROUP_PREFILLS(D) GROUP_PREFILL(f16, D) GROUP_PREFILL(bf16, D)
GROUP_PREFILLS(64)
GROUP_PREFILLS(128)
GROUP_PREFILLS(256)
#endif
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
