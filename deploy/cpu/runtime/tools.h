/* For hmseg's own tools: the clock around each kernel, and a frame call by call. */
#ifndef HMSEG_TOOLS_H
#define HMSEG_TOOLS_H

#include "frame.h"
#include "hmseg.h"

/* Kernel calls of a frame, or of the frame that gives scores. */
HMSEG_API int hmseg_calls(int scores);

/* As hmseg_run, with the clock read before the first kernel and after each: clock[0 .. calls],
 * nanoseconds since some time. */
HMSEG_API int hmseg_run_timed(hmseg_network *network, const void *image, void *output,
                              int64_t *clock);

/* One call of a frame, on what the calls before it left: of the kernel, or of other code in its
 * place. elapsed: its nanoseconds. */
HMSEG_API int hmseg_step(hmseg_network *network, int scores, int call, hmseg_kernel other,
                         int64_t *elapsed);

/* Copy an input to where hmseg_step finds it. */
HMSEG_API int hmseg_give(hmseg_network *network, const void *image);

/* Where the output of a call lies, and its bytes. */
HMSEG_API void *hmseg_output(hmseg_network *network, int scores, int call, int64_t *bytes);

/* What other code needs in its variables to run as the library's kernels do: parallel launch,
 * workspace, end of workspace. */
HMSEG_API void hmseg_backend(void *functions[3]);

#endif
