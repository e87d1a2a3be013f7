// NEON, which every 64-bit ARM processor has.
#include "kernels.h"
#if defined(__aarch64__)
#include "lanes.h"

namespace outrider {
namespace {

#include "kernels.inl"
#include "quantised.inl"

}  // namespace

const Kernels* neon() {
  static constexpr Kernels table = kernelTable("neon", AllWeightTypes{});
  return &table;
}

}  // namespace outrider
#else
namespace outrider {
const Kernels* neon() { return nullptr; }
}  // namespace outrider
#endif
