// NEON with the dot product of bytes (sdot), which most 64-bit ARM processors since 2018 have.
#include "kernels.h"
#if defined(__ARM_FEATURE_DOTPROD)
#include "lanes.h"

namespace outrider {
namespace {

#include "kernels.inl"
#include "quantised.inl"

}  // namespace

const Kernels* neonDotprod() {
  static constexpr Kernels table = kernelTable("neon-dotprod", AllWeightTypes{});
  return &table;
}

}  // namespace outrider
#else
namespace outrider {
const Kernels* neonDotprod() { return nullptr; }
}  // namespace outrider
#endif
