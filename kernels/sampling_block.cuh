// How a block goes over the numbers of one row together: sums and walks in order, the first of those that fit, and the ranking, which gives
// the likeliest tokens in order, a chunk at a time. Everything here must be called by the whole block. Knows runs and keys; knows nothing of
// what is asked of a row.
#pragma once
#include "sampling_survey.cuh"

namespace sampling {

using Key = unsigned long long;

constexpr int THREADS = 256;
constexpr int STAGE = 512;      // numbers walked between two barriers
constexpr int CAPACITY = 2048;  // keys of a chunk, a power of two
constexpr int DIGIT_BITS = 11;  // at most, of a key

struct Shared {
  Key keys[CAPACITY];
  double stage[STAGE];
  int bins[1 << DIGIT_BITS];
  int warp_counts[THREADS / 32];
  Key slot;  // what one thread tells the others
  int ended, found, digit, above;
};
__device__ __forceinline__ Shared& shared() {
  __shared__ Shared memory;
  return memory;
}

// What the first thread has, for all.
template <class T>
__device__ T from_first(T value) {
  static_assert(sizeof(T) <= sizeof(Key), "a value larger than the slot");
  if (threadIdx.x == 0) memcpy(&shared().slot, &value, sizeof(T));
  __syncthreads();
  memcpy(&value, &shared().slot, sizeof(T));
  __syncthreads();
  return value;
}

// Hands term(0), term(1), ... to the first thread's step(index, value) in this order, until that says true. Whether it did.
template <class Term, class Step>
__device__ bool walk(int count, Term term, Step step) {
  for (int start = 0; start < count; start += STAGE) {
    const int present = min(STAGE, count - start);
    for (int index = int(threadIdx.x); index < present; index += THREADS) shared().stage[index] = term(start + index);
    __syncthreads();
    if (threadIdx.x == 0) {
      bool ended = false;
      for (int index = 0; index < present && !ended; index += 8) {
        // Read ahead: the step is a chain of sums that should not wait for memory as well.
        double values[8];
#pragma unroll
        for (int ahead = 0; ahead < 8; ahead++) values[ahead] = shared().stage[index + ahead];
#pragma unroll
        for (int ahead = 0; ahead < 8; ahead++)
          if (!ended && index + ahead < present) ended = step(start + index + ahead, values[ahead]);
      }
      shared().ended = ended;
    }
    __syncthreads();
    if (shared().ended) return true;
  }
  return false;
}

// Of all terms, in order.
template <class Term>
__device__ double sum_in_order(int count, Term term) {
  double sum = 0.0;
  walk(count, term, [&](int, double value) {
    sum = __dadd_rn(sum, value);
    return false;
  });
  return from_first(sum);
}

// The first index of start .. end that fits; -1 if none does.
template <class Fits>
__device__ int first_where(int start, int end, Fits fits) {
  for (int base = start; base < end; base += THREADS) {
    const int index = base + int(threadIdx.x);
    if (threadIdx.x == 0) shared().found = end;
    __syncthreads();
    if (index < end && fits(index)) atomicMin(&shared().found, index);
    __syncthreads();
    const int found = shared().found;
    __syncthreads();
    if (found < end) return found;
  }
  return -1;
}

// ---- keys: the larger the likelier, ties by token. As in survey.rs NaN counts as negative infinity, and zeros as equal.

__device__ __forceinline__ unsigned ordered(float logit) {
  const unsigned bits = __float_as_uint(logit != logit ? -INFINITY : __fadd_rn(logit, 0.0f));
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ Key key_of(float logit, int token) { return Key(ordered(logit)) << 32 | ~unsigned(token); }
__device__ __forceinline__ int token_of(Key key) { return int(~unsigned(key)); }
__device__ __forceinline__ float logit_of(Key key) {
  const unsigned bits = unsigned(key >> 32);
  return __uint_as_float(bits >> 31 ? bits & 0x7fffffffu : ~bits);
}

// visit(key) for each key of the row that is at least `floor`, by whichever thread comes upon it. Runs that lie below are not read.
template <class Visit>
__device__ void each_key(const Row& row, const Run* runs, Key floor, Visit visit) {
  constexpr int WARPS = THREADS / 32;
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  for (int first = warp; first < row.runs(); first += THREADS) {
    // A warp looks at 32 runs at once, and has as many of the ones to be read as any other.
    const int seen = first + lane * WARPS;
    unsigned high = __ballot_sync(0xffffffffu, seen < row.runs() && ordered(runs[seen].max) >= unsigned(floor >> 32));
    for (; high != 0; high &= high - 1) {
      const int start = (first + (__ffs(int(high)) - 1) * WARPS) * RUN + lane;
#pragma unroll
      for (int step = 0; step < RUN / 32; step++) {
        const int token = start + step * 32;
        const Key key = token < row.count ? key_of(row.at(token), token) : 0;
        if (key >= floor && key > 0) visit(key);
      }
    }
  }
}

// From bins of digits: the highest digit whose bin, with those above it, holds more than `room`, into shared().digit, and what the bins above
// it hold into shared().above. The digit is -1, and nothing is above, if all bins together do not.
__device__ inline void find_digit(int room) {
  constexpr int EACH = (1 << DIGIT_BITS) / THREADS;
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  // Thread 0 has the highest digits.
  const int highest = (1 << DIGIT_BITS) - 1 - EACH * int(threadIdx.x);
  int own = 0;
  for (int bin = 0; bin < EACH; bin++) own += shared().bins[highest - bin];
  int through = own;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const int before = __shfl_up_sync(0xffffffffu, through, unsigned(distance));
    if (lane >= distance) through += before;
  }
  if (lane == 31) shared().warp_counts[warp] = through;
  if (threadIdx.x == 0) shared().digit = -1, shared().above = 0;
  __syncthreads();
  int above = through - own;
  for (int other = 0; other < warp; other++) above += shared().warp_counts[other];
  for (int bin = 0; bin < EACH && above <= room; bin++) {
    const int with = above + shared().bins[highest - bin];
    if (with > room) shared().digit = highest - bin, shared().above = above;
    above = with;
  }
  __syncthreads();
}

// A key such that at least `least` and at most `most` of the keys below `end` are no smaller: all of them if they are fewer. Radix selection
// from the highest digit on; each(floor, visit) gives the keys from `floor` up, each of which is there once.
template <class Each>
__device__ Key threshold(Key end, int least, int most, Each each) {
  Key prefix = 0;
  int above = 0, shift = 64;
  while (true) {
    // Digits of 11, 11 and 10 bits for the logit, and again for the token: the last ones tell every key from the others.
    const int width = shift == 42 || shift == 10 ? 10 : 11;
    shift -= width;
    for (int bin = int(threadIdx.x); bin < 1 << DIGIT_BITS; bin += THREADS) shared().bins[bin] = 0;
    __syncthreads();
    each(prefix, [&](Key key) {
      if (key < end && (key ^ prefix) >> shift >> width == 0) atomicAdd(&shared().bins[key >> shift & ((1 << width) - 1)], 1);
    });
    __syncthreads();
    find_digit(most - above);
    if (shared().digit < 0) return prefix;
    above += shared().above;
    prefix |= Key(shared().digit) << shift;
    if (above >= least) return prefix + (Key(1) << shift);
  }
}

// ---- the ranking

// How many of the row's keys of floor .. end there are; so many, as far as there is room, now lie in shared().keys.
__device__ inline int gather(const Row& row, const Run* runs, Key floor, Key end) {
  if (threadIdx.x == 0) shared().found = 0;
  __syncthreads();
  each_key(row, runs, floor, [&](Key key) {
    if (key >= end) return;
    const int place = atomicAdd(&shared().found, 1);
    if (place < CAPACITY) shared().keys[place] = key;
  });
  __syncthreads();
  const int count = shared().found;
  __syncthreads();
  return count;
}

// Puts `count` keys in order, the largest first: a bitonic network (K. Batcher 1968, "Sorting networks and their applications").
__device__ inline void sort(int count) {
  int size = 1;
  while (size < count) size *= 2;
  for (int place = count + int(threadIdx.x); place < size; place += THREADS) shared().keys[place] = 0;
  __syncthreads();
  for (int length = 2; length <= size; length *= 2) {
    for (int distance = length / 2; distance > 0; distance /= 2) {
      for (int pair = int(threadIdx.x); pair < size / 2; pair += THREADS) {
        const int low = 2 * pair - pair % distance, high = low + distance;
        const Key a = shared().keys[low], b = shared().keys[high];
        if ((a < b) == !(low & length)) shared().keys[low] = b, shared().keys[high] = a;
      }
      __syncthreads();
    }
  }
}

// Puts the row's largest keys below `end` in order into shared().keys, `first` lying above: how many is the answer, at least 1, and about
// `wanted` if none lies above.
__device__ NOT_INLINED inline int ranked(Row row, const Run* runs, Key end, int first, int wanted) {
  Key floor = 0;
  // As many logits as wanted are no smaller than the largest ones of as many runs.
  const int high = min(wanted, row.runs() * 3 / 4);
  if (first == 0 && high > 0) {
    floor = threshold(end, high, high, [&](Key from, auto visit) {
      for (int run = int(threadIdx.x); run < row.runs(); run += THREADS) {
        const Key key = key_of(runs[run].max, run);
        if (key >= from) visit(key);
      }
    });
    floor = floor >> 32 << 32;
  }
  int count;
  for (bool narrow = first > 0 && row.count - first > CAPACITY;; narrow = true) {
    if (narrow) {
      const auto each = [&](Key from, auto visit) { each_key(row, runs, from < floor ? floor : from, visit); };
      floor = threshold(end, CAPACITY / 2, CAPACITY, each);
    }
    count = gather(row, runs, floor, end);
    if (count <= CAPACITY) break;
  }
  sort(count);
  return count;
}

// A row's tokens in order of likelihood, a chunk at a time: `count` in shared().keys, the `first` ones before them.
struct Ranking {
  const Row& row;
  const Run* runs;
  int first = 0, count = 0;

  // The first chunk; `wanted`: how many will probably be looked at.
  __device__ void begin(int wanted) {
    first = 0;
    count = ranked(row, runs, ~Key(0), 0, wanted);
  }

  // The chunk behind this one, which did not reach the end of the row.
  __device__ void next() {
    const Key end = shared().keys[count - 1];
    __syncthreads();
    first += count;
    count = ranked(row, runs, end, first, 0);
  }
};

}  // namespace sampling
