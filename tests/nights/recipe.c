#include "tests/nights/recipe.h"

#include <math.h>
#include <string.h>

#define RAMP_BAR_PER_S (2.0 / 60.0)
#define BACK_OFF_BAR_PER_S (6.0 / 60.0)
#define DROP_GPA 0.01
#define MOVE_S_MAX 86400

void recipe_begin(struct recipe *ret_recipe, const struct plant *plant, const struct night_readings *readings,
                  struct random random, double membrane_bar_max)
{
    *ret_recipe = (struct recipe){.plant = *plant,
                                  .input = {.membrane_bar_setpoint = plant->membrane_bar,
                                            .slew_bar_per_s = BACK_OFF_BAR_PER_S,
                                            .output_on = true},
                                  .readings = *readings,
                                  .random = random,
                                  .state = RECIPE_HOLD,
                                  .membrane_bar_max = membrane_bar_max};
}

static void enter(struct recipe *recipe, enum recipe_state state)
{
    recipe->state = state;
    recipe->move_s = 0;
    recipe->peak_gpa = state == RECIPE_BACK_OFF ? recipe->direction * recipe->mean_gpa : -INFINITY;
}

void recipe_start(struct recipe *recipe, int32_t direction, double target_gpa, bool has_back_off)
{
    recipe->direction = direction;
    recipe->target_gpa = target_gpa;
    recipe->has_back_off = has_back_off;
    enter(recipe, RECIPE_RAMP);
}

static void let_a_second_pass(struct recipe *recipe)
{
    const struct night_readings *readings = &recipe->readings;
    plant_step(&recipe->plant, 0.5, &recipe->input);
    plant_step(&recipe->plant, 0.5, &recipe->input);
    if (recipe->n_seconds++ % RECIPE_READING_S != 0)
        return;
    double *reading_gpa = recipe->reading_gpa;
    memmove(reading_gpa, reading_gpa + 1, 2 * sizeof *reading_gpa);
    reading_gpa[2] = plant_pressure_gpa(&recipe->plant) +
                     readings->pressure_gpa_sigma * random_normal(&recipe->random) +
                     readings->temperature_gpa_per_k * (recipe->plant.temperature_k - 296.0);
    recipe->mean_gpa = (reading_gpa[0] + reading_gpa[1] + reading_gpa[2]) / 3.0;
}

static bool is_there(struct recipe *recipe)
{
    double mean_gpa = recipe->direction * recipe->mean_gpa;
    recipe->peak_gpa = fmax(recipe->peak_gpa, mean_gpa);
    if (recipe->state == RECIPE_RAMP)
        return mean_gpa >= recipe->direction * recipe->target_gpa;
    return mean_gpa <= recipe->peak_gpa - DROP_GPA;
}

static void move(struct recipe *recipe)
{
    bool is_ramp = recipe->state == RECIPE_RAMP;
    double next_bar =
        recipe->input.membrane_bar_setpoint + recipe->direction * (is_ramp ? RAMP_BAR_PER_S : -BACK_OFF_BAR_PER_S);
    if (next_bar < 0.0 || next_bar > recipe->membrane_bar_max || recipe->move_s++ >= MOVE_S_MAX) {
        enter(recipe, RECIPE_REFUSED);
        return;
    }
    recipe->input.membrane_bar_setpoint = next_bar;
    let_a_second_pass(recipe);
    if (is_there(recipe))
        enter(recipe, is_ramp && recipe->has_back_off ? RECIPE_BACK_OFF : RECIPE_HOLD);
}

void recipe_step(struct recipe *recipe)
{
    if (recipe->state == RECIPE_HOLD)
        let_a_second_pass(recipe);
    else if (recipe->state != RECIPE_REFUSED)
        move(recipe);
}
