/* How a C program calls attnext: causal attention of two query heads that share one key head,
 * forward and backward, checked against the formula written out. Exits with 1 where they differ. */
#include <attnext/attnext.h>
#include <stdio.h>
#include <stdlib.h>

enum { kHeads = 2, kSeqlen = 7, kDim = 5 };

static float q[kHeads][kSeqlen][kDim], k[kSeqlen][kDim], v[kSeqlen][kDim],
    dout[kHeads][kSeqlen][kDim];
static float out[kHeads][kSeqlen][kDim], lse[kHeads][kSeqlen];
static float dq[kHeads][kSeqlen][kDim], dk[kSeqlen][kDim], dv[kSeqlen][kDim];
static float expected_out[kHeads][kSeqlen][kDim];
static float expected_dq[kHeads][kSeqlen][kDim], expected_dk[kSeqlen][kDim];
static float expected_dv[kSeqlen][kDim];

/* A contiguous array seen as [1, heads, seqlen, dim]; without its last axis where dim is 0. */
static attnext_tensor tensor(void* data, int64_t heads, int64_t seqlen, int64_t dim) {
  const int64_t row = dim ? dim : 1;
  attnext_tensor t = {0};
  t.data = data;
  t.dtype = ATTNEXT_FLOAT32;
  t.ndim = dim ? 4 : 3;
  t.shape[0] = 1, t.shape[1] = heads, t.shape[2] = seqlen, t.shape[3] = dim;
  t.strides[0] = heads * seqlen * row, t.strides[1] = seqlen * row, t.strides[2] = row;
  t.strides[3] = 1;
  return t;
}

static void fill(void* data, size_t bytes) {
  float* x = (float*)data;
  for (size_t i = 0; i < bytes / sizeof(float); ++i) x[i] = (float)rand() / (float)RAND_MAX - 0.5f;
}

static double dot(const float* a, const float* b) {
  double sum = 0;
  for (int d = 0; d < kDim; ++d) sum += (double)a[d] * b[d];
  return sum;
}

/* One row of softmax(q k^T / sqrt(dim)) over the keys at or before query i. */
static void weights(int h, int i, double* p) {
  double sum = 0;
  for (int j = 0; j <= i; ++j) sum += p[j] = exp(dot(q[h][i], k[j]) / sqrt(kDim));
  for (int j = 0; j <= i; ++j) p[j] /= sum;
}

static void naive_row(int h, int i) {
  double p[kSeqlen], dp[kSeqlen], delta = 0;
  weights(h, i, p);
  for (int j = 0; j <= i; ++j) {
    dp[j] = dot(dout[h][i], v[j]);
    delta += p[j] * dp[j];
  }
  for (int j = 0; j <= i; ++j) {
    const double ds = p[j] * (dp[j] - delta) / sqrt(kDim);
    for (int d = 0; d < kDim; ++d) {
      expected_out[h][i][d] += (float)(p[j] * v[j][d]);
      expected_dq[h][i][d] += (float)(ds * k[j][d]);
      expected_dk[j][d] += (float)(ds * q[h][i][d]);
      expected_dv[j][d] += (float)(p[j] * dout[h][i][d]);
    }
  }
}

static int differs(const char* name, const void* found, const void* expected, size_t bytes) {
  const float *a = (const float*)found, *b = (const float*)expected;
  for (size_t i = 0; i < bytes / sizeof(float); ++i) {
    if (fabs((double)a[i] - b[i]) <= 1e-5) continue; /* NaN differs too */
    fprintf(stderr, "%s[%zu]: expected %g, found %g\n", name, i, b[i], a[i]);
    return 1;
  }
  return 0;
}

static int failed(attnext_status status) {
  if (status != ATTNEXT_OK) fprintf(stderr, "%s\n", attnext_last_error());
  return status != ATTNEXT_OK;
}

static int run_attnext(void) {
  const attnext_tensor tq = tensor(q, kHeads, kSeqlen, kDim), tk = tensor(k, 1, kSeqlen, kDim);
  const attnext_tensor tv = tensor(v, 1, kSeqlen, kDim),
                       tdout = tensor(dout, kHeads, kSeqlen, kDim);
  const attnext_tensor tout = tensor(out, kHeads, kSeqlen, kDim),
                       tlse = tensor(lse, kHeads, kSeqlen, 0);
  attnext_options options;
  attnext_gradients gradients;

  attnext_options_init(&options);
  options.causal = ATTNEXT_BOTTOM_RIGHT;
  attnext_gradients_init(&gradients);
  gradients.dq = tensor(dq, kHeads, kSeqlen, kDim);
  gradients.dk = tensor(dk, 1, kSeqlen, kDim);
  gradients.dv = tensor(dv, 1, kSeqlen, kDim);
  return failed(attnext_forward(&tq, &tk, &tv, &options, &tout, &tlse)) ||
         failed(attnext_backward(&tdout, &tq, &tk, &tv, &tout, &tlse, NULL, &options, &gradients));
}

int main(void) {
  fill(q, sizeof q), fill(k, sizeof k), fill(v, sizeof v), fill(dout, sizeof dout);
  if (run_attnext()) return 1;
  for (int h = 0; h < kHeads; ++h)
    for (int i = 0; i < kSeqlen; ++i) naive_row(h, i);
  if (differs("out", out, expected_out, sizeof out) || differs("dq", dq, expected_dq, sizeof dq) ||
      differs("dk", dk, expected_dk, sizeof dk) || differs("dv", dv, expected_dv, sizeof dv))
    return 1;
  printf("attnext %s on %s agrees with the formula\n", attnext_version(), attnext_isa());
  return 0;
}
