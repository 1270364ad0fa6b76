/* @NAME@: semantic segmentation of one image, as one C function.
 *
 * @DESCRIPTION@
 *
 * Link against lib@NAME@.a or lib@NAME@.so; neither needs more than the C library and threads.
 * Nothing is printed, and there is no state but what these functions return. This is machine code:
 * run it only where you trust who made it. */
#ifndef HMSEG_H
#define HMSEG_H

#include <stddef.h>

#if defined(__GNUC__)
#define HMSEG_API __attribute__((visibility("default")))
#else
#define HMSEG_API
#endif

/* @CONSTANTS@ */

#ifdef __cplusplus
extern "C" {
#endif

/* What functions return. */
enum {
    HMSEG_OK = 0,
    HMSEG_BAD_ARGUMENT = 1, /* a null pointer, a stride shorter than a row, a number out of range */
    HMSEG_NO_MEMORY = 2,
    HMSEG_WRONG_CPU = 3,  /* it lacks instructions that the library was compiled with */
    HMSEG_NO_THREADS = 4, /* the system starts no more threads */
    HMSEG_BUSY = 5,       /* another thread is in a call of this network */
    HMSEG_FAILED = 6      /* a kernel refused its arguments: a fault of this library */
};

typedef struct hmseg_network hmseg_network; /* one network with memory of its own */
typedef struct hmseg_pool hmseg_pool;       /* threads, for one network or several */

enum { HMSEG_PIN = 1 }; /* bind each thread of a pool but the caller's to one CPU */
enum { HMSEG_MOST_THREADS = 1024 };

/* A sentence for what a function returned. Never null. */
HMSEG_API const char *hmseg_error_text(int code);

/* How many threads the CPUs that this process may use, and its container's quota, are worth. */
HMSEG_API int hmseg_default_threads(void);

/* Threads for several networks, whose calls then take turns: the calling one and threads - 1 more,
 * which sleep when there is nothing to do. 0 takes the default. flags: 0 or HMSEG_PIN. */
HMSEG_API int hmseg_pool_create(int threads, int flags, hmseg_pool **pool);

/* Ends its threads, which no network may use any more; sets the pointer to null. */
HMSEG_API void hmseg_pool_destroy(hmseg_pool **pool);

/* A network with a pool of its own of so many threads, 0 taking the default. Create one for each
 * thread that calls: they run at the same time and share the weights. */
HMSEG_API int hmseg_create(int threads, hmseg_network **network);

/* A network that runs in a pool; the pool must outlive it. */
HMSEG_API int hmseg_create_in(hmseg_pool *pool, hmseg_network **network);

/* Frees its memory and ends its own threads; sets the pointer to null. */
HMSEG_API void hmseg_destroy(hmseg_network **network);

/* @RUN@
 *
 * The strides are bytes from one row to the next, 0 where rows follow each other. */
HMSEG_API int hmseg_run(hmseg_network *network, const void *image, ptrdiff_t image_stride,
                        void *output, ptrdiff_t output_stride);

/* The class scores of the same input: HMSEG_PLANES x HMSEG_HEIGHT x HMSEG_WIDTH. */
HMSEG_API int hmseg_scores(hmseg_network *network, const void *image, ptrdiff_t image_stride,
                           float *scores);

#ifdef HMSEG_CLASSES /* not where the runtime itself is compiled */
/* Of each class its colour (red, green, blue) and its name. */
HMSEG_API extern const unsigned char hmseg_colours[HMSEG_CLASSES][3];
HMSEG_API extern const char *const hmseg_classes[HMSEG_CLASSES];
#endif

#ifdef __cplusplus
}
#endif
#endif
