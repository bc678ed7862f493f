// Rotary position embedding with the norms around it (src/ops/rotary/), in place on merged rows [q | k | v], whose keys and values go
// to the cache in the same pass. Knows angles, heads and slots; knows nothing of sequences or of who owns a block.
//
// A head lies in registers: each lane of a group of lanes holds RUN pairs, or as many numbers behind the pairs, so that a rotation is a lane's
// own matter and a norm's sums a few shuffles. Which lane holds what, and with it the order of sums, follows from the head's sizes alone.
#include "common.cuh"

constexpr int WARPS = 8;
constexpr int RUN = 8;
constexpr int RESIDENT = 3;

// Which elements a norm of queries or keys takes together (NormSpan of src/ops/rotary/mod.rs).
enum NormSpan { HEAD, OWN_HEAD, TOKEN };

struct Rules {
  const float* query_norm;  // weights, each or null
  const float* key_norm;
  const float* value_norm;
  int heads, kv_heads, head_dim, pairs, span;
  bool after_rotation, is_layer;
  float eps;
};

// What a norm takes away from numbers, and what it multiplies them by besides the weights.
struct Moments { float mean, scale; };

// Where this lane's numbers lie in a head: two runs. Those of a pair that is rotated have the same place in both; what lies behind the pairs is
// held by further lanes.
template <bool IN_PIECES>
struct Place {
  int first, second, num_first, num_second;
  float share;  // of a head's number in a mean
  bool turns;

  __device__ __forceinline__ Place(const Rules& rules, int group) : share(1.0f / float(rules.head_dim)) {
    const int begin = int(threadIdx.x) % group * RUN, pairs = rules.pairs, behind = begin - (pairs + RUN - 1) / RUN * RUN;
    turns = behind < 0;
    const int rest = rules.head_dim - 2 * pairs, half = (rest + 2 * RUN - 1) / (2 * RUN) * RUN;
    first = turns ? begin : 2 * pairs + behind;
    second = turns ? begin + pairs : 2 * pairs + half + behind;
    num_first = turns ? min(pairs - begin, RUN) : max(min(min(rest, half) - behind, RUN), 0);
    num_second = turns ? num_first : max(min(rest - half - behind, RUN), 0);
  }
};

// Numbers as they come from memory: `count` of them, and zeros. IN_PIECES: that is none or all, and the address a multiple of 16.
template <class T>
struct __align__(16) Run { T at[RUN]; };
template <bool IN_PIECES, class T>
__device__ __forceinline__ void load_run(Run<T>& run, const T* from, int count) {
  if constexpr (IN_PIECES) {
#pragma unroll
    for (int i = 0; i < RUN; i++) run.at[i] = from_f32<T>(0.0f);
    if (count == 0) return;
#pragma unroll
    for (int i = 0; i < RUN; i += Piece<T>::LEN) store_piece(run.at + i, load_piece(from + i));
  } else {
#pragma unroll
    for (int i = 0; i < RUN; i++) run.at[i] = i < count ? from[i] : from_f32<T>(0.0f);
  }
}
template <class T>
__device__ __forceinline__ Run<T> rounded_run(const Span<RUN>& run) {
  Run<T> rounded;
#pragma unroll
  for (int i = 0; i < RUN; i += 2) {
    T pair[2];
    round_pair(pair, run.at[i], run.at[i + 1]);
    rounded.at[i] = pair[0], rounded.at[i + 1] = pair[1];
  }
  return rounded;
}
// `at(index)`: where a head's number goes, and those behind it within 16 bytes.
template <bool IN_PIECES, class T, class At>
__device__ __forceinline__ void store_run(At at, int begin, const Span<RUN>& run, int count) {
  const Run<T> rounded = rounded_run<T>(run);
  if constexpr (IN_PIECES) {
    if (count == 0) return;
    constexpr int LEN = Piece<T>::LEN < RUN ? Piece<T>::LEN : RUN;
    struct __align__(LEN * sizeof(T)) Part { T at[LEN]; };
#pragma unroll
    for (int i = 0; i < RUN; i += LEN) *reinterpret_cast<Part*>(at(begin + i)) = *reinterpret_cast<const Part*>(rounded.at + i);
  } else {
#pragma unroll
    for (int i = 0; i < RUN; i++) {
      if (i < count) *at(begin + i) = rounded.at[i];
    }
  }
}

