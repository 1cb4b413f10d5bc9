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
// The same to 3e-6, for weights that are rounded to bfloat16 wherever they go. (Not those of
// forward: their unrounded sum is the lse.)
struct ShortExp2Coefficients {
  static constexpr float value[] = {1.342668e-2f, 5.224247e-2f, 2.412802e-1f, 6.9304484e-1f};
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
  ATTNEXT_UNROLL for (int i = 1; i < kCount; ++i) sum =
      multiply_add<A>(sum, x, splat<A>(coefficients[i]));
  return sum;
}

// 2^y. Exactly 0 for y = -infinity (a masked score) and wherever the result is far below the normal
// range; NaN stays NaN.
template <class A, class Coefficients = Exp2Coefficients<A>>
ATTNEXT_HD Vec<A> exp2(Vec<A> y) {
  const Power<A> power = split_power<A>(y);
  return scale_by_power<A>(polynomial<A>(Coefficients::value, power.rest) * power.rest + A(1),
                           power.whole);
}

template <class A>
struct Tanh {
  Vec<A> value;
  Vec<A> slope;  // 1 - value^2, to full relative accuracy
};

// y tanh(x) / x where |x| < kNearZero, given x^2: an odd polynomial. (1 - u) / (1 + u) with u =
// e^(-2|x|) would cancel there.
template <class A>
constexpr A kNearZero = A(0.625);
template <class A>
ATTNEXT_HD Vec<A> tanh_near_zero(Vec<A> y, Vec<A> square) {
  return multiply_add<A>(y, square * polynomial<A>(TanhCoefficients<A>::value, square), y);
}

template <class A>
ATTNEXT_HD Tanh<A> tanh_with_slope(Vec<A> x) {
  const Vec<A> magnitude = absolute<A>(x), near_zero = tanh_near_zero<A>(x, x * x);
  const Vec<A> u = exp2<A>(magnitude * A(-2 * kLog2E)), reciprocal = A(1) / (A(1) + u);
  const Vec<A> far = (A(1) - u) * reciprocal;
  const Vec<A> signed_far = select<A>(x < Vec<A>{}, -far, far);
  return {select<A>(magnitude < splat<A>(kNearZero<A>), near_zero, signed_far),
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

// tanh on [0, 9.02) in 16 pieces: polynomials of degree 5 in centre - x, highest power first. A
// piece is named by the low exponent and two high mantissa bits of |x| 0.831485569 + 1/2, so that
// pieces widen as tanh flattens. Fits computed with 40 digits, relative error 2e-8; rounding
// included 9e-8.
struct TanhPieces {
  static constexpr float kScale = 0.831485569f, kLimit = 9.0199f;
  alignas(64) static constexpr float center[16] = {
      2.10466671f,  2.70600009f, 3.30733347f, 3.90866685f,  4.81066656f,  6.01333332f,
      7.21600008f,  8.41866684f, 0.f,         0.225500003f, 0.375833333f, 0.526166677f,
      0.751666665f, 1.05233335f, 1.35300004f, 1.65366673f};
  alignas(64) static constexpr float coefficients[6][16] = {
      {-0.00449775206f, -0.00206818967f, -0.000693595444f, -0.000215097869f, -3.74514129e-05f,
       -3.38724499e-06f, -3.05712518e-07f, -2.75867968e-08f, -0.128307521f, -0.0821143761f,
       -0.0184365846f, 0.034419626f, 0.0631965995f, 0.0402786955f, 0.0110696536f, -0.00202276581f},
      {-0.0154934227f, -0.00560236489f, -0.00178760069f, -0.00054871093f, -9.51731054e-05f,
       -8.91037871e-06f, -6.03667445e-07f, -6.02600721e-07f, 0.00088809483f, 0.130118757f,
       0.16826205f, 0.159022361f, 0.0990954861f, 0.0169910248f, -0.019756129f, -0.024815321f},
      {-0.0351389386f, -0.0114812599f, -0.00353625789f, -0.001070256f, -0.000176309011f,
       -1.59167012e-05f, -1.43631019e-06f, -1.29606434e-07f, 0.333387643f, 0.270184517f,
       0.178038195f, 0.0771702752f, -0.0424629003f, -0.108191997f, -0.101403609f, -0.0722869039f},
      {-0.0560077652f, -0.0175339133f, -0.00533160521f, -0.00160721433f, -0.000264088361f,
       -2.3694427e-05f, -2.22872268e-06f, 4.66449777e-08f, 1.10941221e-06f, -0.210851446f,
       -0.312786341f, -0.370145172f, -0.378707349f, -0.303197294f, -0.205395609f, -0.126665592f},
      {-0.0576979518f, -0.0176925622f, -0.00534790149f, -0.00160948094f, -0.000265179464f,
       -2.39314741e-05f, -2.15948967e-06f, -1.94862594e-07f, -1.f, -0.950825214f, -0.87105906f,
       -0.767246425f, -0.595323145f, -0.387362152f, -0.234795749f, -0.136291713f},
      {0.970722437f, 0.991114259f, 0.99732244f, 0.99919492f, 0.99986738f, 0.999988019f,
       0.999998927f, 0.999999881f, 0.f, 0.22175394f, 0.359083503f, 0.482445419f, 0.636142194f,
       0.782711864f, 0.874759555f, 0.929359078f}};
};

template <class A>
ATTNEXT_HD Vec<A> tanh_in_pieces(Vec<A> x) {
  using Pieces = TanhPieces;
  constexpr int kMantissaBits = 23;
  constexpr int32_t kSign = INT32_MIN;
  const IntVec<A> bits = reinterpret_cast<IntVec<A>>(x);
  // -|x|, for the one maximum that keeps NaN to be one.
  const Vec<A> near = maximum<A>(splat<A>(-Pieces::kLimit), reinterpret_cast<Vec<A>>(bits | kSign));
  const Vec<A> place = near * -Pieces::kScale + A(0.5);
  const IntVec<A> piece = reinterpret_cast<IntVec<A>>(place) >> (kMantissaBits - 2);
  const Vec<A> r = near + lookup(Pieces::center, piece);
  Vec<A> sum = lookup(Pieces::coefficients[0], piece);
  ATTNEXT_UNROLL for (int i = 1; i < 6; ++i) sum = sum * r + lookup(Pieces::coefficients[i], piece);
  return reinterpret_cast<Vec<A>>(reinterpret_cast<IntVec<A>>(sum) | (bits & kSign));
}

// The value alone takes half the work: no exponential.
template <class A>
ATTNEXT_HD Vec<A> tanh(Vec<A> x) {
  if constexpr (sizeof(A) == 8) {
    return tanh_with_slope<A>(x).value;
  } else if constexpr (kHasLookup) {
    return tanh_in_pieces<A>(x);
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
