#include "sim/plant.h"

#include <assert.h>

#define TEMPERATURE_K_MEAN 296.0
#define DAY_S 86400.0
#define YIELD_MAX 8.0 /* far beyond what a ramp can store; keeps the explicit step stable */

static double near(struct random *random, double value, double relative_spread)
{
    return value * (1.0 + relative_spread * (2.0 * random_uniform(random) - 1.0));
}

void plant_init_law(struct plant *plant, const struct plant_law *law, uint64_t seed, double pressure_gpa)
{
    *plant = (struct plant){.law = *law, .random = {.state = seed}, .temperature_k = TEMPERATURE_K_MEAN};
    plant->load_bar = pressure_gpa / law->gpa_per_bar;
}

void plant_init(struct plant *plant, uint64_t seed, double pressure_gpa)
{
    struct random random = {.state = seed ^ UINT64_C(0x706c616e74)};
    struct plant_law law = {
        .takeup_bar = near(&random, 10.6, 0.3),
        .dead_zone_bar = near(&random, 4.4, 0.3),
        .dead_zone_per_bar = near(&random, 0.12, 0.3),
        .creep_s = near(&random, 900.0, 0.3),
        .gpa_per_bar = near(&random, 0.10, 0.2),
        .slip_gpa_sigma = 0.01,
        .slip_interval_s = 2400.0,
        .slip_relaxation_s = 7200.0,
        .gpa_per_kelvin = 0.005,
        .temperature_k_daily = 0.3,
        .temperature_k_noise = 0.1,
        .membrane_bar_noise = 0.002,
        .leak_bar_per_s = 0.05 / 3600.0,
    };
    plant_init_law(plant, &law, random.state, pressure_gpa);
}

/* log(1 + e^z) without overflow. */
static double softplus(double z) { return z > 30.0 ? z : log1p(exp(z)); }

static void step_membrane(struct plant *plant, double dt_s, const struct plant_input *input)
{
    if (!input->output_on) {
        plant->membrane_bar -= plant->law.leak_bar_per_s * dt_s;
    } else {
        double step_bar_max = input->slew_bar_per_s * dt_s;
        double step_bar = input->membrane_bar_setpoint - plant->membrane_bar;
        plant->membrane_bar += fmin(fmax(step_bar, -step_bar_max), step_bar_max);
    }
    if (plant->membrane_bar < 0.0)
        plant->membrane_bar = 0.0;
}

static void step_temperature(struct plant *plant, double dt_s)
{
    const double correlation_s = 3600.0, sigma_k = plant->law.temperature_k_noise;
    double decay = dt_s / correlation_s;
    plant->temperature_noise_k += -decay * plant->temperature_noise_k;
    plant->temperature_noise_k += sigma_k * sqrt(2.0 * decay) * random_normal(&plant->random);
    double daily_k = plant->law.temperature_k_daily * sin(6.283185307179586 * plant->elapsed_s / DAY_S);
    plant->temperature_k = TEMPERATURE_K_MEAN + daily_k + plant->temperature_noise_k;
}

/* dy/dt at D = excess_bar, bar/s. */
static double creep_rate(const struct plant_law *law, double excess_bar, double half_width_bar)
{
    if (law->form == PLANT_LOGARITHMIC) {
        double b = 0.2 * half_width_bar;
        double up = exp(fmin((excess_bar - half_width_bar) / b, YIELD_MAX));
        double down = exp(fmin((-excess_bar - half_width_bar) / b, YIELD_MAX));
        return b / law->creep_s * (up - down);
    }
    double softness_bar = 0.1 * half_width_bar;
    double up = softplus((excess_bar - half_width_bar) / softness_bar);
    double down = softplus((-excess_bar - half_width_bar) / softness_bar);
    return softness_bar / law->creep_s * (up - down);
}

double plant_load_bar_per_s(const struct plant *plant)
{
    const struct plant_law *law = &plant->law;
    double effective_bar = fmax(0.0, plant->membrane_bar - law->takeup_bar);
    double half_width_bar = law->dead_zone_bar + law->dead_zone_per_bar * plant->load_bar;
    return creep_rate(law, effective_bar - plant->load_bar, half_width_bar);
}

void plant_step(struct plant *plant, double dt_s, const struct plant_input *input)
{
    assert(dt_s > 0.0 && dt_s <= 1.0);
    const struct plant_law *law = &plant->law;
    step_membrane(plant, dt_s, input);
    step_temperature(plant, dt_s);

    if (!input->is_locked)
        plant->load_bar += dt_s * plant_load_bar_per_s(plant);

    plant->slip_gpa -= plant->slip_gpa * dt_s / law->slip_relaxation_s;
    if (random_uniform(&plant->random) < dt_s / law->slip_interval_s)
        plant->slip_gpa += law->slip_gpa_sigma * random_normal(&plant->random);
    plant->elapsed_s += dt_s;
}

double plant_pressure_gpa(const struct plant *plant)
{
    return plant->law.gpa_per_bar * plant->load_bar + plant->slip_gpa +
           plant->law.gpa_per_kelvin * (plant->temperature_k - TEMPERATURE_K_MEAN);
}

double plant_membrane_bar(struct plant *plant)
{
    return fmax(0.0, plant->membrane_bar + plant->law.membrane_bar_noise * random_normal(&plant->random));
}
