// Where a call runs: on the CPU's kernels, or through a CUDA plug-in, loaded when first needed.
#pragma once

#include <string>

#include "api/plugin.h"
#include "cpu/isa.h"

namespace attnext::api {

// A call's back end; exactly one of the two pointers is set.
struct Target {
  const cpu::Kernels* kernels;
  const Plugin* plugin;
  DeviceCall call;

  // Runs a function of the plug-in; its failure is thrown.
  template <class Function, class... Arguments>
  void run(Function Plugin::* function, const Arguments&... arguments) const {
    char error[768] = "";
    rethrow((plugin->*function)(call, arguments..., Text{error, sizeof(error)}), error);
  }

  static void rethrow(attnext_status status, const char* error);
};

// What `options` (complete) ask for; throws where that is not there. `name` of the back end is
// attnext's own: "cuda".
Target choose_target(const attnext_options& options);

const char* backend_name(int32_t backend);

// Whether the back end can run here, and a sentence on that.
bool describe_backend(int32_t backend, std::string& text);

// Of ATTNEXT_CUDA or ATTNEXT_CUDA_EMULATED; throws where it is not there.
const Plugin& require_plugin(int32_t backend);

}  // namespace attnext::api
