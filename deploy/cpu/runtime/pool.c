/* Threads that run the loops of a network's kernels together.
 *
 * A loop is cut into as many tasks as there are threads. Task i is thread i's, so that each finds
 * its part of a map in its own caches; what a thread has not begun when the caller has done its own
 * task, the caller takes: a thread that slept or lost its CPU holds nobody up. Threads spin for a
 * moment behind each loop, for the next one comes within microseconds, then sleep. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "frame.h"
#include "hmseg.h"

#define SPIN_NS 200000 /* a thread's patience, before it sleeps */
#define MOVE_EVERY 32 /* loops */
#define STACK_BYTES (1 << 20)
#define BLOCKS 32 /* of scratch memory that a kernel asks for at once */
#define LINE 64

typedef struct {
    void *memory;
    uint64_t bytes;
    int used;
} block;

/* Of a thread: where its kernels run, and their scratch memory, kept for the next frame. */
typedef struct {
    hmseg_pool *pool;
    int index;
    block blocks[BLOCKS];
} context;

typedef struct {
    _Alignas(LINE) atomic_uint claimed; /* the last loop whose task was begun */
    context context;
    pthread_t thread;
    int running;
    unsigned moved; /* the loop at which it last changed its CPU by itself */
} member;

struct hmseg_pool {
    int threads, flags;
    int apart;            /* whether there are CPUs enough for each thread to have its own */
    atomic_short *places; /* the CPU on which each thread was seen last */
    atomic_int process; /* that the threads belong to: a forked child has none of them */
    pthread_mutex_t turn;
    member *members; /* the first is whoever calls */
    hmseg_body body;
    void *data;
    _Alignas(LINE) atomic_uint loop; /* counts them */
    _Alignas(LINE) atomic_int pending;
    atomic_int failed, sleepers, stop;
    pthread_mutex_t lock;
    pthread_cond_t wake;
};

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int no_key = 1;

static void make_key(void)
{
    no_key = pthread_key_create(&key, NULL);
}

__attribute__((destructor)) static void delete_key(void)
{
    if (!no_key)
        pthread_key_delete(key);
}

static inline void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Memory. */

int hmseg_pages(void **memory, size_t alignment, size_t bytes)
{
    if (posix_memalign(memory, alignment, bytes))
        return -1;
#ifdef MADV_HUGEPAGE
    if (alignment >= HMSEG_HUGE_PAGE)
        madvise(*memory, bytes / HMSEG_HUGE_PAGE * HMSEG_HUGE_PAGE, MADV_HUGEPAGE);
#endif
    return 0;
}

void *hmseg_workspace(int type, int id, uint64_t bytes, int code, int bits)
{
    context *mine = no_key ? NULL : pthread_getspecific(key);
    block *found = NULL;
    (void)type, (void)id, (void)code, (void)bits;
    if (mine == NULL)
        return NULL;
    for (block *b = mine->blocks; b < mine->blocks + BLOCKS; b++)
        if (!b->used && (found == NULL || (b->bytes >= bytes && found->bytes < bytes) ||
                         (b->bytes >= bytes && b->bytes < found->bytes)))
            found = b;
    if (found == NULL)
        return NULL;
    if (found->bytes < bytes) {
        /* The tiles of a convolution lie far apart: small pages would be missed again and again. */
        size_t unit = bytes >= HMSEG_HUGE_PAGE / 32 ? HMSEG_HUGE_PAGE : LINE;
        free(found->memory);
        found->bytes = (bytes + unit - 1) / unit * unit;
        if (hmseg_pages(&found->memory, unit, found->bytes)) {
            found->memory = NULL, found->bytes = 0;
            return NULL;
        }
    }
    found->used = 1;
    return found->memory;
}

int hmseg_workspace_done(int type, int id, void *memory)
{
    context *mine = no_key ? NULL : pthread_getspecific(key);
    (void)type, (void)id;
    for (int i = 0; mine && i < BLOCKS; i++)
        if (mine->blocks[i].memory == memory)
            mine->blocks[i].used = 0;
    return 0;
}

/* Loops. */

static void run_task(hmseg_pool *pool, int index)
{
    hmseg_group group = {NULL, pool->threads};
    if (pool->body(index, &group, pool->data))
        atomic_store_explicit(&pool->failed, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&pool->pending, 1, memory_order_release);
}

/* Whether task `index` of a loop is now the calling thread's: only one gets it, and none once the
 * loop is over. */
static int claim(hmseg_pool *pool, int index, unsigned loop)
{
    unsigned before = loop - 1;
    return atomic_compare_exchange_strong_explicit(&pool->members[index].claimed, &before, loop,
                                                   memory_order_acq_rel, memory_order_relaxed);
}

