// From raw products to the scores a softmax sees, on fragments in registers: scale, softcap, bias,
// ALiBi, mask, in that order, to base 2. An option is a branch around a loop over the fragments.
#pragma once

#include "common/scores.cuh"
#include "mma/matmul.cuh"

namespace attnext::cuda::mma {

// The part of a tile of scores that a warp holds: rows `first_row` + 16 m + fragment_row of the
// group, keys `keys.begin` + 8 j + fragment_column.
struct WarpTile {
  int64_t first_row;
  Span keys;  // those that exist
  TileKind kind;
  int lane;
};

// A lane's rows beyond the group's repeat its last one: they read what is there, and are not
// stored.
PTX_FN int64_t row_of(const Group& g, const WarpTile& tile, int m, int half) {
  return min_of(tile.first_row + 16 * m + fragment_row(tile.lane, half), g.num_rows - 1);
}

// What a lane may see of a tile: [begin, end), counted from its first column (or row) on.
struct Window {
  int begin, end;
  PTX_FN bool has(int i) const { return i >= begin && i < end; }
};
PTX_FN Window window_of(Span visible, int64_t first, int count) {
  return {static_cast<int>(clamp_to(visible.begin - first, 0, count)),
          static_cast<int>(clamp_to(visible.end - first, 0, count))};
}

template <int kRowFragments, int kFragments, class F>
PTX_FN void for_scores(Accumulator<kRowFragments, kFragments>& s, int m, int half, F&& f) {
#pragma unroll
  for (int j = 0; j < kFragments; ++j)
#pragma unroll
    for (int e = 0; e < 2; ++e) f(s[m][j][2 * half + e], 8 * j + e);
}

template <int kRowFragments, int kFragments>
PTX_FN void apply_softcap(float cap, int m, int half, Accumulator<kRowFragments, kFragments>& s) {
  for_scores(s, m, half, [&](float& x, int) { x = softcap<ThreadMath<float>>(x, cap); });
}

template <int kRowFragments, int kFragments>
PTX_FN void add_bias(const TensorView& bias, const Group& g, const WarpTile& tile, Position at,
                     int m, int half, Accumulator<kRowFragments, kFragments>& s) {
  const int64_t first = tile.keys.begin + fragment_column(tile.lane);
  const int64_t offset = dense_offset(g, bias, at) + first * bias.strides[3];
  const int count = static_cast<int>(tile.keys.end - first);
  with_storage(dtype_of(bias), [&](auto storage) {
    using Storage = decltype(storage);
    const auto* row = static_cast<const typename Storage::Type*>(bias.data) + offset;
    for_scores(s, m, half, [&](float& x, int key) {
      if (key >= count) return;
      const auto b = Storage::widen(ptx::ld_global(row + key * bias.strides[3]));
      x = biased(x, static_cast<float>(b));
    });
  });
}

// Distances from the tile's first key: exact however long the sequence is.
template <int kRowFragments, int kFragments>
PTX_FN void subtract_alibi(float slope, float distance, int m, int half,
                           Accumulator<kRowFragments, kFragments>& s) {
  for_scores(s, m, half, [&](float& x, int key) {
    x -= slope * alibi_distance(distance, static_cast<float>(key));
  });
}

template <int kRowFragments, int kFragments>
PTX_FN void mask_by_rule(const Mask& mask, const WarpTile& tile, int64_t query, int m, int half,
                         Accumulator<kRowFragments, kFragments>& s) {
  const int64_t first = tile.keys.begin + fragment_column(tile.lane);
  const Window window = window_of(visible_keys(mask, query), first, 8 * kFragments);
  for_scores(s, m, half, [&](float& x, int key) {
    if (!window.has(key)) x = negative_infinity();
  });
}

template <int kRowFragments, int kFragments>
PTX_FN void mask_scores(const Group& g, const WarpTile& tile,
                        Accumulator<kRowFragments, kFragments>& s) {
#pragma unroll
  for (int m = 0; m < kRowFragments; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half)
      mask_by_rule(g.mask, tile, position_of(g, row_of(g, tile, m, half)).query, m, half, s);
}

template <int kRowFragments, int kFragments>
PTX_FN void mask_by_tensor(const TensorView& mask, const Group& g, const WarpTile& tile,
                           Position at, int m, int half,
                           Accumulator<kRowFragments, kFragments>& s) {
  const int64_t first = tile.keys.begin + fragment_column(tile.lane);
  const auto* row =
      static_cast<const uint8_t*>(mask.data) + dense_offset(g, mask, at) + first * mask.strides[3];
  const int count = static_cast<int>(tile.keys.end - first);
  for_scores(s, m, half, [&](float& x, int key) {
    if (key < count && row[key * mask.strides[3]] == 0) x = negative_infinity();
  });
}

// s: products of q and k -> of the two divided by their norms, whose inverses lie in shared memory.
template <int kRowFragments, int kFragments>
PTX_FN void normalise_scores(uint32_t norms_q, uint32_t norms_k, int warp_row, int lane,
                             Accumulator<kRowFragments, kFragments>& s) {
#pragma unroll
  for (int j = 0; j < kFragments; ++j) {
    const auto key = static_cast<uint32_t>(8 * j + fragment_column(lane));
    const float2 inverse_k = ptx::ld_shared<float2>(norms_k + 4 * key);
#pragma unroll
    for (int m = 0; m < kRowFragments; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const auto row = static_cast<uint32_t>(warp_row + 16 * m + fragment_row(lane, half));
        const float inverse_q = ptx::ld_shared<float>(norms_q + 4 * row);
        s[m][j][2 * half] *= inverse_q * inverse_k.x;
        s[m][j][2 * half + 1] *= inverse_q * inverse_k.y;
      }
  }
}

// Whether scores are scaled one by one: where something is added to them before their maximum is
// taken, or a scale that is not positive would turn it around.
PTX_FN bool scales_scores(const Problem& p, const Group& g) {
  if (p.softcap > 0 || is_present(p.bias) || p.alibi_slopes) return true;
  for (int64_t i = 0; i < p.group_size; ++i)
    if (!(p.scale[g.head_kv * p.group_size + i] > 0)) return true;
  return false;
}

// s: raw products in; out, scores to base 2 where `is_scaled`, else relative to their scale and
// masked only. `scale`: to base 2, one a row; what is left of it to multiply by.
template <int kRowFragments, int kFragments>
PTX_FN void modify_scores(const Problem& p, const Group& g, const WarpTile& tile, bool is_scaled,
                          float (&scale)[kRowFragments][2],
                          Accumulator<kRowFragments, kFragments>& s) {
  const bool is_partial = tile.kind == TileKind::kPartial;
  if (!is_scaled && !is_partial && !is_present(p.mask)) return;
  const int64_t first = tile.keys.begin + fragment_column(tile.lane);
#pragma unroll
  for (int m = 0; m < kRowFragments; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Position at = position_of(g, row_of(g, tile, m, half));
      if (is_scaled) {
        for_scores(s, m, half, [&](float& x, int) { x *= scale[m][half]; });
        if (p.softcap > 0) apply_softcap(effective_cap<float>(p.softcap * kLog2E), m, half, s);
        if (is_present(p.bias)) add_bias(p.bias, g, tile, at, m, half, s);
        if (p.alibi_slopes)
          subtract_alibi(alibi_slope<float>(p, g, at.head),
                         static_cast<float>(at.query + g.mask.diagonal - first), m, half, s);
        scale[m][half] = 1;
      }
      if (is_partial) mask_by_rule(g.mask, tile, at.query, m, half, s);
      if (is_present(p.mask)) mask_by_tensor(p.mask, g, tile, at, m, half, s);
    }
  }
}

}  // namespace attnext::cuda::mma
