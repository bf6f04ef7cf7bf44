/*
 * Goal: whole nights, compression and decompression, on cells the controller has never seen, end with every isobar
 * held, every scan taken, no overshoot and no drift; any one instrument may go away and come back; every fault of
 * tests/nights/fault.h at every moment comes out as its table says; no invariant of tests/nights/oracle.h is broken,
 * and each can be. On far wilder cells of both laws: the gasket is told that flows, and the death expected is the
 * cell's. Method: tests/nights, with the cells of the rehearsal. Seeds are drawn at run time and printed; SEED=N
 * repeats one; the wild cells are the same every time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "tests/nights/cell.h"
#include "tests/nights/night.h"

#define N_SEEDS 10
#define N_PASSES 1 /* of all faults at all moments */

static const struct night_readings readings = {
    .pressure_gpa_sigma = 0.005, .temperature_gpa_per_k = 0.02, .membrane_bar_sigma = 0.005};

static uint64_t draw_seed(int k)
{
    const char *given = getenv("SEED");
    uint64_t first = given && *given ? strtoull(given, NULL, 10) : 200; /* make soak-nights draws others */
    return first + (uint64_t)k;
}

static void begin(struct night *night, uint64_t seed)
{
    static struct core_settings settings;
    static struct plant plant;
    night_default_settings(&settings);
    night_add_change(&settings, 1.5, 0.1, 3600.0, 1);
    night_add_change(&settings, 3.3, 1.5, 3600.0, 1);
    night_add_change(&settings, 1.5, 3.3, 3600.0, 1);
    plant_init(&plant, seed, 0.1);
    night_begin(night, &settings, &plant, &readings, seed);
}

static void print_violations(const struct night *night)
{
    for (int i = 0; i < INVARIANT_COUNT; i++) {
        const struct oracle_finding *finding = &night->oracle.findings[i];
        if (night->oracle.n_violations[i])
            print_message("%s broken %lld times, first at %.0f s with %g against %g, at worst %g: %s\n",
                          oracle_invariant_name((enum invariant)i), (long long)night->oracle.n_violations[i],
                          s_from_ns(finding->t_ns), finding->seen, finding->allowed, finding->seen_worst,
                          oracle_invariant_text((enum invariant)i));
    }
}

static void play(struct night *night)
{
    while (night_step(night))
        continue;
    assert_true(night->is_finished);
    assert_int_equal(night->n_isobars, 3);
    assert_int_equal(night->n_scans_complete, 3);
    print_violations(night);
    assert_int_equal(oracle_violations(&night->oracle), 0);
}

static double worst_overshoot_gpa(const struct night *night)
{
    double overshoot_gpa = -INFINITY;
    for (int i = 0; i < night->n_changes; i++)
        if (night->changes[i].direction > 0)
            overshoot_gpa = fmax(overshoot_gpa, night->changes[i].overshoot_gpa);
    return overshoot_gpa;
}

static double worst_departure_gpa(const struct night *night)
{
    double departure_gpa = 0.0;
    for (int i = 0; i < night->n_changes; i++)
        departure_gpa = fmax(departure_gpa, night->changes[i].departure_gpa);
    return departure_gpa;
}

static void quiet_nights_hold_every_isobar(void **state)
{
    (void)state;
    static struct night night;
    int64_t before_ns = clock_wall_ns();
    double simulated_s = 0.0;
    for (int k = 0; k < N_SEEDS; k++) {
        uint64_t seed = draw_seed(k);
        begin(&night, seed);
        play(&night);
        print_message("seed %llu: overshoot %+.3f GPa, departure %.3f GPa, %.1f h\n", (unsigned long long)seed,
                      worst_overshoot_gpa(&night), worst_departure_gpa(&night), s_from_ns(night.now_ns) / 3600.0);
        simulated_s += s_from_ns(night.now_ns);
        assert_true(worst_overshoot_gpa(&night) <= 0.05);
        assert_true(worst_departure_gpa(&night) <= 0.12);
    }
    print_message("%.0f times real time\n", simulated_s / s_from_ns(clock_wall_ns() - before_ns));
}

