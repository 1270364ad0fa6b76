/* Loads the libraries of artifacts into a static program, so that the same bytes run on any Linux of
 * their architecture: with glibc, musl or Android's bionic, whichever they were linked for.
 *
 * It does what those libraries need and no more: segments, relocations against this program's own
 * functions, initialisers. The functions are the few of libc, libm and threads that the runtime and
 * compiled kernels call; musl's types have the sizes that glibc's have, or smaller ones. */
#define _GNU_SOURCE
#include "library.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
enum { MACHINE = EM_X86_64, RELATIVE = R_X86_64_RELATIVE, ABSOLUTE = R_X86_64_64,
       DATA = R_X86_64_GLOB_DAT, FUNCTION = R_X86_64_JUMP_SLOT };
#else
enum { MACHINE = EM_AARCH64, RELATIVE = R_AARCH64_RELATIVE, ABSOLUTE = R_AARCH64_ABS64,
       DATA = R_AARCH64_GLOB_DAT, FUNCTION = R_AARCH64_JUMP_SLOT };
#endif

#define MOST_SEGMENTS 32
#define GNU_HASH DT_GNU_HASH

int __sched_cpucount(size_t size, const cpu_set_t *set); /* what CPU_COUNT calls */

struct library {
    unsigned char *base;
    size_t bytes;
    const Elf64_Sym *symbols;
    const char *names;
    const uint32_t *hash; /* GNU's table of what is exported */
    const Elf64_Rela *relocations[2];
    size_t relocation_bytes[2];
    const Elf64_Addr *begin, *end; /* functions to call */
    size_t begin_bytes, end_bytes;
};

typedef void (*any)(void);
static const struct {
    const char *name;
    any function;
} offered[] = {
#define AS(name, function) {name, (any)function}
#define OFFER(name) AS(#name, name)
    OFFER(abort), OFFER(calloc), OFFER(fclose), OFFER(fgets), OFFER(fopen), OFFER(free),
    OFFER(fscanf), AS("__isoc99_fscanf", fscanf), AS("__isoc23_fscanf", fscanf), OFFER(getauxval),
    OFFER(getpid), OFFER(clock_gettime), OFFER(madvise), OFFER(malloc), OFFER(memchr),
    OFFER(memcmp), AS("bcmp", memcmp), OFFER(memcpy), OFFER(memmove), OFFER(memset),
    OFFER(nanosleep), OFFER(posix_memalign), OFFER(realloc), OFFER(snprintf), OFFER(strchr),
    OFFER(strcmp), OFFER(strcspn), OFFER(strlen), OFFER(strrchr), OFFER(strtok_r),
    OFFER(pthread_attr_destroy), OFFER(pthread_attr_init), OFFER(pthread_attr_setstacksize),
    OFFER(pthread_cond_broadcast), OFFER(pthread_cond_destroy), OFFER(pthread_cond_init),
    OFFER(pthread_cond_wait), OFFER(pthread_create), OFFER(pthread_getspecific),
    OFFER(pthread_join), OFFER(pthread_key_create), OFFER(pthread_key_delete),
    OFFER(pthread_mutex_destroy), OFFER(pthread_mutex_init), OFFER(pthread_mutex_lock),
    OFFER(pthread_mutex_unlock), OFFER(pthread_once), OFFER(pthread_setspecific),
    OFFER(pthread_sigmask), OFFER(sigfillset), OFFER(__sched_cpucount), OFFER(sched_getaffinity),
    OFFER(sched_getcpu), OFFER(sched_setaffinity), OFFER(sched_yield),
    /* What LLVM leaves to libm. */
    OFFER(acosf), OFFER(acoshf), OFFER(asinf), OFFER(asinhf), OFFER(atan2f), OFFER(atanf),
    OFFER(atanhf), OFFER(ceil), OFFER(ceilf), OFFER(copysignf), OFFER(cos), OFFER(cosf),
    OFFER(coshf), OFFER(erf), OFFER(erff), OFFER(exp), OFFER(exp10f), OFFER(exp2), OFFER(exp2f),
    OFFER(expf), OFFER(expm1f), OFFER(fabsf), OFFER(floor), OFFER(floorf), OFFER(fma), OFFER(fmaf),
    OFFER(fmax), OFFER(fmaxf), OFFER(fmin), OFFER(fminf), OFFER(fmod), OFFER(fmodf), OFFER(hypotf),
    OFFER(ldexpf), OFFER(log), OFFER(log10f), OFFER(log1pf), OFFER(log2), OFFER(log2f), OFFER(logf),
    OFFER(nearbyint), OFFER(nearbyintf), OFFER(nextafterf), OFFER(pow), OFFER(powf), OFFER(rint),
    OFFER(rintf), OFFER(round), AS("roundeven", rint),
    AS("roundevenf", rintf), OFFER(roundf), OFFER(sin),
    OFFER(sinf), OFFER(sinhf), OFFER(sqrt), OFFER(sqrtf), OFFER(tan), OFFER(tanf), OFFER(tanh),
    OFFER(tanhf), OFFER(trunc), OFFER(truncf),
    AS("TVMFFIErrorSetRaisedFromCStrParts", library_kernel_error),
};

