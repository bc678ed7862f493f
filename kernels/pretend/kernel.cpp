// The pretend driver's modules, functions and launches. A module's image is not run: its functions are those of the same name that were compiled
// for the CPU. Knows names, sizes and limits; knows nothing of what a kernel does.
#include "pretend.hpp"
#include <cstring>
#include "../host.hpp"

using namespace pretend;

namespace {
struct Module;
struct Function {
  std::string name;
  const host::Kernel* kernel;
  Module* module;
  unsigned most_shared_bytes = 48 << 10;
};
struct Module {
  Context* context;
  std::map<std::string, std::unique_ptr<Function>> functions;
};
struct Kernels {
  Handles<Module> modules;
  std::set<const void*> functions;
};
Kernels& kernels() {
  static Kernels* only = new Kernels;
  return *only;
}
Function* find_function(CUfunction handle) {
  return kernels().functions.count(handle) ? reinterpret_cast<Function*>(handle) : nullptr;
}

// PTX is text; what nvcc makes of it is an ELF file, and a fat binary holds some of both.
bool is_image(const void* image) {
  unsigned magic;
  memcpy(&magic, image, sizeof magic);
  const unsigned first = magic & 0xff;
  return magic == 0xba55ed50 || magic == 0x464c457f || first == '/' || first == '.' || first == '\n';
}

CUresult load(CUmodule* handle, const void* image) {
  PRETEND_TRY(need_context());
  PRETEND_TRY(refuse_while_capturing());
  if (!image || !is_image(image)) return CUDA_ERROR_INVALID_IMAGE;
  *handle = reinterpret_cast<CUmodule>(kernels().modules.add(new Module{current(), {}}));
  return CUDA_SUCCESS;
}

int device_attribute(CUdevice_attribute attribute) {
  int value = 0;
  cuDeviceGetAttribute(&value, attribute, current()->device);
  return value;
}
}  // namespace

PRETEND_API CUresult cuModuleLoadData(CUmodule* module, const void* image) {
  auto guard = enter();
  return load(module, image);
}
PRETEND_API CUresult cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned, CUjit_option*, void**) {
  auto guard = enter();
  return load(module, image);
}
PRETEND_API CUresult cuModuleLoadFatBinary(CUmodule* module, const void* image) {
  auto guard = enter();
  return load(module, image);
}
PRETEND_API CUresult cuModuleLoad(CUmodule* module, const char* path) {
  auto guard = enter();
  FILE* file = fopen(path, "rb");
  if (!file) return CUDA_ERROR_FILE_NOT_FOUND;
  unsigned start = 0;
  const size_t read = fread(&start, 1, sizeof start, file);
  fclose(file);
  return read == sizeof start ? load(module, &start) : CUDA_ERROR_INVALID_IMAGE;
}
PRETEND_API CUresult cuModuleUnload(CUmodule handle) {
  auto guard = enter();
  PRETEND_TRY(refuse_while_capturing());
  Module* module = kernels().modules.find(handle);
  if (!module) return CUDA_ERROR_INVALID_HANDLE;
  for (auto& [name, function] : module->functions) kernels().functions.erase(function.get());
  kernels().modules.remove(handle);
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuModuleGetFunction(CUfunction* handle, CUmodule module_handle, const char* name) {
  auto guard = enter();
  Module* module = kernels().modules.find(module_handle);
  if (!module) return CUDA_ERROR_INVALID_HANDLE;
  auto& function = module->functions[name];
  if (!function) {
    auto known = host::kernels().find(name);
    if (known == host::kernels().end()) {
      if (trace()) fprintf(stderr, "pretend cuda: there is no kernel %s\n", name);
      return module->functions.erase(name), CUDA_ERROR_NOT_FOUND;
    }
    function.reset(new Function{name, &known->second, module});
    kernels().functions.insert(function.get());
  }
  *handle = reinterpret_cast<CUfunction>(function.get());
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuModuleGetGlobal_v2(CUdeviceptr*, size_t*, CUmodule, const char*) { return CUDA_ERROR_NOT_FOUND; }
PRETEND_API CUresult cuFuncGetModule(CUmodule* module, CUfunction handle) {
  auto guard = enter();
  Function* function = find_function(handle);
  if (!function) return CUDA_ERROR_INVALID_HANDLE;
  *module = reinterpret_cast<CUmodule>(function->module);
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuFuncGetName(const char** name, CUfunction handle) {
  auto guard = enter();
  Function* function = find_function(handle);
  if (!function) return CUDA_ERROR_INVALID_HANDLE;
  *name = function->name.c_str();
  return CUDA_SUCCESS;
}

// ---- attributes and occupancy

PRETEND_API CUresult cuFuncGetAttribute(int* value, CUfunction_attribute attribute, CUfunction handle) {
  auto guard = enter();
  Function* function = find_function(handle);
  if (!function) return CUDA_ERROR_INVALID_HANDLE;
  switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = int(function->kernel->threads); break;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: *value = int(function->most_shared_bytes); break;
    case CU_FUNC_ATTRIBUTE_NUM_REGS: *value = 32; break;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION: *value = capability(); break;
    default: *value = 0;
  }
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuFuncSetAttribute(CUfunction handle, CUfunction_attribute attribute, int value) {
  auto guard = enter();
  Function* function = find_function(handle);
  if (!function) return CUDA_ERROR_INVALID_HANDLE;
  PRETEND_TRY(need_context());
  if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_SUCCESS;
  if (value < 0 || value > device_attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)) return CUDA_ERROR_INVALID_VALUE;
  function->most_shared_bytes = unsigned(value);
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuFuncSetCacheConfig(CUfunction, CUfunc_cache) { return CUDA_SUCCESS; }

// As many blocks as threads and shared memory leave room for; registers are not known.
PRETEND_API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, CUfunction handle, int threads, size_t shared_bytes,
                                                                          unsigned) {
  auto guard = enter();
  PRETEND_TRY(need_context());
  if (!find_function(handle)) return CUDA_ERROR_INVALID_HANDLE;
  if (threads <= 0) return CUDA_ERROR_INVALID_VALUE;
  const size_t room = size_t(device_attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR));
  *blocks = int(std::min({size_t(2048 / threads), size_t(32), room / (shared_bytes + 1024)}));
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction function, int threads, size_t shared_bytes) {
  return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads, shared_bytes, 0);
}
PRETEND_API CUresult cuOccupancyAvailableDynamicSMemPerBlock(size_t* bytes, CUfunction handle, int blocks, int) {
  auto guard = enter();
  PRETEND_TRY(need_context());
  if (!find_function(handle) || blocks <= 0) return CUDA_ERROR_INVALID_VALUE;
  const size_t room = size_t(device_attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)) / size_t(blocks);
  *bytes = room > 1024 ? room - 1024 : 0;
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuOccupancyMaxPotentialBlockSizeWithFlags(int* blocks, int* threads, CUfunction handle, CUoccupancyB2DSize, size_t, int most,
                                                               unsigned) {
  auto guard = enter();
  PRETEND_TRY(need_context());
  Function* function = find_function(handle);
  if (!function) return CUDA_ERROR_INVALID_HANDLE;
  *threads = most > 0 ? std::min(most, int(function->kernel->threads)) : int(function->kernel->threads);
  *blocks = device_attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT) * (2048 / *threads);
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuOccupancyMaxPotentialBlockSize(int* blocks, int* threads, CUfunction function, CUoccupancyB2DSize shared, size_t bytes,
                                                      int most) {
  return cuOccupancyMaxPotentialBlockSizeWithFlags(blocks, threads, function, shared, bytes, most, 0);
}