/* V11 is asserted where it holds: on the cells of the rehearsal, whose creep is linear. */
static void the_whole_ladder_breaks_no_invariant(void **state)
{
    (void)state;
    static const double ladder_gpa[] = {0.1, 3.3, 6.3, 7.0, 4.9, 1.5};
    static struct night night;
    static struct core_settings settings;
    struct plant plant;
    for (int k = 0; k < N_SEEDS; k++) {
        uint64_t seed = draw_seed(k);
        double bound_gpa_max = 0.0;
        night_default_settings(&settings);
        for (int i = 1; i < 6; i++)
            night_add_change(&settings, ladder_gpa[i], ladder_gpa[i - 1], 3600.0, 0);
        plant_init(&plant, seed, ladder_gpa[0]);
        night_begin(&night, &settings, &plant, &readings, seed);
        while (night_step(&night))
            if (night.pass % 600 == 0)
                bound_gpa_max = fmax(bound_gpa_max, oracle_pressure_gpa_if_died(&night.plant, &night.input));
        print_message("seed %llu: at most %.2f GPa if the daemon had died\n", (unsigned long long)seed, bound_gpa_max);
        print_violations(&night);
        assert_true(night.is_finished || night.is_refused);
        assert_int_equal(oracle_violations(&night.oracle), 0);
        assert_true(bound_gpa_max > 7.0); /* it was looked at where it matters */
    }
}

static void the_quick_creep_is_the_plants(void **state)
{
    (void)state;
    static struct night night;
    double difference_gpa_max = 0.0;
    begin(&night, draw_seed(0));
    for (int i = 0; i < 20; i++) {
        for (int s = 0; s < 300; s++)
            night_step(&night);
        double quick_gpa = oracle_pressure_gpa_if_died(&night.plant, &night.input);
        difference_gpa_max = fmax(difference_gpa_max, fabs(quick_gpa - night_pressure_gpa_if_died(&night)));
    }
    print_message("the quick creep is off by at most %.4f GPa\n", difference_gpa_max);
    assert_true(difference_gpa_max < 0.01); /* the plant's temperature goes on: 0.5 K of day and noise */
}

static void the_same_seed_gives_the_same_decisions(void **state)
{
    (void)state;
    static struct night a, b;
    begin(&a, 7);
    begin(&b, 7);
    play(&a);
    play(&b);
    oracle_compare(&a.oracle, &b.oracle);
    assert_int_equal(a.oracle.n_violations[INVARIANT_V10], 0);
    assert_true(a.seq == b.seq);
}

