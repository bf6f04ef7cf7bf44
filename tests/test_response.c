/*
 * Goal: the response finds the compliance K and the edge G of any cell of the linear law that it watches sliding, and
 * its sigma says how well; it is cautious before, and keeps what it has learned through pauses and changes. Method:
 * K dp/dt = u - c - G p integrated in fine steps under a ramp that slows down as the loading protocol's does, read
 * every 3 s with noise from a fixed seed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>

#include "base/clock.h"
#include "controller/response.h"
#include "sim/random.h"

#define N_DRAWS 40 /* they know an rms pull to 11 % */
#define EVERY_S 3.0
#define FINE_S 0.1
#define EDGE_BAR_PER_GPA 11.2 /* what the loading expects of a cell that nobody knows */
#define EDGE_SIGMA 2.6
#define U_MEMBRANE 2 /* k = 1 / K */
#define U_SAMPLE 3   /* g = G / K */

struct cell {
    double compliance, edge, offset_bar; /* K, G, c */
    double membrane_bar, pressure_gpa;
    double t_s;
};

static const struct {
    double compliance, edge;
} corners[] = {{2100.0, 7.0}, {2100.0, 17.0}, {6000.0, 14.0}, {10000.0, 11.5}, {33600.0, 7.0}, {33600.0, 17.0}};

#define N_CORNERS (sizeof corners / sizeof corners[0])

static struct cell cell_at_edge(size_t corner, double offset_bar, double pressure_gpa)
{
    struct cell cell = {.compliance = corners[corner].compliance,
                        .edge = corners[corner].edge,
                        .offset_bar = offset_bar,
                        .pressure_gpa = pressure_gpa,
                        .t_s = 1000.0};
    cell.membrane_bar = offset_bar + cell.edge * pressure_gpa;
    return cell;
}

/* A slide of `slide_s`: 2 bar/min for the first half, then slower and slower. The first 20 s are not read. */
static void slide(struct cell *cell, struct response *response, double slide_s, double noise_gpa, struct random *random)
{
    double due_s = cell->t_s + 20.0, begin_s = cell->t_s;
    while (cell->t_s < begin_s + slide_s) {
        double left = 2.0 * (begin_s + slide_s - cell->t_s) / slide_s;
        double excess_bar = cell->membrane_bar - cell->offset_bar - cell->edge * cell->pressure_gpa;
        cell->membrane_bar += FINE_S * (2.0 / 60.0) * fmin(left, 1.0);
        cell->pressure_gpa += FINE_S * excess_bar / cell->compliance;
        cell->t_s += FINE_S;
        if (cell->t_s < due_s)
            continue;
        due_s = cell->t_s + EVERY_S;
        double error_gpa = noise_gpa > 0.0 ? noise_gpa * random_normal(random) : 0.0;
        response_add(response, ns_from_s(cell->t_s), cell->membrane_bar, cell->pressure_gpa + error_gpa,
                     fmax(noise_gpa, 0.001));
    }
}

static double compliance_off(const struct response *response, double compliance)
{
    return fabs(response->estimate.compliance_bar_s_per_gpa / compliance - 1.0);
}

static double compliance_error(const struct response *response, const struct cell *cell)
{
    return compliance_off(response, cell->compliance);
}

/* How many stated sigmas k or g is off. */
static double pull(const struct response *response, const struct cell *cell, int unknown)
{
    double truth = (unknown == U_MEMBRANE ? 1.0 : cell->edge) / cell->compliance;
    return (response->solution[unknown] - truth) / response->sigma[unknown];
}

