/* The program that is sent to a device (deploy/devices/player_link.py): it loads libraries and calls
 * their functions, as it is told on its standard input, until that ends.
 *
 * A request is a line of words, some with bytes behind it whose number is the last word; the answer
 * is "ok N" and N bytes, or "error" and a text, each on a line. Tensors and libraries have numbers
 * that the other side gives:
 *
 *   about                       architecture, cores and CPU features, one a line
 *   file PATH                   the bytes of a file; none where it cannot be read
 *   threads N                   how many run the loops of single kernels
 *   library L BYTES             load a library
 *   tensor T CODE BITS SIZES    memory for a tensor, as DLPack numbers its type
 *   write T BYTES, read T       its contents
 *   call L NAME WHAT...         call a function; t3 is a tensor, i4 a number
 *   time L NAME CALLS WHAT...   the same once, then CALLS times: the nanoseconds of each, int64
 *   free T, unload L
 *
 * Arguments: a folder to write in, the seconds that one request may take, and those that may pass
 * between two: after them the program ends, so that none is left on a device whose user has given up
 * or whose link broke without a word. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "frame.h"
#include "hmseg.h"
#include "library.h"

#define MOST_NUMBERS 4096 /* of tensors, and of libraries */
#define MOST_DIMENSIONS 8
#define MOST_ARGUMENTS 64
#define MOST_FILE (4u << 20)
#define POINTER 7 /* TVM's numbers of an argument's type */
#define INTEGER 1
#define LINE 64
#define ALONE 3 /* the exit code after the seconds between two requests */

typedef struct {
    hmseg_tensor tensor;
    int64_t shape[MOST_DIMENSIONS];
    size_t bytes;
} map;

static map *maps[MOST_NUMBERS];
static library *libraries[MOST_NUMBERS];
static hmseg_pool *pool;
static const char *folder;
static char wrong[512]; /* why the request at hand fails; empty where it does not */

void library_kernel_error(const char *kind, const char **parts, int count)
{
    size_t used = (size_t)snprintf(wrong, sizeof wrong, "%s: ", kind);
    for (int i = 0; i < count && used < sizeof wrong; i++)
        used += (size_t)snprintf(wrong + used, sizeof wrong - used, "%s", parts[i]);
}

static void fail(const char *text)
{
    snprintf(wrong, sizeof wrong, "%s", text);
}

static void answer(const void *data, size_t bytes)
{
    printf("ok %zu\n", bytes);
    fwrite(data, 1, bytes, stdout);
}

static long long number(const char *word)
{
    return word ? strtoll(word, NULL, 10) : -1;
}

static int numbered(const char *word)
{
    long long n = number(word);
    if (n < 0 || n >= MOST_NUMBERS)
        fail("a number is out of range");
    return wrong[0] ? 0 : (int)n;
}

static map *map_of(const char *word)
{
    map *found = maps[numbered(word)];
    if (found == NULL && !wrong[0])
        fail("there is no such tensor");
    return wrong[0] ? NULL : found;
}

static void about(void)
{
    struct utsname system;
    cpu_set_t allowed;
    char text[512];
    uname(&system);
    int cores = sched_getaffinity(0, sizeof allowed, &allowed) ? 1 : CPU_COUNT(&allowed);
    int length = snprintf(text, sizeof text, "architecture %s\ncores %d\nhwcap %lu\nhwcap2 %lu\n"
                          "emulated %d\n", system.machine, cores, getauxval(AT_HWCAP),
                          getauxval(AT_HWCAP2), getenv("HMSEG_EMULATED") != NULL);
    answer(text, (size_t)length);
}

static void send_file(const char *path)
{
    char *data = malloc(MOST_FILE);
    FILE *file = data && path ? fopen(path, "rb") : NULL;
    size_t bytes = file ? fread(data, 1, MOST_FILE, file) : 0;
    if (file)
        fclose(file);
    answer(data, bytes);
    free(data);
}

/* Of what kernels look up in the variables of their library, what it has. */
static void fill(const library *made)
{
    const struct {
        const char *name;
        void *function;
    } wanted[] = {
        {"__TVMBackendParallelLaunch", (void *)hmseg_launch},
        {"__TVMBackendAllocWorkspace", (void *)hmseg_workspace},
        {"__TVMBackendFreeWorkspace", (void *)hmseg_workspace_done},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void **variable = library_symbol(made, wanted[i].name);
        if (variable)
            *variable = wanted[i].function;
    }
}

