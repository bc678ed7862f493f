// The part of test.cpp about products and random numbers: cuBLAS, cuBLASLt and cuRAND against plain loops, with that file's helpers.
#pragma once

// ---- products

using Words = std::vector<uint16_t>;
static Words all_bf16(const Floats& numbers) {
  Words words;
  for (float number : numbers) words.push_back(to_bf16(number));
  return words;
}

// out [n, m] = weight [m, k] x [n, k], as a linear layer asks cuBLAS for it: the first operand turned.
static void test_cublas() {
  const auto create = entry<int(void**)>("cublasCreate_v2");
  const auto gemm = entry<int(void*, int, int, int, int, int, const float*, const void*, int, int, const void*, int, int, const float*, void*, int,
                              int, int, int)>("cublasGemmEx");
  void* handle;
  OK(CUresult(create(&handle)));
  for (const auto& [m, n, k] : std::vector<std::array<int, 3>>{{1, 1, 1}, {33, 7, 65}, {130, 100, 200}}) {
    const Words weight = all_bf16(some_numbers(size_t(m * k))), x = all_bf16(some_numbers(size_t(n * k), 999));
    CUdeviceptr weight_at = upload(weight), x_at = upload(x), out;
    OK(cuMemAlloc(&out, size_t(m * n * 4)));
    const float one = 1, zero = 0;
    const auto run = [&](int rows, int out_type) {
      return gemm(handle, 1, 0, m, rows, k, &one, reinterpret_cast<void*>(weight_at), 14, k, reinterpret_cast<void*>(x_at), 14, k, &zero,
                  reinterpret_cast<void*>(out), out_type, m, 68, 99);
    };
    CHECK(run(n, 0) == 0);
    const Floats wide = download<float>(out, size_t(m * n));
    for (int row = 0; row < n; row++)
      for (int column = 0; column < m; column++) {
        double sum = 0, size = 0;
        for (int at = 0; at < k; at++) {
          const double term = double(of_bf16(weight[size_t(column * k + at)])) * of_bf16(x[size_t(row * k + at)]);
          sum += term, size += fabs(term);
        }
        CHECK(fabs(wide[size_t(row * m + column)] - sum) <= size * 1e-5);
      }
    CHECK(run(1, 0) == 0);  // a row by itself: the same bits
    CHECK(!memcmp(download<float>(out, size_t(m)).data(), wide.data(), size_t(m) * 4));
    CHECK(run(n, 14) == 0);
    CHECK(download<uint16_t>(out, size_t(m * n)) == all_bf16(wide));
    CHECK(run(n, 3) == 15);
  }
}

static void test_cublas_f64_in_batches() {
  const auto create = entry<int(void**)>("cublasCreate_v2");
  const auto gemm = entry<int(void*, int, int, int, int, int, const double*, const void*, int, int, long long, const void*, int, int, long long,
                              const double*, void*, int, int, long long, int, int, int)>("cublasGemmStridedBatchedEx");
  void* handle;
  OK(CUresult(create(&handle)));
  const int m = 5, n = 3, k = 4, batches = 2;
  std::vector<double> a, b, c(size_t(m * n * batches), 1.0);
  for (size_t at = 0; at < size_t(m * k * batches); at++) a.push_back(some(at));
  for (size_t at = 0; at < size_t(n * k * batches); at++) b.push_back(some(at + 50));
  const CUdeviceptr a_at = upload(a), b_at = upload(b), c_at = upload(c);
  const double two = 2, three = 3;
  CHECK(gemm(handle, 0, 0, m, n, k, &two, reinterpret_cast<void*>(a_at), 1, m, m * k, reinterpret_cast<void*>(b_at), 1, k, n * k, &three,
             reinterpret_cast<void*>(c_at), 1, m, m * n, batches, 70, 0) == 0);
  const auto result = download<double>(c_at, c.size());
  for (int batch = 0; batch < batches; batch++)
    for (int row = 0; row < m; row++)
      for (int column = 0; column < n; column++) {
        double sum = 0;
        for (int at = 0; at < k; at++) sum += a[size_t(batch * m * k + at * m + row)] * b[size_t(batch * n * k + column * k + at)];
        CHECK(fabs(result[size_t(batch * m * n + column * m + row)] - (2 * sum + 3)) < 1e-12);
      }
}

