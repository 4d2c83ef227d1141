// Depth-wise convolution and its kernel gradient for a CPU, as XLA custom calls (float32).
//
// Method (our choice). An image is cut into tiles of kRows x TILE outputs and registers of LANES
// channels. What a tile reads is first copied into a small contiguous block, zeros standing in for
// everything outside the image and for the channels missing in the last register; so the inner
// loops (depthwise_kernels.inc) know neither borders nor remainders, and run at the speed of the
// arithmetic. The copies go along the channels, in long runs: one register's channels at a time,
// with strides between, they took three quarters of the time.
//
// Every output is summed in an order that depends on the shapes only, never on the number of
// threads: results are reproducible bit for bit on a given instruction set.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#if defined(_WIN32)
#define LLIC_EXPORT extern "C" __declspec(dllexport)
#else
#define LLIC_EXPORT extern "C" __attribute__((visibility("default")))
#endif

// --- XLA's foreign function interface ---------------------------------------------------------
//
// The part of XLA's C interface (xla/ffi/api/c_api.h) that is used here, declared by hand. The
// headers that come with a jaxlib stamp its version on the library, and older ones refuse it; this
// needs no jaxlib to build and serves whichever is installed. The layout has been the same since
// jaxlib 0.5; XLA promises a new major version when it changes, and will then refuse the library,
// upon which layers/kernels/depthwise_cpu.py goes on without.

namespace xla {

struct Extension {
  size_t struct_size;
  int type;
  Extension* next;
};

struct Error;
struct Context;

struct ApiVersion {
  size_t struct_size;
  Extension* extensions;
  int major;
  int minor;
};

struct ErrorCreateArgs {
  size_t struct_size;
  Extension* extensions;
  const char* message;
  int code;
};

struct ScheduleArgs {
  size_t struct_size;
  Extension* extensions;
  Context* context;
  void (*task)(void*);
  void* data;
};

struct NumThreadsArgs {
  size_t struct_size;
  Extension* extensions;
  Context* context;
  int64_t* num_threads;
};

struct Api {
  size_t struct_size;
  Extension* extensions;
  ApiVersion version;
  const void* internal;
  Error* (*error_create)(ErrorCreateArgs*);
  void (*error_get_message)(void*);
  void (*error_destroy)(void*);
  void* unused[8];  // registering, streams, types, contexts, state, device memory
  Error* (*schedule)(ScheduleArgs*);
  Error* (*num_threads)(NumThreadsArgs*);
};

struct Buffer {
  size_t struct_size;
  Extension* extensions;
  int dtype;
  void* data;
  int64_t rank;
  int64_t* dims;
};

struct Buffers {
  size_t struct_size;
  Extension* extensions;
  int64_t size;
  int* types;
  Buffer** buffers;
};

struct CallFrame {
  size_t struct_size;
  Extension* extensions;
  const Api* api;
  Context* context;
  int stage;
  Buffers args;
  Buffers rets;
};

struct Metadata {
  size_t struct_size;
  ApiVersion version;
  uint32_t traits;
};

struct MetadataExtension {
  Extension base;
  Metadata* metadata;
};

struct ErrorDestroyArgs {
  size_t struct_size;
  Extension* extensions;
  Error* error;
};

constexpr int kMetadataExtension = 1;
constexpr int kFloat32 = 11;
constexpr int kInvalidArgument = 3;

}  // namespace xla

