/*
 * Physics of a gas-membrane diamond anvil cell: pure, seeded, copyable.
 *
 * The membrane pressure u pushes through a take-up u0 on the gasket, whose load y (in bar) follows with a friction dead
 * zone of half width w(y) = w0 + mu y and with a creep time:
 *
 *     D = max(0, u - u0) - y
 *     dy/dt = (s / tau) (sp((D - w) / s) - sp((-D - w) / s)),   sp(z) = log(1 + e^z),   s = 0.1 w
 *     P = a y + stick-slip + thermal expansion
 *
 * During a ramp D runs ahead of w by rate x tau; that stored excess is what creeps after the ramp has stopped. No law
 * for these cells is published: form and numbers are an assumption, calibrated to the drift with and without the
 * loading protocol of Cornet et al. (supplement 7, Fig. S7).
 */
#ifndef SIM_PLANT_H
#define SIM_PLANT_H

#include <stdbool.h>

#include "sim/random.h"

/* PLANT_LINEAR is the law above. In PLANT_LOGARITHMIC the gasket yields as a thermally activated solid does (Eyring):
 * dy/dt = (b / tau) (exp((D - w) / b) - exp((-D - w) / b)), b = 0.2 w, so that the creep after a step grows with the
 * logarithm of time and the excess stored by a ramp with the logarithm of its rate. */
enum plant_form { PLANT_LINEAR, PLANT_LOGARITHMIC, PLANT_FORM_COUNT };

struct plant_law {
    enum plant_form form;
    double takeup_bar;        /* u0 */
    double dead_zone_bar;     /* w0, half width at no load */
    double dead_zone_per_bar; /* mu, its growth with load, dimensionless */
    double creep_s;           /* tau */
    double gpa_per_bar;       /* a */
    double slip_gpa_sigma;    /* stick-slip: size of one event */
    double slip_interval_s;   /* mean time between events */
    double slip_relaxation_s;
    double gpa_per_kelvin;
    double temperature_k_daily; /* amplitude of the day */
    double temperature_k_noise; /* sigma, correlated over an hour */
    double membrane_bar_noise;  /* regulation noise of the controller */
    double leak_bar_per_s;      /* with the valves closed */
};

struct plant {
    struct plant_law law;
    struct random random;
    double load_bar;     /* y */
    double membrane_bar; /* u, regulated value without noise */
    double slip_gpa;
    double temperature_k;
    double temperature_noise_k;
    double elapsed_s;
};

struct plant_input {
    double membrane_bar_setpoint;
    double slew_bar_per_s;
    bool output_on;
    bool is_locked; /* the screws carry the load: y stays whatever the membrane does; slips and temperature go on */
};

/* A cell drawn from the seed: each parameter near the calibrated value, as cells differ. Membrane empty, gasket
 * screwed by hand to `pressure_gpa`. */
void plant_init(struct plant *plant, uint64_t seed, double pressure_gpa);

/* A cell of a given law; the seed is that of its slips and its temperature. */
void plant_init_law(struct plant *plant, const struct plant_law *law, uint64_t seed, double pressure_gpa);

/* One explicit Euler step; dt_s <= 1, far below the creep time. */
void plant_step(struct plant *plant, double dt_s, const struct plant_input *input);

/* dy/dt as the plant stands. */
double plant_load_bar_per_s(const struct plant *plant);

double plant_pressure_gpa(const struct plant *plant);
double plant_membrane_bar(struct plant *plant); /* with the regulation noise of this instant */

#endif
