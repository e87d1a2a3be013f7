// Node-API's values in this module's memory, and the calls that src/runtime/wasm.ts makes.
//
// JavaScript writes the arguments of a call into one message and reads the result from another. A message is a tree of
// records of whole eight bytes: int32 kind, int32 detail, then
//   undefined: nothing; boolean: nothing, the detail is its value; number: float64; external: int32 pointer, int32 0;
//   string: detail bytes of UTF-8; array: detail values; object: detail pairs of string and value;
//   typed array: the detail is its napi_typedarray_type; int32 length, int32 bytes, then the bytes.
// A result begins with one record more: its kind says what the call came to (Outcome).
//
// Calls come from the thread that loaded the module; work runs on any, without touching a value.
#include "node_api.h"

#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <new>
#include <set>
#include <string>
#include <utility>
#include <vector>

#define EXPORT(name) [[clang::export_name(#name)]]

namespace {
enum class Kind : int32_t { undefined, boolean, number, string, array, object, typedArray, external };
enum class Outcome : int32_t { value, error, work };

struct External {
  void* data;
  napi_finalize finalize;
  void* hint;
  napi_type_tag tag;
};

// A call's message, kept while a reference to one of its values lives.
struct Message {
  explicit Message(uint8_t* b) : bytes(b) {}
  ~Message() { std::free(bytes); }
  uint8_t* bytes;
};

size_t elementBytes(napi_typedarray_type type) {
  switch (type) {
    case napi_int16_array:
    case napi_uint16_array: return 2;
    case napi_int32_array:
    case napi_uint32_array:
    case napi_float32_array: return 4;
    case napi_float64_array: return 8;
    default: return 1;
  }
}
}  // namespace

struct Value {
  Kind kind = Kind::undefined;
  bool boolean = false;
  double number = 0;
  std::string string;
  std::vector<Value*> items;                            // array
  std::vector<std::pair<std::string, Value*>> members;  // object
  napi_typedarray_type type = napi_int8_array;
  size_t length = 0;  // elements of a typed array
  const uint8_t* data = nullptr;
  std::vector<uint64_t> own;  // the data of an array that the core made
  External* external = nullptr;
  napi_callback callback = nullptr;
  bool promise = false;
  std::shared_ptr<Message> message;
};

struct CallInfo { std::vector<Value*> arguments; };
struct Deferred {};
struct Reference { std::shared_ptr<Message> message; };
struct Work {
  napi_async_execute_callback execute;
  napi_async_complete_callback complete;
  void* data;
};

struct Environment {
  std::deque<Value> values;  // of the call under way
  Value* exception = nullptr;
  Value* settled = nullptr;
  bool rejected = false;
  Work* queued = nullptr;
  std::set<External*> externals;
  std::vector<std::pair<std::string, napi_callback>> functions;
  std::vector<uint64_t> result;
};

namespace {

Environment& environment() {
  static Environment* one = new Environment;
  return *one;
}
Value* make(napi_env env, Kind kind) {
  env->values.emplace_back();
  env->values.back().kind = kind;
  return &env->values.back();
}

struct Malformed {};

class Reader {
 public:
  Reader(napi_env env, std::shared_ptr<Message> message, size_t bytes) : env_(env), message_(std::move(message)), at_(message_->bytes), end_(at_ + bytes) {}
  Value* value(int depth = 0) {
    const uint8_t* head = take(8);
    Value* v = make(env_, Kind(int32(head)));
    const int32_t detail = int32(head + 4);
    if (depth > 8) throw Malformed();
    switch (v->kind) {
      case Kind::undefined: break;
      case Kind::boolean: v->boolean = detail != 0; break;
      case Kind::number: std::memcpy(&v->number, take(8), 8); break;
      case Kind::string: v->string = text(detail); break;
      case Kind::array:
        for (int32_t i = 0; i < detail; i++) v->items.push_back(value(depth + 1));
        break;
      case Kind::object:
        for (int32_t i = 0; i < detail; i++) {
          Value* name = value(depth + 1);
          if (name->kind != Kind::string) throw Malformed();
          v->members.emplace_back(name->string, value(depth + 1));
        }
        break;
      case Kind::typedArray: {
        const uint8_t* size = take(8);
        v->type = napi_typedarray_type(detail);
        v->length = size_t(int32(size));
        const size_t bytes = size_t(int32(size + 4));
        if (v->length > bytes || v->length * elementBytes(v->type) != bytes) throw Malformed();
        v->data = take(bytes);
        v->message = message_;
        break;
      }
      case Kind::external: {
        auto* external = reinterpret_cast<External*>(uintptr_t(int32(take(8))));
        if (env_->externals.count(external) == 0) throw Malformed();
        v->external = external;
        break;
      }
      default: throw Malformed();
    }
    return v;
  }