// A head on its way, asked for while another is computed.
template <class T>
struct Coming {
  Run<T> first, second;

  template <bool IN_PIECES>
  __device__ __forceinline__ void ask(const T* head, const Place<IN_PIECES>& place) {
    load_run<IN_PIECES>(first, head + place.first, place.num_first);
    load_run<IN_PIECES>(second, head + place.second, place.num_second);
  }
};

// This lane's part of a head; zeros where it has less.
struct Head {
  Span<RUN> first, second;

  template <class T>
  __device__ __forceinline__ explicit Head(const Coming<T>& coming) {
#pragma unroll
    for (int i = 0; i < RUN; i++) first.at[i] = to_f32(coming.first.at[i]), second.at[i] = to_f32(coming.second.at[i]);
  }
  template <class T, bool IN_PIECES, class At>
  __device__ __forceinline__ void store(At at, const Place<IN_PIECES>& place) const {
    store_run<IN_PIECES, T>(at, place.first, first, place.num_first);
    store_run<IN_PIECES, T>(at, place.second, second, place.num_second);
  }
  __device__ __forceinline__ void scale(float factor) {
#pragma unroll
    for (int i = 0; i < RUN; i++) first.at[i] *= factor, second.at[i] *= factor;
  }

  // `turn`: cos and sin of this lane's pairs. They are read for each head again: near as they are, they are not worth 16 registers.
  template <bool IN_PIECES>
  __device__ __forceinline__ void rotate(const float* turn, const Place<IN_PIECES>& place) {
    if (!place.turns) return;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      Run<float> cos_sin;
      load_run<IN_PIECES>(cos_sin, turn + half * RUN, 2 * place.num_first - half * RUN);
#pragma unroll
      for (int i = 0; i < RUN / 2; i++) {
        const float cos = cos_sin.at[2 * i], sin = cos_sin.at[2 * i + 1];
        float &x = first.at[half * RUN / 2 + i], &y = second.at[half * RUN / 2 + i];
        const float turned = fmaf(x, cos, -y * sin);
        y = fmaf(y, cos, x * sin);
        x = turned;
      }
    }
  }
  __device__ __forceinline__ float sum_of_squares() const {
    float sums[2] = {0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < RUN; i++) sums[0] = fmaf(first.at[i], first.at[i], sums[0]), sums[1] = fmaf(second.at[i], second.at[i], sums[1]);
    return sums[0] + sums[1];
  }
  __device__ __forceinline__ float sum() const {
    float sums[2] = {0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < RUN; i++) sums[0] += first.at[i], sums[1] += second.at[i];
    return sums[0] + sums[1];
  }
  // The mean is taken away before anything else is done, and zeros are kept.
  template <bool IN_PIECES>
  __device__ __forceinline__ void centre(float mean, const Place<IN_PIECES>& place) {
#pragma unroll
    for (int i = 0; i < RUN; i++) {
      if (i < place.num_first) first.at[i] -= mean;
      if (i < place.num_second) second.at[i] -= mean;
    }
  }
  template <bool IN_PIECES>
  __device__ __forceinline__ void norm(const float* weight, float scale, const Place<IN_PIECES>& place) {
    Run<float> run;
    load_run<IN_PIECES>(run, weight + place.first, place.num_first);
#pragma unroll
    for (int i = 0; i < RUN; i++) first.at[i] = first.at[i] * scale * run.at[i];
    load_run<IN_PIECES>(run, weight + place.second, place.num_second);
#pragma unroll
    for (int i = 0; i < RUN; i++) second.at[i] = second.at[i] * scale * run.at[i];
  }
};

