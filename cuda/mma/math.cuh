// The maths of one thread, by the names attention/score.h and attention/softmax.h call.
#pragma once

#include <cmath>

#include "attention/score.h"
#include "attention/softmax.h"
#include "ptx/math.h"

namespace attnext::cuda::mma {

PTX_FN float negative_infinity() { return -__builtin_huge_valf(); }

struct FloatMath {
  PTX_FN static float exp2(float x) { return ptx::ex2(x); }
  PTX_FN static float log(float x) { return logf(x); }
  PTX_FN static float tanh(float x) { return tanhf(x); }
  // 4 u / (1 + u)^2 with u = e^(-2|x|): exact to the last digits, where 1 - tanh^2 would cancel.
  PTX_FN static float tanh_slope(float x) {
    const float u = ptx::ex2(fabsf(x) * static_cast<float>(-2 * kLog2E));
    const float reciprocal = ptx::rcp(1 + u);
    return 4 * u * reciprocal * reciprocal;
  }
  PTX_FN static float maximum(float a, float b) { return fmaxf(a, b); }
  PTX_FN static float finite_or_zero(float x) { return x == negative_infinity() ? 0.f : x; }
};

}  // namespace attnext::cuda::mma
