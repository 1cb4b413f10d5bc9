// Which functions does the special function unit approximate? Here: the exact value, flushed.
#pragma once

#include <cmath>
#include <limits>

#include "ptx/declarations.h"

namespace attnext {

namespace ptx_detail {

inline float flush(float x) {
  return std::fabs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : x;
}

}  // namespace ptx_detail

PTX_FN float ptx::ex2(float x) { return ptx_detail::flush(std::exp2(ptx_detail::flush(x))); }
PTX_FN float ptx::lg2(float x) { return std::log2(ptx_detail::flush(x)); }
PTX_FN float ptx::rcp(float x) { return ptx_detail::flush(1.0f / ptx_detail::flush(x)); }
PTX_FN float ptx::rsqrt(float x) { return 1.0f / std::sqrt(ptx_detail::flush(x)); }
PTX_FN float ptx::tanh_approx(float x) { return std::tanh(x); }

}  // namespace attnext
