// How a failure reaches Python: which exception, and its message composed from parts.
#include "bindings/errors.h"

#include <utility>

namespace attnext::bindings {
namespace {

constexpr std::pair<const char*, const char*> kPythonNames[] = {
    {"scale_per_head", "scale"},          {"window_left", "window[0]"},
    {"window_right", "window[1]"},        {"weight", "AdditiveScore.weight"},
    {"score_bias", "AdditiveScore.bias"},
};

}  // namespace

std::string last_error_in_python() {
  std::string message = attnext_last_error();
  message.erase(0, message.find(": ") + 2);  // it starts "function: argument "
  const size_t end = message.find(' ');
  for (const auto& [ours, theirs] : kPythonNames) {
    if (message.compare(0, end, ours) == 0) return message.replace(0, end, theirs);
  }
  return message;
}

}  // namespace attnext::bindings