namespace {

// --- Instruction sets -------------------------------------------------------------------------

struct Image {
  float* data;  // one sample, (height, width, channels)
  int64_t height, width, channels;
};

// The part of an image that starts at (top, left, channel); it may reach outside.
struct Window {
  Image image;
  int64_t top, left, channel, rows, columns, channels;
};

struct Kernels {
  int lanes, tile;
  void (*pack)(const Window& window, float* out);
  void (*unpack)(const float* in, const Window& window);
  void (*convolve)(const float* x, const float* kernel, float* y, int rows, int size);
  void (*correlate)(const float* x, const float* dy, float* dkernel, int rows, int size);
};

#define UNROLL _Pragma("GCC unroll 32")

#if defined(__x86_64__)
namespace avx512 {
#define LANES 16
#define TILE 16
#define TARGET __attribute__((target("avx512f,fma")))
#include "depthwise_kernels.inc"
#undef LANES
#undef TILE
#undef TARGET
}  // namespace avx512

namespace avx2 {
#define LANES 8
#define TILE 8
#define TARGET __attribute__((target("avx2,fma")))
#include "depthwise_kernels.inc"
#undef LANES
#undef TILE
#undef TARGET
}  // namespace avx2
#endif

namespace baseline {  // SSE2 or NEON
#define LANES 4
#define TILE 8
#define TARGET
#include "depthwise_kernels.inc"
#undef LANES
#undef TILE
#undef TARGET
}  // namespace baseline

// 0: the best there is; 1, 2: at most the baseline, at most AVX2 (for tests and comparison).
std::atomic<int> instruction_set_limit{0};

Kernels select_kernels(int size) {
#if defined(__x86_64__)
  const int limit = instruction_set_limit;
  if (limit == 0 && __builtin_cpu_supports("avx512f")) return avx512::kernels(size);
  if (limit != 1 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return avx2::kernels(size);
#endif
  return baseline::kernels(size);
}

// --- Tiles ------------------------------------------------------------------------------------

constexpr int64_t kRows = 16;    // of a tile; what one register of channels needs of it fits in L1
constexpr int64_t kStrip = 2;    // tiles per task: the more, the rarer the kernel is packed anew
constexpr int64_t kGroup = 192;  // channels per task; memory is read in runs that long, a tile is
                                 // packed in well under a megabyte, for the second-level cache

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Memory of this thread, kept between calls: fresh pages would cost more than the convolution.
float* scratch(int64_t floats) {
  struct alignas(64) CacheLine {
    float values[16];
  };
  thread_local std::unique_ptr<CacheLine[]> lines;
  thread_local int64_t capacity = 0;
  const int64_t needed = ceil_div(floats, 16);
  if (needed > capacity) {
    lines.reset(new CacheLine[needed]);
    capacity = needed;
  }
  return lines[0].values;
}

// --- Threads ----------------------------------------------------------------------------------

// Calls task(0) ... task(count - 1) on this thread and on those of XLA's pool that are free. This
// thread never waits for one that has not started, so a busy pool costs speed, never a deadlock.
class Job {
 public:
  static void run(const xla::CallFrame* frame, int64_t count,
                  const std::function<void(int64_t)>& task) {
    auto job = std::make_shared<Job>(count, task);
    const int64_t helpers = std::min(threads(frame), count) - 1;
    for (int64_t n = 0; n < helpers; ++n) {
      auto* handle = new std::shared_ptr<Job>(job);
      xla::ScheduleArgs args{sizeof(args), nullptr, frame->context, &Job::help, handle};
      if (xla::Error* error = frame->api->schedule(&args)) {
        destroy(frame, error);
        delete handle;
        break;
      }
    }
    job->work();
    std::unique_lock<std::mutex> lock(job->mutex_);
    job->finished_.wait(lock, [&] { return job->done_ == count; });
  }

  Job(int64_t count, const std::function<void(int64_t)>& task) : count_(count), task_(task) {}

 private:
  static int64_t threads(const xla::CallFrame* frame) {
    int64_t threads = 1;
    xla::NumThreadsArgs args{sizeof(args), nullptr, frame->context, &threads};
    if (xla::Error* error = frame->api->num_threads(&args)) {
      destroy(frame, error);
      return 1;
    }
    return threads;
  }

  static void destroy(const xla::CallFrame* frame, xla::Error* error) {
    xla::ErrorDestroyArgs args{sizeof(args), nullptr, error};
    frame->api->error_destroy(&args);
  }

  static void help(void* data) {
    std::unique_ptr<std::shared_ptr<Job>> handle(static_cast<std::shared_ptr<Job>*>(data));
    (*handle)->work();
  }

  void work() {
    int64_t done = 0;
    for (int64_t n; (n = next_.fetch_add(1)) < count_; ++done) task_(n);
    std::lock_guard<std::mutex> lock(mutex_);
    done_ += done;
    if (done_ == count_) finished_.notify_all();
  }

  const int64_t count_;
  const std::function<void(int64_t)>& task_;  // outlives every task, though not this object
  std::atomic<int64_t> next_{0};
  std::mutex mutex_;
  std::condition_variable finished_;
  int64_t done_ = 0;
};

// --- The two operations -----------------------------------------------------------------------

struct Shape {
  int64_t batch, height, width, channels, size;

  Image image(float* data, int64_t sample) const {
    return {data + sample * height * width * channels, height, width, channels};
  }
  Image taps(float* data, int64_t kernel) const {
    return {data + kernel * size * size * channels, size, size, channels};
  }
};

// x (batch, height, width, channels), kernel (batch / per_kernel, size, size, channels) -> y as x.
void convolve(const xla::CallFrame* frame, const Shape& shape, int64_t per_kernel, float* x,
              float* kernel, float* y) {
  const Kernels kernels = select_kernels(shape.size);
  const int64_t lanes = kernels.lanes, tile = kernels.tile, size = shape.size;
  const int64_t bands = ceil_div(shape.height, kRows);
  const int64_t strips = ceil_div(shape.width, kStrip * tile);
  const int64_t groups = ceil_div(shape.channels, kGroup);

  Job::run(frame, shape.batch * bands * strips * groups, [&](int64_t task) {
    const int64_t group = task % groups, strip = task / groups % strips;
    const int64_t band = task / groups / strips % bands, sample = task / groups / strips / bands;
    const int64_t first = group * kGroup, channels = std::min(kGroup, shape.channels - first);
    const int64_t top = band * kRows, rows = std::min(kRows, shape.height - top);
    const int64_t x_rows = rows + size - 1, x_columns = tile + size - 1;
    // Floats per register of channels: of the kernel, of what a tile reads, of the tile.
    const int64_t kernel_floats = size * size * lanes, x_floats = x_rows * x_columns * lanes;
    const int64_t y_floats = rows * tile * lanes, blocks = ceil_div(channels, lanes);
    float* kernel_blocks = scratch(blocks * (kernel_floats + x_floats + y_floats));
    float* x_blocks = kernel_blocks + blocks * kernel_floats;
    float* y_blocks = x_blocks + blocks * x_floats;

    kernels.pack({shape.taps(kernel, sample / per_kernel), 0, 0, first, size, size, channels},
                 kernel_blocks);
    const int64_t end = std::min(shape.width, (strip + 1) * kStrip * tile);
    for (int64_t left = strip * kStrip * tile; left < end; left += tile) {
      kernels.pack({shape.image(x, sample), top - size / 2, left - size / 2, first, x_rows,
                    x_columns, channels}, x_blocks);
      for (int64_t n = 0; n < blocks; ++n)
        kernels.convolve(x_blocks + n * x_floats, kernel_blocks + n * kernel_floats,
                         y_blocks + n * y_floats, rows, size);
      kernels.unpack(y_blocks, {shape.image(y, sample), top, left, first, rows, tile, channels});
    }
  });
}

// x and dy (batch, height, width, channels) -> dkernel (batch, bands, size, size, channels), the
// kernel gradient of each sample and each band of kRows rows.
void correlate(const xla::CallFrame* frame, const Shape& shape, float* x, float* dy,
               float* dkernel) {
  const Kernels kernels = select_kernels(shape.size);
  const int64_t lanes = kernels.lanes, tile = kernels.tile, size = shape.size;
  const int64_t bands = ceil_div(shape.height, kRows);
  const int64_t groups = ceil_div(shape.channels, kGroup);

  Job::run(frame, shape.batch * bands * groups, [&](int64_t task) {
    const int64_t group = task % groups, band = task / groups % bands;
    const int64_t sample = task / groups / bands;
    const int64_t first = group * kGroup, channels = std::min(kGroup, shape.channels - first);
    const int64_t top = band * kRows, rows = std::min(kRows, shape.height - top);
    const int64_t x_rows = rows + size - 1, x_columns = tile + size - 1;
    const int64_t kernel_floats = size * size * lanes, x_floats = x_rows * x_columns * lanes;
    const int64_t dy_floats = rows * tile * lanes, blocks = ceil_div(channels, lanes);
    float* kernel_blocks = scratch(blocks * (kernel_floats + x_floats + dy_floats));
    float* x_blocks = kernel_blocks + blocks * kernel_floats;
    float* dy_blocks = x_blocks + blocks * x_floats;

    std::fill_n(kernel_blocks, blocks * kernel_floats, 0.0f);
    for (int64_t left = 0; left < shape.width; left += tile) {
      kernels.pack({shape.image(x, sample), top - size / 2, left - size / 2, first, x_rows,
                    x_columns, channels}, x_blocks);
      kernels.pack({shape.image(dy, sample), top, left, first, rows, tile, channels}, dy_blocks);
      for (int64_t n = 0; n < blocks; ++n)
        kernels.correlate(x_blocks + n * x_floats, dy_blocks + n * dy_floats,
                          kernel_blocks + n * kernel_floats, rows, size);
    }
    kernels.unpack(kernel_blocks, {shape.taps(dkernel, sample * bands + band), 0, 0, first, size,
                                   size, channels});
  });
}

// --- Entry points -----------------------------------------------------------------------------

xla::Error* fail(const xla::CallFrame* frame, const char* message) {
  xla::ErrorCreateArgs args{sizeof(args), nullptr, message, xla::kInvalidArgument};
  return frame->api->error_create(&args);
}

int64_t leading(const xla::Buffer& buffer, int64_t trailing) {
  int64_t count = 1;
  for (int64_t n = 0; n < buffer.rank - trailing; ++n) count *= buffer.dims[n];
  return count;
}

bool same_dims(const xla::Buffer& a, const xla::Buffer& b) {
  return a.rank == b.rank && std::equal(a.dims, a.dims + a.rank, b.dims);
}

// Whether the last three dimensions are those of kernels for `shape`: K, K, C, with K odd.
bool holds_kernels(const xla::Buffer& buffer, const Shape& shape) {
  const int64_t* d = buffer.dims + buffer.rank - 3;
  return d[0] == d[1] && d[0] % 2 == 1 && d[2] == shape.channels;
}

// What both entry points share: answers XLA's question for the version, checks types and ranks,
// and calls `execute(first operand, second operand, result)`, which checks the dimensions before it
// touches memory. Leading dimensions beyond those named above come from vmap and count as batch.
template <class Execute>
xla::Error* handle(xla::CallFrame* frame, Execute execute) {
  for (auto* extension = frame->extensions; extension != nullptr; extension = extension->next) {
    if (extension->type != xla::kMetadataExtension) continue;
    xla::Metadata* metadata = reinterpret_cast<xla::MetadataExtension*>(extension)->metadata;
    // Runtimes that speak 0.1 (jaxlib 0.5) do not say so when they ask.
    const int minor = frame->api != nullptr ? frame->api->version.minor : 1;
    metadata->version = {sizeof(xla::ApiVersion), nullptr, 0, minor};
    metadata->traits = 0;
    return nullptr;
  }
  if (frame->args.size != 2 || frame->rets.size != 1)
    return fail(frame, "expected two operands and one result");
  const xla::Buffer* buffers[] = {frame->args.buffers[0], frame->args.buffers[1],
                                  frame->rets.buffers[0]};
  for (const xla::Buffer* buffer : buffers) {
    if (buffer->dtype != xla::kFloat32) return fail(frame, "expected float32");
    if (buffer->rank < 3) return fail(frame, "expected at least three dimensions");
  }
  return execute(*buffers[0], *buffers[1], *buffers[2]);
}

float* data(const xla::Buffer& buffer) { return static_cast<float*>(buffer.data); }

}  // namespace

LLIC_EXPORT xla::Error* llic_depthwise_convolve(xla::CallFrame* frame) {
  return handle(frame, [&](auto& x, auto& kernel, auto& y) -> xla::Error* {
    const int64_t* d = x.dims + x.rank - 3;
    const Shape shape{leading(x, 3), d[0], d[1], d[2], kernel.dims[kernel.rank - 2]};
    const int64_t num_kernels = leading(kernel, 3);
    if (!same_dims(x, y)) return fail(frame, "the result differs in shape from the image");
    if (!holds_kernels(kernel, shape))
      return fail(frame, "expected kernels of K x K taps, K odd, with as many channels as the image");
    if (num_kernels == 0 || shape.batch % num_kernels != 0)
      return fail(frame, "the batch is not a multiple of the number of kernels");
    convolve(frame, shape, shape.batch / num_kernels, data(x), data(kernel), data(y));
    return nullptr;
  });
}

LLIC_EXPORT xla::Error* llic_depthwise_correlate(xla::CallFrame* frame) {
  return handle(frame, [&](auto& x, auto& dy, auto& dkernel) -> xla::Error* {
    const int64_t* d = x.dims + x.rank - 3;
    const Shape shape{leading(x, 3), d[0], d[1], d[2], dkernel.dims[dkernel.rank - 2]};
    if (!same_dims(x, dy)) return fail(frame, "the gradient differs in shape from the image");
    if (!holds_kernels(dkernel, shape))
      return fail(frame, "expected kernels of K x K taps, K odd, with as many channels as the image");
    if (leading(dkernel, 3) != shape.batch * ceil_div(shape.height, kRows))
      return fail(frame, "expected one kernel gradient per sample and band of rows");
    correlate(frame, shape, data(x), data(dy), data(dkernel));
    return nullptr;
  });
}

LLIC_EXPORT void llic_depthwise_limit_instruction_set(int limit) { instruction_set_limit = limit; }
