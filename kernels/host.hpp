// Runs a kernel on the CPU: a block's threads are fibers that take turns, and give way at barriers and warp operations alone. One block
// at a time per operating system thread. It checks logic, and under ThreadSanitizer that nobody relies on the order of turns; of speed it says
// nothing. Knows the language of kernels; knows no kernel.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include "fibers.hpp"

#define PAIRWRIGHT_HOST 1
#undef __global__
#undef __device__
#undef __host__
#undef __forceinline__
#undef __launch_bounds__
#undef __shared__
#undef __constant__
#undef __align__
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __shared__ static thread_local
#define __constant__ static const
#define __align__(n) alignas(n)
#define __restrict__ __restrict

namespace host {

struct Index { unsigned x, y, z; };

constexpr size_t SLOT_BYTES = 48;
constexpr unsigned long PATIENCE = 1000000;
constexpr size_t DYNAMIC_ALIGNMENT = 1024;

struct Warp {
  unsigned alive = 0, waiting = 0;
  unsigned mask[32];
  unsigned char turn[32];  // which of the two slots a lane uses next: one may still be read while the other is filled
  alignas(16) unsigned char slot[2][32][SLOT_BYTES];
  char meeting[2];
};

// What a thread asked for and is done when it waits for it, in groups, oldest first.
template <class Work>
struct Queue {
  std::vector<Work> work;
  std::vector<size_t> group_lens;

