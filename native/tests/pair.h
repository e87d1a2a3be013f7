// Two threads for benchmarks.
#pragma once
#include <immintrin.h>

#include <atomic>
#include <functional>
#include <thread>

namespace outrider {

// work(0) and work(1) at the same time; the second thread is awake, as in a pass.
class Pair {
 public:
  Pair() : other_([this] { serve(); }) {}
  ~Pair() {
    work_ = nullptr;
    round_++;
    other_.join();
  }
  void run(const std::function<void(int)>& work) {
    work_ = &work;
    const int round = ++round_;
    work(0);
    while (done_.load() != round) _mm_pause();
  }

 private:
  void serve() {
    for (int seen = 0;;) {
      const int round = round_.load();
      if (round == seen) { _mm_pause(); continue; }
      if (!work_) return;
      (*work_)(1);
      done_ = seen = round;
    }
  }
  const std::function<void(int)>* work_ = nullptr;
  std::atomic<int> round_{0}, done_{0};
  std::thread other_;
};

}  // namespace outrider