static void an_unknown_cell_begins_as_a_cautious_one(void **state)
{
    (void)state;
    static const double edges[][2] = {{11.2, 2.6}, {8.8, 2.6}, {7.5, 0.2}, {14.0, 5.0}};
    for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++) {
        struct response response;
        response_init(&response, edges[i][0], edges[i][1]);
        const struct response_estimate *estimate = &response.estimate;
        assert_false(response.has_taught);
        assert_true(estimate->compliance_bar_s_per_gpa > 2100.0 && estimate->compliance_bar_s_per_gpa < 33600.0);
        assert_true(estimate->compliance_bar_s_per_gpa_cautious > 2.0 * estimate->compliance_bar_s_per_gpa);
        assert_true(fabs(estimate->edge_bar_per_gpa - edges[i][0]) < 1e-9);
        struct response before = response;
        response_pause(&response); /* nothing has begun */
        assert_memory_equal(&before, &response, sizeof response);
    }
}

/* An edge that is known tells the compliance better; a slide is not believed far from what the edges have told. */
static void the_edge_that_is_known_counts(void **state)
{
    (void)state;
    struct random random = {.state = 7};
    for (size_t i = 0; i < N_CORNERS; i++) {
        double vague = 0.0, sure = 0.0, sigma_vague = 0.0, sigma_sure = 0.0;
        for (int k = 0; k < N_DRAWS; k++) {
            struct response unknown, known;
            struct cell cell = cell_at_edge(i, 18.0, 0.1), again = cell;
            struct random same = random;
            response_init(&unknown, cell.edge, 5.0);
            response_init(&known, cell.edge, 0.2);
            slide(&cell, &unknown, 900.0, 0.015, &random); /* a short one of a noisy ruby */
            slide(&again, &known, 900.0, 0.015, &same);
            vague += pow(compliance_error(&unknown, &cell), 2.0) / N_DRAWS;
            sure += pow(compliance_error(&known, &cell), 2.0) / N_DRAWS;
            sigma_vague += unknown.sigma[U_MEMBRANE] / N_DRAWS;
            sigma_sure += known.sigma[U_MEMBRANE] / N_DRAWS;
            assert_true(fabs(known.estimate.edge_bar_per_gpa - cell.edge) <= 0.3 + 1e-9);
        }
        print_message("K %.0f, G %.1f: K off by %.1f %% with an edge within 5 bar/GPa, %.1f %% within 0.2\n",
                      corners[i].compliance, corners[i].edge, 100.0 * sqrt(vague), 100.0 * sqrt(sure));
        assert_true(sigma_sure < sigma_vague);
        assert_true(sqrt(sure) < 1.1 * sqrt(vague) + 0.005);
    }
}

/* From the passport of an earlier night: believed as far as its sigma says, and never nearer than cells change. */
static void a_compliance_that_is_known_is_the_prior(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CORNERS; i++) {
        struct response unknown, vague, sure;
        double compliance = corners[i].compliance;
        response_init(&unknown, corners[i].edge, 2.6);
        vague = sure = unknown;
        response_know(&vague, compliance, 0.6 * compliance);
        response_know(&sure, compliance, 0.01 * compliance);
        assert_false(sure.has_taught);
        assert_true(compliance_off(&vague, compliance) < 1e-9 && compliance_off(&sure, compliance) < 1e-9);
        assert_true(fabs(sure.estimate.edge_bar_per_gpa / corners[i].edge - 1.0) < 1e-9);
        double unsure = sure.sigma[U_MEMBRANE] * compliance;
        assert_true(unsure > 0.2 && unsure < 0.4);
        assert_true(sure.sigma[U_MEMBRANE] < vague.sigma[U_MEMBRANE] + 1e-15);
        assert_true(vague.sigma[U_MEMBRANE] <= fmax(unknown.sigma[U_MEMBRANE], sure.sigma[U_MEMBRANE]));
        double cautious = sure.estimate.compliance_bar_s_per_gpa_cautious;
        assert_true(cautious <= vague.estimate.compliance_bar_s_per_gpa_cautious);
        assert_true(cautious > 1.2 * compliance || compliance > 30000.0);
        struct cell cell = cell_at_edge(i, 18.0, 0.1); /* where the passport is wrong, a slide tells better */
        cell.compliance = compliance > 10000.0 ? compliance / 2.0 : compliance * 2.0;
        slide(&cell, &sure, 1800.0 + 2.0 * cell.compliance / cell.edge, 0.0, NULL);
        assert_true(compliance_error(&sure, &cell) < 0.05);
    }
}

