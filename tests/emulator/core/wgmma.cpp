// Products of a warpgroup: issued, committed, run at some time, waited for.
//
// Each warp of the group is one agent here: it computes its 16 rows of d. Stricter than the
// hardware on purpose: a fence for every committed group, and every warp counts as a reader of all
// 64 rows of a, since the four work as one.
#include <bit>
#include <cstring>

#include "core/descriptor.h"
#include "core/hopper.h"
#include "core/report.h"
#include "core/scheduler.h"
#include "core/warp.h"

namespace emulator {
namespace {

constexpr int kRows = 16, kGroupRows = 64;
const float kPoisonValue = std::bit_cast<float>(0x7FBADBADu);  // a NaN no product gives

WarpState& state_of(Gathering& g) { return g.block.hopper->warps[g.warp]; }
int row_of(int lane, int i) { return lane / 4 + 8 * (i / 2 % 2); }
int column_of(int lane, int i) { return 8 * (i / 4) + 2 * (lane % 4) + i % 2; }
bool is_poison(float x) {
  return std::bit_cast<uint32_t>(x) == std::bit_cast<uint32_t>(kPoisonValue);
}

void allow_issue(Gathering& g) { state_of(g).is_wgmma_fenced = true; }

// All lanes must ask for the same product, and the four warps of the group for the same sequence.
void require_agreement(Gathering& g) {
  const auto& first = g.argument<WgmmaOperands>(0);
  for (int lane = 1; lane < kWarpSize; ++lane) {
    const auto& o = g.argument<WgmmaOperands>(lane);
    if (o.a != first.a || o.b != first.b || o.accumulates != first.accumulates) {
      fail(g.site, "BAD WGMMA: descriptors differ between lanes");
    }
  }
  const uint64_t print = first.a * 31 + first.b * 17 + first.n * 3 + first.accumulates;
  auto& sequence = g.block.hopper->products[g.warp / 4];
  const size_t index = state_of(g).issued++;
  if (index == sequence.size()) {
    sequence.push_back(print);
  } else if (sequence[index] != print) {
    fail(g.site, "BAD WGMMA: the warps of a warpgroup issue different products");
  }
}

std::shared_ptr<Accumulator> find_accumulator(Gathering& g, int n) {
  for (const auto& known : state_of(g).in_flight) {
    if (known->d[0] == g.argument<WgmmaOperands>(0).d && known->n == n) return known;
  }
  return nullptr;
}

void require_poison(const Accumulator& d, const Site& site) {
  for (int lane = 0; lane < kWarpSize; ++lane) {
    for (int i = 0; i < d.n / 2; ++i) {
      if (!is_poison(d.d[lane][i])) {
        fail(site, "TOUCHED IN FLIGHT: register d[", i,
             "] was written while its wgmma was running");
      }
    }
  }
}

std::shared_ptr<Accumulator> take_registers(Gathering& g, int n) {
  auto d = std::make_shared<Accumulator>();
  d->n = n;
  d->products = 0;
  d->value.resize(static_cast<size_t>(kRows) * n);
  for (int lane = 0; lane < kWarpSize; ++lane) {
    d->d[lane] = g.argument<WgmmaOperands>(lane).d;
    for (int i = 0; i < n / 2; ++i) {
      d->value[row_of(lane, i) * n + column_of(lane, i)] = d->d[lane][i];
      d->d[lane][i] = kPoisonValue;
    }
  }
  state_of(g).in_flight.push_back(d);
  return d;
}

void check_operand(Gathering& g, uint64_t bits, bool transposes, int rows, const char* what) {
  WarpState& warp = state_of(g);
  const auto group = static_cast<Stamp>(warp.groups.size() + 1);
  const Descriptor descriptor = decode_descriptor(bits, g.site);
  advance_stamps(g.block.start + group);
  for_each_chunk(descriptor, transposes, 0, rows, [&](uint32_t address, int, int) {
    g.block.shadow.require_range(address, kChunkBytes, kChunkBytes, what, g.site);
    g.block.shadow.engine_read(g.thread(0), address, kChunkBytes, warp.agent, g.block.start + group,
                               what, g.site);
  });
}

void issue(Gathering& g) {
  const auto& o = g.argument<WgmmaOperands>(0);
  WarpState& warp = state_of(g);
  if (!warp.is_wgmma_fenced) {
    fail(g.site, "MISSING wgmma_fence: none since the last commit of warp ", g.warp);
  }
  if (warp.agent == 0) warp.agent = g.block.new_engine(text("a wgmma of warp ", g.warp));
  require_agreement(g);
  Wgmma product{o.n,
                o.is_f16,
                o.accumulates,
                o.transposes_a,
                o.transposes_b,
                o.a_registers != nullptr,
                o.a,
                o.b,
                {},
                {},
                nullptr,
                g.site};
  for (int lane = 0; lane < kWarpSize && product.has_registers; ++lane) {
    product.a_registers[lane] = g.argument<WgmmaOperands>(lane).a_registers;
    memcpy(product.a_values[lane], product.a_registers[lane], sizeof product.a_values[lane]);
  }
  if (!product.has_registers) check_operand(g, o.a, o.transposes_a, kGroupRows, "wgmma a");
  check_operand(g, o.b, o.transposes_b, o.n, "wgmma b");
  product.d = find_accumulator(g, o.n);
  if (product.d != nullptr) {
    require_poison(*product.d, g.site);
  } else {
    product.d = take_registers(g, o.n);
  }
  ++product.d->products;
  warp.open.push_back(std::move(product));
}

void run_group(Block& block, int warp, size_t index) {
  WgmmaGroup& group = block.hopper->warps[warp].groups[index];
  if (group.has_run) return;
  group.has_run = true;
  for (const Wgmma& p : group.products) multiply_rows(block, warp, p);
}

void commit(Gathering& g) {
  WarpState& warp = state_of(g);
  warp.is_wgmma_fenced = false;
  warp.groups.push_back({std::move(warp.open), false});
  warp.open.clear();
  const size_t index = warp.groups.size() - 1;
  machine().engine_work.push_back(
      {&g.block, [&block = g.block, w = g.warp, index] { run_group(block, w, index); }, &warp,
       static_cast<uint32_t>(index + 1), "wgmma groups"});
}

void finish_group(Block& block, int warp, size_t index, const Site& site) {
  run_group(block, warp, index);
  for (Wgmma& p : block.hopper->warps[warp].groups[index].products) {
    --p.d->products;
    for (int lane = 0; lane < kWarpSize && p.has_registers; ++lane) {
      if (memcmp(p.a_registers[lane], p.a_values[lane], sizeof p.a_values[lane]) != 0) {
        fail(site, "TOUCHED IN FLIGHT: a register of a was written while its wgmma (",
             describe(p.site), ") was running");
      }
    }
  }
}

void give_back_registers(WarpState& warp, const Site& site) {
  std::erase_if(warp.in_flight, [&](const std::shared_ptr<Accumulator>& d) {
    if (d->products > 0) return false;
    require_poison(*d, site);
    for (int lane = 0; lane < kWarpSize; ++lane) {
      for (int i = 0; i < d->n / 2; ++i) {
        d->d[lane][i] = d->value[row_of(lane, i) * d->n + column_of(lane, i)];
      }
    }
    return true;
  });
}

void wait(Gathering& g) {
  const uint32_t pending = g.argument<uint32_t>(0);
  WarpState& warp = state_of(g);
  const size_t groups = warp.groups.size(), done = groups > pending ? groups - pending : 0;
  for (; warp.retired < done; ++warp.retired) {
    finish_group(g.block, g.warp, warp.retired, g.site);
    warp.groups[warp.retired].products.clear();
  }
  finish_work(&warp, static_cast<uint32_t>(done));  // has run: nothing is left to do
  give_back_registers(warp, g.site);
  for (int lane = 0; lane < kWarpSize && warp.agent != 0; ++lane) {
    Stamp& known = g.thread(lane).knowledge.clock[warp.agent];
    known = std::max(known, g.block.start + static_cast<Stamp>(warp.retired));
  }
}

}  // namespace

void fence_wgmma(const Site& site) { gather("wgmma_fence", nullptr, allow_issue, site); }

void issue_wgmma(const WgmmaOperands& mine, const Site& site) {
  WgmmaOperands copy = mine;
  gather("wgmma", &copy, issue, site);
}

void commit_wgmma(const Site& site) {
  gather("wgmma_commit", nullptr, commit, site);
  maybe_yield();
}

void wait_for_wgmma(uint32_t pending_groups, const Site& site) {
  gather("wgmma_wait", &pending_groups, wait, site);
}

}  // namespace emulator
