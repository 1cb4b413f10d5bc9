/* What an embedder includes: attnext's C interface. Pointers, shapes, strides in; status codes out.
 * No exceptions cross it, nothing prints, nothing aborts.
 *
 * Every tensor is described in one axis order, whatever its memory order is (strides decide,
 * nothing is copied):
 *
 * - q, out, dout, dq: [batch, num_heads_q, seqlen_q, head_dim or head_dim_v]
 * - k, v, dk, dv: [batch, num_heads_kv, seqlen_k, head_dim or head_dim_v]
 * - lse, dlse: [batch, num_heads_q, seqlen_q], natural logarithm, float32 (float64 for float64)
 * - mask, bias, dbias: broadcastable to [batch, num_heads_q, seqlen_q, seqlen_k], axes aligned at
 *   the right
 *
 * All of the first two kinds share q's dtype; for float16 and bfloat16 `out` alone may be float32
 * instead, in forward, which then does not round it, and in backward, whose gradients are then
 * more exact.
 *
 * With cu_seqlens_q and cu_seqlens_k the sequences lie one after another and `batch` of the tensors
 * is 1: q [1, num_heads_q, total_q, head_dim], lse [1, num_heads_q, total_q]. mask and bias are
 * then broadcastable to [num_sequences, num_heads_q, longest_q, longest_k].
 *
 * With block_table, k and v are pages: [num_pages, num_heads_kv, page_size, head_dim]. seqlen_k of
 * mask and bias is then the longest of kv_lengths, or max_pages * page_size.
 */
#ifndef ATTNEXT_ATTNEXT_H_
#define ATTNEXT_ATTNEXT_H_

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ATTNEXT_VERSION "0.1.0"

#if defined(_WIN32)
#define ATTNEXT_API __declspec(dllexport)
#else
#define ATTNEXT_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum attnext_status {
  ATTNEXT_OK = 0,
  ATTNEXT_VALUE_ERROR = 1,     /* a shape or a value breaks a rule */
  ATTNEXT_TYPE_ERROR = 2,      /* a dtype breaks a rule */
  ATTNEXT_NOT_IMPLEMENTED = 3, /* a combination this back end lacks */
  ATTNEXT_RUNTIME_ERROR = 4,   /* a device failed */
  ATTNEXT_OUT_OF_MEMORY = 5
} attnext_status;

typedef enum attnext_dtype {
  ATTNEXT_ABSENT = 0, /* a zero-initialised tensor is one that was not given */
  ATTNEXT_FLOAT64 = 1,
  ATTNEXT_FLOAT32 = 2,
  ATTNEXT_FLOAT16 = 3,
  ATTNEXT_BFLOAT16 = 4,
  ATTNEXT_BOOL = 5, /* one byte, 0 or not 0 */
  ATTNEXT_INT32 = 6,
  ATTNEXT_INT64 = 7
} attnext_dtype;

typedef enum attnext_score {
  ATTNEXT_DOT = 0,       /* q.k */
  ATTNEXT_COSINE = 1,    /* q.k / (|q| |k|); scale is required */
  ATTNEXT_NEG_L2 = 2,    /* -|q - k| */
  ATTNEXT_NEG_SQ_L2 = 3, /* -|q - k|^2 */
  ATTNEXT_ADDITIVE = 4   /* sum_d weight_d tanh(q_d + k_d + score_bias_d) */
} attnext_score;

typedef enum attnext_causal {
  ATTNEXT_NOT_CAUSAL = 0,
  ATTNEXT_BOTTOM_RIGHT = 1, /* the last query sees the last key */
  ATTNEXT_TOP_LEFT = 2      /* the first query sees the first key */
} attnext_causal;

/* Who computes. */
typedef enum attnext_backend {
  ATTNEXT_AUTO = 0, /* the CPU for host memory, CUDA for CUDA memory */
  ATTNEXT_CPU = 1,
  ATTNEXT_CUDA = 2,
  ATTNEXT_CUDA_EMULATED = 3 /* the CUDA kernels on the CPU, for debugging; a build option */
} attnext_backend;

