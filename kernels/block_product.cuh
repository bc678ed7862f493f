// The product with a matrix kept in quantised blocks, y = x Wᵀ + b: quants are widened where tensor cores want them, each for 64 rows of x at a
// time, so that weights cross the memory as few bits as they are. Knows panels of quants and scales; knows no file's layout of them.
#pragma once
#include "product_tile.cuh"

// A unit has 32 outputs by 64 inputs: quants of 4 bits (of formats of 8 bits all 8), what 5 and 6 bits have above these, scales. Units lie
// one behind the other along k, panels of 32 outputs one behind the other, matrices too. With groups of 32 inputs and t = 0..3, lane part t
// of a group has inputs 2t, 2t + 1, 2t + 8, 2t + 9, and these + 16: number i of 8, as tensor cores want right sides.
//   low    [2 groups][32 outputs][4 t] words, quant i in bits 4i; of 8 bits [2 groups][2 halves of i][32][4] words, quant i in bits 8 (i % 4)
//   high   [2][32][4], of 5 bits a byte, quant i in bit i; of 6 bits two, quant i in bits 2i
//   scales [2 groups][32] pairs of f16, (scale, min) of a group; or [32] of them, then [32][2 groups] pairs of bytes that multiply these:
//          (scale, min), or with 6 bits signed scales of the group's halves
template <int BITS>
struct Unit {
  static constexpr int OUTPUTS = 32, INPUTS = 64, GROUP = 32;
  static constexpr int HIGH = BITS == 8 ? 2048 : 1024, SCALES = HIGH + (BITS == 5 ? 256 : BITS == 6 ? 512 : 0), BYTES = SCALES + 256;
};

// Quant i of lane part t is worth scale[i / 4] * (quant - zero) + offset.
struct GroupScale { float scale[2], offset; };

template <int BITS, bool IS_LONG>
__device__ __forceinline__ GroupScale read_scale(const unsigned char* unit, int output, int group) {
  const f16* pairs = reinterpret_cast<const f16*>(unit + Unit<BITS>::SCALES);
  if constexpr (!IS_LONG) {
    const f16* pair = pairs + (group * 32 + output) * 2;
    const float scale = to_f32(pair[0]);
    return {{scale, scale}, -to_f32(pair[1])};
  } else {
    const float scale = to_f32(pairs[output * 2]), least = to_f32(pairs[output * 2 + 1]);
    const unsigned char* factors = unit + Unit<BITS>::SCALES + 128 + output * 4 + group * 2;
    if constexpr (BITS == 6) {
      return {{scale * float(int8_t(factors[0])), scale * float(int8_t(factors[1]))}, 0.0f};
    } else {
      return {{scale * float(factors[0]), scale * float(factors[0])}, -(least * float(factors[1]))};
    }
  }
}

// The eight numbers of lane part t, widened.
template <int BITS, bool IS_LONG>
__device__ __forceinline__ void widen_eight(float (&values)[8], const unsigned char* unit, int output, int group, int t, float zero) {
  const GroupScale scale = read_scale<BITS, IS_LONG>(unit, output, group);
  // A quant in the last bits of 2^23 is that number and it.
  const float origin = 0x1p23f + zero;
  const auto word = [&](int row) { return reinterpret_cast<const unsigned*>(unit)[row * 4 + t]; };
  unsigned high = 0;
  const int place = (group * 32 + output) * 4 + t;
  if constexpr (BITS == 5) high = unit[Unit<BITS>::HIGH + place];
  if constexpr (BITS == 6) high = reinterpret_cast<const uint16_t*>(unit + Unit<BITS>::HIGH)[place];
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const unsigned low = BITS == 8 ? word((group * 2 + half) * 32 + output) : word(group * 32 + output) >> 16 * half;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      unsigned quant = BITS == 8 ? low >> 8 * i & 255 : low >> 4 * i & 15;
      if constexpr (BITS == 5) quant |= (high >> (half * 4 + i) & 1) << 4;
      if constexpr (BITS == 6) quant |= (high >> 2 * (half * 4 + i) & 3) << 4;
      values[half * 4 + i] = fmaf(scale.scale[half], __uint_as_float(0x4b000000u | quant) - origin, scale.offset);
    }
  }
}

// Which inputs lane part t has: number i of group `group` of a unit.
__device__ __forceinline__ int input_of(int group, int t, int i) { return group * 32 + i / 4 * 16 + i % 4 / 2 * 8 + 2 * t + i % 2; }

// What a product is of. Rows of x are those of `rows` (null: as they lie), grouped by matrix between `bounds` (null: all num_rows are of
// the one matrix). y's rows are `width` apart, its columns begin at `first`; it is of f32 if `is_wide`, else of x's format.
template <class T>
struct BlockProduct {
  const T* x;
  const unsigned* rows;
  const unsigned* bounds;
  const unsigned char* units;
  const float* bias;  // [matrices, out], or null
  void* y;
  int groups, num_rows, in, out, width, first, is_wide;
  float zero;
};

