// Which cores the pool's threads may run on: not their caller's. Where all cores are busy, with
// threads of other libraries that wait awake, say, a scheduler may wake a helper on the core of who
// called for it; there it waits for its caller, while the others spin.
#pragma once

#include <algorithm>

#if defined(__linux__)
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace attnext::cpu {

#if defined(__linux__)
// To be used by one thread at a time.
class Helpers {
 public:
  // For the calling thread, when it starts and before it ends.
  void add_this() {
    Helper helper{this_thread(), {}};
    if (sched_getaffinity(0, sizeof(helper.cores), &helper.cores) != 0) return;  // over 1024 cores
    if (count_ < kMost) helpers_[count_] = helper;
    ++count_;
    avoided_ = kNone;
  }
  void remove_this() {
    Helper* const end = helpers_ + kMost;
    Helper* const mine =
        std::find_if(helpers_, end, [id = this_thread()](const Helper& h) { return h.id == id; });
    if (mine == end && count_ <= kMost) return;
    if (mine != end) {
      std::copy(mine + 1, end, mine);
      helpers_[kMost - 1].id = kNone;
    }
    --count_;
  }

  // They may then run where their caller may, but for the core where it is. Free while it stays.
  void keep_off_this_core() {
    const int core = sched_getcpu();
    if (core == avoided_ || count_ == 0 || count_ > kMost) return;
    avoided_ = core;
    cpu_set_t cores;
    if (core < 0 || core >= CPU_SETSIZE || sched_getaffinity(0, sizeof(cores), &cores) != 0) return;
    CPU_CLR(core, &cores);
    if (CPU_COUNT(&cores) == 0) return;
    for (int i = 0; i < count_; ++i) move(&helpers_[i], cores);
  }

 private:
  struct Helper {
    pid_t id;
    cpu_set_t cores;  // as they were left
  };

  static pid_t this_thread() { return static_cast<pid_t>(syscall(SYS_gettid)); }

  // Not where somebody else has said where it is to run.
  static void move(Helper* helper, const cpu_set_t& cores) {
    cpu_set_t now;
    if (sched_getaffinity(helper->id, sizeof(now), &now) != 0) return;
    if (!CPU_EQUAL(&now, &helper->cores)) return;
    if (sched_setaffinity(helper->id, sizeof(cores), &cores) == 0) helper->cores = cores;
  }

  static constexpr int kNone = -1;
  // Of many, one that has to wait is missed by nobody, and all would have to be told.
  static constexpr int kMost = 8;
  Helper helpers_[kMost] = {};  // the first ones
  int count_ = 0;               // of all
  int avoided_ = kNone;
};
#else
class Helpers {
 public:
  void add_this() {}
  void remove_this() {}
  void keep_off_this_core() {}
};
#endif

}  // namespace attnext::cpu
