// Token embedding: rows of a table, times a factor. Knows token ids as row numbers and nothing else about them.
#include "common.cuh"

template <int LEN, class T>
__device__ __forceinline__ void gather_row(const T* source, T* target, int width, float factor) {
  for (int first = int(threadIdx.x) * LEN; first < width; first += int(blockDim.x) * LEN) {
    Span<LEN> run{};
    if (source) run = load_span<LEN>(source + first);
#pragma unroll
    for (int i = 0; i < LEN; i++) run.at[i] *= factor;
    store_span(target + first, run);
  }
}

// Row i is row ids[i] of the table times `factor`, or zeros for NO_ROW. One block per row.
#define GATHER(NAME, T)                                                                                         \
  ENTRY(1024, pairwright_gather_##NAME, const T* table, const unsigned* ids, T* out, int width, float factor) { \
    const unsigned id = ids[blockIdx.x];                                                                        \
    const T* source = id == NO_ROW ? nullptr : table + size_t(id) * width;                                      \
    T* target = out + size_t(blockIdx.x) * width;                                                               \
    if (width % Piece<T>::LEN == 0 && are_aligned(source, target)) {                                            \
      gather_row<Piece<T>::LEN>(source, target, width, factor);                                                 \
    } else {                                                                                                    \
      gather_row<1>(source, target, width, factor);                                                             \
    }                                                                                                           \
  }
GATHER(f32, float)
GATHER(f16, f16)
GATHER(bf16, bf16)
