// What is not there yet: each is refused by name until a kernel of this name replaces it.
#include "kernels.h"

#define ATTNEXT_ABSENT_PASS __attribute__((weak))

namespace attnext::cuda {

namespace simt {

ATTNEXT_ABSENT_PASS Status forward(const ForwardParams&, Launch&) {
  return refuse("attention is not supported for these inputs by the CUDA back end yet");
}
ATTNEXT_ABSENT_PASS Status backward(const BackwardParams&, Launch&) {
  return refuse("gradients are not supported for these inputs by the CUDA back end yet");
}
ATTNEXT_ABSENT_PASS Status weights(const WeightsParams&, Launch&) {
  return refuse("weights are not supported by the CUDA back end yet");
}
ATTNEXT_ABSENT_PASS Status stats(const StatsParams&, Launch&) {
  return refuse("statistics are not supported by the CUDA back end yet");
}
ATTNEXT_ABSENT_PASS Status merge(const MergeParams&, Launch&) {
  return refuse("merging is not supported by the CUDA back end yet");
}
ATTNEXT_ABSENT_PASS Status dropout_mask(const KeepMaskParams&, Launch&) {
  return refuse("the dropout mask is not supported by the CUDA back end yet");
}
ATTNEXT_ABSENT_PASS Status sum_heads(const HeadSumParams&, Launch&) {
  return refuse("gradients of per-head options are not supported by the CUDA back end yet");
}
ATTNEXT_ABSENT_PASS int describe_forward(const ForwardParams&, const Device&, char*, size_t) {
  return 0;
}

}  // namespace simt

namespace mma {

ATTNEXT_ABSENT_PASS const char* why_not_forward(const ForwardParams&, const Device&) {
  return "there are no such kernels yet";
}
ATTNEXT_ABSENT_PASS const char* why_not_backward(const BackwardParams&, const Device&) {
  return "there are no such kernels yet";
}
ATTNEXT_ABSENT_PASS Status forward(const ForwardParams&, Launch&) {
  return refuse("attention is not supported by the CUDA back end's matrix kernels yet");
}
ATTNEXT_ABSENT_PASS Status backward(const BackwardParams&, Launch&) {
  return refuse("gradients are not supported by the CUDA back end's matrix kernels yet");
}
ATTNEXT_ABSENT_PASS int describe_forward(const ForwardParams&, const Device&, char*, size_t) {
  return 0;
}

}  // namespace mma

}  // namespace attnext::cuda
