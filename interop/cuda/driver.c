/* A pretend CUDA driver, for `cargo xtask gpu-check --trace`. Device memory is host memory, kernels and matrix products do
 * nothing, and each call is a line in the file $CUDA_TRACE: thread, kind, stream, bytes, name. So a program's requests to a
 * GPU, their order and their threads are visible without a GPU. Results are meaningless.
 *
 * `cargo xtask` adds the functions of NVIDIA's libraries that are missing here; they return success.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SUCCESS = 0, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101 };

typedef void *Handle;
typedef uint64_t Address;

static void trace(const char *kind, Handle stream, size_t bytes, const char *name) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static FILE *file;
    pthread_mutex_lock(&lock);
    if (!file) {
        const char *path = getenv("CUDA_TRACE");
        file = fopen(path ? path : "/dev/null", "w");
        if (!file) abort();
        setvbuf(file, NULL, _IOLBF, 0);
    }
    fprintf(file, "%ld %s %p %zu %s\n", (long)syscall(SYS_gettid), kind, stream, bytes, name);
    pthread_mutex_unlock(&lock);
}

/* What the generated functions do. */
int pretend(const char *name) {
    trace("other", NULL, 0, name);
    return SUCCESS;
}

/* The device: one, with properties like those of a data-centre GPU. */
int cuGetErrorName(int error, const char **name) { *name = "CUDA_ERROR_PRETENDED"; return SUCCESS; }
int cuGetErrorString(int error, const char **text) { *text = "an error of the pretend driver"; return SUCCESS; }
int cuDeviceGetCount(int *count) { *count = 1; return SUCCESS; }
int cuDeviceGet(int *device, int ordinal) { *device = 0; return ordinal == 0 ? SUCCESS : INVALID_DEVICE; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
        case 1: *value = 1024; break;  /* threads in a block */
        case 8: *value = 49152; break; /* shared memory of a block */
        case 10: *value = 32; break;   /* threads in a warp */
        case 16: *value = 108; break;  /* multiprocessors */
        case 75: *value = 8; break;    /* compute capability, major */
        case 76: *value = 0; break;    /* and minor */
        default: *value = 1;
    }
    return SUCCESS;
}
int cuDevicePrimaryCtxRetain(Handle *context, int device) { *context = (Handle)1; return SUCCESS; }
int cuCtxGetCurrent(Handle *context) { *context = (Handle)1; return SUCCESS; }
int cuCtxSetCurrent(Handle context) { return SUCCESS; }
int cuCtxSynchronize(void) { trace("wait", NULL, 0, "cuCtxSynchronize"); return SUCCESS; }

/* Memory. */
static int allocate(Address *address, size_t bytes) {
    *address = (Address)(uintptr_t)calloc(1, bytes ? bytes : 1);
    return *address ? SUCCESS : OUT_OF_MEMORY;
}
int cuMemAlloc_v2(Address *address, size_t bytes) { return allocate(address, bytes); }
int cuMemAllocAsync(Address *address, size_t bytes, Handle stream) {
    trace("allocate", stream, bytes, "cuMemAllocAsync");
    return allocate(address, bytes);
}
int cuMemFree_v2(Address address) { free((Handle)(uintptr_t)address); return SUCCESS; }
int cuMemFreeAsync(Address address, Handle stream) {
    trace("free", stream, 0, "cuMemFreeAsync");
    free((Handle)(uintptr_t)address);
    return SUCCESS;
}
int cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, Handle stream) {
    trace("upload", stream, bytes, "cuMemcpyHtoDAsync");
    memcpy((Handle)(uintptr_t)to, from, bytes);
    return SUCCESS;
}
int cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, Handle stream) {
    trace("read", stream, bytes, "cuMemcpyDtoHAsync");
    memcpy(to, (Handle)(uintptr_t)from, bytes);
    return SUCCESS;
}
int cuMemcpyDtoH_v2(void *to, Address from, size_t bytes) {
    trace("read", NULL, bytes, "cuMemcpyDtoH");
    memcpy(to, (Handle)(uintptr_t)from, bytes);
    return SUCCESS;
}
int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, Handle stream) {
    trace("copy", stream, bytes, "cuMemcpyDtoDAsync");
    memcpy((Handle)(uintptr_t)to, (Handle)(uintptr_t)from, bytes);
    return SUCCESS;
}
int cuMemsetD8Async(Address to, unsigned char value, size_t bytes, Handle stream) {
    trace("fill", stream, bytes, "cuMemsetD8Async");
    memset((Handle)(uintptr_t)to, value, bytes);
    return SUCCESS;
}

/* Kernels, products and streams. */
int cuModuleLoadData(Handle *module, const void *image) { *module = (Handle)1; return SUCCESS; }
int cuModuleGetFunction(Handle *function, Handle module, const char *name) {
    *function = strdup(name);
    return *function ? SUCCESS : OUT_OF_MEMORY;
}
int cuLaunchKernel(Handle function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared, Handle stream, void **parameters, void **extra) {
    trace("kernel", stream, 0, function);
    return SUCCESS;
}
int cuStreamCreate(Handle *stream, unsigned flags) { *stream = malloc(1); return *stream ? SUCCESS : OUT_OF_MEMORY; }
int cuStreamSynchronize(Handle stream) { trace("wait", stream, 0, "cuStreamSynchronize"); return SUCCESS; }

static Handle product_stream;
int cublasCreate_v2(Handle *handle) { *handle = malloc(1); return *handle ? SUCCESS : OUT_OF_MEMORY; }
int cublasSetStream_v2(Handle handle, Handle stream) { product_stream = stream; return SUCCESS; }
#define PRODUCT(name) \
    int name(Handle handle) { trace("product", product_stream, 0, #name); return SUCCESS; }
PRODUCT(cublasGemmEx)
PRODUCT(cublasGemmStridedBatchedEx)
PRODUCT(cublasSgemm_v2)
PRODUCT(cublasSgemmStridedBatched)
