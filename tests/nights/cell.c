#include "tests/nights/cell.h"

static double between(struct random *random, double low, double high)
{
    return low + (high - low) * random_uniform(random);
}

void cell_draw(struct cell *ret_cell, enum plant_form form, struct random *random)
{
    *ret_cell = (struct cell){
        .law = {.form = form,
                .gpa_per_bar = 1.0 / between(random, 7.0, 14.0),
                .takeup_bar = between(random, 5.0, 20.0),
                .dead_zone_bar = between(random, 2.0, 8.0),
                .dead_zone_per_bar = between(random, 0.05, 0.20),
                .creep_s = 60.0 * between(random, 5.0, 40.0),
                .slip_gpa_sigma = between(random, 0.0, 0.03),
                .slip_interval_s = 3600.0 / between(random, 0.5, 3.0),
                .slip_relaxation_s = 3600.0 * between(random, 1.0, 4.0),
                .gpa_per_kelvin = between(random, 0.003, 0.007),
                .temperature_k_daily = between(random, 0.0, 0.5),
                .temperature_k_noise = between(random, 0.0, 0.15),
                .membrane_bar_noise = 0.002,
                .leak_bar_per_s = between(random, 0.0, 0.5) / 3600.0},
        .readings = {.pressure_gpa_sigma = between(random, 0.005, 0.03),
                     .outlier_fraction = 0.02,
                     .outlier_gpa = 0.5,
                     .temperature_gpa_per_k = 0.02,
                     .membrane_bar_sigma = 0.005},
        .membrane_bar_max = between(random, 90.0, 150.0),
    };
}
