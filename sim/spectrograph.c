#include "sim/spectrograph.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sim/random.h"
#include "sim/spectrum.h"

#define PIXELS SPECTROGRAPH_PIXELS
#define SLICE_MS 20 /* of wall time, between looks at the end */
#define LOST_FRACTION 0.3
#define INVALID_FRACTION 0.1
#define GARBAGE_KINDS 3
#define EXPOSURE_S_MIN 0.001
#define EXPOSURE_S_MAX 60.0

struct spectrograph {
    struct parameter_table *table;
    struct world *world;
    struct clock *clock;
    pthread_t thread;
    atomic_bool is_ending;
    pthread_mutex_t mutex; /* guards what is below to the blank line */
    pthread_cond_t told;
    bool is_asked;
    int n_counts; /* -1: not known */
    double wavelength_nm[PIXELS], counts[PIXELS];

    struct random random; /* the thread's own from here on */
    bool is_stuck;
    int n_garbage;
    double axis_nm[PIXELS], photons[PIXELS];
    uint16_t fresh[PIXELS];
};

/* False when the thread is to end. */
static bool pass(struct spectrograph *spectrograph, int64_t t_ns)
{
    while (clock_now_ns(spectrograph->clock) < t_ns && !spectrograph->is_ending)
        clock_sleep_until(spectrograph->clock, t_ns, SLICE_MS);
    return !spectrograph->is_ending;
}

static void pass_wall(struct spectrograph *spectrograph, int ms)
{
    for (int left = ms; left > 0 && !spectrograph->is_ending; left -= SLICE_MS)
        nanosleep(&(struct timespec){.tv_nsec = (left < SLICE_MS ? left : SLICE_MS) * NS_PER_MS}, NULL);
}

/* Partly in place shows nothing: the focus is on the ruby at the end of the stage's way only. */
static bool is_lit(const struct world_state *state) { return state->ruby.optics >= 1.0 && state->ruby.laser > 0.0; }

/* One exposure into `fresh`; false when the thread is to end. */
static bool expose(struct spectrograph *spectrograph, struct world_state *ret_state)
{
    struct world_state before;
    double exposure_s = parameter_number(spectrograph->table, PARAMETER_SPECTRUM_EXPOSURE);
    world_read(spectrograph->world, &before);
    if (!pass(spectrograph, clock_now_ns(spectrograph->clock) + ns_from_s(exposure_s)))
        return false;
    world_read(spectrograph->world, ret_state);
    const struct spectrum_scene scene = {.pressure_gpa = ret_state->pressure_gpa,
                                         .temperature_k = ret_state->temperature_k,
                                         .exposure_s = exposure_s,
                                         .is_lit = is_lit(&before) && is_lit(ret_state)};
    spectrum_expect(&scene, spectrograph->axis_nm, PIXELS, spectrograph->photons);
    spectrum_draw(&spectrograph->random, spectrograph->photons, PIXELS, spectrograph->fresh);
    return true;
}

/* What the waveforms hold next. */
static void fill(struct spectrograph *spectrograph, enum world_fault fault)
{
    pthread_mutex_lock(&spectrograph->mutex);
    bool is_old = fault == WORLD_FAULT_WRONG || (fault == WORLD_FAULT_STUCK && spectrograph->is_stuck);
    memcpy(spectrograph->wavelength_nm, spectrograph->axis_nm, sizeof spectrograph->axis_nm);
    for (int i = 0; i < PIXELS && !is_old; i++)
        spectrograph->counts[i] = spectrograph->fresh[i];
    spectrograph->n_counts = PIXELS;
    if (fault == WORLD_FAULT_GARBAGE) {
        int kind = spectrograph->n_garbage++ % GARBAGE_KINDS;
        for (int i = 0; i < PIXELS && kind == 0; i++)
            spectrograph->counts[i] = i % 100 == 50 ? NAN : spectrograph->counts[i];
        for (int i = 0; i < PIXELS && kind == 1; i++)
            spectrograph->wavelength_nm[i] = spectrograph->axis_nm[PIXELS - 1 - i];
        spectrograph->n_counts -= kind == 2;
    }
    spectrograph->is_stuck = fault == WORLD_FAULT_STUCK;
    pthread_mutex_unlock(&spectrograph->mutex);
}

static void renew(struct spectrograph *spectrograph, enum parameter parameter)
{
    parameter_set_number(spectrograph->table, parameter, parameter_number(spectrograph->table, parameter) + 1);
}

static void lose(struct spectrograph *spectrograph)
{
    if (random_uniform(&spectrograph->random) > INVALID_FRACTION / LOST_FRACTION)
        return;
    pthread_mutex_lock(&spectrograph->mutex);
    spectrograph->n_counts = -1;
    pthread_mutex_unlock(&spectrograph->mutex);
    renew(spectrograph, PARAMETER_SPECTRUM_COUNTS);
}

