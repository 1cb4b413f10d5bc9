// What surrounds every C function: arithmetic that does not depend on the caller's; a status at the
// end, and after a failure this thread's message.
#pragma once

#include <exception>
#include <new>
#include <stdexcept>

#include "attention/error.h"
#include "attnext/attnext.h"
#include "cpu/arithmetic.h"
#include "cpu/isa.h"

namespace attnext::api {

// Keeps "function: message" for attnext_last_error.
attnext_status report(attnext_status status, const char* function, const char* message) noexcept;

// Runs `body`, which may throw anything; nothing leaves it.
template <class Body>
attnext_status guarded(const char* function, Body body) noexcept {
  const cpu::DefaultArithmetic arithmetic;
  try {
    body();
    return ATTNEXT_OK;
  } catch (const Error& error) {
    return report(static_cast<attnext_status>(error.kind), function, error.what());
  } catch (const std::bad_alloc&) {
    return report(ATTNEXT_OUT_OF_MEMORY, function, "out of memory");
  } catch (const std::length_error&) {  // a vector longer than any memory
    return report(ATTNEXT_OUT_OF_MEMORY, function, "out of memory");
  } catch (const std::exception& error) {
    return report(ATTNEXT_RUNTIME_ERROR, function, error.what());
  } catch (...) {
    return report(ATTNEXT_RUNTIME_ERROR, function, "unknown failure");
  }
}

// The kernels to run; an ATTNEXT_ISA that names none is the failure of every pass.
inline const cpu::Kernels& usable_kernels() {
  const char* const message = cpu::selection_error();
  if (message != nullptr) fail(ErrorKind::kValue, message);
  return cpu::selected_kernels();
}

}  // namespace attnext::api
