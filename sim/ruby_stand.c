#include "sim/ruby_stand.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "sim/random.h"

#define OPTICS_S 4.0 /* from one end to the other */
#define LASER_S 0.5  /* not faster than one step of the world, so that every process sees it */
#define FOLLOW_S 0.1
#define FOLLOW_MS_MAX 20
#define SENSOR_OFFSET_K_MAX 0.2
#define LOST_FRACTION 0.3

enum { READBACK_OUT, READBACK_IN, READBACK_MOVING }; /* choices of PARAMETER_RUBY_OPTICS_READBACK */

struct ruby_stand {
    struct parameter_table *table;
    struct world *world;
    struct clock *clock;
    struct random random;
    double sensor_offset_k;
    pthread_t thread;
    atomic_bool is_ending;
};

static double towards(double position, bool is_end, double step)
{
    return is_end ? fmin(position + step, 1.0) : fmax(position - step, 0.0);
}

void ruby_stand_move(struct world_ruby *ruby, double duration_s)
{
    if (!ruby->is_jammed)
        ruby->optics = towards(ruby->optics, ruby->is_optics_in_wanted, duration_s / OPTICS_S);
    ruby->laser = towards(ruby->laser, ruby->is_laser_open_wanted, duration_s / LASER_S);
}

static void follow_temperature(struct ruby_stand *stand, const struct world_state *state)
{
    const struct world_trouble *trouble = &state->troubles[WORLD_THERMOMETER];
    bool is_spared = random_uniform(&stand->random) > trouble->fraction;
    double kelvin = round((state->temperature_k + stand->sensor_offset_k) * 100) / 100;
    switch (is_spared ? WORLD_FAULT_NONE : trouble->fault) {
    case WORLD_FAULT_OFF:
        kelvin = NAN;
        break;
    case WORLD_FAULT_STUCK:
        return;
    case WORLD_FAULT_GARBAGE:
        kelvin = 2000 * random_uniform(&stand->random);
        break;
    case WORLD_FAULT_WRONG:
        kelvin -= 273.15;
        break;
    case WORLD_FAULT_INTERMITTENT:
        kelvin = random_uniform(&stand->random) < LOST_FRACTION ? NAN : kelvin;
        break;
    default:
        break;
    }
    parameter_set_number(stand->table, PARAMETER_CELL_TEMPERATURE, kelvin);
}

static void follow(struct ruby_stand *stand)
{
    struct world_state state;
    world_read(stand->world, &state);
    follow_temperature(stand, &state);
    bool is_moving = state.ruby.optics > 0.0 && state.ruby.optics < 1.0;
    int optics = is_moving ? READBACK_MOVING : state.ruby.optics > 0.0 ? READBACK_IN : READBACK_OUT;
    int laser = state.ruby.laser > 0.0; /* open until it is shut */
    if (parameter_number(stand->table, PARAMETER_RUBY_OPTICS_READBACK) != optics)
        parameter_set_number(stand->table, PARAMETER_RUBY_OPTICS_READBACK, optics);
    if (parameter_number(stand->table, PARAMETER_RUBY_LASER_READBACK) != laser)
        parameter_set_number(stand->table, PARAMETER_RUBY_LASER_READBACK, laser);
}

static void *stand_main(void *context)
{
    struct ruby_stand *stand = context;
    while (!atomic_load(&stand->is_ending)) {
        follow(stand);
        clock_sleep_until(stand->clock, clock_now_ns(stand->clock) + ns_from_s(FOLLOW_S), FOLLOW_MS_MAX);
    }
    return NULL;
}

struct ruby_stand *ruby_stand_start(struct parameter_table *table, struct world *world, struct clock *clock)
{
    struct ruby_stand *stand = calloc(1, sizeof *stand);
    assert(stand);
    *stand = (struct ruby_stand){.table = table, .world = world, .clock = clock};
    stand->random.state = world_seed(world) ^ UINT64_C(0x74656d70);
    stand->sensor_offset_k = SENSOR_OFFSET_K_MAX * (2 * random_uniform(&stand->random) - 1);
    struct world_state state;
    world_read(world, &state);
    parameter_set_number(table, PARAMETER_RUBY_OPTICS, state.ruby.is_optics_in_wanted);
    parameter_set_number(table, PARAMETER_RUBY_LASER, state.ruby.is_laser_open_wanted);
    parameter_set_number(table, PARAMETER_RUBY_JAM, state.ruby.is_jammed);
    follow(stand);
    bool is_running = pthread_create(&stand->thread, NULL, stand_main, stand) == 0;
    assert(is_running);
    return stand;
}

void ruby_stand_stop(struct ruby_stand *stand)
{
    atomic_store(&stand->is_ending, true);
    pthread_join(stand->thread, NULL);
    free(stand);
}

bool ruby_stand_write(struct ruby_stand *stand, enum parameter parameter, double number)
{
    if (parameter != PARAMETER_RUBY_OPTICS && parameter != PARAMETER_RUBY_LASER && parameter != PARAMETER_RUBY_JAM)
        return false;
    parameter_set_number(stand->table, parameter, number > 0);
    world_command_ruby(stand->world, parameter_number(stand->table, PARAMETER_RUBY_OPTICS) > 0,
                       parameter_number(stand->table, PARAMETER_RUBY_LASER) > 0,
                       parameter_number(stand->table, PARAMETER_RUBY_JAM) > 0);
    return true;
}
