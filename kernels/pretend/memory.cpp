// The pretend driver's memory: host memory under a limit, full of 0xff when fresh, with a strip behind each piece that shows who wrote beyond
// it; copies and fills; pools in name only. Knows addresses and lengths; knows nothing of what lies in them.
#include "pretend.hpp"
#include <algorithm>
#include <cstring>

using namespace pretend;

namespace {
constexpr size_t STRIP_BYTES = 256;
constexpr unsigned char STRIP = 0xa5;

struct Piece {
  size_t bytes, whole;  // asked for, and in multiples of 256 as it counts
  CUdevice device;
  GraphMemory* owner;  // of a piece that a captured allocation stands for
};
struct Pool { CUdevice device; unsigned long long threshold = 0; };
struct Memory {
  std::map<CUdeviceptr, Piece> pieces;
  std::map<void*, size_t> pinned;
  std::map<CUdevice, size_t> used, most;
  std::map<CUdevice, Pool*> pools;
  Handles<Pool> all_pools;
  long num_allocations = 0;
};
Memory& memory() {
  static Memory* only = new Memory;
  return *only;
}

void* host(CUdeviceptr address) { return reinterpret_cast<void*>(address); }

void release(std::map<CUdeviceptr, Piece>::iterator found) {
  const auto [address, piece] = *found;
  const unsigned char* bytes = static_cast<unsigned char*>(host(address));
  for (size_t at = piece.bytes; at < piece.whole + STRIP_BYTES; at++)
    if (bytes[at] != STRIP) fail("somebody wrote behind an allocation of " + std::to_string(piece.bytes) + " bytes");
  memory().used[piece.device] -= piece.whole;
  memory().pieces.erase(found);
  if (piece.bytes <= 1 << 20) memset(host(address), 0xff, piece.bytes);  // larger ones go back to the system, and reading them is fatal
  free(host(address));
}

// Memory that copies may name: the device's, and pinned memory, which has the same address there.
bool is_known(CUdeviceptr address, size_t bytes) {
  if (is_device_memory(address, bytes)) return true;
  auto after = memory().pinned.upper_bound(host(address));
  if (after == memory().pinned.begin()) return false;
  auto [start, length] = *--after;
  const size_t offset = address - reinterpret_cast<CUdeviceptr>(start);
  return offset <= length && bytes <= length - offset;
}

Pool* find_pool(CUmemoryPool handle) { return memory().all_pools.find(handle); }
Pool* default_pool(CUdevice device) {
  Pool*& pool = memory().pools[device];
  if (!pool) pool = memory().all_pools.add(new Pool{device});
  return pool;
}
}  // namespace

namespace pretend {

GraphMemory::~GraphMemory() {
  auto found = memory().pieces.find(address);
  if (found == memory().pieces.end()) return;
  if (alive) found->second.owner = nullptr;  // from here on an allocation like others
  else release(found);
}

size_t total_bytes(CUdevice) { return size_t(setting("PRETEND_CUDA_MEMORY_MB", 4096)) << 20; }
size_t used_bytes(CUdevice device) { return memory().used[device]; }

bool is_device_memory(CUdeviceptr address, size_t bytes) {
  auto after = memory().pieces.upper_bound(address);
  if (after == memory().pieces.begin()) return bytes == 0;
  auto [start, piece] = *--after;
  const size_t offset = address - start;
  return bytes == 0 || (offset <= piece.bytes && bytes <= piece.bytes - offset);
}

CUresult allocate(CUdevice device, size_t bytes, CUdeviceptr* address) {
  if (++memory().num_allocations == setting("PRETEND_CUDA_FAIL_ALLOCATION", 0)) return CUDA_ERROR_OUT_OF_MEMORY;
  const size_t used = memory().used[device], total = total_bytes(device);
  if (bytes > total || used > total) return CUDA_ERROR_OUT_OF_MEMORY;
  const size_t whole = (bytes + 255) / 256 * 256;
  if (whole > total - used) return CUDA_ERROR_OUT_OF_MEMORY;
  void* start = aligned_alloc(256, whole + STRIP_BYTES);
  if (!start) return CUDA_ERROR_OUT_OF_MEMORY;
  memset(start, 0xff, bytes);
  memset(static_cast<char*>(start) + bytes, STRIP, whole - bytes + STRIP_BYTES);
  *address = reinterpret_cast<CUdeviceptr>(start);
  memory().pieces[*address] = {bytes, whole, device, nullptr};
  size_t& most = memory().most[device];
  most = std::max(most, memory().used[device] += whole);
  return CUDA_SUCCESS;
}

}  // namespace pretend

// ---- allocation

