#include "controller/slide.h"

#include <assert.h>
#include <math.h>

/* Readings err together (slips, temperature): each is worth a quarter. What is not in the model, per second: slips of
 * the sample, and the speed by its own share; and the share of the membrane's move that it may miss. */
#define READING_SIGMAS 2.0
#define SLIPS_GPA2_PER_S 2e-7
#define SLIP_S 7200.0 /* in which a slip has come back */
#define SPEED_SHARE2_PER_S 1e-5
#define MOVE_SHARE 0.5
#define SPEED_MIN 1e-7  /* GPa/s */
#define FLOW_FACTOR 2.5 /* how far one slide may take it from where it began */
#define FAR_SIGMAS 4.0
#define REFUSED_MAX 3

void slide_begin(struct slide *slide, bool is_viscous, const double state[SLIDE_STATES],
                 const double sigma[SLIDE_STATES], double membrane_bar)
{
    assert(state[SLIDE_FLOW] > 0.0);
    *slide = (struct slide){
        .is_begun = true, .is_viscous = is_viscous, .flow_begun = state[SLIDE_FLOW], .membrane_bar = membrane_bar};
    for (int i = 0; i < SLIDE_STATES; i++) {
        slide->state[i] = state[i];
        slide->covariance[i][i] = sigma[i] * sigma[i];
    }
    slide->state[SLIDE_SPEED] = fmax(slide->state[SLIDE_SPEED], SPEED_MIN);
}

/* covariance <- J covariance J', J with the rows that differ from the identity's. */
static void propagate(struct slide *slide, double level_by_speed, double speed_by_speed, double speed_by_flow)
{
    const double jacobian[SLIDE_STATES][SLIDE_STATES] = {
        {1.0, level_by_speed, 0.0}, {0.0, speed_by_speed, speed_by_flow}, {0.0, 0.0, 1.0}};
    double half[SLIDE_STATES][SLIDE_STATES] = {{0.0}};
    for (int i = 0; i < SLIDE_STATES; i++)
        for (int j = 0; j < SLIDE_STATES; j++)
            for (int k = 0; k < SLIDE_STATES; k++)
                half[i][j] += jacobian[i][k] * slide->covariance[k][j];
    for (int i = 0; i < SLIDE_STATES; i++)
        for (int j = 0; j < SLIDE_STATES; j++) {
            slide->covariance[i][j] = 0.0;
            for (int k = 0; k < SLIDE_STATES; k++)
                slide->covariance[i][j] += half[i][k] * jacobian[j][k];
        }
}

void slide_move(struct slide *slide, const struct slide_cell *cell, double membrane_bar, double since_s)
{
    if (!slide->is_begun)
        return;
    double speed = slide->state[SLIDE_SPEED], flow = slide->state[SLIDE_FLOW];
    double drive_gpa = (membrane_bar - slide->membrane_bar) / cell->edge_bar_per_gpa;
    double ahead_gpa = drive_gpa - speed * since_s;
    /* by how much excess, in GPa, the speed changes by its own amount */
    double stored_gpa = slide->is_viscous ? flow * speed : flow * cell->half_width_bar / cell->edge_bar_per_gpa;
    double gain = ahead_gpa / stored_gpa;
    double speed_by_speed = 1.0 + ((slide->is_viscous ? 0.0 : ahead_gpa) - speed * since_s) / stored_gpa;
    propagate(slide, since_s, speed_by_speed, -speed * gain / flow);
    double missed = MOVE_SHARE * drive_gpa / stored_gpa;
    slide->covariance[SLIDE_LEVEL][SLIDE_LEVEL] += SLIPS_GPA2_PER_S * since_s;
    slide->covariance[SLIDE_SPEED][SLIDE_SPEED] += speed * speed * (missed * missed + SPEED_SHARE2_PER_S * since_s);
    slide->state[SLIDE_LEVEL] += speed * since_s;
    slide->slipped_gpa *= 1.0 - since_s / SLIP_S;
    slide->state[SLIDE_SPEED] = fmax(speed * (1.0 + gain), SPEED_MIN);
    slide->membrane_bar = membrane_bar;
}

void slide_read(struct slide *slide, double pressure_gpa, double pressure_gpa_sigma)
{
    if (!slide->is_begun)
        return;
    double sigma = READING_SIGMAS * pressure_gpa_sigma, off_gpa = pressure_gpa - slide->state[SLIDE_LEVEL];
    double variance = slide->covariance[SLIDE_LEVEL][SLIDE_LEVEL] + sigma * sigma;
    bool is_far = off_gpa * off_gpa > FAR_SIGMAS * FAR_SIGMAS * variance;
    slide->n_refused = is_far ? slide->n_refused + 1 : 0;
    if (is_far && slide->n_refused <= REFUSED_MAX)
        return;
    if (is_far) { /* the sample has slipped by that much */
        slide->covariance[SLIDE_LEVEL][SLIDE_LEVEL] += off_gpa * off_gpa;
        variance += off_gpa * off_gpa;
        slide->n_refused = 0;
    }
    slide->chi2 += off_gpa * off_gpa / variance;
    double column[SLIDE_STATES];
    for (int i = 0; i < SLIDE_STATES; i++)
        column[i] = slide->covariance[i][SLIDE_LEVEL];
    slide->slipped_gpa += column[SLIDE_LEVEL] / variance * off_gpa;
    for (int i = 0; i < SLIDE_STATES; i++) {
        slide->state[i] += column[i] / variance * off_gpa;
        for (int j = 0; j < SLIDE_STATES; j++)
            slide->covariance[i][j] -= column[i] * column[j] / variance;
    }
    slide->state[SLIDE_SPEED] = fmax(slide->state[SLIDE_SPEED], SPEED_MIN);
    slide->state[SLIDE_FLOW] =
        fmin(fmax(slide->state[SLIDE_FLOW], slide->flow_begun / FLOW_FACTOR), slide->flow_begun * FLOW_FACTOR);
}
