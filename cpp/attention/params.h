// What a pass is asked to do: plain data, validated and resolved once, then passed on as it is.
#pragma once

#include "attention/dtype.h"
#include "attention/mask.h"

namespace attnext {

// Axes in the order of attnext.h; `data` is null where the tensor is absent.
using TensorView = attnext_tensor;

ATTNEXT_HD DType dtype_of(const TensorView& t) { return static_cast<DType>(t.dtype); }
ATTNEXT_HD bool is_present(const TensorView& t) { return t.dtype != ATTNEXT_ABSENT; }

enum class Score : int32_t {
  kDot = ATTNEXT_DOT,
  kCosine = ATTNEXT_COSINE,
  kNegL2 = ATTNEXT_NEG_L2,
  kNegSqL2 = ATTNEXT_NEG_SQ_L2,
  kAdditive = ATTNEXT_ADDITIVE,
};

struct Sequence {
  int64_t q_begin;  // row of q, out, lse at which this sequence starts: 0 unless packed
  int64_t k_begin;  // likewise of k and v; paged: 0
  Mask mask;
};

struct Dropout {
  double probability;  // 0: off
  uint64_t seed;
  uint32_t stream;
};

// Everything the passes share. One `Sequence` per batch entry; small per-head arrays are float64
// whatever the caller's type, so that float64 calls lose nothing.
struct Problem {
  TensorView q;   // [batch, num_heads_q,  seqlen_q, head_dim];   packed: [1, num_heads_q,  total_q,
                  // head_dim]
  TensorView k;   // [batch, num_heads_kv, seqlen_k, head_dim];   packed: [1, num_heads_kv, total_k,
                  // head_dim]
  TensorView v;   // [batch, num_heads_kv, seqlen_k, head_dim_v]; paged:  [num_pages, num_heads_kv,
                  // page_size, .]
  int64_t batch;  // sequences
  int64_t num_heads_q, num_heads_kv, group_size;
  int64_t seqlen_q, seqlen_k;  // of the longest sequence
  int64_t head_dim, head_dim_v;
  bool is_packed;
  Score score;
  double softcap;  // 0: off
  Dropout dropout;
  TensorView mask;  // [batch, num_heads_q, seqlen_q, seqlen_k], stride 0 where broadcast; bool
  TensorView bias;  // likewise; any float dtype
  TensorView block_table;      // [batch, max_pages], int32 or int64
  int64_t page_size;           // 0: not paged
  const Sequence* sequences;   // [batch]
  const double* scale;         // [num_heads_q]
  const double* alibi_slopes;  // [batch, num_heads_q] or null
  const double* sinks;         // [num_heads_q] or null
  const double* weight;        // [num_heads_q, head_dim] or null
  const double* score_bias;    // [num_heads_q, head_dim] or null
};

// No sequence has both a head and a row of queries or keys: kernels have nothing to look at.
ATTNEXT_HD bool is_empty(const Problem& p) {
  return p.batch == 0 || p.num_heads_q == 0 || (p.seqlen_q == 0 && p.seqlen_k == 0);
}

struct ForwardParams {
  Problem problem;
  TensorView out;  // [batch, num_heads_q, seqlen_q, head_dim_v]; packed as q
  TensorView lse;  // [batch, num_heads_q, seqlen_q] or absent
};

// Sums over a batch or a broadcast axis are finished by the caller from these per-(sequence, head)
// parts, in order.
struct BackwardParams {
  Problem problem;
  TensorView dout, out;   // [batch, num_heads_q, seqlen_q, head_dim_v]
  TensorView lse, dlse;   // [batch, num_heads_q, seqlen_q]; dlse may be absent
  TensorView dq, dk, dv;  // as q, k, v; absent: not wanted
  TensorView dbias;       // bias's own axes, ndim 4 (1 where bias is broadcast); absent: not wanted
  double* dalibi_slopes;  // [batch, num_heads_q] or null
  double* dsinks;         // [batch, num_heads_q] or null
  double* dscale;         // [batch, num_heads_q] or null
  double* dweight;        // [batch, num_heads_q, head_dim] or null
  double* dscore_bias;    // [batch, num_heads_q, head_dim] or null
};

struct WeightsParams {
  Problem problem;  // v is absent, head_dim_v 0
  // [num_rows]: queries of their sequences, non-decreasing within each.
  const int64_t* rows;
  const int64_t* places;  // [num_rows]: which row of p each is
  const int64_t* begins;  // [batch + 1], packed: where the rows of each sequence begin; else null
  int64_t num_rows;
  TensorView p;  // [batch, num_heads_q, num_rows, seqlen_k]; packed: [1, num_heads_q, num_rows,
                 // seqlen_k]
};

// Which of `rows` a sequence has.
ATTNEXT_HD Span chosen_rows(const WeightsParams& params, int64_t sequence) {
  if (params.begins == nullptr) return {0, params.num_rows};
  return {params.begins[sequence], params.begins[sequence + 1]};
}

struct StatsParams {
  Problem problem;                   // v is absent, head_dim_v 0
  TensorView lse, row_max, entropy;  // [batch, num_heads_q, seqlen_q], each may be absent
  TensorView key_mass;               // [batch, num_heads_q, seqlen_k], may be absent
};

}  // namespace attnext
