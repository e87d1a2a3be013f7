// A fused multiply-add that is right in every case; the C library's is not for subnormal results. In double the product
// is exact and the sum has one error, which is known; rounded to odd there, rounding to float once more is exact
// (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
#include <cstdint>
#include <cstring>

extern "C" float fmaf(float x, float y, float z) {
  const double product = double(x) * double(y);
  double sum = product + double(z);
  const double back = sum - product, error = (product - (sum - back)) + (double(z) - back);
  if (error < 0 || error > 0) {
    int64_t bits;
    std::memcpy(&bits, &sum, 8);
    if (!(bits & 1)) bits += (error > 0) == (sum > 0) ? 1 : -1;
    std::memcpy(&sum, &bits, 8);
  }
  return float(sum);
}
