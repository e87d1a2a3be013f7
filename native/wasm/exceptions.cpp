// C++ exceptions over WebAssembly's: Debian's libc++abi for this target is built without. Clang emits a landing pad that
// leaves its index and its function's table (LSDA) in __wasm_lpad_context, asks _Unwind_CallPersonality which of its
// clauses takes the exception, and throws on where none does.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <typeinfo>

namespace {

using Destructor = void* (*)(void*);  // returns its argument on this target

struct Thrown {
  const std::type_info* type;
  Destructor destroy;
  void* adjusted;  // the object as the clause that takes it sees it
  int handlers;    // clauses that it is in
  bool rethrown;
  Thrown* next;    // the exception caught before
};
constexpr size_t kHeader = (sizeof(Thrown) + 15) / 16 * 16;
Thrown* headerOf(void* object) { return reinterpret_cast<Thrown*>(static_cast<char*>(object) - kHeader); }
void* objectOf(Thrown* thrown) { return reinterpret_cast<char*>(thrown) + kHeader; }
thread_local Thrown* caught = nullptr;

// libc++abi's own type information, by the layout of its virtual table (private_typeinfo.h).
struct TypeInfo : std::type_info {
  virtual void noop1() const = 0;
  virtual void noop2() const = 0;
  virtual bool canCatch(const TypeInfo* thrown, void*& adjusted) const = 0;
};

uintptr_t readUnsigned(const uint8_t*& p) {  // LEB128
  uintptr_t value = 0;
  for (int shift = 0;; shift += 7) {
    const uint8_t byte = *p++;
    value |= uintptr_t(byte & 0x7f) << shift;
    if (!(byte & 0x80)) return value;
  }
}
intptr_t readSigned(const uint8_t*& p) {
  intptr_t value = 0;
  for (int shift = 0;;) {
    const uint8_t byte = *p++;
    value |= intptr_t(byte & 0x7f) << shift;
    shift += 7;
    if (byte & 0x80) continue;
    return shift < 32 && (byte & 0x40) ? value | -(intptr_t(1) << shift) : value;
  }
}

constexpr uint8_t kOmitted = 0xff;

}  // namespace

extern "C" {

struct LandingPad {
  uintptr_t index;
  const uint8_t* table;
  uintptr_t selector;
};
thread_local LandingPad __wasm_lpad_context;

int _Unwind_CallPersonality(void* object) {
  LandingPad& pad = __wasm_lpad_context;
  pad.selector = 0;
  const uint8_t* p = pad.table;
  if (!p) return 0;
  Thrown* thrown = headerOf(object);
  if (*p++ != kOmitted) readUnsigned(p);  // start of the landing pads
  const uint8_t* types = nullptr;
  if (*p++ != kOmitted) {
    const uintptr_t offset = readUnsigned(p);
    types = p + offset;
  }
  p++;  // encoding of the call sites: LEB128
  const uintptr_t length = readUnsigned(p);
  const uint8_t* actions = p + length;
  for (const uint8_t* end = actions; p < end;) {
    const uintptr_t index = readUnsigned(p), action = readUnsigned(p);
    if (index != pad.index) continue;
    if (action == 0) return 0;  // clean-up alone
    for (const uint8_t* record = actions + action - 1;;) {
      const intptr_t filter = readSigned(record);
      if (filter > 0) {
        const TypeInfo* type;
        std::memcpy(&type, types - filter * sizeof type, sizeof type);
        void* adjusted = object;
        if (!type || type->canCatch(static_cast<const TypeInfo*>(thrown->type), adjusted)) {
          thrown->adjusted = adjusted;
          pad.selector = uintptr_t(filter);
          return 0;
        }
      }
      const uint8_t* next = record;
      const intptr_t offset = readSigned(next);
      if (offset == 0) return 0;
      record += offset;
    }
  }
  return 0;
}

void* __cxa_allocate_exception(size_t size) noexcept {
  char* p = static_cast<char*>(std::malloc(kHeader + size));
  if (!p) std::abort();
  std::memset(p, 0, kHeader);
  return p + kHeader;
}
void __cxa_free_exception(void* object) noexcept { std::free(headerOf(object)); }

[[noreturn]] void __cxa_throw(void* object, std::type_info* type, Destructor destroy) {
  Thrown* thrown = headerOf(object);
  thrown->type = type;
  thrown->destroy = destroy;
  thrown->adjusted = object;
  __builtin_wasm_throw(0, object);
}

void* __cxa_begin_catch(void* object) noexcept {
  Thrown* thrown = headerOf(object);
  if (thrown->handlers++ == 0) {
    thrown->next = caught;
    caught = thrown;
  }
  thrown->rethrown = false;
  return thrown->adjusted;
}

void __cxa_end_catch() {
  Thrown* thrown = caught;
  if (!thrown || --thrown->handlers > 0) return;
  caught = thrown->next;
  if (thrown->rethrown) return;
  if (thrown->destroy) thrown->destroy(objectOf(thrown));
  std::free(thrown);
}

[[noreturn]] void __cxa_rethrow() {
  Thrown* thrown = caught;
  if (!thrown) std::terminate();
  thrown->rethrown = true;
  __builtin_wasm_throw(0, objectOf(thrown));
}

}  // extern "C"

void* operator new(size_t size) {
  if (void* p = std::malloc(size ? size : 1)) return p;
  throw std::bad_alloc();
}
void* operator new[](size_t size) { return operator new(size); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t) noexcept { std::free(p); }
void* operator new(size_t size, std::align_val_t alignment) {
  const size_t align = size_t(alignment);
  if (void* p = std::aligned_alloc(align, (size + align - 1) / align * align)) return p;
  throw std::bad_alloc();
}
void* operator new[](size_t size, std::align_val_t alignment) { return operator new(size, alignment); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t, std::align_val_t) noexcept { std::free(p); }
