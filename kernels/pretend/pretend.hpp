// What the parts of the pretend driver share: contexts, streams, captures and how work is handed to a stream. All of it happens on the CPU, at
// once, in the calling thread. Knows CUDA's types; knows no kernel and no library.
#pragma once
#include <cuda.h>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#define PRETEND_API extern "C" __attribute__((visibility("default")))
#pragma GCC visibility push(hidden)

namespace pretend {

// ---- settings: environment variables, read whenever they are asked for

inline long setting(const char* name, long otherwise) {
  const char* text = getenv(name);
  return text && *text ? atol(text) : otherwise;
}
inline int num_devices() { return int(setting("PRETEND_CUDA_DEVICES", 1)); }
inline int capability() { return int(setting("PRETEND_CUDA_CAPABILITY", 90)); }  // 90 is 9.0
inline bool trace() { return setting("PRETEND_CUDA_TRACE", 0) != 0; }

// A breach that a real driver would answer with broken memory.
[[noreturn]] void fail(const std::string& what);

// Copies out of pinned memory so far, and that somebody waited for `stream` (all of them: null) until those before `end` were done.
size_t num_pinned_copies();
void waited_for_copies(const void* stream, size_t end);

// ---- objects behind handles: one that is not alive any more is found out

template <class T>
struct Handles {
  std::set<const void*> alive;
  T* add(T* object) { return alive.insert(object).second ? object : nullptr; }
  T* find(const void* handle) const { return alive.count(handle) ? static_cast<T*>(const_cast<void*>(handle)) : nullptr; }
  bool remove(const void* handle) {
    if (!alive.erase(handle)) return false;
    delete static_cast<const T*>(handle);
    return true;
  }
};

// ---- graphs

// Memory that a captured allocation stands for. It exists from the capture on, and is alive between the graph's own allocation and its end.
struct GraphMemory {
  CUdeviceptr address;
  size_t bytes;
  bool alive = false;
  GraphMemory(CUdeviceptr address, size_t bytes) : address(address), bytes(bytes) {}
  GraphMemory(const GraphMemory&) = delete;
  ~GraphMemory();
};

using Work = std::function<CUresult()>;
struct Operation { std::string what; Work work; };
struct Graph {
  std::vector<Operation> operations;
  std::vector<std::shared_ptr<GraphMemory>> memory;
};
struct GraphExec {
  std::shared_ptr<const Graph> graph;
  bool frees_on_launch;
};

struct Stream;

// A capture in progress. Each stream in it counts what it was given; what another stream has waited for is joined.
struct Capture {
  struct Progress { size_t given = 0, joined = 0; };
  Stream* origin;
  CUstreamCaptureMode mode;
  std::thread::id owner;
  unsigned long long id;
  Graph graph;
  std::map<Stream*, Progress> streams;
  bool broken = false, ended = false;
};

// ---- contexts, streams, events

struct Context;
struct Stream {
  Context* context;
  unsigned flags = 0;
  int priority = 0;
  std::shared_ptr<Capture> capture = nullptr;
};
struct Event {
  Context* context;
  unsigned flags;
  bool recorded = false;
  std::chrono::steady_clock::time_point when = {};
  std::shared_ptr<Capture> capture = nullptr;  // in which it was recorded last, with the stream and that stream's count
  Stream* stream = nullptr;
  size_t given = 0;
  size_t copies = 0;  // copies out of pinned memory that were in queues before it
};
struct Context {
  CUdevice device;
  Stream legacy{this};
  std::map<std::thread::id, std::unique_ptr<Stream>> per_thread = {};
  std::map<int, size_t> limits = {};
  unsigned flags = 0;
};

struct Driver {
  std::recursive_mutex mutex;
  bool ready = false;
  std::map<CUdevice, std::pair<Context*, int>> primary;  // with how often it is retained
  Handles<Context> contexts;
  Handles<Stream> streams;
  Handles<Event> events;
  Handles<Graph> graphs;
  Handles<GraphExec> execs;
  std::set<Capture*> captures;
};
Driver& driver();  // never torn down: others may still call while the process ends

// Every entry point holds this from its first line to its last.
inline std::unique_lock<std::recursive_mutex> enter() { return std::unique_lock<std::recursive_mutex>(driver().mutex); }

// The calling thread's context, or null.
Context* current();
void set_current(Context* context);
inline CUresult need_context() {
  return !driver().ready ? CUDA_ERROR_NOT_INITIALIZED : current() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

// The stream behind a handle, CUDA's default ones included, if it belongs to the calling thread's context.
CUresult find_stream(CUstream handle, Stream** stream);

// Runs `work` now or, where the stream is being captured, puts it into the graph.
CUresult submit(CUstream handle, const std::string& what, Work work);

// For calls that no capture allows, and for those that a thread may not make while one is in progress (CUDA driver API, stream capture).
CUresult refuse_capture(Stream* stream);
CUresult refuse_while_capturing();

// ---- memory

// Fresh memory, full of 0xff; CUDA_ERROR_OUT_OF_MEMORY beyond the device's limit.
CUresult allocate(CUdevice device, size_t bytes, CUdeviceptr* address);
// Whether `bytes` from `address` on lie within one living allocation.
bool is_device_memory(CUdeviceptr address, size_t bytes);
size_t used_bytes(CUdevice device);
size_t total_bytes(CUdevice device);

#define PRETEND_TRY(call)                                              \
  if (CUresult pretend_status = (call); pretend_status != CUDA_SUCCESS) \
  return pretend_status

}  // namespace pretend
#pragma GCC visibility pop