static void exact_slides_teach_the_cell(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CORNERS; i++)
        for (int32_t direction = -1; direction <= 1; direction += 2) {
            struct response response;
            struct cell cell = cell_at_edge(i, direction > 0 ? 18.0 : -9.0, direction > 0 ? 0.1 : -3.0);
            response_init(&response, EDGE_BAR_PER_GPA, EDGE_SIGMA);
            double slide_s = 1800.0 + 2.0 * cell.compliance / cell.edge; /* two creep times and some */
            slide(&cell, &response, slide_s, 0.0, NULL);
            print_message("K %.0f, G %.1f, direction %+d: K off by %.1f %%, G %.2f\n", cell.compliance, cell.edge,
                          direction, 100.0 * compliance_error(&response, &cell), response.estimate.edge_bar_per_gpa);
            assert_true(response.has_taught);
            for (int u = U_MEMBRANE; u <= U_SAMPLE; u++)
                assert_true(fabs(pull(&response, &cell, u)) < 1.0);
            double believed = fmin(fmax(cell.edge, EDGE_BAR_PER_GPA - 3.9), EDGE_BAR_PER_GPA + 3.9); /* 1.5 sigma */
            assert_true(compliance_error(&response, &cell) < 0.02);
            assert_true(fabs(response.estimate.edge_bar_per_gpa / believed - 1.0) < 0.02);
        }
}

/* The sigma holds what a slip may add beside the noise, so that a pull may well be below one. A cell that answers
 * within two minutes lets the noise of the readings into the integral, which sigma knows nothing of: there the error
 * itself must be small. */
static void the_stated_sigma_covers_the_noise(void **state)
{
    (void)state;
    static const double noises_gpa[] = {0.005, 0.015, 0.03};
    struct random random = {.state = 5};
    for (size_t i = 0; i < N_CORNERS; i++)
        for (size_t j = 0; j < sizeof noises_gpa / sizeof noises_gpa[0]; j++) {
            double squares[2] = {0.0, 0.0}, excess = 0.0;
            for (int k = 0; k < N_DRAWS; k++) {
                struct response response;
                struct cell cell = cell_at_edge(i, 18.0, 0.1);
                response_init(&response, EDGE_BAR_PER_GPA, EDGE_SIGMA);
                slide(&cell, &response, 1800.0 + 2.0 * cell.compliance / cell.edge, noises_gpa[j], &random);
                for (int u = U_MEMBRANE; u <= U_SAMPLE; u++)
                    squares[u - U_MEMBRANE] += pow(pull(&response, &cell, u), 2.0) / N_DRAWS;
                excess += (response.estimate.compliance_bar_s_per_gpa / cell.compliance - 1.0) / N_DRAWS;
                assert_true(response.estimate.compliance_bar_s_per_gpa_cautious > 0.9 * cell.compliance);
            }
            print_message("K %.0f, G %.1f, noise %.3f GPa: pulls %.2f and %.2f, K too large by %.1f %%\n",
                          corners[i].compliance, corners[i].edge, noises_gpa[j], sqrt(squares[0]), sqrt(squares[1]),
                          100.0 * excess);
            bool is_slow = corners[i].compliance / corners[i].edge > 200.0;
            assert_true(!is_slow || (squares[0] < 1.5 * 1.5 && squares[1] < 1.5 * 1.5)); /* four sigmas of 40 draws */
            assert_true(fabs(excess) < 0.1);
        }
}

