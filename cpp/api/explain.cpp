// Which kernel a forward call would run, and why, as JSON.
#include <algorithm>
#include <cstring>
#include <string>

#include "api/guard.h"
#include "attention/validate.h"
#include "cpu/parallel.h"

using namespace attnext;

namespace {

std::string kernel_fields(const cpu::Kernels& kernels, const Problem& problem) {
  if (is_empty(problem)) return "\"kernel\": \"none: nothing to compute\"";
  std::string fields(1024, '\0');
  int size = kernels.explain(problem, fields.data(), static_cast<int>(fields.size()));
  if (size >= static_cast<int>(fields.size())) {  // room for a final NUL is needed too
    fields.resize(size + 1);
    size = kernels.explain(problem, fields.data(), size + 1);
  }
  fields.resize(size);
  return fields;
}

std::string explain(const cpu::Kernels& kernels, const Problem& problem) {
  const char* const reason =
      cpu::is_forced() ? "ATTNEXT_ISA names it" : "best this machine supports";
  return std::string("{\"backend\": \"cpu\", \"isa\": \"") + kernels.isa + "\", \"why\": \"" +
         reason + "\", \"threads\": " + std::to_string(cpu::get_num_threads()) + ", " +
         kernel_fields(kernels, problem) + "}";
}

}  // namespace

attnext_status attnext_explain(const attnext_tensor* q, const attnext_tensor* k,
                               const attnext_tensor* v, const attnext_options* options, char* text,
                               size_t capacity, size_t* size) {
  return api::guarded("explain", [&] {
    require(size != nullptr, "size must be given, found a null pointer");
    require(text != nullptr || capacity == 0, "text must be given, found a null pointer");
    const cpu::Kernels& kernels = api::usable_kernels();
    const Resolved resolved = resolve_problem(q, k, v, Values::kNeeded, options);
    const std::string json = explain(kernels, resolved.problem);
    *size = json.size() + 1;
    if (capacity == 0) return;
    const size_t length = std::min(json.size(), capacity - 1);
    std::memcpy(text, json.data(), length);
    text[length] = '\0';
  });
}
