// How large are the tiles of the mma kernels? Every tuning number of this path, with its reason.
// Tile widths over keys are part of a result's bits and depend on head_dim and budget alone.
#pragma once

#include <cstdint>

namespace attnext::cuda::mma {

// What shared memory an architecture lets a block have, and which matrix instruction it knows. More
// than 99 KB, which not all from sm_80 on have, would leave one block a multiprocessor.
enum class Budget {
  kTuring,  // sm_75: 64 KB, m16n8k8 of float16 only, no asynchronous copies
  kAmpere,  // sm_80 and later: 99 KB
};

constexpr uint32_t bytes_of(Budget budget) {
  return budget == Budget::kTuring ? 64 << 10 : 99 << 10;
}

// Tiles of what a block walks along, in shared memory at once: the next one is on its way while one
// is used. sm_75 has no copies that travel by themselves.
constexpr int stages_of(Budget budget) { return budget == Budget::kTuring ? 1 : 2; }

// Whether the architecture being compiled for runs instances of `budget`; elsewhere their kernels
// are left empty.
constexpr bool is_compiled(Budget budget) {
#if defined(__CUDA_ARCH__)
  return (budget == Budget::kTuring) == (__CUDA_ARCH__ < 800);
#else
  return budget <= Budget::kAmpere;
#endif
}

// Row extents of a matrix fragment.
constexpr int kFragmentRows = 16;

// Plain: masks by rule only. Options: everything. With the code of the options in it, a warp of two
// row fragments at head_dim 128 spilled 1.7 KB, without it nothing (nvcc 13.0, sm_80): the one
// thing beside width and dtype that is compiled twice. FewRows: everything, for rows that one
// fragment holds; the warps of a block share the keys of a tile instead of its rows.
enum class Features { kPlain, kOptions, kFewRows };

// Blocks that a multiprocessor is to have registers for: as many as leave a thread all it can have.
// Left to choose, the compiler made room for more and spilled.
constexpr int blocks_of(int threads) { return 256 / threads; }

// Few rows take 16 keys a warp, so that the warps' products keep up with memory: a multiprocessor
// of an H200 receives 36 KB a microsecond (4.8 TB/s over 132), and one warp alone needs about that
// long for the 32 KB of 64 keys at width 128. A block has 32 KB in flight (16 KB at width 64), and
// three blocks (four) 96 KB (64): twice what a latency of a microsecond asks for. Computed, not
// measured.
constexpr int blocks_of_few_rows(int head_dim) { return head_dim > 64 ? 3 : 4; }

// Rows of a query tile, as warps x fragments, and keys of a key tile. q, k and v share one width:
// a narrower head_dim_v costs products with zeros.
template <int kHeadDim_, int kElementBytes_, Budget kBudget_, Features kFeatures_, int kWarps_,
          int kRowFragments_, int kTileK_>
struct Shape {
  static constexpr Features kFeatures = kFeatures_;
  static constexpr bool kHasOptions = kFeatures != Features::kPlain;
  static constexpr bool kSharesKeys = kFeatures == Features::kFewRows;
  static constexpr int kHeadDim = kHeadDim_, kWarps = kWarps_, kRowFragments = kRowFragments_;
  static constexpr int kElementBytes = kElementBytes_;
  static constexpr Budget kBudget = kBudget_;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kWarpRows = kFragmentRows * kRowFragments;
  static constexpr int kTileQ = kSharesKeys ? kWarpRows : kWarps * kWarpRows;
  static constexpr int kTileK = kTileK_;
  static constexpr int kWarpKeys = kSharesKeys ? kTileK / kWarps : kTileK;
  static constexpr int kMinBlocks = kSharesKeys && kBudget != Budget::kTuring
                                        ? blocks_of_few_rows(kHeadDim)
                                        : blocks_of(kThreads);
  // Queries stay in registers as the left operand of products: kHeadDim x fragments / 4 of them.
  // More spilled next to the sums, as did 32 of a thread's 168 where three blocks share a
  // multiprocessor; float32, in two parts, takes four times as many.
  static constexpr bool kKeepsRows =
      kElementBytes == 2 && kHeadDim * kRowFragments <= (kSharesKeys ? 64 : 128);
  static constexpr int kStages = stages_of(kBudget);
  static_assert(kHeadDim % 32 == 0 && kWarpKeys % 16 == 0, "fragments are 16 wide");
};

// Two fragments of rows a warp halve what is read of k and v per product, as far as registers go:
// o takes kHeadDim / 2 of them per fragment.
constexpr int forward_row_fragments(int head_dim, Budget budget, Features features) {
  return budget == Budget::kTuring || features != Features::kPlain || head_dim > 128 ? 1 : 2;
}
constexpr int forward_tile_q(int head_dim, int element_bytes, Budget budget, Features features) {
  if (features == Features::kFewRows) return kFragmentRows;
  if (element_bytes == 4) return 64;
  if (budget == Budget::kTuring) return head_dim > 192 ? 32 : 64;
  return head_dim > 192 ? 64 : 128;
}
// The same with options and without: which of the two kernels runs does not show in the bits of a
// row. At width 128 the two fragments of rows leave registers for 48 scores each; 64 spilled 172
// bytes on sm_90. Beyond it, two stages of 64 keys would not fit 99 KB. Of float32 at width 128, 32
// keys spilled 32 bytes on sm_120.
constexpr int forward_tile_k(int head_dim, int element_bytes, Budget budget, Features features) {
  if (element_bytes == 4) return features != Features::kFewRows && head_dim > 64 ? 16 : 32;
  if (features == Features::kFewRows) return head_dim > 128 ? 32 : 64;
  return head_dim > 128 ? 32 : head_dim == 128 && budget != Budget::kTuring ? 48 : 64;
}
constexpr int forward_warps(int head_dim, int element_bytes, Budget budget, Features features) {
  if (features == Features::kFewRows)
    return forward_tile_k(head_dim, element_bytes, budget, features) / 16;
  return forward_tile_q(head_dim, element_bytes, budget, features) /
         (kFragmentRows * forward_row_fragments(head_dim, budget, features));
}

template <int kHeadDim, int kElementBytes, Budget kBudget, Features kFeatures>
using ForwardShape = Shape<kHeadDim, kElementBytes, kBudget, kFeatures,
                           forward_warps(kHeadDim, kElementBytes, kBudget, kFeatures),
                           forward_row_fragments(kHeadDim, kBudget, kFeatures),
                           forward_tile_k(kHeadDim, kElementBytes, kBudget, kFeatures)>;

// Backward: a block owns rows (queries and dout, or keys and values) and walks along the others.
enum class Owner { kQueries, kKeys };
enum class KeyGradients { kBoth, kKeys, kValues };
// Beyond this width dk and dv together do not fit the registers: a launch for each.
constexpr int widest_both(int element_bytes) { return element_bytes == 4 ? 64 : 128; }

template <int kHeadDim_, int kElementBytes_, Budget kBudget_, Features kFeatures, Owner kOwner>
struct BackwardShape {
  static constexpr Budget kBudget = kBudget_;
  static constexpr int kHeadDim = kHeadDim_, kElementBytes = kElementBytes_;
  static constexpr bool kHasOptions = kFeatures != Features::kPlain;
  static constexpr bool kOwnsKeys = kOwner == Owner::kKeys;
  static constexpr int kStages = stages_of(kBudget);
  // Two fragments of rows a warp halve what is read of the other side per product, as far as the
  // sums (dq: a half, dk and dv: kHeadDim registers a fragment) leave registers for scores.
  static constexpr int kRowFragments = !kHasOptions && kHeadDim <= (kOwnsKeys ? 64 : 96) ? 2 : 1;
  static constexpr int kWarps = kBudget == Budget::kTuring && kHeadDim > 128 ? 2 : 4;
  static constexpr int kThreads = 32 * kWarps, kMinBlocks = blocks_of(kThreads);
  static constexpr int kWarpRows = kFragmentRows * kRowFragments, kOwned = kWarps * kWarpRows;
  // Of a tile that is walked along; and how many of them meet the owned rows at once.
  static constexpr int kRowBytes = kHeadDim * kElementBytes * kRowFragments;
  static constexpr int kWalked = kRowBytes > 384 ? 16 : kRowBytes > 128 ? 32 : 64;
  static constexpr int kScored =
      kWalked == 16 || (kOwnsKeys && (kRowFragments == 2 || kElementBytes == 4 ||
                                      (kBudget == Budget::kTuring && kHeadDim > 64)))
          ? 16
          : 32;
  // Of the owned rows, left operands of s and dp, what stays in registers next to the sums: both, q
  // or k, or neither. What is not kept is read from shared memory again for every step, and the
  // warps of a multiprocessor share one way to it.
  static constexpr int kOperand = kHeadDim * kRowFragments / 4;  // registers
  static constexpr bool kIsRoomy = !kHasOptions && kOperand <= 32;
  static constexpr bool kKeepsRows = kElementBytes == 2 && (kOperand <= 16 || kIsRoomy);
  static constexpr bool kKeepsOthers =
      kElementBytes == 2 && (kOperand <= 16 || (kIsRoomy && !kOwnsKeys && kRowFragments == 1));
};

// Decoding: a sequence of at most kFewRows rows (queries x group_size) takes the kernel for few
// rows; one of at most kSplitRows is split over blocks of kSplitKeys keys. Fixed, so that bits
// depend on a sequence's own shape only; 576 keys of head_dim 128 are 288 KB of k and v, long
// enough to hide a block's start, and a multiple of every tile of keys.
constexpr int64_t kFewRows = kFragmentRows, kSplitRows = 64, kSplitKeys = 576;

// What is compiled, for each element type of so many bytes, in the order in which it is tried; the
// lines of cuda/instances.txt say the same, and the linker that they do. Narrower rows are padded
// with zeros: a width more costs half a minute of compile time over all architectures.
struct Instance {
  int width;
  Budget budget;
  Features features;
  int element_bytes = 2;
};
constexpr Instance kForwardInstances[] = {
    {32, Budget::kAmpere, Features::kPlain},      {64, Budget::kAmpere, Features::kPlain},
    {96, Budget::kAmpere, Features::kPlain},      {128, Budget::kAmpere, Features::kPlain},
    {64, Budget::kAmpere, Features::kOptions},    {128, Budget::kAmpere, Features::kOptions},
    {192, Budget::kAmpere, Features::kOptions},   {256, Budget::kAmpere, Features::kOptions},
    {64, Budget::kAmpere, Features::kFewRows},    {128, Budget::kAmpere, Features::kFewRows},
    {256, Budget::kAmpere, Features::kFewRows},   {64, Budget::kTuring, Features::kOptions},
    {128, Budget::kTuring, Features::kOptions},   {192, Budget::kTuring, Features::kOptions},
    {256, Budget::kTuring, Features::kOptions},   {64, Budget::kTuring, Features::kFewRows},
    {128, Budget::kTuring, Features::kFewRows},   {256, Budget::kTuring, Features::kFewRows},
    {64, Budget::kAmpere, Features::kOptions, 4}, {128, Budget::kAmpere, Features::kOptions, 4},
    {64, Budget::kAmpere, Features::kFewRows, 4}, {128, Budget::kAmpere, Features::kFewRows, 4},
};
constexpr Instance kBackwardInstances[] = {
    {64, Budget::kAmpere, Features::kPlain},       {96, Budget::kAmpere, Features::kPlain},
    {128, Budget::kAmpere, Features::kPlain},      {64, Budget::kAmpere, Features::kOptions},
    {128, Budget::kAmpere, Features::kOptions},    {256, Budget::kAmpere, Features::kOptions},
    {64, Budget::kTuring, Features::kOptions},     {128, Budget::kTuring, Features::kOptions},
    {256, Budget::kTuring, Features::kOptions},    {64, Budget::kAmpere, Features::kOptions, 4},
    {128, Budget::kAmpere, Features::kOptions, 4},
};

}  // namespace attnext::cuda::mma
