#include "base/clock.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PAGE_MAGIC UINT64_C(0x31304b4c43425349) /* "ISBCLK01" */
#define PACE_SLOTS 16
#define PAGE_TRIES_MAX 100000             /* milliseconds; a change takes less than one microsecond */
#define KEEPER_GRACE_NS (100 * NS_PER_MS) /* past this without a heartbeat, time stands still */
#define KEEPER_LOST_NS (2 * NS_PER_S)

struct pace_slot {
    _Atomic int32_t pid; /* 0: free */
    char who[16];
    _Atomic double speed_max;
};

/* One page of shared memory. The anchor fields are guarded by `sequence` (odd while they change). */
struct clock_page {
    uint64_t magic;
    _Atomic uint32_t sequence;
    _Atomic int64_t anchor_wall_ns;
    _Atomic int64_t anchor_t_ns;
    _Atomic double speed;
    _Atomic int64_t heartbeat_wall_ns;
    int64_t utc_minus_t_ns;
    double speed_max;
    struct pace_slot slots[PACE_SLOTS];
};

struct clock {
    struct clock_page *page; /* NULL: the real clock */
    bool is_keeper;
    int64_t last_reap_wall_ns;
    _Atomic int64_t last_t_ns; /* the latest instant this handle has told */
};

int64_t clock_wall_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

/* False when the keeper stands still in the middle of a change. */
static bool page_time_at(const struct clock_page *page, int64_t wall_ns, int64_t *ret_t_ns)
{
    for (int tries = 0; tries < PAGE_TRIES_MAX; tries++) {
        uint32_t before = atomic_load_explicit(&page->sequence, memory_order_acquire);
        int64_t anchor_wall_ns = atomic_load_explicit(&page->anchor_wall_ns, memory_order_relaxed);
        int64_t anchor_t_ns = atomic_load_explicit(&page->anchor_t_ns, memory_order_relaxed);
        double speed = atomic_load_explicit(&page->speed, memory_order_relaxed);
        int64_t heartbeat_wall_ns = atomic_load_explicit(&page->heartbeat_wall_ns, memory_order_relaxed);
        atomic_thread_fence(memory_order_acquire);
        uint32_t after = atomic_load_explicit(&page->sequence, memory_order_relaxed);
        if (before != after || (before & 1))
            continue;
        if (wall_ns > heartbeat_wall_ns + KEEPER_GRACE_NS)
            wall_ns = heartbeat_wall_ns + KEEPER_GRACE_NS;
        if (wall_ns < anchor_wall_ns)
            wall_ns = anchor_wall_ns;
        *ret_t_ns = anchor_t_ns + (int64_t)((double)(wall_ns - anchor_wall_ns) * speed);
        return true;
    }
    return false;
}

/* A reader that has run ahead of a keeper who slows down waits for it; so does one who meets a half-written page. */
static int64_t tell(struct clock *clock, int64_t wall_ns)
{
    int64_t t_ns, last_t_ns = atomic_load(&clock->last_t_ns);
    if (!page_time_at(clock->page, wall_ns, &t_ns))
        return last_t_ns;
    while (t_ns > last_t_ns && !atomic_compare_exchange_weak(&clock->last_t_ns, &last_t_ns, t_ns))
        continue;
    return t_ns > last_t_ns ? t_ns : last_t_ns;
}

