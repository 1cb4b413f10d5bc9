// What a caller may ask of the library itself: version, last error, instruction sets, threads,
// precision.
#include <atomic>
#include <cstdio>

#include "api/guard.h"
#include "cpu/isa.h"
#include "cpu/openmp.h"
#include "cpu/parallel.h"

namespace attnext::api {
namespace {

// Of fixed size, so that "out of memory" needs none.
thread_local char last_error[1024] = "";

std::atomic<int32_t> float32_precision{ATTNEXT_EXACT};

}  // namespace

attnext_status report(attnext_status status, const char* function, const char* message) noexcept {
  std::snprintf(last_error, sizeof(last_error), "%s: %s", function, message);
  return status;
}

}  // namespace attnext::api

using namespace attnext;

const char* attnext_version(void) { return ATTNEXT_VERSION; }

const char* attnext_last_error(void) { return api::last_error; }

const char* attnext_isa(void) {
  const char* name = nullptr;
  api::guarded("isa", [&] { name = cpu::selected_kernels().isa; });
  return name;
}

const char* attnext_isa_name(int index) {
  return index >= 0 && index < cpu::num_isas() ? cpu::isa_at(index).name : nullptr;
}

int attnext_isa_supported(int index) {
  return index >= 0 && index < cpu::num_isas() && cpu::isa_at(index).is_supported() ? 1 : 0;
}

void attnext_set_num_threads(int count) { cpu::set_num_threads(count); }

int attnext_get_num_threads(void) { return cpu::get_num_threads(); }

void attnext_set_parallel_for(attnext_parallel_for run, void* context) {
  cpu::set_parallel_for(run, context);
}

void attnext_share_openmp(attnext_openmp_region region) { cpu::share_openmp(region); }

int attnext_shares_openmp(void) { return cpu::shares_openmp() ? 1 : 0; }

attnext_status attnext_set_float32_precision(int32_t precision) {
  return api::guarded("set_float32_precision", [&] {
    require(precision == ATTNEXT_EXACT || precision == ATTNEXT_FAST,
            "precision must be a code from 0 to 1, found ", precision);
    api::float32_precision = precision;
  });
}

int32_t attnext_get_float32_precision(void) { return api::float32_precision; }