/* Lets the calling thread run only where no other of its pool is, and says where it might before;
 * 0 where there is no such CPU. */
static int leave_others(hmseg_pool *pool, int index, cpu_set_t *before)
{
    if (sched_getaffinity(0, sizeof *before, before))
        return 0;
    cpu_set_t rest = *before;
    for (int i = 0; i < pool->threads; i++) {
        int taken = atomic_load_explicit(&pool->places[i], memory_order_relaxed);
        if (i != index && taken >= 0 && taken < CPU_SETSIZE)
            CPU_CLR(taken, &rest);
    }
    return CPU_COUNT(&rest) > 0 && sched_setaffinity(0, sizeof rest, &rest) == 0;
}

/* Two threads on one CPU would wait for each other until the system moves one, milliseconds later:
 * the one with the higher number goes where no other is. What it may run on is as before. */
static void keep_apart(hmseg_pool *pool, int index, unsigned loop)
{
    member *me = &pool->members[index];
    int cpu = sched_getcpu(), alone = 1;
    if (cpu != atomic_load_explicit(&pool->places[index], memory_order_relaxed))
        atomic_store_explicit(&pool->places[index], (short)cpu, memory_order_relaxed);
    for (int i = 0; i < index; i++)
        alone &= cpu != atomic_load_explicit(&pool->places[i], memory_order_relaxed);
    if (alone || index == 0 || loop - me->moved < MOVE_EVERY)
        return;
    cpu_set_t allowed;
    if (!leave_others(pool, index, &allowed))
        return;
    sched_setaffinity(0, sizeof allowed, &allowed);
    me->moved = loop;
    atomic_store_explicit(&pool->places[index], (short)sched_getcpu(), memory_order_relaxed);
}

/* Who sleeps is to wake where it slept: if the caller has come there meanwhile, it goes. */
static void make_way(hmseg_pool *pool)
{
    int cpu = atomic_load_explicit(&pool->places[0], memory_order_relaxed);
    cpu_set_t allowed;
    for (int i = 1; i < pool->threads; i++)
        if (cpu == atomic_load_explicit(&pool->places[i], memory_order_relaxed)) {
            if (leave_others(pool, 0, &allowed))
                sched_setaffinity(0, sizeof allowed, &allowed);
            atomic_store_explicit(&pool->places[0], (short)sched_getcpu(), memory_order_relaxed);
            return;
        }
}

int hmseg_launch(hmseg_body body, void *data, int tasks)
{
    context *mine = no_key ? NULL : pthread_getspecific(key);
    hmseg_pool *pool = mine ? mine->pool : NULL;
    if (pool == NULL || pool->threads == 1 || tasks > 0 || mine->index > 0) {
        hmseg_group group = {NULL, tasks > 0 ? tasks : 1};
        int failed = 0;
        for (int i = 0; i < group.tasks; i++)
            failed |= body(i, &group, data);
        return failed ? -1 : 0;
    }
    unsigned loop = atomic_load_explicit(&pool->loop, memory_order_relaxed) + 1;
    pool->body = body, pool->data = data;
    if (pool->apart)
        keep_apart(pool, 0, loop);
    atomic_store_explicit(&pool->failed, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->pending, pool->threads, memory_order_relaxed);
    atomic_store(&pool->loop, loop);
    if (atomic_load(&pool->sleepers) > 0) {
        if (pool->apart)
            make_way(pool);
        pthread_mutex_lock(&pool->lock);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->lock);
    }
    for (int i = 0; i < pool->threads; i++)
        if (claim(pool, i, loop))
            run_task(pool, i);
    for (int turns = 0; atomic_load_explicit(&pool->pending, memory_order_acquire) > 0; turns++)
        if (turns < 2000)
            pause_briefly();
        else if (turns < 4000)
            sched_yield(); /* more threads than CPUs */
        else
            nanosleep(&(struct timespec){0, 20000}, NULL); /* and the system favours this one */
    return atomic_load_explicit(&pool->failed, memory_order_relaxed) ? -1 : 0;
}