static void load(const char *word, const char *size)
{
    int at = numbered(word);
    long long left = number(size);
    char path[4096], buffer[65536];
    snprintf(path, sizeof path, "%s/library%d.so", folder, at);
    FILE *file = fopen(path, "wb");
    if (file == NULL)
        snprintf(wrong, sizeof wrong, "%s: %s", path, strerror(errno));
    while (left > 0) { /* all of it, also where it has no room: the next request stands behind */
        size_t part = left < (long long)sizeof buffer ? (size_t)left : sizeof buffer;
        size_t got = fread(buffer, 1, part, stdin);
        if (got == 0)
            exit(1);
        left -= (long long)got;
        if (!wrong[0] && fwrite(buffer, 1, got, file) != got)
            snprintf(wrong, sizeof wrong, "%s: %s", path, strerror(errno));
    }
    if (file && fclose(file) && !wrong[0])
        snprintf(wrong, sizeof wrong, "%s: %s", path, strerror(errno));
    if (!wrong[0]) {
        char why[256] = "";
        libraries[at] = library_load(path, why, sizeof why);
        if (libraries[at] == NULL)
            snprintf(wrong, sizeof wrong, "the library cannot be loaded: %s", why);
        else
            fill(libraries[at]);
    }
    unlink(path);
}

static void make_tensor(const char *word, const char *code, const char *bits, char **rest)
{
    map *made = calloc(1, sizeof *made);
    int at = numbered(word);
    char *size;
    if (made == NULL) {
        fail("there is not enough memory");
        return;
    }
    made->tensor.dtype.code = (uint8_t)number(code);
    made->tensor.dtype.bits = (uint8_t)number(bits);
    made->tensor.dtype.lanes = 1;
    made->bytes = made->tensor.dtype.bits / 8;
    while ((size = strtok_r(NULL, " ", rest)) && made->tensor.ndim < MOST_DIMENSIONS) {
        made->shape[made->tensor.ndim] = number(size);
        made->bytes *= (size_t)made->shape[made->tensor.ndim++];
    }
    made->tensor.device.type = 1; /* CPU */
    made->tensor.shape = made->shape;
    if (posix_memalign(&made->tensor.data, LINE, made->bytes + LINE)) {
        free(made);
        fail("there is not enough memory");
        return;
    }
    maps[at] = made;
}

static void free_tensor(const char *word)
{
    map *found = map_of(word);
    if (found == NULL)
        return;
    maps[numbered(word)] = NULL;
    free(found->tensor.data);
    free(found);
}

static void write_tensor(const char *word, const char *size)
{
    map *found = map_of(word);
    if (found == NULL || (long long)found->bytes != number(size))
        exit(1); /* where the next request begins is not known */
    if (fread(found->tensor.data, 1, found->bytes, stdin) != found->bytes)
        exit(1);
}

typedef struct {
    hmseg_kernel function;
    hmseg_any arguments[MOST_ARGUMENTS];
    int32_t count;
} prepared;

static int prepare(prepared *made, const library *from, const char *name, char **rest)
{
    char symbol[4096], *word;
    snprintf(symbol, sizeof symbol, "__tvm_ffi_%s", name ? name : "");
    made->count = 0;
    made->function = from ? (hmseg_kernel)library_symbol(from, symbol) : NULL;
    if (made->function == NULL && !wrong[0])
        snprintf(wrong, sizeof wrong, "the library has no function %s", name ? name : "");
    while (!wrong[0] && (word = strtok_r(NULL, " ", rest))) {
        if (made->count == MOST_ARGUMENTS) {
            fail("a function has too many arguments");
            break;
        }
        hmseg_any *each = &made->arguments[made->count++];
        memset(each, 0, sizeof *each);
        if (*word == 't') {
            map *found = map_of(word + 1);
            each->type = POINTER;
            each->value.pointer = found ? &found->tensor : NULL;
        } else {
            each->type = INTEGER;
            each->value.number = number(word + 1);
        }
    }
    return wrong[0] ? -1 : 0;
}

