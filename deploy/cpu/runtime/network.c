/* A network: memory for its maps, and its kernels called in order. */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "frame.h"
#include "hmseg.h"
#include "tools.h"

#define LINE 64
#define POINTER 7 /* TVM's number for an argument that is a pointer to a tensor */

/* What kernels ask for; they are compiled with weak variables of these names. */
__attribute__((visibility("hidden"))) void *__TVMBackendParallelLaunch = (void *)hmseg_launch;
__attribute__((visibility("hidden"))) void *__TVMBackendAllocWorkspace = (void *)hmseg_workspace;
__attribute__((visibility("hidden"))) void *__TVMBackendFreeWorkspace =
    (void *)hmseg_workspace_done;

__attribute__((visibility("hidden"))) void TVMFFIErrorSetRaisedFromCStrParts(const char *kind,
                                                                            const char **parts,
                                                                            int32_t count)
{
    (void)kind, (void)parts, (void)count; /* the kernel returns -1, too */
}

/* An entry with this network's addresses. */
typedef struct {
    const hmseg_entry *plan;
    hmseg_tensor *tensors; /* as the entry's places */
    hmseg_any *arguments;
} frame;

struct hmseg_network {
    hmseg_pool *pool, *own; /* the second is null where the pool is somebody else's */
    unsigned char *arena;
    frame main, scores;
    atomic_flag busy;
};

static int64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

const char *hmseg_error_text(int code)
{
    static const char *const texts[] = {
        "it worked",
        "an argument is not what the header asks for",
        "there is not enough memory",
        "this CPU lacks instructions that the library was compiled with",
        "the system starts no more threads",
        "another thread is in a call of this network: create one for each",
        "a kernel failed, which is a fault of this library",
    };
    int known = code >= 0 && code < (int)(sizeof texts / sizeof *texts);
    return known ? texts[code] : "an unknown code";
}

static void point(hmseg_network *network, frame *made, unsigned char *output)
{
    for (int32_t i = 0; i < made->plan->place_count; i++) {
        const hmseg_place *place = &made->plan->places[i];
        unsigned char *at = NULL;
        switch (place->space) {
        case HMSEG_CONSTANT:
            at = (unsigned char *)(uintptr_t)hmseg_frame.constants + place->offset;
            break;
        case HMSEG_INPUT:
            at = network->arena + hmseg_frame.input_offset;
            break;
        case HMSEG_OUTPUT:
            at = output;
            break;
        default:
            at = network->arena + place->offset;
        }
        made->tensors[i].data = at;
    }
}

static int prepare(hmseg_network *network, const hmseg_entry *plan, frame *made)
{
    size_t count = (size_t)plan->place_count;
    made->plan = plan;
    made->tensors = calloc(count, sizeof *made->tensors);
    made->arguments = calloc(count, sizeof *made->arguments);
    if (made->tensors == NULL || made->arguments == NULL)
        return HMSEG_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        const hmseg_place *place = &plan->places[i];
        hmseg_tensor *tensor = &made->tensors[i];
        tensor->device.type = 1; /* CPU */
        tensor->ndim = place->ndim;
        tensor->dtype = place->dtype;
        tensor->shape = place->shape;
        made->arguments[i].type = POINTER;
        made->arguments[i].value.pointer = tensor;
    }
    point(network, made, network->arena + plan->output_offset);
    return HMSEG_OK;
}