// f8 with a factor for each row of either operand, f16 as f32, and a bias; and the same product captured.
static void test_cublaslt_of_f8() {
  const auto create = entry<int(void**)>("cublasLtCreate");
  const auto describe = entry<int(void**, int, int)>("cublasLtMatmulDescCreate");
  const auto set = entry<int(void*, int, const void*, size_t)>("cublasLtMatmulDescSetAttribute");
  const auto layout = entry<int(void**, int, unsigned long long, unsigned long long, long long)>("cublasLtMatrixLayoutCreate");
  const auto multiply = entry<int(void*, void*, const void*, const void*, void*, const void*, void*, const void*, const void*, void*, void*, void*,
                                  const void*, void*, size_t, CUstream)>("cublasLtMatmul");
  const int m = 32, n = 5, k = 48, turned = 1, each = 3, with_bias = 4, f32 = 0;
  std::vector<uint8_t> a, b;
  for (int at = 0; at < m * k; at++) a.push_back(uint8_t(at * 7 % 120 + at % 2 * 128));
  for (int at = 0; at < n * k; at++) b.push_back(uint8_t(at * 11 % 120));
  const auto value = [](uint8_t bits) {  // e4m3: 4 bits of exponent, 3 of fraction
    const int exponent = bits >> 3 & 15, fraction = bits & 7;
    const double size = exponent ? ldexp(1 + fraction / 8.0, exponent - 7) : ldexp(fraction, -9);
    return bits & 128 ? -size : size;
  };
  const Floats row_scales = some_numbers(m), column_scales = some_numbers(n, 77), bias = some_numbers(m, 33);
  const CUdeviceptr a_at = upload(a), b_at = upload(b), rows_at = upload(row_scales), columns_at = upload(column_scales), bias_at = upload(bias);
  CUdeviceptr out;
  OK(cuMemAlloc(&out, m * n * 4));
  void *library, *product, *a_layout, *b_layout, *out_layout;
  const float one = 1, zero = 0;
  CHECK(!create(&library) && !describe(&product, 68, 0) && !layout(&a_layout, 28, k, m, k) && !layout(&b_layout, 28, k, n, k));
  CHECK(!layout(&out_layout, f32, m, n, m));
  CUstream stream;
  OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  const auto run = [&] {
    return multiply(library, product, &one, reinterpret_cast<void*>(a_at), a_layout, reinterpret_cast<void*>(b_at), b_layout, &zero,
                    reinterpret_cast<void*>(out), out_layout, reinterpret_cast<void*>(out), out_layout, nullptr, nullptr, 0, stream);
  };
  CHECK(run() == 7);  // not turned, the sizes do not meet
  CHECK(!set(product, 3, &turned, 4) && !set(product, 17, &rows_at, 8) && !set(product, 18, &columns_at, 8));
  CHECK(!set(product, 31, &each, 4) && !set(product, 32, &each, 4) && !set(product, 7, &with_bias, 4));
  CHECK(!set(product, 8, &bias_at, 8) && !set(product, 26, &f32, 4));
  setenv("PRETEND_CUDA_CAPABILITY", "86", 1);
  CHECK(run() == 15);
  unsetenv("PRETEND_CUDA_CAPABILITY");
  CHECK(run() == 0);
  const Floats eager = download<float>(out, size_t(m * n));
  for (int row = 0; row < m; row++)
    for (int column = 0; column < n; column++) {
      double sum = 0, size = 0;
      for (int at = 0; at < k; at++) {
        const double term = value(a[size_t(row * k + at)]) * value(b[size_t(column * k + at)]);
        sum += term, size += fabs(term);
      }
      const double scale = double(row_scales[size_t(row)]) * column_scales[size_t(column)];
      CHECK(fabs(eager[size_t(column * m + row)] - (sum * scale + bias[size_t(row)])) <= size * fabs(scale) * 1e-5 + 1e-6);
    }
  CUgraph graph;
  CUgraphExec exec;
  OK(cuMemsetD8(out, 0, m * n * 4));
  OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  CHECK(run() == 0);
  OK(cuStreamEndCapture(stream, &graph));
  OK(cuGraphInstantiate(&exec, graph, 0));
  CHECK(download<float>(out, 1)[0] == 0);
  OK(cuGraphLaunch(exec, stream));
  CHECK(download<float>(out, size_t(m * n)) == eager);
}

static void test_random_numbers() {
  const auto create = entry<int(void**, int)>("curandCreateGenerator");
  const auto seed = entry<int(void*, unsigned long long)>("curandSetPseudoRandomGeneratorSeed");
  const auto uniform = entry<int(void*, float*, size_t)>("curandGenerateUniform");
  const auto normal = entry<int(void*, float*, size_t, float, float)>("curandGenerateNormal");
  const size_t count = 10000;
  CUdeviceptr out;
  OK(cuMemAlloc(&out, count * 4));
  float* numbers = reinterpret_cast<float*>(out);
  void* generator;
  CHECK(!create(&generator, 100) && !seed(generator, 1) && !uniform(generator, numbers, count));
  const Floats first = download<float>(out, count);
  CHECK(!uniform(generator, numbers, count));
  CHECK(download<float>(out, count) != first);
  CHECK(!seed(generator, 1) && !uniform(generator, numbers, count));
  CHECK(download<float>(out, count) == first);
  double sum = 0, squares = 0;
  for (float number : first) {
    CHECK(number > 0 && number <= 1);
    sum += number;
  }
  CHECK(fabs(sum / count - 0.5) < 0.02);
  CHECK(normal(generator, numbers, 3, 0, 1) == 105 && !normal(generator, numbers, count, 2, 3));
  sum = 0;
  for (float number : download<float>(out, count)) sum += number, squares += (number - 2) * (number - 2);
  CHECK(fabs(sum / count - 2) < 0.15 && fabs(sqrt(squares / count) - 3) < 0.1);
}
