// Does the emulated runtime behave as CUDA's where host code could go wrong?
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "check.h"
#include "ptx/launch.h"
#include "ptx/memory.h"
#include "ptx/thread.h"

namespace {

namespace ptx = attnext::ptx;
using emulator_test::DeviceArray;
using emulator_test::explain;
using emulator_test::outcome;

struct Params {
  float* values;  // [threads of the grid]
  float added;
};

__global__ void add(const __grid_constant__ Params p) {
  const uint32_t i = ptx::block_index().x * ptx::block_size().x + ptx::thread_index().x;
  ptx::st_global(p.values + i, ptx::ld_global(p.values + i) + p.added);
}
__global__ void store_beyond(const __grid_constant__ Params p) {
  ptx::st_global(p.values + ptx::thread_index().x + 64, p.added);
}

constexpr int kCount = 64;

cudaError_t start_add(float* values, float added, cudaStream_t stream) {
  return ptx::launch(add, 2, 32, 0, stream, {values, added});
}

std::string when_made_to_fail(const char* what, const std::function<std::string()>& run) {
  setenv("ATTNEXT_EMULATOR_FAIL", what, 1);
  const std::string found = run();
  unsetenv("ATTNEXT_EMULATOR_FAIL");
  cudaGetLastError();
  return found;
}

std::string no_memory() {
  return when_made_to_fail("cudaMalloc:2", [] {
    const DeviceArray<float> first(4);
    float* second = nullptr;
    const cudaError_t error = cudaMalloc(&second, 16);
    return first.data() == nullptr || second != nullptr ? "WRONG RESULT" : explain(error);
  });
}

std::string no_launch() {
  const DeviceArray<float> values(std::vector<float>(kCount, 0));
  return when_made_to_fail("launch", [&] { return outcome(start_add(values.data(), 1, nullptr)); });
}

// Copies of ordinary memory wait, those of pinned memory do not.
std::string copy_without_waiting(bool is_pinned) {
  const DeviceArray<float> values(kCount);
  std::vector<float> ordinary(kCount);
  float* pinned = nullptr;
  cudaMallocHost(&pinned, kCount * sizeof(float));
  const float* const source = is_pinned ? pinned : ordinary.data();
  const std::string found = when_made_to_fail("wait", [&] {
    return explain(
        cudaMemcpyAsync(values.data(), source, kCount * sizeof(float), cudaMemcpyHostToDevice));
  });
  cudaFreeHost(pinned);
  return found;
}

// What is captured runs afterwards, and nothing may wait for it before.
std::string capture(bool waits) {
  const DeviceArray<float> values(std::vector<float>(kCount, 1));
  setenv("ATTNEXT_EMULATOR_CAPTURE", "1", 1);
  start_add(values.data(), 2, nullptr);
  const cudaError_t error = waits ? cudaStreamSynchronize(nullptr) : cudaSuccess;
  unsetenv("ATTNEXT_EMULATOR_CAPTURE");
  if (error != cudaSuccess) return explain(error);
  return values.values()[0] == 3 ? "" : "WRONG RESULT";
}

std::string allocate_in_capture(cudaStreamCaptureMode mode) {
  setenv("ATTNEXT_EMULATOR_CAPTURE", "1", 1);
  cudaThreadExchangeStreamCaptureMode(&mode);
  float* values = nullptr;
  const cudaError_t error = cudaMalloc(&values, 16);
  cudaThreadExchangeStreamCaptureMode(&mode);
  unsetenv("ATTNEXT_EMULATOR_CAPTURE");
  cudaFree(values);
  return explain(error);
}

// How much of what was freed a pool has after a wait.
std::string kept(uint64_t threshold) {
  const cudaMemPoolProps properties{cudaMemAllocationTypePinned, {cudaMemLocationTypeDevice, 0}};
  cudaMemPool_t pool;
  cudaMemPoolCreate(&pool, &properties);
  cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold);
  size_t before = 0, after = 0, total = 0;
  cudaMemGetInfo(&before, &total);
  void* memory = nullptr;
  cudaMallocFromPoolAsync(&memory, 1000, pool, nullptr);
  cudaFreeAsync(memory, nullptr);
  cudaDeviceSynchronize();
  cudaMemGetInfo(&after, &total);
  cudaMemPoolDestroy(pool);
  return "kept " + std::to_string(before - after);
}

// After a kernel that failed a check the next one works again.
std::string recovers() {
  const DeviceArray<float> values(std::vector<float>(kCount, 0));
  const std::string failure =
      outcome(ptx::launch(store_beyond, 1, 32, 0, nullptr, {values.data(), 1}));
  if (failure.find("OUT OF BOUNDS") == std::string::npos) return "not found: " + failure;
  cudaGetLastError();
  const std::string second = outcome(start_add(values.data(), 2, nullptr));
  return values.values()[kCount - 1] == 2 ? second : "WRONG RESULT";
}

// The host reads a pinned copy; without waiting, some seed or time sees what was there before.
std::string read_pinned(bool waits) {
  const DeviceArray<float> values(std::vector<float>(kCount, 1));
  float* pinned = nullptr;
  cudaMallocHost(&pinned, kCount * sizeof(float));
  cudaStream_t stream;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  bool is_right = true;
  for (int i = 0; i < 20; ++i) {
    pinned[0] = -1;
    cudaMemcpyAsync(pinned, values.data(), kCount * sizeof(float), cudaMemcpyDeviceToHost, stream);
    if (waits) cudaStreamSynchronize(stream);
    is_right = is_right && pinned[0] == 1;
  }
  cudaStreamDestroy(stream);
  cudaFreeHost(pinned);
  return is_right ? "" : "too early";
}

