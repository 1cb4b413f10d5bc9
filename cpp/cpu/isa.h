// Which instruction sets this build has, which of them this machine can run, and which one was
// chosen.
#pragma once

#include "attention/params.h"

namespace attnext::cpu {

// What one object of kernels offers. Passes throw std::bad_alloc and nothing else.
struct Kernels {
  const char* isa;
  void (*forward)(const ForwardParams&);
  void (*backward)(const BackwardParams&);
  void (*weights)(const WeightsParams&);
  void (*stats)(const StatsParams&);
  // Explains forward: writes up to `capacity` bytes of JSON fields (no braces), returns the length
  // wanted.
  int (*explain)(const Problem&, char* text, int capacity);
};

struct Isa {
  const char* name;
  bool (*is_supported)();
  const Kernels& (*kernels)();
};

int num_isas();
const Isa& isa_at(int index);  // best first

// The best supported one, or the one ATTNEXT_ISA names. An unknown or unsupported name is an error
// that every pass reports: `selection_error()` is its message, null if there is none.
const Kernels& selected_kernels();
const char* selection_error();
bool is_forced();  // by ATTNEXT_ISA

}  // namespace attnext::cpu
