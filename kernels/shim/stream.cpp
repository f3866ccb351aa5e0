// libtorch's current CUDA stream, which tch does not wrap.

#include <c10/core/Device.h>
#include <c10/core/DeviceType.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>

extern "C" {

// Writes the CUstream that libtorch queues work of this thread on, of device `index`. Returns 0 when it worked. Needs no
// header of CUDA: libtorch_cuda registers an implementation of this interface when it is loaded.
int qpipe_cuda_stream(int index, void** stream) noexcept {
  try {
    const c10::Device device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
    *stream = c10::impl::VirtualGuardImpl(device.type()).getStream(device).native_handle();
    return 0;
  } catch (...) {
    return 1;
  }
}

} // extern "C"