PRETEND_API CUresult cuMemGetInfo_v2(size_t* free, size_t* total) {
  auto guard = enter();
  PRETEND_TRY(need_context());
  const size_t used = used_bytes(current()->device);
  *total = total_bytes(current()->device);
  *free = *total > used ? *total - used : 0;
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuMemAlloc_v2(CUdeviceptr* address, size_t bytes) {
  auto guard = enter();
  PRETEND_TRY(need_context());
  PRETEND_TRY(refuse_while_capturing());
  return bytes == 0 ? CUDA_ERROR_INVALID_VALUE : allocate(current()->device, bytes, address);
}
PRETEND_API CUresult cuMemAllocManaged(CUdeviceptr* address, size_t bytes, unsigned) { return cuMemAlloc_v2(address, bytes); }

static CUresult free_now(CUdeviceptr address) {
  auto found = memory().pieces.find(address);
  if (found == memory().pieces.end()) return CUDA_ERROR_INVALID_VALUE;
  if (GraphMemory* owner = found->second.owner) {
    if (!owner->alive) return CUDA_ERROR_INVALID_VALUE;
    owner->alive = false;
    return CUDA_SUCCESS;
  }
  release(found);
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuMemFree_v2(CUdeviceptr address) {
  auto guard = enter();
  PRETEND_TRY(need_context());
  PRETEND_TRY(refuse_while_capturing());
  return address == 0 ? CUDA_SUCCESS : free_now(address);
}

static CUresult allocate_in_order(CUdevice device, CUdeviceptr* address, size_t bytes, CUstream handle) {
  Stream* stream;
  PRETEND_TRY(find_stream(handle, &stream));
  PRETEND_TRY(allocate(device, bytes ? bytes : 1, address));
  if (!stream->capture) return CUDA_SUCCESS;
  // The graph owns it: each launch brings it to life, and its contents are then anybody's guess.
  auto owned = std::make_shared<GraphMemory>(*address, bytes);
  memory().pieces[*address].owner = owned.get();
  stream->capture->graph.memory.push_back(owned);
  return submit(handle, "allocate", [mine = owned.get()] {
    if (mine->alive) return CUDA_ERROR_INVALID_VALUE;
    mine->alive = true;
    memset(host(mine->address), 0xff, mine->bytes);
    return CUDA_SUCCESS;
  });
}
PRETEND_API CUresult cuMemAllocAsync(CUdeviceptr* address, size_t bytes, CUstream stream) {
  auto guard = enter();
  PRETEND_TRY(need_context());
  return allocate_in_order(current()->device, address, bytes, stream);
}
PRETEND_API CUresult cuMemAllocFromPoolAsync(CUdeviceptr* address, size_t bytes, CUmemoryPool handle, CUstream stream) {
  auto guard = enter();
  PRETEND_TRY(need_context());
  Pool* pool = find_pool(handle);
  return pool ? allocate_in_order(pool->device, address, bytes, stream) : CUDA_ERROR_INVALID_VALUE;
}
PRETEND_API CUresult cuMemFreeAsync(CUdeviceptr address, CUstream handle) {
  auto guard = enter();
  // Work on memory may be given to a stream of a device that is not current (CUDA C++ programming guide, multi-device system); launches not.
  Stream* stream = driver().streams.find(handle);
  if (stream && stream->context != current() && !stream->capture) return free_now(address);
  PRETEND_TRY(find_stream(handle, &stream));
  if (!stream->capture) return submit(handle, "free", [address] { return free_now(address); });
  // A captured free may name an allocation of the same kind alone (CUDA driver API, cuMemFreeAsync).
  auto found = memory().pieces.find(address);
  GraphMemory* owner = found == memory().pieces.end() ? nullptr : found->second.owner;
  if (!owner) return CUDA_ERROR_INVALID_VALUE;
  return submit(handle, "free", [owner] {
    if (!owner->alive) return CUDA_ERROR_INVALID_VALUE;
    owner->alive = false;
    memset(host(owner->address), 0xff, owner->bytes);
    return CUDA_SUCCESS;
  });
}

PRETEND_API CUresult cuMemHostAlloc(void** address, size_t bytes, unsigned) {
  auto guard = enter();
  PRETEND_TRY(need_context());
  PRETEND_TRY(refuse_while_capturing());
  if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  *address = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  if (!*address) return CUDA_ERROR_OUT_OF_MEMORY;
  memset(*address, 0xff, bytes);
  memory().pinned[*address] = bytes;
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuMemAllocHost_v2(void** address, size_t bytes) { return cuMemHostAlloc(address, bytes, 0); }
PRETEND_API CUresult cuMemFreeHost(void* address) {
  auto guard = enter();
  PRETEND_TRY(need_context());
  PRETEND_TRY(refuse_while_capturing());
  if (!memory().pinned.erase(address)) return CUDA_ERROR_INVALID_VALUE;
  waited_for_copies(nullptr, num_pinned_copies());
  free(address);
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr* device, void* address, unsigned) {
  auto guard = enter();
  PRETEND_TRY(need_context());
  *device = reinterpret_cast<CUdeviceptr>(address);
  return is_known(*device, 1) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

// ---- copies and fills

// A card reads pinned memory when its queue comes to the copy. Until somebody has waited for that, what was to be copied must still lie there.
namespace {
struct QueuedCopy { const void* from; std::vector<char> bytes; const void* stream; size_t order; };
std::vector<QueuedCopy>& queued() {
  static std::vector<QueuedCopy>* only = new std::vector<QueuedCopy>;
  return *only;
}
size_t num_copies = 0;

void check_queued() {
  for (const QueuedCopy& copy : queued())
    if (memcmp(copy.from, copy.bytes.data(), copy.bytes.size()) != 0)
      fail("pinned memory was written to while a copy of " + std::to_string(copy.bytes.size()) + " bytes out of it was in the queue");
}
void queue_copy(const void* from, size_t bytes, const Stream* stream) {
  check_queued();
  const char* start = static_cast<const char*>(from);
  queued().push_back({from, {start, start + bytes}, stream, num_copies++});
}
}  // namespace
size_t pretend::num_pinned_copies() { return num_copies; }
void pretend::waited_for_copies(const void* stream, size_t end) {
  check_queued();
  const auto done = [&](const QueuedCopy& copy) { return (!stream || copy.stream == stream) && copy.order < end; };
  queued().erase(std::remove_if(queued().begin(), queued().end(), done), queued().end());
}

static CUresult copy(CUstream stream, void* to, const void* from, size_t bytes, const char* what) {
  return submit(stream, what, [=] {
    memmove(to, from, bytes);
    return CUDA_SUCCESS;
  });
}
// A graph that copies from or to memory of the host does so at every launch, long after the caller may have given it up: here it must be pinned.
static CUresult need_lasting(const void* address, size_t bytes, CUstream handle) {
  Stream* stream;
  PRETEND_TRY(find_stream(handle, &stream));
  if (!stream->capture || is_known(reinterpret_cast<CUdeviceptr>(address), bytes)) return CUDA_SUCCESS;
  fprintf(stderr, "pretend cuda: a captured copy of %zu bytes names memory of the host that is not pinned\n", bytes);
  return refuse_capture(stream);
}
PRETEND_API CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
  auto guard = enter();
  PRETEND_TRY(need_lasting(from, bytes, stream));
  Stream* queue;
  PRETEND_TRY(find_stream(stream, &queue));
  if (!queue->capture && is_known(reinterpret_cast<CUdeviceptr>(from), bytes)) queue_copy(from, bytes, queue);
  return is_known(to, bytes) ? copy(stream, host(to), from, bytes, "copy in") : CUDA_ERROR_INVALID_VALUE;
}
PRETEND_API CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  auto guard = enter();
  PRETEND_TRY(need_lasting(to, bytes, stream));
  Stream* queue;
  PRETEND_TRY(find_stream(stream, &queue));
  // To memory that is not pinned the driver copies before it returns.
  if (!queue->capture && !is_known(reinterpret_cast<CUdeviceptr>(to), bytes)) waited_for_copies(queue, num_pinned_copies());
  return is_known(from, bytes) ? copy(stream, to, host(from), bytes, "copy out") : CUDA_ERROR_INVALID_VALUE;
}
PRETEND_API CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  auto guard = enter();
  const bool known = is_known(to, bytes) && is_known(from, bytes);
  return known ? copy(stream, host(to), host(from), bytes, "copy") : CUDA_ERROR_INVALID_VALUE;
}
PRETEND_API CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  auto guard = enter();
  return copy(stream, host(to), host(from), bytes, "copy");
}
PRETEND_API CUresult cuMemcpyPeerAsync(CUdeviceptr to, CUcontext, CUdeviceptr from, CUcontext, size_t bytes, CUstream stream) {
  return cuMemcpyDtoDAsync_v2(to, from, bytes, stream);
}

