/*
 * The simulated world: one page of shared memory between the process that integrates the physics of the cell and the
 * processes that serve the instruments' wires. Only processes of isobar-sim open it.
 *
 * A directory holds a rehearsal's world: `clock` (base/clock.h), `world` (this page) and `truth.jsonl`, which only
 * isobar-sim writes, and which is write-only (mode 0200) while the rehearsal runs.
 */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct world;

/* The ruby's optics and the shutter of its laser. */
struct world_ruby {
    bool is_on_axis; /* the optics, when they are in, stand in the X-ray beam; false: beside it */
    double optics;   /* 0: out, 1: in; between: on the way */
    double laser;    /* 0: shut, 1: open */
    bool is_optics_in_wanted, is_laser_open_wanted;
    bool is_jammed; /* the stage does not move */
};

/* What can be wrong with an instrument or its wire. sim/wire.h says what each does there, sim/spectrograph.h and
 * sim/ruby_stand.h what it does behind an IOC. */
#define WORLD_FAULT_LIST(X)                                                                                            \
    X(NONE, "none")                                                                                                    \
    X(OFF, "off")                                                                                                      \
    X(STUCK, "stuck")                                                                                                  \
    X(GARBAGE, "garbage")                                                                                              \
    X(WRONG, "wrong")                                                                                                  \
    X(SLOW, "slow")                                                                                                    \
    X(DELAYED, "delayed")                                                                                              \
    X(INTERMITTENT, "intermittent")

enum world_fault {
#define X(name, text) WORLD_FAULT_##name,
    WORLD_FAULT_LIST(X)
#undef X
        WORLD_FAULT_COUNT
};

enum world_component { WORLD_MEMBRANE, WORLD_SPECTROMETER, WORLD_THERMOMETER, WORLD_COMPONENT_COUNT };

struct world_trouble {
    enum world_fault fault;
    int ms;          /* of wall time: a delayed answer's delay; a slow one's bytes come in a ninth of it each */
    double fraction; /* of the answers that it befalls */
};

struct world_state {
    int64_t t_ns;                 /* instant up to which the physics is integrated */
    double pressure_gpa;          /* true sample pressure */
    double temperature_k;         /* of the cell */
    double membrane_bar;          /* true membrane pressure */
    double membrane_bar_setpoint; /* what the controller was told */
    double slew_bar_per_s;        /* slew limit the controller was told */
    bool output_on;               /* valves regulate; false: closed */
    bool is_locked;               /* the cell's screws carry the load */
    double screwed_gpa;           /* to which a hand has screwed the cell: its load is never below */
    double supply_bar;
    double ring_current_ma;
    struct world_ruby ruby;
    struct world_trouble troubles[WORLD_COMPONENT_COUNT];
    int64_t n_membrane_told;     /* commands the membrane controller has taken */
    int64_t n_membrane_repeated; /* of these, such as changed nothing */
};

struct world_sample {
    double pressure_gpa;
    double temperature_k;
    double theta;  /* internal time of the glass: integral of dt / tau, dimensionless */
    double beta;   /* Kohlrausch exponent at that instant */
    double shadow; /* of the ruby's optics in the X-ray beam: above 0 no photon passes */
    double laser;  /* shining on the sample although the beam needs it dark (optics on the axis): above 0 */
};

/* Makes the page in `directory`; the caller integrates it. */
int world_create(struct world **ret_world, const char *directory, uint64_t seed, struct err *err);
/* Joins it (server processes). Errors: ERR_IO, ERR_DATA. */
int world_open(struct world **ret_world, const char *directory, struct err *err);
void world_close(struct world *world);

uint64_t world_seed(const struct world *world);
void world_read(struct world *world, struct world_state *ret_state);

/* Set point, slew limit and output of the membrane controller (its server only). */
void world_command_membrane(struct world *world, double membrane_bar_setpoint, double slew_bar_per_s, bool output_on);

/* Hands at the bench (isobar-sim hands only): the set point at the controller's front panel, and the cell's screws. */
void world_turn_setpoint(struct world *world, double membrane_bar_setpoint);
/* What fails from now on; set while everything runs (isobar-sim fault only). */
void world_set_fault(struct world *world, enum world_component component, enum world_fault fault, int ms,
                     double fraction);
/* False when `name` is none of the list. */
bool world_find_fault(const char *name, enum world_fault *ret_fault);
void world_lock_cell(struct world *world, bool is_locked);
void world_screw_cell(struct world *world, double screwed_gpa);
/* Where the ruby's stand is built, and its first state: on the axis out of the way and dark, beside it in place and lit
 * (the integrating process only). */
void world_place_ruby(struct world *world, bool is_on_axis);
/* What the stage and the shutter are told, and whether the stage is stuck (their IOC only). */
void world_command_ruby(struct world *world, bool is_optics_in_wanted, bool is_laser_open_wanted, bool is_jammed);

/* Advances the page by one step of physics (the integrating process only). */
void world_append(struct world *world, const struct world_state *state, const struct world_sample *sample);

/* The sample at an instant, by linear interpolation of the history (one value per 0.5 s, at least 3 h of it).
 * Errors: ERR_STATE (the physics has not come that far yet: try again), ERR_ARG (older than the history). */
int world_sample_at(struct world *world, int64_t t_ns, struct world_sample *ret_sample, struct err *err);

/* Appends one line (a JSON object without newline) to truth.jsonl, in one write. */
void world_write_truth(struct world *world, const char *json);

#endif
