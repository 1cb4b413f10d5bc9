// Which element types there are: one table of name, size and what they are accumulated in.
#pragma once

#include "attnext/attnext.h"

namespace attnext {

enum class DType : int32_t {
  kAbsent = ATTNEXT_ABSENT,
  kFloat64 = ATTNEXT_FLOAT64,
  kFloat32 = ATTNEXT_FLOAT32,
  kFloat16 = ATTNEXT_FLOAT16,
  kBFloat16 = ATTNEXT_BFLOAT16,
  kBool = ATTNEXT_BOOL,
  kInt32 = ATTNEXT_INT32,
  kInt64 = ATTNEXT_INT64,
};

struct DTypeInfo {
  const char* name;
  int size;           // bytes
  bool is_float;      // may hold q, k, v, bias
  DType accumulator;  // scores, sums and lse of inputs of this type
};

// Indexed by attnext_dtype.
constexpr DTypeInfo kDTypes[] = {
    {"absent", 0, false, DType::kAbsent},   {"float64", 8, true, DType::kFloat64},
    {"float32", 4, true, DType::kFloat32},  {"float16", 2, true, DType::kFloat32},
    {"bfloat16", 2, true, DType::kFloat32}, {"bool", 1, false, DType::kAbsent},
    {"int32", 4, false, DType::kAbsent},    {"int64", 8, false, DType::kAbsent},
};
constexpr int kNumDTypes = sizeof(kDTypes) / sizeof(kDTypes[0]);

}  // namespace attnext
