// Which sanitizer a test program is built with, and what cannot be tested under it: the thread
// sanitizer starts no threads in a forked process, and the address sanitizer's allocator forks with
// its locks held by the parent's other threads.
#pragma once

#if defined(__has_feature)
#define HAS_SANITIZER(name) __has_feature(name)
#else
#define HAS_SANITIZER(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || HAS_SANITIZER(address_sanitizer)
#define HAS_ADDRESS_SANITIZER 1
#else
#define HAS_ADDRESS_SANITIZER 0
#endif
#if defined(__SANITIZE_THREAD__) || HAS_SANITIZER(thread_sanitizer)
#define CAN_FORK 0
#else
#define CAN_FORK 1
#endif
#define CAN_FORK_WHILE_BUSY (CAN_FORK && !HAS_ADDRESS_SANITIZER)
