// Is scratch memory kept for the next pass, within bounds, and never given to two at once?
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "attnext/attnext.h"
#include "check.h"
#include "cpu/memory.h"
#include "cpu/parallel.h"
#include "sanitizers.h"

using namespace attnext::cpu;

namespace {

constexpr int64_t kMega = 1 << 20;
void forget_everything() {
  set_num_threads(2);
  release(allocate(most_kept_bytes()));  // drives out all others,
  const Block all = allocate(most_kept_bytes());
  set_num_threads(1);
  release(all);  // and is itself too large now
  check(kept_bytes() == 0, "everything can be forgotten");
}

[[maybe_unused]] void test_what_is_released_serves_again() {
  forget_everything();
  const Block large = allocate(4 * kMega), small = allocate(kMega);
  check(reinterpret_cast<uintptr_t>(small.data) % 64 == 0, "blocks are aligned");
  release(large);
  release(small);
  check(kept_bytes() >= 5 * kMega, "released blocks are kept");
  const Block again = allocate(kMega - 1000);
  check(again.data == small.data, "the smallest block that is large enough serves");
  const Block other = allocate(kMega);
  check(other.data == large.data, "a larger one does where there is no better");
  check(other.bytes == large.bytes, "and is not cut");
  check(kept_bytes() == 0, "blocks in use are not counted");
  release(again);
  release(other);
}

[[maybe_unused]] void test_little_is_not_kept() {
  forget_everything();
  release(allocate(1000));
  check(kept_bytes() == 0, "small blocks go back to the heap");
}

void test_bounds() {
  forget_everything();
  for (const int threads : {1, 3}) {
    set_num_threads(threads);
    const int64_t most = most_kept_bytes();
    for (int64_t size = kMega / 2; size < 2 * most; size += size / 3) {
      const Block a = allocate(size), b = allocate(size / 2);
      check(a.bytes >= size && b.bytes >= size / 2, "blocks are as large as asked for");
      std::memset(a.data, 1, 4096);
      release(a);
      release(b);
      check(kept_bytes() <= most, "no more is kept than may be");
    }
  }
  set_num_threads(3);
  check(most_kept_bytes() == (64 + 3 * 4) * kMega, "as the header says");
  set_num_threads(0);
}

void use_and_check(unsigned seed, int rounds) {
  std::minstd_rand random(seed);
  for (int i = 0; i < rounds; ++i) {
    const auto bytes = static_cast<int64_t>(random() % (2 * kMega) + 1);
    const Block block = allocate(bytes);
    std::memset(block.data, static_cast<int>(seed), static_cast<size_t>(bytes));
    std::this_thread::yield();
    const auto* bytes_of = static_cast<const unsigned char*>(block.data);
    check(bytes_of[0] == seed && bytes_of[bytes - 1] == seed, "a block is one thread's alone");
    release(block);
  }
}

void test_many_threads() {
  std::vector<std::thread> threads;
  threads.reserve(8);
  for (unsigned seed = 1; seed <= 8; ++seed) threads.emplace_back(use_and_check, seed, 300);
  for (std::thread& thread : threads) thread.join();
}

#if CAN_FORK_WHILE_BUSY
// A child may inherit the lock of a thread that it does not have.
void test_fork_while_busy() {
  std::atomic<bool> is_over{false};
  std::thread busy([&] {
    while (!is_over) use_and_check(7, 10);
  });
  for (int i = 0; i < 50; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(20);  // a stuck child is a failed one
      const Block block = allocate(kMega);
      release(block);
      _exit(block.data != nullptr ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child has memory");
  }
  is_over = true;
  busy.join();
}
#endif

void test_c_interface() {
  void* memory = nullptr;
  check(attnext_host_allocate(3 * kMega, &memory) == ATTNEXT_OK, "host memory can be had");
  check(reinterpret_cast<uintptr_t>(memory) % 64 == 0, "host memory is aligned");
  std::memset(memory, 1, 3 * kMega);
  attnext_host_free(memory);
  attnext_host_free(nullptr);
  check(attnext_host_allocate(0, &memory) == ATTNEXT_OK, "no bytes are some");
  attnext_host_free(memory);
  check(attnext_host_allocate(1, nullptr) == ATTNEXT_VALUE_ERROR, "a place is asked for");
  check(std::strstr(attnext_last_error(), "memory must be given") != nullptr, "by name");
#if !HAS_ADDRESS_SANITIZER  // the address sanitizer ends the program instead
  for (const size_t bytes : {SIZE_MAX, SIZE_MAX / 4})
    check(attnext_host_allocate(bytes, &memory) == ATTNEXT_OUT_OF_MEMORY, "no more than there is");
#endif
}

}  // namespace

int main() {
#if !HAS_ADDRESS_SANITIZER
  test_what_is_released_serves_again();
  test_little_is_not_kept();
#endif
  test_bounds();
  test_many_threads();
  test_c_interface();
#if CAN_FORK_WHILE_BUSY
  test_fork_while_busy();
#endif
  return verdict();
}
