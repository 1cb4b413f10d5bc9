// Where a call runs: on the CPU's kernels, or through a CUDA plug-in, loaded when first needed.
#include "api/backend.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <new>
#include <stdexcept>

#include "api/guard.h"
#include "cpu/parallel.h"
#include "cuda_build.h"

namespace attnext::api {
namespace {

struct Library {
  const Plugin* plugin;  // null: `text` says why
  std::string text;
};

// Plug-ins lie beside libattnext, wherever that was installed.
std::string folder_of_this_library() {
  static const char here = 0;
  Dl_info info{};
  if (dladdr(&here, &info) == 0 || info.dli_fname == nullptr) return "";
  const std::string path = info.dli_fname;
  const size_t end = path.rfind('/');
  return end == std::string::npos ? "" : path.substr(0, end + 1);
}

// `is_built`: whether the build that made this library made the plug-in too.
Library open_library(const std::string& file, bool is_built, const std::string& how_built) {
  const std::string path = folder_of_this_library() + file;
  if (access(path.c_str(), F_OK) != 0) {
    return {nullptr, is_built ? how_built + ", but " + path + " is missing; install attnext again"
                              : how_built};
  }
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {  // also where what the plug-in itself needs is missing
    const char* const reason = dlerror();
    return {nullptr, how_built + "; it cannot be loaded: " + (reason ? reason : "no reason given")};
  }
  const auto entry = reinterpret_cast<PluginEntry>(dlsym(library, kPluginSymbol));
  const Plugin* const plugin = entry ? entry() : nullptr;
  if (plugin == nullptr || plugin->layout != kPluginLayout) {
    return {nullptr, path + " is of another build of attnext; install attnext again"};
  }
  return {plugin, how_built};
}

// The test comes before dlopen: with it set no byte of CUDA enters the process.
Library open_cuda() {
  const char* const is_disabled = std::getenv("ATTNEXT_DISABLE_CUDA");
  if (is_disabled != nullptr && *is_disabled != '\0' && std::string(is_disabled) != "0") {
    return {nullptr, std::string("ATTNEXT_DISABLE_CUDA=") + is_disabled + " is set"};
  }
  return open_library("libattnext_cuda.so", kHasCuda, kCudaBuild);
}

Library open_emulated() {
  return open_library("libattnext_cuda_emulated.so", kHasEmulated,
                      "a test-only part of the build: -DATTNEXT_CUDA_EMULATED=ON");
}

const Library& library_of(int32_t backend) {
  if (backend == ATTNEXT_CUDA_EMULATED) {
    static const Library emulated = open_emulated();
    return emulated;
  }
  static const Library cuda = open_cuda();
  return cuda;
}

bool describe_plugin(int32_t backend, std::string& text) {
  const Library& library = library_of(backend);
  text = library.text;
  if (library.plugin == nullptr) return false;
  char found[512] = "";
  const bool is_usable = library.plugin->status({found, sizeof(found)}) == ATTNEXT_OK;
  text = std::string(found) + " (" + library.text + ")";
  return is_usable;
}

}  // namespace

const char* backend_name(int32_t backend) {
  constexpr const char* kNames[] = {"auto", "cpu", "cuda", "cuda-emulated"};
  require(backend >= ATTNEXT_AUTO && backend <= ATTNEXT_CUDA_EMULATED,
          "backend must be a code from 0 to 3, found ", backend);
  return kNames[backend];
}

bool describe_backend(int32_t backend, std::string& text) {
  backend_name(backend);
  if (backend == ATTNEXT_CUDA || backend == ATTNEXT_CUDA_EMULATED) {
    return describe_plugin(backend, text);
  }
  const char* const error = cpu::selection_error();
  text = error ? error
               : std::string(cpu::selected_kernels().isa) + " kernels, " +
                     std::to_string(cpu::get_num_threads()) + " threads";
  return error == nullptr;
}

const Plugin& require_plugin(int32_t backend) {
  const bool is_device = backend == ATTNEXT_CUDA || backend == ATTNEXT_CUDA_EMULATED;
  require(is_device, "backend must be cuda or cuda-emulated, found ", backend_name(backend));
  const Library& library = library_of(backend);
  // Whether there is a device is found out anew by each call: its error says which step failed.
  if (library.plugin != nullptr) return *library.plugin;
  throw std::runtime_error(std::string("backend '") + backend_name(backend) +
                           "' is not there: " + library.text);
}

Target choose_target(const attnext_options& o) {
  const char* const name = backend_name(o.backend);
  require(o.memory == ATTNEXT_HOST_MEMORY || o.memory == ATTNEXT_CUDA_MEMORY,
          "memory must be a code from 0 to 1, found ", o.memory);
  const bool is_host = o.memory == ATTNEXT_HOST_MEMORY;
  require(o.device >= 0, "device must be at least 0, found ", o.device);
  require(is_host || o.backend != ATTNEXT_CPU, ErrorKind::kType, "backend '", name,
          "' computes in host memory, found tensors in CUDA memory");
  if (o.backend == ATTNEXT_CPU || (o.backend == ATTNEXT_AUTO && is_host)) {
    return {&usable_kernels(), nullptr, {}};
  }
  const int32_t backend = o.backend == ATTNEXT_AUTO ? ATTNEXT_CUDA : o.backend;
  const bool allows_tf32 = attnext_get_float32_precision() == ATTNEXT_FAST;
  return {nullptr,
          &require_plugin(backend),
          {is_host, allows_tf32, o.device, is_host ? nullptr : o.stream}};
}

void Target::rethrow(attnext_status status, const char* error) {
  switch (status) {
    case ATTNEXT_OK:
      return;
    case ATTNEXT_OUT_OF_MEMORY:
      throw std::bad_alloc();
    default:
      throw std::runtime_error(error);
  }
}

}  // namespace attnext::api

using namespace attnext;

attnext_status attnext_device_allocate(int32_t backend, int32_t device, size_t bytes,
                                       void** memory) {
  return api::guarded("device_allocate", [&] {
    require(memory != nullptr, "memory must be given, found a null pointer");
    char error[768] = "";
    const Plugin& plugin = api::require_plugin(backend);
    api::Target::rethrow(plugin.allocate(device, bytes, memory, {error, sizeof(error)}), error);
  });
}

attnext_status attnext_device_free(int32_t backend, int32_t device, void* memory) {
  return api::guarded("device_free", [&] {
    char error[768] = "";
    const Plugin& plugin = api::require_plugin(backend);
    api::Target::rethrow(plugin.free(device, memory, {error, sizeof(error)}), error);
  });
}

attnext_status attnext_device_copy(int32_t backend, int32_t device, void* stream, void* target,
                                   const void* source, size_t bytes) {
  return api::guarded("device_copy", [&] {
    const api::Target on{nullptr, &api::require_plugin(backend), {false, false, device, stream}};
    on.run(&Plugin::copy, target, source, bytes);
  });
}
