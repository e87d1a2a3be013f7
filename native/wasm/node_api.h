// The part of Node-API that addon.cpp uses, over values in this module's memory (node_api.cpp), so that the same file is
// the core's face to JavaScript in every build.
#pragma once
#include <cstddef>
#include <cstdint>

extern "C" {

struct Value;
struct Work;
struct Deferred;
struct Reference;
typedef struct Environment* napi_env;
typedef Value* napi_value;
typedef struct CallInfo* napi_callback_info;
typedef Work* napi_async_work;
typedef Deferred* napi_deferred;
typedef Reference* napi_ref;
typedef void* napi_handle_scope;
typedef napi_value (*napi_callback)(napi_env, napi_callback_info);
typedef void (*napi_finalize)(napi_env, void* data, void* hint);
typedef void (*napi_async_execute_callback)(napi_env, void* data);

enum napi_status { napi_ok, napi_invalid_arg, napi_pending_exception };
typedef void (*napi_async_complete_callback)(napi_env, napi_status, void* data);
// Numbers and order are Node-API's; src/runtime/wasm.ts knows them too.
enum napi_valuetype { napi_undefined, napi_null, napi_boolean, napi_number, napi_string, napi_symbol, napi_object, napi_function, napi_external };
enum napi_typedarray_type {
  napi_int8_array, napi_uint8_array, napi_uint8_clamped_array, napi_int16_array, napi_uint16_array, napi_int32_array,
  napi_uint32_array, napi_float32_array, napi_float64_array
};
struct napi_type_tag { uint64_t lower, upper; };
struct napi_extended_error_info { const char* error_message; };
#define NAPI_AUTO_LENGTH SIZE_MAX

napi_status napi_get_last_error_info(napi_env, const napi_extended_error_info**);
napi_status napi_is_exception_pending(napi_env, bool*);
napi_status napi_throw(napi_env, napi_value);
napi_status napi_create_error(napi_env, napi_value code, napi_value message, napi_value*);

napi_status napi_get_cb_info(napi_env, napi_callback_info, size_t* count, napi_value* arguments, napi_value* self, void** data);
napi_status napi_create_function(napi_env, const char*, size_t, napi_callback, void* data, napi_value*);

napi_status napi_typeof(napi_env, napi_value, napi_valuetype*);
napi_status napi_get_undefined(napi_env, napi_value*);
napi_status napi_get_boolean(napi_env, bool, napi_value*);
napi_status napi_create_double(napi_env, double, napi_value*);
napi_status napi_create_string_utf8(napi_env, const char*, size_t, napi_value*);
napi_status napi_get_value_double(napi_env, napi_value, double*);
napi_status napi_get_value_bool(napi_env, napi_value, bool*);
napi_status napi_get_value_string_utf8(napi_env, napi_value, char*, size_t, size_t*);

napi_status napi_create_object(napi_env, napi_value*);
napi_status napi_set_named_property(napi_env, napi_value, const char*, napi_value);
napi_status napi_get_named_property(napi_env, napi_value, const char*, napi_value*);
napi_status napi_create_array(napi_env, napi_value*);
napi_status napi_get_array_length(napi_env, napi_value, uint32_t*);
napi_status napi_get_element(napi_env, napi_value, uint32_t, napi_value*);
napi_status napi_set_element(napi_env, napi_value, uint32_t, napi_value);

napi_status napi_is_typedarray(napi_env, napi_value, bool*);
napi_status napi_get_typedarray_info(napi_env, napi_value, napi_typedarray_type*, size_t* length, void** data, napi_value*, size_t*);
napi_status napi_create_arraybuffer(napi_env, size_t, void** data, napi_value*);
napi_status napi_create_typedarray(napi_env, napi_typedarray_type, size_t length, napi_value buffer, size_t offset, napi_value*);

napi_status napi_create_external(napi_env, void* data, napi_finalize, void* hint, napi_value*);
napi_status napi_get_value_external(napi_env, napi_value, void**);
napi_status napi_type_tag_object(napi_env, napi_value, const napi_type_tag*);
napi_status napi_check_object_type_tag(napi_env, napi_value, const napi_type_tag*, bool*);

napi_status napi_open_handle_scope(napi_env, napi_handle_scope*);
napi_status napi_close_handle_scope(napi_env, napi_handle_scope);
napi_status napi_create_reference(napi_env, napi_value, uint32_t, napi_ref*);
napi_status napi_delete_reference(napi_env, napi_ref);

napi_status napi_create_promise(napi_env, napi_deferred*, napi_value*);
napi_status napi_resolve_deferred(napi_env, napi_deferred, napi_value);
napi_status napi_reject_deferred(napi_env, napi_deferred, napi_value);
napi_status napi_create_async_work(napi_env, napi_value, napi_value name, napi_async_execute_callback, napi_async_complete_callback, void* data, napi_async_work*);
napi_status napi_queue_async_work(napi_env, napi_async_work);
napi_status napi_delete_async_work(napi_env, napi_async_work);

napi_value outrider_register(napi_env, napi_value exports);

}  // extern "C"

#define NAPI_MODULE_INIT() napi_value outrider_register(napi_env env, napi_value exports)
