// The pretend cuBLASLt: descriptions kept as attributes, one algorithm, and the product they describe, with the limits of the real library that
// a caller must know. Knows cuBLASLt's numbers (those of CUDA 13's cublasLt.h); the arithmetic is elsewhere.
#include "multiply.hpp"
#include "pretend.hpp"
#include <cstring>

using namespace pretend;

namespace {
enum Status { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum DescriptionAttribute {
  SCALE_TYPE = 1, POINTER_MODE = 2, TRANSPOSE_A = 3, TRANSPOSE_B = 4, EPILOGUE = 7, BIAS = 8, A_SCALE = 17, B_SCALE = 18, C_SCALE = 19,
  D_SCALE = 20, BIAS_TYPE = 26, A_SCALE_MODE = 31, B_SCALE_MODE = 32,
};
enum LayoutAttribute { TYPE = 0, ORDER = 1, ROWS = 2, COLUMNS = 3, LEADING = 4, BATCHES = 5, BATCH_STEP = 6 };
enum { ORDER_COLUMN = 0, ORDER_ROW = 1, SCALE_ONE = 0, SCALE_EACH = 3, EPILOGUE_RELU = 2, EPILOGUE_BIAS = 4, EPILOGUE_NONE = 1 };

struct Attributes {
  std::map<int, std::vector<char>> values;
  int set(int attribute, const void* value, size_t bytes) {
    if (!value) return INVALID_VALUE;
    const char* start = static_cast<const char*>(value);
    values[attribute].assign(start, start + bytes);
    return SUCCESS;
  }
  template <class T>
  T get(int attribute, T otherwise) const {
    auto found = values.find(attribute);
    if (found == values.end()) return otherwise;
    memcpy(&otherwise, found->second.data(), std::min(sizeof(T), found->second.size()));
    return otherwise;
  }
};
Handles<Attributes>& descriptions() {
  static auto* all = new Handles<Attributes>;
  return *all;
}
struct Library { int number = 0; };
Handles<Library>& libraries() {
  static auto* all = new Handles<Library>;
  return *all;
}

// cublasLtMatmulAlgo_t and cublasLtMatmulHeuristicResult_t.
struct Algorithm { unsigned long long data[8]; };
struct Result {
  Algorithm algorithm;
  size_t workspace_bytes;
  int state;
  float waves;
  int reserved[4];
};

Attributes* known(void* description) { return descriptions().find(description); }

struct Description {
  const Attributes *product, *a, *b, *c, *d;
  bool complete() const { return product && a && b && c && d; }
};
Description describe(void* product, void* a, void* b, void* c, void* d) { return {known(product), known(a), known(b), known(c), known(d)}; }

Matrix matrix(const Attributes& layout, const void* data, bool transposed) {
  const long long leading = layout.get<long long>(LEADING, 0);
  const bool by_rows = (layout.get<int>(ORDER, ORDER_COLUMN) == ORDER_ROW) != transposed;
  return {const_cast<void*>(data), layout.get<int>(TYPE, F32), by_rows ? leading : 1, by_rows ? 1 : leading, layout.get<long long>(BATCH_STEP, 0)};
}

// As far as it can be told without data.
int product_of(const Description& description, Product* product) {
  const Attributes& wanted = *description.product;
  const bool turn_a = wanted.get<int>(TRANSPOSE_A, 0) != 0, turn_b = wanted.get<int>(TRANSPOSE_B, 0) != 0;
  const auto size = [](const Attributes* layout, bool turned, int attribute) {
    return layout->get<long long>(turned ? ROWS + COLUMNS - attribute : attribute, 0);
  };
  product->rows = size(description.a, turn_a, ROWS), product->inner = size(description.a, turn_a, COLUMNS);
  product->columns = size(description.b, turn_b, COLUMNS);
  const bool meet = size(description.b, turn_b, ROWS) == product->inner && size(description.d, false, ROWS) == product->rows &&
      size(description.d, false, COLUMNS) == product->columns && size(description.c, false, ROWS) == product->rows &&
      size(description.c, false, COLUMNS) == product->columns;
  if (!meet) return INVALID_VALUE;
  product->a = matrix(*description.a, nullptr, turn_a), product->b = matrix(*description.b, nullptr, turn_b);
  product->c = matrix(*description.c, nullptr, false), product->d = matrix(*description.d, nullptr, false);
  product->batches = description.d->get<int>(BATCHES, 1);
  product->scalar_type = wanted.get<int>(SCALE_TYPE, F32);
  if (!can_multiply(*product)) return NOT_SUPPORTED;

  const int epilogue = wanted.get<int>(EPILOGUE, EPILOGUE_NONE);
  if (epilogue & ~(EPILOGUE_NONE | EPILOGUE_RELU | EPILOGUE_BIAS)) return NOT_SUPPORTED;
  product->relu = epilogue & EPILOGUE_RELU;
  product->bias = epilogue & EPILOGUE_BIAS ? wanted.get<const void*>(BIAS, nullptr) : nullptr;
  const bool eighths = product->a.type == F8;
  product->bias_type = wanted.get<int>(BIAS_TYPE, eighths && product->d.type != F16 ? int(BF16) : product->d.type);

  const int a_mode = wanted.get<int>(A_SCALE_MODE, SCALE_ONE), b_mode = wanted.get<int>(B_SCALE_MODE, SCALE_ONE);
  const auto scale = [&](int attribute, int mode) { return Scale{wanted.get<const float*>(attribute, nullptr), mode == SCALE_EACH}; };
  if ((a_mode != SCALE_ONE && a_mode != SCALE_EACH) || (b_mode != SCALE_ONE && b_mode != SCALE_EACH)) return NOT_SUPPORTED;
  if ((a_mode == SCALE_EACH || b_mode == SCALE_EACH) && capability() != 90) return NOT_SUPPORTED;
  product->row_scale = scale(A_SCALE, a_mode), product->column_scale = scale(B_SCALE, b_mode);
  if (product->d.type == F8) product->out_scale = scale(D_SCALE, SCALE_ONE);
  // f8 goes through tensor cores alone (cuBLAS documentation, cublasLtMatmul): 8.9 and later, A turned and B not, sizes in sixteens.
  const bool turned = turn_a && !turn_b && description.a->get<int>(ORDER, ORDER_COLUMN) == ORDER_COLUMN;
  if (eighths && (capability() < 89 || !turned || product->rows % 16 || product->inner % 16)) return NOT_SUPPORTED;
  return SUCCESS;
}

bool is_aligned(const void* address, size_t bytes) { return reinterpret_cast<size_t>(address) % bytes == 0; }
}  // namespace

// ---- handles and descriptions

PRETEND_API int cublasLtCreate(void** handle) {
  auto guard = enter();
  if (need_context() != CUDA_SUCCESS) return NOT_INITIALIZED;
  *handle = libraries().add(new Library);
  return SUCCESS;
}
PRETEND_API int cublasLtDestroy(void* handle) {
  auto guard = enter();
  return libraries().remove(handle) ? SUCCESS : NOT_INITIALIZED;
}
PRETEND_API size_t cublasLtGetVersion() { return 130000; }
PRETEND_API int cublasLtLoggerSetLevel(int) { return SUCCESS; }
PRETEND_API int cublasLtLoggerOpenFile(const char*) { return SUCCESS; }

static int remove(void* description) {
  auto guard = enter();
  return descriptions().remove(description) ? SUCCESS : INVALID_VALUE;
}
static int set(void* description, int attribute, const void* value, size_t bytes) {
  auto guard = enter();
  Attributes* attributes = known(description);
  return attributes ? attributes->set(attribute, value, bytes) : INVALID_VALUE;
}
PRETEND_API int cublasLtMatmulDescCreate(void** description, int, int scale_type) {
  auto guard = enter();
  *description = descriptions().add(new Attributes);
  return known(*description)->set(SCALE_TYPE, &scale_type, sizeof scale_type);
}
PRETEND_API int cublasLtMatmulDescDestroy(void* description) { return remove(description); }
PRETEND_API int cublasLtMatmulDescSetAttribute(void* description, int attribute, const void* value, size_t bytes) {
  return set(description, attribute, value, bytes);
}
PRETEND_API int cublasLtMatrixLayoutCreate(void** layout, int type, unsigned long long rows, unsigned long long columns, long long leading) {
  auto guard = enter();
  *layout = descriptions().add(new Attributes);
  Attributes& attributes = *known(*layout);
  attributes.set(TYPE, &type, sizeof type), attributes.set(ROWS, &rows, sizeof rows);
  attributes.set(COLUMNS, &columns, sizeof columns), attributes.set(LEADING, &leading, sizeof leading);
  return SUCCESS;
}
PRETEND_API int cublasLtMatrixLayoutDestroy(void* layout) { return remove(layout); }
PRETEND_API int cublasLtMatrixLayoutSetAttribute(void* layout, int attribute, const void* value, size_t bytes) {
  return set(layout, attribute, value, bytes);
}
PRETEND_API int cublasLtMatmulPreferenceCreate(void** preference) {
  auto guard = enter();
  *preference = descriptions().add(new Attributes);
  return SUCCESS;
}
PRETEND_API int cublasLtMatmulPreferenceDestroy(void* preference) { return remove(preference); }
PRETEND_API int cublasLtMatmulPreferenceSetAttribute(void* preference, int attribute, const void* value, size_t bytes) {
  return set(preference, attribute, value, bytes);
}

// ---- algorithms. All do the same, but each takes only numbers of columns near the one that it was offered for, as those of the real library
// do. On demand some refuse more; or others stand before them, or in their place, whose sums depend on the number of columns, as those of a
// library may that splits sums where there is room.

constexpr int ALGORITHM = 1, UNSTEADY = 2;
static bool products_are(const char* word) {
  const char* products = getenv("PRETEND_CUDA_PRODUCTS");
  return products && !strcmp(products, word);
}
static bool offers(int algorithm) {
  if (algorithm == UNSTEADY) return products_are("both") || products_are("unsteady");
  return algorithm == ALGORITHM && !products_are("unsteady");
}
// `data[7]` is the number of columns that the algorithm was offered for; 0: it was set up by hand and takes any.
static bool takes(const Algorithm& algorithm, long long columns) {
  const long long most = (long long)algorithm.data[7];
  if (most == 0) return true;
  if (products_are("whole tiles") && columns % 16) return false;
  return columns <= most && columns > most / 2;
}
PRETEND_API int cublasLtMatmulAlgoGetIds(void*, int, int, int, int, int, int, int wanted, int* ids, int* count) {
  if (wanted > 0) ids[0] = ALGORITHM;
  *count = wanted > 0;
  return SUCCESS;
}
PRETEND_API int cublasLtMatmulAlgoInit(void*, int, int, int, int, int, int, int id, Algorithm* algorithm) {
  if (id != ALGORITHM) return INVALID_VALUE;
  *algorithm = {};
  algorithm->data[0] = ALGORITHM;
  return SUCCESS;
}
PRETEND_API int cublasLtMatmulAlgoConfigSetAttribute(Algorithm* algorithm, int attribute, const void* value, size_t bytes) {
  if (attribute < 1 || attribute > 8 || bytes > 4) return INVALID_VALUE;
  memcpy(reinterpret_cast<unsigned*>(algorithm->data + 1) + attribute, value, bytes);
  return SUCCESS;
}
PRETEND_API int cublasLtMatmulAlgoConfigGetAttribute(const Algorithm* algorithm, int attribute, void* value, size_t bytes, size_t* written) {
  if (attribute < 0 || attribute > 8 || bytes > 4) return INVALID_VALUE;
  const void* from = attribute == 0 ? static_cast<const void*>(algorithm->data) : reinterpret_cast<const unsigned*>(algorithm->data + 1) + attribute;
  memcpy(value, from, bytes);
  if (written) *written = bytes;
  return SUCCESS;
}
PRETEND_API int cublasLtMatmulAlgoCapGetAttribute(const Algorithm*, int, void* value, size_t bytes, size_t* written) {
  if (value) memset(value, 0, bytes);
  if (written) *written = std::min<size_t>(bytes, 4);
  return SUCCESS;
}
PRETEND_API int cublasLtMatmulAlgoCheck(void*, void* product_description, void* a, void* b, void* c, void* d, const Algorithm* algorithm,
                                        Result* result) {
  auto guard = enter();
  const Description description = describe(product_description, a, b, c, d);
  Product product;
  if (!description.complete() || !offers(int(algorithm->data[0]))) return INVALID_VALUE;
  const int status = product_of(description, &product);
  if (status == SUCCESS && !takes(*algorithm, product.columns)) return NOT_SUPPORTED;
  if (status == SUCCESS) *result = Result{*algorithm, 0, SUCCESS, 1.0f, {}};
  return status;
}
PRETEND_API int cublasLtMatmulAlgoGetHeuristic(void* handle, void* product, void* a, void* b, void* c, void* d, void*, int wanted, Result* results,
                                               int* count) {
  *count = 0;
  if (wanted < 1) return INVALID_VALUE;
  int status = SUCCESS;
  for (int id : {UNSTEADY, ALGORITHM}) {
    Algorithm algorithm = {{(unsigned long long)id}};
    const Attributes* layout = known(d);
    algorithm.data[7] = layout ? layout->get<unsigned long long>(COLUMNS, 0) : 0;
    if (*count == wanted || !offers(id)) continue;
    status = cublasLtMatmulAlgoCheck(handle, product, a, b, c, d, &algorithm, results + *count);
    *count += status == SUCCESS;
  }
  return status;
}

PRETEND_API int cublasLtMatmul(void* handle, void* product_description, const void* alpha, const void* a, void* a_layout, const void* b,
                               void* b_layout, const void* beta, const void* c, void* c_layout, void* d, void* d_layout,
                               const Algorithm* algorithm, void* workspace, size_t workspace_bytes, CUstream stream) {
  auto guard = enter();
  if (!libraries().find(handle)) return NOT_INITIALIZED;
  const Description description = describe(product_description, a_layout, b_layout, c_layout, d_layout);
  if (!description.complete() || (algorithm && !offers(int(algorithm->data[0])))) return INVALID_VALUE;
  if (!is_device_memory(reinterpret_cast<CUdeviceptr>(workspace), workspace_bytes)) return INVALID_VALUE;
  Product product;
  if (const int status = product_of(description, &product)) return status;
  if (algorithm && !takes(*algorithm, product.columns)) return NOT_SUPPORTED;
  if (product.a.type == F8 && !(is_aligned(a, 16) && is_aligned(b, 16) && is_aligned(c, 16) && is_aligned(d, 16))) return NOT_SUPPORTED;
  product.a.data = const_cast<void*>(a), product.b.data = const_cast<void*>(b);
  product.c.data = const_cast<void*>(c), product.d.data = d;
  if (description.product->get<int>(POINTER_MODE, 0) == 0) {
    product.alpha = load_number(alpha, product.scalar_type, 0), product.beta = load_number(beta, product.scalar_type, 0);
  } else {
    product.alpha_at = alpha, product.beta_at = beta;
  }
  if (algorithm && algorithm->data[0] == UNSTEADY) product.alpha *= 1.0 + 0.001 * double(product.columns);
  if (trace())
    fprintf(stderr, "pretend cuda: cublasLt %lld x %lld x %lld, %lld batches\n", product.rows, product.columns, product.inner, product.batches);
  const CUresult result = submit(stream, "cublasLt", [product] {
    multiply(product);
    return CUDA_SUCCESS;
  });
  return result == CUDA_SUCCESS ? SUCCESS : EXECUTION_FAILED;
}
