// Which rows and keys each sequence of a call has, and where its diagonal lies.
#include <algorithm>

#include "attention/elements.h"
#include "attention/error.h"
#include "attention/tensor_rules.h"
#include "attention/validate.h"

namespace attnext {
namespace {

// Positions this far out still leave room for window sides in 64 bits.
constexpr int64_t kMaxOffset = int64_t{1} << 40;

int64_t entry(const TensorView& t, int64_t index) {
  return read_integer(t, t.ndim == 0 ? 0 : index * t.strides[0]);
}

int64_t length_at(const char* name, const TensorView& lengths, int64_t sequence, int64_t available,
                  const char* owner) {
  if (!is_present(lengths)) return available;
  const int64_t length = entry(lengths, sequence);
  require(length >= 0 && length <= available, name, " must be in [0, ", owner, " ", available,
          "], found ", length, " at index ", sequence);
  return length;
}

// The first and the last offset are checked once, by check_offsets.
Span packed_span(const char* name, const TensorView& offsets, int64_t sequence) {
  const Span span{entry(offsets, sequence), entry(offsets, sequence + 1)};
  require(span.end >= span.begin, name, " must not decrease, found ", span.end, " after ",
          span.begin, " at index ", sequence + 1);
  return span;
}

void check_offsets(const char* name, const TensorView& offsets, int64_t total, const char* owner) {
  const int64_t first = entry(offsets, 0), last = entry(offsets, offsets.shape[0] - 1);
  require(first == 0, name, " must start with 0, found ", first);
  require(last == total, name, " must end with ", owner, " ", total, ", found ", last);
}

void check_pages(const TensorView& block_table, int64_t sequence, int64_t num_used,
                 int64_t num_pages) {
  for (int64_t i = 0; i < num_used; ++i) {
    const int64_t page =
        read_integer(block_table, sequence * block_table.strides[0] + i * block_table.strides[1]);
    require(page >= 0 && page < num_pages, "block_table must hold pages of [0, num_pages ",
            num_pages, ") in the first ceil(kv_length / page_size) entries of a row, found ", page,
            " at (", sequence, ", ", i, ")");
  }
}

int64_t diagonal_at(const attnext_options& options, int64_t sequence, int64_t len_q,
                    int64_t len_k) {
  if (!is_present(options.q_offset)) {
    return options.causal == ATTNEXT_TOP_LEFT ? 0 : len_k - len_q;
  }
  const int64_t offset = entry(options.q_offset, sequence);
  require(offset >= -kMaxOffset && offset <= kMaxOffset,
          "q_offset must be within 2^40 of 0, found ", offset, " at index ", sequence);
  return offset;
}

struct Sides {
  int64_t left, right;
};

Sides resolve_sides(const attnext_options& options) {
  require(options.causal >= ATTNEXT_NOT_CAUSAL && options.causal <= ATTNEXT_TOP_LEFT,
          "causal must be a code from 0 to 2, found ", options.causal);
  const auto side = [](const char* name, int64_t width) {
    require(width >= -1, name, " must be at least 0, or -1 for open, found ", width);
    return width < 0 ? kOpen : std::min(width, kOpen);
  };
  const Sides window{side("window_left", options.window_left),
                     side("window_right", options.window_right)};
  return {window.left, options.causal == ATTNEXT_NOT_CAUSAL ? window.right : 0};
}

void check_sequence_shapes(const attnext_options& o, const Problem& p) {
  if (is_present(o.q_offset) && o.q_offset.ndim > 0) {
    require_shape("q_offset", o.q_offset, "() or (batch,)", {p.batch});
  }
  if (is_present(o.q_lengths)) require_shape("q_lengths", o.q_lengths, "(batch,)", {p.batch});
  if (is_present(o.kv_lengths)) require_shape("kv_lengths", o.kv_lengths, "(batch,)", {p.batch});
  if (p.page_size > 0) {
    require_shape("block_table", o.block_table, "(batch, max_pages)",
                  {p.batch, o.block_table.shape[1]});
  }
  if (!p.is_packed) return;
  require_shape("cu_seqlens_k", o.cu_seqlens_k, "(num_sequences + 1,)", {p.batch + 1});
  check_offsets("cu_seqlens_q", o.cu_seqlens_q, p.q.shape[2], "q's total_q");
  check_offsets("cu_seqlens_k", o.cu_seqlens_k, p.k.shape[2], "k's total_k");
}

Sequence resolve_sequence(const attnext_options& o, const Problem& p, Sides sides,
                          int64_t sequence) {
  Span rows{0, 0}, keys{0, 0};
  if (p.is_packed) {
    rows = packed_span("cu_seqlens_q", o.cu_seqlens_q, sequence);
    keys = packed_span("cu_seqlens_k", o.cu_seqlens_k, sequence);
  } else {
    rows.end = length_at("q_lengths", o.q_lengths, sequence, p.q.shape[2], "seqlen_q");
    keys.end = length_at("kv_lengths", o.kv_lengths, sequence, available_keys(o, p),
                         p.page_size > 0 ? "max_pages * page_size" : "seqlen_k");
  }
  if (p.page_size > 0) {
    check_pages(o.block_table, sequence, divide_up(keys.end, p.page_size), p.k.shape[0]);
  }
  const int64_t len_q = rows.end - rows.begin, len_k = keys.end - keys.begin;
  const int64_t diagonal = diagonal_at(o, sequence, len_q, len_k);
  return {rows.begin, keys.begin, {len_q, len_k, diagonal, sides.left, sides.right}};
}

}  // namespace

int64_t available_keys(const attnext_options& options, const Problem& p) {
  if (p.page_size == 0) return p.k.shape[2];
  int64_t keys = 0;
  const bool overflows = __builtin_mul_overflow(options.block_table.shape[1], p.page_size, &keys);
  return overflows ? kMaxOffset : std::min(keys, kMaxOffset);
}

void check_sequence_ranks(const attnext_options& o) {
  if (is_present(o.cu_seqlens_q)) {
    require(o.cu_seqlens_q.ndim == 1 && o.cu_seqlens_q.shape[0] > 0,
            "cu_seqlens_q must have shape (num_sequences + 1,), found ", shape_of(o.cu_seqlens_q));
  }
  if (is_present(o.block_table)) {
    require(o.block_table.ndim == 2, "block_table must have axes (batch, max_pages), found shape ",
            shape_of(o.block_table));
  }
}

std::vector<Sequence> resolve_sequences(const attnext_options& o, const Problem& p) {
  check_sequence_shapes(o, p);
  const Sides sides = resolve_sides(o);
  // An empty problem may claim any batch without having memory for it.
  const bool has_entries =
      p.is_packed || is_present(o.q_offset) || is_present(o.q_lengths) || is_present(o.kv_lengths);
  if (is_empty(p) && !has_entries) return {};
  std::vector<Sequence> sequences(static_cast<size_t>(p.batch));
  for (int64_t i = 0; i < p.batch; ++i) sequences[i] = resolve_sequence(o, p, sides, i);
  return sequences;
}

}  // namespace attnext
