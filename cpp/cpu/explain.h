// What forward would do with a problem, in words and numbers: JSON fields for attnext_explain.
#pragma once

#include <stdarg.h>
#include <stdio.h>

#include "cpu/dispatch.h"
#include "cpu/forward.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// As much of a text as fits; `size` is that of all of it.
struct Text {
  char* begin;
  int capacity, size;
};

__attribute__((format(printf, 2, 3))) static void append(Text* text, const char* format, ...) {
  const int room = text->size < text->capacity ? text->capacity - text->size : 0;
  va_list values;
  va_start(values, format);
  text->size += vsnprintf(room > 0 ? text->begin + text->size : nullptr, static_cast<size_t>(room),
                          format, values);
  va_end(values);
}

// The pieces of all sequences, and the longest of them.
struct Pieces {
  ForwardPlan plan;
  int64_t splits, most_rows, most_keys;
};

template <class A>
static Pieces count_pieces(const Problem& p) {
  Pieces pieces = {plan_forward<A>(p, nullptr), 1, 0, 0};
  for (int64_t i = 0; i < p.batch; ++i) {
    const Mask& m = p.sequences[i].mask;
    pieces.splits = max_of(pieces.splits, num_splits_of<A>(p, i));
    pieces.most_rows = max_of(pieces.most_rows, m.seqlen_q * p.group_size);
    pieces.most_keys = max_of(pieces.most_keys, m.seqlen_k);
  }
  return pieces;
}

// Whether the longest sequence is worked on as few rows are.
template <class A>
ATTNEXT_HD bool is_few(const Problem& p, const Pieces& pieces) {
  return pieces.most_rows <= kFewRows<A> &&
         with_term(p, [](auto term) { return decltype(term)::kIsBilinear; });
}

// Which of the ways of multiplying the longest sequence takes, and why none of the faster ones.
template <class A>
static void explain_path(const Problem& p, const Pieces& pieces, Text* text) {
  const auto rows = static_cast<long long>(pieces.most_rows);
  const DType dtype = dtype_of(p.q);
  if (is_few<A>(p, pieces))
    return append(text,
                  "\"path\": \"lanes are head dimensions\", \"path_why\": \"%lld rows (queries "
                  "times heads of a group) to a key head, at most %d\"",
                  rows, kFewRows<A>);
  if (is_paired(p))
    return append(text,
                  "\"path\": \"lanes are queries, bfloat16 multiplied in pairs\", \"path_why\": "
                  "\"bfloat16, a dot product, and an instruction for it\"");
  append(text, "\"path\": \"lanes are queries\", \"path_why\": \"");
  if (pieces.most_rows > kFewRows<A>)
    append(text, "%lld rows (queries times heads of a group) to a key head, more than %d", rows,
           kFewRows<A>);
  else
    append(text, "a score of differences or sums is computed for queries side by side");
  if (dtype == DType::kBFloat16 && kHasPairs)
    append(text, "; widened to float32: only dot products are multiplied in pairs");
  else if (dtype == DType::kBFloat16)
    append(text, "; widened to float32: %s has no bfloat16 products", ATTNEXT_TEXT(ATTNEXT_ISA));
  else if (dtype == DType::kFloat16)
    append(text, "; widened to float32: no float16 products are used");
  append(text, "\"");
}

// Whether keys are multiplied where the caller has them: few rows convert them on their way to
// registers, pairs are read as they lie.
template <class A>
ATTNEXT_HD bool reads_keys_in_place(const Problem& p, const Pieces& pieces) {
  const bool is_contiguous = p.k.strides[3] == 1;
  if (p.score == Score::kCosine || p.page_size > 0) return false;
  if (is_few<A>(p, pieces))
    return is_contiguous && p.v.strides[3] == 1 && p.head_dim % kLanes<A> == 0 &&
           p.head_dim_v % kLanes<A> == 0;
  if (is_paired(p)) return is_contiguous && p.head_dim % 2 == 0 && p.k.strides[2] % 2 == 0;
  return is_readable_in_place<A>(p, p.k, p.head_dim);
}

// How work is shared out.
template <class A>
static void explain_work(const Problem& p, const Pieces& pieces, Text* text) {
  const ForwardPlan& plan = pieces.plan;
  const char* const workers_why = plan.workers == get_num_threads() ? "all threads"
                                  : plan.workers == plan.num_blocks
                                      ? "one an item"
                                      : "too little work to wake more";
  append(text,
         ", \"items\": %lld, \"key_splits\": %lld, \"split_why\": \"%s\", \"workers\": %d, "
         "\"workers_why\": \"%s\"",
         static_cast<long long>(plan.num_blocks), static_cast<long long>(pieces.splits),
         pieces.splits > 1                   ? "few queries: their keys are shared out"
         : pieces.most_rows > kPanelLanes<A> ? "there are enough queries to share out"
                                             : "too few keys to share out",
         plan.workers, workers_why);
  Arena scratch{nullptr, 0};
  carve_forward<A>(p, &scratch);
  const int64_t table = static_cast<int64_t>(sizeof(ForwardBlock)) * plan.num_blocks;
  append(text, ", \"workspace_bytes\": %lld",
         static_cast<long long>(table + scratch.used * plan.workers +
                                split_bytes<A>(p) * plan.num_states));
}

// What a tile is, in registers and in memory.
template <class A>
static void explain_tile(const Problem& p, const Pieces& pieces, Text* text) {
  const bool is_double = sizeof(A) == 8;
  append(text, ", \"accumulator\": \"%s\", \"lanes\": %d", is_double ? "float64" : "float32",
         kLanes<A>);
  with_term(p, [&](auto term) {
    using Term = decltype(term);
    append(text, ", \"product\": \"%s\"",
           Term::kHasWeight    ? "additive"
           : Term::kIsBilinear ? "dot"
                               : "squared difference");
    if (!is_few<A>(p, pieces))
      append(text, ", \"register_tile\": \"%d keys x %d vectors\", \"tile_q\": %d",
             kScoreRows<Term>, kPanelVectors, static_cast<int>(pieces.plan.most_rows));
  });
  append(text, ", \"tile_k\": %d, \"keys\": \"%s\"", kTileK,
         reads_keys_in_place<A>(p, pieces)
             ? "read in place"
             : "copied tile by tile (converted, strided, padded, paged or normalised)");
}

template <class A>
static int run_explain(const Problem& p, char* out, int capacity) {
  Text text = {out, capacity, 0};
  const Pieces pieces = count_pieces<A>(p);
  explain_path<A>(p, pieces, &text);
  explain_tile<A>(p, pieces, &text);
  explain_work<A>(p, pieces, &text);
  return text.size;
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
