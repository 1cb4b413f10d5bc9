// How large are the tiles of the mma kernels? Every tuning number of this path, with its reason.
// Tile widths over keys are part of a result's bits and depend on head_dim and budget alone.
#pragma once

#include <cstdint>

namespace attnext::cuda::mma {

// What shared memory an architecture lets a block have, and which matrix instruction it knows.
enum class Budget {
  kTuring,  // sm_75: 64 KB, m16n8k8 of float16 only, no asynchronous copies
  kSmall,   // sm_86, 89, 120: 99 KB
  kLarge,   // sm_80, 90, 100: 163 KB and more
};

constexpr uint32_t bytes_of(Budget budget) {
  return budget == Budget::kTuring ? 64 << 10 : budget == Budget::kSmall ? 99 << 10 : 163 << 10;
}

// Up to this width the tiles chosen for much memory fit into 99 KB as well: one instance for all
// architectures from sm_80 on.
constexpr int kWidestSharedForward = 256, kWidestSharedBackward = 128;
constexpr uint32_t allowed_bytes(int head_dim, int widest_shared, Budget budget) {
  return bytes_of(head_dim <= widest_shared && budget == Budget::kLarge ? Budget::kSmall : budget);
}

// Whether the architecture being compiled for runs instances of `budget`; elsewhere their kernels
// are left empty.
constexpr bool is_compiled(Budget budget) {
#if defined(__CUDA_ARCH__)
  return (budget == Budget::kTuring) == (__CUDA_ARCH__ < 800);
#else
  return budget <= Budget::kLarge;
#endif
}

// Row extents of a matrix fragment.
constexpr int kFragmentRows = 16;

// Plain: masks by rule only. Options: everything. With the code of the options in it, a warp of two
// row fragments at head_dim 128 spilled 1.7 KB, without it nothing (nvcc 13.0, sm_80): the one
// thing beside width and dtype that is compiled twice.
enum class Features { kPlain, kOptions };

// Rows of a query tile, as warps x fragments, and keys of a key tile. q, k and v share one width:
// a narrower head_dim_v costs products with zeros.
template <int kHeadDim_, Budget kBudget_, Features kFeatures_, int kWarps_, int kRowFragments_,
          int kTileK_>
struct Shape {
  static constexpr Features kFeatures = kFeatures_;
  static constexpr bool kHasOptions = kFeatures == Features::kOptions;
  static constexpr int kHeadDim = kHeadDim_, kWarps = kWarps_, kRowFragments = kRowFragments_;
  static constexpr Budget kBudget = kBudget_;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kWarpRows = kFragmentRows * kRowFragments;
  static constexpr int kTileQ = kWarps * kWarpRows;
  static constexpr int kTileK = kTileK_;
  static_assert(kHeadDim % 32 == 0 && kTileK % 16 == 0, "fragments are 16 wide");
};

// Two fragments of rows a warp halve what is read of k and v per product, as far as registers go:
// o takes kHeadDim / 2 of them per fragment.
constexpr int forward_row_fragments(int head_dim, Budget budget, Features features) {
  return budget == Budget::kTuring || features == Features::kOptions || head_dim > 128 ? 1 : 2;
}
constexpr int forward_tile_q(int head_dim, Budget budget) {
  if (budget == Budget::kTuring) return head_dim > 192 ? 32 : 64;
  return head_dim > 192 ? 64 : 128;
}
// The same for all features: which kernel runs does not show in the bits of a row. At width 128 the
// two fragments of rows leave registers for 48 scores each; 64 spilled 172 bytes on sm_90.
constexpr int forward_tile_k(int head_dim, Budget budget) {
  if (budget == Budget::kTuring && head_dim > 128) return 32;
  return head_dim == 128 ? 48 : 64;
}

template <int kHeadDim, Budget kBudget, Features kFeatures>
using ForwardShape =
    Shape<kHeadDim, kBudget, kFeatures,
          forward_tile_q(kHeadDim, kBudget) /
              (kFragmentRows * forward_row_fragments(kHeadDim, kBudget, kFeatures)),
          forward_row_fragments(kHeadDim, kBudget, kFeatures), forward_tile_k(kHeadDim, kBudget)>;

// Backward: as many rows as keys in a tile, a fragment of each a warp. Four tiles of shared memory
// (q, dout, k, v), and two of weights.
constexpr int backward_tile(int head_dim, Budget budget) {
  if (budget == Budget::kTuring) return head_dim > 192 ? 16 : head_dim > 64 ? 32 : 64;
  return head_dim > 128 && budget == Budget::kSmall ? 32 : 64;
}
// Beyond this width dk and dv together do not fit the registers: a launch for each.
constexpr int kWidestBoth = 128;
enum class KeyGradients { kBoth, kKeys, kValues };
// Scores a warp holds at once beside dk and dv.
constexpr int score_columns(int head_dim, int tile_k) {
  return head_dim <= 96 || tile_k <= 32 ? tile_k : 16;
}

// dq and two tiles of scores share the registers: fewer keys at once where dq is wide (at width
// 256, 64 spilled 580 bytes on sm_90 and 32 spilled 72 on sm_80).
constexpr int backward_queries_tile_k(int head_dim, Budget budget) {
  const int tile = backward_tile(head_dim, budget);
  return head_dim > kWidestBoth ? 16 : tile;
}

template <int kHeadDim, Budget kBudget, Features kFeatures>
using BackwardQueriesShape =
    Shape<kHeadDim, kBudget, kFeatures, backward_tile(kHeadDim, kBudget) / kFragmentRows, 1,
          backward_queries_tile_k(kHeadDim, kBudget)>;

template <int kHeadDim, Budget kBudget, Features kFeatures>
using BackwardKeysShape =
    Shape<kHeadDim, kBudget, kFeatures, backward_tile(kHeadDim, kBudget) / kFragmentRows, 1,
          backward_tile(kHeadDim, kBudget)>;

// Decoding: at most this many rows (queries x group_size) are split over blocks of kSplitKeys keys.
// Fixed, so that bits depend on a sequence's own shape only; 576 keys of head_dim 128 are 288 KB of
// k and v, long enough to hide a block's start, and a multiple of every tile of keys.
constexpr int64_t kFewRows = 64, kSplitKeys = 576;

// What is compiled, for each element type, in the order in which it is tried; the lines of
// cuda/instances.txt say the same, and the linker that they do. Narrower rows are padded with
// zeros: a width more costs half a minute of compile time over all architectures.
struct Instance {
  int width;
  Budget budget;
  Features features;
};
constexpr Instance kForwardInstances[] = {
    {32, Budget::kLarge, Features::kPlain},     {64, Budget::kLarge, Features::kPlain},
    {96, Budget::kLarge, Features::kPlain},     {128, Budget::kLarge, Features::kPlain},
    {64, Budget::kLarge, Features::kOptions},   {128, Budget::kLarge, Features::kOptions},
    {192, Budget::kLarge, Features::kOptions},  {256, Budget::kLarge, Features::kOptions},
    {64, Budget::kTuring, Features::kOptions},  {128, Budget::kTuring, Features::kOptions},
    {192, Budget::kTuring, Features::kOptions}, {256, Budget::kTuring, Features::kOptions},
};
constexpr Instance kBackwardInstances[] = {
    {64, Budget::kLarge, Features::kPlain},     {96, Budget::kLarge, Features::kPlain},
    {128, Budget::kLarge, Features::kPlain},    {64, Budget::kLarge, Features::kOptions},
    {128, Budget::kLarge, Features::kOptions},  {256, Budget::kLarge, Features::kOptions},
    {256, Budget::kSmall, Features::kOptions},  {64, Budget::kTuring, Features::kOptions},
    {128, Budget::kTuring, Features::kOptions}, {256, Budget::kTuring, Features::kOptions},
};

}  // namespace attnext::cuda::mma
