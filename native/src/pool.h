// A pool of threads that runs the stages of a forward pass: the chunks of a stage in any order and on any thread, all
// of them before the first of the next stage.
//
// No thread waits for another to arrive. A stage is over when its chunks are, and whoever completes the last chunk
// opens the next stage; a thread that was parked or preempted meanwhile finds nothing left to claim and catches up.
// (Barriers that count arrivals went from 20 to 400 ms a token when another process took one of two cores.)
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>
#if defined(__linux__)
#include <sched.h>
#endif

namespace outrider {

class Pool {
 public:
  static constexpr int kMaxThreads = 64;
  static constexpr int kMaxChunks = (1 << 20) - 1;  // of one stage

  // threads: 1..kMaxThreads, the caller of `run` included. Throws std::invalid_argument, or std::system_error where
  // the system has no more threads.
  explicit Pool(int threads);
  // Joins the workers. No `run` may be under way.
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return threads_; }
  // Whether a call of `run` waits for another to end.
  bool isAwaited() const { return waiting_.load(std::memory_order_relaxed) > 0; }

  // Runs stages 0..count-1 in order, chunksOf[s] chunks each (0..kMaxChunks, else std::invalid_argument; 0 skips the
  // stage). work(context, stage, chunk, thread) is called exactly once per chunk; thread is in [0, threads()) and no
  // two calls at a time have the same. stop(context) is asked before each stage that has chunks, by one thread at a
  // time; true skips that stage and the rest, and `run` returns false. Neither may throw or call `run` of this pool.
  // What a stage wrote is visible to the next stages, to `stop` and to the caller. Concurrent calls take turns.
  bool run(const int* chunksOf, int count, void (*work)(void* context, int stage, int chunk, int thread),
           bool (*stop)(void* context), void* context);

 private:
  // Own cache lines: x86 prefetches them in pairs, Apple's are 128 bytes.
  struct alignas(128) Share {
    std::atomic<uint64_t> claimed{0};  // stage serial, chunks claimed of this share in that stage
  };

  void startWorkers();
  void keepOffThisCore();
  void close();
  void worker(int thread);
  void help(uint64_t open, int thread);
  int claim(uint64_t open, int owner, int size);
  int stageOf(uint64_t open) const;
  void openAfter(int stage);
  void publish(uint64_t value, bool wake);
  uint64_t waitForChange(uint64_t seen);

  const int threads_;
  const bool spin_;
  const std::unique_ptr<Share[]> shares_;

  // The run. Written by `run` while no chunk is claimed, read by the holder of a claimed chunk. Nothing of it changes from
  // stage to stage, so that it stays in every core's cache.
  const int* chunksOf_ = nullptr;
  int count_ = 0;
  void (*work_)(void*, int, int, int) = nullptr;
  bool (*stop_)(void*) = nullptr;
  void* context_ = nullptr;
  uint64_t base_ = 1;  // serial of stage 0

  alignas(128) std::atomic<uint64_t> open_{0};  // serial, chunks of the open stage; 0 chunks: no run
  alignas(128) std::atomic<int> remaining_{0};  // chunks of the open stage that are not completed
  alignas(128) std::atomic<bool> parked_{false};
  bool finished_ = false;  // set by the thread that ends the run
  std::mutex parking_;
  std::condition_variable wake_;
  std::mutex running_;
  std::atomic<int> waiting_{0};  // calls of `run` that wait for it
  std::vector<std::thread> workers_;
#if defined(__linux__)
  cpu_set_t cores_;       // that this process may use; empty: workers are left where the kernel puts them
  int driversCore_ = -1;  // where no worker may run
#endif
};

}  // namespace outrider