  UNSEEN void end_group() {
    size_t grouped = 0;
    for (size_t len : group_lens) grouped += len;
    group_lens.push_back(work.size() - grouped);
  }
  // Does all but the last `left` groups.
  template <class Do>
  void wait(size_t left, Do act) {
    while (group_lens.size() > left) {
      const auto end = work.begin() + ptrdiff_t(group_lens[0]);
      for (auto one = work.begin(); one != end; one++) act(*one);
      work.erase(work.begin(), end);
      group_lens.erase(group_lens.begin());
    }
  }
};

// A copy of 16 bytes that was asked for, or of zeros.
struct Copy { void* to; const void* from; };

struct Fiber {
  Context context;
  Index thread;
  unsigned number, stack;
  bool started, done;
  Queue<Copy> copies;
  Queue<std::function<void()>> products;
};

struct Block {
  Context home;
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  unsigned current = 0, alive = 0, arrived = 0, barrier = 0;
  Index block_size, grid_size, block;
  std::vector<unsigned char> dynamic;
  Stacks stacks;
  explicit Block(unsigned threads) : fibers(threads), warps((threads + 31) / 32), stacks(threads) {}
  const std::function<void()>* body = nullptr;
  char beginning, meeting[2], ending;  // where its threads meet: addresses alone
};

inline thread_local Block* running = nullptr;

UNSEEN inline Fiber& self() { return running->fibers[running->current]; }
UNSEEN inline unsigned lane() { return self().number % 32; }
UNSEEN inline Warp& warp() { return running->warps[self().number / 32]; }

UNSEEN inline unsigned next_alive() {
  unsigned next = running->current;
  do next = next + 1 == running->fibers.size() ? 0 : next + 1;
  while (running->fibers[next].done && next != running->current);
  return next;
}

void entry();

// A fiber gets a stack when it is first entered. To ThreadSanitizer that would make those that share one the same thread, and leave nothing
// between them to be found.
#if defined(__SANITIZE_THREAD__)
constexpr bool TAKES_OVER = false;
#else
constexpr bool TAKES_OVER = true;
#endif
UNSEEN inline void start(unsigned number) {
  Fiber& fiber = running->fibers[number];
  fiber.started = true;
  fiber.stack = TAKES_OVER ? running->stacks.take() : number;
  running->stacks.place(fiber.context, fiber.stack, entry);
}

UNSEEN inline void give_way() {
  unsigned left = running->current, next = next_alive();
  if (next == left) return;
  if (!running->fibers[next].started) start(next);
  running->current = next;
  go(running->fibers[left].context, running->fibers[next].context, false);
}

template <class Ready>
UNSEEN inline void wait_until(const char* what, Ready ready) {
  for (unsigned long turns = 0; !ready(); turns++) {
    if (turns > PATIENCE) fail(what);
    give_way();
  }
}

UNSEEN inline void open_barrier_if_full() {
  if (running->arrived >= running->alive) running->arrived = 0, running->barrier++;
}

// Lets go the lanes of `mask` if all of them wait, and with that mask; lanes that have ended count as there.
UNSEEN inline void release(Warp& warp, unsigned mask) {
  const unsigned group = mask & warp.alive;
  if ((warp.waiting & group) != group) return;
  for (unsigned rest = group; rest != 0; rest &= rest - 1)
    if (warp.mask[__builtin_ctz(rest)] != mask) return;
  warp.waiting &= ~group;
}

UNSEEN inline void warp_barrier(unsigned mask) {
  Warp& mine = warp();
  const unsigned own = lane(), bit = 1u << own;
  if (!(mask & bit)) fail("a lane waits with a mask that it is not in");
  mine.waiting |= bit;
  mine.mask[own] = mask;
  mine.turn[own] ^= 1;
  release(mine, mask);
  wait_until("a warp waits for a lane that does not come", [&] { return !(mine.waiting & bit); });
}

// Every lane of `mask` shows a value; each gets them all, to read until its next warp operation but one.
struct Shown {
  const unsigned char (*slots)[SLOT_BYTES];
  template <class T>
  UNSEEN T of(unsigned lane) const { T value; memcpy(&value, slots[lane & 31], sizeof value); return value; }
};
template <class T>
UNSEEN inline Shown show(unsigned mask, const T& value) {
  static_assert(sizeof(T) <= SLOT_BYTES, "a value larger than a slot");
  Warp& mine = warp();
  unsigned turn = mine.turn[lane()];
  memcpy(mine.slot[turn][lane()], &value, sizeof value);
  warp_barrier(mask);
  return Shown{mine.slot[turn]};
}

UNSEEN inline void entry() {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom;
  size_t size;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
  // The first fiber of a run is entered from home, whose stack is learnt here.
  if (!running->home.stack) running->home.stack = static_cast<char*>(const_cast<void*>(bottom)), running->home.size = size;
#endif
  while (true) {
    leave(&running->beginning);
    (*running->body)();
    Fiber& me = self();
    if (!me.copies.work.empty()) fail("a thread ends before copies that it asked for have come");
    if (!me.products.work.empty()) fail("a thread ends before products that it asked for are there");
    arrive(&running->ending);
    me.done = true;
    running->alive--;
    Warp& mine = warp();
    mine.alive &= ~(1u << lane());
    for (unsigned rest = mine.waiting; rest != 0; rest &= rest - 1)
      if (mine.waiting & rest & -rest) release(mine, mine.mask[__builtin_ctz(rest)]);
    if (running->alive == 0) go(me.context, running->home, true);
    open_barrier_if_full();
    Fiber& next = running->fibers[running->current = next_alive()];
    if (!TAKES_OVER && !next.started) start(next.number);
    if (next.started) {
      if (TAKES_OVER) running->stacks.unused.push_back(me.stack);
      go(me.context, next.context, true);
    }
    // One that has not begun takes over this stack: a kernel without barriers needs no other.
    next.started = true;
    next.stack = me.stack;
    next.context.stack = me.context.stack, next.context.size = me.context.size;
  }
}

// Runs `body` once per thread of a grid, blocks dealt out to `workers` threads of the operating system.
inline void run(Index grid, Index block, size_t dynamic_bytes, const std::function<void()>& body, unsigned workers) {
  auto work = [&](unsigned first, unsigned stride) {
    const unsigned threads = block.x * block.y * block.z;
    if (threads > MOST_THREADS) fail("a block of too many threads");
    Block state(threads);
    state.block_size = block, state.grid_size = grid, state.body = &body;
    running = &state;
    unsigned long blocks = (unsigned long)grid.x * grid.y * grid.z;
    for (unsigned long number = first; number < blocks; number += stride) {
      state.block = {unsigned(number % grid.x), unsigned(number / grid.x % grid.y), unsigned(number / grid.x / grid.y)};
      state.alive = threads, state.arrived = 0, state.current = 0;
      // What a block finds in dynamic shared memory is whatever was there: here numbers that spoil what reads them.
      state.dynamic.assign(dynamic_bytes + DYNAMIC_ALIGNMENT, 0xff);
      for (Warp& warp : state.warps) warp.alive = warp.waiting = 0, memset(warp.turn, 0, sizeof warp.turn);
      for (unsigned thread = 0; thread < threads; thread++) {
        Fiber& fiber = state.fibers[thread];
        fiber.number = thread, fiber.started = fiber.done = false;
        fiber.copies = {}, fiber.products = {};
        fiber.thread = {thread % block.x, thread / block.x % block.y, thread / block.x / block.y};
        state.warps[thread / 32].alive |= 1u << thread % 32;
      }
      state.stacks.num_used = 0, state.stacks.unused.clear();
      arrive(&state.beginning);
      start(0);
      go(state.home, state.fibers[0].context, false);
      leave(&state.ending);
    }
    running = nullptr;
  };
  if (workers <= 1) return work(0, 1);
  std::vector<std::thread> threads;
  for (unsigned worker = 0; worker < workers; worker++) threads.emplace_back(work, worker, workers);
  for (std::thread& thread : threads) thread.join();
}

// Copies by a thread to shared memory come when it waits for them, and not before; their place is written to as soon as they are asked for.
inline void copy_later(void* to, const void* from) {
#if defined(__SANITIZE_THREAD__)
  __tsan_write_range(to, 16);
#endif
  self().copies.work.push_back({to, from});
}
inline void end_group() { self().copies.end_group(); }
inline void wait_for_groups(size_t left) {
  self().copies.wait(left, [](const Copy& copy) { copy.from ? (void)memcpy(copy.to, copy.from, 16) : (void)memset(copy.to, 0, 16); });
}

// Whether products of four warps take lines for such whose pieces lie in order: a card on which such kernels are wrong.
inline bool misreads_lines = false;
// This thread's part of a product of four warps: read and summed when it is waited for.
inline void product_later(std::function<void()> product) { self().products.work.push_back(std::move(product)); }
inline void end_products() { self().products.end_group(); }
inline void wait_for_products(size_t left) { self().products.wait(left, [](const std::function<void()>& product) { product(); }); }

inline void* dynamic_shared() {
  uintptr_t start = reinterpret_cast<uintptr_t>(running->dynamic.data());
  return reinterpret_cast<void*>((start + DYNAMIC_ALIGNMENT - 1) & ~uintptr_t(DYNAMIC_ALIGNMENT - 1));
}

// Kernels by name, each as a function of the addresses of its arguments, with the bytes of each and the most threads of a block.
using Call = void (*)(void* function, void** arguments);
struct Kernel { void* function; Call call; std::vector<size_t> sizes; unsigned threads; };
inline std::map<std::string, Kernel>& kernels() {
  static std::map<std::string, Kernel> all;
  return all;
}
template <class... A, size_t... I>
inline void apply(void (*function)(A...), void** arguments, std::index_sequence<I...>) {
  function(*static_cast<std::remove_cv_t<std::remove_reference_t<A>>*>(arguments[I])...);
}
template <class... A>
struct Registered {
  Registered(const char* name, void (*function)(A...), unsigned threads = 1024) {
    Call call = [](void* function, void** arguments) {
      apply(reinterpret_cast<void (*)(A...)>(function), arguments, std::index_sequence_for<A...>{});
    };
    const Kernel kernel{reinterpret_cast<void*>(function), call, {sizeof(A)...}, threads};
    if (!kernels().emplace(name, kernel).second) fail(name);
  }
};

// Launches a kernel by its name; false if there is none.
inline bool launch(const char* name, Index grid, Index block, size_t dynamic_bytes, void** arguments, unsigned workers) {
  auto found = kernels().find(name);
  if (found == kernels().end()) return false;
  const Kernel& kernel = found->second;
  run(grid, block, dynamic_bytes, [&] { kernel.call(kernel.function, arguments); }, workers);
  return true;
}

template <class To, class From>
inline To bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "another size");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}
}  // namespace host

