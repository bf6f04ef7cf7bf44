#include "controller/response.h"

#include <assert.h>
#include <math.h>

#include "base/clock.h"

#define MODEL_ERROR_BAR_S 60.0 /* slips, temperature, a softer edge than assumed */
#define OFFSET_BAR 18.0        /* take-up and dead zone without load, loading */
#define OFFSET_BAR_SIGMA 10.0
#define EDGE_SIGMA 3.0
#define COMPLIANCE_MIN 500.0   /* half of the fastest and softest cell */

enum { U_START, U_OFFSET, U_EDGE, U_COMPLIANCE };

void response_init(struct response *response, int32_t direction, const struct response_estimate *expected)
{
    *response = (struct response){
        .prior_compliance = expected->compliance_bar_s_per_gpa,
        .prior_compliance_sigma = expected->compliance_sigma,
        .prior_edge = expected->edge_bar_per_gpa,
        .prior_edge_sigma = EDGE_SIGMA,
        .prior_offset_bar = direction > 0 ? OFFSET_BAR : -OFFSET_BAR / 2.0,
        .prior_offset_bar_sigma = OFFSET_BAR_SIGMA,
        .estimate = *expected,
    };
}

/* Gauss and Jordan on a symmetric positive matrix; the inverse takes its place. */
static void invert(double m[RESPONSE_UNKNOWNS][RESPONSE_UNKNOWNS])
{
    for (int k = 0; k < RESPONSE_UNKNOWNS; k++) {
        double pivot = m[k][k];
        assert(pivot > 0.0);
        m[k][k] = 1.0;
        for (int j = 0; j < RESPONSE_UNKNOWNS; j++)
            m[k][j] /= pivot;
        for (int i = 0; i < RESPONSE_UNKNOWNS; i++) {
            if (i == k)
                continue;
            double factor = m[i][k];
            m[i][k] = 0.0;
            for (int j = 0; j < RESPONSE_UNKNOWNS; j++)
                m[i][j] -= factor * m[k][j];
        }
    }
}

static void solve(struct response *response, double pressure_gpa_sigma)
{
    double m[RESPONSE_UNKNOWNS][RESPONSE_UNKNOWNS], right[RESPONSE_UNKNOWNS];
    double start_sigma = 3.0 * response->prior_compliance * pressure_gpa_sigma + MODEL_ERROR_BAR_S;
    const double expected[] = {0.0, response->prior_offset_bar, response->prior_edge, response->prior_compliance};
    const double sigma[] = {start_sigma, response->prior_offset_bar_sigma, response->prior_edge_sigma,
                            response->prior_compliance_sigma};
    for (int i = 0; i < RESPONSE_UNKNOWNS; i++) {
        for (int j = 0; j < RESPONSE_UNKNOWNS; j++)
            m[i][j] = response->normal[i][j];
        m[i][i] += 1.0 / (sigma[i] * sigma[i]);
        right[i] = response->right[i] + expected[i] / (sigma[i] * sigma[i]);
    }
    invert(m);
    double edge = 0.0, compliance = 0.0;
    for (int j = 0; j < RESPONSE_UNKNOWNS; j++) {
        edge += m[U_EDGE][j] * right[j];
        compliance += m[U_COMPLIANCE][j] * right[j];
    }
    response->estimate.edge_bar_per_gpa = edge > 4.0 ? edge : 4.0;
    response->estimate.compliance_bar_s_per_gpa = compliance > COMPLIANCE_MIN ? compliance : COMPLIANCE_MIN;
    response->estimate.compliance_sigma = sqrt(m[U_COMPLIANCE][U_COMPLIANCE]);
}

void response_add(struct response *response, int64_t t_ns, double membrane_bar, double pressure_gpa,
                  double pressure_gpa_sigma)
{
    if (!response->is_begun) {
        response->is_begun = true;
        response->begin_ns = response->last_ns = t_ns;
        response->first_gpa = pressure_gpa;
        response->integral_bar_s = response->integral_gpa_s = 0.0;
    } else {
        double dt_s = s_from_ns(t_ns - response->last_ns);
        response->integral_bar_s += dt_s * 0.5 * (membrane_bar + response->last_bar);
        response->integral_gpa_s += dt_s * 0.5 * (pressure_gpa + response->last_gpa);
        response->last_ns = t_ns;
    }
    response->last_bar = membrane_bar;
    response->last_gpa = pressure_gpa;
    double noise = response->estimate.compliance_bar_s_per_gpa * pressure_gpa_sigma + MODEL_ERROR_BAR_S;
    double weight = 1.0 / (noise * noise);
    const double x[] = {1.0, s_from_ns(t_ns - response->begin_ns), response->integral_gpa_s,
                        pressure_gpa - response->first_gpa};
    for (int i = 0; i < RESPONSE_UNKNOWNS; i++) {
        for (int j = 0; j < RESPONSE_UNKNOWNS; j++)
            response->normal[i][j] += weight * x[i] * x[j];
        response->right[i] += weight * x[i] * response->integral_bar_s;
    }
    solve(response, pressure_gpa_sigma);
}

void response_pause(struct response *response)
{
    if (!response->is_begun)
        return;
    response->is_begun = false;
    response->prior_compliance = response->estimate.compliance_bar_s_per_gpa;
    response->prior_compliance_sigma = 1.5 * response->estimate.compliance_sigma;
    response->prior_edge = response->estimate.edge_bar_per_gpa;
    for (int i = 0; i < RESPONSE_UNKNOWNS; i++) {
        response->right[i] = 0.0;
        for (int j = 0; j < RESPONSE_UNKNOWNS; j++)
            response->normal[i][j] = 0.0;
    }
}