// Two streams in the order of an event, or in none.
std::string order_streams(bool waits) {
  bool is_right = true;
  for (int i = 0; i < 20; ++i) {
    const DeviceArray<float> values(std::vector<float>(kCount, 1));
    cudaStream_t streams[2];
    cudaEvent_t event;
    for (cudaStream_t& s : streams) cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    cudaMemsetAsync(values.data(), 0, kCount * sizeof(float), streams[0]);
    cudaEventRecord(event, streams[0]);
    if (waits) cudaStreamWaitEvent(streams[1], event);
    start_add(values.data(), 3, streams[1]);
    cudaStreamSynchronize(streams[1]);
    cudaStreamSynchronize(streams[0]);
    is_right = is_right && values.values()[5] == 3;
    cudaEventDestroy(event);
    for (cudaStream_t s : streams) cudaStreamDestroy(s);
  }
  return is_right ? "" : "another order";
}

std::string copy_beyond() {
  const DeviceArray<float> values(kCount);
  float host[kCount + 1];
  return explain(cudaMemcpy(host, values.data(), sizeof host, cudaMemcpyDeviceToHost));
}
std::string copy_of_other_kind() {
  const DeviceArray<float> values(kCount);
  float host[kCount];
  return explain(cudaMemcpy(host, values.data(), sizeof host, cudaMemcpyHostToDevice));
}
std::string too_much_shared() {
  return explain(ptx::launch(add, 1, 32, 256 * 1024, nullptr, {nullptr, 0}));
}
std::string free_twice() {
  float* values = nullptr;
  cudaMalloc(&values, 16);
  cudaFree(values);
  return explain(cudaFree(values));
}

// A plain store that stays within the allocation's last 256 bytes is found when it is freed.
__global__ void store_just_beyond(const __grid_constant__ Params p) { p.values[5] = p.added; }
std::string write_just_beyond() {
  float* values = nullptr;
  cudaMalloc(&values, 5 * sizeof(float));
  const std::string failure =
      outcome(ptx::launch(store_just_beyond, 1, 32, 0, nullptr, {values, 1}));
  return failure + explain(cudaFree(values));
}

// The host touches memory of the device: a process of its own dies of it, as with a real device.
std::string touch_from_host() {
  float* values = nullptr;
  cudaMalloc(&values, sizeof *values);
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGSEGV, SIG_DFL);
    *static_cast<volatile float*>(values) = 1;
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  cudaFree(values);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV ? "died" : "";
}

std::string many_host_threads() {
  std::vector<std::thread> threads;
  bool is_right[4] = {};
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      cudaStream_t stream;
      cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
      const DeviceArray<float> values(std::vector<float>(kCount, 0));
      for (int round = 0; round < 25; ++round) {
        start_add(values.data(), static_cast<float>(i), stream);
      }
      cudaStreamSynchronize(stream);
      is_right[i] = values.values()[kCount - 1] == 25.0f * static_cast<float>(i);
      cudaStreamDestroy(stream);
    });
  }
  for (std::thread& t : threads) t.join();
  return is_right[0] && is_right[1] && is_right[2] && is_right[3] ? "" : "WRONG RESULT";
}

}  // namespace

int main() {
  return emulator_test::run_table({
      {"no memory", no_memory, "out of memory"},
      {"no launch", no_launch, "too many resources requested"},
      {"copies wait", [] { return copy_without_waiting(false); }, "a wait of the host"},
      {"pinned copies do not", [] { return copy_without_waiting(true); }, ""},
      {"captured", [] { return capture(false); }, ""},
      {"waits in a capture", [] { return capture(true); },
       "not permitted when stream is capturing"},
      {"allocates in a capture", [] { return allocate_in_capture(cudaStreamCaptureModeGlobal); },
       "not permitted when stream is capturing"},
      {"sets up in a capture", [] { return allocate_in_capture(cudaStreamCaptureModeRelaxed); },
       ""},
      {"a pool that keeps", [] { return kept(1 << 20); }, "kept 1000"},
      {"a pool that does not", [] { return kept(20); }, "kept 20"},
      {"recovers", recovers, ""},
      {"waits for a copy", [] { return read_pinned(true); }, ""},
      {"does not wait for a copy", [] { return read_pinned(false); }, "too early"},
      {"streams in order", [] { return order_streams(true); }, ""},
      {"streams without order", [] { return order_streams(false); }, "another order"},
      {"copy beyond", copy_beyond, "the source of the copy: 260 bytes at offset 0"},
      {"copy of another kind", copy_of_other_kind, "the target of the copy is no device pointer"},
      {"too much shared memory", too_much_shared, "bytes of shared memory for a block, not 262144"},
      {"freed twice", free_twice, "not the start of an allocation"},
      {"written just beyond", write_just_beyond, "wrote beyond the end of the allocation"},
      {"the host touches device memory", touch_from_host, "died"},
      {"many host threads", many_host_threads, ""},
  });
}
