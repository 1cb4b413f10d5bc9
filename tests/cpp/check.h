// What every test program says: which expectations failed, and whether any did.
#pragma once

#include <atomic>
#include <cstdio>

inline std::atomic<int> failures{0};  // threads check too

inline void check(bool holds, const char* what) {
  if (holds) return;
  std::printf("FAILED: %s\n", what);
  ++failures;
}

// For main to return.
inline int verdict() {
  if (failures == 0) std::printf("ok\n");
  return failures == 0 ? 0 : 1;
}
