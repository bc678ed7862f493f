// Products by four warps at once, of lines in shared memory, on Hopper's tensor cores; beside a plain twin for the CPU. They run while the threads
// go on, until they are waited for. Knows lines and sums; knows no operation.
#pragma once
#include "mma.cuh"

// What these instructions take is there in code for sm_90a alone.
#if defined(PAIRWRIGHT_HOST) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HAS_WARPGROUPS 1

constexpr int WARPGROUP = 128, WARPGROUP_ROWS = 64;
// Bytes of a line, which is a part of a row or column along what is summed over; a product takes a quarter of it.
constexpr int LINE_BYTES = 128, LINE_PIECES = LINE_BYTES / 16, LINE_PARTS = 4;

// Lines in shared memory begin at a multiple of so many bytes: eight of them, within which pieces change places.
constexpr int LINES_ALIGNMENT = 8 * LINE_BYTES;
// Where the piece `number` of a line lies (PTX ISA, asynchronous warpgroup matrices: 128-byte swizzle).
struct LinePlace {
  __device__ __forceinline__ static int of(int line, int number) { return line * LINE_PIECES + (number ^ line % 8); }
};

// The first address from this one on, in shared memory, where lines may begin.
template <class T>
__device__ __forceinline__ T* aligned_lines(T* shared) {
#ifdef PAIRWRIGHT_HOST
  const auto address = reinterpret_cast<uintptr_t>(shared);
#else
  const auto address = __cvta_generic_to_shared(shared);
#endif
  return reinterpret_cast<T*>(reinterpret_cast<unsigned char*>(shared) + (LINES_ALIGNMENT - address % LINES_ALIGNMENT) % LINES_ALIGNMENT);
}

// Lines from an address in shared memory on, as a product is told of them (PTX ISA, matrix descriptor): the address, the bytes from eight lines
// to the next eight, and that pieces lie as in `LinePlace`. In units of 16 bytes, as is what moves it along.
struct Lines {
  uint64_t descriptor;

  __device__ __forceinline__ explicit Lines(const void* shared) {
    constexpr uint64_t EIGHT_LINES = LINES_ALIGNMENT >> 4, PLACES_128 = 1;
#ifdef PAIRWRIGHT_HOST
    const uint64_t address = uint64_t(static_cast<const unsigned char*>(shared) - static_cast<unsigned char*>(host::dynamic_shared()));
#else
    const uint64_t address = __cvta_generic_to_shared(shared);
#endif
    descriptor = (address >> 4 & 0x3fff) | uint64_t(1) << 16 | EIGHT_LINES << 32 | PLACES_128 << 62;
  }
  __device__ __forceinline__ Lines part(int number) const {
    Lines moved = *this;
    moved.descriptor += uint64_t(number * (LINE_BYTES / LINE_PARTS >> 4));
    return moved;
  }

#ifdef PAIRWRIGHT_HOST
  // Number `k` of a line, from the first of this part on, read as the hardware is described to read it.
  template <class T>
  T at(int line, int k) const {
    const uint64_t stride = (descriptor >> 32 & 0x3fff) << 4;
    uint64_t address = ((descriptor & 0x3fff) << 4) + uint64_t(line / 8) * stride + uint64_t(line % 8 * LINE_BYTES) + uint64_t(k) * sizeof(T);
    if (descriptor >> 62 == 1 && !host::misreads_lines) address ^= (address >> 7 & 7) << 4;
    T number;
    memcpy(&number, static_cast<unsigned char*>(host::dynamic_shared()) + address, sizeof number);
    return number;
  }
#endif
};

// What a thread holds of sums [64, COLUMNS]: for each eight columns what a lane holds of a small product (mma.cuh), whose rows are the 16 of its warp.
template <int COLUMNS>
struct GroupSums { TileSums at[COLUMNS / 8]; };

