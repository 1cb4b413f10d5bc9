// Which kernel a forward call would run, and why, as JSON.
#include <algorithm>
#include <cstring>
#include <string>

#include "api/backend.h"
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

// Why this instruction set, and none of the better ones before it in the list.
std::string isa_reason(const cpu::Kernels& kernels) {
  std::string unsupported;
  for (int i = 0; i < cpu::num_isas() && &cpu::isa_at(i).kernels() != &kernels; ++i) {
    const cpu::Isa& better = cpu::isa_at(i);
    if (better.is_supported()) {
      return std::string("ATTNEXT_ISA names it; otherwise ") + better.name + " would run";
    }
    unsupported += (unsupported.empty() ? "; not " : ", ") + std::string(better.name);
  }
  const char* const reason =
      cpu::is_forced() ? "ATTNEXT_ISA names it" : "best this machine supports";
  return reason + unsupported;
}

std::string explain(const cpu::Kernels& kernels, const Problem& problem) {
  return std::string("{\"backend\": \"cpu\", \"isa\": \"") + kernels.isa + "\", \"why\": \"" +
         isa_reason(kernels) + "\", \"threads\": " + std::to_string(cpu::get_num_threads()) + ", " +
         kernel_fields(kernels, problem) + "}";
}

std::string explain_device(const api::Target& target, const Resolved& resolved) {
  const bool is_emulated = resolved.options.backend == ATTNEXT_CUDA_EMULATED;
  const std::string start =
      std::string("{\"backend\": \"") + (is_emulated ? "cuda-emulated" : "cuda") + "\", ";
  if (is_empty(resolved.problem)) return start + "\"kernel\": \"none: nothing to compute\"}";
  char fields[2048] = "";
  const attnext_status status =
      target.plugin->explain(target.call, resolved.problem, {fields, sizeof(fields)});
  api::Target::rethrow(status, fields);
  return start + fields + "}";
}

// As much as fits, NUL included; the size of all of it.
void write_text(const std::string& whole, char* text, size_t capacity, size_t* size) {
  *size = whole.size() + 1;
  if (capacity == 0) return;
  const size_t length = std::min(whole.size(), capacity - 1);
  std::memcpy(text, whole.data(), length);
  text[length] = '\0';
}

void check_text(const char* text, size_t capacity, const size_t* size) {
  require(size != nullptr, "size must be given, found a null pointer");
  require(text != nullptr || capacity == 0, "text must be given, found a null pointer");
}

}  // namespace

attnext_status attnext_explain(const attnext_tensor* q, const attnext_tensor* k,
                               const attnext_tensor* v, const attnext_options* options, char* text,
                               size_t capacity, size_t* size) {
  const bool is_only_check = size == nullptr && capacity == 0;
  return api::guarded("explain", [&] {
    if (!is_only_check) check_text(text, capacity, size);
    const api::Target target = api::choose_target(complete_options(options));
    const Resolved resolved = resolve_problem(q, k, v, Values::kNeeded, options);
    if (is_only_check) return;
    const std::string json = target.plugin ? explain_device(target, resolved)
                                           : explain(*target.kernels, resolved.problem);
    write_text(json, text, capacity, size);
  });
}

attnext_status attnext_backend_status(int32_t backend, char* text, size_t capacity, size_t* size) {
  bool is_there = false;
  const attnext_status status = api::guarded("backend_status", [&] {
    check_text(text, capacity, size);
    std::string sentence;
    is_there = api::describe_backend(backend, sentence);
    write_text(sentence, text, capacity, size);
  });
  if (status != ATTNEXT_OK || is_there) return status;
  return api::report(ATTNEXT_RUNTIME_ERROR, "backend_status", "the back end cannot run here");
}