static any find_offered(const char *name)
{
    for (size_t i = 0; i < sizeof offered / sizeof *offered; i++)
        if (strcmp(offered[i].name, name) == 0)
            return offered[i].function;
    return NULL;
}

static size_t down(size_t address, size_t page)
{
    return address / page * page;
}

/* One part of the file at its place, and zeros behind it. */
static int map_segment(const library *made, const Elf64_Phdr *part, int file, size_t page)
{
    int allowed = (part->p_flags & PF_R ? PROT_READ : 0) | (part->p_flags & PF_W ? PROT_WRITE : 0) |
                  (part->p_flags & PF_X ? PROT_EXEC : 0);
    size_t from = down(part->p_vaddr, page), end = part->p_vaddr + part->p_filesz;
    size_t filled = down(end + page - 1, page);
    size_t last = down(part->p_vaddr + part->p_memsz + page - 1, page);
    int fixed = MAP_PRIVATE | MAP_FIXED;
    if (part->p_filesz &&
        mmap(made->base + from, end - from, allowed, fixed, file,
             (off_t)down(part->p_offset, page)) == MAP_FAILED)
        return -1;
    if (part->p_filesz && part->p_memsz > part->p_filesz)
        memset(made->base + end, 0, filled - end);
    if (part->p_filesz == 0)
        filled = from;
    if (last > filled && mmap(made->base + filled, last - filled, allowed, fixed | MAP_ANONYMOUS,
                              -1, 0) == MAP_FAILED)
        return -1;
    return 0;
}

static const char *read_dynamic(library *made, const Elf64_Dyn *entry)
{
    for (; entry->d_tag != DT_NULL; entry++) {
        const void *at = made->base + entry->d_un.d_ptr;
        switch (entry->d_tag) {
        case DT_SYMTAB: made->symbols = at; break;
        case DT_STRTAB: made->names = at; break;
        case GNU_HASH: made->hash = at; break;
        case DT_RELA: made->relocations[0] = at; break;
        case DT_RELASZ: made->relocation_bytes[0] = entry->d_un.d_val; break;
        case DT_JMPREL: made->relocations[1] = at; break;
        case DT_PLTRELSZ: made->relocation_bytes[1] = entry->d_un.d_val; break;
        case DT_INIT_ARRAY: made->begin = at; break;
        case DT_INIT_ARRAYSZ: made->begin_bytes = entry->d_un.d_val; break;
        case DT_FINI_ARRAY: made->end = at; break;
        case DT_FINI_ARRAYSZ: made->end_bytes = entry->d_un.d_val; break;
        case DT_REL: case DT_TEXTREL: case 36 /* DT_RELR */:
            return "it has relocations that hmseg's linkers do not make";
        }
    }
    return made->symbols && made->names && made->hash ? NULL : "it exports nothing";
}

/* 0, or -1 with the name of what is missing in `error`. */
static int relocate(library *made, char *error, size_t error_size)
{
    for (int table = 0; table < 2; table++) {
        size_t count = made->relocation_bytes[table] / sizeof(Elf64_Rela);
        for (size_t i = 0; i < count; i++) {
            const Elf64_Rela *each = &made->relocations[table][i];
            const Elf64_Sym *symbol = &made->symbols[ELF64_R_SYM(each->r_info)];
            const char *name = made->names + symbol->st_name;
            uintptr_t base = (uintptr_t)made->base, value = base;
            switch (ELF64_R_TYPE(each->r_info)) {
            case RELATIVE:
                break;
            case ABSOLUTE: case DATA: case FUNCTION:
                if (symbol->st_shndx != SHN_UNDEF)
                    value = base + symbol->st_value;
                else if (!(value = (uintptr_t)find_offered(name)) &&
                         ELF64_ST_BIND(symbol->st_info) != STB_WEAK) {
                    snprintf(error, error_size, "it needs the function %s", name);
                    return -1;
                }
                break;
            default:
                snprintf(error, error_size, "it has a relocation of an unknown kind");
                return -1;
            }
            value += (uintptr_t)each->r_addend;
            memcpy(made->base + each->r_offset, &value, sizeof value);
        }
    }
    return 0;
}

