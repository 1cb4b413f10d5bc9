// Is the dropout generator Random123's Philox4x32-10, and does its threshold round as the
// definition says?
#include <cstdio>

#include "attention/random.h"
#include "check.h"

namespace {

struct KnownAnswer {
  uint32_t counter[4], key[2], words[4];
};

// kat_vectors of Random123, the lines of philox4x32 10.
constexpr KnownAnswer kKnownAnswers[] = {
    {{0x00000000, 0x00000000, 0x00000000, 0x00000000},
     {0x00000000, 0x00000000},
     {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
     {0xffffffff, 0xffffffff},
     {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
     {0xa4093822, 0x299f31d0},
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

bool gives(const KnownAnswer& answer) {
  const uint64_t seed = answer.key[0] | uint64_t{answer.key[1]} << 32;
  const uint32_t* c = answer.counter;
  uint32_t words[4];
  attnext::philox(seed, c[0], c[1], c[2], c[3], words);
  for (int lane = 0; lane < 4; ++lane) {
    if (words[lane] != answer.words[lane]) return false;
  }
  return true;
}

// All different, as words exchanged would pass unnoticed where they are equal.
void test_position_order() {
  uint32_t by_position[4], by_counter[4];
  attnext::dropout_words(7, 4, 3, 2, 1, by_position);
  attnext::philox(7, 1, 2, 3, 4, by_counter);
  for (int lane = 0; lane < 4; ++lane) {
    check(by_position[lane] == by_counter[lane], "counter is (key block, query, head, stream)");
  }
}

void test_threshold() {
  check(attnext::drop_threshold(0.0) == 0, "probability 0 drops nothing");
  check(attnext::drop_threshold(1.0) == uint64_t{1} << 32, "probability 1 drops every word");
  check(attnext::drop_threshold(0.5) == uint64_t{1} << 31, "probability 0.5 is half of all words");
  check(attnext::drop_threshold(0.1) == 429496730, "0.1 * 2^32 = 429496729.6 rounds up");
  check(attnext::drop_threshold(0.3) == 1288490189, "0.3 * 2^32 = 1288490188.8 rounds up");
  check(attnext::drop_threshold(0.4) == 1717986918, "0.4 * 2^32 = 1717986918.4 rounds down");
  check(attnext::drop_threshold(0.5 / 4294967296.0) == 0,
        "a tie below an odd number goes to the even one");
  check(attnext::drop_threshold(1.5 / 4294967296.0) == 2,
        "a tie above an odd number goes to the even one");
}

}  // namespace

int main() {
  for (const KnownAnswer& answer : kKnownAnswers)
    check(gives(answer), "philox4x32-10 known answer");
  test_position_order();
  test_threshold();
  return verdict();
}
