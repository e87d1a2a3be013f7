// The Node-API face of the core: checks JavaScript's values, hands work to libuv's threads, gives back plain arrays.
// A handle is an external that owns one reference; closing it drops that reference, and what still runs keeps its own.
#define NAPI_VERSION 8
#include <node_api.h>

#include <climits>
#include <cstdlib>
#include <cstring>
#include <cmath>
#include <functional>

#include "bandwidth.h"
#include "error.h"
#include "program.h"
#include "quantise.h"

#ifndef OUTRIDER_SOURCE_HASH
#define OUTRIDER_SOURCE_HASH "development"
#endif

#if defined(__GLIBC__)
// The static C++ library brings std::random_device along, which nobody here uses and which calls a function that glibc
// has only since 2.36. Defined here, the addon loads with older ones (2.34 on).
extern "C" [[gnu::visibility("hidden")]] uint32_t arc4random() noexcept { std::abort(); }
#endif

namespace outrider {
namespace {

// Found by scripts in the built file without loading it.
const char kSourceHash[] = "outrider-source-hash:" OUTRIDER_SOURCE_HASH;

using Cancel = std::atomic<bool>;

template <class T> struct Tag;
template <> struct Tag<Core> { static constexpr napi_type_tag tag{0x6f757472696465ull, 1}; static constexpr const char* name = "core"; };
template <> struct Tag<Weight> { static constexpr napi_type_tag tag{0x6f757472696465ull, 2}; static constexpr const char* name = "weight"; };
template <> struct Tag<Cache> { static constexpr napi_type_tag tag{0x6f757472696465ull, 3}; static constexpr const char* name = "cache"; };
template <> struct Tag<Program> { static constexpr napi_type_tag tag{0x6f757472696465ull, 4}; static constexpr const char* name = "program"; };
template <> struct Tag<Arena> { static constexpr napi_type_tag tag{0x6f757472696465ull, 6}; static constexpr const char* name = "arena"; };
template <> struct Tag<Cancel> { static constexpr napi_type_tag tag{0x6f757472696465ull, 5}; static constexpr const char* name = "cancel"; };

struct Holder {
  virtual ~Holder() = default;
  virtual void close() = 0;
};
template <class T>
struct HolderOf : Holder {
  explicit HolderOf(std::shared_ptr<T> v) : value(std::move(v)) {}
  void close() override { value.reset(); }
  std::shared_ptr<T> value;
};

struct JsError {};  // an exception is pending in JavaScript

void check(napi_env env, napi_status status) {
  if (status == napi_ok) return;
  bool pending = false;
  napi_is_exception_pending(env, &pending);
  if (pending) throw JsError{};
  const napi_extended_error_info* info = nullptr;
  napi_get_last_error_info(env, &info);
  throw programError(std::string("native call: ") + (info && info->error_message ? info->error_message : "invalid argument"));
}

napi_value errorValue(napi_env env, const char* code, const char* message) {
  napi_value c, m, error;
  napi_create_string_utf8(env, code, NAPI_AUTO_LENGTH, &c);
  napi_create_string_utf8(env, message, NAPI_AUTO_LENGTH, &m);
  napi_create_error(env, c, m, &error);
  return error;
}

class Call {
 public:
  Call(napi_env e, napi_callback_info info, size_t expected) : env(e) {
    size_t count = 6;
    check(env, napi_get_cb_info(env, info, &count, args_, nullptr, nullptr));
    if (count < expected) throw programError("native call: " + std::to_string(count) + " arguments, expected " + std::to_string(expected));
  }
  napi_value operator[](size_t i) const { return args_[i]; }
  napi_env env;