static int call(const prepared *made)
{
    hmseg_any result = {0, 0, {0}};
    if (pool && hmseg_pool_enter(pool)) {
        hmseg_pool_leave(pool);
        fail("there is not enough memory");
        return -1;
    }
    int failed = made->function(NULL, made->arguments, made->count, &result);
    if (pool)
        hmseg_pool_leave(pool);
    if (failed && !wrong[0])
        fail("the function failed: there is not enough memory, or the CPU lacks what it needs");
    return failed;
}

static int64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void time_calls(const prepared *made, long long calls)
{
    int64_t *took = calls > 0 ? calloc((size_t)calls, sizeof *took) : NULL;
    if (took == NULL)
        fail("there is not enough memory");
    for (long long i = -1; i < calls && !wrong[0]; i++) {
        int64_t begin = now_ns();
        call(made);
        if (i >= 0)
            took[i] = now_ns() - begin;
    }
    if (!wrong[0])
        answer(took, (size_t)calls * sizeof *took);
    free(took);
}

static void set_threads(const char *word)
{
    hmseg_pool_destroy(&pool);
    int code = hmseg_pool_create((int)number(word), 0, &pool);
    if (code != HMSEG_OK)
        fail(code == HMSEG_NO_THREADS ? "the system starts no more threads"
                                      : "there is not enough memory");
}

/* Whether the request has answered by itself. */
static int obey(char *line)
{
    char *rest = NULL, *word[4] = {strtok_r(line, " ", &rest), NULL, NULL, NULL};
    const char *verb = word[0] ? word[0] : "";
    prepared made;
    int known = 1;
    if (strcmp(verb, "file") == 0) { /* a path may hold spaces */
        send_file(rest);
        return 1;
    }
    int more = strcmp(verb, "call") == 0 ? 2 : 3;
    for (int i = 1; i <= more && (i == 1 || word[i - 1]); i++)
        word[i] = strtok_r(NULL, " ", &rest);
    if (strcmp(verb, "about") == 0) {
        about();
        return 1;
    }
    if (strcmp(verb, "threads") == 0)
        set_threads(word[1]);
    else if (strcmp(verb, "library") == 0)
        load(word[1], word[2]);
    else if (strcmp(verb, "tensor") == 0)
        make_tensor(word[1], word[2], word[3], &rest);
    else if (strcmp(verb, "write") == 0)
        write_tensor(word[1], word[2]);
    else if (strcmp(verb, "free") == 0)
        free_tensor(word[1]);
    else if (strcmp(verb, "read") == 0) {
        map *found = map_of(word[1]);
        if (found)
            answer(found->tensor.data, found->bytes);
        return !wrong[0];
    } else if (strcmp(verb, "call") == 0) {
        if (prepare(&made, libraries[numbered(word[1])], word[2], &rest) == 0)
            call(&made);
    } else if (strcmp(verb, "time") == 0) {
        if (prepare(&made, libraries[numbered(word[1])], word[2], &rest) == 0)
            time_calls(&made, number(word[3]));
        return !wrong[0];
    } else if (strcmp(verb, "unload") == 0) {
        int at = numbered(word[1]);
        if (libraries[at])
            library_unload(libraries[at]);
        libraries[at] = NULL;
    } else
        known = 0;
    if (!known)
        fail("an unknown request");
    return 0;
}

static void left_alone(int signal)
{
    (void)signal;
    _exit(ALONE);
}

static int next_line(char *line, int room, unsigned idle_s)
{
    signal(SIGALRM, left_alone);
    alarm(idle_s);
    char *got = fgets(line, room, stdin);
    alarm(0);
    signal(SIGALRM, SIG_DFL);
    return got != NULL;
}

int main(int count, char **arguments)
{
    char line[8192];
    if (count != 4)
        return 2;
    folder = arguments[1];
    unsigned limit_s = (unsigned)number(arguments[2]), idle_s = (unsigned)number(arguments[3]);
    while (next_line(line, sizeof line, idle_s)) {
        line[strcspn(line, "\n")] = 0;
        wrong[0] = 0;
        alarm(limit_s);
        if (!obey(line)) {
            for (char *c = wrong; (c = strchr(c, '\n'));)
                *c = ' ';
            if (wrong[0])
                printf("error %s\n", wrong);
            else
                printf("ok 0\n");
        }
        fflush(stdout);
        alarm(0);
    }
    return 0;
}