/* Where tensors lie. Of a call in CUDA memory the small options stay in host memory: all but `mask`
 * and `bias`; so does `rows`. Every gradient is in CUDA memory. */
typedef enum attnext_memory { ATTNEXT_HOST_MEMORY = 0, ATTNEXT_CUDA_MEMORY = 1 } attnext_memory;

typedef struct attnext_tensor {
  void* data;       /* element [0, 0, ..]; NULL only where a tensor is absent or has no elements */
  int64_t shape[4]; /* the first ndim entries count */
  int64_t strides[4]; /* in elements; negative and 0 are fine for inputs */
  int32_t ndim;       /* 0 to 4 */
  int32_t dtype;      /* attnext_dtype */
} attnext_tensor;

/* Options of a call. Set up with attnext_options_init, then change what you need. `struct_size`
 * versions the struct: fields are only ever appended, and a library newer than its caller reads no
 * field beyond the caller's size. */
typedef struct attnext_options {
  size_t struct_size;
  int32_t score;        /* attnext_score */
  int32_t causal;       /* attnext_causal */
  double scale;         /* NaN: 1/sqrt(head_dim) for dot, 1 for the others, an error for cosine */
  double softcap;       /* c tanh(s/c); 0 is off */
  int64_t window_left;  /* keys visible to the left of the diagonal, inclusive; -1 open */
  int64_t window_right; /* likewise to the right */
  double dropout;       /* probability in [0, 1] */
  uint64_t seed;        /* Philox key */
  uint32_t dropout_stream; /* the last word of the Philox counter; independent masks for one seed */
  int32_t deterministic;   /* reserved: every pass is deterministic, whatever it says */
  attnext_tensor scale_per_head; /* (num_heads_q), any float dtype; wins over `scale` */
  attnext_tensor q_offset;     /* () or (batch), int32 or int64: key position of the first query */
  attnext_tensor mask;         /* bool, true: may attend */
  attnext_tensor bias;         /* any float dtype, added to the score */
  attnext_tensor alibi_slopes; /* (num_heads_q) or (batch, num_heads_q), any float dtype */
  attnext_tensor sinks;        /* (num_heads_q), any float dtype */
  attnext_tensor weight;     /* additive: (head_dim) or (num_heads_q, head_dim), any float dtype */
  attnext_tensor score_bias; /* additive: likewise, optional */
  attnext_tensor q_lengths;  /* (batch), int32 or int64: rows of q that exist */
  attnext_tensor kv_lengths; /* (batch), int32 or int64: keys that exist */
  attnext_tensor cu_seqlens_q; /* (num_sequences + 1), int32 or int64 */
  attnext_tensor cu_seqlens_k; /* likewise */
  attnext_tensor block_table;  /* (batch, max_pages), int32 or int64; needs kv_lengths */
  int32_t backend;             /* attnext_backend; host memory is staged through a CUDA device */
  int32_t memory;              /* attnext_memory: where the tensors of the call lie */
  int32_t device;              /* CUDA device number */
  int32_t reserved;
  void* stream; /* cudaStream_t of a call in CUDA memory, which is queued there and not waited for;
                   NULL: the legacy default stream */
} attnext_options;

/* Gradients wanted of attnext_backward: those present are computed, each in the shape of what it
 * belongs to; dq, dk, dv in q's dtype, the others in any float dtype. Overlapping elements (stride
 * 0) are an error. */
typedef struct attnext_gradients {
  size_t struct_size;
  attnext_tensor dq, dk, dv;
  attnext_tensor dbias, dalibi_slopes, dsinks, dscale, dweight, dscore_bias;
} attnext_gradients;

static inline void attnext_options_init(attnext_options* options) {
  memset(options, 0, sizeof(*options));
  options->struct_size = sizeof(*options);
  options->scale = NAN;
  options->window_left = options->window_right = -1;
  options->deterministic = 1;
}

