// Do the wrappers of cuda/ptx mean on this device what their declarations say? A probe each, by
// name; compiled by probes.py, by nvcc or over the emulator.
#include <ptx/async_copy.h>
#include <ptx/convert.h>
#include <ptx/launch.h>
#include <ptx/math.h>
#include <ptx/matrix.h>

#include <cmath>
#include <vector>

#include "probe.h"

namespace ptx = attnext::ptx;

namespace {

struct Params {
  const float* a;  // [16, 16]
  const float* b;  // [16, 8]
  float* result;
};

// D = A B of one warp, fragments by the layout of the declarations.
template <int kKind>  // 0: f16, 1: bf16, 2: tf32 of the first 8 columns
__global__ void __launch_bounds__(32) multiply(const __grid_constant__ Params p) {
  const int g = static_cast<int>(ptx::lane_index()) / 4,
            t = static_cast<int>(ptx::lane_index()) % 4;
  float d[4] = {0, 0, 0, 0};
  uint32_t a[4], b[2];
  for (int j = 0; j < 2; ++j) {
    for (int i = 0; i < 2; ++i) {
      const float* const row = p.a + (g + 8 * i) * 16;
      if constexpr (kKind == 2) {
        a[i + 2 * j] = ptx::f32_to_tf32(row[t + 4 * j]);
      } else {
        const float* const pair = row + 8 * j + 2 * t;
        a[i + 2 * j] =
            kKind == 0 ? ptx::pack_f16(pair[0], pair[1]) : ptx::pack_bf16(pair[0], pair[1]);
      }
    }
    const float* const column = p.b + (kKind == 2 ? t + 4 * j : 8 * j + 2 * t) * 8 + g;
    b[j] = kKind == 2   ? ptx::f32_to_tf32(column[0])
           : kKind == 0 ? ptx::pack_f16(column[0], column[8])
                        : ptx::pack_bf16(column[0], column[8]);
  }
  if constexpr (kKind == 0) ptx::mma_m16n8k16_f16(d, a, b);
  if constexpr (kKind == 1) ptx::mma_m16n8k16_bf16(d, a, b);
  if constexpr (kKind == 2) ptx::mma_m16n8k8_tf32(d, a, b);
  for (int i = 0; i < 2; ++i)
    for (int e = 0; e < 2; ++e) p.result[(g + 8 * i) * 8 + 2 * t + e] = d[2 * i + e];
}

// 40 of 64 bytes copied without waiting, the rest zeros; then four matrices read, transposed or
// not.
template <bool kIsTransposed>
__global__ void __launch_bounds__(32) move(const __grid_constant__ Params p) {
  const uint32_t lane = ptx::lane_index(), shared = ptx::dyn_smem();
  ptx::cp_async<16>(shared + 16 * lane, p.a + 4 * lane, lane == 31 ? 8 : 16);
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();
  ptx::warp_sync();
  uint32_t r[4];
  if constexpr (kIsTransposed) {
    ptx::ldmatrix_x4_trans(r, shared + 16 * lane);
  } else {
    ptx::ldmatrix_x4(r, shared + 16 * lane);
  }
  auto* const words = reinterpret_cast<uint32_t*>(p.result);
  for (int m = 0; m < 4; ++m) words[4 * lane + m] = r[m];
}

__global__ void __launch_bounds__(32) approximate(const __grid_constant__ Params p) {
  const float x = p.a[ptx::lane_index()];
  float* const result = p.result + 5 * ptx::lane_index();
  result[0] = ptx::ex2(x);
  result[1] = ptx::lg2(fabsf(x));
  result[2] = ptx::rcp(x);
  result[3] = ptx::rsqrt(fabsf(x));
  result[4] = ptx::tanh_approx(x);
}

struct Arrays {
  std::vector<float> a = std::vector<float>(256), b = std::vector<float>(128);

  Arrays() {
    for (size_t i = 0; i < a.size(); ++i) a[i] = std::sin(1.0f + 0.7f * static_cast<float>(i));
    for (size_t i = 0; i < b.size(); ++i) b[i] = std::cos(0.3f * static_cast<float>(i));
  }

  std::vector<float> run(void (*kernel)(Params), const char* name) const {
    const probe::DeviceArray<float> device_a(a), device_b(b), result(std::vector<float>(256, NAN));
    const Params params{device_a.data(), device_b.data(), result.data()};
    probe::require(ptx::launch(kernel, dim3(1), dim3(32), 1024, nullptr, params), name);
    return result.values(name);
  }
};

template <int kKind>
void probe_product() {
  constexpr int kDepth = kKind == 2 ? 8 : 16;
  constexpr double kAllowed[] = {2e-2, 1e-1, 1e-2};
  const Arrays given;
  const std::vector<float> found = given.run(multiply<kKind>, "mma");
  double worst = 0;
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 8; ++j) {
      double sum = 0;
      for (int k = 0; k < kDepth; ++k) sum += double(given.a[i * 16 + k]) * given.b[k * 8 + j];
      worst = probe::larger(worst, std::fabs(sum - found[i * 8 + j]));
    }
  }
  probe::say(worst, kAllowed[kKind]);
}

// Matrix m is rows 8 m .. 8 m + 7 of 8 elements, of the 512 bytes copied.
template <bool kIsTransposed>
void probe_move() {
  const Arrays arrays;
  const std::vector<float> result = arrays.run(move<kIsTransposed>, "move");
  const auto* const given = reinterpret_cast<const uint16_t*>(arrays.a.data());
  const auto* const found = reinterpret_cast<const uint16_t*>(result.data());
  int wrong = 0;
  for (int lane = 0; lane < 32; ++lane) {
    for (int m = 0; m < 4; ++m) {
      for (int e = 0; e < 2; ++e) {
        const int i = lane / 4, j = 2 * (lane % 4) + e;
        const int element = kIsTransposed ? 64 * m + 8 * j + i : 64 * m + 8 * i + j;
        const uint16_t expected = element >= 252 ? 0 : given[element];
        wrong += found[2 * (4 * lane + m) + e] != expected;
      }
    }
  }
  probe::say(wrong, 0);
}

// Function f of declarations.h's math, in the order in which `approximate` stores them.
template <int kFunction>
void probe_function() {
  constexpr double kAllowed[] = {4e-7, 2e-6, 3e-7, 4e-7, 1e-3};
  const Arrays given;
  const std::vector<float> found = given.run(approximate, "approximate");
  double worst = 0;
  for (int i = 0; i < 32; ++i) {
    const double x = given.a[i], y = std::fabs(x);
    const double exact[] = {std::exp2(x), std::log2(y), 1 / x, 1 / std::sqrt(y), std::tanh(x)};
    const double size = std::fmax(1.0, std::fabs(exact[kFunction]));
    worst = probe::larger(worst, std::fabs(found[5 * i + kFunction] - exact[kFunction]) / size);
  }
  probe::say(worst, kAllowed[kFunction]);
}

const std::vector<probe::Probe> kProbes = {
    {"mma_m16n8k16_f16", probe_product<0>},
    {"mma_m16n8k16_bf16", probe_product<1>},
    {"mma_m16n8k8_tf32", probe_product<2>},
    {"cp_async and ldmatrix_x4", probe_move<false>},
    {"cp_async and ldmatrix_x4_trans", probe_move<true>},
    {"ex2", probe_function<0>},
    {"lg2", probe_function<1>},
    {"rcp", probe_function<2>},
    {"rsqrt", probe_function<3>},
    {"tanh_approx", probe_function<4>},
};

}  // namespace

int main(int count, char** arguments) { return probe::run_named(kProbes, count, arguments); }
