// The pretend cuRAND: numbers that depend on seed and place alone, so that the same seed gives the same numbers; not those of the real library.
// Knows how to mix bits (SplitMix64; Steele, Lea and Flood 2014) and to make a normal distribution of them (Box and Muller 1958).
#include "pretend.hpp"
#include <cmath>

using namespace pretend;

namespace {
enum Status { SUCCESS = 0, NOT_INITIALIZED = 101, LENGTH_NOT_MULTIPLE = 105, LAUNCH_FAILURE = 201 };
struct Generator {
  CUstream stream = nullptr;
  unsigned long long seed = 0, next = 0;
};
Handles<Generator>& generators() {
  static auto* all = new Handles<Generator>;
  return *all;
}

unsigned long long bits(unsigned long long seed, unsigned long long place) {
  unsigned long long x = seed + (place + 1) * 0x9e3779b97f4a7c15;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}
// In (0, 1].
double uniform(unsigned long long seed, unsigned long long place) { return double((bits(seed, place) >> 11) + 1) * 0x1p-53; }
double normal(unsigned long long seed, unsigned long long place) {
  const unsigned long long pair = place / 2 * 2;
  const double size = std::sqrt(-2 * std::log(uniform(seed, pair))), angle = 2 * M_PI * uniform(seed, pair + 1);
  return size * (place % 2 ? std::sin(angle) : std::cos(angle));
}

template <class T, class Number>
int generate(void* handle, T* numbers, size_t count, Number number) {
  auto guard = enter();
  Generator* known = generators().find(handle);
  if (!known) return NOT_INITIALIZED;
  const unsigned long long seed = known->seed, first = known->next;
  known->next += count;
  const CUresult result = submit(known->stream, "random numbers", [=] {
    for (size_t at = 0; at < count; at++) numbers[at] = T(number(seed, first + at));
    return CUDA_SUCCESS;
  });
  return result == CUDA_SUCCESS ? SUCCESS : LAUNCH_FAILURE;
}
template <class T>
int generate_normal(void* handle, T* numbers, size_t count, T mean, T deviation) {
  if (count % 2) return LENGTH_NOT_MULTIPLE;
  return generate(handle, numbers, count, [=](auto seed, auto place) { return mean + deviation * T(normal(seed, place)); });
}
template <class T>
int generate_log_normal(void* handle, T* numbers, size_t count, T mean, T deviation) {
  if (count % 2) return LENGTH_NOT_MULTIPLE;
  return generate(handle, numbers, count, [=](auto seed, auto place) { return std::exp(mean + deviation * T(normal(seed, place))); });
}
}  // namespace

PRETEND_API int curandCreateGenerator(void** handle, int) {
  auto guard = enter();
  *handle = generators().add(new Generator);
  return SUCCESS;
}
PRETEND_API int curandDestroyGenerator(void* handle) {
  auto guard = enter();
  return generators().remove(handle) ? SUCCESS : NOT_INITIALIZED;
}
PRETEND_API int curandSetStream(void* handle, CUstream stream) {
  auto guard = enter();
  Generator* known = generators().find(handle);
  return known ? known->stream = stream, SUCCESS : NOT_INITIALIZED;
}
PRETEND_API int curandSetPseudoRandomGeneratorSeed(void* handle, unsigned long long seed) {
  auto guard = enter();
  Generator* known = generators().find(handle);
  return known ? known->seed = seed, known->next = 0, SUCCESS : NOT_INITIALIZED;
}
PRETEND_API int curandSetGeneratorOffset(void* handle, unsigned long long offset) {
  auto guard = enter();
  Generator* known = generators().find(handle);
  return known ? known->next = offset, SUCCESS : NOT_INITIALIZED;
}
PRETEND_API int curandGenerate(void* handle, unsigned* numbers, size_t count) { return generate(handle, numbers, count, bits); }
PRETEND_API int curandGenerateLongLong(void* handle, unsigned long long* numbers, size_t count) { return generate(handle, numbers, count, bits); }
PRETEND_API int curandGenerateUniform(void* handle, float* numbers, size_t count) { return generate(handle, numbers, count, uniform); }
PRETEND_API int curandGenerateUniformDouble(void* handle, double* numbers, size_t count) { return generate(handle, numbers, count, uniform); }
PRETEND_API int curandGenerateNormal(void* handle, float* numbers, size_t count, float mean, float deviation) {
  return generate_normal(handle, numbers, count, mean, deviation);
}
PRETEND_API int curandGenerateNormalDouble(void* handle, double* numbers, size_t count, double mean, double deviation) {
  return generate_normal(handle, numbers, count, mean, deviation);
}
PRETEND_API int curandGenerateLogNormal(void* handle, float* numbers, size_t count, float mean, float deviation) {
  return generate_log_normal(handle, numbers, count, mean, deviation);
}
PRETEND_API int curandGenerateLogNormalDouble(void* handle, double* numbers, size_t count, double mean, double deviation) {
  return generate_log_normal(handle, numbers, count, mean, deviation);
}
