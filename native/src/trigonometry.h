// sin and cos of non-negative angles in double, of basic operations only, so that every machine gives the same bits.
// Reduction by pi/2 in three parts and the kernels of fdlibm.
#pragma once
#include <cmath>

namespace outrider {

inline void sinCos(double x, double& sine, double& cosine) {
  const double n = std::floor(x * 6.36619772367581382433e-01 + 0.5);
  const double r = ((x - n * 1.57079632673412561417e+00) - n * 6.07710050630396597660e-11) - n * 2.02226624879595063154e-21;
  const double z = r * r;
  const double s = r + r * z * (-1.66666666666666324348e-01 + z * (8.33333333332248946124e-03 + z * (-1.98412698298579493134e-04 +
                   z * (2.75573137070700676789e-06 + z * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10)))));
  const double c = (1.0 - 0.5 * z) + z * z * (4.16666666666666019037e-02 + z * (-1.38888888888741095749e-03 +
                   z * (2.48015872894767294178e-05 + z * (-2.75573143513906633035e-07 + z * (2.08757232129817482790e-09 +
                   z * -1.13596475577881948265e-11)))));
  switch (static_cast<long long>(n) & 3) {
    case 0: sine = s; cosine = c; break;
    case 1: sine = c; cosine = -s; break;
    case 2: sine = -s; cosine = -c; break;
    default: sine = -c; cosine = s; break;
  }
}

}  // namespace outrider
