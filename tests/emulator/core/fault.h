// Touching a guard region becomes a failed check instead of a crash.
#pragma once

namespace emulator {

// While it lives, faults of kernels on this thread of the host are reported; others stay faults.
class FaultsReported {
 public:
  FaultsReported();
  ~FaultsReported();
  FaultsReported(const FaultsReported&) = delete;
  FaultsReported& operator=(const FaultsReported&) = delete;
};

}  // namespace emulator