#ifdef PAIRWRIGHT_HOST
// Adds products of two of the left side's rows, g and g + 8 of the lane's warp, which are there already, with the lane's columns of the right one.
template <class T, int LEN, int COLUMNS>
inline void multiply_rows(GroupSums<COLUMNS>& sums, const float (&rows)[2][LEN], Lines right, bool adds) {
  const int t = threadIdx.x % 4;
  for (int j = 0; j < COLUMNS / 4; j++) {
    float *low = sums.at[j / 2].at + j % 2, *high = low + 2;
    if (!adds) *low = *high = 0.0f;
    for (int k = 0; k < LEN; k++) {
      const float number = to_f32(right.at<T>(j / 2 * 8 + 2 * t + j % 2, k));
      *low = fmaf(rows[0][k], number, *low), *high = fmaf(rows[1][k], number, *high);
    }
  }
}
template <class T, int COLUMNS>
inline void multiply_lines(GroupSums<COLUMNS>& sums, Lines left, Lines right, bool adds) {
  GroupSums<COLUMNS>* to = &sums;
  host::product_later([=] {
    constexpr int LEN = LINE_BYTES / LINE_PARTS / int(sizeof(T));
    const int row = threadIdx.x % WARPGROUP / 32 * 16 + threadIdx.x % 32 / 4;
    float rows[2][LEN];
    for (int half = 0; half < 2; half++) {
      for (int k = 0; k < LEN; k++) rows[half][k] = to_f32(left.at<T>(row + 8 * half, k));
    }
    multiply_rows<T>(*to, rows, right, adds);
  });
}
template <class T, int COLUMNS>
inline void add_product(GroupSums<COLUMNS>& sums, const typename Fragments<T>::A& left, Lines right) {
  using A = typename Fragments<T>::A;
  const host::Shown shown = host::show(0xffffffffu, left);
  struct { float at[2][16]; } rows;
  for (int lane = 0; lane < 4; lane++) {
    const A part = shown.template of<A>(threadIdx.x % 32 / 4 * 4 + lane);
    for (int i = 0; i < 8; i++) rows.at[i / 2 % 2][i / 4 * 8 + 2 * lane + i % 2] = to_f32(part.at[i / 2][i % 2]);
  }
  GroupSums<COLUMNS>* to = &sums;
  host::product_later([=] { multiply_rows<T>(*to, rows.at, right, true); });
}
inline void begin_products() {}
inline void end_products() { host::end_products(); }
template <int LEFT> inline void wait_for_products() { host::wait_for_products(LEFT); }
template <int COLUMNS> inline void settle(GroupSums<COLUMNS>&) {}
inline void show_copies_to_products() {}
inline void finish_first(float) {}
#else

// Operands by number, and as what they are.
#define NUMBERS_4(T) "%" #T "0,%" #T "1,%" #T "2,%" #T "3"
#define NUMBERS_8(T) NUMBERS_4(T) ",%" #T "4,%" #T "5,%" #T "6,%" #T "7"
#define NUMBERS_10(T) NUMBERS_8(T) ",%" #T "8,%" #T "9,"
#define NUMBERS_60 NUMBERS_10() NUMBERS_10(1) NUMBERS_10(2) NUMBERS_10(3) NUMBERS_10(4) NUMBERS_10(5)
#define SUMS_4(I) "+f"(sums.at[I].at[0]), "+f"(sums.at[I].at[1]), "+f"(sums.at[I].at[2]), "+f"(sums.at[I].at[3])
#define SUMS_16(I) SUMS_4(I), SUMS_4(I + 1), SUMS_4(I + 2), SUMS_4(I + 3)
#define SUMS_32(I) SUMS_16(I), SUMS_16(I + 4)
#define SUMS_64(I) SUMS_32(I), SUMS_32(I + 8)
#define SUMS_128(I) SUMS_64(I), SUMS_64(I + 16)

// sums += left [64 lines] x right [COLUMNS lines], both from this part of their lines on, or sums = that product. All of a warpgroup's
// threads, between `begin_products` and `end_products`; lines and sums are the hardware's until they are waited for.
template <class T, int COLUMNS>
__device__ __forceinline__ void multiply_lines(GroupSums<COLUMNS>& sums, Lines left, Lines right, bool adds);
#define MULTIPLY_LINES(T, COLUMNS, SHAPE, MORE, NUMBERS, LEFT, RIGHT, ADDS, SUMS)                                                          \
  template <>                                                                                                                             \
  __device__ __forceinline__ void multiply_lines<T, COLUMNS>(GroupSums<COLUMNS> & sums, Lines left, Lines right, bool adds) {              \
    asm volatile("{.reg .pred adds; setp.ne.b32 adds, " ADDS ", 0;\n"                                                                     \
                 "wgmma.mma_async.sync.aligned.m64n" #COLUMNS SHAPE " {" NUMBERS "}, " LEFT ", " RIGHT ", adds, 1, 1" MORE ";}"           \
                 : SUMS : "l"(left.descriptor), "l"(right.descriptor), "r"(int(adds)));                                                   \
  }
