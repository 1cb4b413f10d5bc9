// How does a check that failed stop the launch and say what was wrong?
#pragma once

#include <sstream>
#include <string>

#include "core/machine.h"

namespace emulator {

// Thrown on the host's stack; on a thread's stack stop() goes back to the host without unwinding.
struct Stopped {};

// Ends the launch: its error is `message` and where it happened, with the seed.
[[noreturn]] void stop(const Site& site, const std::string& message);

template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}
template <class... Parts>
[[noreturn]] void fail(const Site& site, const Parts&... parts) {
  stop(site, text(parts...));
}

std::string describe(const Site& site);  // file:line
std::string hexadecimal(uint64_t value);

// Nobody can run and nothing is on its way: who waits where, and for what.
[[noreturn]] void report_deadlock();

}  // namespace emulator