static int create(hmseg_pool *pool, hmseg_pool *own, hmseg_network **made)
{
    hmseg_network *network = calloc(1, sizeof *network);
    int code = network ? HMSEG_OK : HMSEG_NO_MEMORY;
    if (network) {
        void *arena = NULL;
        size_t bytes = hmseg_frame.arena_bytes;
        size_t alignment = bytes >= HMSEG_HUGE_PAGE ? HMSEG_HUGE_PAGE : LINE;
        network->pool = pool, network->own = own;
        atomic_flag_clear(&network->busy);
        if (hmseg_pages(&arena, alignment, bytes))
            code = HMSEG_NO_MEMORY;
        network->arena = arena;
        if (code == HMSEG_OK)
            code = prepare(network, hmseg_frame.main, &network->main);
        if (code == HMSEG_OK)
            code = prepare(network, hmseg_frame.scores, &network->scores);
    }
    if (code == HMSEG_OK) {
        *made = network;
        return code;
    }
    if (network)
        network->own = NULL; /* the caller's to end */
    hmseg_destroy(&network);
    return code;
}

int hmseg_create_in(hmseg_pool *pool, hmseg_network **made)
{
    if (made == NULL)
        return HMSEG_BAD_ARGUMENT;
    *made = NULL;
    if (pool == NULL)
        return HMSEG_BAD_ARGUMENT;
    if (!hmseg_cpu_fits(hmseg_frame.features, hmseg_frame.feature_count, hmseg_frame.state))
        return HMSEG_WRONG_CPU;
    return create(pool, NULL, made);
}

int hmseg_create(int threads, hmseg_network **made)
{
    hmseg_pool *pool = NULL;
    if (made == NULL)
        return HMSEG_BAD_ARGUMENT;
    *made = NULL;
    if (!hmseg_cpu_fits(hmseg_frame.features, hmseg_frame.feature_count, hmseg_frame.state))
        return HMSEG_WRONG_CPU;
    int code = hmseg_pool_create(threads, 0, &pool);
    if (code == HMSEG_OK && (code = create(pool, pool, made)) != HMSEG_OK)
        hmseg_pool_destroy(&pool);
    return code;
}

void hmseg_destroy(hmseg_network **given)
{
    hmseg_network *network = given ? *given : NULL;
    if (network == NULL)
        return;
    *given = NULL;
    hmseg_pool_destroy(&network->own);
    free(network->main.tensors);
    free(network->main.arguments);
    free(network->scores.tensors);
    free(network->scores.arguments);
    free(network->arena);
    free(network);
}

static void copy_rows(unsigned char *to, ptrdiff_t to_stride, const unsigned char *from,
                      ptrdiff_t from_stride, int64_t rows, int64_t bytes)
{
    if (to_stride == bytes && from_stride == bytes) {
        memcpy(to, from, (size_t)(rows * bytes));
        return;
    }
    for (int64_t row = 0; row < rows; row++)
        memcpy(to + row * to_stride, from + row * from_stride, (size_t)bytes);
}

static int call_kernel(const frame *made, int32_t number, hmseg_kernel other)
{
    const hmseg_call *call = &made->plan->calls[number];
    hmseg_any result = {0, 0, {0}};
    hmseg_kernel kernel = other ? other : hmseg_frame.kernels[call->kernel];
    return kernel(NULL, made->arguments + call->first, call->count, &result);
}

/* One frame; `clock` may be null. */
static int run(hmseg_network *network, frame *made, const void *image, ptrdiff_t image_stride,
               void *output, ptrdiff_t stride, int64_t *clock)
{
    const hmseg_entry *plan = made->plan;
    int64_t row = hmseg_frame.input_row_bytes;
    unsigned char *mine = network->arena + plan->output_offset, *to = mine;
    int failed = 0;
    if (image_stride == 0)
        image_stride = (ptrdiff_t)row;
    if (stride == 0)
        stride = (ptrdiff_t)plan->row_bytes;
    if (image == NULL || output == NULL || image_stride < row || stride < plan->row_bytes)
        return HMSEG_BAD_ARGUMENT;
    if (atomic_flag_test_and_set_explicit(&network->busy, memory_order_acquire))
        return HMSEG_BUSY;
    if (hmseg_pool_enter(network->pool)) {
        hmseg_pool_leave(network->pool);
        atomic_flag_clear_explicit(&network->busy, memory_order_release);
        return HMSEG_NO_MEMORY;
    }
    if (stride == plan->row_bytes && (uintptr_t)output % LINE == 0)
        to = output; /* kernels write it where it shall be */
    if (to != mine)
        point(network, made, to);
    copy_rows(network->arena + hmseg_frame.input_offset, (ptrdiff_t)row, image, image_stride,
              hmseg_frame.input_rows, row);
    if (clock)
        clock[0] = now_ns();
    for (int32_t i = 0; i < plan->call_count && !failed; i++) {
        failed = call_kernel(made, i, NULL);
        if (clock)
            clock[i + 1] = now_ns();
    }
    if (to != mine)
        point(network, made, mine);
    else if (!failed)
        copy_rows(output, stride, mine, (ptrdiff_t)plan->row_bytes, plan->rows, plan->row_bytes);
    hmseg_pool_leave(network->pool);
    atomic_flag_clear_explicit(&network->busy, memory_order_release);
    return failed ? HMSEG_FAILED : HMSEG_OK;
}

