// Products of small matrices on tensor cores, and copies to shared memory that run meanwhile; each beside a plain twin for the CPU and for
// numbers that tensor cores do not take. Knows fragments; knows no operation.
#pragma once
#include "common.cuh"

// D [16, 8] += A [16, 16] B [16, 8], summed in f32, by a whole warp (PTX ISA, mma.m16n8k16). With g = lane / 4 and t = lane % 4 a lane holds
//   A: (g, 2t..), (g + 8, 2t..), (g, 2t + 8..), (g + 8, 2t + 8..), two neighbouring k each;  B: (2t.., g), (2t + 8.., g);
//   D: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
struct TileSums { float at[4]; };
template <class T>
struct Fragments {
  struct A { T at[4][2]; };
  struct B { T at[2][2]; };
};

// In f32, by the order of k within the warp's fragments: the twin of the tensor core's. A call, as it is 64 shuffles and as many products: in
// line it would be most of the binary, and of the time that compiling it takes.
template <class T>
__device__ NOT_INLINED TileSums mma_plain(TileSums d, typename Fragments<T>::A a, typename Fragments<T>::B b) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#ifdef PAIRWRIGHT_HOST
  struct Both { typename Fragments<T>::A a; typename Fragments<T>::B b; };
  const host::Shown shown = host::show(0xffffffffu, Both{a, b});
#endif
#pragma unroll
  for (int half = 0; half < 2; half++) {
#pragma unroll
    for (int owner = 0; owner < 4; owner++) {
#pragma unroll
      for (int pair = 0; pair < 2; pair++) {
        // Row g (and g + 8) of A lies in the lanes of group g; column 2t (and 2t + 1) of B in those of group 2t.
#ifdef PAIRWRIGHT_HOST
        const Both left = shown.template of<Both>(unsigned(g * 4 + owner));
        const float low = to_f32(left.a.at[2 * half][pair]), high = to_f32(left.a.at[2 * half + 1][pair]);
        const float first = to_f32(shown.template of<Both>(unsigned(2 * t * 4 + owner)).b.at[half][pair]);
        const float second = to_f32(shown.template of<Both>(unsigned((2 * t + 1) * 4 + owner)).b.at[half][pair]);
#else
        const float low = __shfl_sync(0xffffffffu, to_f32(a.at[2 * half][pair]), g * 4 + owner);
        const float high = __shfl_sync(0xffffffffu, to_f32(a.at[2 * half + 1][pair]), g * 4 + owner);
        const float first = __shfl_sync(0xffffffffu, to_f32(b.at[half][pair]), 2 * t * 4 + owner);
        const float second = __shfl_sync(0xffffffffu, to_f32(b.at[half][pair]), (2 * t + 1) * 4 + owner);
#endif
        d.at[0] = fmaf(low, first, d.at[0]);
        d.at[1] = fmaf(low, second, d.at[1]);
        d.at[2] = fmaf(high, first, d.at[2]);
        d.at[3] = fmaf(high, second, d.at[3]);
      }
    }
  }
  return d;
}

template <class T>
__device__ __forceinline__ void mma(TileSums& d, const typename Fragments<T>::A& a, const typename Fragments<T>::B& b) {
  d = mma_plain<T>(d, a, b);
}

#ifndef PAIRWRIGHT_HOST
#define PAIRWRIGHT_MMA(T)                                                                                                               \
  template <>                                                                                                                           \
  __device__ __forceinline__ void mma<T>(TileSums& d, const Fragments<T>::A& a, const Fragments<T>::B& b) {                      \
    const uint32_t* left = reinterpret_cast<const uint32_t*>(&a);                                                                       \
    const uint32_t* right = reinterpret_cast<const uint32_t*>(&b);                                                                      \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." #T "." #T ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"        \
                 : "+f"(d.at[0]), "+f"(d.at[1]), "+f"(d.at[2]), "+f"(d.at[3])                                                           \
                 : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));                               \
  }
PAIRWRIGHT_MMA(bf16)
PAIRWRIGHT_MMA(f16)
#endif

// Eight neighbours along what is summed over: what a lane takes at a time of a row of either side.
template <class T>
struct __align__(sizeof(T) == 1 ? 8 : 16) Eight { T at[8]; };

template <class T, class From>
__device__ __forceinline__ Eight<T> load_eight(const From* address) {
  const Eight<From> read = *reinterpret_cast<const Eight<From>*>(address);
  if constexpr (sizeof(From) == sizeof(T)) {
    return read;
  } else {
    Eight<T> wide;
#pragma unroll
    for (int i = 0; i < 8; i++) wide.at[i] = from_f32<T>(to_f32(read.at[i]));
    return wide;
  }
}
template <class T>
__device__ __forceinline__ Eight<T> eight_zeros() {
  Eight<T> zeros;
#pragma unroll
  for (int i = 0; i < 8; i++) zeros.at[i] = from_f32<T>(0.0f);
  return zeros;
}
// A half of each as fragments: which of the 32 numbers that a quad holds are which k of the two products is free as long as both sides
// agree, so each lane takes its own eight: the first four for the first product, the others for the second.
template <class T>
__device__ __forceinline__ typename Fragments<T>::A left_half(const Eight<T>& low, const Eight<T>& high, int half) {
  const int i = 4 * half;
  return {{{low.at[i], low.at[i + 1]}, {high.at[i], high.at[i + 1]}, {low.at[i + 2], low.at[i + 3]}, {high.at[i + 2], high.at[i + 3]}}};
}
template <class T>
__device__ __forceinline__ typename Fragments<T>::B right_half(const Eight<T>& eight, int half) {
  const int i = 4 * half;
  return {{{eight.at[i], eight.at[i + 1]}, {eight.at[i + 2], eight.at[i + 3]}}};
}

// Copies 16 bytes to shared memory, or zeros if `there` is false, without waiting; both addresses multiples of 16.
__device__ __forceinline__ void copy_async(void* shared, const void* global, bool there) {
#ifdef PAIRWRIGHT_HOST
  host::copy_later(shared, there ? global : nullptr);
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :: "r"(uint32_t(__cvta_generic_to_shared(shared))), "l"(global), "r"(there ? 16 : 0) : "memory");
#endif
}
// Ends a group of copies.
__device__ __forceinline__ void commit_copies() {
#ifdef PAIRWRIGHT_HOST
  host::end_group();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Waits until at most LEFT groups of this thread are on their way. Others' copies need a barrier besides.
template <int LEFT>
__device__ __forceinline__ void wait_for_copies() {
#ifdef PAIRWRIGHT_HOST
  host::wait_for_groups(LEFT);
#else
  asm volatile("cp.async.wait_group %0;" :: "n"(LEFT) : "memory");
#endif
}
