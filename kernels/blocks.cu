// Matrices in quantised blocks: products with them, and rows of a table that is kept so. Knows matrices; the formats are those of
// block_product.cuh, by the number of bits and whether scales are of a group or, with factors (k), of 256 inputs.
#include "block_product.cuh"

// Row ids[i] of the table, or zeros for NO_ROW, to row i of `out`. A block per row.
template <class T, int BITS, bool IS_LONG>
__device__ __forceinline__ void gather_blocks(const unsigned char* units, const unsigned* ids, T* out, int width, float zero) {
  using Here = Unit<BITS>;
  const unsigned id = ids[blockIdx.x];
  const int steps = (width + Here::INPUTS - 1) / Here::INPUTS;
  out += size_t(blockIdx.x) * width;
  for (int part = threadIdx.x; part < steps * 8; part += blockDim.x) {
    const int step = part / 8, group = part / 4 % 2, t = part % 4;
    float values[8] = {};
    if (id != NO_ROW) {
      const unsigned char* unit = units + (size_t(id / 32) * steps + step) * Here::BYTES;
      widen_eight<BITS, IS_LONG>(values, unit, int(id % 32), group, t, zero);
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const int input = step * Here::INPUTS + input_of(group, t, i);
      if (input < width) out[input] = from_f32<T>(values[i]);
    }
  }
}

#define PRODUCT(FORMAT, BITS, IS_LONG, NAME, T, COLUMNS)                                                                                    \
  ENTRY(PRODUCT_THREADS, pairwright_block_product_##FORMAT##_##NAME##_##COLUMNS, const T* x, const unsigned* rows, const unsigned* bounds, \
        const unsigned char* units, const float* bias, void* y, int groups, int num_rows, int in, int out, int width, int first,           \
        int is_wide, float zero) {                                                                                                         \
    block_product<T, BITS, IS_LONG, COLUMNS>({x, rows, bounds, units, bias, y, groups, num_rows, in, out, width, first, is_wide, zero});    \
  }
#define FORMAT(FORMAT, BITS, IS_LONG, NAME, T)                                                                                             \
  PRODUCT(FORMAT, BITS, IS_LONG, NAME, T, 32)                                                                                              \
  PRODUCT(FORMAT, BITS, IS_LONG, NAME, T, 64)                                                                                              \
  ENTRY(512, pairwright_gather_blocks_##FORMAT##_##NAME, const unsigned char* units, const unsigned* ids, T* out, int width, float zero) { \
    gather_blocks<T, BITS, IS_LONG>(units, ids, out, width, zero);                                                                         \
  }
#define BLOCKS(NAME, T)              \
  FORMAT(b4, 4, false, NAME, T)      \
  FORMAT(b5, 5, false, NAME, T)      \
  FORMAT(b8, 8, false, NAME, T)      \
  FORMAT(b4k, 4, true, NAME, T)      \
  FORMAT(b5k, 5, true, NAME, T)      \
  FORMAT(b6k, 6, true, NAME, T)
BLOCKS(f32, float)
BLOCKS(f16, f16)
BLOCKS(bf16, bf16)
