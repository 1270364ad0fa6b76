// A stand-in for NVIDIA's driver where there is no GPU: the functions that deploy/gpu/driver.py
// calls, with the prototypes of the real cuda.h (a wrong one does not compile). Memory is the
// host's, its addresses marked, so that a host address given for a device's is found. Kernels are
// those of an emulated GPU (deploy/gpu/emulator.py): STAND_IN_KERNELS names the library that stands
// for every image, or a folder in which NAME.so stands for the image in NAME.image. The GPU's clock
// counts one at each event and one for each thread of a kernel that runs. What the driver is and has
// comes from the variables read below.
#include <cuda.h>
#include <dlfcn.h>
#include <elf.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

namespace {
constexpr CUdeviceptr kMark = CUdeviceptr{1} << 60;

long setting(const char* name, long otherwise) {
  const char* text = getenv(name);
  return text ? atol(text) : otherwise;
}

struct Kernel {
  void (*run)(void**, const unsigned*, int);
  unsigned count;
};
struct Module {
  void* library;
  std::map<std::string, Kernel> kernels;
};
struct Work {
  Kernel* kernel;  // or, where there is none, the event that is recorded
  long* event;
  unsigned sizes[6];
  std::vector<CUdeviceptr> arguments;
};
struct Stream {
  bool capturing = false;
  std::vector<Work> recorded;
};
struct Graph {
  std::vector<Work> work;
};
long context_, ticks, capturing;
pid_t started;  // the process that called cuInit; a child of it must call nothing else
bool failed;  // after an access outside of memory a context answers nothing any more

char* host(CUdeviceptr address) {
  if (!(address & kMark)) {
    fprintf(stderr, "a host address was given for a device's\n");
    abort();
  }
  return reinterpret_cast<char*>(address & ~kMark);
}

void must_not_capture(CUstream stream) {
  if (reinterpret_cast<Stream*>(stream)->capturing) abort();
}

std::string bytes_of(const char* image) {
  if (memcmp(image, ELFMAG, SELFMAG)) return image;  // PTX
  Elf64_Ehdr header;
  memcpy(&header, image, sizeof header);
  const size_t sections = header.e_shoff + size_t{header.e_shnum} * header.e_shentsize;
  const size_t segments = header.e_phoff + size_t{header.e_phnum} * header.e_phentsize;
  return {image, std::max(sections, segments)};
}

std::string library_of(const char* image) {
  namespace fs = std::filesystem;
  const fs::path named = getenv("STAND_IN_KERNELS");
  if (!fs::is_directory(named)) return named;
  const std::string bytes = bytes_of(image);
  for (const auto& entry : fs::directory_iterator(named)) {
    if (entry.path().extension() != ".image") continue;
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string known{std::istreambuf_iterator<char>(file), {}};
    if (known == bytes) return fs::path(entry.path()).replace_extension(".so");
  }
  return "";
}

void run(const Work& work) {
  if (!work.kernel) {
    *work.event = ++ticks;
    return;
  }
  if (long{work.sizes[3]} * work.sizes[4] * work.sizes[5] > setting("STAND_IN_FATAL_BLOCK", 1024))
    failed = true;
  ticks += long{work.sizes[0]} * work.sizes[1] * work.sizes[2] * work.sizes[3] * work.sizes[4] *
           work.sizes[5];
  std::vector<void*> pointers;
  for (CUdeviceptr address : work.arguments) pointers.push_back(host(address));
  work.kernel->run(pointers.data(), work.sizes, 0);
}
}  // namespace

CUresult cuInit(unsigned flags) {
  if (flags) return CUDA_ERROR_INVALID_VALUE;
  if (started && started != getpid()) return CUDA_ERROR_NOT_INITIALIZED;  // as NVIDIA's does
  started = getpid();
  return setting("STAND_IN_DEVICES", 1) ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}