#define threadIdx (::host::self().thread)
#define blockIdx (::host::running->block)
#define blockDim (::host::running->block_size)
#define gridDim (::host::running->grid_size)

UNSEEN inline void __syncthreads() {
  const unsigned before = host::running->barrier;
  char* meeting = &host::running->meeting[before % 2];  // some may come to the next barrier before others have left this one
  host::arrive(meeting);
  host::running->arrived++;
  host::open_barrier_if_full();
  host::wait_until("a block waits for a thread that does not come", [&] { return host::running->barrier != before; });
  host::leave(meeting);
}
// Of warp operations this one alone puts memory in order.
UNSEEN inline void __syncwarp(unsigned mask = ~0u) {
  char* meeting = &host::warp().meeting[host::warp().turn[host::lane()]];
  host::arrive(meeting);
  host::warp_barrier(mask);
  host::leave(meeting);
}
inline void __threadfence() {}
inline void __threadfence_block() {}
template <class T>
inline T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  return host::show(mask, value).template of<T>((host::lane() & ~unsigned(width - 1)) | (unsigned(from) & unsigned(width - 1)));
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int distance, int width = 32) {
  unsigned lane = host::lane(), from = lane ^ unsigned(distance);
  return host::show(mask, value).template of<T>(from / unsigned(width) <= lane / unsigned(width) ? from : lane);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  unsigned lane = host::lane(), last = lane | unsigned(width - 1);
  return host::show(mask, value).template of<T>(lane + distance <= last ? lane + distance : lane);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  unsigned lane = host::lane(), first = lane & ~unsigned(width - 1);
  return host::show(mask, value).template of<T>(lane >= first + distance ? lane - distance : lane);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  unsigned alive = host::warp().alive, result = 0;
  host::Shown shown = host::show(mask, predicate);
  for (unsigned lane = 0; lane < 32; lane++)
    if ((mask & alive) >> lane & 1 && shown.of<int>(lane)) result |= 1u << lane;
  return result;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, !predicate) == 0; }
