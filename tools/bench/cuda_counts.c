// SPDX-License-Identifier: Apache-2.0
//
// Counts where the host waits for a GPU, and the bytes that are copied back to it. For LD_PRELOAD, in front of a LibTorch
// whose libcudart is a shared library; needs no CUDA headers:
//
//   cc -O2 -shared -fPIC -o cuda_counts.so tools/bench/cuda_counts.c
//   CUDA_COUNTS=counts.jsonl LD_PRELOAD=$PWD/cuda_counts.so lockstep train ...
//
// A process that ends by itself adds a line to $CUDA_COUNTS: {"cudaStreamSynchronize": 12, ..., "device_to_host_bytes": 96}.
// cudaEventQuery is a look, not a wait; what allocates may wait. Not seen: libraries that bring a cudart of their own (cuBLAS, cuDNN).
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { kDeviceToHost = 2 };  // cudaMemcpyKind

static atomic_ulong device_to_host_bytes;

// A function of libcudart that is counted and then called. `also` is done besides.
#define COUNTED(name, parameters, arguments, also)                            \
  static atomic_ulong name##_count;                                           \
  int name parameters {                                                       \
    static int(*_Atomic real) parameters;                                     \
    if (!real) real = (int(*) parameters)dlsym(RTLD_NEXT, #name);             \
    ++name##_count;                                                           \
    also;                                                                     \
    return real arguments;                                                    \
  }

#define NOTHING (void)0
#define BYTES_TO_HOST \
  if (kind == kDeviceToHost) device_to_host_bytes += size

COUNTED(cudaStreamSynchronize, (void* stream), (stream), NOTHING)
COUNTED(cudaEventSynchronize, (void* event), (event), NOTHING)
COUNTED(cudaDeviceSynchronize, (void), (), NOTHING)
COUNTED(cudaEventQuery, (void* event), (event), NOTHING)
COUNTED(cudaMalloc, (void** memory, size_t size), (memory, size), NOTHING)
COUNTED(cudaFree, (void* memory), (memory), NOTHING)
COUNTED(cudaHostAlloc, (void** memory, size_t size, unsigned flags), (memory, size, flags), NOTHING)
COUNTED(cudaMemcpy, (void* to, const void* from, size_t size, int kind), (to, from, size, kind), BYTES_TO_HOST)
COUNTED(cudaMemcpyAsync, (void* to, const void* from, size_t size, int kind, void* stream), (to, from, size, kind, stream),
        BYTES_TO_HOST)

__attribute__((destructor)) static void write_counts(void) {
  const char* path = getenv("CUDA_COUNTS");
  FILE* file = path ? fopen(path, "a") : NULL;
  if (!file) return;
  fprintf(file, "{\"cudaStreamSynchronize\": %lu, \"cudaEventSynchronize\": %lu, \"cudaDeviceSynchronize\": %lu, ",
          cudaStreamSynchronize_count, cudaEventSynchronize_count, cudaDeviceSynchronize_count);
  fprintf(file, "\"cudaMalloc\": %lu, \"cudaFree\": %lu, \"cudaHostAlloc\": %lu, ", cudaMalloc_count, cudaFree_count,
          cudaHostAlloc_count);
  fprintf(file, "\"cudaEventQuery\": %lu, \"cudaMemcpy\": %lu, \"cudaMemcpyAsync\": %lu, \"device_to_host_bytes\": %lu}\n",
          cudaEventQuery_count, cudaMemcpy_count, cudaMemcpyAsync_count, device_to_host_bytes);
  fclose(file);
}
