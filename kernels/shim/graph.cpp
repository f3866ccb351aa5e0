// libtorch's CUDA graphs, which tch does not wrap: work that is queued once and repeated as one launch.
//
// libtorch_cuda is loaded at run time, where there is a card, so that its functions are looked up by name. They are those of
// libtorch 2.11.0's ATen/cuda/CUDAGraph.h; where one is missing, there are no graphs.

#include <c10/core/Device.h>
#include <c10/core/DeviceType.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include <new>
#include <optional>
#include <utility>

namespace {

using Pool = std::pair<unsigned long long, unsigned long long>;

// Methods of at::cuda::CUDAGraph, the object first.
struct Methods {
  void (*construct)(void*, bool);
  void (*destroy)(void*);
  void (*begin)(void*, Pool, int);
  void (*end)(void*);
  void (*replay)(void*);
};

template <typename Function>
bool find(Function& function, const char* name) {
  function = reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
  return function != nullptr;
}

const Methods* methods() {
  static const std::optional<Methods> found = []() -> std::optional<Methods> {
    Methods methods{};
    const bool all = find(methods.construct, "_ZN2at4cuda9CUDAGraphC1Eb") &&
        find(methods.destroy, "_ZN2at4cuda9CUDAGraphD1Ev") &&
        find(methods.begin, "_ZN2at4cuda9CUDAGraph13capture_beginESt4pairIyyE21cudaStreamCaptureMode") &&
        find(methods.end, "_ZN2at4cuda9CUDAGraph11capture_endEv") &&
        find(methods.replay, "_ZN2at4cuda9CUDAGraph6replayEv");
    return all ? std::optional<Methods>(methods) : std::nullopt;
  }();
  return found ? &*found : nullptr;
}

template <typename Work>
int caught(Work work) noexcept {
  try {
    work();
    return 0;
  } catch (...) {
    return 1;
  }
}

// Other threads may call the driver meanwhile: cudaStreamCaptureModeThreadLocal.
constexpr int CAPTURE_MODE = 1;
// Far more than the object has.
constexpr std::size_t OBJECT_BYTES = 4096;

class Graph {
 public:
  Graph(const Methods& methods, c10::DeviceIndex index)
      : methods_(methods), guard_(c10::DeviceType::CUDA), index_(index) {
    methods_.construct(object_, false);
    // What is queued on the default stream cannot be recorded. One stream for all graphs: libtorch keeps workspaces by stream.
    static const c10::Stream side = guard_.getStreamFromGlobalPool(c10::Device(c10::DeviceType::CUDA, index), false);
    guard_.synchronizeDevice(index);
    before_ = guard_.exchangeStream(side);
    try {
      methods_.begin(object_, Pool{0, 0}, CAPTURE_MODE);
    } catch (...) {
      guard_.exchangeStream(*before_);
      methods_.destroy(object_);
      throw;
    }
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  ~Graph() {
    // A repetition may still run. Where the card has failed, that is told by what comes next.
    caught([&] { guard_.synchronizeDevice(index_); });
    methods_.destroy(object_);
  }

  // On the stream that it began on, which is then left.
  void end() {
    const int failed = caught([&] { methods_.end(object_); });
    guard_.exchangeStream(*before_);
    if (failed) throw std::bad_alloc();
  }

  void replay() { methods_.replay(object_); }

 private:
  const Methods& methods_;
  c10::impl::VirtualGuardImpl guard_;
  c10::DeviceIndex index_;
  std::optional<c10::Stream> before_;
  alignas(64) unsigned char object_[OBJECT_BYTES];
};

} // namespace

extern "C" {

// Begins to record what this thread queues on device `index`, instead of running it. Returns 0 and a graph when it worked.
int qpipe_graph_begin(int index, void** graph) noexcept {
  return caught([&] {
    const Methods* known = methods();
    if (known == nullptr) throw std::bad_alloc();
    *graph = new Graph(*known, static_cast<c10::DeviceIndex>(index));
  });
}

// Ends that: what was recorded can be repeated. Returns 0 when it worked.
int qpipe_graph_end(void* graph) noexcept {
  return caught([&] { static_cast<Graph*>(graph)->end(); });
}

// Queues all of it on this thread's stream. Returns 0 when it worked.
int qpipe_graph_replay(void* graph) noexcept {
  return caught([&] { static_cast<Graph*>(graph)->replay(); });
}

// Frees it, and the memory of what was computed in it.
void qpipe_graph_free(void* graph) noexcept {
  caught([&] { delete static_cast<Graph*>(graph); });
}

} // extern "C"
