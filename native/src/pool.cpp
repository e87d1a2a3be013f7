#include "pool.h"

#include <chrono>
#include <stdexcept>
#include <string>

// Memory order, in one place.
//   A stage is published by a store to open_ after everything it needs (the run's fields, remaining_) was written, and
//   a thread loads open_ with acquire before it claims: it sees those fields and all that happened before.
//   Its chunks' writes precede its acq_rel subtraction from remaining_; the subtractions form one release sequence, so
//   the thread that reaches 0 has seen all chunks of the stage, and it is the one that publishes the next.
//   A claim is a relaxed compare-exchange. It needs no order of its own: it only has to be unique, and success proves
//   that the stage is still open, since remaining_ cannot reach 0 before the claimed chunk is completed. So the run's
//   fields, read after the claim, cannot be rewritten before that chunk's subtraction.
//   A stale thread, holding an open_ of the past, fails: every share with chunks in that stage was claimed to its end,
//   so its word carries that serial and a full count, or a later serial. The words only grow, so there is no ABA and
//   nothing to reset between stages or runs.

namespace outrider {

namespace {

// 44 bits of serial, stages without chunks counted: 23 years at 24,000 stages a second (100 tokens of 240 stages).
constexpr int kChunkBits = 20;
constexpr uint64_t kChunkMask = (uint64_t(1) << kChunkBits) - 1;
constexpr uint64_t kClosed = ~uint64_t(0) & ~kChunkMask;
static_assert(Pool::kMaxChunks == int(kChunkMask), "a count of chunks fits its field");

constexpr auto kSpinTime = std::chrono::microseconds(20);
constexpr int kSpinsPerClock = 32;
constexpr int kYields = 4;

int chunksIn(uint64_t open) { return int(open & kChunkMask); }

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

int checkedThreads(int threads) {
  if (threads < 1 || threads > Pool::kMaxThreads) {
    throw std::invalid_argument("a pool of " + std::to_string(threads) + " threads, expected 1 to " +
                                std::to_string(Pool::kMaxThreads));
  }
  return threads;
}

}  // namespace

// With more threads than cores the thread waited for may need the core of the one that spins.
Pool::Pool(int threads)
    : threads_(checkedThreads(threads)),
      spin_(unsigned(threads) <= std::thread::hardware_concurrency()),
      shares_(new Share[size_t(threads)]) {
#if defined(__linux__)
  if (sched_getaffinity(0, sizeof cores_, &cores_) != 0) CPU_ZERO(&cores_);
#endif
  try {
    startWorkers();
  } catch (...) {
    close();
    throw;
  }
}

Pool::~Pool() { close(); }

void Pool::startWorkers() {
  workers_.reserve(size_t(threads_ - 1));
  for (int thread = 1; thread < threads_; ++thread) workers_.emplace_back(&Pool::worker, this, thread);
}

void Pool::close() {
  publish(kClosed, true);
  for (std::thread& worker : workers_) worker.join();
}

bool Pool::run(const int* chunksOf, int count, void (*work)(void*, int, int, int), bool (*stop)(void*),
               void* context) {
  for (int stage = 0; stage < count; ++stage) {
    if (chunksOf[stage] < 0 || chunksOf[stage] > kMaxChunks) {
      throw std::invalid_argument("stage " + std::to_string(stage) + " has " + std::to_string(chunksOf[stage]) +
                                  " chunks, expected 0 to " + std::to_string(kMaxChunks));
    }
  }
  ++waiting_;
  const std::lock_guard<std::mutex> turn(running_);
  --waiting_;
  if (threads_ == 1) {
    for (int stage = 0; stage < count; ++stage) {
      if (chunksOf[stage] > 0 && stop(context)) return false;
      for (int chunk = 0; chunk < chunksOf[stage]; ++chunk) work(context, stage, chunk, 0);
    }
    return true;
  }
  keepOffThisCore();
  chunksOf_ = chunksOf;
  count_ = count;
  work_ = work;
  stop_ = stop;
  context_ = context;
  base_ = (open_.load(std::memory_order_relaxed) >> kChunkBits) + 1;
  finished_ = false;
  openAfter(-1);
  uint64_t open = open_.load(std::memory_order_acquire);
  while (chunksIn(open) > 0) {
    help(open, 0);
    open = waitForChange(open);
  }
  return finished_;
}

// The kernel may wake a worker on the core that runs the driver, when the one that it ran on before is still busy (with
// JavaScript, which has just begun to wait), and leaves it there for milliseconds: of passes over one token of 2 ms one in
// ten was computed by the driver alone.
void Pool::keepOffThisCore() {
#if defined(__linux__)
  const int core = sched_getcpu();
  if (core == driversCore_ || core < 0 || core >= CPU_SETSIZE || !CPU_ISSET(core, &cores_)) return;
  cpu_set_t others = cores_;
  CPU_CLR(core, &others);
  if (CPU_COUNT(&others) < threads_ - 1) return;
  for (std::thread& worker : workers_)
    if (pthread_setaffinity_np(worker.native_handle(), sizeof others, &others) != 0) return;
  driversCore_ = core;
#endif
}

void Pool::worker(int thread) {
  uint64_t open = 0;
  while ((open = waitForChange(open)) != kClosed) help(open, thread);
}

// Claims and works until the stage has nothing left to claim: first the thread's own share, a contiguous range that
// is the same in every pass (its weights stay in its caches), then the others'.
void Pool::help(uint64_t open, int thread) {
  const int chunks = chunksIn(open);
  int completed = 0;
  for (int i = 0; i < threads_; ++i) {
    const int owner = thread + i < threads_ ? thread + i : thread + i - threads_;
    // Rounded up: of a stage with one chunk, the driver is the owner.
    const int begin = (chunks * owner + threads_ - 1) / threads_;
    const int size = (chunks * (owner + 1) + threads_ - 1) / threads_ - begin;
    for (int chunk; (chunk = claim(open, owner, size)) >= 0; ++completed) {
      work_(context_, stageOf(open), begin + chunk, thread);
    }
  }
  if (completed > 0 && remaining_.fetch_sub(completed, std::memory_order_acq_rel) == completed) openAfter(stageOf(open));
}

// The next chunk of the owner's share, or -1 where none is left or the stage is over.
int Pool::claim(uint64_t open, int owner, int size) {
  if (size == 0) return -1;
  std::atomic<uint64_t>& word = shares_[size_t(owner)].claimed;
  const uint64_t serial = open & ~kChunkMask;
  uint64_t seen = word.load(std::memory_order_relaxed);
  while ((seen & ~kChunkMask) <= serial) {
    const int next = (seen & ~kChunkMask) == serial ? chunksIn(seen) : 0;
    if (next == size) return -1;
    if (word.compare_exchange_weak(seen, serial | uint64_t(next + 1), std::memory_order_relaxed)) return next;
  }
  return -1;
}

int Pool::stageOf(uint64_t open) const { return int((open >> kChunkBits) - base_); }

// Called by one thread at a time: the driver at the start, then whoever completed the last chunk of a stage.
void Pool::openAfter(int stage) {
  do ++stage;
  while (stage < count_ && chunksOf_[stage] == 0);
  const bool over = stage >= count_;
  if (over) finished_ = true;
  const int chunks = over || stop_(context_) ? 0 : chunksOf_[stage];
  remaining_.store(chunks, std::memory_order_relaxed);
  // A single chunk is this thread's own next one (or a spinning thread's): waking others for it only costs. The end
  // of the run must reach the driver.
  publish((base_ + uint64_t(stage)) << kChunkBits | uint64_t(chunks), chunks != 1);
}

// The store to open_ and the load of parked_ here, the store to parked_ and the load of open_ in waitForChange: all
// four are sequentially consistent, so one of the two threads sees the other.
void Pool::publish(uint64_t value, bool wake) {
  open_.store(value, std::memory_order_seq_cst);
  if (!wake || !parked_.load(std::memory_order_seq_cst)) return;
  {
    const std::lock_guard<std::mutex> lock(parking_);
    parked_.store(false, std::memory_order_relaxed);
  }
  wake_.notify_all();
}

// Waits until open_ is not `seen`, and returns it. Spinning is bounded by time, not by count: another process may be
// on the core that the awaited thread needs, and a parked thread leaves its own to it.
uint64_t Pool::waitForChange(uint64_t seen) {
  uint64_t open;
  if (spin_) {
    const auto end = std::chrono::steady_clock::now() + kSpinTime;
    do {
      for (int i = 0; i < kSpinsPerClock; ++i) {
        if ((open = open_.load(std::memory_order_acquire)) != seen) return open;
        pause();
      }
    } while (std::chrono::steady_clock::now() < end);
  }
  for (int i = 0; i < kYields; ++i) {
    if ((open = open_.load(std::memory_order_acquire)) != seen) return open;
    std::this_thread::yield();
  }
  std::unique_lock<std::mutex> lock(parking_);
  for (;;) {
    // Again after each wake-up: the flag is cleared by the one who wakes, and this may be too early a wake-up.
    parked_.store(true, std::memory_order_seq_cst);
    if ((open = open_.load(std::memory_order_seq_cst)) != seen) return open;
    wake_.wait(lock);
  }
}

}  // namespace outrider
