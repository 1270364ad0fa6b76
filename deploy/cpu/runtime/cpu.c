/* Whether this CPU, and the system on it, have what the kernels were compiled with. */
#include "frame.h"

#if defined(__x86_64__)
static void identify(uint32_t leaf, uint32_t subleaf, uint32_t found[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(found[0]), "=b"(found[1]), "=c"(found[2]), "=d"(found[3])
                     : "a"(leaf), "c"(subleaf));
}

/* XCR0: which registers the system saves; 0 where it does not say. */
static uint32_t kept_state(void)
{
    uint32_t found[4], low, high;
    identify(1, 0, found);
    if (!(found[2] >> 27 & 1))
        return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

int hmseg_cpu_fits(const hmseg_feature *features, int32_t count, uint32_t state)
{
    uint32_t found[4];
    if ((kept_state() & state) != state)
        return 0;
    for (int32_t i = 0; i < count; i++) {
        const hmseg_feature *feature = &features[i];
        identify(feature->leaf & 0x80000000u, 0, found);
        if (found[0] < feature->leaf)
            return 0;
        identify(feature->leaf, feature->subleaf, found);
        if (!(found[feature->reg] >> feature->bit & 1))
            return 0;
    }
    return 1;
}
#elif defined(__aarch64__)
#include <sys/auxv.h>

int hmseg_cpu_fits(const hmseg_feature *features, int32_t count, uint32_t state)
{
    (void)state;
    for (int32_t i = 0; i < count; i++)
        if (!(getauxval(features[i].leaf) >> features[i].bit & 1))
            return 0;
    return 1;
}
#else
#error "kernels are compiled for x86-64 and 64-bit ARM"
#endif