inline unsigned __match_any_sync(unsigned mask, unsigned value) {
  unsigned alive = host::warp().alive, result = 0;
  host::Shown shown = host::show(mask, value);
  for (unsigned lane = 0; lane < 32; lane++)
    if ((mask & alive) >> lane & 1 && shown.of<unsigned>(lane) == value) result |= 1u << lane;
  return result;
}
template <class T>
inline T __ldg(const T* address) { return *address; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline int __float_as_int(float x) { return host::bits<int>(x); }
inline unsigned __float_as_uint(float x) { return host::bits<unsigned>(x); }
inline float __int_as_float(int x) { return host::bits<float>(x); }
inline float __uint_as_float(unsigned x) { return host::bits<float>(x); }
inline long long __double_as_longlong(double x) { return host::bits<long long>(x); }
inline double __longlong_as_double(long long x) { return host::bits<double>(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
template <class T>
inline T atomicAdd(T* address, std::common_type_t<T> value) {
  T before, after;
  __atomic_load(address, &before, __ATOMIC_RELAXED);
  do after = before + value;
  while (!__atomic_compare_exchange(address, &before, &after, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return before;
}
template <class T>
inline T atomicMax(T* address, std::common_type_t<T> value) {
  T before = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (before < value && !__atomic_compare_exchange_n(address, &before, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
  return before;
}
template <class T>
inline T atomicMin(T* address, std::common_type_t<T> value) {
  T before = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (value < before && !__atomic_compare_exchange_n(address, &before, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
  return before;
}
template <class A, class B>
inline auto min(A a, B b) -> std::common_type_t<A, B> { return b < a ? b : a; }
template <class A, class B>
inline auto max(A a, B b) -> std::common_type_t<A, B> { return a < b ? b : a; }
#ifndef PAIRWRIGHT_NVIDIA_TYPES  // defined where NVIDIA's own headers come first
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) float2 { float x, y; };
#endif
