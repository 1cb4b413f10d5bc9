// Messages: where something happened, and who waits for what when nothing can happen.
#include "core/report.h"

#include <map>

namespace emulator {
namespace {

std::string place(const uint3& index) {
  return text("(", index.x, ",", index.y, ",", index.z, ")");
}

[[noreturn]] void leave() {
  Machine& m = machine();
  m.running = nullptr;
  if (!m.is_on_fiber) throw Stopped();
  void* abandoned;
  emulator_switch(&abandoned, m.host_stack);
  __builtin_unreachable();
}

}  // namespace

std::string describe(const Site& site) {
  const std::string path = site.file_name();
  return text(path.substr(path.find_last_of('/') + 1), ":", site.line());
}

std::string hexadecimal(uint64_t value) {
  std::ostringstream out;
  out << "0x" << std::hex << value;
  return out.str();
}

void stop(const Site& site, const std::string& message) {
  Machine& m = machine();
  std::string where = text(" [", describe(site));
  if (const Thread* t = m.running) {
    where += text(", thread ", t->id, " (warp ", t->warp, ", lane ", t->lane, ") of block ",
                  place(t->block->index));
  }
  m.error = text(message, where, ", seed ", m.settings.seed, "]");
  leave();
}

void report_deadlock() {
  std::map<std::string, std::map<int, int>> groups;  // what is waited for -> warp -> threads
  int exited = 0;
  for (const auto& block : machine().slots) {
    if (!block->is_live) continue;
    for (const Thread& t : block->threads) {
      if (t.has_exited) {
        ++exited;
      } else {
        const Wait& w = t.wait;
        ++groups[text("block ", place(block->index), " at ", describe(w.site), " wait for ", w.what,
                      w.detail ? w.detail(*block, w.id, w.value) : "")][t.warp];
      }
    }
  }
  std::string report = "DEADLOCK:";
  for (const auto& [what, warps] : groups) {
    int threads = 0;
    std::string names;
    for (const auto& [warp, count] : warps) {
      threads += count;
      names += text(names.empty() ? "" : ", ", warp);
      if (count != kWarpSize) names += text(" (", count, " lanes)");
    }
    report += text("\n  ", threads, " threads, warps ", names, ", of ", what);
  }
  if (exited > 0) report += text("\n  ", exited, " threads of these blocks have exited");
  machine().error = text(report, "\n  [seed ", machine().settings.seed, "]");
  leave();
}

}  // namespace emulator