/* Waits for a loop after `seen`; its number, or `seen` when the pool ends. */
static unsigned next_loop(hmseg_pool *pool, int index, unsigned seen)
{
    int64_t until = 0;
    for (unsigned turns = 1;; turns++) {
        unsigned loop = atomic_load_explicit(&pool->loop, memory_order_acquire);
        if (loop != seen || atomic_load_explicit(&pool->stop, memory_order_relaxed))
            return loop;
        pause_briefly();
        if (turns % 64)
            continue;
        int64_t now = now_ns();
        if (until == 0)
            until = now + SPIN_NS;
        if (now > until)
            break;
    }
    /* Who is woken goes where the waker runs, if it may, and waits there for it to end. */
    cpu_set_t allowed;
    int narrowed = pool->apart && leave_others(pool, index, &allowed);
    if (narrowed)
        atomic_store_explicit(&pool->places[index], (short)sched_getcpu(), memory_order_relaxed);
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleepers, 1);
    while (atomic_load(&pool->loop) == seen && !atomic_load(&pool->stop))
        pthread_cond_wait(&pool->wake, &pool->lock);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->lock);
    if (narrowed)
        sched_setaffinity(0, sizeof allowed, &allowed);
    return atomic_load_explicit(&pool->loop, memory_order_acquire);
}

static long max_frequency(int cpu)
{
    char path[96];
    long khz = 0;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpufreq/cpuinfo_max_freq", cpu);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    if (fscanf(file, "%ld", &khz) != 1)
        khz = 0;
    fclose(file);
    return khz;
}

/* Bind the calling thread to one of its CPUs: the fastest for index 0, and so on. */
static void bind_thread(int index)
{
    cpu_set_t allowed, one;
    int cpus[CPU_SETSIZE], count = 0;
    long khz[CPU_SETSIZE];
    if (sched_getaffinity(0, sizeof allowed, &allowed))
        return;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed))
            continue;
        long mine = max_frequency(cpu);
        int at = count++;
        for (; at > 0 && khz[at - 1] < mine; at--)
            khz[at] = khz[at - 1], cpus[at] = cpus[at - 1];
        khz[at] = mine, cpus[at] = cpu;
    }
    if (index >= count)
        return;
    CPU_ZERO(&one);
    CPU_SET(cpus[index], &one);
    sched_setaffinity(0, sizeof one, &one);
}

static void *work(void *given)
{
    member *me = given;
    hmseg_pool *pool = me->context.pool;
    unsigned seen = atomic_load_explicit(&me->claimed, memory_order_relaxed);
    pthread_setspecific(key, &me->context);
    if (pool->flags & HMSEG_PIN)
        bind_thread(me->context.index);
    for (;;) {
        unsigned loop = next_loop(pool, me->context.index, seen);
        if (loop == seen)
            return NULL;
        if (pool->apart)
            keep_apart(pool, me->context.index, loop);
        if (claim(pool, me->context.index, loop))
            run_task(pool, me->context.index);
        seen = loop;
    }
}

/* Pools. */

/* Starts the threads of a new pool, or of one in a forked child; 0 or an errno. */
static int start(hmseg_pool *pool)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    int failed = 0;
    pthread_mutex_init(&pool->turn, NULL);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    atomic_store(&pool->loop, 0);
    atomic_store(&pool->sleepers, 0);
    atomic_store(&pool->stop, 0);
    cpu_set_t allowed;
    int cpus = sched_getaffinity(0, sizeof allowed, &allowed) ? 0 : CPU_COUNT(&allowed);
    pool->apart = pool->threads <= cpus && !(pool->flags & HMSEG_PIN);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigfillset(&all); /* the program's signals are for its own threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int i = 0; i < pool->threads; i++) {
        member *each = &pool->members[i];
        atomic_store(&each->claimed, 0);
        each->context.pool = pool, each->context.index = i;
        each->running = 0, each->moved = 0u - MOVE_EVERY;
        atomic_store(&pool->places[i], -1);
        for (int b = 0; b < BLOCKS; b++)
            each->context.blocks[b].used = 0;
        if (i == 0 || failed)
            continue;
        failed = pthread_create(&each->thread, &attributes, work, each);
        each->running = !failed;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    atomic_store(&pool->process, getpid());
    return failed;
}

static void stop_threads(hmseg_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->stop, 1);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 1; i < pool->threads; i++)
        if (pool->members[i].running)
            pthread_join(pool->members[i].thread, NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    pthread_mutex_destroy(&pool->turn);
}

int hmseg_pool_create(int threads, int flags, hmseg_pool **made)
{
    hmseg_pool *pool = NULL;
    if (made == NULL)
        return HMSEG_BAD_ARGUMENT;
    *made = NULL;
    if (threads < 0 || threads > HMSEG_MOST_THREADS || flags & ~HMSEG_PIN)
        return HMSEG_BAD_ARGUMENT;
    pthread_once(&once, make_key);
    if (no_key || posix_memalign((void **)&pool, LINE, sizeof *pool))
        return HMSEG_NO_MEMORY;
    memset(pool, 0, sizeof *pool);
    pool->threads = threads ? threads : hmseg_default_threads();
    pool->flags = flags;
    size_t bytes = (size_t)pool->threads * sizeof(member);
    pool->places = calloc((size_t)pool->threads, sizeof *pool->places);
    if (pool->places == NULL || posix_memalign((void **)&pool->members, LINE, bytes)) {
        free(pool->places);
        free(pool);
        return HMSEG_NO_MEMORY;
    }
    memset(pool->members, 0, bytes);
    if (start(pool)) {
        hmseg_pool_destroy(&pool);
        return HMSEG_NO_THREADS;
    }
    *made = pool;
    return HMSEG_OK;
}

void hmseg_pool_destroy(hmseg_pool **given)
{
    hmseg_pool *pool = given ? *given : NULL;
    if (pool == NULL)
        return;
    *given = NULL;
    if (atomic_load(&pool->process) == getpid())
        stop_threads(pool);
    for (int i = 0; i < pool->threads; i++)
        for (int b = 0; b < BLOCKS; b++)
            free(pool->members[i].context.blocks[b].memory);
    free(pool->members);
    free(pool->places);
    free(pool);
}

int hmseg_pool_threads(const hmseg_pool *pool)
{
    return pool->threads;
}

int hmseg_pool_enter(hmseg_pool *pool)
{
    int process = atomic_load(&pool->process), mine = getpid();
    while (process != mine) { /* a forked child; where it has threads, one of them starts ours */
        if (process >= 0 && atomic_compare_exchange_strong(&pool->process, &process, -1)) {
            start(pool); /* with fewer threads the caller does their tasks */
            break;
        }
        sched_yield();
        process = atomic_load(&pool->process);
    }
    pthread_mutex_lock(&pool->turn);
    return pthread_setspecific(key, &pool->members[0].context);
}

