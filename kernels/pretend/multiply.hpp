// Products of matrices in host memory, as the pretend cuBLAS and cuBLASLt ask for them. Knows numbers and strides; knows neither library.
#pragma once
#include <vector>

namespace pretend {

// cudaDataType_t.
enum Type { F32 = 0, F64 = 1, F16 = 2, BF16 = 14, F8 = 28 };

int type_bytes(int type);  // 0 for a type that is not multiplied here
double load_number(const void* numbers, int type, long long index);
void store_number(void* numbers, int type, long long index, double value);

// Element (row, column) of batch b: data[row * row_step + column * column_step + b * batch_step].
struct Matrix {
  void* data = nullptr;
  int type = F32;
  long long row_step = 1, column_step = 0, batch_step = 0;
};
// A factor that the device reads when the product runs: one number, one per row or column, or none.
struct Scale {
  const float* at = nullptr;
  bool each = false;
  float of(long long index) const { return at ? at[each ? index : 0] : 1.0f; }
};

// d = alpha * (a b, scaled) + beta * c + bias. Each element's sum goes through k from 0 on in f32, fused, one order whatever the shape; with f64
// operands in f64.
struct Product {
  long long rows, columns, inner, batches = 1;
  Matrix a, b, c, d;
  double alpha = 1, beta = 0;
  const void *alpha_at = nullptr, *beta_at = nullptr;  // where they lie in device memory, of `scalar_type`
  int scalar_type = F32;
  Scale row_scale, column_scale, out_scale;
  const void* bias = nullptr;  // one number per row
  int bias_type = F32;
  bool relu = false;
};

bool can_multiply(const Product& product);
void multiply(Product product);

}  // namespace pretend