#define MULTIPLY_ALL_LINES(T, SHAPE, MORE)                                                                                      \
  MULTIPLY_LINES(T, 64, SHAPE, MORE, NUMBERS_10() NUMBERS_10(1) NUMBERS_10(2) "%30,%31", "%32", "%33", "%34", SUMS_32(0)) \
  MULTIPLY_LINES(T, 128, SHAPE, MORE, NUMBERS_60 NUMBERS_4(6), "%64", "%65", "%66", SUMS_64(0))
MULTIPLY_ALL_LINES(bf16, "k16.f32.bf16.bf16", ", 0, 0")
MULTIPLY_ALL_LINES(f16, "k16.f32.f16.f16", ", 0, 0")
MULTIPLY_ALL_LINES(fp8, "k32.f32.e4m3.e4m3", "")
#define ALL_256 NUMBERS_60 NUMBERS_10(6) NUMBERS_10(7) NUMBERS_10(8) NUMBERS_10(9) NUMBERS_10(10) NUMBERS_10(11) NUMBERS_8(12)
MULTIPLY_LINES(bf16, 256, "k16.f32.bf16.bf16", ", 0, 0", ALL_256, "%128", "%129", "%130", SUMS_128(0))
MULTIPLY_LINES(f16, 256, "k16.f32.f16.f16", ", 0, 0", ALL_256, "%128", "%129", "%130", SUMS_128(0))

// The same with 16 numbers of each row of the left side in registers (mma.cuh), added to sums. They are the hardware's as well until then.
template <class T, int COLUMNS>
__device__ __forceinline__ void add_product(GroupSums<COLUMNS>& sums, const typename Fragments<T>::A& left, Lines right);
#define ADD_PRODUCT(T, COLUMNS, NUMBERS, LEFT, RIGHT, SUMS)                                                                                \
  template <>                                                                                                                             \
  __device__ __forceinline__ void add_product<T, COLUMNS>(GroupSums<COLUMNS> & sums, const Fragments<T>::A& left, Lines right) {           \
    const uint32_t* pairs = reinterpret_cast<const uint32_t*>(&left);                                                                     \
    asm volatile("{.reg .pred adds; setp.eq.b32 adds, 0, 0;\n"                                                                            \
                 "wgmma.mma_async.sync.aligned.m64n" #COLUMNS "k16.f32." #T "." #T " {" NUMBERS "}, {" LEFT "}, " RIGHT ", adds, 1, 1, 0;}" \
                 : SUMS : "r"(pairs[0]), "r"(pairs[1]), "r"(pairs[2]), "r"(pairs[3]), "l"(right.descriptor));                             \
  }
#define ADD_PRODUCTS(T)                                                                                                        \
  ADD_PRODUCT(T, 64, NUMBERS_10() NUMBERS_10(1) NUMBERS_10(2) "%30,%31", "%32,%33,%34,%35", "%36", SUMS_32(0))                  \
  ADD_PRODUCT(T, 128, NUMBERS_60 NUMBERS_4(6), "%64,%65,%66,%67", "%68", SUMS_64(0))                                           \
  ADD_PRODUCT(T, 256, ALL_256, "%128,%129,%130,%131", "%132", SUMS_128(0))
ADD_PRODUCTS(bf16)
ADD_PRODUCTS(f16)

// What threads did to registers comes before the products that follow.
__device__ __forceinline__ void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// Ends a group of products.
__device__ __forceinline__ void end_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most LEFT groups of this warpgroup run.
template <int LEFT>
__device__ __forceinline__ void wait_for_products() { asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(LEFT) : "memory"); }
// Keeps the compiler from reading sums before the wait that stands ahead of this.
template <int COLUMNS>
__device__ __forceinline__ void settle(GroupSums<COLUMNS>& sums) {
#pragma unroll
  for (int i = 0; i < COLUMNS / 2; i++) asm volatile("" : "+f"(sums.at[i / 4].at[i % 4]) :: "memory");
}
// Has this number, which is not negative, before what follows: waits do not wait for computations, which the compiler else puts behind them.
__device__ __forceinline__ void finish_first(float number) {
  asm volatile("{.reg .pred is; .reg .b32 all; setp.lt.f32 is, %0, 0f00000000; selp.b32 all, 0, -1, is; bar.warp.sync all;}" :: "f"(number) : "memory");
}
// Makes what this thread has put into shared memory, and its copies that have come, to be seen by products that start behind a barrier.
__device__ __forceinline__ void show_copies_to_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
#endif
#endif
