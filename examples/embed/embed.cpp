// How a C++ program calls attnext: squared distances with a scale per head over a sliding causal
// window, in float64. The gradients are checked against differences of the forward pass; exits with
// 1 where they differ.
#include <attnext/attnext.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

constexpr int64_t kBatch = 2, kHeads = 3, kQueries = 6, kKeys = 9, kDim = 4;

// A contiguous float64 array of up to four axes.
struct Array {
  explicit Array(std::vector<int64_t> shape) : shape(std::move(shape)) {
    size_t size = 1;
    for (int64_t extent : this->shape) size *= static_cast<size_t>(extent);
    values.resize(size);
  }
  std::vector<int64_t> shape;
  std::vector<double> values;
};

attnext_tensor view(Array& array) {
  attnext_tensor t = {};
  t.data = array.values.data();
  t.dtype = ATTNEXT_FLOAT64;
  t.ndim = static_cast<int32_t>(array.shape.size());
  int64_t stride = 1;
  for (int axis = t.ndim - 1; axis >= 0; --axis) {
    t.shape[axis] = array.shape[static_cast<size_t>(axis)];
    t.strides[axis] = stride;
    stride *= t.shape[axis];
  }
  return t;
}

Array random_array(std::vector<int64_t> shape) {
  static std::mt19937 generator(1);
  std::uniform_real_distribution<double> uniform(-1, 1);
  Array array(std::move(shape));
  for (double& x : array.values) x = uniform(generator);
  return array;
}

void check(attnext_status status) {
  if (status != ATTNEXT_OK) throw std::runtime_error(attnext_last_error());
}

struct Call {
  Array q = random_array({kBatch, kHeads, kQueries, kDim});
  Array k = random_array({kBatch, kHeads, kKeys, kDim});
  Array v = random_array({kBatch, kHeads, kKeys, kDim});
  Array dout = random_array({kBatch, kHeads, kQueries, kDim});
  Array scale = random_array({kHeads});
  Array out{{kBatch, kHeads, kQueries, kDim}};
  Array lse{{kBatch, kHeads, kQueries}};

  attnext_options options() {
    attnext_options o;
    attnext_options_init(&o);
    o.score = ATTNEXT_NEG_SQ_L2;
    o.causal = ATTNEXT_BOTTOM_RIGHT;
    o.window_left = 4;
    o.scale_per_head = view(scale);
    return o;
  }

  // <dout, attention(q, k, v)>: what the gradients are the gradients of.
  double loss() {
    const attnext_options o = options();
    const attnext_tensor tq = view(q), tk = view(k), tv = view(v), tout = view(out),
                         tlse = view(lse);
    check(attnext_forward(&tq, &tk, &tv, &o, &tout, &tlse));
    double sum = 0;
    for (size_t i = 0; i < out.values.size(); ++i) sum += out.values[i] * dout.values[i];
    return sum;
  }
};

struct Gradients {
  Array dq{{kBatch, kHeads, kQueries, kDim}};
  Array dk{{kBatch, kHeads, kKeys, kDim}};
  Array dv{{kBatch, kHeads, kKeys, kDim}};
  Array dscale{{kHeads}};

  explicit Gradients(Call& call) {
    call.loss();
    const attnext_options o = call.options();
    attnext_gradients g;
    attnext_gradients_init(&g);
    g.dq = view(dq), g.dk = view(dk), g.dv = view(dv), g.dscale = view(dscale);
    const attnext_tensor tdout = view(call.dout), tq = view(call.q), tk = view(call.k);
    const attnext_tensor tv = view(call.v), tout = view(call.out), tlse = view(call.lse);
    check(attnext_backward(&tdout, &tq, &tk, &tv, &tout, &tlse, nullptr, &o, &g));
  }
};

void compare(const char* name, Call& call, Array& input, const Array& gradient) {
  const double step = 1e-5;
  for (size_t i = 0; i < input.values.size(); ++i) {
    const double kept = input.values[i];
    input.values[i] = kept + step;
    const double above = call.loss();
    input.values[i] = kept - step;
    const double below = call.loss();
    input.values[i] = kept;
    const double expected = (above - below) / (2 * step);
    if (std::abs(expected - gradient.values[i]) <= 1e-7) continue;  // NaN differs too
    throw std::runtime_error(std::string(name) + "[" + std::to_string(i) + "]: expected " +
                             std::to_string(expected) + ", found " +
                             std::to_string(gradient.values[i]));
  }
}

}  // namespace

int main() try {
  Call call;
  const Gradients gradients(call);
  compare("dq", call, call.q, gradients.dq);
  compare("dk", call, call.k, gradients.dk);
  compare("dv", call, call.v, gradients.dv);
  compare("dscale", call, call.scale, gradients.dscale);
  std::printf("attnext %s on %s: gradients agree with differences\n", attnext_version(),
              attnext_isa());
  return EXIT_SUCCESS;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return EXIT_FAILURE;
}
