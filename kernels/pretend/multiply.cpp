// The product itself: panels of both operands in f32, a tile of 16 rows and up to 6 columns in registers that runs through all of k, two threads.
// No sum is ever split, so an element's bits do not depend on what is computed beside it. Knows numbers; knows neither library.
#include "multiply.hpp"
#include "../host.hpp"
#include "../common.cuh"
#include <immintrin.h>

namespace pretend {
namespace {

constexpr long long TILE_ROWS = 16, TILE_COLUMNS = 6;

float half_to_f32(f16 x) {
  _Float16 number;
  memcpy(&number, &x, sizeof number);
  return float(number);
}
f16 f32_to_half(float x) {
  const _Float16 number = _Float16(x);
  f16 half;
  memcpy(&half, &number, sizeof half);
  return half;
}

struct Eighths {
  float at[256];
  Eighths() {
    for (int bits = 0; bits < 256; bits++) at[bits] = to_f32(fp8{uint8_t(bits)});
  }
};

inline float read(const float* numbers, long long index) { return numbers[index]; }
inline float read(const bf16* numbers, long long index) { return to_f32(numbers[index]); }
inline float read(const f16* numbers, long long index) { return half_to_f32(numbers[index]); }
inline float read(const fp8* numbers, long long index) {
  static const Eighths table;
  return table.at[numbers[index].bits];
}

// Panel: for each k the `width` numbers of rows first, first + 1, ...; zeros where there is no row. In stretches of k that the first cache holds.
template <class T>
void pack_rows(float* panel, const T* numbers, long long first, long long rows, long long width, long long inner, long long row_step,
               long long k_step) {
  constexpr long long STRETCH = 128;
  for (long long start = 0; start < inner; start += STRETCH) {
    const long long end = std::min(start + STRETCH, inner);
    for (long long row = 0; row < width; row++) {
      const bool there = first + row < rows;
      const T* from = numbers + (there ? (first + row) * row_step : 0);
      float* to = panel + row;
      for (long long k = start; k < end; k++) to[k * width] = there ? read(from, k * k_step) : 0.0f;
    }
  }
}
void pack(float* panel, const Matrix& matrix, long long batch, long long first, long long rows, long long width, long long inner, long long row_step,
          long long k_step) {
  const char* start = static_cast<const char*>(matrix.data) + batch * matrix.batch_step * type_bytes(matrix.type);
  const void* data = start;
  switch (matrix.type) {
    case F32: return pack_rows(panel, static_cast<const float*>(data), first, rows, width, inner, row_step, k_step);
    case F16: return pack_rows(panel, static_cast<const f16*>(data), first, rows, width, inner, row_step, k_step);
    case BF16: return pack_rows(panel, static_cast<const bf16*>(data), first, rows, width, inner, row_step, k_step);
    case F8: return pack_rows(panel, static_cast<const fp8*>(data), first, rows, width, inner, row_step, k_step);
  }
}

// Sums of 16 rows and COLUMNS columns, through k in order.
template <int COLUMNS>
void run_tile(const float* rows, const float* columns, long long inner, float* sums) {
  __m256 low[COLUMNS], high[COLUMNS];
  for (int column = 0; column < COLUMNS; column++) low[column] = high[column] = _mm256_setzero_ps();
  for (long long k = 0; k < inner; k++) {
    const __m256 upper = _mm256_loadu_ps(rows + k * TILE_ROWS), lower = _mm256_loadu_ps(rows + k * TILE_ROWS + 8);
    for (int column = 0; column < COLUMNS; column++) {
      const __m256 factor = _mm256_broadcast_ss(columns + k * COLUMNS + column);
      low[column] = _mm256_fmadd_ps(upper, factor, low[column]);
      high[column] = _mm256_fmadd_ps(lower, factor, high[column]);
    }
  }
  for (int column = 0; column < COLUMNS; column++) {
    _mm256_storeu_ps(sums + column * TILE_ROWS, low[column]);
    _mm256_storeu_ps(sums + column * TILE_ROWS + 8, high[column]);
  }
}
void tile(long long num_columns, const float* rows, const float* columns, long long inner, float* sums) {
  switch (num_columns) {
    case 1: return run_tile<1>(rows, columns, inner, sums);
    case 2: return run_tile<2>(rows, columns, inner, sums);
    case 3: return run_tile<3>(rows, columns, inner, sums);
    case 4: return run_tile<4>(rows, columns, inner, sums);
    case 5: return run_tile<5>(rows, columns, inner, sums);
    default: return run_tile<6>(rows, columns, inner, sums);
  }
}

void finish(const Product& product, long long batch, long long row, long long column, double sum) {
  const auto place = [&](const Matrix& matrix) { return row * matrix.row_step + column * matrix.column_step + batch * matrix.batch_step; };
  const bool wide = product.d.type == F64;
  double value = wide ? sum : float(sum) * product.row_scale.of(row) * product.column_scale.of(column);
  value = wide ? product.alpha * value : float(product.alpha) * float(value);
  if (product.beta != 0) value += product.beta * load_number(product.c.data, product.c.type, place(product.c));
  if (product.bias) value += load_number(product.bias, product.bias_type, row);
  if (product.relu && value < 0) value = 0;
  store_number(product.d.data, product.d.type, place(product.d), wide ? value : float(value) * product.out_scale.of(0));
}

void multiply_f64(const Product& product) {
  for (long long batch = 0; batch < product.batches; batch++)
    for (long long column = 0; column < product.columns; column++)
      for (long long row = 0; row < product.rows; row++) {
        const double* a = static_cast<double*>(product.a.data) + batch * product.a.batch_step + row * product.a.row_step;
        const double* b = static_cast<double*>(product.b.data) + batch * product.b.batch_step + column * product.b.column_step;
        double sum = 0;
        for (long long k = 0; k < product.inner; k++) sum = fma(a[k * product.a.column_step], b[k * product.b.row_step], sum);
        finish(product, batch, row, column, sum);
      }
}

// Every column's panels are made once; the panels of rows are dealt out.
void multiply_batch(const Product& product, long long batch) {
  const long long inner = product.inner, columns = product.columns;
  std::vector<float> all_columns(size_t(columns * inner));
  for (long long first = 0; first < columns; first += TILE_COLUMNS)
    pack(&all_columns[size_t(first * inner)], product.b, batch, first, columns, std::min(TILE_COLUMNS, columns - first), inner,
         product.b.column_step, product.b.row_step);
  auto work = [&](long long worker, long long workers) {
    std::vector<float> rows(size_t(TILE_ROWS * inner));
    float sums[TILE_ROWS * TILE_COLUMNS];
    for (long long row = worker * TILE_ROWS; row < product.rows; row += workers * TILE_ROWS) {
      pack(rows.data(), product.a, batch, row, product.rows, TILE_ROWS, inner, product.a.row_step, product.a.column_step);
      for (long long first = 0; first < columns; first += TILE_COLUMNS) {
        const long long width = std::min(TILE_COLUMNS, columns - first), height = std::min(TILE_ROWS, product.rows - row);
        tile(width, rows.data(), &all_columns[size_t(first * inner)], inner, sums);
        for (long long column = 0; column < width; column++)
          for (long long at = 0; at < height; at++) finish(product, batch, row + at, first + column, double(sums[column * TILE_ROWS + at]));
      }
    }
  };
  if (product.rows * columns * inner < 1 << 20) return work(0, 1);
  std::thread other(work, 1, 2);
  work(0, 2);
  other.join();
}

}  // namespace

int type_bytes(int type) {
  return type == F32 ? 4 : type == F64 ? 8 : type == F16 || type == BF16 ? 2 : type == F8 ? 1 : 0;
}
double load_number(const void* numbers, int type, long long index) {
  switch (type) {
    case F64: return static_cast<const double*>(numbers)[index];
    case F16: return read(static_cast<const f16*>(numbers), index);
    case BF16: return read(static_cast<const bf16*>(numbers), index);
    case F8: return read(static_cast<const fp8*>(numbers), index);
    default: return static_cast<const float*>(numbers)[index];
  }
}
void store_number(void* numbers, int type, long long index, double value) {
  switch (type) {
    case F64: static_cast<double*>(numbers)[index] = value; return;
    case F16: static_cast<f16*>(numbers)[index] = f32_to_half(float(value)); return;
    case BF16: static_cast<bf16*>(numbers)[index] = from_f32<bf16>(float(value)); return;
    case F8: static_cast<fp8*>(numbers)[index] = from_f32<fp8>(float(value)); return;
    default: static_cast<float*>(numbers)[index] = float(value);
  }
}

bool can_multiply(const Product& product) {
  const bool wide = product.a.type == F64;
  return type_bytes(product.a.type) && type_bytes(product.c.type) && type_bytes(product.d.type) && product.a.type == product.b.type &&
         (product.d.type == F64) == wide && (product.c.type == F64) == wide;
}

void multiply(Product product) {
  if (product.alpha_at) product.alpha = load_number(product.alpha_at, product.scalar_type, 0);
  if (product.beta_at) product.beta = load_number(product.beta_at, product.scalar_type, 0);
  if (product.a.type == F64) return multiply_f64(product);
  for (long long batch = 0; batch < product.batches; batch++) multiply_batch(product, batch);
}

}  // namespace pretend
