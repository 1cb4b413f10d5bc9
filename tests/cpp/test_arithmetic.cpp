// Are results the same when the caller's thread, or an embedder's, takes subnormal numbers for
// zero, and is its mode its own again afterwards?
#include <cstdint>
#include <cstdio>
#include <thread>
#include <vector>

#include "attnext/attnext.h"
#include "check.h"

namespace {

#if defined(__x86_64__)
constexpr uint64_t kSubnormalsAreZero = 0x9FC0;  // both flags, the exceptions masked as always
uint64_t mode() { return __builtin_ia32_stmxcsr() & ~uint64_t{0x3F}; }
void set_mode(uint64_t mode) { __builtin_ia32_ldmxcsr(static_cast<unsigned>(mode)); }
#elif defined(__aarch64__)
constexpr uint64_t kSubnormalsAreZero = uint64_t{1} << 24;
uint64_t mode() {
  uint64_t fpcr;
  asm volatile("mrs %0, fpcr" : "=r"(fpcr));
  return fpcr;
}
void set_mode(uint64_t mode) { asm volatile("msr fpcr, %0" : : "r"(mode)); }
#endif

constexpr int64_t kHeads = 8, kSeqlen = 128, kHeadDim = 16, kSize = kHeads * kSeqlen * kHeadDim;

attnext_tensor tensor_of(std::vector<float>& memory, int ndim) {
  attnext_tensor tensor{};
  tensor.data = memory.data();
  tensor.dtype = ATTNEXT_FLOAT32;
  tensor.ndim = ndim;
  const int64_t shape[4] = {1, kHeads, kSeqlen, kHeadDim};
  int64_t stride = 1;
  for (int axis = ndim - 1; axis >= 0; --axis) {
    tensor.shape[axis] = shape[axis];
    tensor.strides[axis] = stride;
    stride *= shape[axis];
  }
  return tensor;
}

// Queries below the normal range, whose products with the keys are not; the scale lifts them into
// it.
std::vector<float> attend(float query = 5e-39F) {
  std::vector<float> q(kSize, query), k(kSize), v(kSize), out(kSize);
  for (int64_t i = 0; i < kSize; ++i) {
    k[i] = 1e37F * static_cast<float>(i / kHeadDim % 5);
    v[i] = static_cast<float>(i % 11);
  }
  attnext_options options;
  attnext_options_init(&options);
  options.scale = 16;
  const attnext_tensor tq = tensor_of(q, 4), tk = tensor_of(k, 4), tv = tensor_of(v, 4),
                       tout = tensor_of(out, 4);
  const attnext_status status = attnext_forward(&tq, &tk, &tv, &options, &tout, nullptr);
  check(status == ATTNEXT_OK, attnext_last_error());
  return out;
}

// Results that are subnormal themselves.
std::vector<float> merge() {
  std::vector<float> part(kSize, 1e-40F), lse(kHeads * kSeqlen, 0), out(kSize);
  const attnext_tensor parts[] = {tensor_of(part, 4), tensor_of(part, 4)};
  const attnext_tensor lses[] = {tensor_of(lse, 3), tensor_of(lse, 3)};
  const attnext_tensor tout = tensor_of(out, 4);
  const attnext_status status = attnext_merge(parts, lses, 2, &tout, nullptr);
  check(status == ATTNEXT_OK, attnext_last_error());
  return out;
}

// Threads that nobody has told anything.
void run_on_strange_threads(void*, int num_workers, attnext_body body, void* argument) {
  std::vector<std::thread> threads;
  for (int worker = 0; worker < num_workers; ++worker) {
    threads.emplace_back([=] {
      set_mode(kSubnormalsAreZero);
      body(argument, worker);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

int main() {
  const uint64_t usual = mode();
  attnext_set_num_threads(3);
  const std::vector<float> out = attend(), merged = merge();
  check(out != attend(0) && merged[0] != 0, "the inputs are such that the mode matters");

  set_mode(kSubnormalsAreZero);
  const std::vector<float> strange_out = attend(), strange_merged = merge();
  check(mode() == kSubnormalsAreZero, "the caller's mode is its own again");
  set_mode(usual);
  check(strange_out == out && strange_merged == merged, "the caller's mode does not count");

  attnext_set_parallel_for(run_on_strange_threads, nullptr);
  check(attend() == out && merge() == merged, "nor does that of an embedder's threads");
  attnext_set_parallel_for(nullptr, nullptr);

  return verdict();
}
