// The library of host-compiled kernels: one function that launches any of them by name.
#include "host.hpp"

extern "C" int pairwright_host_launch(const char* name, const unsigned* grid, const unsigned* block, size_t dynamic_bytes, void** arguments,
                                      unsigned workers) {
  return host::launch(name, {grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, dynamic_bytes, arguments, workers);
}
