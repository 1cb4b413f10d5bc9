// How single elements of any dtype are read and written, off the kernels' hot path.
#pragma once

#include <vector>

#include "attention/params.h"

namespace attnext {

int64_t num_elements(const TensorView& t);

// Strided, in elements from `data`; float dtypes as float64, which holds each of them exactly.
double read_float(const TensorView& t, int64_t offset);
int64_t read_integer(const TensorView& t, int64_t offset);

// Rounds once, to nearest even.
void write_float(const TensorView& t, int64_t offset, double value);

// A tensor of `columns` elements, or of rows x columns, as [rows, columns].
std::vector<double> read_rows(const TensorView& t, int64_t rows, int64_t columns);

void fill_zero(const TensorView& t);

}  // namespace attnext
