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
  static constexpr Kernels table = kernelTable("neon-dotprod", matmulQuantised<WeightType::Q4_0>, matmulQuantised<WeightType::Q4_1>,
                                               matmulQuantised<WeightType::Q8_0>);
  return &table;
}

}  // namespace outrider
#else
namespace outrider {
const Kernels* neonDotprod() { return nullptr; }
}  // namespace outrider
#endif
