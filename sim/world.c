#include "sim/world.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"

#define PAGE_MAGIC UINT64_C(0x31304c5257425349) /* "ISBWRL01" */
#define HISTORY_COUNT 32768                     /* 4.5 h at one sample per step */
#define HISTORY_STEP_NS (NS_PER_S / 2)

struct world_page {
    uint64_t magic;
    uint64_t seed;
    pthread_mutex_t mutex; /* robust: a killed server must not stop the world */
    struct world_state state;
    int64_t n_samples; /* ever appended; sample k is at t_ns = state.t_ns - (n_samples - 1 - k) * step */
    struct world_sample history[HISTORY_COUNT];
};

struct world {
    struct world_page *page;
    int truth_fd;
};

static void lock(struct world_page *page)
{
    int code = pthread_mutex_lock(&page->mutex);
    if (code == EOWNERDEAD) /* every update below leaves the page usable at any point */
        code = pthread_mutex_consistent(&page->mutex);
    assert(code == 0);
}

static void unlock(struct world_page *page) { pthread_mutex_unlock(&page->mutex); }

static int world_attach(struct world **ret_world, const char *directory, int flags, struct err *err)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/world", directory);
    int fd = open(path, flags | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set(err, ERR_IO, "world page %s cannot be opened: %s", path, strerror(errno));
    struct stat status;
    if ((flags & O_CREAT) && ftruncate(fd, (off_t)sizeof(struct world_page)) != 0) {
        close(fd);
        return err_set(err, ERR_IO, "world page %s cannot be made: %s", path, strerror(errno));
    }
    if (fstat(fd, &status) != 0 || status.st_size != (off_t)sizeof(struct world_page)) {
        close(fd);
        return err_set(err, ERR_DATA, "%s is not a world page: expected %zu bytes", path, sizeof(struct world_page));
    }
    void *memory = mmap(NULL, sizeof(struct world_page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    snprintf(path, sizeof path, "%s/truth.jsonl", directory);
    int truth_fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC | (flags & (O_CREAT | O_EXCL)), 0200);
    if (memory == MAP_FAILED || truth_fd < 0)
        return err_set(err, ERR_IO, "%s cannot be opened for appending: %s", path, strerror(errno));
    struct world *world = calloc(1, sizeof *world);
    assert(world);
    *world = (struct world){.page = memory, .truth_fd = truth_fd};
    *ret_world = world;
    return 0;
}

int world_create(struct world **ret_world, const char *directory, uint64_t seed, struct err *err)
{
    struct world *world;
    int code = world_attach(&world, directory, O_RDWR | O_CREAT | O_EXCL, err);
    if (code)
        return code;
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&world->page->mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
    world->page->seed = seed;
    world->page->magic = PAGE_MAGIC;
    *ret_world = world;
    return 0;
}

int world_open(struct world **ret_world, const char *directory, struct err *err)
{
    struct world *world;
    int code = world_attach(&world, directory, O_RDWR, err);
    if (code)
        return code;
    if (world->page->magic != PAGE_MAGIC) {
        world_close(world);
        return err_set(err, ERR_DATA, "%s/world is not a world page: its first bytes are foreign", directory);
    }
    *ret_world = world;
    return 0;
}

void world_close(struct world *world)
{
    if (!world)
        return;
    munmap(world->page, sizeof *world->page);
    close(world->truth_fd);
    free(world);
}

uint64_t world_seed(const struct world *world) { return world->page->seed; }

void world_read(struct world *world, struct world_state *ret_state)
{
    lock(world->page);
    *ret_state = world->page->state;
    unlock(world->page);
}

void world_command_membrane(struct world *world, double membrane_bar_setpoint, double slew_bar_per_s, bool output_on)
{
    lock(world->page);
    const struct world_state *state = &world->page->state;
    world->page->state.n_membrane_repeated += state->membrane_bar_setpoint == membrane_bar_setpoint &&
                                              state->slew_bar_per_s == slew_bar_per_s && state->output_on == output_on;
    world->page->state.membrane_bar_setpoint = membrane_bar_setpoint;
    world->page->state.slew_bar_per_s = slew_bar_per_s;
    world->page->state.output_on = output_on;
    world->page->state.n_membrane_told++;
    unlock(world->page);
}

void world_turn_setpoint(struct world *world, double membrane_bar_setpoint)
{
    lock(world->page);
    world->page->state.membrane_bar_setpoint = membrane_bar_setpoint;
    unlock(world->page);
}

void world_set_fault(struct world *world, enum world_component component, enum world_fault fault, int ms,
                     double fraction)
{
    lock(world->page);
    world->page->state.troubles[component] = (struct world_trouble){.fault = fault, .ms = ms, .fraction = fraction};
    unlock(world->page);
}

bool world_find_fault(const char *name, enum world_fault *ret_fault)
{
    static const char *const names[WORLD_FAULT_COUNT] = {
#define X(id, text) [WORLD_FAULT_##id] = text,
        WORLD_FAULT_LIST(X)
#undef X
    };
    for (int i = 0; i < WORLD_FAULT_COUNT; i++)
        if (strcmp(names[i], name) == 0) {
            *ret_fault = (enum world_fault)i;
            return true;
        }
    return false;
}

void world_lock_cell(struct world *world, bool is_locked)
{
    lock(world->page);
    world->page->state.is_locked = is_locked;
    unlock(world->page);
}

void world_screw_cell(struct world *world, double screwed_gpa)
{
    lock(world->page);
    world->page->state.screwed_gpa = screwed_gpa;
    unlock(world->page);
}

void world_place_ruby(struct world *world, bool is_on_axis)
{
    lock(world->page);
    world->page->state.ruby = (struct world_ruby){.is_on_axis = is_on_axis,
                                                  .optics = !is_on_axis,
                                                  .laser = !is_on_axis,
                                                  .is_optics_in_wanted = !is_on_axis,
                                                  .is_laser_open_wanted = !is_on_axis};
    unlock(world->page);
}

void world_command_ruby(struct world *world, bool is_optics_in_wanted, bool is_laser_open_wanted, bool is_jammed)
{
    lock(world->page);
    world->page->state.ruby.is_optics_in_wanted = is_optics_in_wanted;
    world->page->state.ruby.is_laser_open_wanted = is_laser_open_wanted;
    world->page->state.ruby.is_jammed = is_jammed;
    unlock(world->page);
}

void world_append(struct world *world, const struct world_state *state, const struct world_sample *sample)
{
    struct world_page *page = world->page;
    lock(page);
    assert(page->n_samples == 0 || state->t_ns == page->state.t_ns + HISTORY_STEP_NS);
    page->history[page->n_samples % HISTORY_COUNT] = *sample;
    page->n_samples++;
    page->state.t_ns = state->t_ns;
    page->state.pressure_gpa = state->pressure_gpa;
    page->state.temperature_k = state->temperature_k;
    page->state.membrane_bar = state->membrane_bar;
    page->state.supply_bar = state->supply_bar;
    page->state.ring_current_ma = state->ring_current_ma;
    page->state.ruby.optics = state->ruby.optics;
    page->state.ruby.laser = state->ruby.laser;
    unlock(page);
}

static double between(double a, double b, double fraction) { return a + fraction * (b - a); }

int world_sample_at(struct world *world, int64_t t_ns, struct world_sample *ret_sample, struct err *err)
{
    struct world_page *page = world->page;
    lock(page);
    int64_t newest_ns = page->state.t_ns, n_samples = page->n_samples;
    int64_t steps_back = (newest_ns - t_ns) / HISTORY_STEP_NS + 1;
    int code = 0;
    if (n_samples == 0 || t_ns > newest_ns) {
        code = err_set(err, ERR_STATE, "the physics has not come that far");
    } else if (steps_back >= n_samples || steps_back >= HISTORY_COUNT) {
        code = err_set(err, ERR_ARG, "older than the history of %d samples", HISTORY_COUNT);
    } else {
        int64_t k = n_samples - 1 - steps_back;
        double fraction = (double)(t_ns - (newest_ns - steps_back * HISTORY_STEP_NS)) / (double)HISTORY_STEP_NS;
        const struct world_sample *a = &page->history[k % HISTORY_COUNT];
        const struct world_sample *b = &page->history[(k + 1) % HISTORY_COUNT];
        ret_sample->pressure_gpa = between(a->pressure_gpa, b->pressure_gpa, fraction);
        ret_sample->temperature_k = between(a->temperature_k, b->temperature_k, fraction);
        ret_sample->theta = between(a->theta, b->theta, fraction);
        ret_sample->beta = between(a->beta, b->beta, fraction);
        ret_sample->shadow = between(a->shadow, b->shadow, fraction);
        ret_sample->laser = between(a->laser, b->laser, fraction);
    }
    unlock(page);
    return code;
}

void world_write_truth(struct world *world, const char *json)
{
    char line[8192];
    int n = snprintf(line, sizeof line, "%s\n", json);
    assert(n > 0 && (size_t)n < sizeof line);
    if (write(world->truth_fd, line, (size_t)n) != n)
        fprintf(stderr, "isobar-sim: truth.jsonl cannot be written: %s\n", strerror(errno));
}
