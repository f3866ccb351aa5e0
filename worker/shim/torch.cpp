// What tch does not wrap of libtorch's global settings.

#include <ATen/Context.h>
#include <torch/version.h>

extern "C" {

const char* qpipe_torch_version() noexcept {
  return TORCH_VERSION;
}

// 32-bit floats are multiplied as such on a GPU too, as they are on a CPU by default. Returns 0 when it worked.
int qpipe_torch_exact_float32() noexcept {
  try {
    at::globalContext().setAllowTF32CuBLAS(false);
    at::globalContext().setAllowTF32CuDNN(false);
    return 0;
  } catch (...) {
    return 1;
  }
}

} // extern "C"
