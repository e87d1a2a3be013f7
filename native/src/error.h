#pragma once
#include <stdexcept>
#include <string>

namespace outrider {

// What the core refuses, with the code that TypeScript gives to the user.
struct CoreError : std::runtime_error {
  CoreError(const char* code, const std::string& message) : std::runtime_error(message), code(code) {}
  const char* code;
};
inline CoreError programError(const std::string& message) { return CoreError("ERR_PROGRAM", message); }

}  // namespace outrider