static int page_map(struct clock_page **ret_page, const char *path, int flags, struct err *err)
{
    int fd = open(path, flags | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set(err, ERR_IO, "clock page %s cannot be opened: %s; is the simulator running?", path,
                       strerror(errno));
    struct stat status;
    if ((flags & O_CREAT) && ftruncate(fd, (off_t)sizeof(struct clock_page)) != 0) {
        close(fd);
        return err_set(err, ERR_IO, "clock page %s cannot be made: %s", path, strerror(errno));
    }
    if (fstat(fd, &status) != 0 || status.st_size != (off_t)sizeof(struct clock_page)) {
        close(fd);
        return err_set(err, ERR_DATA, "%s is not a clock page: expected %zu bytes", path, sizeof(struct clock_page));
    }
    void *memory = mmap(NULL, sizeof(struct clock_page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (memory == MAP_FAILED)
        return err_set(err, ERR_SYSTEM, "clock page %s cannot be mapped: %s", path, strerror(errno));
    *ret_page = memory;
    return 0;
}

static struct clock *clock_new(struct clock_page *page, bool is_keeper)
{
    struct clock *clock = calloc(1, sizeof *clock);
    assert(clock);
    clock->page = page;
    clock->is_keeper = is_keeper;
    return clock;
}

int clock_open_real(struct clock **ret_clock, struct err *err)
{
    (void)err;
    *ret_clock = clock_new(NULL, false);
    return 0;
}

int clock_open_shared(struct clock **ret_clock, const char *path, struct err *err)
{
    struct clock_page *page;
    int code = page_map(&page, path, O_RDWR, err);
    if (code)
        return code;
    if (page->magic != PAGE_MAGIC) {
        munmap(page, sizeof *page);
        return err_set(err, ERR_DATA, "%s is not a clock page: its first bytes are foreign", path);
    }
    *ret_clock = clock_new(page, false);
    return 0;
}

int clock_publish(struct clock **ret_clock, const char *path, int64_t utc_ns_start, double speed_max, struct err *err)
{
    if (!(speed_max >= 1.0))
        return err_set(err, ERR_ARG, "clock speed %g refused: at least 1", speed_max);
    struct clock_page *page;
    unlink(path);
    int code = page_map(&page, path, O_RDWR | O_CREAT | O_EXCL, err);
    if (code)
        return code;
    int64_t wall_ns = clock_wall_ns();
    atomic_store(&page->anchor_wall_ns, wall_ns);
    atomic_store(&page->anchor_t_ns, NS_PER_S); /* instants are positive */
    atomic_store(&page->speed, 1.0);
    atomic_store(&page->heartbeat_wall_ns, wall_ns);
    page->utc_minus_t_ns = utc_ns_start - NS_PER_S;
    page->speed_max = speed_max;
    page->magic = PAGE_MAGIC;
    *ret_clock = clock_new(page, true);
    return 0;
}

/* Requests of processes that are gone no longer count. */
static void reap_requests(struct clock_page *page)
{
    for (int i = 0; i < PACE_SLOTS; i++) {
        int32_t pid = atomic_load(&page->slots[i].pid);
        if (pid > 0 && kill(pid, 0) != 0 && errno == ESRCH)
            atomic_store(&page->slots[i].pid, 0);
    }
}

void clock_keep(struct clock *clock)
{
    assert(clock->is_keeper);
    struct clock_page *page = clock->page;
    int64_t wall_ns = clock_wall_ns();
    if (wall_ns - clock->last_reap_wall_ns > NS_PER_S / 4) {
        reap_requests(page);
        clock->last_reap_wall_ns = wall_ns;
    }
    double speed = page->speed_max;
    for (int i = 0; i < PACE_SLOTS; i++)
        if (atomic_load(&page->slots[i].pid) > 0) {
            double request = atomic_load(&page->slots[i].speed_max);
            if (request < speed)
                speed = request;
        }
    if (!(speed >= 1.0))
        speed = 1.0;
    int64_t t_ns = tell(clock, wall_ns);
    atomic_fetch_add_explicit(&page->sequence, 1, memory_order_acq_rel);
    atomic_store_explicit(&page->anchor_wall_ns, wall_ns, memory_order_relaxed);
    atomic_store_explicit(&page->anchor_t_ns, t_ns, memory_order_relaxed);
    atomic_store_explicit(&page->speed, speed, memory_order_relaxed);
    atomic_store_explicit(&page->heartbeat_wall_ns, wall_ns, memory_order_relaxed);
    atomic_fetch_add_explicit(&page->sequence, 1, memory_order_release);
}

void clock_close(struct clock *clock)
{
    if (!clock)
        return;
    if (clock->page)
        munmap(clock->page, sizeof *clock->page);
    free(clock);
}

int64_t clock_now_ns(const struct clock *clock)
{
    int64_t wall_ns = clock_wall_ns();
    return clock->page ? tell((struct clock *)(uintptr_t)clock, wall_ns)
                       : wall_ns; /* only the latest instant changes */
}

int64_t clock_utc_ns(const struct clock *clock, int64_t t_ns)
{
    if (clock->page)
        return t_ns + clock->page->utc_minus_t_ns;
    struct timespec utc;
    clock_gettime(CLOCK_REALTIME, &utc);
    return utc.tv_sec * NS_PER_S + utc.tv_nsec - (clock_wall_ns() - t_ns);
}

bool clock_is_real(const struct clock *clock) { return !clock->page; }

bool clock_is_alive(const struct clock *clock)
{
    return !clock->page || clock_wall_ns() - atomic_load(&clock->page->heartbeat_wall_ns) < KEEPER_LOST_NS;
}

double clock_speed(const struct clock *clock) { return clock->page ? atomic_load(&clock->page->speed) : 1.0; }

void clock_sleep_until(const struct clock *clock, int64_t t_ns, int wall_ms_max)
{
    int64_t wall_ns_end = clock_wall_ns() + wall_ms_max * NS_PER_MS;
    for (;;) {
        int64_t wall_ns = clock_wall_ns();
        int64_t left_ns = t_ns - clock_now_ns(clock);
        if (left_ns <= 0 || wall_ns >= wall_ns_end)
            return;
        int64_t wait_ns = (int64_t)((double)left_ns / clock_speed(clock));
        if (clock->page && (wait_ns > 5 * NS_PER_MS || !clock_is_alive(clock)))
            wait_ns = 5 * NS_PER_MS; /* the speed may change while we sleep; a time that stands still has none */
        if (wait_ns > wall_ns_end - wall_ns)
            wait_ns = wall_ns_end - wall_ns;
        if (wait_ns < 20000)
            wait_ns = 20000;
        struct timespec wait = {.tv_sec = wait_ns / NS_PER_S, .tv_nsec = wait_ns % NS_PER_S};
        nanosleep(&wait, NULL);
    }
}

void clock_request_pace(struct clock *clock, const char *who, double speed_max)
{
    if (!clock->page)
        return;
    struct pace_slot *slots = clock->page->slots;
    int32_t pid = (int32_t)getpid();
    int mine = -1;
    for (int i = 0; i < PACE_SLOTS && mine < 0; i++)
        if (atomic_load(&slots[i].pid) == pid && strncmp(slots[i].who, who, sizeof slots[i].who - 1) == 0)
            mine = i;
    for (int i = 0; i < PACE_SLOTS && mine < 0; i++) {
        int32_t unclaimed = 0; /* claimed as -pid until the name stands, so that nobody reads half a slot */
        if (atomic_compare_exchange_strong(&slots[i].pid, &unclaimed, -pid)) {
            memset(slots[i].who, 0, sizeof slots[i].who);
            strncpy(slots[i].who, who, sizeof slots[i].who - 1);
            atomic_store(&slots[i].speed_max, speed_max);
            atomic_store(&slots[i].pid, pid);
            mine = i;
        }
    }
    assert(mine >= 0); /* 16 parties are more than a beamline has */
    atomic_store(&slots[mine].speed_max, speed_max);
}
