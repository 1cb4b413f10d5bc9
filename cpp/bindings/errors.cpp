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
  const size_t begin = message.find(": ") + 2;  // every message starts "function: argument "
  const size_t end = message.find(' ', begin);
  for (const auto& [ours, theirs] : kPythonNames) {
    if (message.compare(begin, end - begin, ours) == 0)
      return message.replace(begin, end - begin, theirs);
  }
  return message;
}

}  // namespace attnext::bindings
