// The pool's promises: every chunk exactly once, stages in order, nothing touched after `run`. The chunks write plain
// memory, so ThreadSanitizer reports a missing happens-before even where the numbers come out right.
//   pool_test            the tests
//   pool_test measure    ns of overhead per stage instead
#include "../src/pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

using outrider::Pool;

namespace {

std::atomic<int> passed{0}, failed{0};

void check(bool ok, const char* what, int threads) {
  if (ok) {
    ++passed;
  } else {
    ++failed;
    std::printf("FAILED: %s (%d threads)\n", what, threads);
  }
}

bool never(void*) { return false; }

// A run whose chunks look at the whole stage before theirs: each writes 1 + the sum of what that stage wrote.
struct Ordered {
  std::vector<int> chunksOf;
  std::vector<std::vector<uint64_t>> written;  // by stage, by chunk; 0 before
  std::vector<int> calls;                      // by thread
  std::vector<int> previous;                   // the last stage before this one that has chunks, or -1
  std::atomic<int> wrong{0};
  int slowChunk = -1;  // sleeps, so that others get ahead or park

  Ordered(std::vector<int> chunks, int threads) : chunksOf(std::move(chunks)), calls(size_t(threads)) {
    int last = -1;
    for (size_t s = 0; s < chunksOf.size(); ++s) {
      written.emplace_back(size_t(chunksOf[s]));
      previous.push_back(last);
      if (chunksOf[s] > 0) last = int(s);
    }
  }
  static void work(void* context, int stage, int chunk, int thread) {
    Ordered& o = *static_cast<Ordered*>(context);
    ++o.calls[size_t(thread)];
    if (chunk == o.slowChunk) std::this_thread::sleep_for(std::chrono::microseconds(200));
    uint64_t sum = 1;
    const int before = o.previous[size_t(stage)];
    if (before >= 0) {
      for (const uint64_t value : o.written[size_t(before)]) {
        if (value == 0) ++o.wrong;  // not complete
        sum += value;
      }
    }
    uint64_t& mine = o.written[size_t(stage)][size_t(chunk)];
    if (mine != 0) ++o.wrong;  // twice
    mine = sum;
  }
  bool complete() const {
    uint64_t each = 1;
    int total = 0;
    for (const auto& stage : written) {
      if (stage.empty()) continue;
      for (const uint64_t value : stage) {
        if (value != each) return false;
      }
      each = 1 + each * stage.size();
      total += int(stage.size());
    }
    for (const int n : calls) total -= n;
    return total == 0 && wrong == 0;
  }
};

bool runOrdered(Pool& pool, std::vector<int> chunks, int slowChunk = -1) {
  Ordered o(std::move(chunks), pool.threads());
  o.slowChunk = slowChunk;
  return pool.run(o.chunksOf.data(), int(o.chunksOf.size()), Ordered::work, never, &o) && o.complete();
}

std::vector<int> randomChunks(std::mt19937& random, int maxStages, int maxChunks) {
  std::vector<int> chunks(random() % unsigned(maxStages));
  const unsigned limit = 1 + random() % unsigned(maxChunks);
  for (int& n : chunks) n = int(random() % (limit + 1));
  return chunks;
}

void randomRuns(int threads) {
  std::mt19937 random{unsigned(threads)};
  Pool pool(threads);
  bool ok = true;
  for (int i = 0; i < 1500; ++i) ok &= runOrdered(pool, randomChunks(random, 20, i % 10 == 0 ? 200 : 12));
  check(ok, "random stages: every chunk once, in order", threads);
}

void edges(int threads) {
  Pool pool(threads);
  check(pool.threads() == threads, "threads()", threads);
  check(runOrdered(pool, {}), "no stages", threads);
  check(runOrdered(pool, {0, 0, 0}), "only empty stages", threads);
  check(runOrdered(pool, {0, 1, 0, 0, 3, 0}), "empty stages between", threads);
  check(runOrdered(pool, std::vector<int>(3000, 1)), "many stages of one chunk", threads);
  check(runOrdered(pool, {20000, 1, 20000}), "many chunks", threads);
  for (const int bad : {-1, Pool::kMaxChunks + 1}) {
    const int chunks[] = {1, bad};
    bool refused = false;
    try {
      pool.run(chunks, 2, [](void*, int, int, int) {}, never, nullptr);
    } catch (const std::invalid_argument&) {
      refused = true;
    }
    check(refused, "a bad count of chunks is refused", threads);
  }
  check(runOrdered(pool, {5, 5}), "a run after a refused one", threads);
}

// Pauses longer than any spinning: threads park inside a run and between runs, and come back.
void parking(int threads) {
  Pool pool(threads);
  bool ok = true;
  for (int i = 0; i < 10; ++i) {
    ok &= runOrdered(pool, {8, 1, 8, 2, 0, 8, 1}, 0);
    ok &= runOrdered(pool, {8, 8}, 7);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  check(ok, "parked threads come back", threads);
}

// With one sleeping chunk a thread, all threads must be at work at once: otherwise the pool is no pool.
void allThreadsWork(int threads) {
  Pool pool(threads);
  struct Meeting {
    std::atomic<int> present{0};
    int needed;
    bool met = true;
  } meeting;
  meeting.needed = threads;
  const auto work = [](void* context, int, int chunk, int) {
    Meeting& m = *static_cast<Meeting*>(context);
    ++m.present;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (m.present < m.needed && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    if (chunk == 0) m.met = m.present == m.needed;
  };
  pool.run(&meeting.needed, 1, work, never, &meeting);
  check(meeting.met, "as many chunks at a time as threads", threads);
}

// Who makes one run after another can tell that somebody else waits for the threads.
void awaited(int threads) {
  Pool pool(threads);
  struct Meeting {
    Pool& pool;
    std::thread other;
    bool seen = false;
    static void nothing(void*, int, int, int) {}
    static void work(void* context, int, int, int) {
      Meeting& m = *static_cast<Meeting*>(context);
      m.other = std::thread([&m] {
        const int chunk = 1;
        m.pool.run(&chunk, 1, nothing, never, nullptr);
      });
      const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
      while (!(m.seen = m.pool.isAwaited()) && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    }
  };
  Meeting meeting{pool, {}};
  const int chunk = 1;
  check(!pool.isAwaited(), "nobody waits", threads);
  pool.run(&chunk, 1, Meeting::work, never, &meeting);
  meeting.other.join();
  check(meeting.seen && !pool.isAwaited(), "one waited", threads);
}

#if defined(__linux__)
// Where the driver begins a run, no worker runs, or passes would wait for one that waits for the driver's core.
void coresOfTheirOwn(int threads) {
  cpu_set_t all;
  if (threads < 2 || sched_getaffinity(0, sizeof all, &all) != 0 || CPU_COUNT(&all) < threads) return;
  Pool pool(threads);
  struct Cores {
    int drivers;
    std::atomic<int> shared{0}, elsewhere{0};
    static void work(void* context, int, int, int thread) {
      Cores& c = *static_cast<Cores*>(context);
      if (thread > 0) ++(sched_getcpu() == c.drivers ? c.shared : c.elsewhere);
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  };
  const std::vector<int> chunks(20, 2 * threads);
  for (int round = 0; round < 3; ++round)
    for (int core = 0; core < CPU_SETSIZE; ++core) {
      if (!CPU_ISSET(core, &all)) continue;
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(core, &one);
      if (sched_setaffinity(0, sizeof one, &one) != 0) continue;
      Cores cores{core};
      check(pool.run(chunks.data(), int(chunks.size()), Cores::work, never, &cores), "ran to its end", threads);
      check(cores.shared == 0 && cores.elsewhere > 0, "no worker on the driver's core", threads);
    }
  sched_setaffinity(0, sizeof all, &all);
}
#endif

void stopping(int threads) {
  Pool pool(threads);
  std::mt19937 random(7);
  struct Stopped {
    int stopAt = 0, asked = 0, lastStage = -1;  // plain: `stop` and a stage's only chunk follow one another
  };
  bool ok = true;
  for (int i = 0; i < 300; ++i) {
    Stopped s;
    s.stopAt = int(random() % 25);
    const std::vector<int> chunks(20, 1);
    const bool finished = pool.run(
        chunks.data(), 20,
        [](void* context, int stage, int, int) { static_cast<Stopped*>(context)->lastStage = stage; },
        [](void* context) {
          Stopped& t = *static_cast<Stopped*>(context);
          return t.asked++ == t.stopAt;
        },
        &s);
    const int last = std::min(s.stopAt, 20) - 1;
    ok &= finished == (s.stopAt >= 20) && s.lastStage == last && s.asked == std::min(s.stopAt + 1, 20);
    if (i % 20 == 0) ok &= runOrdered(pool, {4, 4});
  }
  check(ok, "stop skips the remaining stages, and the pool stays usable", threads);

  // Stopped by another thread, at any moment.
  std::atomic<bool> cancelled{false};
  std::thread canceller([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    cancelled = true;
  });
  const std::vector<int> chunks(60000, 2);
  bool finished = true;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (finished && std::chrono::steady_clock::now() < end) {
    finished = pool.run(
        chunks.data(), int(chunks.size()), [](void*, int, int, int) {},
        [](void* context) { return static_cast<std::atomic<bool>*>(context)->load(std::memory_order_relaxed); },
        &cancelled);
  }
  canceller.join();
  check(!finished, "stop from another thread", threads);
}

void concurrentRuns(int threads) {
  Pool pool(threads);
  std::atomic<int> wrong{0}, inside{0};
  struct Turn {
    std::atomic<int>*inside, *wrong;
    int id;
  };
  std::vector<std::thread> callers;
  for (int id = 1; id <= 3; ++id) {
    callers.emplace_back([&, id] {
      std::mt19937 random{unsigned(id)};
      for (int i = 0; i < 200; ++i) {
        if (!runOrdered(pool, randomChunks(random, 10, 10))) ++wrong;
        Turn turn{&inside, &wrong, id};
        const int chunks[] = {3, 3};
        pool.run(
            chunks, 2,
            [](void* context, int stage, int, int) {
              Turn& t = *static_cast<Turn*>(context);
              const int before = t.inside->exchange(t.id);
              if (stage == 1 && before != t.id) ++*t.wrong;  // another caller's run in the middle of this one
            },
            never, &turn);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  check(wrong == 0, "concurrent runs take turns", threads);
}

void lifetimes(int threads) {
  bool ok = true;
  for (int i = 0; i < 100; ++i) {
    Pool pool(threads);
    if (i % 3 == 0) continue;
    ok &= runOrdered(pool, {threads, 1, 9});
    if (i % 3 == 1) ok &= runOrdered(pool, {1, 2, 3});
  }
  Pool a(threads), b(threads);
  std::thread other([&] {
    for (int i = 0; i < 200; ++i) ok &= runOrdered(b, {6, 6, 6});
  });
  bool mine = true;
  for (int i = 0; i < 200; ++i) mine &= runOrdered(a, {6, 6, 6});
  other.join();
  check(ok && mine, "pools come, go and live side by side", threads);
}

void badThreads() {
  for (const int threads : {0, -1, Pool::kMaxThreads + 1}) {
    bool refused = false;
    try {
      Pool pool(threads);
    } catch (const std::invalid_argument&) {
      refused = true;
    }
    check(refused, "a bad count of threads is refused", threads);
  }
}

// A pass of 240 stages of 8 chunks, empty and with about 5 us of work a chunk (its time alone is the "ideal").
void measure() {
  struct Work {
    int spins;
  };
  const auto work = [](void* context, int, int, int) {
    for (volatile int i = 0; i < static_cast<Work*>(context)->spins; i = i + 1) {
    }
  };
  const std::vector<int> chunks(240, 8);
  for (const int spins : {0, 4000}) {
    for (const int threads : {1, 2, 3, 4}) {
      Pool pool(threads);
      Work w{spins};
      std::vector<double> passes;
      const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(1500);
      while (std::chrono::steady_clock::now() < end) {
        const auto begin = std::chrono::steady_clock::now();
        pool.run(chunks.data(), int(chunks.size()), work, never, &w);
        passes.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count());
      }
      std::sort(passes.begin(), passes.end());
      double mean = 0;
      for (const double p : passes) mean += p / double(passes.size());
      std::printf("%d threads, %s chunks: pass median %.0f us (%.0f ns a stage), mean %.0f, 95%% %.0f, worst %.0f\n",
                  threads, spins ? "working" : "empty", passes[passes.size() / 2],
                  passes[passes.size() / 2] * 1000 / 240, mean, passes[passes.size() * 95 / 100], passes.back());
    }
  }
}

// A broken pool hangs more often than it miscounts: end with a line that says so.
void failWhenHung() {
  std::thread([] {
    std::this_thread::sleep_for(std::chrono::seconds(100));
    std::printf("FAILED: hung\n%d passed, %d failed\n", passed.load(), failed.load() + 1);
    std::fflush(stdout);
    std::_Exit(1);
  }).detach();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "measure") == 0) {
    measure();
    return 0;
  }
  failWhenHung();
  for (const int threads : {1, 2, 3, 4, 5, 6, 7, 8}) {
    randomRuns(threads);
    edges(threads);
    parking(threads);
    allThreadsWork(threads);
    awaited(threads);
#if defined(__linux__)
    coresOfTheirOwn(threads);
#endif
    stopping(threads);
    concurrentRuns(threads);
    lifetimes(threads);
  }
  badThreads();
  std::printf("%d passed, %d failed\n", passed.load(), failed.load());
  return failed == 0 ? 0 : 1;
}