/* A slide in two halves, the sample held between them while the membrane goes back to the edge: both halves count. */
static void a_pause_keeps_what_was_learned(void **state)
{
    (void)state;
    struct random random = {.state = 6};
    for (size_t i = 0; i < N_CORNERS; i++) {
        struct response response;
        struct cell cell = cell_at_edge(i, 18.0, 0.1);
        double slide_s = 1200.0 + cell.compliance / cell.edge;
        response_init(&response, EDGE_BAR_PER_GPA, EDGE_SIGMA);
        double sigma_unknown = response.sigma[U_MEMBRANE];
        slide(&cell, &response, slide_s, 0.005, &random);
        struct response before = response;
        response_pause(&response);
        assert_memory_equal(&response.estimate, &before.estimate, sizeof before.estimate);
        assert_true(response.has_taught);
        struct response once = response;
        response_pause(&response); /* a second pause forgets no more */
        assert_memory_equal(&response, &once, sizeof once);
        cell = (struct cell){.compliance = cell.compliance, /* elsewhere, two hours later */
                             .edge = cell.edge,
                             .offset_bar = cell.offset_bar,
                             .pressure_gpa = cell.pressure_gpa + 0.3,
                             .t_s = cell.t_s + 7200.0};
        cell.membrane_bar = cell.offset_bar + cell.edge * cell.pressure_gpa;
        response_add(&response, ns_from_s(cell.t_s), cell.membrane_bar, cell.pressure_gpa, 0.005);
        for (int u = U_MEMBRANE; u <= U_SAMPLE; u++) { /* one reading of a new slide says nothing about either;
                                                        * what is known of the edge counts anew */
            assert_true(fabs(response.solution[u] - before.solution[u]) < 0.3 * before.sigma[u]);
            assert_true(response.sigma[u] >= 0.999 * before.sigma[u]);
        }
        assert_true(response.sigma[U_MEMBRANE] < sigma_unknown);
        slide(&cell, &response, slide_s, 0.005, &random);
        assert_true(fabs(pull(&response, &cell, U_MEMBRANE)) < 4.0);
        assert_true(response.sigma[U_MEMBRANE] <= 1.01 * before.sigma[U_MEMBRANE]);
    }
}

/* The compliance is the same up and down; the edge is another, and what is known of it comes with the new prior. */
static void the_next_change_takes_over(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CORNERS; i++) {
        struct response earlier, response, unknown;
        struct cell cell = cell_at_edge(i, 18.0, 0.1);
        double edge_back = 0.8 * cell.edge;
        response_init(&earlier, cell.edge, EDGE_SIGMA);
        response_init(&unknown, edge_back, EDGE_SIGMA);
        slide(&cell, &earlier, 1800.0 + 2.0 * cell.compliance / cell.edge, 0.0, NULL);
        response = unknown;
        response_take_over(&response, &earlier);
        assert_true(response.has_taught && !response.is_begun);
        assert_true(compliance_error(&response, &cell) < 0.1);
        assert_true(fabs(response.estimate.edge_bar_per_gpa / edge_back - 1.0) < 1e-9);
        assert_true(response.sigma[U_MEMBRANE] >= earlier.sigma[U_MEMBRANE]); /* it may have changed meanwhile */
        double unsure = response.sigma[U_MEMBRANE] / response.solution[U_MEMBRANE];
        assert_true(unsure < unknown.sigma[U_MEMBRANE] / unknown.solution[U_MEMBRANE]);
        assert_true(response.estimate.compliance_bar_s_per_gpa_cautious > 1.2 * cell.compliance ||
                    cell.compliance > 30000.0);
        struct response copy = unknown; /* what has taught nothing hands on nothing but what is expected */
        response_take_over(&copy, &unknown);
        assert_false(copy.has_taught);
        assert_true(fabs(copy.estimate.compliance_bar_s_per_gpa / unknown.estimate.compliance_bar_s_per_gpa - 1.0) <
                    1e-9);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unknown_cell_begins_as_a_cautious_one),
        cmocka_unit_test(the_edge_that_is_known_counts),
        cmocka_unit_test(a_compliance_that_is_known_is_the_prior),
        cmocka_unit_test(exact_slides_teach_the_cell),
        cmocka_unit_test(the_stated_sigma_covers_the_noise),
        cmocka_unit_test(a_pause_keeps_what_was_learned),
        cmocka_unit_test(the_next_change_takes_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