CUresult cuDriverGetVersion(int* version) {
  *version = static_cast<int>(setting("STAND_IN_VERSION", 12090));
  return CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult, const char** text) {
  *text = "words of the driver";
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetCount(int* count) {
  *count = static_cast<int>(setting("STAND_IN_DEVICES", 1));
  return CUDA_SUCCESS;
}
CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  *device = ordinal;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetName(char* name, int size, CUdevice) {
  const char* given = getenv("STAND_IN_NAME");
  snprintf(name, size, "%s", given ? given : "Stand-in");
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
  const long capability = setting("STAND_IN_CAPABILITY", 61);
  if (attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) *value = capability / 10;
  else if (attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR) *value = capability % 10;
  else if (attribute == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT) *value = 28;
  else return CUDA_ERROR_INVALID_VALUE;
  return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice) {
  *context = reinterpret_cast<CUcontext>(&context_);
  failed = false;
  return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease(CUdevice) { return CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext context) {
  if (started != getpid()) abort();
  return context ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}
CUresult cuMemGetInfo(size_t* free, size_t* total) {
  *total = *free = setting("STAND_IN_MEMORY", 1L << 33);
  return CUDA_SUCCESS;
}
CUresult cuMemAlloc(CUdeviceptr* address, size_t size) {
  if (capturing) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  size_t free, total;
  cuMemGetInfo(&free, &total);
  if (size > free) return CUDA_ERROR_OUT_OF_MEMORY;
  void* memory = aligned_alloc(256, (size + 255) / 256 * 256);
  memset(memory, 0, size);
  *address = reinterpret_cast<CUdeviceptr>(memory) | kMark;
  return CUDA_SUCCESS;
}
CUresult cuMemFree(CUdeviceptr address) {
  if (capturing) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  ::free(host(address));
  return CUDA_SUCCESS;
}
CUresult cuMemHostAlloc(void** address, size_t size, unsigned) {
  *address = malloc(size);
  return CUDA_SUCCESS;
}
CUresult cuMemFreeHost(void* address) {
  ::free(address);
  return CUDA_SUCCESS;
}
CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t size, CUstream stream) {
  must_not_capture(stream);
  memset(host(to), value, size);
  return CUDA_SUCCESS;
}
CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t size, CUstream stream) {
  must_not_capture(stream);
  memcpy(host(to), from, size);
  return CUDA_SUCCESS;
}
CUresult cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t size, CUstream stream) {
  must_not_capture(stream);
  memcpy(to, host(from), size);
  return CUDA_SUCCESS;
}
CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream) {
  must_not_capture(stream);
  memcpy(host(to), host(from), size);
  return CUDA_SUCCESS;
}
CUresult cuModuleLoadData(CUmodule* module, const void* image) {
  const bool ptx = memcmp(image, "\x7f" "ELF", 4) != 0;
  if (ptx && strstr(static_cast<const char*>(image), ".version") == nullptr)
    return CUDA_ERROR_INVALID_IMAGE;
  if (ptx && setting("STAND_IN_VERSION", 12090) < 12090) return CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
  const std::string path = library_of(static_cast<const char*>(image));
  void* library = dlopen(path.empty() ? "no library stands for this image" : path.c_str(), RTLD_NOW);
  if (!library) return CUDA_ERROR_FILE_NOT_FOUND;
  *module = reinterpret_cast<CUmodule>(new Module{library, {}});
  return CUDA_SUCCESS;
}
CUresult cuModuleUnload(CUmodule module) {
  dlclose(reinterpret_cast<Module*>(module)->library);
  delete reinterpret_cast<Module*>(module);
  return CUDA_SUCCESS;
}
CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  Module* loaded = reinterpret_cast<Module*>(module);
  void* run = dlsym(loaded->library, (std::string("emulate_") + name).c_str());
  void* count = dlsym(loaded->library, (std::string("arguments_") + name).c_str());
  if (!run || !count) return CUDA_ERROR_NOT_FOUND;
  Kernel& kernel = loaded->kernels[name];
  kernel.run = reinterpret_cast<void (*)(void**, const unsigned*, int)>(run);
  kernel.count = reinterpret_cast<unsigned (*)()>(count)();
  *function = reinterpret_cast<CUfunction>(&kernel);
  return CUDA_SUCCESS;
}
CUresult cuStreamCreate(CUstream* stream, unsigned) {
  *stream = reinterpret_cast<CUstream>(new Stream);
  return CUDA_SUCCESS;
}
CUresult cuStreamDestroy(CUstream stream) {
  delete reinterpret_cast<Stream*>(stream);
  return CUDA_SUCCESS;
}
CUresult cuStreamSynchronize(CUstream stream) {
  must_not_capture(stream);
  return failed ? CUDA_ERROR_ILLEGAL_ADDRESS : CUDA_SUCCESS;
}
CUresult cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode mode) {
  if (mode != CU_STREAM_CAPTURE_MODE_THREAD_LOCAL) return CUDA_ERROR_INVALID_VALUE;
  ++capturing;
  *reinterpret_cast<Stream*>(stream) = Stream{true, {}};
  return CUDA_SUCCESS;
}
CUresult cuStreamEndCapture(CUstream stream, CUgraph* graph) {
  Stream* recording = reinterpret_cast<Stream*>(stream);
  --capturing;
  *graph = reinterpret_cast<CUgraph>(new Graph{recording->recorded});
  *recording = Stream{};
  return CUDA_SUCCESS;
}
CUresult cuLaunchKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                        unsigned by, unsigned bz, unsigned shared, CUstream stream,
                        void** parameters, void** extra) {
  Kernel* kernel = reinterpret_cast<Kernel*>(function);
  Stream* recording = reinterpret_cast<Stream*>(stream);
  if (shared || extra || bx * by * bz > 1024 || gy > 65535 || gz > 65535)
    return CUDA_ERROR_INVALID_VALUE;
  // As where a block's registers do not suffice.
  if (long{bx} * by * bz > setting("STAND_IN_BLOCK", 1024)) return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
  Work work{kernel, nullptr, {gx, gy, gz, bx, by, bz}, {}};
  for (unsigned i = 0; i < kernel->count; ++i)
    work.arguments.push_back(*static_cast<CUdeviceptr*>(parameters[i]));
  if (recording->capturing) recording->recorded.push_back(work);
  else run(work);
  return CUDA_SUCCESS;
}
CUresult cuGraphInstantiateWithFlags(CUgraphExec* made, CUgraph graph, unsigned long long flags) {
  if (flags) return CUDA_ERROR_INVALID_VALUE;
  *made = reinterpret_cast<CUgraphExec>(new Graph(*reinterpret_cast<Graph*>(graph)));
  return CUDA_SUCCESS;
}
CUresult cuGraphLaunch(CUgraphExec graph, CUstream stream) {
  must_not_capture(stream);
  for (const Work& work : reinterpret_cast<Graph*>(graph)->work) run(work);
  return CUDA_SUCCESS;
}
CUresult cuGraphDestroy(CUgraph graph) {
  delete reinterpret_cast<Graph*>(graph);
  return CUDA_SUCCESS;
}
CUresult cuGraphExecDestroy(CUgraphExec graph) {
  delete reinterpret_cast<Graph*>(graph);
  return CUDA_SUCCESS;
}
CUresult cuEventCreate(CUevent* event, unsigned) {
  *event = reinterpret_cast<CUevent>(new long{-1});
  return CUDA_SUCCESS;
}
CUresult cuEventRecord(CUevent event, CUstream stream) {
  // In a capture it orders streams and keeps no time.
  const bool capturing = reinterpret_cast<Stream*>(stream)->capturing;
  *reinterpret_cast<long*>(event) = capturing ? -1 : ++ticks;
  return CUDA_SUCCESS;
}
CUresult cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned flags) {
  Stream* recording = reinterpret_cast<Stream*>(stream);
  if (flags != CU_EVENT_RECORD_EXTERNAL || !recording->capturing) return CUDA_ERROR_INVALID_VALUE;
  recording->recorded.push_back({nullptr, reinterpret_cast<long*>(event), {}, {}});
  return CUDA_SUCCESS;
}
CUresult cuEventSynchronize(CUevent) { return CUDA_SUCCESS; }
CUresult cuEventElapsedTime(float* milliseconds, CUevent start, CUevent stop) {
  const long from = *reinterpret_cast<long*>(start), to = *reinterpret_cast<long*>(stop);
  if (from < 0 || to < 0) return CUDA_ERROR_NOT_READY;
  *milliseconds = static_cast<float>(to - from);
  return CUDA_SUCCESS;
}
CUresult cuEventDestroy(CUevent event) {
  delete reinterpret_cast<long*>(event);
  return CUDA_SUCCESS;
}
