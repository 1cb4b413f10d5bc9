// What every tensor must satisfy by itself, whatever it is used for: layout, dtype, shape.
#pragma once

#include <initializer_list>
#include <ostream>

#include "attention/params.h"

namespace attnext {

// Prints as Python does: (2, 3), (4,), ().
struct ShapeText {
  const int64_t* shape;
  int ndim;
};
std::ostream& operator<<(std::ostream& out, const ShapeText& text);
std::ostream& operator<<(std::ostream& out, DType dtype);

inline ShapeText shape_of(const TensorView& t) { return {t.shape, t.ndim}; }

// The tensor behind an argument, its layout checked: known dtype, at most four axes, memory that
// 64-bit arithmetic can address, aligned data. An optional one that is not there has dtype absent.
TensorView required_tensor(const char* name, const attnext_tensor* tensor);
TensorView optional_tensor(const char* name, const attnext_tensor* tensor);

void require_float(const char* name, const TensorView& t);
void require_integer(const char* name, const TensorView& t);
void require_bool(const char* name, const TensorView& t);
// `owner` says whose dtype it is: "q's dtype".
void require_dtype(const char* name, const TensorView& t, DType dtype, const char* owner);

// `axes` spells the shape out: "(batch, num_heads_q, seqlen_q)".
void require_shape(const char* name, const TensorView& t, const char* axes,
                   std::initializer_list<int64_t> shape);

// Elements must not lie on each other where they are written: each stride must reach past all of
// the axes with smaller ones, as in every layout that slicing and transposing make.
void require_no_overlap(const char* name, const TensorView& t);
// An output in place of an input would be overwritten before it has been read.
void require_apart(const char* name, const TensorView& output, const char* other_name,
                   const TensorView& other);

}  // namespace attnext