static const char *map_file(library *made, int file, const Elf64_Dyn **dynamic)
{
    Elf64_Ehdr header;
    Elf64_Phdr parts[MOST_SEGMENTS];
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (read(file, &header, sizeof header) != sizeof header ||
        memcmp(header.e_ident, ELFMAG, SELFMAG) || header.e_type != ET_DYN)
        return "it is no shared library";
    if (header.e_machine != MACHINE)
        return "it is for another architecture";
    ssize_t bytes = (ssize_t)(header.e_phnum * sizeof *parts);
    if (header.e_phnum > MOST_SEGMENTS || header.e_phentsize != sizeof *parts ||
        pread(file, parts, (size_t)bytes, (off_t)header.e_phoff) != bytes)
        return "it is cut short";
    for (int i = 0; i < header.e_phnum; i++) {
        const Elf64_Phdr *part = &parts[i];
        if (part->p_type == PT_TLS)
            return "it has variables of threads";
        if (part->p_type == PT_LOAD && part->p_vaddr + part->p_memsz > made->bytes)
            made->bytes = part->p_vaddr + part->p_memsz;
        if (part->p_type == PT_LOAD && part->p_vaddr % page != part->p_offset % page)
            return "this system's memory pages are larger than it was linked for";
    }
    made->bytes = down(made->bytes + page - 1, page);
    made->base = mmap(NULL, made->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made->base == MAP_FAILED) {
        made->base = NULL;
        return "there is not enough memory";
    }
    for (int i = 0; i < header.e_phnum; i++) {
        if (parts[i].p_type == PT_LOAD && map_segment(made, &parts[i], file, page))
            return strerror(errno);
        if (parts[i].p_type == PT_DYNAMIC)
            *dynamic = (const Elf64_Dyn *)(made->base + parts[i].p_vaddr);
    }
    return *dynamic ? NULL : "it exports nothing";
}

library *library_load(const char *path, char *error, size_t error_size)
{
    const Elf64_Dyn *dynamic = NULL;
    library *made = calloc(1, sizeof *made);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    const char *wrong = made == NULL ? "there is not enough memory"
                        : file < 0   ? strerror(errno)
                                     : map_file(made, file, &dynamic);
    if (file >= 0)
        close(file);
    if (wrong == NULL)
        wrong = read_dynamic(made, dynamic);
    int failed = wrong != NULL;
    if (wrong)
        snprintf(error, error_size, "%s", wrong);
    else
        failed = relocate(made, error, error_size);
    if (failed) {
        if (made && made->base)
            munmap(made->base, made->bytes);
        free(made);
        return NULL;
    }
    for (size_t i = 0; i < made->begin_bytes / sizeof *made->begin; i++)
        ((void (*)(void))made->begin[i])();
    return made;
}

void *library_symbol(const library *loaded, const char *name)
{
    uint32_t hash = 5381, buckets = loaded->hash[0], first = loaded->hash[1];
    for (const char *c = name; *c; c++)
        hash = hash * 33 + (unsigned char)*c;
    /* Behind four words of header stands a filter of so many words of 64 bits. */
    const uint32_t *bucket = loaded->hash + 4 + 2 * loaded->hash[2];
    const uint32_t *chain = bucket + buckets;
    uint32_t at = buckets ? bucket[hash % buckets] : 0;
    if (at < first)
        return NULL;
    for (;; at++) {
        uint32_t found = chain[at - first];
        const Elf64_Sym *symbol = &loaded->symbols[at];
        if ((found | 1) == (hash | 1) && strcmp(loaded->names + symbol->st_name, name) == 0)
            return loaded->base + symbol->st_value;
        if (found & 1)
            return NULL;
    }
}

void library_unload(library *loaded)
{
    for (size_t i = loaded->end_bytes / sizeof *loaded->end; i-- > 0;)
        ((void (*)(void))loaded->end[i])();
    munmap(loaded->base, loaded->bytes);
    free(loaded);
}
