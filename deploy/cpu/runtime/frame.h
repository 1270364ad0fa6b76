/* What a compiled network is, as the generated file frame.c writes it down, and what the parts of
 * the runtime know of each other. Names that begin with hmseg_ get the library's own prefix. */
#ifndef HMSEG_FRAME_H
#define HMSEG_FRAME_H

#include <stddef.h>
#include <stdint.h>

/* TVM's calling convention: dlpack.h and tvm/ffi/c_api.h, as far as compiled kernels need it. */
typedef struct {
    int32_t type, id;
} hmseg_device;

typedef struct {
    uint8_t code, bits;
    uint16_t lanes;
} hmseg_dtype;

typedef struct {
    void *data;
    hmseg_device device;
    int32_t ndim;
    hmseg_dtype dtype;
    const int64_t *shape;
    const int64_t *strides;
    uint64_t byte_offset;
} hmseg_tensor;

typedef struct {
    int32_t type, zero;
    union {
        int64_t number;
        const void *pointer;
    } value;
} hmseg_any;

typedef int (*hmseg_kernel)(void *self, const hmseg_any *arguments, int32_t count,
                            hmseg_any *result);

/* Where the bytes of a tensor lie. */
enum { HMSEG_MAP, HMSEG_CONSTANT, HMSEG_INPUT, HMSEG_OUTPUT };

typedef struct {
    uint64_t offset; /* within the arena, or the constants */
    const int64_t *shape;
    int32_t ndim;
    hmseg_dtype dtype;
    int32_t space;
} hmseg_place;

typedef struct {
    int32_t kernel;       /* a number of hmseg_frame.kernels */
    int32_t first, count; /* of the entry's places */
} hmseg_call;

/* Kernels in order, and what they read and write; the last argument is the output. */
typedef struct {
    const hmseg_call *calls;
    const hmseg_place *places;
    int32_t call_count, place_count;
    int64_t rows, row_bytes; /* of the output */
    uint64_t output_offset;  /* in the arena, for callers whose memory does not fit */
} hmseg_entry;

/* A CPU feature: of x86 a bit of a register of cpuid (0 to 3: eax to edx), of ARM a bit of the
 * auxiliary vector's entry `leaf`. */
typedef struct {
    uint32_t leaf, subleaf, reg, bit;
} hmseg_feature;

typedef struct {
    const hmseg_kernel *kernels;
    int32_t kernel_count;
    const hmseg_entry *main, *scores; /* the same where the network gives scores */
    const hmseg_feature *features;
    int32_t feature_count;
    uint32_t state; /* of XCR0: what the system must keep of the registers */
    uint64_t arena_bytes, input_offset;
    int64_t input_rows, input_row_bytes;
    const unsigned char *constants;
} hmseg_frame_plan;

extern const hmseg_frame_plan hmseg_frame;

/* cpu.c */
int hmseg_cpu_fits(const hmseg_feature *features, int32_t count, uint32_t state);

/* pool.c: threads that run a kernel's loops together. */
typedef struct hmseg_pool hmseg_pool;
typedef struct {
    void *sync;
    int32_t tasks;
} hmseg_group;
typedef int (*hmseg_body)(int task, hmseg_group *group, void *data);

typedef struct hmseg_scratch hmseg_scratch;

int hmseg_pool_threads(const hmseg_pool *pool);
/* Between these two the calling thread's kernels run in the pool, and no other's. */
int hmseg_pool_enter(hmseg_pool *pool);
void hmseg_pool_leave(hmseg_pool *pool);

/* What kernels call: pointers to these are in the variables that TVM's generated code reads. */
int hmseg_launch(hmseg_body body, void *data, int tasks);
void *hmseg_workspace(int type, int id, uint64_t bytes, int code, int bits);
int hmseg_workspace_done(int type, int id, void *memory);

/* Memory for `free`, in huge pages where it is aligned to them and the system has any; 0 for done. */
#define HMSEG_HUGE_PAGE ((size_t)2 << 20)
int hmseg_pages(void **memory, size_t alignment, size_t bytes);

#endif
