// Tests of the pretend driver against its own interface: limits, errors, captured graphs, Candle's kernels and products against plain loops. Knows
// what the real libraries promise; says nothing of how fast they are.
#include "pretend.hpp"
#include <array>
#include <cmath>
#include <cstring>
#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

static int num_failed = 0;
#define CHECK(condition)                                                           \
  do {                                                                             \
    if (!(condition)) {                                                            \
      fprintf(stderr, "test.cpp:%d: not so: %s\n", __LINE__, #condition);          \
      num_failed++;                                                                \
    }                                                                              \
  } while (0)
#define OK(call) CHECK((call) == CUDA_SUCCESS)

using Floats = std::vector<float>;

template <class F>
static F* entry(const char* name) {
  void* found = dlsym(RTLD_DEFAULT, name);
  if (!found) fprintf(stderr, "there is no %s\n", name), exit(1);
  return reinterpret_cast<F*>(found);
}

// Numbers that look like nothing in particular, small enough for every format.
static float some(size_t at) { return float(int((at * 2654435761u >> 7) % 2001) - 1000) / 500.0f; }
static Floats some_numbers(size_t count, size_t start = 0) {
  Floats numbers(count);
  for (size_t at = 0; at < count; at++) numbers[at] = some(start + at);
  return numbers;
}

static CUdeviceptr upload(const void* from, size_t bytes) {
  CUdeviceptr address = 0;
  OK(cuMemAlloc(&address, bytes));
  OK(cuMemcpyHtoD(address, from, bytes));
  return address;
}
template <class T>
static CUdeviceptr upload(const std::vector<T>& numbers) { return upload(numbers.data(), numbers.size() * sizeof(T)); }
template <class T>
static std::vector<T> download(CUdeviceptr address, size_t count) {
  std::vector<T> numbers(count);
  OK(cuMemcpyDtoH(numbers.data(), address, count * sizeof(T)));
  return numbers;
}

static uint16_t to_bf16(float x) {
  uint32_t word;
  memcpy(&word, &x, 4);
  return uint16_t((word + 0x7fff + (word >> 16 & 1)) >> 16);
}
static float of_bf16(uint16_t bits) {
  const uint32_t word = uint32_t(bits) << 16;
  float x;
  memcpy(&x, &word, 4);
  return x;
}

static CUmodule module;
static CUfunction function(const char* name) {
  CUfunction found = nullptr;
  OK(cuModuleGetFunction(&found, module, name));
  return found;
}
static CUresult launch(CUfunction kernel, unsigned grid, unsigned block, CUstream stream, std::vector<void*> arguments, unsigned shared = 0) {
  return cuLaunchKernel(kernel, grid, 1, 1, block, 1, 1, shared, stream, arguments.data(), nullptr);
}

// Candle's affine_f32: out = in * factor + offset.
static CUresult affine(CUstream stream, CUdeviceptr in, CUdeviceptr out, size_t count, float factor, float offset, unsigned block = 64) {
  size_t dimensions = 1;
  CUdeviceptr info = 0;
  const unsigned blocks = unsigned(count + block - 1) / block;
  return launch(function("affine_f32"), blocks, block, stream, {&count, &dimensions, &info, &in, &out, &factor, &offset});
}

static void test_start() {
  int count = 0, version = 0, value = 0;
  CUdevice device;
  CHECK(cuDeviceGetCount(&count) == CUDA_ERROR_NOT_INITIALIZED);
  setenv("PRETEND_CUDA_DEVICES", "0", 1);
  CHECK(cuInit(0) == CUDA_ERROR_NO_DEVICE);
  setenv("PRETEND_CUDA_DEVICES", "2", 1);
  OK(cuInit(0));
  OK(cuDeviceGetCount(&count));
  CHECK(count == 2);
  CHECK(cuDeviceGet(&device, 2) == CUDA_ERROR_INVALID_DEVICE);
  OK(cuDriverGetVersion(&version));
  CHECK(version == 13000);
  OK(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 0));
  CHECK(value == 9);
  const char* name = nullptr;
  OK(cuGetErrorName(CUDA_ERROR_OUT_OF_MEMORY, &name));
  CHECK(!strcmp(name, "CUDA_ERROR_OUT_OF_MEMORY"));
  CUdeviceptr address;
  CHECK(cuMemAlloc(&address, 4) == CUDA_ERROR_INVALID_CONTEXT);
  CUcontext context;
  OK(cuDevicePrimaryCtxRetain(&context, 0));
  OK(cuCtxSetCurrent(context));
  CHECK(cuModuleLoadData(&module, "not an image") == CUDA_ERROR_INVALID_IMAGE);
  OK(cuModuleLoadData(&module, ".version 9.0"));
}

