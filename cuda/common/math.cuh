// The maths of one thread, by the names attention/score.h and attention/softmax.h call.
#pragma once

#include <cmath>

#include "attention/score.h"
#include "attention/softmax.h"
#include "ptx/math.h"

namespace attnext::cuda {

template <class A = float>
PTX_FN A negative_infinity() {
  return static_cast<A>(-__builtin_huge_val());
}

template <class A>
struct ThreadMath;

template <>
struct ThreadMath<float> {
  static PTX_FN float exp2(float x) { return ptx::ex2(x); }
  static PTX_FN float log(float x) { return logf(x); }
  static PTX_FN float sqrt(float x) { return sqrtf(x); }
  static PTX_FN float tanh(float x) { return tanhf(x); }
  // 4 u / (1 + u)^2 with u = e^(-2|x|): to full relative accuracy, where 1 - tanh^2 would cancel.
  static PTX_FN float tanh_slope(float x) {
    const float u = ptx::ex2(fabsf(x) * static_cast<float>(-2 * kLog2E));
    const float reciprocal = ptx::rcp(1 + u);
    return 4 * u * reciprocal * reciprocal;
  }
  // Passes over NaN: a row of NaN keeps -infinity, and its weights are NaN whatever the maximum.
  static PTX_FN float maximum(float a, float b) { return fmaxf(a, b); }
  static PTX_FN float finite_or_zero(float x) { return x == negative_infinity<float>() ? 0 : x; }
};

template <>
struct ThreadMath<double> {
  static PTX_FN double exp2(double x) { return ::exp2(x); }
  static PTX_FN double log(double x) { return ::log(x); }
  static PTX_FN double sqrt(double x) { return ::sqrt(x); }
  static PTX_FN double tanh(double x) { return ::tanh(x); }
  static PTX_FN double tanh_slope(double x) {
    const double u = ::exp2(fabs(x) * (-2 * kLog2E)), reciprocal = 1 / (1 + u);
    return 4 * u * reciprocal * reciprocal;
  }
  static PTX_FN double maximum(double a, double b) { return fmax(a, b); }
  static PTX_FN double finite_or_zero(double x) { return x == negative_infinity<double>() ? 0 : x; }
};

template <class A>
struct Tanh {
  A value;
  A slope;  // 1 - value^2, to full relative accuracy
};

template <class A>
PTX_FN Tanh<A> tanh_with_slope(A x) {
  return {ThreadMath<A>::tanh(x), ThreadMath<A>::tanh_slope(x)};
}

}  // namespace attnext::cuda