// The plain forms wait for what they do, which no thread may while it captures.
PRETEND_API CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, size_t bytes) {
  auto guard = enter();
  PRETEND_TRY(refuse_while_capturing());
  return cuMemcpyHtoDAsync_v2(to, from, bytes, nullptr);
}
PRETEND_API CUresult cuMemcpyDtoH_v2(void* to, CUdeviceptr from, size_t bytes) {
  auto guard = enter();
  PRETEND_TRY(refuse_while_capturing());
  return cuMemcpyDtoHAsync_v2(to, from, bytes, nullptr);
}
PRETEND_API CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  auto guard = enter();
  PRETEND_TRY(refuse_while_capturing());
  return cuMemcpyDtoDAsync_v2(to, from, bytes, nullptr);
}
PRETEND_API CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  auto guard = enter();
  PRETEND_TRY(refuse_while_capturing());
  return cuMemcpyAsync(to, from, bytes, nullptr);
}

template <class T>
static CUresult fill(CUdeviceptr to, T value, size_t count, CUstream stream) {
  if (to % sizeof(T) || !is_known(to, count * sizeof(T))) return CUDA_ERROR_INVALID_VALUE;
  return submit(stream, "fill", [=] {
    std::fill_n(static_cast<T*>(host(to)), count, value);
    return CUDA_SUCCESS;
  });
}
#define PRETEND_FILL(name, T)                                                                  \
  PRETEND_API CUresult name##Async(CUdeviceptr to, T value, size_t count, CUstream stream) {   \
    auto guard = enter();                                                                      \
    return fill(to, value, count, stream);                                                     \
  }                                                                                            \
  PRETEND_API CUresult name##_v2(CUdeviceptr to, T value, size_t count) {                      \
    auto guard = enter();                                                                      \
    PRETEND_TRY(refuse_while_capturing());                                                     \
    return fill(to, value, count, nullptr);                                                    \
  }
