/*
 * How the sample answers the membrane, learned while it slides: pure, fixed size.
 *
 * While the sample follows the ramp, the membrane stands beyond the edge of the dead zone by an excess that is
 * proportional to the speed:
 *
 *     u = c + G p + K dp/dt        K: compliance, bar s / GPa;  G: how far the edge moves with the sample, bar / GPa
 *
 * Integrated once and solved for the noisy reading, no derivative is needed and the noise stays on one side:
 *
 *     p = p0 + a t + k int u - g int p          k = 1 / K, g = G / K
 *
 * The four unknowns come from least squares with a prior, so that an unknown cell begins as a cautious one. All
 * pressures are mirrored for unloading (multiplied by the direction).
 */
#ifndef CONTROLLER_RESPONSE_H
#define CONTROLLER_RESPONSE_H

#include <stdbool.h>
#include <stdint.h>

enum { RESPONSE_START, RESPONSE_DRIFT, RESPONSE_MEMBRANE, RESPONSE_SAMPLE, RESPONSE_UNKNOWNS }; /* p0, a, k, g */

struct response_estimate {
    double compliance_bar_s_per_gpa;          /* K */
    double compliance_bar_s_per_gpa_cautious; /* which it would be imprudent to exceed: one sigma more */
    double edge_bar_per_gpa;                  /* G */
};

struct response {
    double prior[RESPONSE_UNKNOWNS], prior_sigma[RESPONSE_UNKNOWNS]; /* of the last unknown: by the edge below */
    double edge_bar_per_gpa, edge_bar_per_gpa_sigma;                 /* prior of G = g / k */
    bool is_begun;
    bool has_taught; /* a slide has been seen */
    int64_t begin_ns, last_ns;
    double first_gpa, last_gpa, last_bar;
    double integral_bar_s, integral_gpa_s;
    double normal[RESPONSE_UNKNOWNS][RESPONSE_UNKNOWNS]; /* without the prior */
    double right[RESPONSE_UNKNOWNS];
    double solution[RESPONSE_UNKNOWNS], sigma[RESPONSE_UNKNOWNS];
    struct response_estimate estimate;
};

/* Starts from what is expected of a cell nobody knows; how far the edge of the dead zone moves with the sample is known
 * to the caller, more or less. */
void response_init(struct response *response, double edge_bar_per_gpa, double edge_bar_per_gpa_sigma);

/* The compliance is known from earlier nights, */
void response_know(struct response *response, double compliance_bar_s_per_gpa, double compliance_bar_s_per_gpa_sigma);

/* or from the change before: it is the same up and down. */
void response_take_over(struct response *response, const struct response *before);

/* A reading while the sample slides: mirrored membrane and sample pressure, sigma of the latter. */
void response_add(struct response *response, int64_t t_ns, double membrane_bar, double pressure_gpa,
                  double pressure_gpa_sigma);

/* The sample has stopped sliding: what was learned stays, the integrals begin anew. */
void response_pause(struct response *response);

#endif