// ---- launches

// The values of a launch's arguments, kept beyond the call.
struct Arguments {
  std::vector<unsigned long long> words;
  std::vector<size_t> starts;
  Arguments(const host::Kernel& kernel, void** addresses) {
    for (size_t argument = 0; argument < kernel.sizes.size(); argument++) {
      const size_t start = (words.size() + 1) / 2 * 2;  // as structures of 16 bytes want it
      starts.push_back(start);
      words.resize(start + (kernel.sizes[argument] + 7) / 8);
      memcpy(&words[start], addresses[argument], kernel.sizes[argument]);
    }
  }
  void run(const Function& function, host::Index grid, host::Index block, unsigned shared_bytes) {
    std::vector<void*> addresses;
    for (size_t start : starts) addresses.push_back(&words[start]);
    // Few blocks, or small ones, are done before another thread has begun.
    const unsigned long blocks = (unsigned long)grid.x * grid.y * grid.z;
    const bool small = blocks * block.x * block.y * block.z < 4096;
    const unsigned workers = small ? 1 : unsigned(std::min<unsigned long>(blocks, std::thread::hardware_concurrency()));
    host::launch(function.name.c_str(), grid, block, shared_bytes, addresses.data(), workers);
  }
};

static bool fits(const Function& function, host::Index grid, host::Index block, unsigned shared_bytes) {
  const unsigned long threads = (unsigned long)block.x * block.y * block.z;
  return grid.x && grid.y && grid.z && grid.x <= 0x7fffffff && grid.y <= 65535 && grid.z <= 65535 && threads && block.x <= 1024 &&
         block.y <= 1024 && block.z <= 64 && threads <= function.kernel->threads && shared_bytes <= function.most_shared_bytes;
}

PRETEND_API CUresult cuLaunchKernel(CUfunction handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                                    unsigned block_z, unsigned shared_bytes, CUstream stream, void** arguments, void** extra) {
  auto guard = enter();
  PRETEND_TRY(need_context());
  Function* function = find_function(handle);
  if (!function || function->module->context != current()) return CUDA_ERROR_INVALID_HANDLE;
  if (extra) return CUDA_ERROR_NOT_SUPPORTED;  // arguments in one buffer: nobody here passes them so
  const host::Index grid{grid_x, grid_y, grid_z}, block{block_x, block_y, block_z};
  if (trace())
    fprintf(stderr, "pretend cuda: %s grid %u %u %u block %u %u %u shared %u\n", function->name.c_str(), grid_x, grid_y, grid_z, block_x,
            block_y, block_z, shared_bytes);
  if (!fits(*function, grid, block, shared_bytes)) return CUDA_ERROR_INVALID_VALUE;
  if (!arguments && !function->kernel->sizes.empty()) return CUDA_ERROR_INVALID_VALUE;
  Arguments values(*function->kernel, arguments);
  host::misreads_lines = setting("PRETEND_CUDA_MISREADS_LINES", 0) != 0;
  return submit(stream, function->name, [=, function = *function]() mutable {
    values.run(function, grid, block, shared_bytes);
    return CUDA_SUCCESS;
  });
}
PRETEND_API CUresult cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction function, void** arguments, void** extra) {
  for (unsigned at = 0; at < config->numAttrs; at++) {
    const CUlaunchAttribute& attribute = config->attrs[at];
    const auto& cluster = attribute.value.clusterDim;
    const bool clusters = attribute.id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION && cluster.x * cluster.y * cluster.z != 1;
    const bool together = attribute.id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE && attribute.value.cooperative;
    if (clusters || together) return CUDA_ERROR_NOT_SUPPORTED;  // blocks run one after another here
  }
  return cuLaunchKernel(function, config->gridDimX, config->gridDimY, config->gridDimZ, config->blockDimX, config->blockDimY,
                        config->blockDimZ, config->sharedMemBytes, config->hStream, arguments, extra);
}