// A tile of 64 rows by COLUMNS outputs by 128 threads; a warp has all rows and COLUMNS / 4 outputs, so that a quant is widened once a tile.
// Grid as for grouped_product, with tiles of COLUMNS outputs. Sums run along k alone and in its order: tiles do not show in a row's bits.
template <class T, int BITS, bool IS_LONG, int COLUMNS>
__device__ __forceinline__ void block_product(const BlockProduct<T>& product) {
  constexpr int STEP = Unit<BITS>::INPUTS, PIECES = STEP / Piece<T>::LEN, PANELS = COLUMNS / 32, EACH = COLUMNS / 32;
  constexpr int HELD = sizeof(T) == 4 ? 2 : 3, BYTES = Unit<BITS>::BYTES;
  struct Stage { Slab<T, PIECES> x; unsigned char units[PANELS][BYTES]; };
  union Memory { Stage stages[HELD]; Sums sums; };
  __align__(16) __shared__ unsigned char bytes[sizeof(Memory)];
  Stage* stages = reinterpret_cast<Stage*>(bytes);
  Sums& result = *reinterpret_cast<Sums*>(bytes);

  const RowTile tile = row_tile(product.bounds, product.groups, product.num_rows, int(blockIdx.x));
  if (tile.rows <= 0) return;
  const int first_column = int(blockIdx.y) * COLUMNS, steps = (product.in + STEP - 1) / STEP, panels = (product.out + 31) / 32;
  const RowSources<T, PIECES> row_sources(product.x, product.rows, tile, product.in);
  const unsigned char* source[PANELS];
#pragma unroll
  for (int i = 0; i < PANELS; i++) {
    // A last panel that is not there has the one before for its numbers, which nobody stores.
    const int panel = min(first_column / 32 + i, panels - 1);
    source[i] = product.units + (size_t(tile.group) * panels + panel) * steps * BYTES;
  }
  const auto copy = [&](int stage, int step) {
    if (step < steps) {
      row_sources.copy(stages[stage].x, step * STEP);
#pragma unroll
      for (int i = 0; i < PANELS; i++) {
#pragma unroll
        for (int byte = threadIdx.x * 16; byte < BYTES; byte += PRODUCT_THREADS * 16) {
          copy_async(stages[stage].units[i] + byte, source[i] + size_t(step) * BYTES + byte, true);
        }
      }
    }
    commit_copies();
  };

  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const int warp_column = warp * (COLUMNS / 4), panel = warp_column / 32, output = warp_column % 32;
  TileSums sums[TILE / 16][EACH] = {};
#pragma unroll
  for (int step = 0; step < HELD - 1; step++) copy(step, step);
  int now = 0, spare = HELD - 1;
  for (int step = 0; step < steps; step++) {
    wait_for_copies<HELD - 2>();
    __syncthreads();
    copy(spare, step + HELD - 1);
    Stage& stage = stages[now];
#pragma unroll 1
    for (int group = 0; group < STEP / Unit<BITS>::GROUP; group++) {
      typename Fragments<T>::B b[EACH][2];
#pragma unroll
      for (int j = 0; j < EACH; j++) {
        float values[8];
        widen_eight<BITS, IS_LONG>(values, stage.units[panel], output + j * 8 + g, group, t, product.zero);
#pragma unroll
        for (int pair = 0; pair < 4; pair++) round_pair(b[j][pair / 2].at[pair % 2], values[2 * pair], values[2 * pair + 1]);
      }
#pragma unroll
      for (int i = 0; i < TILE / 16; i++) {
        if (i * 16 >= tile.rows) break;
#pragma unroll
        for (int half = 0; half < 2; half++) {
          const typename Fragments<T>::A a = left_side(stage.x, i * 16, group * 32 + half * 16);
#pragma unroll
          for (int j = 0; j < EACH; j++) mma<T>(sums[i][j], a, b[j][half]);
        }
      }
    }
    spare = now;
    now = now + 1 == HELD ? 0 : now + 1;
  }
  wait_for_copies<0>();
  __syncthreads();
#pragma unroll
  for (int i = 0; i < TILE / 16; i++) {
#pragma unroll
    for (int j = 0; j < EACH; j++) put<T>(result, sums[i][j], i * 16, warp_column + j * 8);
  }
  __syncthreads();
  const float* bias = product.bias ? product.bias + size_t(tile.group) * product.out + first_column : nullptr;
  const size_t place = size_t(tile.first) * product.width + product.first + first_column;
  const int columns = min(COLUMNS, product.out - first_column);
  store_sums<T>(result, product.y, place, product.is_wide, bias, tile.rows, columns, product.width);
}