static void any_instrument_may_go_away_and_come_back(void **state)
{
    (void)state;
    static struct night night;
    static const struct {
        enum fault fault;
        enum moment moment;
        double from_s, lasts_s;
        uint32_t reasons;
    } cases[] = {
        {FAULT_MEMBRANE_OFF, MOMENT_RAMP_UP, 900.0, 120.0, HOLD_MEMBRANE_LINK},
        {FAULT_MEMBRANE_OFF, MOMENT_ISOBAR, 900.0, 600.0, HOLD_MEMBRANE_LINK},
        {FAULT_RUBY_OFF, MOMENT_RAMP_UP, 1000.0, 3600.0, HOLD_RUBY_LINK},
        {FAULT_RUBY_OFF, MOMENT_ISOBAR, 900.0, 600.0, HOLD_RUBY_LINK},
        {FAULT_DETECTOR_OFF, MOMENT_ISOBAR, 300.0, 600.0, HOLD_DETECTOR_LINK},
        {FAULT_BEAM_OFF, MOMENT_ISOBAR, 300.0, 600.0, HOLD_BEAM},
        {FAULT_DISK_OFF, MOMENT_RAMP_UP, 900.0, 600.0, HOLD_JOURNAL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t seed = draw_seed((int)i);
        begin(&night, seed);
        night_add_fault(&night, cases[i].fault, cases[i].moment, cases[i].from_s, cases[i].lasts_s);
        play(&night);
        print_message("seed %llu, %s at %s: at most %+.3f GPa beyond the target meanwhile\n", (unsigned long long)seed,
                      fault_kind(cases[i].fault)->name, moment_kind(cases[i].moment)->name, night.fault_gpa_max);
        assert_true(night.faults[0].is_over);
        assert_true((night.faults[0].reasons & cases[i].reasons) != 0);
        assert_true(night.fault_gpa_max <= 0.05);
        assert_true(worst_departure_gpa(&night) <= 0.12);
    }
}

static void run_for(struct night *night, double s)
{
    int64_t end_ns = night->now_ns + ns_from_s(s);
    while (night->now_ns < end_ns && night_step(night))
        continue;
}

static void an_operator_can_hold_resume_and_stop(void **state)
{
    (void)state;
    static struct night night;
    begin(&night, 7);
    run_for(&night, 1200.0);
    night_command(&night, COMMAND_HOLD);
    run_for(&night, 1200.0); /* the retreat is over by then */
    double held_bar = night.setpoint_bar;
    run_for(&night, 1800.0);
    assert_true(night.setpoint_bar == held_bar);
    assert_true(night.reasons_seen & HOLD_OPERATOR);
    night_command(&night, COMMAND_RESUME);
    run_for(&night, 600.0);
    assert_true(night.setpoint_bar > held_bar);
    night_command(&night, COMMAND_STOP);
    run_for(&night, 1200.0);
    assert_true(night.is_finished);
    assert_int_equal(oracle_violations(&night.oracle), 0);
}

/* ---- every fault at every moment ----------------------------------------------------------------------------- */

#define PERSON_AFTER_S 600.0
#define SHORT_NIGHT_S 86400.0

static void begin_short(struct night *night, uint64_t seed)
{
    static struct core_settings settings;
    static struct plant plant;
    night_default_settings(&settings);
    night_add_change(&settings, 1.5, 0.1, 1200.0, 2);
    night_add_change(&settings, 0.9, 1.5, 1200.0, 1);
    night_add_deflate(&settings);
    for (int i = 0; i < settings.n_steps; i++)
        settings.steps[i].n_frames = settings.steps[i].n_scans > 0 ? 600 : 0;
    plant_init(&plant, seed, 0.1);
    night_begin(night, &settings, &plant, &readings, seed);
    night->has_operator = true;
}

/* A person comes when something has asked for one for ten minutes, as often as it does; true if it ever did. */
static bool play_with_a_person(struct night *night)
{
    const uint32_t asking = HOLD_MEMBRANE_STALL | HOLD_MEMBRANE_LIMIT | HOLD_SCAN;
    int64_t asked_ns = 0;
    bool has_asked = false;
    while (s_from_ns(night->now_ns) < SHORT_NIGHT_S && night_step(night)) {
        bool is_asking = (night->core.reasons_shown & asking) != 0;
        has_asked = has_asked || is_asking;
        asked_ns = !is_asking ? 0 : asked_ns ? asked_ns : night->now_ns;
        if (asked_ns && s_from_ns(night->now_ns - asked_ns) > PERSON_AFTER_S) {
            night_command(night, COMMAND_RESUME);
            asked_ns = 0;
        }
    }
    return has_asked;
}

static bool has_broken_more(const struct night *night, const struct fault_kind *kind)
{
    bool has_broken = false;
    for (int i = 0; i < INVARIANT_COUNT; i++)
        has_broken = has_broken || (night->oracle.n_violations[i] && !(kind->excuses & (1u << i)));
    return has_broken;
}

static bool has_begun(const struct night_fault *fault) { return fault->is_now || fault->is_over; }

/* What came of it, against the table; NULL: as the table says. */
static const char *complaint(const struct night *night, bool has_asked)
{
    const struct night_fault *fault = &night->faults[0];
    const struct fault_kind *kind = fault_kind(fault->fault);
    bool is_complete = night->is_finished && night->n_isobars == 2 && night->n_scans_complete == 3;
    bool is_shown = !has_begun(fault) || (fault->reasons & kind->reasons) != 0;
    if (has_broken_more(night, kind))
        return "an invariant is broken";
    if (fault->reasons & ~(kind->reasons | HOLD_DEFLATE))
        return "another reason is shown";
    if ((kind->where & (uint32_t)moment_kind(fault->moment)->place) && !is_shown)
        return "no reason is shown";
    if (kind->outcome != FAULT_ENDS && !is_complete)
        return "the night does not come to its end";
    if (kind->outcome == FAULT_GOES_ON && has_asked)
        return "a person is asked";
    return NULL;
}

static void every_fault_at_every_moment(void **state)
{
    (void)state;
    static struct night night;
    uint32_t shown[FAULT_COUNT] = {0};
    int n_nights = 0, n_complaints = 0, n_begun = 0;
    for (int k = 0; k < N_PASSES * FAULT_COUNT * MOMENT_COUNT; k++, n_nights++) {
        enum fault fault = (enum fault)(k / MOMENT_COUNT % FAULT_COUNT);
        enum moment moment = (enum moment)(k % MOMENT_COUNT);
        uint64_t seed = draw_seed(k);
        struct random random = {.state = seed};
        begin_short(&night, seed);
        double from_s = moment_kind(moment)->lasts_s_min * random_uniform(&random);
        night_add_fault(&night, fault, moment, from_s, fault_kind(fault)->lasts_s);
        const char *text = complaint(&night, play_with_a_person(&night));
        n_begun += fault == FAULT_NONE || has_begun(&night.faults[0]);
        shown[fault] |= night.faults[0].reasons & fault_kind(fault)->reasons;
        if (!text)
            continue;
        n_complaints++;
        print_message("seed %llu, %s at %s after %.0f s: %s (reasons %#x, %d isobars, %d scans)\n",
                      (unsigned long long)seed, fault_kind(fault)->name, moment_kind(moment)->name, from_s, text,
                      night.faults[0].reasons, night.n_isobars, night.n_scans_complete);
        print_violations(&night);
    }
    print_message("%d nights from seed %llu\n", n_nights, (unsigned long long)draw_seed(0));
    assert_int_equal(n_complaints, 0);
    assert_true(n_begun >= n_nights * 9 / 10); /* a moment may be shorter than expected */
    for (int fault = 0; fault < FAULT_COUNT; fault++)
        assert_true(shown[fault] || !fault_kind((enum fault)fault)->reasons ||
                    fault_kind((enum fault)fault)->outcome != FAULT_GOES_ON);
}

/* ---- wild cells of both laws --------------------------------------------------------------------------------- */

#define WILD_SEED 9000 /* the same cells every time: shares of few dozen cells are asserted */
#define N_WILD_FLOW 40 /* of each law */
#define N_WILD_DEATH 12

/* Two loads and two unloadings on a cell far wilder than the rehearsal's, under a limit of the cell. */
static double begin_wild(struct night *night, enum plant_form form, uint64_t seed, double pressure_gpa_max)
{
    static const double ladder_gpa[] = {0.1, 2.0, 4.0, 2.5, 1.0};
    static struct core_settings settings;
    struct random random = {.state = seed};
    struct cell cell;
    struct plant plant;
    cell_draw(&cell, form, &random);
    night_default_settings(&settings);
    settings.loading.membrane_bar_max = cell.membrane_bar_max;
    settings.loading.pressure_gpa_max = settings.interlock.pressure_gpa_max = pressure_gpa_max;
    for (int i = 1; i < 5; i++)
        night_add_change(&settings, ladder_gpa[i], ladder_gpa[i - 1], 1800.0, 0);
    plant_init_law(&plant, &cell.law, seed, ladder_gpa[0]);
    night_begin(night, &settings, &plant, &cell.readings, seed);
    return ladder_gpa[4];
}

/* How far the half width that was learned is off, and that which is assumed of a cell that nobody knows; squares. */
struct width_error {
    double learned, assumed, pulls;
};

static void add_width_error(struct width_error *error, const struct night *night, double assumed_bar)
{
    const struct loading *loading = &night->core.loading;
    const struct plant_law *law = &night->plant.law;
    double pressure_gpa = loading->pressure_gpa_target;
    double truth_bar = law->dead_zone_bar + law->dead_zone_per_bar * night->plant.load_bar;
    double off_bar = line_at(&loading->width, pressure_gpa) - truth_bar;
    error->learned += off_bar * off_bar;
    error->assumed += (assumed_bar - truth_bar) * (assumed_bar - truth_bar);
    error->pulls += pow(off_bar / line_sigma_at(&loading->width, pressure_gpa), 2.0);
}

/* A gasket that flows stores an excess in proportion to its speed, an activated one nearly the same at any: after the
 * second load they are told apart. One that flows but is taken for activated is loaded with more care than it needs;
 * the other mistake would leave V11 too little, and must be rare. After all changes the dead zone is known better than
 * it was assumed. */
static void a_gasket_that_flows_is_told_from_an_activated_one(void **state)
{
    (void)state;
    static struct night night;
    for (int form = 0; form < PLANT_FORM_COUNT; form++) {
        struct width_error width = {0};
        int n_right = 0, n_told = 0, n_ended = 0;
        for (int k = 0; k < N_WILD_FLOW; k++) {
            double end_gpa = begin_wild(&night, (enum plant_form)form, WILD_SEED + (uint64_t)k, 8.0);
            bool is_told = false;
            struct line unknown = {0};
            while (night_step(&night)) {
                if (unknown.variance[0] == 0.0 && night.core.phase == CORE_LOADING)
                    unknown = night.core.loading.width;
                if (is_told || night.n_changes < 2 || !night.changes[1].is_started)
                    continue;
                is_told = true;
                n_told++;
                n_right += night.core.loading.is_viscous == (form == PLANT_LINEAR);
            }
            if (!night.is_finished)
                continue; /* its membrane's limit stands before 4 GPa */
            n_ended++;
            add_width_error(&width, &night, line_at(&unknown, end_gpa));
        }
        print_message("law %d: %d of %d told rightly after the second load; half width off by %.2f bar (assumed: %.2f, "
                      "in sigmas: %.2f) after four changes of %d\n",
                      form, n_right, n_told, sqrt(width.learned / n_ended), sqrt(width.assumed / n_ended),
                      sqrt(width.pulls / n_ended), n_ended);
        assert_true(n_told >= N_WILD_FLOW * 8 / 10 && n_ended >= N_WILD_FLOW * 8 / 10);
        assert_true(n_right >= (form == PLANT_LINEAR ? n_told * 8 / 10 : n_told * 19 / 20));
        assert_true(width.learned < width.assumed);
    }
}

/* V11 from the inside: what the loading expects of a death, against the exact day of creep, wherever it says that the
 * limit of the cell is near. In 19 of 20 instants the cell would not go beyond it by more than the margin that the
 * protocol keeps (0.12 GPa); the prediction has no more than the last readings, so that it can be too low by more where
 * a slide has just begun or a compliance is still half known. */
static void the_death_that_is_expected_is_the_cells(void **state)
{
    (void)state;
    static struct night night;
    const double limit_gpa = 4.6, margin_gpa = 0.12;
    for (int form = 0; form < PLANT_FORM_COUNT; form++) {
        double worst_gpa = -INFINITY, mean_gpa = 0.0;
        int n = 0, n_beyond = 0;
        for (int k = 0; k < N_WILD_DEATH; k++) {
            begin_wild(&night, (enum plant_form)form, WILD_SEED + (uint64_t)k, limit_gpa);
            while (night_step(&night)) {
                const struct loading *loading = &night.core.loading;
                bool is_asked = night.pass % 240 == 0 && night.core.phase == CORE_LOADING && loading->direction > 0 &&
                                loading->state == LOADING_RAMP;
                double expected_gpa = is_asked ? loading_pressure_gpa_if_died(loading) : NAN;
                if (!(expected_gpa > limit_gpa - 0.5))
                    continue;
                double beyond_gpa = oracle_pressure_gpa_if_died(&night.plant, &night.input) - expected_gpa;
                worst_gpa = fmax(worst_gpa, beyond_gpa);
                mean_gpa += beyond_gpa;
                n_beyond += beyond_gpa > margin_gpa;
                n++;
            }
        }
        print_message("law %d: %d of %d times more than %.2f GPa beyond what was expected; %+.2f GPa on average, at "
                      "worst %+.2f\n",
                      form, n_beyond, n, margin_gpa, mean_gpa / n, worst_gpa);
        assert_true(n > 10 * N_WILD_DEATH);
        assert_true(n_beyond <= n / 20);
        assert_true(mean_gpa < 0.0); /* cautious, on the whole */
    }
}

/* ---- each invariant can fail --------------------------------------------------------------------------------- */

/* A quiet night into a ramp, a scan or an unloading ramp; then the oracle hears or sees what must never be. */
static void advance_to(struct night *night, enum moment moment, double in_s)
{
    const struct moment_kind *kind = moment_kind(moment);
    begin_short(night, 7);
    while (!(night->core.phase == kind->phase && (!kind->is_scanning || night->scan_end_ns) &&
             (!kind->direction || night->core.loading.direction == kind->direction)))
        assert_true(night_step(night));
    run_for(night, in_s);
    assert_int_equal(oracle_violations(&night->oracle), 0);
}

static void hear(struct night *night, enum action_kind kind, int64_t a, int64_t b, double value)
{
    struct action action;
    memset(&action, 0, sizeof action);
    action.kind = (int32_t)kind;
    action.integer[0] = a;
    action.integer[1] = b;
    action.value[0] = value;
    oracle_see_action(&night->oracle, &action, &night->plant);
}

static void tell(struct night *night, enum event_kind kind, double later_s)
{
    struct event event;
    memset(&event, 0, sizeof event);
    event.kind = (int32_t)kind;
    event.now_ns = event.t_ns = night->now_ns + ns_from_s(later_s);
    event.integer[0] = night->oracle.scan;
    event.integer[1] = night->oracle.attempt;
    oracle_see_event(&night->oracle, &event);
}

static void say(struct night *night, double more_bar)
{
    hear(night, ACTION_SETPOINT, 0, 0, night->oracle.setpoint_bar + more_bar);
}

static void above_the_limit(struct night *night) { hear(night, ACTION_SETPOINT, 0, 0, 130.1); }
static void no_number(struct night *night) { hear(night, ACTION_SETPOINT, 0, 0, NAN); }
static void far_ahead(struct night *night) { say(night, 0.6); }
static void too_fast(struct night *night) { say(night, 0.4); }
static void faster_than_the_device(struct night *night) { hear(night, ACTION_SLEW, 0, 0, 8.1); }
static void again_with_another_number(struct night *night)
{
    hear(night, ACTION_SCAN_START, night->oracle.scan, night->oracle.attempt, 600.0);
}
static void another_scan_meanwhile(struct night *night)
{
    hear(night, ACTION_SCAN_START, night->oracle.scan + 1, 1, 600.0);
}
static void analyse_nothing(struct night *night)
{
    hear(night, ACTION_ANALYSE, night->oracle.scan, night->oracle.attempt, 0.0);
    oracle_see_answer(&night->oracle);
}
static void forget_the_analysis(struct night *night)
{
    tell(night, EVENT_SCAN_COMPLETE, 0.0);
    oracle_see_answer(&night->oracle);
}
static void move_in_an_isobar(struct night *night) { say(night, 0.001); }
static void in_an_isobar_journal_skips(struct night *night)
{
    hear(night, ACTION_JOURNAL, night->oracle.posted + 2, INTENT_STEP, 1.0);
}
static void up_while_held(struct night *night)
{
    hear(night, ACTION_HOLD, HOLD_OPERATOR, 0, 0.0);
    say(night, 0.001);
}
static void up_without_a_ruby(struct night *night)
{
    tell(night, EVENT_TICK, 100.0);
    say(night, 0.02);
}
static void down_in_a_watch(struct night *night)
{
    night->oracle.state = LOADING_WATCH;
    say(night, -0.02);
}
static void before_a_reading(struct night *night)
{
    tell(night, EVENT_MEMBRANE_LOST, 0.0);
    tell(night, EVENT_MEMBRANE_FOUND, 0.0);
    say(night, 0.0);
}
static void a_hold_not_shown(struct night *night)
{
    tell(night, EVENT_SPECTROMETER_LOST, 0.0);
    oracle_see_answer(&night->oracle);
}
static void a_hold_without_a_reason(struct night *night)
{
    hear(night, ACTION_HOLD, HOLD_BEAM, 0, 0.0);
    oracle_see_answer(&night->oracle);
}
static void beyond_the_journal(struct night *night)
{
    night->oracle.durable = 0;
    say(night, 0.0);
}
static void a_step_that_is_not_durable(struct night *night)
{
    hear(night, ACTION_PHASE, night->oracle.step_index + 1, CORE_ISOBAR, 0.0);
}
static void see(struct night *night) { oracle_see_truth(&night->oracle, &night->plant, &night->input); }
static void driven_beyond(struct night *night)
{
    night->plant.load_bar = 1.5 / night->plant.law.gpa_per_bar;
    see(night);
    night->plant.load_bar += 0.11 / night->plant.law.gpa_per_bar;
    see(night);
}
static void fallen_back(struct night *night)
{
    night->plant.load_bar -= 0.11 / night->plant.law.gpa_per_bar;
    see(night);
}
static void would_creep_on(struct night *night)
{
    night->plant.membrane_bar = night->input.membrane_bar_setpoint = 160.0;
    see(night);
}
static void too_much_pressure(struct night *night)
{
    night->plant.slip_gpa = 8.0;
    see(night);
}
static void another_night(struct night *night)
{
    static struct night other;
    advance_to(&other, MOMENT_RAMP_UP, 601.0);
    oracle_compare(&night->oracle, &other.oracle);
}

static void each_invariant_can_fail(void **state)
{
    (void)state;
    static const struct {
        enum invariant invariant;
        enum moment moment;
        uint32_t also; /* what the same deed breaks of necessity */
        void (*deed)(struct night *);
    } cases[] = {
#define AND(invariant) (1u << INVARIANT_##invariant)
        {INVARIANT_V1, MOMENT_RAMP_UP, AND(LEASH) | AND(V2) | AND(V9), above_the_limit},
        {INVARIANT_V1, MOMENT_RAMP_UP, AND(V2) | AND(V9), no_number},
        {INVARIANT_LEASH, MOMENT_RAMP_UP, AND(V2), far_ahead},
        {INVARIANT_V2, MOMENT_RAMP_UP, 0, too_fast},
        {INVARIANT_V2, MOMENT_RAMP_UP, 0, faster_than_the_device},
        {INVARIANT_V2, MOMENT_RAMP_UP, 0, up_without_a_ruby},
        {INVARIANT_V3, MOMENT_RAMP_UP, 0, driven_beyond},
        {INVARIANT_V4, MOMENT_RAMP_UP, 0, down_in_a_watch},
        {INVARIANT_V4, MOMENT_RAMP_UP, 0, fallen_back},
        {INVARIANT_V5, MOMENT_RAMP_UP, 0, up_while_held},
        {INVARIANT_V5, MOMENT_ISOBAR, 0, move_in_an_isobar},
        {INVARIANT_V6, MOMENT_SCAN, 0, again_with_another_number},
        {INVARIANT_V6, MOMENT_SCAN, AND(V9), another_scan_meanwhile},
        {INVARIANT_V6, MOMENT_SCAN, 0, analyse_nothing},
        {INVARIANT_V6, MOMENT_SCAN, 0, forget_the_analysis},
        {INVARIANT_V7, MOMENT_RAMP_UP, 0, before_a_reading},
        {INVARIANT_V8, MOMENT_RAMP_UP, 0, a_hold_not_shown},
        {INVARIANT_V8, MOMENT_RAMP_UP, 0, a_hold_without_a_reason},
        {INVARIANT_V9, MOMENT_RAMP_UP, 0, beyond_the_journal},
        {INVARIANT_V9, MOMENT_RAMP_UP, 0, a_step_that_is_not_durable},
        {INVARIANT_V9, MOMENT_ISOBAR, 0, in_an_isobar_journal_skips},
        {INVARIANT_V10, MOMENT_RAMP_UP, 0, another_night},
        {INVARIANT_V11, MOMENT_RAMP_UP, 0, would_creep_on},
        {INVARIANT_LIMIT, MOMENT_ISOBAR, AND(V11), too_much_pressure},
#undef AND
    };
    static struct night night;
    uint32_t failed = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        advance_to(&night, cases[i].moment, cases[i].moment == MOMENT_RAMP_UP ? 600.0 : 20.0);
        cases[i].deed(&night);
        for (uint32_t k = 0; k < INVARIANT_COUNT; k++) {
            bool is_meant = k == (uint32_t)cases[i].invariant || (cases[i].also & (1u << k));
            if ((night.oracle.n_violations[k] > 0) != is_meant)
                print_message("deed %d: %s\n", (int)i, oracle_invariant_name((enum invariant)k));
            assert_int_equal(night.oracle.n_violations[k] > 0, is_meant);
        }
        failed |= 1u << cases[i].invariant;
    }
    assert_int_equal(failed, (1u << INVARIANT_COUNT) - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quiet_nights_hold_every_isobar),
        cmocka_unit_test(the_whole_ladder_breaks_no_invariant),
        cmocka_unit_test(the_quick_creep_is_the_plants),
        cmocka_unit_test(the_same_seed_gives_the_same_decisions),
        cmocka_unit_test(any_instrument_may_go_away_and_come_back),
        cmocka_unit_test(an_operator_can_hold_resume_and_stop),
        cmocka_unit_test(a_gasket_that_flows_is_told_from_an_activated_one),
        cmocka_unit_test(the_death_that_is_expected_is_the_cells),
        cmocka_unit_test(each_invariant_can_fail),
        cmocka_unit_test(every_fault_at_every_moment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
