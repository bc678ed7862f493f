// The pretend driver's devices and contexts, and the names of its errors. Knows what a device says of itself; knows nothing of memory and work.
#include "pretend.hpp"
#include <cstring>

using namespace pretend;

namespace pretend {
Driver& driver() {
  static Driver* only = new Driver;
  return *only;
}

void fail(const std::string& what) {
  fprintf(stderr, "pretend cuda: %s\n", what.c_str());
  abort();
}

// The thread's contexts, the current one last. Plain memory: a thread may still call while its other thread-local objects go.
constexpr int MOST_CONTEXTS = 64;
static thread_local Context* stack[MOST_CONTEXTS];
static thread_local int depth = 0;
static void push(Context* context) {
  if (depth == MOST_CONTEXTS) fail("too many contexts are pushed");
  stack[depth++] = context;
}
Context* current() { return depth && driver().contexts.find(stack[depth - 1]) ? stack[depth - 1] : nullptr; }
void set_current(Context* context) {
  if (depth) depth--;
  if (context) push(context);
}
}  // namespace pretend

static CUresult need_device(CUdevice device) {
  return !driver().ready ? CUDA_ERROR_NOT_INITIALIZED
      : device < 0 || device >= num_devices() ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

PRETEND_API CUresult cuInit(unsigned flags) {
  auto guard = enter();
  if (flags) return CUDA_ERROR_INVALID_VALUE;
  if (num_devices() <= 0) return CUDA_ERROR_NO_DEVICE;
  driver().ready = true;
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuDriverGetVersion(int* version) {
  *version = 13000;
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuDeviceGetCount(int* count) {
  auto guard = enter();
  if (!driver().ready) return CUDA_ERROR_NOT_INITIALIZED;
  *count = num_devices();
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  auto guard = enter();
  PRETEND_TRY(need_device(ordinal));
  *device = ordinal;
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuDeviceGetName(char* name, int length, CUdevice device) {
  auto guard = enter();
  PRETEND_TRY(need_device(device));
  snprintf(name, size_t(length), "Pretend CUDA device %d", device);
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuDeviceGetUuid_v2(CUuuid* uuid, CUdevice device) {
  auto guard = enter();
  PRETEND_TRY(need_device(device));
  memset(uuid, 0, sizeof *uuid);
  snprintf(uuid->bytes, sizeof uuid->bytes, "pretend cuda %d", device);
  return CUDA_SUCCESS;
}
#undef cuDeviceGetUuid
PRETEND_API CUresult cuDeviceGetUuid(CUuuid* uuid, CUdevice device) { return cuDeviceGetUuid_v2(uuid, device); }
PRETEND_API CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
  auto guard = enter();
  PRETEND_TRY(need_device(device));
  *bytes = total_bytes(device);
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuDeviceGetPCIBusId(char* text, int length, CUdevice device) {
  auto guard = enter();
  PRETEND_TRY(need_device(device));
  snprintf(text, size_t(length), "0000:%02x:00.0", device + 1);
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuDeviceCanAccessPeer(int* can, CUdevice device, CUdevice peer) {
  auto guard = enter();
  PRETEND_TRY(need_device(device));
  PRETEND_TRY(need_device(peer));
  *can = device != peer;
  return CUDA_SUCCESS;
}

// Dynamic shared memory that a kernel may ask for, by capability (CUDA C++ programming guide, compute capabilities).
static int most_shared_bytes() {
  const int of = capability();
  return of >= 120 ? 99 << 10 : of >= 90 ? 227 << 10 : of == 80 || of == 87 ? 163 << 10 : of >= 86 ? 99 << 10 : 64 << 10;
}

PRETEND_API CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  auto guard = enter();
  PRETEND_TRY(need_device(device));
  switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = capability() / 10; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = capability() % 10; break;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y: *value = 1024; break;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z: *value = 64; break;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X: *value = 0x7fffffff; break;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y:
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z: *value = 65535; break;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 8; break;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR: *value = 2048; break;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR: *value = 32; break;
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR: *value = 65536; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: *value = 48 << 10; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = most_shared_bytes(); break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: *value = most_shared_bytes() + 1024; break;
    case CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK: *value = 1024; break;
    case CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY: *value = 65536; break;
    case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE: *value = 32 << 20; break;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE:
    case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE: *value = 1000000; break;
    case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH: *value = 512; break;
    case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID: *value = device + 1; break;
    case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY:
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
    case CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY:
    case CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS:
    case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT:
    case CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED: *value = 1; break;
    default: *value = 0;
  }
  return CUDA_SUCCESS;
}

// ---- contexts

PRETEND_API CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  auto guard = enter();
  PRETEND_TRY(need_device(device));
  auto& [object, retained] = driver().primary[device];
  if (!object) object = driver().contexts.add(new Context{device});
  retained++;
  *context = reinterpret_cast<CUcontext>(object);
  return CUDA_SUCCESS;
}
// The context outlives its last owner here, as its handle may come back; a real driver tears it down.
PRETEND_API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  auto guard = enter();
  PRETEND_TRY(need_device(device));
  int& retained = driver().primary[device].second;
  if (retained == 0) return CUDA_ERROR_INVALID_CONTEXT;
  retained--;
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned* flags, int* active) {
  auto guard = enter();
  PRETEND_TRY(need_device(device));
  auto& [object, retained] = driver().primary[device];
  *flags = object ? object->flags : 0;
  *active = retained > 0;
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned) { return need_device(device); }
PRETEND_API CUresult cuCtxCreate_v4(CUcontext* context, CUctxCreateParams*, unsigned flags, CUdevice device) {
  auto guard = enter();
  PRETEND_TRY(need_device(device));
  Context* object = driver().contexts.add(new Context{device});
  object->flags = flags;
  push(object);
  *context = reinterpret_cast<CUcontext>(object);
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuCtxDestroy_v2(CUcontext context) {
  auto guard = enter();
  for (auto& [device, primary] : driver().primary)
    if (primary.first == reinterpret_cast<Context*>(context)) return CUDA_ERROR_INVALID_CONTEXT;
  return driver().contexts.remove(context) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}
PRETEND_API CUresult cuCtxGetCurrent(CUcontext* context) {
  auto guard = enter();
  if (!driver().ready) return CUDA_ERROR_NOT_INITIALIZED;
  *context = reinterpret_cast<CUcontext>(current());
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuCtxSetCurrent(CUcontext context) {
  auto guard = enter();
  if (context && !driver().contexts.find(context)) return CUDA_ERROR_INVALID_CONTEXT;
  set_current(reinterpret_cast<Context*>(context));
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuCtxPushCurrent_v2(CUcontext context) {
  auto guard = enter();
  if (!driver().contexts.find(context)) return CUDA_ERROR_INVALID_CONTEXT;
  push(reinterpret_cast<Context*>(context));
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuCtxPopCurrent_v2(CUcontext* context) {
  auto guard = enter();
  if (!depth) return CUDA_ERROR_INVALID_CONTEXT;
  depth--;
  if (context) *context = reinterpret_cast<CUcontext>(stack[depth]);
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuCtxGetDevice(CUdevice* device) {
  auto guard = enter();
  PRETEND_TRY(need_context());
  *device = current()->device;
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuCtxSetFlags(unsigned flags) {
  auto guard = enter();
  PRETEND_TRY(need_context());
  current()->flags = flags;
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuCtxGetFlags(unsigned* flags) {
  auto guard = enter();
  PRETEND_TRY(need_context());
  *flags = current()->flags;
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuCtxSetLimit(CUlimit limit, size_t value) {
  auto guard = enter();
  PRETEND_TRY(need_context());
  current()->limits[limit] = value;
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuCtxGetLimit(size_t* value, CUlimit limit) {
  auto guard = enter();
  PRETEND_TRY(need_context());
  *value = current()->limits[limit];
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuCtxSetCacheConfig(CUfunc_cache) { return need_context(); }
PRETEND_API CUresult cuCtxGetCacheConfig(CUfunc_cache* config) {
  *config = CU_FUNC_CACHE_PREFER_NONE;
  return need_context();
}
PRETEND_API CUresult cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  if (least) *least = 0;
  if (greatest) *greatest = -5;
  return need_context();
}
PRETEND_API CUresult cuCtxEnablePeerAccess(CUcontext, unsigned) { return need_context(); }
PRETEND_API CUresult cuCtxDisablePeerAccess(CUcontext) { return need_context(); }
PRETEND_API CUresult cuProfilerStart() { return CUDA_SUCCESS; }
PRETEND_API CUresult cuProfilerStop() { return CUDA_SUCCESS; }

// ---- errors

struct ErrorText { CUresult error; const char* name; const char* text; };
#define PRETEND_ERROR(name, text) {name, #name, text},
static const ErrorText ERRORS[] = {
  PRETEND_ERROR(CUDA_SUCCESS, "no error")
  PRETEND_ERROR(CUDA_ERROR_INVALID_VALUE, "invalid argument")
  PRETEND_ERROR(CUDA_ERROR_OUT_OF_MEMORY, "out of memory")
  PRETEND_ERROR(CUDA_ERROR_NOT_INITIALIZED, "initialization error")
  PRETEND_ERROR(CUDA_ERROR_NO_DEVICE, "no CUDA-capable device is detected")
  PRETEND_ERROR(CUDA_ERROR_INVALID_DEVICE, "invalid device ordinal")
  PRETEND_ERROR(CUDA_ERROR_INVALID_IMAGE, "device kernel image is invalid")
  PRETEND_ERROR(CUDA_ERROR_INVALID_CONTEXT, "invalid device context")
  PRETEND_ERROR(CUDA_ERROR_FILE_NOT_FOUND, "file not found")
  PRETEND_ERROR(CUDA_ERROR_INVALID_HANDLE, "invalid resource handle")
  PRETEND_ERROR(CUDA_ERROR_ILLEGAL_STATE, "the operation cannot be performed in the present state")
  PRETEND_ERROR(CUDA_ERROR_NOT_FOUND, "named symbol not found")
  PRETEND_ERROR(CUDA_ERROR_NOT_READY, "device not ready")
  PRETEND_ERROR(CUDA_ERROR_NOT_SUPPORTED, "operation not supported")
  PRETEND_ERROR(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "operation not permitted when stream is capturing")
  PRETEND_ERROR(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "operation failed due to a previous error during capture")
  PRETEND_ERROR(CUDA_ERROR_STREAM_CAPTURE_MERGE, "operation would result in a merge of separate capture sequences")
  PRETEND_ERROR(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "capture was not ended in the same stream as it began")
  PRETEND_ERROR(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "capturing stream has unjoined work")
  PRETEND_ERROR(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "dependency created on uncaptured work in another stream")
  PRETEND_ERROR(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "operation would make the legacy stream depend on a capturing blocking stream")
  PRETEND_ERROR(CUDA_ERROR_CAPTURED_EVENT, "operation not permitted on an event last recorded in a capturing stream")
  PRETEND_ERROR(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "attempt to terminate a thread-local capture sequence from another thread")
  PRETEND_ERROR(CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE, "the graph update was not performed because it included changes which violated constraints")
};
static const ErrorText* find_error(CUresult error) {
  for (const ErrorText& known : ERRORS)
    if (known.error == error) return &known;
  return nullptr;
}
PRETEND_API CUresult cuGetErrorName(CUresult error, const char** name) {
  const ErrorText* known = find_error(error);
  *name = known ? known->name : nullptr;
  return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
PRETEND_API CUresult cuGetErrorString(CUresult error, const char** text) {
  const ErrorText* known = find_error(error);
  *text = known ? known->text : nullptr;
  return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
