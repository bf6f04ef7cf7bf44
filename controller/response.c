#include "controller/response.h"

#include <assert.h>
#include <math.h>

#include "base/clock.h"

#define MODEL_ERROR_GPA 0.005  /* slips, temperature, a softer edge than assumed */
#define COMPLIANCE_MIN 1500.0  /* 5 min of creep at 1/7 GPa per bar, and some */
#define COMPLIANCE_MAX 36000.0 /* 40 min at 1/14 GPa per bar, and some */
#define EDGE_SIGMAS 1.5        /* further from what the edges themselves have told, a slide is not believed */
#define CHANGE_SHARE 0.3       /* by which a cell may differ from one change to the next */
#define FORGET 1.5             /* what an earlier slide taught counts with this much more sigma */

static double clamp(double value, double low, double high) { return value < low ? low : value > high ? high : value; }

static void take_estimate(struct response *response)
{
    double k = clamp(response->solution[RESPONSE_MEMBRANE], 1.0 / COMPLIANCE_MAX, 1.0 / COMPLIANCE_MIN);
    double edge = response->edge_bar_per_gpa, sigma = EDGE_SIGMAS * response->edge_bar_per_gpa_sigma;
    double k_cautious = response->solution[RESPONSE_MEMBRANE] - response->sigma[RESPONSE_MEMBRANE];
    response->estimate = (struct response_estimate){
        .compliance_bar_s_per_gpa = 1.0 / k,
        .compliance_bar_s_per_gpa_cautious = 1.0 / clamp(k_cautious, 1.0 / COMPLIANCE_MAX, k),
        .edge_bar_per_gpa = clamp(response->solution[RESPONSE_SAMPLE] / k, edge - sigma, edge + sigma),
    };
}

static void begin(struct response *response)
{
    double k = response->prior[RESPONSE_MEMBRANE];
    response->prior[RESPONSE_SAMPLE] = response->edge_bar_per_gpa * k;
    response->prior_sigma[RESPONSE_SAMPLE] =
        response->edge_bar_per_gpa_sigma * k + response->edge_bar_per_gpa * response->prior_sigma[RESPONSE_MEMBRANE];
    for (int i = 0; i < RESPONSE_UNKNOWNS; i++) {
        response->solution[i] = response->prior[i];
        response->sigma[i] = response->prior_sigma[i];
    }
    take_estimate(response);
}

void response_init(struct response *response, double edge_bar_per_gpa, double edge_bar_per_gpa_sigma)
{
    /* K = 10000 bar s/GPa; the edge of the dead zone within 100 bar. */
    const double k = 1e-4, k_sigma = 7e-5, drift_sigma = 100.0 * k;
    assert(edge_bar_per_gpa > 0.0 && edge_bar_per_gpa_sigma > 0.0);
    *response = (struct response){
        .prior = {0.0, 0.0, k, 0.0},
        .prior_sigma = {0.1, drift_sigma, k_sigma, 0.0},
        .edge_bar_per_gpa = edge_bar_per_gpa,
        .edge_bar_per_gpa_sigma = edge_bar_per_gpa_sigma,
    };
    begin(response);
}

/* No vaguer than of a cell that nobody knows, and no surer than cells change: a fast one has the larger share. */
static void expect(struct response *response, double k, double k_sigma)
{
    response->prior[RESPONSE_MEMBRANE] = k;
    response->prior_sigma[RESPONSE_MEMBRANE] =
        fmax(fmin(k_sigma, response->prior_sigma[RESPONSE_MEMBRANE]), CHANGE_SHARE * k);
    begin(response);
}

void response_know(struct response *response, double compliance_bar_s_per_gpa, double compliance_bar_s_per_gpa_sigma)
{
    double k = 1.0 / compliance_bar_s_per_gpa;
    expect(response, k, k * k * compliance_bar_s_per_gpa_sigma);
}

void response_take_over(struct response *response, const struct response *before)
{
    response->has_taught = before->has_taught;
    expect(response, fmax(before->solution[RESPONSE_MEMBRANE], 1.0 / COMPLIANCE_MAX),
           FORGET * before->sigma[RESPONSE_MEMBRANE]);
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

static void solve(struct response *response)
{
    double m[RESPONSE_UNKNOWNS][RESPONSE_UNKNOWNS], right[RESPONSE_UNKNOWNS];
    for (int i = 0; i < RESPONSE_UNKNOWNS; i++) {
        double prior_weight = 1.0 / (response->prior_sigma[i] * response->prior_sigma[i]);
        for (int j = 0; j < RESPONSE_UNKNOWNS; j++)
            m[i][j] = response->normal[i][j];
        m[i][i] += prior_weight;
        right[i] = response->right[i] + prior_weight * response->prior[i];
    }
    /* g - G k = 0, within sigma(G) k */
    double edge = response->edge_bar_per_gpa;
    double sigma = response->edge_bar_per_gpa_sigma * response->prior[RESPONSE_MEMBRANE];
    double weight = 1.0 / (sigma * sigma);
    m[RESPONSE_MEMBRANE][RESPONSE_MEMBRANE] += edge * edge * weight;
    m[RESPONSE_MEMBRANE][RESPONSE_SAMPLE] -= edge * weight;
    m[RESPONSE_SAMPLE][RESPONSE_MEMBRANE] -= edge * weight;
    m[RESPONSE_SAMPLE][RESPONSE_SAMPLE] += weight;
    invert(m);
    for (int i = 0; i < RESPONSE_UNKNOWNS; i++) {
        response->solution[i] = 0.0;
        for (int j = 0; j < RESPONSE_UNKNOWNS; j++)
            response->solution[i] += m[i][j] * right[j];
        response->sigma[i] = sqrt(m[i][i]);
    }
    take_estimate(response);
}

void response_add(struct response *response, int64_t t_ns, double membrane_bar, double pressure_gpa,
                  double pressure_gpa_sigma)
{
    if (!response->is_begun) {
        response->is_begun = response->has_taught = true;
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
    double weight = 1.0 / (pressure_gpa_sigma * pressure_gpa_sigma + MODEL_ERROR_GPA * MODEL_ERROR_GPA);
    const double x[] = {1.0, s_from_ns(t_ns - response->begin_ns), response->integral_bar_s, -response->integral_gpa_s};
    for (int i = 0; i < RESPONSE_UNKNOWNS; i++) {
        for (int j = 0; j < RESPONSE_UNKNOWNS; j++)
            response->normal[i][j] += weight * x[i] * x[j];
        response->right[i] += weight * x[i] * (pressure_gpa - response->first_gpa);
    }
    solve(response);
}

void response_pause(struct response *response)
{
    if (!response->is_begun)
        return;
    response->is_begun = false;
    for (int i = 0; i < RESPONSE_UNKNOWNS; i++) {
        if (i != RESPONSE_START) {
            double sigma = FORGET * response->sigma[i];
            bool is_nonsense = i == RESPONSE_MEMBRANE && !(response->solution[i] > 1.0 / COMPLIANCE_MAX);
            response->prior[i] = is_nonsense ? 1.0 / COMPLIANCE_MAX : response->solution[i];
            response->prior_sigma[i] = sigma < response->prior_sigma[i] ? sigma : response->prior_sigma[i];
        }
        response->right[i] = 0.0;
        for (int j = 0; j < RESPONSE_UNKNOWNS; j++)
            response->normal[i][j] = 0.0;
    }
}
