// What the options of a Python call mean to the C interface.
#pragma once

#include <string>

#include "attnext/attnext.h"
#include "bindings/arrays.h"
#include "bindings/layout.h"

namespace attnext::bindings {

// The order in which Python hands the option values over: that of `attnext.attention`'s signature.
enum class Option {
  kScore,
  kScale,
  kCausal,
  kQOffset,
  kWindow,
  kSoftcap,
  kMask,
  kBias,
  kAlibiSlopes,
  kSinks,
  kDropout,
  kSeed,
  kQLengths,
  kKvLengths,
  kCuSeqlensQ,
  kCuSeqlensK,
  kBlockTable,
  kLayout,
  kBackend,
};
constexpr int kNumOptions = static_cast<int>(Option::kBackend) + 1;
constexpr const char* kOptionNames[kNumOptions] = {
    "score",        "scale",        "causal",      "q_offset", "window",  "softcap",   "mask",
    "bias",         "alibi_slopes", "sinks",       "dropout",  "seed",    "q_lengths", "kv_lengths",
    "cu_seqlens_q", "cu_seqlens_k", "block_table", "layout",   "backend",
};

// The options of one call. `c` points into the arrays beside it, so it stays where it is made.
class Options {
 public:
  Options(const py::tuple& values, const Array& q);
  Options(const Options&) = delete;
  Options& operator=(const Options&) = delete;

  bool is_packed() const { return layout == Layout::kThd; }
  bool is_paged() const { return block_table.is_present(); }

  attnext_options c;
  Layout layout;
  Array scale_per_head, q_offset, mask, bias, alibi_slopes, sinks, weight, score_bias;
  Array q_lengths, kv_lengths, cu_seqlens_q, cu_seqlens_k, block_table;

 private:
  void read_score(py::handle value, const Array& q);
  void read_scale(py::handle value, const Array& q);
  void read_causal(py::handle value);
  void read_q_offset(py::handle value, const Array& q);
  void read_window(py::handle value);
  void read_dropout(py::handle dropout, py::handle seed);
  void require_layout_fits() const;

  int64_t q_offset_value_ = 0;  // what c.q_offset points at where it is a single number
};

// An array among the options: where it is kept, and which field of the C struct shows it.
struct ArrayOption {
  const char* name;
  Array Options::* array;
  attnext_tensor attnext_options::* tensor;
};
extern const ArrayOption kArrayOptions[13];

// The options that have a gradient, in the order of AttentionGrads.
struct OptionGradient {
  Array Options::* array;
  attnext_tensor attnext_gradients::* tensor;
};
extern const OptionGradient kOptionGradients[6];

bool read_flag(py::handle value, const char* name);
int64_t read_integer(py::handle value, const char* name);
double read_probability(py::handle value);
uint64_t read_seed(py::handle value);
attnext_backend read_backend(py::handle value);

}  // namespace attnext::bindings
