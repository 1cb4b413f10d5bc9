// Which of two ways is faster on Hopper? Each case times its contenders in turn, a line of JSON for
// each. Compiled by experiments.py, for sm_90a or over the emulator, where sizes are small.
#include <ptx/launch.h>

#include <algorithm>
#include <string>
#include <vector>

#include "hopper_forward.cuh"
#include "hopper_gradient.cuh"
#include "interleaved.h"
#include "probe.h"

namespace {

namespace ptx = attnext::ptx;
using probe::Contender;
using probe::DeviceArray;
using probe::Sizes;

// The largest error of eight rows, a row of the first and of the last tile among them.
double forward_error(const std::vector<uint16_t>& q, const std::vector<uint16_t>& k,
                     const std::vector<uint16_t>& v, const std::vector<uint16_t>& out, int seqlen,
                     int dim, bool is_causal) {
  double worst = 0;
  for (int sample = 0; sample < 8; ++sample) {
    const size_t row = static_cast<size_t>(seqlen - 1) * sample / 7;
    const size_t keys = is_causal ? row + 1 : seqlen;
    std::vector<double> o(dim);
    double sum = 0;
    for (size_t key = 0; key < keys; ++key) {
      double s = 0;
      for (int d = 0; d < dim; ++d)
        s += probe::from_bf16(q[row * dim + d]) * probe::from_bf16(k[key * dim + d]);
      const double p = std::exp(s / std::sqrt(double(dim)));
      sum += p;
      for (int d = 0; d < dim; ++d) o[d] += p * probe::from_bf16(v[key * dim + d]);
    }
    for (int d = 0; d < dim; ++d)
      worst = probe::larger(worst, std::fabs(o[d] / sum - probe::from_bf16(out[row * dim + d])));
  }
  return worst;
}

// Arrays of [heads, seqlen, dim]; the first head is compared.
struct ForwardArrays {
  int dim;
  std::vector<uint16_t> host[3];
  DeviceArray<uint16_t> q, k, v, out;

  ForwardArrays(const Sizes& n, int width)
      : dim(width),
        host{probe::bf16_values(count(n), 1), probe::bf16_values(count(n), 2),
             probe::bf16_values(count(n), 3)},
        q(host[0]),
        k(host[1]),
        v(host[2]),
        out(std::vector<uint16_t>(count(n))) {}
  size_t count(const Sizes& n) const { return size_t(n.heads) * n.seqlen * dim; }
};

template <class C>
Contender forward(const char* name, ForwardArrays& arrays, const Sizes& n, bool is_causal,
                  bool is_longest_first = true) {
  const auto map = [&](DeviceArray<uint16_t>& x, int rows) {
    return probe::slab_map(x.data(), n.heads, n.seqlen, C::kHeadDim, rows);
  };
  const probe::ForwardParams params{
      map(arrays.q, C::kTileQ),
      map(arrays.k, C::kTileK),
      map(arrays.v, C::kTileK),
      arrays.out.data(),
      static_cast<float>(1.4426950408889634 / std::sqrt(double(C::kHeadDim))),
      n.seqlen,
      is_causal,
      is_longest_first};
  const dim3 grid((n.seqlen + C::kTileQ - 1) / C::kTileQ, n.heads);
  const double work = 4.0 * n.heads * n.seqlen * n.seqlen * C::kHeadDim * (is_causal ? 0.5 : 1.0);
  return {name,
          work,
          "TFLOP/s",
          1e-2,
          [&arrays, name] { arrays.out.fill(0xFF, name); },
          [=] {
            probe::require(ptx::launch(probe::forward<C>, grid, dim3(C::kThreads), C::kShared,
                                       nullptr, params),
                           name);
          },
          [&arrays, n, is_causal, name] {
            return forward_error(arrays.host[0], arrays.host[1], arrays.host[2],
                                 arrays.out.values(name), n.seqlen, C::kHeadDim, is_causal);
          }};
}

template <int kDim, int kTileQ, int kTileK, bool kFences = true, bool kTakesTurns = true>
using Choice = probe::Choice<kDim, kTileQ, kTileK, kFences, kTakesTurns>;

void forward_128(const Sizes& n, bool is_causal) {
  ForwardArrays x(n, 128);
  std::vector<Contender> contenders{
      forward<Choice<128, 128, 128>>("128x128", x, n, is_causal),
      forward<Choice<128, 128, 128, false>>("128x128, no fence", x, n, is_causal),
      forward<Choice<128, 128, 128, true, false>>("128x128, no turns", x, n, is_causal),
      forward<Choice<128, 128, 128, false, false>>("128x128, neither", x, n, is_causal),
      forward<Choice<128, 128, 176>>("128x176", x, n, is_causal),
      forward<Choice<128, 128, 176, false>>("128x176, no fence", x, n, is_causal),
      forward<Choice<128, 128, 192>>("128x192", x, n, is_causal),
  };
  if (is_causal)
    contenders.push_back(
        forward<Choice<128, 128, 128>>("128x128, first tile first", x, n, true, false));
  probe::compare(contenders, n);
}

void forward_64(const Sizes& n, bool is_causal) {
  ForwardArrays x(n, 64);
  probe::compare(
      {
          forward<Choice<64, 128, 128>>("128x128", x, n, is_causal),
          forward<Choice<64, 128, 128, false>>("128x128, no fence", x, n, is_causal),
          forward<Choice<64, 128, 128, true, false>>("128x128, no turns", x, n, is_causal),
          forward<Choice<64, 128, 176>>("128x176", x, n, is_causal),
          forward<Choice<64, 192, 128>>("192x128", x, n, is_causal),
      },
      n);
}

// Every block of a head adds ones to all of its rows, as blocks of keys add to dq.
template <probe::AddBy kBy>
Contender add(const char* name, DeviceArray<float>& sums, const Sizes& n) {
  using Shape = probe::GradientTile;
  const int tiles = n.seqlen / Shape::kRows, blocks = n.seqlen / 128;
  const probe::AddParams params{sums.data(), tiles};
  return {name,
          4.0 * n.heads * blocks * n.seqlen * Shape::kColumns,
          "TB/s",
          0,
          [&sums, name] { sums.fill(0, name); },
          [=] {
            probe::require(ptx::launch(probe::add_gradients<kBy>, dim3(blocks, n.heads),
                                       dim3(Shape::kThreads), Shape::kShared, nullptr, params),
                           name);
          },
          [&sums, blocks, name] {
            double worst = 0;
            for (const float x : sums.values(name))
              worst = probe::larger(worst, std::fabs(x - blocks));
            return worst;
          }};
}

void gradient_sums(const Sizes& sizes) {
  Sizes n = sizes;
  n.seqlen = std::max(n.seqlen / 128, 1) * 128;
  DeviceArray<float> sums(std::vector<float>(size_t(n.heads) * n.seqlen * 128));
  probe::compare({add<probe::AddBy::kElement>("red.add", sums, n),
                  add<probe::AddBy::kVector>("red.add.v4", sums, n),
                  add<probe::AddBy::kBulk>("cp.reduce.async.bulk", sums, n)},
                 n);
}

const std::vector<probe::Case> kCases = {
    {"forward-d128-causal", [](const Sizes& n) { forward_128(n, true); }},
    {"forward-d128-full", [](const Sizes& n) { forward_128(n, false); }},
    {"forward-d64-causal", [](const Sizes& n) { forward_64(n, true); }},
    {"forward-d64-full", [](const Sizes& n) { forward_64(n, false); }},
    {"dq-sums", gradient_sums},
};

}  // namespace

int main(int count, char** arguments) { return probe::run_case(kCases, count, arguments); }
