// What is the most this machine can do? Fused multiply-adds each second, and bytes read each
// second.
//
// No intrinsics but the one for bfloat16, which has no vector type: the compiler's vector
// extensions at the widest width of the machine. Sixteen independent sums hide the latency of the
// instruction. Usage: peak THREADS [read]; prints one line of JSON, with "read" of that rate alone.

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#ifdef __AVX512F__
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

enum { kSums = 16, kTurns = 8000000, kRepeats = 5, kMaxThreads = 1024 };
static const size_t kBytesPerThread = (size_t)256 << 20;

typedef float FloatVector __attribute__((vector_size(VECTOR_BYTES)));
typedef double DoubleVector __attribute__((vector_size(VECTOR_BYTES)));

static pthread_barrier_t start_line, finish_line;
static volatile double sink;       // what was computed must be used, or it is not computed
static volatile float one = 1.0f;  // and must not be known when compiling.
// Nor may the sums start alike: the compiler would compute one of them.

#define DEFINE_MULTIPLY_ADD(name, Vector)                                                         \
  static double name(const void* unused) {                                                        \
    (void)unused;                                                                                 \
    const Vector factor = one - (Vector){}, term = one * 1e-6f - (Vector){};                      \
    Vector sums[kSums];                                                                           \
    _Pragma("GCC unroll 16") for (int i = 0; i < kSums; ++i) sums[i] = term * (float)i;           \
    for (int turn = 0; turn < kTurns; ++turn) {                                                   \
      _Pragma("GCC unroll 16") for (int i = 0; i < kSums; ++i) sums[i] = sums[i] * factor + term; \
    }                                                                                             \
    Vector total = {};                                                                            \
    _Pragma("GCC unroll 16") for (int i = 0; i < kSums; ++i) total += sums[i];                    \
    sink = (double)total[0];                                                                      \
    return 2.0 * kTurns * kSums * (sizeof(Vector) / sizeof(total[0]));                            \
  }

DEFINE_MULTIPLY_ADD(multiply_add_float32, FloatVector)
DEFINE_MULTIPLY_ADD(multiply_add_float64, DoubleVector)

#ifdef __AVX512BF16__
static double multiply_add_bfloat16(const void* unused) {
  (void)unused;
  const __m512 ones = _mm512_set1_ps(one);
  const __m512bh factor = _mm512_cvtne2ps_pbh(ones, ones);
  __m512 sums[kSums];
#pragma GCC unroll 16
  for (int i = 0; i < kSums; ++i) sums[i] = _mm512_set1_ps(one * (float)i);
  for (int turn = 0; turn < kTurns; ++turn) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) sums[i] = _mm512_dpbf16_ps(sums[i], factor, factor);
  }
  __m512 total = _mm512_setzero_ps();
#pragma GCC unroll 16
  for (int i = 0; i < kSums; ++i) total = _mm512_add_ps(total, sums[i]);
  sink = total[0];
  return 2.0 * kTurns * kSums * 32;
}
#endif

static double read_memory(const void* memory) {
  const FloatVector* vectors = memory;
  const size_t count = kBytesPerThread / sizeof(FloatVector);
  FloatVector sums[kSums] = {};
  for (size_t at = 0; at < count; at += kSums) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) sums[i] += vectors[at + i];
  }
  FloatVector total = {};
  for (int i = 0; i < kSums; ++i) total += sums[i];
  sink = total[0];
  return (double)kBytesPerThread;
}

typedef struct {
  double (*run)(const void*);  // returns the work done
  void* memory;                // [kBytesPerThread], for read_memory
  double work;
  double begin, end;  // timed by the worker: the main thread may get no core until work is done
} Worker;

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void* repeat(void* argument) {
  Worker* worker = argument;
  for (int i = 0; i <= kRepeats; ++i) {  // the first one warms up
    pthread_barrier_wait(&start_line);
    worker->begin = now();
    worker->work = worker->run(worker->memory);
    worker->end = now();
    pthread_barrier_wait(&finish_line);
  }
  return NULL;
}

// The best rate of all threads together, in units of work each second.
static double best_rate(double (*run)(const void*), Worker* workers, int threads) {
  pthread_t handles[kMaxThreads];
  for (int i = 0; i < threads; ++i) {
    workers[i].run = run;
    pthread_create(&handles[i], NULL, repeat, &workers[i]);
  }
  double best = 0;
  for (int i = 0; i <= kRepeats; ++i) {
    pthread_barrier_wait(&start_line);
    pthread_barrier_wait(&finish_line);
    double work = 0, begin = workers[0].begin, end = workers[0].end;
    for (int j = 0; j < threads; ++j) {
      work += workers[j].work;
      begin = workers[j].begin < begin ? workers[j].begin : begin;
      end = workers[j].end > end ? workers[j].end : end;
    }
    if (i > 0 && work / (end - begin) > best) best = work / (end - begin);
  }
  for (int i = 0; i < threads; ++i) pthread_join(handles[i], NULL);
  return best;
}

int main(int count, char** arguments) {
  const int threads = count >= 2 ? atoi(arguments[1]) : 0;
  const int only_read = count == 3 && strcmp(arguments[2], "read") == 0;
  if (threads < 1 || threads > kMaxThreads || count != 2 + only_read) {
    fprintf(stderr, "usage: peak THREADS [read], with 1 to %d threads\n", kMaxThreads);
    return 2;
  }
  static Worker workers[kMaxThreads];
  for (int i = 0; i < threads; ++i) {
    workers[i].memory = aligned_alloc(64, kBytesPerThread);
    if (!workers[i].memory) return 1;
    float* values = workers[i].memory;
    for (size_t j = 0; j < kBytesPerThread / sizeof(float); ++j) values[j] = 1;
  }
  pthread_barrier_init(&start_line, NULL, (unsigned)threads + 1);
  pthread_barrier_init(&finish_line, NULL, (unsigned)threads + 1);
  printf("{");
  if (!only_read) {
    printf("\"float32\": %.6g, \"float64\": %.6g, ",
           best_rate(multiply_add_float32, workers, threads),
           best_rate(multiply_add_float64, workers, threads));
#ifdef __AVX512BF16__
    printf("\"bfloat16\": %.6g, ", best_rate(multiply_add_bfloat16, workers, threads));
#endif
  }
  printf("\"read\": %.6g}\n", best_rate(read_memory, workers, threads));
  return 0;
}