static void test_memory() {
  size_t free_before, free_after, total;
  setenv("PRETEND_CUDA_MEMORY_MB", "16", 1);
  setenv("PRETEND_CUDA_FAIL_ALLOCATION", "2", 1);
  OK(cuMemGetInfo(&free_before, &total));
  CHECK(total == 16u << 20 && free_before == total);
  CUdeviceptr first, second, third;
  OK(cuMemAlloc(&first, 1 << 20));
  CHECK(cuMemAlloc(&second, 1 << 20) == CUDA_ERROR_OUT_OF_MEMORY);
  OK(cuMemAlloc(&second, 1 << 20));
  unsetenv("PRETEND_CUDA_FAIL_ALLOCATION");
  OK(cuMemGetInfo(&free_after, &total));
  CHECK(free_after == free_before - (2 << 20));
  CHECK(cuMemAlloc(&third, 15 << 20) == CUDA_ERROR_OUT_OF_MEMORY);
  CHECK(cuMemAllocAsync(&third, 15 << 20, nullptr) == CUDA_ERROR_OUT_OF_MEMORY);
  CHECK(std::isnan(download<float>(first, 1)[0]));
  OK(cuMemsetD32(first, 7, 100));
  CHECK(download<unsigned>(first, 100)[99] == 7);
  std::vector<char> much(2 << 20);
  CHECK(cuMemcpyHtoD(first, much.data(), (1 << 20) + 1) == CUDA_ERROR_INVALID_VALUE);
  CHECK(cuMemcpyHtoD(first + (1 << 20) - 1, much.data(), 2) == CUDA_ERROR_INVALID_VALUE);
  OK(cuMemFree(first));
  CHECK(cuMemFree(first) == CUDA_ERROR_INVALID_VALUE);
  OK(cuMemFreeAsync(second, nullptr));
  OK(cuMemGetInfo(&free_after, &total));
  CHECK(free_after == free_before);
  unsetenv("PRETEND_CUDA_MEMORY_MB");
  void* pinned;
  OK(cuMemHostAlloc(&pinned, 100, 0));
  OK(cuMemFreeHost(pinned));
  CHECK(cuMemFreeHost(pinned) == CUDA_ERROR_INVALID_VALUE);
}

static void test_launches() {
  const size_t count = 1000;
  const Floats numbers = some_numbers(count);
  CUdeviceptr in = upload(numbers), out;
  OK(cuMemAlloc(&out, count * 4));
  OK(affine(nullptr, in, out, count, 2, 3));
  const Floats result = download<float>(out, count);
  for (size_t at = 0; at < count; at++) CHECK(result[at] == numbers[at] * 2 + 3);
  CUfunction none;
  CHECK(cuModuleGetFunction(&none, module, "no_such_kernel") == CUDA_ERROR_NOT_FOUND);
  CHECK(affine(nullptr, in, out, count, 2, 3, 2048) == CUDA_ERROR_INVALID_VALUE);
  CHECK(launch(function("affine_f32"), 0, 32, nullptr, {}) == CUDA_ERROR_INVALID_VALUE);

  // Sorting takes dynamic shared memory, one number for each of a power of two of threads: rows of 5 here.
  const Floats rows = some_numbers(15);
  CUdeviceptr unsorted = upload(rows), order;
  OK(cuMemAlloc(&order, 60));
  int columns = 5, padded = 8;
  const CUfunction sort = function("asort_asc_f32");
  CHECK(launch(sort, 3, 8, nullptr, {&unsorted, &order, &columns, &padded}, 50000) == CUDA_ERROR_INVALID_VALUE);
  CHECK(cuFuncSetAttribute(sort, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 228 << 10) == CUDA_ERROR_INVALID_VALUE);
  OK(cuFuncSetAttribute(sort, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 50000));
  OK(launch(sort, 3, 8, nullptr, {&unsorted, &order, &columns, &padded}, 50000));
  const auto places = download<unsigned>(order, 15);
  for (size_t row = 0; row < 3; row++)
    for (size_t at = 1; at < 5; at++) CHECK(rows[row * 5 + places[row * 5 + at - 1]] <= rows[row * 5 + places[row * 5 + at]]);

  CUcontext mine, other;
  OK(cuCtxGetCurrent(&mine));
  OK(cuDevicePrimaryCtxRetain(&other, 1));
  OK(cuCtxSetCurrent(other));
  CHECK(affine(nullptr, in, out, count, 1, 1) == CUDA_ERROR_INVALID_HANDLE);
  OK(cuCtxSetCurrent(mine));
}

