/*
 * How the sample answers the membrane, learned while it slides: pure, fixed size.
 *
 * While the sample follows the ramp, the membrane stands beyond the edge of the dead zone by an excess that is
 * proportional to the speed:
 *
 *     u = c + G p + K dp/dt        K: compliance, bar s / GPa;  G: how far the edge moves with the sample, bar / GPa
 *
 * Integrated once, no derivative of a noisy reading is needed:  int u = d + c t + G int p + K p.  The four unknowns come
 * from least squares with a prior, so that an unknown cell begins as a cautious one. All pressures are mirrored for
 * unloading (multiplied by the direction).
 */
#ifndef CONTROLLER_RESPONSE_H
#define CONTROLLER_RESPONSE_H

#include <stdbool.h>
#include <stdint.h>

#define RESPONSE_UNKNOWNS 4

struct response_estimate {
    double compliance_bar_s_per_gpa; /* K */
    double compliance_sigma;
    double edge_bar_per_gpa;         /* G */
};

struct response {
    double prior_compliance, prior_compliance_sigma;
    double prior_edge, prior_edge_sigma;
    double prior_offset_bar, prior_offset_bar_sigma;
    bool is_begun;
    int64_t begin_ns, last_ns;
    double first_gpa, last_gpa, last_bar;
    double integral_bar_s, integral_gpa_s;
    double normal[RESPONSE_UNKNOWNS][RESPONSE_UNKNOWNS]; /* without the prior */
    double right[RESPONSE_UNKNOWNS];
    struct response_estimate estimate;
};

/* Starts from what is expected of a cell nobody knows, or from what this one has taught. */
void response_init(struct response *response, int32_t direction, const struct response_estimate *expected);

/* A reading while the sample slides: mirrored membrane and sample pressure, sigma of the latter. */
void response_add(struct response *response, int64_t t_ns, double membrane_bar, double pressure_gpa,
                  double pressure_gpa_sigma);

/* The sample has stopped sliding: what was learned stays, the integrals begin anew. */
void response_pause(struct response *response);

#endif
