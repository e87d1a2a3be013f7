// NEON with the dot product of bytes (sdot), which most 64-bit ARM processors since 2018 have: its own products with
// quantised rows, in NEON's table.
#include "kernels.h"
#if defined(__ARM_FEATURE_DOTPROD)
#pragma GCC diagnostic ignored "-Wunused-function"
#include "lanes.h"

namespace outrider {
namespace {

#include "kernels.inl"
#include "quantised.inl"

template <WeightType... types>
Kernels withProducts(Kernels table, const char* name, WeightTypes<types...>) {
  table.name = name;
  ((table.matmulQuantised[typeIndex(types)] = quantisedProduct<types>()), ...);
  return table;
}

}  // namespace

const Kernels* neonDotprod() {
  static const Kernels table = withProducts(*neon(), "neon-dotprod", AllWeightTypes{});
  return &table;
}

}  // namespace outrider
#else
namespace outrider {
const Kernels* neonDotprod() { return nullptr; }
}  // namespace outrider
#endif
