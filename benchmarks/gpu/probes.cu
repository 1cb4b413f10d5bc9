// Do the wrappers of cuda/ptx mean on this device what their declarations say? One small kernel for
// each, a line of JSON for each; compiled by probes.py, by nvcc or over the emulator.
#include <ptx/async_copy.h>
#include <ptx/convert.h>
#include <ptx/launch.h>
#include <ptx/math.h>
#include <ptx/matrix.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

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

void require(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  std::printf("{\"probe\": \"%s\", \"status\": \"failed\", \"error\": \"%s\"}\n", call,
              cudaGetErrorString(error));
  std::exit(1);
}

struct Probe {
  std::vector<float> a = std::vector<float>(256), b = std::vector<float>(128),
                     result = std::vector<float>(256);

  Probe() {
    for (size_t i = 0; i < a.size(); ++i) a[i] = std::sin(1.0f + 0.7f * static_cast<float>(i));
    for (size_t i = 0; i < b.size(); ++i) b[i] = std::cos(0.3f * static_cast<float>(i));
  }

  void run(void (*kernel)(Params), const char* name) {
    float* memory = nullptr;
    require(cudaMalloc(reinterpret_cast<void**>(&memory), 640 * sizeof(float)), "cudaMalloc");
    require(cudaMemcpy(memory, a.data(), 1024, cudaMemcpyHostToDevice), "cudaMemcpy");
    require(cudaMemcpy(memory + 256, b.data(), 512, cudaMemcpyHostToDevice), "cudaMemcpy");
    const Params params{memory, memory + 256, memory + 384};
    require(ptx::launch(kernel, dim3(1), dim3(32), 1024, nullptr, params), name);
    require(cudaMemcpy(result.data(), memory + 384, 1024, cudaMemcpyDeviceToHost), name);
    cudaFree(memory);
  }
};

void say(const char* name, double error, double allowed) {
  std::printf("{\"probe\": \"%s\", \"status\": \"%s\", \"error\": %.3g, \"allowed\": %.3g}\n", name,
              error <= allowed ? "ok" : "failed", error, allowed);
}

void probe_product(const char* name, void (*kernel)(Params), int depth, double allowed) {
  Probe probe;
  probe.run(kernel, name);
  double worst = 0;
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 8; ++j) {
      double sum = 0;
      for (int k = 0; k < depth; ++k) sum += double(probe.a[i * 16 + k]) * probe.b[k * 8 + j];
      worst = std::fmax(worst, std::fabs(sum - probe.result[i * 8 + j]));
    }
  }
  say(name, worst, allowed);
}

// Matrix m is rows 8 m .. 8 m + 7 of 8 elements, of the 512 bytes copied.
void probe_move(const char* name, void (*kernel)(Params), bool is_transposed) {
  Probe probe;
  probe.run(kernel, name);
  const auto* const given = reinterpret_cast<const uint16_t*>(probe.a.data());
  const auto* const found = reinterpret_cast<const uint16_t*>(probe.result.data());
  int wrong = 0;
  for (int lane = 0; lane < 32; ++lane) {
    for (int m = 0; m < 4; ++m) {
      for (int e = 0; e < 2; ++e) {
        const int i = lane / 4, j = 2 * (lane % 4) + e;
        const int element = is_transposed ? 64 * m + 8 * j + i : 64 * m + 8 * i + j;
        const uint16_t expected = element >= 252 ? 0 : given[element];
        wrong += found[2 * (4 * lane + m) + e] != expected;
      }
    }
  }
  say(name, wrong, 0);
}

void probe_functions() {
  Probe probe;
  probe.run(approximate, "approximate");
  const char* const names[5] = {"ex2", "lg2", "rcp", "rsqrt", "tanh_approx"};
  const double allowed[5] = {4e-7, 2e-6, 3e-7, 4e-7, 1e-3};
  double worst[5] = {};
  for (int i = 0; i < 32; ++i) {
    const double x = probe.a[i], y = std::fabs(x);
    const double exact[5] = {std::exp2(x), std::log2(y), 1 / x, 1 / std::sqrt(y), std::tanh(x)};
    for (int f = 0; f < 5; ++f) {
      const double size = std::fmax(1.0, std::fabs(exact[f]));
      worst[f] = std::fmax(worst[f], std::fabs(probe.result[5 * i + f] - exact[f]) / size);
    }
  }
  for (int f = 0; f < 5; ++f) say(names[f], worst[f], allowed[f]);
}

}  // namespace

int main() {
  probe_product("mma_m16n8k16_f16", multiply<0>, 16, 2e-2);
  probe_product("mma_m16n8k16_bf16", multiply<1>, 16, 1e-1);
  probe_product("mma_m16n8k8_tf32", multiply<2>, 8, 1e-2);
  probe_move("cp_async and ldmatrix_x4", move<false>, false);
  probe_move("cp_async and ldmatrix_x4_trans", move<true>, true);
  probe_functions();
  return 0;
}
