// WebAssembly with SIMD. Compiled twice: with relaxed SIMD (a multiply-add and a dot product of bytes), and without.
#include "kernels.h"
#if defined(__wasm_simd128__)
#include "lanes.h"

namespace outrider {
namespace {

#include "kernels.inl"
#include "quantised.inl"

#if defined(__wasm_relaxed_simd__)
constexpr const char* kName = "wasm-relaxed-simd";
#else
constexpr const char* kName = "wasm-simd";
#endif

}  // namespace

const Kernels* wasm() {
  static constexpr Kernels table = kernelTable(kName, AllWeightTypes{});
  return &table;
}

}  // namespace outrider

#if defined(__wasm_relaxed_simd__)
// Whether this processor's relaxed multiply-add rounds once: 2^-24 is lost where the product is rounded.
extern "C" [[clang::export_name("outrider_fused")]] int outrider_fused() {
  volatile float x = 1 + 0x1p-12f, z = -(1 + 0x1p-11f);
  const outrider::Float four = outrider::fma(outrider::broadcast(x), outrider::broadcast(x), outrider::broadcast(z));
  return four.a[0] == 0x1p-24f && four.d[3] == 0x1p-24f;
}
#endif
#else
namespace outrider {
const Kernels* wasm() { return nullptr; }
}  // namespace outrider
#endif