static void acquire(struct spectrograph *spectrograph)
{
    struct world_state state;
    world_read(spectrograph->world, &state);
    const struct world_trouble trouble = state.troubles[WORLD_SPECTROMETER];
    bool is_spared = random_uniform(&spectrograph->random) > trouble.fraction;
    enum world_fault fault = is_spared ? WORLD_FAULT_NONE : trouble.fault;
    if (fault == WORLD_FAULT_OFF)
        return;
    parameter_set_number(spectrograph->table, PARAMETER_SPECTRUM_BUSY, 1);
    if (!expose(spectrograph, &state))
        return;
    if (fault == WORLD_FAULT_SLOW)
        pass_wall(spectrograph, trouble.ms);
    bool is_lost = fault == WORLD_FAULT_INTERMITTENT && random_uniform(&spectrograph->random) < LOST_FRACTION;
    if (fault == WORLD_FAULT_DELAYED) {
        parameter_set_number(spectrograph->table, PARAMETER_SPECTRUM_BUSY, 0);
        pass_wall(spectrograph, trouble.ms);
    }
    if (is_lost) {
        lose(spectrograph);
    } else {
        fill(spectrograph, fault);
        renew(spectrograph, PARAMETER_SPECTRUM_WAVELENGTH);
        renew(spectrograph, PARAMETER_SPECTRUM_COUNTS);
    }
    if (fault != WORLD_FAULT_DELAYED)
        parameter_set_number(spectrograph->table, PARAMETER_SPECTRUM_BUSY, 0);
}

static void *spectrograph_main(void *context)
{
    struct spectrograph *spectrograph = context;
    for (;;) {
        pthread_mutex_lock(&spectrograph->mutex);
        while (!spectrograph->is_asked && !spectrograph->is_ending)
            pthread_cond_wait(&spectrograph->told, &spectrograph->mutex);
        spectrograph->is_asked = false;
        pthread_mutex_unlock(&spectrograph->mutex);
        if (spectrograph->is_ending)
            return NULL;
        acquire(spectrograph);
    }
}

struct spectrograph *spectrograph_start(struct parameter_table *table, struct world *world, struct clock *clock)
{
    struct spectrograph *spectrograph = calloc(1, sizeof *spectrograph);
    assert(spectrograph);
    spectrograph->table = table;
    spectrograph->world = world;
    spectrograph->clock = clock;
    spectrograph->random.state = world_seed(world) ^ UINT64_C(0x67726170);
    spectrograph->n_counts = PIXELS; /* all 0, before the first */
    for (int i = 0; i < PIXELS; i++)
        spectrograph->axis_nm[i] = spectrograph->wavelength_nm[i] = 646.0 + i * (0.03105 + i * (-5.0e-7 + i * 1.0e-12));
    pthread_mutex_init(&spectrograph->mutex, NULL);
    pthread_cond_init(&spectrograph->told, NULL);
    bool is_running = pthread_create(&spectrograph->thread, NULL, spectrograph_main, spectrograph) == 0;
    assert(is_running);
    return spectrograph;
}

void spectrograph_stop(struct spectrograph *spectrograph)
{
    pthread_mutex_lock(&spectrograph->mutex);
    spectrograph->is_ending = true;
    pthread_cond_signal(&spectrograph->told);
    pthread_mutex_unlock(&spectrograph->mutex);
    pthread_join(spectrograph->thread, NULL);
    free(spectrograph);
}

bool spectrograph_write(struct spectrograph *spectrograph, enum parameter parameter, double number,
                        bool *ret_is_refused)
{
    if (parameter == PARAMETER_SPECTRUM_EXPOSURE) {
        *ret_is_refused = !(number >= EXPOSURE_S_MIN && number <= EXPOSURE_S_MAX);
        if (!*ret_is_refused)
            parameter_set_number(spectrograph->table, parameter, number);
        return true;
    }
    if (parameter != PARAMETER_SPECTRUM_ACQUIRE)
        return false;
    pthread_mutex_lock(&spectrograph->mutex);
    spectrograph->is_asked = number > 0;
    pthread_cond_signal(&spectrograph->told);
    pthread_mutex_unlock(&spectrograph->mutex);
    return true;
}

int spectrograph_read(struct spectrograph *spectrograph, enum parameter parameter, double *ret_values, int n_max)
{
    bool is_axis = parameter == PARAMETER_SPECTRUM_WAVELENGTH;
    assert(is_axis || parameter == PARAMETER_SPECTRUM_COUNTS);
    pthread_mutex_lock(&spectrograph->mutex);
    int n = is_axis ? PIXELS : spectrograph->n_counts;
    n = n > n_max ? n_max : n;
    if (n > 0)
        memcpy(ret_values, is_axis ? spectrograph->wavelength_nm : spectrograph->counts, (size_t)n * sizeof(double));
    pthread_mutex_unlock(&spectrograph->mutex);
    return n;
}
