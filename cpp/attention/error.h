// How a call says no: the kind of error, and a message composed from its parts.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

#include "attnext/attnext.h"

namespace attnext {

enum class ErrorKind : int32_t {
  kValue = ATTNEXT_VALUE_ERROR,
  kType = ATTNEXT_TYPE_ERROR,
  kNotImplemented = ATTNEXT_NOT_IMPLEMENTED,
};

class Error : public std::runtime_error {
 public:
  Error(ErrorKind error_kind, const std::string& message)
      : std::runtime_error(message), kind(error_kind) {}

  const ErrorKind kind;
};

template <class... Parts>
[[noreturn]] void fail(ErrorKind kind, const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw Error(kind, message.str());
}

// The parts name the argument, the rule and what was found; the C interface puts the function in
// front. They are composed only on failure, so pass values, not strings made of them.
template <class... Parts>
void require(bool condition, ErrorKind kind, const Parts&... parts) {
  if (!condition) fail(kind, parts...);
}

template <class... Parts>
void require(bool condition, const char* first, const Parts&... parts) {
  if (!condition) fail(ErrorKind::kValue, first, parts...);
}

}  // namespace attnext