void hmseg_pool_leave(hmseg_pool *pool)
{
    pthread_setspecific(key, NULL);
    pthread_mutex_unlock(&pool->turn);
}

/* How many threads are worth their while. */

/* The CPUs' worth of time that a cgroup may use, rounded up; 0 where it has no limit. */
static int limit_of(const char *folder, const char *group)
{
    char path[4352];
    long long quota = 0, period = 0;
    snprintf(path, sizeof path, "%s%s/cpu.max", folder, group);
    FILE *file = fopen(path, "re");
    if (file != NULL) {
        if (fscanf(file, "%lld %lld", &quota, &period) != 2)
            quota = 0;
        fclose(file);
    } else {
        snprintf(path, sizeof path, "%s%s/cpu.cfs_quota_us", folder, group);
        if ((file = fopen(path, "re")) == NULL)
            return 0;
        if (fscanf(file, "%lld", &quota) != 1)
            quota = 0;
        fclose(file);
        snprintf(path, sizeof path, "%s%s/cpu.cfs_period_us", folder, group);
        if ((file = fopen(path, "re")) == NULL)
            return 0;
        if (fscanf(file, "%lld", &period) != 1)
            period = 0;
        fclose(file);
    }
    if (quota <= 0 || period <= 0)
        return 0;
    long long cpus = (quota + period - 1) / period;
    return cpus < HMSEG_MOST_THREADS ? (int)cpus : HMSEG_MOST_THREADS;
}

/* The least limit of this process's groups and of those around them. */
static int quota(void)
{
    char line[4224];
    int least = 0;
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (file == NULL)
        return 0;
    while (fgets(line, sizeof line, file)) {
        char *kinds = strchr(line, ':'), *group = kinds ? strchr(kinds + 1, ':') : NULL;
        if (group == NULL)
            continue;
        *group++ = 0, kinds++;
        group[strcspn(group, "\n")] = 0;
        int second = *kinds == 0, first = 0;
        char *rest = kinds, *kind;
        while ((kind = strtok_r(rest, ",", &rest)))
            first |= strcmp(kind, "cpu") == 0;
        if (!second && !first)
            continue;
        for (;;) {
            if (strcmp(group, "/") == 0)
                *group = 0;
            const char *folders[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/cpu",
                                     "/sys/fs/cgroup/unified"};
            for (int i = 0; i < 3; i++) {
                int cpus = limit_of(folders[i], group);
                if (cpus > 0 && (least == 0 || cpus < least))
                    least = cpus;
            }
            char *end = strrchr(group, '/');
            if (end == NULL)
                break;
            *end = 0;
        }
    }
    fclose(file);
    return least;
}

int hmseg_default_threads(void)
{
    cpu_set_t allowed;
    int count = sched_getaffinity(0, sizeof allowed, &allowed) ? 1 : CPU_COUNT(&allowed);
    int most = quota();
    if (most > 0 && most < count)
        count = most;
    if (count > HMSEG_MOST_THREADS)
        count = HMSEG_MOST_THREADS;
    return count < 1 ? 1 : count;
}
