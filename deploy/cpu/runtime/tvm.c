/* The library's entries as TVM's servers find them, so that one file serves a C program and a
 * device behind TVM's RPC: a network that is made at the first call. */
#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "hmseg.h"
#include "tools.h"

#define EXPORT __attribute__((visibility("default")))
#define POINTER 7
#define OBJECT 70 /* a tensor with an owner; its DLTensor lies behind the object's header */
#define HEADER 24
#define MOST_WORDS 4097 /* of a buffer of the clock: deploy/measure/clock.py */

static int wanted; /* threads */
static hmseg_network *served;

/* A server that unloads one network for the next is to keep neither its memory nor its threads. */
__attribute__((destructor)) static void end_served(void)
{
    hmseg_destroy(&served);
}

static hmseg_tensor *tensor_of(const hmseg_any *argument)
{
    const unsigned char *pointer = argument->value.pointer;
    if (argument->type != POINTER && argument->type != OBJECT)
        return NULL;
    return (hmseg_tensor *)(uintptr_t)(pointer + (argument->type == OBJECT ? HEADER : 0));
}

static void *data_of(const hmseg_any *argument)
{
    hmseg_tensor *tensor = tensor_of(argument);
    return tensor ? (unsigned char *)tensor->data + tensor->byte_offset : NULL;
}

static int served_network(void)
{
    return served ? HMSEG_OK : hmseg_create(wanted, &served);
}

/* threads(n): how many the network has from now on. */
EXPORT int __tvm_ffi_threads(void *self, const hmseg_any *arguments, int32_t count,
                             hmseg_any *result)
{
    (void)self, (void)result;
    if (count != 1)
        return -1;
    wanted = (int)arguments[0].value.number;
    hmseg_destroy(&served);
    return served_network() ? -1 : 0;
}

/* main(input, output) */
EXPORT int __tvm_ffi_main(void *self, const hmseg_any *arguments, int32_t count, hmseg_any *result)
{
    (void)self, (void)result;
    if (count != 2 || served_network())
        return -1;
    return hmseg_run(served, data_of(&arguments[0]), 0, data_of(&arguments[1]), 0) ? -1 : 0;
}

/* logits(input, output) */
EXPORT int __tvm_ffi_logits(void *self, const hmseg_any *arguments, int32_t count,
                            hmseg_any *result)
{
    (void)self, (void)result;
    if (count != 2 || served_network())
        return -1;
    return hmseg_scores(served, data_of(&arguments[0]), 0, data_of(&arguments[1])) ? -1 : 0;
}

/* timed(input, output, ticks): main, and a reading of the clock before and after each kernel is
 * appended to ticks, whose first word counts them. */
EXPORT int __tvm_ffi_timed(void *self, const hmseg_any *arguments, int32_t count,
                           hmseg_any *result)
{
    (void)self, (void)result;
    if (count != 3 || served_network())
        return -1;
    int64_t *ticks = data_of(&arguments[2]), more = hmseg_calls(0) + 1;
    if (ticks == NULL || ticks[0] < 0 || 1 + ticks[0] + more > MOST_WORDS)
        return -1;
    if (hmseg_run_timed(served, data_of(&arguments[0]), data_of(&arguments[1]),
                        ticks + 1 + ticks[0]))
        return -1;
    ticks[0] += more;
    return 0;
}