 private:
  static int32_t int32(const uint8_t* p) { int32_t i; std::memcpy(&i, p, 4); return i; }
  const uint8_t* take(size_t bytes) {
    const size_t padded = (bytes + 7) / 8 * 8;
    if (padded < bytes || padded > size_t(end_ - at_)) throw Malformed();
    const uint8_t* p = at_;
    at_ += padded;
    return p;
  }
  std::string text(int32_t bytes) { return std::string(reinterpret_cast<const char*>(take(size_t(bytes))), size_t(bytes)); }
  napi_env env_;
  std::shared_ptr<Message> message_;
  const uint8_t* at_;
  const uint8_t* end_;
};

void put(std::vector<uint64_t>& out, int32_t a, int32_t b) { out.push_back(uint32_t(a) | uint64_t(uint32_t(b)) << 32); }
void putBytes(std::vector<uint64_t>& out, const void* from, size_t bytes) {
  const size_t at = out.size();
  out.resize(at + (bytes + 7) / 8);
  if (bytes > 0) std::memcpy(&out[at], from, bytes);
}
void write(std::vector<uint64_t>& out, const Value* v) {
  if (!v) return put(out, int32_t(Kind::undefined), 0);
  switch (v->kind) {
    case Kind::undefined: put(out, int32_t(v->kind), 0); break;
    case Kind::boolean: put(out, int32_t(v->kind), v->boolean); break;
    case Kind::number:
      put(out, int32_t(v->kind), 0);
      putBytes(out, &v->number, 8);
      break;
    case Kind::string:
      put(out, int32_t(v->kind), int32_t(v->string.size()));
      putBytes(out, v->string.data(), v->string.size());
      break;
    case Kind::array:
      put(out, int32_t(v->kind), int32_t(v->items.size()));
      for (const Value* item : v->items) write(out, item);
      break;
    case Kind::object:
      put(out, int32_t(v->kind), int32_t(v->members.size()));
      for (const auto& [name, member] : v->members) {
        put(out, int32_t(Kind::string), int32_t(name.size()));
        putBytes(out, name.data(), name.size());
        write(out, member);
      }
      break;
    case Kind::typedArray: {
      const size_t bytes = v->length * elementBytes(v->type);
      put(out, int32_t(v->kind), v->type);
      put(out, int32_t(v->length), int32_t(bytes));
      putBytes(out, v->data, bytes);
      break;
    }
    case Kind::external:
      put(out, int32_t(v->kind), 0);
      put(out, int32_t(uintptr_t(v->external)), 0);
      break;
  }
}

// Writes what a call came to and forgets its values.
uint64_t* finish(napi_env env, Outcome outcome, const Value* v, int32_t detail = 0) {
  env->result.clear();
  put(env->result, int32_t(outcome), detail);
  write(env->result, v);
  env->values.clear();
  env->exception = nullptr;
  env->settled = nullptr;
  env->queued = nullptr;
  return env->result.data();
}
const Value* error(napi_env env, const char* message) {
  Value *code, *text, *e;
  napi_create_string_utf8(env, "ERR_PROGRAM", NAPI_AUTO_LENGTH, &code);
  napi_create_string_utf8(env, message, NAPI_AUTO_LENGTH, &text);
  napi_create_error(env, code, text, &e);
  return e;
}

}  // namespace