static inline void attnext_gradients_init(attnext_gradients* gradients) {
  memset(gradients, 0, sizeof(*gradients));
  gradients->struct_size = sizeof(*gradients);
}

ATTNEXT_API const char* attnext_version(void);

/* The message of this thread's last failed call: "attention: k must have q's head_dim 64, found
 * 32". */
ATTNEXT_API const char* attnext_last_error(void);

/* out = softmax(scores) v; lse may be NULL or absent. */
ATTNEXT_API attnext_status attnext_forward(const attnext_tensor* q, const attnext_tensor* k,
                                           const attnext_tensor* v, const attnext_options* options,
                                           const attnext_tensor* out, const attnext_tensor* lse);

/* Gradients of attnext_forward from its inputs, its out and its lse; dlse (the gradient of lse) may
 * be NULL. */
ATTNEXT_API attnext_status attnext_backward(const attnext_tensor* dout, const attnext_tensor* q,
                                            const attnext_tensor* k, const attnext_tensor* v,
                                            const attnext_tensor* out, const attnext_tensor* lse,
                                            const attnext_tensor* dlse,
                                            const attnext_options* options,
                                            const attnext_gradients* gradients);

/* p [batch, num_heads_q, num_rows, seqlen_k], any float dtype, of the query rows named in `rows`
 * (int32 or int64, in any order; NULL or absent: all). Dropout is not applied. Packed: [1,
 * num_heads_q, num_rows, longest seqlen_k], 0 beyond a sequence's keys, and rows count along
 * total_q.
 */
ATTNEXT_API attnext_status attnext_weights(const attnext_tensor* q, const attnext_tensor* k,
                                           const attnext_options* options,
                                           const attnext_tensor* rows, const attnext_tensor* p);

/* Per query row lse, row_max (of the final score), entropy (nats) [batch, num_heads_q, seqlen_q];
 * per key key_mass = sum over queries of p [batch, num_heads_q, seqlen_k]. float32 (float64 for
 * float64). Any may be NULL. O(seqlen) memory. Packed: [1, num_heads_q, total_q] and [1,
 * num_heads_q, total_k]. */
ATTNEXT_API attnext_status attnext_stats(const attnext_tensor* q, const attnext_tensor* k,
                                         const attnext_options* options, const attnext_tensor* lse,
                                         const attnext_tensor* row_max,
                                         const attnext_tensor* entropy,
                                         const attnext_tensor* key_mass);

/* Joins partial results over disjoint key sets: outs[i] [.., head_dim_v], lses[i] [..], 4 and 3
 * axes. */
ATTNEXT_API attnext_status attnext_merge(const attnext_tensor* outs, const attnext_tensor* lses,
                                         int64_t count, const attnext_tensor* out,
                                         const attnext_tensor* lse);

/* Likewise where `options` says: backend, memory, device and stream count, nothing else. */
ATTNEXT_API attnext_status attnext_merge_on(const attnext_options* options,
                                            const attnext_tensor* outs, const attnext_tensor* lses,
                                            int64_t count, const attnext_tensor* out,
                                            const attnext_tensor* lse);

/* keep [batch, num_heads_q, seqlen_q, seqlen_k], bool, contiguous: the mask the kernels use. */
ATTNEXT_API attnext_status attnext_dropout_mask(const int64_t shape[4], double dropout,
                                                uint64_t seed, uint32_t dropout_stream,
                                                uint8_t* keep);

/* Likewise where `options` says: dropout, seed, dropout_stream, backend, memory, device and stream
 * count, nothing else. */
ATTNEXT_API attnext_status attnext_dropout_mask_on(const attnext_options* options,
                                                   const int64_t shape[4], uint8_t* keep);

/* A JSON object saying which kernel attnext_forward would run and why. Writes at most `capacity`
 * bytes, NUL included, and the size needed into `*size`; with capacity 0 and `size` NULL the call
 * is only checked. */