 private:
  napi_value args_[6];
};

int64_t integer(napi_env env, napi_value v) {
  double d;
  check(env, napi_get_value_double(env, v, &d));
  if (!(std::fabs(d) <= 9007199254740992.0) || d != std::floor(d)) throw programError("native call: expected an integer");
  return int64_t(d);
}
int32_t int32(napi_env env, napi_value v) {
  const int64_t i = integer(env, v);
  if (i < INT_MIN || i > INT_MAX) throw programError("native call: an integer is out of range");
  return int32_t(i);
}
bool boolean(napi_env env, napi_value v) {
  bool b;
  check(env, napi_get_value_bool(env, v, &b));
  return b;
}
std::string text(napi_env env, napi_value v) {
  char buffer[128];
  size_t length;
  check(env, napi_get_value_string_utf8(env, v, buffer, sizeof buffer, &length));
  return std::string(buffer, length);
}
napi_value property(napi_env env, napi_value object, const char* name) {
  napi_value v;
  check(env, napi_get_named_property(env, object, name, &v));
  return v;
}

// The property, or nullptr where it is undefined.
napi_value optional(napi_env env, napi_value object, const char* name) {
  const napi_value v = property(env, object, name);
  napi_valuetype type;
  check(env, napi_typeof(env, v, &type));
  return type == napi_undefined ? nullptr : v;
}

template <class T> struct Typed { const T* data; size_t length; };
template <class T>
Typed<T> typed(napi_env env, napi_value v, napi_typedarray_type expected) {
  napi_typedarray_type type;
  size_t length;
  void* data;
  bool is = false;
  check(env, napi_is_typedarray(env, v, &is));
  if (!is) throw programError("native call: expected a typed array");
  check(env, napi_get_typedarray_info(env, v, &type, &length, &data, nullptr, nullptr));
  if (type != expected) throw programError("native call: a typed array of another type was expected");
  return {static_cast<const T*>(data), length};
}
Typed<int32_t> int32s(napi_env env, napi_value v) { return typed<int32_t>(env, v, napi_int32_array); }
Typed<float> float32s(napi_env env, napi_value v) { return typed<float>(env, v, napi_float32_array); }
template <class T>
std::vector<T> vectorOf(const Typed<T>& t) { return std::vector<T>(t.data, t.data + t.length); }

template <class T>
napi_value makeHandle(napi_env env, std::shared_ptr<T> value) {
  napi_value external;
  auto* holder = new HolderOf<T>(std::move(value));
  const auto finalize = [](napi_env, void* data, void*) { delete static_cast<Holder*>(data); };
  const napi_status status = napi_create_external(env, static_cast<Holder*>(holder), finalize, nullptr, &external);
  if (status != napi_ok) { delete holder; check(env, status); }
  check(env, napi_type_tag_object(env, external, &Tag<T>::tag));
  return external;
}
template <class T>
std::shared_ptr<T> handle(napi_env env, napi_value v) {
  napi_valuetype type;
  bool tagged = false;
  if (napi_typeof(env, v, &type) == napi_ok && type == napi_external) napi_check_object_type_tag(env, v, &Tag<T>::tag, &tagged);
  if (!tagged) throw programError(std::string("native call: expected a ") + Tag<T>::name);
  void* data;
  check(env, napi_get_value_external(env, v, &data));
  const auto& value = static_cast<HolderOf<T>*>(static_cast<Holder*>(data))->value;
  if (!value) throw CoreError("ERR_DISPOSED", std::string("the ") + Tag<T>::name + " was closed");
  return value;
}

napi_value number(napi_env env, double d) {
  napi_value v;
  check(env, napi_create_double(env, d, &v));
  return v;
}
template <class T>
napi_value array(napi_env env, napi_typedarray_type type, const std::vector<T>& from) {
  napi_value buffer, view;
  void* data;
  check(env, napi_create_arraybuffer(env, from.size() * sizeof(T), &data, &buffer));
  if (!from.empty()) std::memcpy(data, from.data(), from.size() * sizeof(T));
  check(env, napi_create_typedarray(env, type, from.size(), buffer, 0, &view));
  return view;
}
void set(napi_env env, napi_value object, const char* name, napi_value v) { check(env, napi_set_named_property(env, object, name, v)); }

// Work on a libuv thread, its result as a promise.
struct Job {
  std::function<void()> work;
  std::function<napi_value(napi_env)> result;
  std::vector<napi_ref> keep;  // JavaScript values that the work points into
  napi_deferred deferred;
  napi_async_work handle;
  const char* code = nullptr;
  std::string message;
};
napi_value start(napi_env env, std::unique_ptr<Job> owned) {
  napi_value promise, name;
  check(env, napi_create_promise(env, &owned->deferred, &promise));
  check(env, napi_create_string_utf8(env, "outrider", NAPI_AUTO_LENGTH, &name));
  const auto execute = [](napi_env, void* data) {
    Job& job = *static_cast<Job*>(data);
    try {
      job.work();
    } catch (const CoreError& error) {
      job.code = error.code;
      job.message = error.what();
    } catch (const std::exception& error) {
      job.code = "ERR_RUNTIME";
      job.message = error.what();
    }
  };
  const auto complete = [](napi_env env2, napi_status, void* data) {
    const std::unique_ptr<Job> job(static_cast<Job*>(data));
    job->work = nullptr;  // drop what the work held before JavaScript goes on
    for (napi_ref ref : job->keep) napi_delete_reference(env2, ref);
    napi_value value = nullptr;
    if (!job->code) {
      try {
        value = job->result(env2);
      } catch (const CoreError& error) {
        job->code = error.code;
        job->message = error.what();
      } catch (...) {
        job->code = "ERR_RUNTIME";
        job->message = "the result could not be handed over";
      }
    }
    job->result = nullptr;
    if (job->code) napi_reject_deferred(env2, job->deferred, errorValue(env2, job->code, job->message.c_str()));
    else napi_resolve_deferred(env2, job->deferred, value);
    napi_delete_async_work(env2, job->handle);
  };
  check(env, napi_create_async_work(env, nullptr, name, execute, complete, owned.get(), &owned->handle));
  check(env, napi_queue_async_work(env, owned->handle));
  owned.release();
  return promise;
}

napi_value info(napi_env env, napi_callback_info) {
  napi_value object, list, s;
  check(env, napi_create_object(env, &object));
  check(env, napi_create_string_utf8(env, kSourceHash + sizeof("outrider-source-hash:") - 1, NAPI_AUTO_LENGTH, &s));
  set(env, object, "sourceHash", s);
  const std::vector<std::string> sets = instructionSets();
  check(env, napi_create_array(env, &list));
  for (size_t i = 0; i < sets.size(); i++) {
    check(env, napi_create_string_utf8(env, sets[i].c_str(), sets[i].size(), &s));
    check(env, napi_set_element(env, list, uint32_t(i), s));
  }
  set(env, object, "instructionSets", list);
  set(env, object, "liveBytes", number(env, double(Memory::liveBytes())));
  set(env, object, "liveBlocks", number(env, double(Memory::liveBlocks())));
  return object;
}

napi_value createCore(napi_env env, napi_callback_info i) {
  const Call call(env, i, 2);
  const int64_t threads = integer(env, call[0]);
  if (threads < 1 || threads > 64) throw programError("threads is " + std::to_string(threads) + ", expected 1 to 64");
  return makeHandle(env, std::make_shared<Core>(int(threads), text(env, call[1])));
}

napi_value packedBytes(napi_env env, napi_callback_info i) {
  const Call call(env, i, 3);
  return number(env, double(Weight::packedBytes(int32(env, call[0]), integer(env, call[1]), integer(env, call[2]))));
}

napi_value createArena(napi_env env, napi_callback_info i) {
  const Call call(env, i, 1);
  const int64_t bytes = integer(env, call[0]);
  if (bytes < 1) throw programError("an arena needs at least one byte");
  return makeHandle(env, std::make_shared<Arena>(addressable(double(bytes), "weights")));
}

napi_value createWeight(napi_env env, napi_callback_info i) {
  const Call call(env, i, 4);
  return makeHandle(env, std::make_shared<Weight>(handle<Arena>(env, call[0]), int32(env, call[1]), integer(env, call[2]), integer(env, call[3])));
}

// weight, bytes, first row; and, where rows lie in another type, that type.
napi_value packRows(napi_env env, const Call& call, int from) {
  const auto weight = handle<Weight>(env, call[0]);
  const Typed<uint8_t> bytes = typed<uint8_t>(env, call[1], napi_uint8_array);
  const int64_t first = integer(env, call[2]);
  auto job = std::make_unique<Job>();
  napi_ref ref;
  check(env, napi_create_reference(env, call[1], 1, &ref));
  job->keep.push_back(ref);
  if (from < 0) job->work = [weight, bytes, first] { weight->pack(bytes.data, bytes.length, first); };
  else job->work = [weight, bytes, first, from] { quantiseRows(*weight, from, bytes.data, bytes.length, first); };
  job->result = [](napi_env e) { napi_value v; check(e, napi_get_undefined(e, &v)); return v; };
  return start(env, std::move(job));
}

napi_value packWeight(napi_env env, napi_callback_info i) { return packRows(env, Call(env, i, 3), -1); }

napi_value quantiseWeight(napi_env env, napi_callback_info i) {
  const Call call(env, i, 4);
  const int from = int32(env, call[3]);
  if (from < 0) throw programError("quantise: weight type " + std::to_string(from));
  return packRows(env, call, from);
}

napi_value unpackRow(napi_env env, napi_callback_info i) {
  const Call call(env, i, 2);
  const auto weight = handle<Weight>(env, call[0]);
  std::vector<float> row(size_t(weight->k));
  weight->unpackRow(integer(env, call[1]), row.data());
  return array(env, napi_float32_array, row);
}

napi_value createCache(napi_env env, napi_callback_info i) {
  const Call call(env, i, 5);
  return makeHandle(env, std::make_shared<Cache>(integer(env, call[0]), integer(env, call[1]), integer(env, call[2]),
                                                 integer(env, call[3]), boolean(env, call[4])));
}

napi_value copyCells(napi_env env, napi_callback_info i) {
  const Call call(env, i, 3);
  const auto cache = handle<Cache>(env, call[0]);
  const Typed<int32_t> from = int32s(env, call[1]), to = int32s(env, call[2]);
  if (from.length != to.length) throw programError("cache copy: two lists of different length");
  cache->copy(from.data, to.data, int(from.length));
  return nullptr;
}

// Closed on every way out: Node ends the process when a call returns with an open scope.
struct HandleScope {
  explicit HandleScope(napi_env e) : env(e) { check(env, napi_open_handle_scope(env, &scope)); }
  ~HandleScope() { napi_close_handle_scope(env, scope); }
  HandleScope(const HandleScope&) = delete;
  HandleScope& operator=(const HandleScope&) = delete;
  napi_env env;
  napi_handle_scope scope;
};

template <class F>
void forEach(napi_env env, napi_value list, const F& f) {
  uint32_t length;
  check(env, napi_get_array_length(env, list, &length));
  for (uint32_t i = 0; i < length; i++) {
    const HandleScope scope(env);
    napi_value item;
    check(env, napi_get_element(env, list, i, &item));
    f(item);
  }
}

napi_value createProgram(napi_env env, napi_callback_info i) {
  const Call call(env, i, 2);
  const auto core = handle<Core>(env, call[0]);
  const napi_value s = call[1];
  ProgramSpec spec;
  const Typed<int32_t> buffers = int32s(env, property(env, s, "buffers"));
  if (buffers.length % 4 != 0) throw programError("buffers: four numbers each are expected");
  for (size_t b = 0; b < buffers.length; b += 4)
    spec.buffers.push_back({buffers.data[b], buffers.data[b + 1], buffers.data[b + 2], buffers.data[b + 3]});
  spec.ops = vectorOf(int32s(env, property(env, s, "ops")));
  spec.scalars = vectorOf(float32s(env, property(env, s, "scalars")));
  forEach(env, property(env, s, "weights"), [&](napi_value v) { spec.weights.push_back(handle<Weight>(env, v)); });
  forEach(env, property(env, s, "constants"), [&](napi_value v) { spec.constants.push_back(vectorOf(float32s(env, v))); });
  spec.cache = handle<Cache>(env, property(env, s, "cache"));
  spec.logits = int32(env, property(env, s, "logits"));
  spec.vocab = int32(env, property(env, s, "vocab"));
  spec.tokens = int32(env, property(env, s, "tokens"));
  spec.maxRows = int32(env, property(env, s, "maxRows"));
  spec.maxOutputs = int32(env, property(env, s, "maxOutputs"));
  spec.maxPosition = int32(env, property(env, s, "maxPosition"));
  return makeHandle(env, std::make_shared<Program>(core, std::move(spec)));
}

napi_value measureReading(napi_env env, napi_callback_info i) {
  const Call call(env, i, 3);
  const auto core = handle<Core>(env, call[0]);
  const int64_t bytes = integer(env, call[1]), repetitions = integer(env, call[2]);
  if (bytes < 1 || bytes > (int64_t(1) << 36) || repetitions < 1 || repetitions > 1000) throw programError("measureReading: out of range");
  auto ms = std::make_shared<double>(0);
  auto job = std::make_unique<Job>();
  job->work = [core, bytes, repetitions, ms] { *ms = readMilliseconds(*core, size_t(bytes), int(repetitions)); };
  job->result = [ms](napi_env e) { return number(e, *ms); };
  return start(env, std::move(job));
}

napi_value createCancel(napi_env env, napi_callback_info) { return makeHandle(env, std::make_shared<Cancel>(false)); }

napi_value cancel(napi_env env, napi_callback_info i) {
  const Call call(env, i, 1);
  handle<Cancel>(env, call[0])->store(true);
  return nullptr;
}

napi_value run(napi_env env, napi_callback_info i) {
  const Call call(env, i, 3);
  const auto program = handle<Program>(env, call[0]);
  const auto cancelled = handle<Cancel>(env, call[2]);
  const napi_value s = call[1];
  auto in = std::make_shared<RunInput>();
  const Typed<int32_t> rows = int32s(env, property(env, s, "rows"));
  if (rows.length % kRowInts != 0) throw programError("rows: six numbers each are expected");
  in->rows.resize(rows.length / kRowInts);
  if (rows.length) std::memcpy(in->rows.data(), rows.data, rows.length * sizeof(int32_t));
  in->tables = vectorOf(int32s(env, property(env, s, "tables")));
  in->tableOffsets = vectorOf(int32s(env, property(env, s, "tableOffsets")));
  const Typed<double> settings = typed<double>(env, property(env, s, "settings"), napi_float64_array);
  if (settings.length % 5 != 0) throw programError("settings: five numbers each are expected");
  for (size_t j = 0; j < settings.length; j += 5) {
    const double* d = settings.data + j;
    if (!(d[1] >= 0 && d[1] <= INT_MAX) || !(d[4] >= 0 && d[4] <= 9007199254740992.0)) throw programError("settings out of range");
    in->settings.push_back({float(d[0]), int(d[1]), float(d[2]), float(d[3]), uint64_t(d[4])});
  }
  // What most passes do not need is left out by the caller: every value that crosses costs time in every pass.
  const napi_value scored = optional(env, s, "scored"), adjustOffsets = optional(env, s, "adjustOffsets");
  if (const napi_value codes = optional(env, s, "codes")) {
    const Typed<double> numbers = typed<double>(env, codes, napi_float64_array);
    if (numbers.length % 2 != 0) throw programError("codes: two numbers each are expected");
    for (size_t j = 0; j < numbers.length; j += 2) in->codes.push_back({numbers.data[j], numbers.data[j + 1]});
  }
  if (scored) in->scored = vectorOf(int32s(env, scored));
  if (adjustOffsets) {
    in->adjustOffsets = vectorOf(int32s(env, adjustOffsets));
    in->adjustTokens = vectorOf(int32s(env, property(env, s, "adjustTokens")));
    in->adjustRepetition = vectorOf(float32s(env, property(env, s, "adjustRepetition")));
    in->adjustAdd = vectorOf(float32s(env, property(env, s, "adjustAdd")));
  } else {
    in->adjustOffsets.assign(in->settings.size() + 1, 0);
  }
  if (const napi_value maskOf = optional(env, s, "maskOf")) {
    in->maskOf = vectorOf(int32s(env, maskOf));
    const Typed<int32_t> masks = int32s(env, property(env, s, "masks"));
    in->masks.assign(masks.data, masks.data + masks.length);
  }
  if (const napi_value follow = optional(env, s, "follow")) {
    in->follow = int32(env, follow);
    check(env, napi_get_value_double(env, property(env, s, "followMs"), &in->followMs));
    in->ends = vectorOf(int32s(env, property(env, s, "ends")));
  }
  in->top = int32(env, property(env, s, "top"));
  in->wantLogits = boolean(env, property(env, s, "wantLogits"));
  auto out = std::make_shared<RunOutput>();
  auto job = std::make_unique<Job>();
  job->work = [program, in, out, cancelled] { *out = program->run(std::move(*in), *cancelled); };
  job->result = [out](napi_env e) {
    napi_value object, finished;
    check(e, napi_create_object(e, &object));
    check(e, napi_get_boolean(e, out->finished, &finished));
    set(e, object, "finished", finished);
    set(e, object, "milliseconds", number(e, out->milliseconds));
    set(e, object, "tokens", array(e, napi_int32_array, out->tokens));
    set(e, object, "logprobs", array(e, napi_float32_array, out->logprobs));
    if (!out->scores.empty()) set(e, object, "scores", array(e, napi_float32_array, out->scores));
    if (!out->codes.empty()) {
      std::vector<double> codes;
      for (const Code& c : out->codes) codes.insert(codes.end(), {c.point, c.resolution});
      set(e, object, "codes", array(e, napi_float64_array, codes));
    }
    if (!out->topTokens.empty()) {
      set(e, object, "topTokens", array(e, napi_int32_array, out->topTokens));
      set(e, object, "topLogprobs", array(e, napi_float32_array, out->topLogprobs));
    }
    if (!out->logits.empty()) set(e, object, "logits", array(e, napi_float32_array, out->logits));
    return object;
  };
  return start(env, std::move(job));
}

napi_value close(napi_env env, napi_callback_info i) {
  const Call call(env, i, 1);
  napi_valuetype type;
  check(env, napi_typeof(env, call[0], &type));
  bool tagged = false;
  if (type == napi_external)
    for (const napi_type_tag* tag : {&Tag<Core>::tag, &Tag<Weight>::tag, &Tag<Cache>::tag, &Tag<Program>::tag, &Tag<Arena>::tag, &Tag<Cancel>::tag})
      if (!tagged) napi_check_object_type_tag(env, call[0], tag, &tagged);
  if (!tagged) throw programError("native call: expected a handle");
  void* data;
  check(env, napi_get_value_external(env, call[0], &data));
  static_cast<Holder*>(data)->close();
  return nullptr;
}

// No C++ exception may cross into JavaScript.
template <napi_value (*f)(napi_env, napi_callback_info)>
napi_value guarded(napi_env env, napi_callback_info i) {
  try {
    return f(env, i);
  } catch (const JsError&) {
  } catch (const CoreError& error) {
    napi_throw(env, errorValue(env, error.code, error.what()));
  } catch (const std::exception& error) {
    napi_throw(env, errorValue(env, "ERR_RUNTIME", error.what()));
  }
  return nullptr;
}

napi_value init(napi_env env, napi_value exports) {
  const auto add = [&](const char* name, napi_callback f) {
    napi_value v;
    if (napi_create_function(env, name, NAPI_AUTO_LENGTH, f, nullptr, &v) == napi_ok) napi_set_named_property(env, exports, name, v);
  };
  add("info", guarded<info>);
  add("createCore", guarded<createCore>);
  add("packedBytes", guarded<packedBytes>);
  add("createArena", guarded<createArena>);
  add("createWeight", guarded<createWeight>);
  add("packWeight", guarded<packWeight>);
  add("quantiseWeight", guarded<quantiseWeight>);
  add("unpackRow", guarded<unpackRow>);
  add("createCache", guarded<createCache>);
  add("copyCells", guarded<copyCells>);
  add("createProgram", guarded<createProgram>);
  add("measureReading", guarded<measureReading>);
  add("createCancel", guarded<createCancel>);
  add("cancel", guarded<cancel>);
  add("run", guarded<run>);
  add("close", guarded<close>);
  return exports;
}

}  // namespace
}  // namespace outrider

NAPI_MODULE_INIT() { return outrider::init(env, exports); }
