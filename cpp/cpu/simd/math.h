// exp2, log and tanh on a vector of lanes: written once for every ISA, float and double.
#pragma once

#include "cpu/simd/leaf.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// Coefficients highest power first: minimax fits computed with 45 digits.
// (2^r - 1) / r on [0, 1]: relative error of 2^r 8e-8 and 3e-18.
template <class A>
struct Exp2Coefficients;
template <>
struct Exp2Coefficients<float> {
  static constexpr float value[] = {1.867130081907e-3f, 9.017030284437e-3f, 5.579991314597e-2f,
                                    2.401644501361e-1f, 6.931513118075e-1f};
};
template <>
struct Exp2Coefficients<double> {
  static constexpr double value[] = {
      6.2634652734225902742e-10, 6.5595298355172712178e-9, 1.025321230405209001e-7,
      1.3208367308220049348e-6,  1.525317505379524616e-5,  1.5403512309733948746e-4,
      1.3333558629562675936e-3,  9.6181290995508956128e-3, 5.5504108665602238723e-2,
      2.4022650695906330315e-1,  6.9314718055994592839e-1};
};

// (tanh(x)/x - 1) / x^2 as a polynomial in x^2 on |x| <= 0.625: relative error of tanh 2e-8 and
// 2e-18.
template <class A>
struct TanhCoefficients;
template <>
struct TanhCoefficients<float> {
  static constexpr float value[] = {-6.096714165908e-3f, 2.099717899907e-2f, -5.385090957851e-2f,
                                    1.333276973697e-1f, -3.333332894413e-1f};
};
template <>
struct TanhCoefficients<double> {
  static constexpr double value[] = {
      6.48516348279311315e-6,   -3.120110142579740003e-5, 9.257116129556768271e-5,
      -2.375906496055561955e-4, 5.896606577757043347e-4,  -1.45577541204780551e-3,
      3.592121751154962269e-3,  -8.863235103240877925e-3, 2.186948851900830576e-2,
      -5.396825396789699169e-2, 1.33333333333330416e-1,   -3.333333333333333294e-1};
};

template <class A, int kCount>
ATTNEXT_HD Vec<A> polynomial(const A (&coefficients)[kCount], Vec<A> x) {
  Vec<A> sum = splat<A>(coefficients[0]);
  ATTNEXT_UNROLL for (int i = 1; i < kCount; ++i) sum = sum * x + coefficients[i];
  return sum;
}

// 2^y. Exactly 0 for y = -infinity (a masked score) and wherever the result is far below the normal
// range; NaN stays NaN.
template <class A>
ATTNEXT_HD Vec<A> exp2(Vec<A> y) {
  const Power<A> power = split_power<A>(y);
  return scale_by_power<A>(
      polynomial<A>(Exp2Coefficients<A>::value, power.rest) * power.rest + A(1), power.whole);
}

template <class A>
struct Tanh {
  Vec<A> value;
  Vec<A> slope;  // 1 - value^2, to full relative accuracy
};

// An odd polynomial near 0, where (1 - u) / (1 + u) with u = e^(-2|x|) would cancel.
template <class A>
ATTNEXT_HD Tanh<A> tanh_with_slope(Vec<A> x) {
  const Vec<A> magnitude = absolute<A>(x), square = x * x;
  const Vec<A> near_zero = x + x * square * polynomial<A>(TanhCoefficients<A>::value, square);
  const Vec<A> u = exp2<A>(magnitude * A(-2 * kLog2E)), reciprocal = A(1) / (A(1) + u);
  const Vec<A> far = (A(1) - u) * reciprocal;
  const Vec<A> signed_far = select<A>(x < Vec<A>{}, -far, far);
  return {select<A>(magnitude < splat<A>(A(0.625)), near_zero, signed_far),
          A(4) * u * reciprocal * reciprocal};
}

// tanh(x) / x as a quotient of polynomials in x^2 on |x| <= 9.02, beyond which a float32 tanh is 1:
// a fit of relative error 7e-9, computed with 50 digits.
struct TanhQuotient {
  static constexpr float numerator[] = {
      -8.437144503955e-14f, 5.258353367573e-11f, -2.0185501226e-8f, 1.114471603086e-5f,
      3.10305114407e-3f,    1.308320365844e-1f,  9.999999935636e-1f};
  static constexpr float denominator[] = {2.544820002598e-4f, 2.449158591608e-2f,
                                          4.641653077927e-1f, 1.f};
};

// The value alone takes half the work: no exponential.
template <class A>
ATTNEXT_HD Vec<A> tanh(Vec<A> x) {
  if constexpr (sizeof(A) == 8) {
    return tanh_with_slope<A>(x).value;
  } else {
    const Vec<A> limit = splat<A>(A(9.02));
    const Vec<A> least = maximum<A>(-limit, x), near = select<A>(least > limit, limit, least);
    const Vec<A> square = near * near;
    return near * polynomial<A>(TanhQuotient::numerator, square) /
           polynomial<A>(TanhQuotient::denominator, square);
  }
}

// Natural logarithm of x >= 0: 2 artanh((m - 1) / (m + 1)) of the mantissa, a power series in a
// square below 0.03.
template <class A>
ATTNEXT_HD Vec<A> log(Vec<A> x) {
  constexpr int kTerms = sizeof(A) == 4 ? 6 : 11, kMantissaBits = sizeof(A) == 4 ? 23 : 52;
  using Integer = typename VectorOf<A>::IntegerScalar;
  // Taking the bits of sqrt(1/2) off before the exponent is cut leaves a mantissa in [sqrt(1/2),
  // sqrt(2)).
  constexpr Integer kHalfRoot = sizeof(A) == 4 ? Integer(0x3f3504f3) : Integer(0x3fe6a09e667f3bcd);
  const IntVec<A> exponent = (reinterpret_cast<IntVec<A>>(x) - kHalfRoot) >> kMantissaBits;
  const Vec<A> mantissa =
      reinterpret_cast<Vec<A>>(reinterpret_cast<IntVec<A>>(x) - (exponent << kMantissaBits));
  const Vec<A> s = (mantissa - A(1)) / (mantissa + A(1)), square = s * s;
  Vec<A> series = splat<A>(A(1) / A(2 * kTerms - 1));
  ATTNEXT_UNROLL for (int i = kTerms - 2; i >= 0; --i) series =
      series * square + A(1) / A(2 * i + 1);
  const Vec<A> result = __builtin_convertvector(exponent, Vec<A>) * A(kLn2) + A(2) * s * series;
  const Vec<A> infinity = splat<A>(A(__builtin_inf()));
  const Vec<A> or_zero = select<A>(x == Vec<A>{}, -infinity, result);
  return select<A>(x < infinity, or_zero, x);  // infinity and NaN are their own logarithms
}

// The names attention/score.h and attention/softmax.h call their maths by.
template <class A>
struct VectorMath {
  using V = Vec<A>;
  static V tanh(V x) { return ATTNEXT_ISA_NAMESPACE::tanh<A>(x); }
  static V tanh_slope(V x) { return tanh_with_slope<A>(x).slope; }
  static V sqrt(V x) { return square_root<A>(x); }
  static V exp2(V x) { return ATTNEXT_ISA_NAMESPACE::exp2<A>(x); }
  static V log(V x) { return ATTNEXT_ISA_NAMESPACE::log<A>(x); }
  static V maximum(V a, V b) { return ATTNEXT_ISA_NAMESPACE::maximum<A>(a, b); }
  static V finite_or_zero(V x) { return select<A>(x == splat<A>(A(-__builtin_inf())), V{}, x); }
};

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
