// How fast this machine reads memory with a core's threads: the floor of a pass, which must read all weights once.
#pragma once
#include <cstddef>

#include "program.h"

namespace outrider {

// Milliseconds of the fastest of `repetitions` reads of `bytes` by all threads.
double readMilliseconds(Core&, size_t bytes, int repetitions);

}  // namespace outrider
