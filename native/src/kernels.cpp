// Which tables of kernels this processor can run.
#include "kernels.h"
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace outrider {
namespace {

#if defined(__aarch64__)
bool hasDotprod() {
#if defined(__linux__)
  constexpr unsigned long asimddp = 1ul << 20;  // HWCAP_ASIMDDP of the kernel's asm/hwcap.h
  return (getauxval(AT_HWCAP) & asimddp) != 0;
#else
  return true;  // each of Apple's
#endif
}
#endif

}  // namespace

std::vector<const Kernels*> fastKernels() {
  std::vector<const Kernels*> usable;
#if defined(__x86_64__)
  const bool avx = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (avx && avx512() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni"))
    usable.push_back(avx512());
  if (avx && avx2()) usable.push_back(avx2());
#elif defined(__aarch64__)
  if (neonDotprod() && hasDotprod()) usable.push_back(neonDotprod());
  if (neon()) usable.push_back(neon());
#elif defined(__wasm__)
  if (wasm()) usable.push_back(wasm());
#endif
  return usable;
}

}  // namespace outrider