int hmseg_run(hmseg_network *network, const void *image, ptrdiff_t image_stride, void *output,
              ptrdiff_t output_stride)
{
    if (network == NULL)
        return HMSEG_BAD_ARGUMENT;
    return run(network, &network->main, image, image_stride, output, output_stride, NULL);
}

int hmseg_scores(hmseg_network *network, const void *image, ptrdiff_t image_stride, float *scores)
{
    if (network == NULL)
        return HMSEG_BAD_ARGUMENT;
    return run(network, &network->scores, image, image_stride, scores, 0, NULL);
}

/* For tools. */

int hmseg_calls(int scores)
{
    return (scores ? hmseg_frame.scores : hmseg_frame.main)->call_count;
}

int hmseg_run_timed(hmseg_network *network, const void *image, void *output, int64_t *clock)
{
    if (network == NULL || clock == NULL)
        return HMSEG_BAD_ARGUMENT;
    return run(network, &network->main, image, 0, output, 0, clock);
}

int hmseg_give(hmseg_network *network, const void *image)
{
    if (network == NULL || image == NULL)
        return HMSEG_BAD_ARGUMENT;
    memcpy(network->arena + hmseg_frame.input_offset, image,
           (size_t)(hmseg_frame.input_rows * hmseg_frame.input_row_bytes));
    return HMSEG_OK;
}

static frame *frame_of(hmseg_network *network, int scores, int call)
{
    frame *made = network == NULL ? NULL : scores ? &network->scores : &network->main;
    return made == NULL || call < 0 || call >= made->plan->call_count ? NULL : made;
}

int hmseg_step(hmseg_network *network, int scores, int call, hmseg_kernel other, int64_t *elapsed)
{
    frame *made = frame_of(network, scores, call);
    if (made == NULL)
        return HMSEG_BAD_ARGUMENT;
    int failed = hmseg_pool_enter(network->pool);
    int64_t begin = now_ns();
    failed = failed || call_kernel(made, call, other);
    if (elapsed)
        *elapsed = now_ns() - begin;
    hmseg_pool_leave(network->pool);
    return failed ? HMSEG_FAILED : HMSEG_OK;
}

void *hmseg_output(hmseg_network *network, int scores, int call, int64_t *bytes)
{
    frame *made = frame_of(network, scores, call);
    if (made == NULL || bytes == NULL)
        return NULL;
    const hmseg_call *which = &made->plan->calls[call];
    const hmseg_tensor *tensor = &made->tensors[which->first + which->count - 1];
    *bytes = tensor->dtype.bits / 8;
    for (int32_t i = 0; i < tensor->ndim; i++)
        *bytes *= tensor->shape[i];
    return tensor->data;
}

void hmseg_backend(void *functions[3])
{
    functions[0] = (void *)hmseg_launch;
    functions[1] = (void *)hmseg_workspace;
    functions[2] = (void *)hmseg_workspace_done;
}
