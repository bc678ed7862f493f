// Threads that take turns within one of the operating system: where each was left, the stacks they stand on, and what a sanitizer has to be
// told of them. ThreadSanitizer takes each for a thread of its own and learns of no order between them but what barriers give, so that it finds
// what needs a barrier and has none, whatever the turns were. Knows no kernel.
#pragma once
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <vector>
#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
extern "C" void __tsan_write_range(void* address, unsigned long bytes);  // in no header
#endif

// UNSEEN: of the machine and not of what runs on it; ThreadSanitizer does not look.
#define UNSEEN __attribute__((no_sanitize_thread))

namespace host {

constexpr size_t STACK_BYTES = 128 * 1024;
constexpr unsigned MOST_THREADS = 1024;

[[noreturn]] inline void fail(const char* what) {
  fprintf(stderr, "host kernel: %s\n", what);
  abort();
}

// Who meets at `place`: what one did before `arrive` comes before what another does after `leave`.
#if defined(__SANITIZE_THREAD__)
UNSEEN inline void arrive(void* place) { __tsan_release(place); }
UNSEEN inline void leave(void* place) { __tsan_acquire(place); }
#else
inline void arrive(void*) {}
inline void leave(void*) {}
#endif

// Where a fiber was left.
struct Context {
#if defined(__x86_64__)
  void* stack_pointer = nullptr;
#else
  ucontext_t state;
#endif
  char* stack = nullptr;
  size_t size = 0;
  void* shadow = nullptr;    // AddressSanitizer's
  void* identity = nullptr;  // ThreadSanitizer's
};

#if defined(__x86_64__)
extern "C" void pairwright_host_switch(void** left, void* entered);
__asm__(R"(
.text
.weak pairwright_host_switch
.type pairwright_host_switch,@function
pairwright_host_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size pairwright_host_switch,.-pairwright_host_switch
)");
#endif

// Leaves `from`, perhaps for good, and goes on where `to` was left.
UNSEEN inline void go(Context& from, Context& to, [[maybe_unused]] bool for_good) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(for_good ? nullptr : &from.shadow, to.stack, to.size);
#endif
#if defined(__SANITIZE_THREAD__)
  from.identity = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(to.identity, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__x86_64__)
  pairwright_host_switch(&from.stack_pointer, to.stack_pointer);
#else
  swapcontext(&from.state, &to.state);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.shadow, nullptr, nullptr);
#endif
}

// `context` will begin with `entry`, on that stack.
UNSEEN inline void prepare(Context& context, char* stack, size_t size, void (*entry)()) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(stack, size);  // what an earlier fiber left there
#endif
  context.stack = stack;
  context.size = size;
#if defined(__x86_64__)
  void** top = reinterpret_cast<void**>(stack + size) - 3;  // 8 beside a multiple of 16 at entry, as after a call
  *--top = reinterpret_cast<void*>(entry);
  for (int saved = 0; saved < 6; saved++) *--top = nullptr;
  context.stack_pointer = top;
#else
  getcontext(&context.state);
  context.state.uc_stack.ss_sp = stack;
  context.state.uc_stack.ss_size = size;
  context.state.uc_link = nullptr;
  makecontext(&context.state, entry, 0);
#endif
}

// Stacks for a block, kept from one run to the next: memory that is new must be cleared page by page.
struct Stacks {
  struct Memory {
    char* begin;
    void* identities[MOST_THREADS];  // to ThreadSanitizer whoever stands on a stack is the same all the time
  };
  Memory* memory;
  unsigned num_used = 0;
  std::vector<unsigned> unused;
  // For `threads` of them.
  explicit Stacks(unsigned threads) : memory(any_kept()) {
#if defined(__SANITIZE_THREAD__)
    for (unsigned number = 0; number < threads; number++)
      if (!memory->identities[number]) memory->identities[number] = __tsan_create_fiber(0);
#else
    (void)threads;
#endif
  }
  Stacks(const Stacks&) = delete;
  ~Stacks() {
    std::lock_guard<std::mutex> guard(lock());
    kept().push_back(memory);
  }
  static Memory* any_kept() {
    std::lock_guard<std::mutex> guard(lock());
    if (!kept().empty()) {
      Memory* last = kept().back();
      kept().pop_back();
      return last;
    }
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* fresh = mmap(nullptr, MOST_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (fresh == MAP_FAILED) fail("no memory for stacks");
    return new Memory{static_cast<char*>(fresh), {}};
  }
  unsigned take() {
    if (unused.empty()) return num_used++;
    unsigned stack = unused.back();
    unused.pop_back();
    return stack;
  }
  // Puts a fiber on stack `number`, where it will begin with `entry`.
  UNSEEN void place(Context& context, unsigned number, void (*entry)()) {
    prepare(context, memory->begin + size_t(number) * STACK_BYTES, STACK_BYTES, entry);
#if defined(__SANITIZE_THREAD__)
    context.identity = memory->identities[number];
#endif
  }
  static std::mutex& lock() { static auto* only = new std::mutex; return *only; }
  static std::vector<Memory*>& kept() { static auto* all = new std::vector<Memory*>; return *all; }
};
}  // namespace host
