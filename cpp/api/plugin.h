// What libattnext and a CUDA plug-in say to each other: plain data and functions, so that the two
// share no library but this header.
#pragma once

#include "attention/device_params.h"
#include "attention/params.h"

namespace attnext {

// Where one call runs. In host memory: the plug-in brings the tensors to the device and back, and
// waits. In CUDA memory: work is queued on `stream`, and nothing waits.
struct DeviceCall {
  bool is_host_memory;
  bool allows_tf32;  // a product of float32 may be made from three of tf32
  int32_t device;
  void* stream;
};

// Where a plug-in writes a sentence: what failed, or what there is.
struct Text {
  char* data;
  size_t capacity;
};

// Statuses other than ATTNEXT_OK come with a sentence. Everything was validated before; the small
// arrays of problems lie in host memory.
struct Plugin {
  uint64_t layout;  // kPluginLayout of its build
  attnext_status (*status)(Text text);
  attnext_status (*forward)(const DeviceCall&, const ForwardParams&, Text error);
  // The parts of the small options' gradients are the plug-in's to provide and to add up.
  attnext_status (*backward)(const DeviceCall&, const BackwardParams&, const attnext_gradients&,
                             Text error);
  attnext_status (*weights)(const DeviceCall&, const WeightsParams&, Text error);
  attnext_status (*stats)(const DeviceCall&, const StatsParams&, Text error);
  attnext_status (*merge)(const DeviceCall&, const MergeParams&, Text error);
  attnext_status (*dropout_mask)(const DeviceCall&, const KeepMaskParams&, Text error);
  // JSON fields without braces, of forward; truncated to the text's capacity.
  attnext_status (*explain)(const DeviceCall&, const Problem&, Text text);
  attnext_status (*allocate)(int32_t device, size_t bytes, void** memory, Text error);
  attnext_status (*free)(int32_t device, void* memory, Text error);
  attnext_status (*copy)(const DeviceCall&, void* target, const void* source, size_t bytes,
                         Text error);
};

// Changes with every struct that crosses: a plug-in of another build is refused, not misread.
constexpr uint64_t kPluginLayout = (sizeof(ForwardParams) * 31 + sizeof(BackwardParams)) * 31 * 31 +
                                   sizeof(WeightsParams) * 961 + sizeof(StatsParams) * 31 +
                                   sizeof(attnext_gradients) + sizeof(Plugin*) * 7 + 2;

// The one symbol a plug-in exports.
constexpr const char* kPluginSymbol = "attnext_cuda_plugin";
using PluginEntry = const Plugin* (*)();

}  // namespace attnext
