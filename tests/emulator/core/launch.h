// Running one kernel over its grid.
#pragma once

#include <functional>
#include <string>

#include "core/machine.h"

namespace emulator {

struct LaunchShape {
  dim3 grid, block;
  uint32_t shared_bytes;
};

// What is wrong with the shape, or empty.
std::string refuse_shape(const LaunchShape& shape);

// Runs `kernel`, one thread a call. Returns the first failed check, or empty.
std::string run_grid(const LaunchShape& shape, const std::function<void()>& kernel);

}  // namespace emulator