static void test_softmax_in_bf16() {
  const int columns = 37;
  std::vector<uint16_t> numbers(3 * columns);
  for (size_t at = 0; at < numbers.size(); at++) numbers[at] = to_bf16(some(at));
  CUdeviceptr in = upload(numbers), out;
  OK(cuMemAlloc(&out, numbers.size() * 2));
  int width = columns;
  const std::vector<void*> arguments = {&in, &out, &width};
  OK(cuLaunchKernel(function("softmax_bf16"), 3, 1, 1, 1, 32, 1, 0, nullptr, const_cast<void**>(arguments.data()), nullptr));
  const auto result = download<uint16_t>(out, numbers.size());
  for (int row = 0; row < 3; row++) {
    double sum = 0;
    for (int at = 0; at < columns; at++) sum += exp(of_bf16(numbers[size_t(row * columns + at)]));
    for (int at = 0; at < columns; at++) {
      const double wanted = exp(of_bf16(numbers[size_t(row * columns + at)])) / sum;
      CHECK(fabs(of_bf16(result[size_t(row * columns + at)]) - wanted) < wanted / 64);
    }
  }
}

static void test_graph_is_eager() {
  const size_t count = 300;
  CUstream stream;
  OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  const Floats numbers = some_numbers(count), zeros(count, 0.0f);
  CUdeviceptr in = upload(numbers), middle = upload(zeros), out = upload(zeros);
  CUstreamCaptureStatus status;
  OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  OK(cuStreamIsCapturing(stream, &status));
  CHECK(status == CU_STREAM_CAPTURE_STATUS_ACTIVE);
  CUdeviceptr scratch;
  OK(cuMemAllocAsync(&scratch, count * 4, stream));
  OK(affine(stream, in, scratch, count, 2, 1));
  OK(cuMemcpyDtoDAsync(middle, scratch, count * 4, stream));
  OK(cuMemFreeAsync(scratch, stream));
  OK(affine(stream, middle, out, count, 3, 0));
  OK(cuMemsetD32Async(middle, 0, 1, stream));
  CHECK(cuMemFreeAsync(in, stream) == CUDA_ERROR_INVALID_VALUE);
  CUgraph graph;
  OK(cuStreamEndCapture(stream, &graph));
  CHECK(download<float>(out, count) == zeros);
  CUgraphExec exec;
  OK(cuGraphInstantiate(&exec, graph, 0));
  OK(cuGraphDestroy(graph));
  for (float step : {1.0f, 2.0f}) {
    Floats stepped = numbers;
    for (float& number : stepped) number *= step;
    OK(cuMemcpyHtoD(in, stepped.data(), count * 4));
    OK(cuGraphLaunch(exec, stream));
    const Floats result = download<float>(out, count), left = download<float>(middle, 1);
    for (size_t at = 0; at < count; at++) CHECK(result[at] == (stepped[at] * 2 + 1) * 3 + 0.0f);
    CHECK(left[0] == 0);
  }
  OK(cuGraphExecDestroy(exec));
  CHECK(cuGraphLaunch(exec, stream) == CUDA_ERROR_INVALID_VALUE);
  OK(cuStreamDestroy(stream));
}