ATTNEXT_API attnext_status attnext_explain(const attnext_tensor* q, const attnext_tensor* k,
                                           const attnext_tensor* v, const attnext_options* options,
                                           char* text, size_t capacity, size_t* size);

/* ATTNEXT_OK where an attnext_backend can run here. In either case a sentence on what there is, or
 * why it is not there and what would cure it, is written as attnext_explain writes. Loads the CUDA
 * plug-in, which nothing but a call for it does otherwise. */
ATTNEXT_API attnext_status attnext_backend_status(int32_t backend, char* text, size_t capacity,
                                                  size_t* size);

/* Memory of a CUDA device, for those who have no library of their own for it. `backend` is
 * ATTNEXT_CUDA or ATTNEXT_CUDA_EMULATED. */
ATTNEXT_API attnext_status attnext_device_allocate(int32_t backend, int32_t device, size_t bytes,
                                                   void** memory);
ATTNEXT_API attnext_status attnext_device_free(int32_t backend, int32_t device, void* memory);
/* Copies in either direction, found out from the addresses, and waits for what `stream` holds. */
ATTNEXT_API attnext_status attnext_device_copy(int32_t backend, int32_t device, void* stream,
                                               void* target, const void* source, size_t bytes);

/* Host memory for results, uninitialised, 64-byte aligned. What is freed is kept for the next
 * result or a pass's scratch memory, up to 64 MiB and 4 MiB for each thread: pages need not be
 * faulted in again then. */
ATTNEXT_API attnext_status attnext_host_allocate(size_t bytes, void** memory);
ATTNEXT_API void attnext_host_free(void* memory); /* NULL: nothing */

/* The instruction set in use, and the table of those in this build, best first; NULL past its end.
 */
ATTNEXT_API const char* attnext_isa(void);
ATTNEXT_API const char* attnext_isa_name(int index);
ATTNEXT_API int attnext_isa_supported(int index); /* by this machine */

ATTNEXT_API void attnext_set_num_threads(int count); /* < 1: the default again */
ATTNEXT_API int attnext_get_num_threads(void);

/* How CUDA multiplies float32. EXACT: every product and sum in float32. FAST: where there are
 * kernels for it (compute capability 8.0, scores dot and cosine, head_dim to 128), a product is
 * made from three of tf32 on matrix units, about as accurate. For all later calls of the process;
 * everything else is computed as it always is. */
typedef enum attnext_precision { ATTNEXT_EXACT = 0, ATTNEXT_FAST = 1 } attnext_precision;
ATTNEXT_API attnext_status attnext_set_float32_precision(int32_t precision);
ATTNEXT_API int32_t attnext_get_float32_precision(void);

/* Runs attnext's work on an executor of yours: call body(argument, worker) for every worker in [0,
 * num_workers), in any order, one after another or at once, and return when all have returned.
 * NULL: attnext's own threads again. */
typedef void (*attnext_body)(void* argument, int worker);
typedef void (*attnext_parallel_for)(void* context, int num_workers, attnext_body body,
                                     void* argument);
ATTNEXT_API void attnext_set_parallel_for(attnext_parallel_for run, void* context);

/* Runs the work of the calling thread's later calls on the threads of an OpenMP runtime that is in
 * the process anyway, beside those of its own regions: `region` is its GOMP_parallel, which the
 * runtimes of GCC, LLVM and Intel have. NULL: attnext's own threads again, as in a child process
 * after fork. An executor given to attnext_set_parallel_for goes before. */
typedef void (*attnext_openmp_region)(void (*work)(void*), void* argument, unsigned num_threads,
                                      unsigned flags);
ATTNEXT_API void attnext_share_openmp(attnext_openmp_region region);
ATTNEXT_API int attnext_shares_openmp(void); /* whether the calling thread does */

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* ATTNEXT_ATTNEXT_H_ */