PRETEND_FILL(cuMemsetD8, unsigned char)
PRETEND_FILL(cuMemsetD16, unsigned short)
PRETEND_FILL(cuMemsetD32, unsigned int)

PRETEND_API CUresult cuMemPrefetchAsync_v2(CUdeviceptr, size_t, CUmemLocation, unsigned, CUstream) { return CUDA_SUCCESS; }
PRETEND_API CUresult cuMemAdvise_v2(CUdeviceptr, size_t, CUmem_advise, CUmemLocation) { return CUDA_SUCCESS; }

// ---- pools: every allocation comes from the same place, so they only remember what they are told

PRETEND_API CUresult cuDeviceGetDefaultMemPool(CUmemoryPool* pool, CUdevice device) {
  auto guard = enter();
  if (device < 0 || device >= num_devices()) return CUDA_ERROR_INVALID_DEVICE;
  *pool = reinterpret_cast<CUmemoryPool>(default_pool(device));
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuDeviceGetMemPool(CUmemoryPool* pool, CUdevice device) { return cuDeviceGetDefaultMemPool(pool, device); }
PRETEND_API CUresult cuDeviceSetMemPool(CUdevice, CUmemoryPool pool) {
  auto guard = enter();
  return find_pool(pool) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
PRETEND_API CUresult cuMemPoolCreate(CUmemoryPool* pool, const CUmemPoolProps* properties) {
  auto guard = enter();
  const int device = properties->location.id;
  if (device < 0 || device >= num_devices()) return CUDA_ERROR_INVALID_VALUE;
  *pool = reinterpret_cast<CUmemoryPool>(memory().all_pools.add(new Pool{device}));
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuMemPoolDestroy(CUmemoryPool pool) {
  auto guard = enter();
  Pool* known = find_pool(pool);
  if (!known || known == memory().pools[known->device]) return CUDA_ERROR_INVALID_VALUE;
  memory().all_pools.remove(pool);
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t) {
  auto guard = enter();
  return find_pool(pool) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
PRETEND_API CUresult cuMemPoolSetAttribute(CUmemoryPool handle, CUmemPool_attribute attribute, void* value) {
  auto guard = enter();
  Pool* pool = find_pool(handle);
  if (!pool) return CUDA_ERROR_INVALID_VALUE;
  if (attribute == CU_MEMPOOL_ATTR_RELEASE_THRESHOLD) pool->threshold = *static_cast<unsigned long long*>(value);
  if (attribute == CU_MEMPOOL_ATTR_USED_MEM_HIGH) memory().most[pool->device] = used_bytes(pool->device);
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuMemPoolGetAttribute(CUmemoryPool handle, CUmemPool_attribute attribute, void* value) {
  auto guard = enter();
  Pool* pool = find_pool(handle);
  if (!pool) return CUDA_ERROR_INVALID_VALUE;
  unsigned long long& number = *static_cast<unsigned long long*>(value);
  switch (attribute) {
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD: number = pool->threshold; break;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT: number = used_bytes(pool->device); break;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH: number = memory().most[pool->device]; break;
    default: *static_cast<int*>(value) = 1;
  }
  return CUDA_SUCCESS;
}