static void test_graph_of_two_streams() {
  CUstream main, side;
  CUevent fork, join;
  CUgraph graph;
  OK(cuStreamCreate(&main, CU_STREAM_NON_BLOCKING));
  OK(cuStreamCreate(&side, CU_STREAM_NON_BLOCKING));
  OK(cuEventCreate(&fork, CU_EVENT_DISABLE_TIMING));
  OK(cuEventCreate(&join, CU_EVENT_DISABLE_TIMING));
  CUdeviceptr numbers = upload(Floats(4, 0.0f));
  const auto begin = [&] {
    OK(cuStreamBeginCapture(main, CU_STREAM_CAPTURE_MODE_RELAXED));
    OK(cuEventRecord(fork, main));
    OK(cuStreamWaitEvent(side, fork, 0));
    OK(cuMemsetD32Async(numbers, 5, 4, side));
    OK(cuEventRecord(join, side));
  };
  begin();
  OK(cuStreamWaitEvent(main, join, 0));
  OK(cuMemsetD32Async(numbers, 6, 1, main));
  OK(cuStreamEndCapture(main, &graph));
  CUgraphExec exec;
  OK(cuGraphInstantiate(&exec, graph, 0));
  OK(cuGraphLaunch(exec, main));
  CHECK((download<int>(numbers, 4) == std::vector<int>{6, 5, 5, 5}));
  begin();
  CHECK(cuStreamEndCapture(main, &graph) == CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
  begin();
  CHECK(cuEventSynchronize(fork) == CUDA_ERROR_CAPTURED_EVENT);
  CHECK(cuStreamEndCapture(main, &graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  CHECK(graph == nullptr);
  // A wait for what no capture knows of.
  OK(cuEventRecord(fork, side));
  OK(cuStreamBeginCapture(main, CU_STREAM_CAPTURE_MODE_RELAXED));
  CHECK(cuStreamWaitEvent(main, fork, 0) == CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
  CHECK(cuStreamEndCapture(main, &graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
}

static void test_what_capture_forbids() {
  CUstream stream;
  CUgraph graph;
  CUdeviceptr address;
  float number = 1;
  const CUdeviceptr memory = upload(Floats(4, 0.0f));
  OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  const std::vector<std::function<CUresult()>> calls = {
    [&] { return cuStreamSynchronize(stream); }, [&] { return cuCtxSynchronize(); }, [&] { return cuMemAlloc(&address, 4); },
    [&] { return cuMemcpyHtoD(memory, &number, 4); }, [&] { return cuMemcpyDtoH(&number, memory, 4); }, [&] { return cuMemFree(memory); },
    [&] { return cuMemcpyHtoDAsync(memory, &number, 4, stream); },
  };
  for (const auto& call : calls) {
    OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    CHECK(call() == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    CHECK(cuMemsetD32Async(memory, 0, 1, stream) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    CHECK(cuStreamEndCapture(stream, &graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    CHECK(graph == nullptr);
  }
  // Another thread may, unless the capture is everybody's.
  OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  CUcontext context;
  OK(cuCtxGetCurrent(&context));
  std::thread([&] {
    OK(cuCtxSetCurrent(context));
    OK(cuMemAlloc(&address, 4));
  }).join();
  OK(cuStreamEndCapture(stream, &graph));
  CHECK(cuStreamBeginCapture(nullptr, CU_STREAM_CAPTURE_MODE_GLOBAL) == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
}

static void test_events() {
  CUevent start, end;
  float milliseconds = -1;
  OK(cuEventCreate(&start, 0));
  OK(cuEventCreate(&end, 0));
  CHECK(cuEventElapsedTime(&milliseconds, start, end) == CUDA_ERROR_INVALID_HANDLE);
  OK(cuEventRecord(start, nullptr));
  OK(cuEventRecord(end, nullptr));
  OK(cuEventQuery(end));
  OK(cuEventElapsedTime(&milliseconds, start, end));
  CHECK(milliseconds >= 0 && milliseconds < 1000);
  OK(cuEventDestroy(start));
  CHECK(cuEventRecord(start, nullptr) == CUDA_ERROR_INVALID_HANDLE);
}

// Pinned memory may be written to again when somebody has waited for the copies out of it: for an event behind them, or for all.
static void test_copies_out_of_pinned_memory() {
  void* pinned;
  CUstream stream;
  CUevent behind;
  OK(cuMemHostAlloc(&pinned, 8, 0));
  OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  OK(cuEventCreate(&behind, CU_EVENT_DISABLE_TIMING));
  const CUdeviceptr memory = upload(Floats(2, 0.0f));
  float* numbers = static_cast<float*>(pinned);
  for (float step : {1.0f, 2.0f}) {
    numbers[0] = step;
    OK(cuMemcpyHtoDAsync(memory, numbers, 4, stream));
    OK(cuEventRecord(behind, stream));
    numbers[1] = step;
    OK(cuMemcpyHtoDAsync(memory + 4, numbers + 1, 4, stream));
    OK(cuEventSynchronize(behind));
    numbers[0] = 3;
    OK(cuStreamSynchronize(stream));
    CHECK((download<float>(memory, 2) == Floats{step, step}));
  }
  OK(cuMemcpyHtoDAsync(memory, numbers, 8, stream));
  const pid_t child = fork();
  if (child == 0) {
    numbers[1] = 4;
    freopen("/dev/null", "w", stderr);
    cuStreamSynchronize(stream);
    _exit(0);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(!(WIFEXITED(status) && WEXITSTATUS(status) == 0));
  OK(cuMemFreeHost(pinned));
}

#include "test_products.hpp"

int main() {
  test_start();
  test_memory();
  test_launches();
  test_softmax_in_bf16();
  test_graph_is_eager();
  test_graph_of_two_streams();
  test_what_capture_forbids();
  test_events();
  test_copies_out_of_pinned_memory();
  test_cublas();
  test_cublas_f64_in_batches();
  test_cublaslt_of_f8();
  test_random_numbers();
  fprintf(stderr, "pretend cuda: %s\n", num_failed ? "tests FAILED" : "all tests passed");
  return num_failed != 0;
}
