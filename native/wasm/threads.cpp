// Threads where the C library has none: locks on atomic waits, threads that the host starts as workers over the same
// memory, an allocator that several of them may call.
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>

#define IMPORT(name) [[clang::import_module("outrider"), clang::import_name(#name)]]
#define EXPORT(name) [[clang::export_name(#name)]]

// Starts a worker that calls outrider_thread(thread) on a stack of its own; not 0 where it cannot.
extern "C" IMPORT(spawn) int outrider_spawn(void* thread);
extern "C" IMPORT(processors) int outrider_processors();

namespace {
constexpr int64_t kForever = -1;

// Not inlined, so that the instructions have no offset: V8 11.3's baseline compiler (Node 20) adds one to the register of
// the address, and a loop around it then reads from the wrong place.
[[gnu::noinline]] void wait(int* word, int seen, int64_t nanoseconds) { __builtin_wasm_memory_atomic_wait32(word, seen, nanoseconds); }
[[gnu::noinline]] void wake(int* word, unsigned count) { __builtin_wasm_memory_atomic_notify(word, count); }

struct ThreadExit {
  void (*destroy)(void*);
  void* object;
  ThreadExit* next;
};
thread_local ThreadExit* exits = nullptr;
thread_local void* threadData = nullptr;  // the one value that libc++ keeps a thread
}  // namespace

_LIBCPP_BEGIN_NAMESPACE_STD

void __outrider_lock(int* m) {
  int seen = 0;
  if (__atomic_compare_exchange_n(m, &seen, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) return;
  while (__atomic_exchange_n(m, 2, __ATOMIC_ACQUIRE) != 0) ::wait(m, 2, kForever);
}
bool __outrider_try_lock(int* m) {
  int seen = 0;
  return __atomic_compare_exchange_n(m, &seen, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}
void __outrider_unlock(int* m) {
  if (__atomic_exchange_n(m, 0, __ATOMIC_RELEASE) == 2) wake(m, 1);
}

int __libcpp_condvar_signal(__libcpp_condvar_t* c) {
  __atomic_fetch_add(c, 1, __ATOMIC_SEQ_CST);
  wake(c, 1);
  return 0;
}
int __libcpp_condvar_broadcast(__libcpp_condvar_t* c) {
  __atomic_fetch_add(c, 1, __ATOMIC_SEQ_CST);
  wake(c, ~0u);
  return 0;
}
int __libcpp_condvar_wait(__libcpp_condvar_t* c, __libcpp_mutex_t* m) {
  const int seen = __atomic_load_n(c, __ATOMIC_SEQ_CST);
  __outrider_unlock(m);
  ::wait(c, seen, kForever);
  __outrider_lock(m);
  return 0;
}

struct __outrider_thread {
  void* (*run)(void*);
  void* argument;
  int finished;
};
static thread_local __outrider_thread* current = nullptr;

int __libcpp_thread_create(__libcpp_thread_t* t, void* (*run)(void*), void* argument) {
  *t = new __outrider_thread{run, argument, 0};
  const int failed = outrider_spawn(*t);
  if (failed == 0) return 0;
  delete *t;
  *t = nullptr;
  return failed;
}
__libcpp_thread_id __libcpp_thread_get_current_id() { return current; }
int __libcpp_thread_join(__libcpp_thread_t* t) {
  while (__atomic_load_n(&(*t)->finished, __ATOMIC_ACQUIRE) == 0) ::wait(&(*t)->finished, 0, kForever);
  delete *t;
  return 0;
}
void __libcpp_thread_yield() {}
void __libcpp_thread_sleep_for(const chrono::nanoseconds& time) {
  int never = 0;
  ::wait(&never, 0, time.count());
}

int __libcpp_thread_detach(__libcpp_thread_t*) { return 0; }  // its few bytes stay

int __libcpp_tls_create(__libcpp_tls_key* key, void (*)(void*)) { *key = 0; return 0; }
void* __libcpp_tls_get(__libcpp_tls_key) { return threadData; }
int __libcpp_tls_set(__libcpp_tls_key, void* value) { threadData = value; return 0; }

// What libc++ compiles into its own library where it has threads.
mutex::~mutex() noexcept {}
void mutex::lock() { __outrider_lock(&__m_); }
bool mutex::try_lock() noexcept { return __outrider_try_lock(&__m_); }
void mutex::unlock() noexcept { __outrider_unlock(&__m_); }
condition_variable::~condition_variable() {}
void condition_variable::notify_one() noexcept { __libcpp_condvar_signal(&__cv_); }
void condition_variable::notify_all() noexcept { __libcpp_condvar_broadcast(&__cv_); }
void condition_variable::wait(unique_lock<mutex>& lock) noexcept { __libcpp_condvar_wait(&__cv_, lock.mutex()->native_handle()); }
thread::~thread() {
  if (!__libcpp_thread_isnull(&__t_)) terminate();
}
void thread::join() {
  __libcpp_thread_join(&__t_);
  __t_ = _LIBCPP_NULL_THREAD;
}
void thread::detach() {
  __libcpp_thread_detach(&__t_);
  __t_ = _LIBCPP_NULL_THREAD;
}
void this_thread::sleep_for(const chrono::nanoseconds& time) { __libcpp_thread_sleep_for(time); }
unsigned thread::hardware_concurrency() noexcept { return unsigned(outrider_processors()); }
class __thread_struct_imp {};
__thread_struct::__thread_struct() : __p_(nullptr) {}
__thread_struct::~__thread_struct() {}
__thread_specific_ptr<__thread_struct>& __thread_local_data() {
  alignas(__thread_specific_ptr<__thread_struct>) static char storage[sizeof(__thread_specific_ptr<__thread_struct>)];
  static __thread_specific_ptr<__thread_struct>* pointer = new (storage) __thread_specific_ptr<__thread_struct>();
  return *pointer;
}

_LIBCPP_END_NAMESPACE_STD

extern "C" {

EXPORT(outrider_thread) void outrider_thread(void* pointer) {
  auto* thread = static_cast<std::__outrider_thread*>(pointer);
  std::current = thread;
  thread->run(thread->argument);
  while (ThreadExit* last = exits) {
    exits = last->next;
    last->destroy(last->object);
    delete last;
  }
  delete static_cast<std::__thread_struct*>(threadData);
  __atomic_store_n(&thread->finished, 1, __ATOMIC_RELEASE);
  wake(&thread->finished, 1);
}

int __cxa_thread_atexit(void (*destroy)(void*), void* object, void*) {
  exits = new ThreadExit{destroy, object, exits};
  return 0;
}

// The linker gives every call of malloc and its kin to these (--wrap).
void* __real_malloc(size_t);
void* __real_calloc(size_t, size_t);
void* __real_realloc(void*, size_t);
void* __real_aligned_alloc(size_t, size_t);
void __real_free(void*);

static int heap = 0;
struct HeapLock {
  HeapLock() { std::__outrider_lock(&heap); }
  ~HeapLock() { std::__outrider_unlock(&heap); }
};
EXPORT(malloc) void* __wrap_malloc(size_t size) { const HeapLock lock; return __real_malloc(size); }
void* __wrap_calloc(size_t count, size_t size) { const HeapLock lock; return __real_calloc(count, size); }
void* __wrap_realloc(void* p, size_t size) { const HeapLock lock; return __real_realloc(p, size); }
void* __wrap_aligned_alloc(size_t alignment, size_t size) { const HeapLock lock; return __real_aligned_alloc(alignment, size); }
EXPORT(free) void __wrap_free(void* p) { const HeapLock lock; __real_free(p); }

}  // extern "C"
