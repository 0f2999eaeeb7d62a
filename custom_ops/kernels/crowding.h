// Whether other programs leave this one fewer cores than it has threads.
//
// Threads share a section's tasks, and the calling thread waits for those that others have begun. If the
// system takes a thread off its core in the middle of one, all wait for its next turn: several milliseconds,
// longer than most products take. So sections keep an account of the time that sharing won and lost, and
// where it loses, the calling thread computes alone for a while. What threads it has or how tasks are shared
// changes no result.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace mxcompile {

// The account of all sessions in a process, which share the cores. Times are nanoseconds; threads may
// overwrite each other's entries, which matters little.
class Crowding {
 public:
  // Whether the calling thread is to compute the next section alone.
  bool Alone() const { return alone_.load(std::memory_order_relaxed) > 0; }

  // A section ended that the calling thread computed alone in `time`.
  void EndedAlone(int64_t time) { alone_.fetch_sub(time, std::memory_order_relaxed); }

  // A shared section ended: it took `time`, where the calling thread would have taken `alone`.
  void EndedShared(int64_t time, int64_t alone) {
    const int64_t credit = std::min(kMostCredit, credit_.load(std::memory_order_relaxed) + alone - time);
    if (credit < 0) alone_.store(kAlone, std::memory_order_relaxed);
    credit_.store(credit < 0 ? kFirstCredit : credit, std::memory_order_relaxed);
  }

  // Half of the time slice that Linux gives: less may be lost for other reasons.
  static constexpr int64_t kFirstCredit = 2'000'000;
  // Some time slices: one that is lost now and then costs no parallelism.
  static constexpr int64_t kMostCredit = 20'000'000;
  // onnxruntime's threads wait busily for 45 ms after each section, and so long keep the core that the
  // calling thread would move to. Of 100, 300 and 1000 ms the second was the shortest that made up for that.
  static constexpr int64_t kAlone = 300'000'000;

 private:
  std::atomic<int64_t> credit_{kFirstCredit}, alone_{0};
};

}  // namespace mxcompile