extern "C" {

// The names of the functions, an array of strings in the order in which `outrider_call` counts them.
EXPORT(outrider_functions) const uint64_t* outrider_functions() {
  Environment& env = environment();
  if (env.functions.empty()) outrider_register(&env, make(&env, Kind::object));
  Value* names = make(&env, Kind::array);
  for (const auto& [name, callback] : env.functions) {
    Value* text;
    napi_create_string_utf8(&env, name.c_str(), name.size(), &text);
    names->items.push_back(text);
  }
  return finish(&env, Outcome::value, names);
}

// message: from `malloc`, an array of the arguments; it belongs to the call from here on. The result stays until the next.
EXPORT(outrider_call) const uint64_t* outrider_call(int32_t function, uint8_t* bytes, size_t size) {
  Environment& env = environment();
  try {
    const auto message = std::make_shared<Message>(bytes);
    if (function < 0 || size_t(function) >= env.functions.size()) throw Malformed();
    CallInfo info{Reader(&env, message, size).value()->items};
    const Value* v = env.functions[size_t(function)].second(&env, &info);
    if (env.exception) return finish(&env, Outcome::error, env.exception);
    if (v && v->promise) return finish(&env, Outcome::work, nullptr, int32_t(uintptr_t(env.queued)));
    return finish(&env, Outcome::value, v);
  } catch (const Malformed&) {
    return finish(&env, Outcome::error, error(&env, "native call: a malformed value"));
  } catch (const std::bad_alloc&) {
    return finish(&env, Outcome::error, error(&env, "native call: out of memory"));
  }
}

EXPORT(outrider_execute) void outrider_execute(Work* work) { work->execute(nullptr, work->data); }

EXPORT(outrider_complete) const uint64_t* outrider_complete(Work* work) {
  Environment& env = environment();
  work->complete(&env, napi_ok, work->data);
  return finish(&env, env.rejected ? Outcome::error : Outcome::value, env.settled);
}

EXPORT(outrider_finalize) void outrider_finalize(External* external) {
  Environment& env = environment();
  if (env.externals.erase(external) == 0) return;
  if (external->finalize) external->finalize(&env, external->data, external->hint);
  delete external;
}

napi_status napi_get_last_error_info(napi_env, const napi_extended_error_info** out) {
  static const napi_extended_error_info info{"a value of another type was expected"};
  *out = &info;
  return napi_ok;
}
napi_status napi_is_exception_pending(napi_env env, bool* out) { *out = env->exception != nullptr; return napi_ok; }
napi_status napi_throw(napi_env env, napi_value v) { env->exception = v; return napi_ok; }
napi_status napi_create_error(napi_env env, napi_value code, napi_value message, napi_value* out) {
  *out = make(env, Kind::object);
  (*out)->members = {{"code", code}, {"message", message}};
  return napi_ok;
}

napi_status napi_get_cb_info(napi_env env, napi_callback_info info, size_t* count, napi_value* arguments, napi_value*, void**) {
  for (size_t i = 0; i < *count; i++) arguments[i] = i < info->arguments.size() ? info->arguments[i] : make(env, Kind::undefined);
  *count = info->arguments.size();
  return napi_ok;
}
napi_status napi_create_function(napi_env env, const char* name, size_t, napi_callback callback, void*, napi_value* out) {
  env->functions.emplace_back(name, callback);
  *out = make(env, Kind::undefined);
  return napi_ok;
}

napi_status napi_typeof(napi_env, napi_value v, napi_valuetype* out) {
  switch (v->kind) {
    case Kind::undefined: *out = napi_undefined; break;
    case Kind::boolean: *out = napi_boolean; break;
    case Kind::number: *out = napi_number; break;
    case Kind::string: *out = napi_string; break;
    case Kind::external: *out = napi_external; break;
    default: *out = napi_object;
  }
  return napi_ok;
}
napi_status napi_get_undefined(napi_env env, napi_value* out) { *out = make(env, Kind::undefined); return napi_ok; }
napi_status napi_get_boolean(napi_env env, bool b, napi_value* out) {
  *out = make(env, Kind::boolean);
  (*out)->boolean = b;
  return napi_ok;
}
napi_status napi_create_double(napi_env env, double d, napi_value* out) {
  *out = make(env, Kind::number);
  (*out)->number = d;
  return napi_ok;
}
napi_status napi_create_string_utf8(napi_env env, const char* text, size_t length, napi_value* out) {
  *out = make(env, Kind::string);
  (*out)->string = length == NAPI_AUTO_LENGTH ? std::string(text) : std::string(text, length);
  return napi_ok;
}
napi_status napi_get_value_double(napi_env, napi_value v, double* out) {
  if (v->kind != Kind::number) return napi_invalid_arg;
  *out = v->number;
  return napi_ok;
}
napi_status napi_get_value_bool(napi_env, napi_value v, bool* out) {
  if (v->kind != Kind::boolean) return napi_invalid_arg;
  *out = v->boolean;
  return napi_ok;
}
napi_status napi_get_value_string_utf8(napi_env, napi_value v, char* buffer, size_t size, size_t* length) {
  if (v->kind != Kind::string || size == 0) return napi_invalid_arg;
  *length = v->string.size() < size ? v->string.size() : size - 1;
  std::memcpy(buffer, v->string.data(), *length);
  buffer[*length] = 0;
  return napi_ok;
}

napi_status napi_create_object(napi_env env, napi_value* out) { *out = make(env, Kind::object); return napi_ok; }
napi_status napi_set_named_property(napi_env, napi_value object, const char* name, napi_value v) {
  if (object->kind != Kind::object) return napi_invalid_arg;
  object->members.emplace_back(name, v);
  return napi_ok;
}
napi_status napi_get_named_property(napi_env env, napi_value object, const char* name, napi_value* out) {
  if (object->kind != Kind::object) return napi_invalid_arg;
  for (const auto& [key, member] : object->members)
    if (key == name) { *out = member; return napi_ok; }
  return napi_get_undefined(env, out);
}
napi_status napi_create_array(napi_env env, napi_value* out) { *out = make(env, Kind::array); return napi_ok; }
napi_status napi_get_array_length(napi_env, napi_value v, uint32_t* out) {
  if (v->kind != Kind::array) return napi_invalid_arg;
  *out = uint32_t(v->items.size());
  return napi_ok;
}
napi_status napi_get_element(napi_env env, napi_value v, uint32_t i, napi_value* out) {
  if (v->kind != Kind::array) return napi_invalid_arg;
  if (i >= v->items.size()) return napi_get_undefined(env, out);
  *out = v->items[i];
  return napi_ok;
}
napi_status napi_set_element(napi_env env, napi_value v, uint32_t i, napi_value item) {
  if (v->kind != Kind::array) return napi_invalid_arg;
  while (v->items.size() <= i) v->items.push_back(make(env, Kind::undefined));
  v->items[i] = item;
  return napi_ok;
}

napi_status napi_is_typedarray(napi_env, napi_value v, bool* out) { *out = v->kind == Kind::typedArray; return napi_ok; }
napi_status napi_get_typedarray_info(napi_env, napi_value v, napi_typedarray_type* type, size_t* length, void** data, napi_value*, size_t*) {
  if (v->kind != Kind::typedArray) return napi_invalid_arg;
  if (type) *type = v->type;
  if (length) *length = v->length;
  if (data) *data = const_cast<uint8_t*>(v->data);
  return napi_ok;
}
napi_status napi_create_arraybuffer(napi_env env, size_t bytes, void** data, napi_value* out) {
  *out = make(env, Kind::typedArray);
  (*out)->own.resize((bytes + 7) / 8);
  (*out)->data = reinterpret_cast<const uint8_t*>((*out)->own.data());
  *data = (*out)->own.data();
  return napi_ok;
}
napi_status napi_create_typedarray(napi_env, napi_typedarray_type type, size_t length, napi_value buffer, size_t offset, napi_value* out) {
  if (offset != 0 || length * elementBytes(type) > buffer->own.size() * 8) return napi_invalid_arg;
  buffer->type = type;
  buffer->length = length;
  *out = buffer;
  return napi_ok;
}

napi_status napi_create_external(napi_env env, void* data, napi_finalize finalize, void* hint, napi_value* out) {
  *out = make(env, Kind::external);
  (*out)->external = new External{data, finalize, hint, {}};
  env->externals.insert((*out)->external);
  return napi_ok;
}
napi_status napi_get_value_external(napi_env, napi_value v, void** out) {
  if (v->kind != Kind::external) return napi_invalid_arg;
  *out = v->external->data;
  return napi_ok;
}
napi_status napi_type_tag_object(napi_env, napi_value v, const napi_type_tag* tag) {
  if (v->kind != Kind::external) return napi_invalid_arg;
  v->external->tag = *tag;
  return napi_ok;
}
napi_status napi_check_object_type_tag(napi_env, napi_value v, const napi_type_tag* tag, bool* out) {
  if (v->kind != Kind::external) return napi_invalid_arg;
  *out = v->external->tag.lower == tag->lower && v->external->tag.upper == tag->upper;
  return napi_ok;
}

// Values live until their call ends.
napi_status napi_open_handle_scope(napi_env, napi_handle_scope* out) { *out = nullptr; return napi_ok; }
napi_status napi_close_handle_scope(napi_env, napi_handle_scope) { return napi_ok; }
napi_status napi_create_reference(napi_env, napi_value v, uint32_t, napi_ref* out) {
  *out = new Reference{v->message};
  return napi_ok;
}
napi_status napi_delete_reference(napi_env, napi_ref ref) { delete ref; return napi_ok; }

// A call that gives a promise gives the work that settles it.
napi_status napi_create_promise(napi_env env, napi_deferred* deferred, napi_value* out) {
  static Deferred one;
  *deferred = &one;
  *out = make(env, Kind::undefined);
  (*out)->promise = true;
  return napi_ok;
}
napi_status napi_resolve_deferred(napi_env env, napi_deferred, napi_value v) { env->settled = v; env->rejected = false; return napi_ok; }
napi_status napi_reject_deferred(napi_env env, napi_deferred, napi_value v) { env->settled = v; env->rejected = true; return napi_ok; }
napi_status napi_create_async_work(napi_env, napi_value, napi_value, napi_async_execute_callback execute, napi_async_complete_callback complete, void* data, napi_async_work* out) {
  *out = new Work{execute, complete, data};
  return napi_ok;
}
napi_status napi_queue_async_work(napi_env env, napi_async_work work) { env->queued = work; return napi_ok; }
napi_status napi_delete_async_work(napi_env, napi_async_work work) { delete work; return napi_ok; }

}  // extern "C"