// Over a group of lanes, whose number is a power of 2; by the whole warp.
__device__ __forceinline__ float group_sum(float x, int group) {
#pragma unroll 1
  for (int distance = group / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(0xffffffffu, x, distance);
  return x;
}
template <bool IN_PIECES>
__device__ __forceinline__ float head_scale(const Head& head, const Place<IN_PIECES>& place, int group, float eps) {
  return rsqrtf(group_sum(head.sum_of_squares(), group) * place.share + eps);
}

template <class KV>
struct Cache {
  KV* keys;    // [blocks, Hkv, block size, D], or null: nothing goes anywhere
  KV* values;  // [blocks, Hkv, D, block size]
  int block_size;
};

// A token's queries and keys, or every `parts`th round of them: in a round each group of the warp's lanes has a head.
template <bool IN_PIECES, class T>
struct Heads {
  T* row;
  const Rules& rules;
  const Place<IN_PIECES> place;
  int group, begin, step;
  Coming<T> coming;
  const float* turn;

  __device__ __forceinline__ Heads(T* row, const Rules& rules, int group, int first_round, int parts)
      : row(row), rules(rules), place(rules, group), group(group),
        begin(first_round * (32 / group) + int(threadIdx.x) % 32 / group), step(parts * (32 / group)) {
    ask(begin);
  }
  __device__ __forceinline__ int count() const { return rules.heads + rules.kv_heads; }
  __device__ __forceinline__ void ask(int number) {
    if (number < count()) coming.ask(row + number * rules.head_dim, place);
  }
  // Calls each(head, its number among queries and keys, is it there), whole warps at once; the first head has been asked for.
  template <class Each>
  __device__ __forceinline__ void for_each(Each each) {
#pragma unroll 1
    for (int number = begin; number - begin % (32 / group) < count(); number += step) {
      Head head(coming);
      ask(number + step);
      each(head, number, number < count());
    }
  }

  // Of all queries and of all keys, by the block: the norms of Span TOKEN. Heads are read once more for each sum.
  __device__ __forceinline__ void token_moments(Moments* whole, float* scratch) {
#pragma unroll 1
    for (int power = rules.is_layer ? 1 : 2; power <= 2; power++) {
      float sums[2] = {0.0f, 0.0f};
      for_each([&](Head& head, int number, bool there) {
        const int part = number >= rules.heads;
        if (rules.after_rotation) head.rotate(turn, place);
        if (rules.is_layer && power == 2) head.centre(whole[part].mean, place);
        const float sum = power == 1 ? head.sum() : head.sum_of_squares();
        if (there) sums[0] += part ? 0.0f : sum, sums[1] += part ? sum : 0.0f;
      });
      ask(begin);
#pragma unroll
      for (int part = 0; part < 2; part++) {
        const float mean = block_sum(sums[part], scratch) / float(max(part ? rules.kv_heads : rules.heads, 1) * rules.head_dim);
        if (threadIdx.x == 0 && power == 1) whole[part].mean = mean;
        if (threadIdx.x == 0 && power == 2) whole[part].scale = 1.0f / sqrtf(mean + rules.eps);
      }
      __syncthreads();
    }
  }

  // Norm and rotation. `norm`: the weights for this head, or null. `whole`: what Span TOKEN has found, in shared memory.
  __device__ __forceinline__ void treat(Head& head, const float* norm, const Moments* whole) {
    const bool has_norms = rules.query_norm || rules.key_norm;
    if (!has_norms || rules.after_rotation) head.rotate(turn, place);
    if (!has_norms) return;
    if (rules.is_layer) {
      const float mean = whole ? whole->mean : group_sum(head.sum(), group) * place.share;
      if (norm) head.centre(mean, place);
    }
    const float scale = whole ? whole->scale : head_scale(head, place, group, rules.eps);
    if (norm) head.norm(norm, scale, place);
    if (!rules.after_rotation) head.rotate(turn, place);
  }
};

template <bool IN_PIECES, class T, class KV>
__device__ __forceinline__ void rotate_token(T* row, const unsigned* position, const int* slot, const float* cos_sin, float growth_beta,
                                             float growth_original, const Cache<KV>& cache, const Rules& rules, int group, int first_round,
                                             int parts) {
  __shared__ float scratch[32];
  __shared__ Moments whole[2];
  Heads<IN_PIECES, T> heads(row, rules, group, first_round, parts);
  const int to = slot ? *slot : 0;
  if (to < 0) return;
  const int dim = rules.head_dim;
  heads.turn = cos_sin + size_t(*position) * rules.pairs * 2 + 2 * heads.place.first;
  const float growth = growth_beta == 0.0f ? 1.0f : 1.0f + growth_beta * logf(1.0f + floorf(float(*position) / growth_original));
  const bool is_whole = rules.span == TOKEN && (rules.query_norm || rules.key_norm);
  if (is_whole) heads.token_moments(whole, scratch);
  KV* keys = cache.keys;
  if (keys) keys += (size_t(to / cache.block_size) * rules.kv_heads * cache.block_size + to % cache.block_size) * dim;
  heads.for_each([&](Head& head, int number, bool there) {
    const bool is_key = number >= rules.heads;
    const int own = is_key ? number - rules.heads : number;
    const float* norm = is_key ? rules.key_norm : rules.query_norm;
    if (!there) norm = nullptr;
    if (norm && rules.span != HEAD) norm += own * dim;
    heads.treat(head, norm, is_whole ? whole + is_key : nullptr);
    if (!is_key && growth != 1.0f) head.scale(growth);
    if (!there) return;
    head.template store<T>([&](int index) { return row + number * dim + index; }, heads.place);
    if (!is_key || !keys) return;
    head.template store<KV>([&](int index) { return keys + own * cache.block_size * dim + index; }, heads.place);
  });
}

// Values of some tokens in shared memory, a token's in a row. Pieces of 16 bytes are exchanged within 128 bytes, so that neither those who
// read a piece of each of some neighbours nor those who read it of each eighth meet at a bank; but numbers that come one by one stay in place.
template <bool IN_PIECES, class KV>
struct Tile {
  static constexpr int WORD = 4 / sizeof(KV);  // numbers that are read at once
  unsigned char* bytes;
  int pitch;

  __device__ __forceinline__ Tile(unsigned char* bytes, int dim)
      : bytes(bytes), pitch((dim * int(sizeof(KV)) + 127) / 128 * 128) {}
  __device__ __forceinline__ KV* at(int token, int index) const {
    const int byte = index * int(sizeof(KV)), piece = byte / 16 ^ (IN_PIECES ? (token + 2 * (token / 8)) % 8 : 0);
    return reinterpret_cast<KV*>(bytes + token * pitch + piece * 16 + byte % 16);
  }
  struct __align__(4) Word { KV at[WORD]; };
  __device__ __forceinline__ Word word(int token, int number) const { return *reinterpret_cast<const Word*>(at(token, number * WORD)); }
};

// Of 64 tokens at most, as bits: those whose slots begin a whole piece of the cache that this block's tokens fill, and those that are in none.
struct Runs {
  unsigned long long pieces = 0, singles = 0;

  // By each warp for itself. `len`: slots of a piece; 1: pieces are not to be had.
  __device__ __forceinline__ Runs(const int* slots, int count, int len) {
    const int lane = threadIdx.x % 32;
    unsigned long long follows = 0;  // those that the next one's slot follows
    const unsigned long long all = (1ull << (len - 1)) - 1;
    int own[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int token = half * 32 + lane;
      own[half] = token < count ? slots[token] : -1;
      const int next = token + 1 < count ? slots[token + 1] : -1;
      follows |= (unsigned long long)__ballot_sync(0xffffffffu, own[half] >= 0 && next == own[half] + 1) << half * 32;
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const bool begins = len > 1 && own[half] >= 0 && own[half] % len == 0 && (follows >> (half * 32 + lane) & all) == all;
      pieces |= (unsigned long long)__ballot_sync(0xffffffffu, begins) << half * 32;
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int begin = half * 32 + lane - max(own[half], 0) % len;
      const bool is_in = len > 1 && begin >= 0 && (pieces >> begin & 1);
      singles |= (unsigned long long)__ballot_sync(0xffffffffu, own[half] >= 0 && !is_in) << half * 32;
    }
  }
  // Without the lowest `count`.
  static __device__ __forceinline__ unsigned long long without(unsigned long long bits, int count) {
    for (; count > 0; count--) bits &= bits - 1;
    return bits;
  }
  static __device__ __forceinline__ int lowest(unsigned long long bits) { return __ffsll((long long)bits) - 1; }
};

// From shared memory to the cache, by the block.
template <bool IN_PIECES, class KV>
__device__ __forceinline__ void store_values(const Tile<IN_PIECES, KV>& tile, const int* slots, int count, int number, const Cache<KV>& cache,
                                             const Rules& rules) {
  constexpr int WORD = Tile<IN_PIECES, KV>::WORD, LEN = Piece<KV>::LEN;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, dim = rules.head_dim, size = cache.block_size;
  const Runs runs(slots, count, size % LEN == 0 && are_aligned(cache.values) ? LEN : 1);
  const auto column = [&](int token) {
    const int slot = slots[token];
    return cache.values + (size_t(slot / size) * rules.kv_heads + number) * dim * size + slot % size;
  };
  // Neighbouring lanes have neighbouring pieces of the cache: four are 64 bytes.
  for (unsigned long long left = Runs::without(runs.pieces, lane % 4); left; left = Runs::without(left, 4)) {
    const int token = Runs::lowest(left);
    KV* to = column(token);
    for (int word = warp * 8 + lane / 4; word * WORD < dim; word += WARPS * 8) {
      Piece<KV> pieces[WORD];
#pragma unroll
      for (int i = 0; i < LEN; i++) {
        const auto of_token = tile.word(token + i, word);
#pragma unroll
        for (int j = 0; j < WORD; j++) pieces[j].at[i] = of_token.at[j];
      }
#pragma unroll
      for (int j = 0; j < WORD; j++) {
        if (word * WORD + j < dim) store_piece(to + (word * WORD + j) * size, pieces[j]);
      }
    }
  }
  for (unsigned long long left = Runs::without(runs.singles, lane % 8); left; left = Runs::without(left, 8)) {
    const int token = Runs::lowest(left);
    KV* to = column(token);
    for (int word = warp * 4 + lane / 8; word * WORD < dim; word += WARPS * 4) {
      const auto of_token = tile.word(token, word);
#pragma unroll
      for (int j = 0; j < WORD; j++) {
        if (word * WORD + j < dim) to[(word * WORD + j) * size] = of_token.at[j];
      }
    }
  }
}

// Head `number` of the values of `count` tokens, by the block; a group of lanes has a token at a time.
template <bool IN_PIECES, class T, class KV>
__device__ __forceinline__ void place_values(T* rows, int row_width, const int* slots, int count, int number, const Cache<KV>& cache,
                                             const Rules& rules, int group) {
  DYNAMIC_SHARED(unsigned char, shared);
  const Place<IN_PIECES> place(rules, group);
  const Tile<IN_PIECES, KV> tile(shared, rules.head_dim);
  T* heads = rows + size_t(rules.heads + rules.kv_heads + number) * rules.head_dim;
  const int own = int(threadIdx.x) / group, at_once = WARPS * 32 / group;
  Coming<T> coming;
  const auto ask = [&](int token) {
    if (token < count) coming.ask(heads + size_t(token) * row_width, place);
  };
  ask(own);
#pragma unroll 1
  for (int token = own; token - own < count; token += at_once) {
    Head head(coming);
    ask(token + at_once);
    const bool there = token < count && (!slots || slots[token] >= 0);
    if (rules.value_norm) {
      const float scale = head_scale(head, place, group, rules.eps);
      head.norm(rules.value_norm, scale, place);
      T* row = heads + size_t(token) * row_width;
      if (there) head.template store<T>([&](int index) { return row + index; }, place);
    }
    if (there && cache.keys) head.template store<KV>([&](int index) { return tile.at(token, index); }, place);
  }
  if (!cache.keys) return;
  __syncthreads();
  store_values(tile, slots, count, number, cache, rules);
}

template <bool IN_PIECES, class T, class KV>
__device__ __forceinline__ void rotate_block(T* rows, int row_width, const unsigned* positions, const int* slots, const float* cos_sin,
                                             float growth_beta, float growth_original, const Cache<KV>& cache, const Rules& rules,
                                             int tokens, int group, int parts, int at_once) {
  const unsigned value_blocks = at_once > 0 ? (tokens + at_once - 1) / at_once * rules.kv_heads : 0;
  if (blockIdx.x < value_blocks) {
    const int first = int(blockIdx.x) / rules.kv_heads * at_once, number = int(blockIdx.x) % rules.kv_heads;
    return place_values<IN_PIECES>(rows + size_t(first) * row_width, row_width, slots ? slots + first : nullptr,
                                   min(at_once, tokens - first), number, cache, rules, group);
  }
  const unsigned number = (blockIdx.x - value_blocks) * WARPS + threadIdx.x / 32, token = number / parts;
  if (token >= unsigned(tokens)) return;
  rotate_token<IN_PIECES>(rows + size_t(token) * row_width, positions + token, slots ? slots + token : nullptr, cos_sin, growth_beta,
                          growth_original, cache, rules, group, int(number % parts), parts);
}

// Blocks of 256 threads. First those of values, `at_once` tokens (64 at most; 0: there are no such blocks) of a head to a block, with
// shared memory for them; then those of queries and keys, of which `parts` warps have a token's. A head is held by `group` lanes, a power
// of 2. Neither `parts` nor `at_once` changes a bit, but with Span TOKEN `parts` has to be 8, a block's warps.
// A token with a negative slot is padding: nothing of it is written.
// Queries grow by 1 + beta ln(1 + floor(position / original)); beta 0: not at all.
#define ROTARY(NAME, T, KV)                                                                                                               \
  RESIDENT_ENTRY(32 * WARPS, RESIDENT, pairwright_rotary_##NAME, T* rows, int row_width, const unsigned* positions, const int* slots,     \
                 KV* keys, KV* values, const float* cos_sin, const float* query_norm, const float* key_norm, const float* value_norm,     \
                 int heads, int kv_heads, int head_dim, int pairs, int block_size, int span, int after_rotation, int is_layer, float eps, \
                 float growth_beta, float growth_original, int tokens, int group, int parts, int at_once) {                               \
    const Cache<KV> cache{slots ? keys : nullptr, values, block_size};                                                                    \
    const Rules rules{query_norm, key_norm, value_norm, heads, kv_heads, head_dim, pairs, span, after_rotation != 0, is_layer != 0, eps}; \
    const bool has_runs = head_dim % RUN == 0 && pairs % RUN == 0 && row_width % RUN == 0;                                                \
    if (has_runs && are_aligned(rows, cos_sin, cache.keys, query_norm, key_norm, value_norm)) {                                           \
      rotate_block<true>(rows, row_width, positions, slots, cos_sin, growth_beta, growth_original, cache, rules, tokens, group, parts,    \
                         at_once);                                                                                                        \
    } else {                                                                                                                              \
      rotate_block<false>(rows, row_width, positions, slots, cos_sin, growth_beta, growth_original, cache, rules, tokens, group, parts,   \
                          at_once);                                                                                                       \
    }                                                                                                                                     \
  }
ROTARY(f32, float, float)
ROTARY(f16, f16, f16)
ROTARY(bf16, bf16, bf16)
ROTARY(f32_fp8, float, fp8)
ROTARY(f16_fp8, f16, fp8)
ROTARY(bf16_fp8, bf16, fp8)
