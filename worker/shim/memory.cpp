// Peaks of allocated bytes. Nothing throws across the border: a function that can fail returns 0 when it worked.

#include <atomic>
#include <cstdint>
#include <memory>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <c10/core/Allocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

namespace {

// Sees every allocation of libtorch's CPU allocator on the threads where it is the current debug information. A
// release is reported only for memory whose allocation was reported.
struct Counter final : c10::MemoryReportingInfoBase {
  std::atomic<int64_t> current{0};
  std::atomic<int64_t> peak{0};

  void reportMemoryUsage(void*, int64_t bytes, size_t, size_t, c10::Device device) override {
    if (!device.is_cpu()) {
      return;
    }
    const int64_t now = current.fetch_add(bytes) + bytes;
    int64_t seen = peak.load();
    while (seen < now && !peak.compare_exchange_weak(seen, now)) {
    }
  }

  bool memoryProfilingEnabled() const override {
    return true;
  }
};

struct Watch {
  std::shared_ptr<Counter> counter = std::make_shared<Counter>();
  c10::DebugInfoGuard guard{c10::DebugInfoKind::PROFILER_STATE, counter};
};

template <typename F>
int without_exceptions(F&& body) noexcept {
  try {
    body();
    return 0;
  } catch (...) {
    return 1;
  }
}

c10::DeviceAllocator* cuda_allocator() {
  return c10::getDeviceAllocator(c10::DeviceType::CUDA);
}

} // namespace

extern "C" {

// Whether the C library keeps freed memory instead of giving it back to the system.
void qpipe_keep_freed(int keep) noexcept {
#ifdef __GLIBC__
  constexpr int mapped_apart = 32 << 20; // The largest that glibc accepts.
  // Where glibc itself arrives once it has seen large blocks come and go; it stops adapting when it is told.
  constexpr int usually = 2 * mapped_apart;
  mallopt(M_MMAP_THRESHOLD, mapped_apart);
  mallopt(M_TRIM_THRESHOLD, keep != 0 ? 1 << 30 : usually);
#else
  (void)keep;
#endif
}

// Gives what the C library keeps of freed memory back to the system.
void qpipe_trim() noexcept {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

// To be released on the thread that made it, the newest first; null when it could not be made.
void* qpipe_watch_new() noexcept {
  Watch* watch = nullptr;
  without_exceptions([&] { watch = new Watch(); });
  return watch;
}

void qpipe_watch_free(void* watch) noexcept {
  without_exceptions([&] { delete static_cast<Watch*>(watch); });
}

void qpipe_watch_reset(void* watch) noexcept {
  Counter& counter = *static_cast<Watch*>(watch)->counter;
  counter.peak.store(counter.current.load());
}

int64_t qpipe_watch_peak(const void* watch) noexcept {
  return static_cast<const Watch*>(watch)->counter->peak.load();
}

int qpipe_cuda_reset_peak(int8_t device) noexcept {
  return without_exceptions([&] { cuda_allocator()->resetPeakStats(device); });
}

int qpipe_cuda_peak(int8_t device, int64_t* bytes) noexcept {
  return without_exceptions([&] {
    const auto stats = cuda_allocator()->getDeviceStats(device);
    const auto aggregate = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    *bytes = stats.allocated_bytes[aggregate].peak;
  });
}

int qpipe_cuda_free(int8_t device, int64_t* bytes) noexcept {
  return without_exceptions(
      [&] { *bytes = static_cast<int64_t>(cuda_allocator()->getMemoryInfo(device).first); });
}

int qpipe_cuda_empty_cache() noexcept {
  return without_exceptions([] { cuda_allocator()->emptyCache(); });
}

} // extern "C"
