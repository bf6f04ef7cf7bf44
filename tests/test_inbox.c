/*
 * Goal: the inbox gives every event once, in the order of each writer, never lets a writer wait, and counts what it
 * drops. Method: the bound by hand; then four writers against one reader, each event numbered.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "controller/inbox.h"

#define N_WRITERS 4
#define N_EVENTS 20000
#define BOUND 1024 /* as in inbox.c */

static struct clock *clock_real;
static struct inbox *inbox;

static int set_up(void **state)
{
    (void)state;
    clock_open_real(&clock_real, NULL);
    inbox = inbox_new(clock_real);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    inbox_free(inbox);
    inbox_free(NULL);
    clock_close(clock_real);
    return 0;
}

static void an_event_is_zeroed_and_its_text_cut(void **state)
{
    (void)state;
    char text[EVENT_TEXT_MAX + 50];
    memset(text, 'a', sizeof text);
    text[sizeof text - 1] = '\0';
    struct event a = inbox_event(EVENT_RUBY_REJECTED, text), b = inbox_event(EVENT_TICK, NULL), zero;
    assert_int_equal(strlen(a.text), EVENT_TEXT_MAX - 1);
    memset(&zero, 0, sizeof zero);
    zero.kind = EVENT_TICK;
    assert_memory_equal(&b, &zero, sizeof zero); /* equal content is equal bytes */
}

static void what_does_not_fit_is_counted(void **state)
{
    (void)state;
    struct event event = inbox_event(EVENT_TICK, NULL), seen;
    int64_t before_ns = clock_now_ns(clock_real);
    for (int i = 0; i < BOUND + 3; i++) {
        event.integer[0] = i;
        assert_true(inbox_post(inbox, &event) == (i < BOUND));
    }
    assert_int_equal(inbox_dropped(inbox), 3);
    for (int i = 0; i < BOUND; i++) {
        assert_true(inbox_take(inbox, &seen, 0));
        assert_int_equal(seen.integer[0], i);
        assert_true(seen.t_ns >= before_ns); /* the arrival */
    }
    assert_false(inbox_take(inbox, &seen, 0));
    int64_t from_ns = clock_wall_ns();
    assert_false(inbox_take(inbox, &seen, 20));
    assert_true(clock_wall_ns() - from_ns >= 15 * NS_PER_MS);
    assert_true(inbox_post(inbox, &event)); /* room again */
    assert_true(inbox_take(inbox, &seen, 1000));
}

static void *write_events(void *argument)
{
    int writer = *(int *)argument;
    struct event event = inbox_event(EVENT_MEMBRANE, NULL);
    event.integer[0] = writer;
    for (int i = 0; i < N_EVENTS; i++) {
        event.integer[1] = i;
        while (!inbox_post(inbox, &event))
            continue;
    }
    return NULL;
}

static void nothing_is_lost_or_changes_places(void **state)
{
    (void)state;
    pthread_t threads[N_WRITERS];
    int numbers[N_WRITERS], next[N_WRITERS] = {0};
    struct event event;
    for (int i = 0; i < N_WRITERS; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, write_events, &numbers[i]), 0);
    }
    for (int n = 0; n < N_WRITERS * N_EVENTS; n++) {
        assert_true(inbox_take(inbox, &event, 5000));
        assert_int_equal(event.integer[1], next[event.integer[0]]++);
    }
    for (int i = 0; i < N_WRITERS; i++)
        pthread_join(threads[i], NULL);
    assert_false(inbox_take(inbox, &event, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_event_is_zeroed_and_its_text_cut, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_does_not_fit_is_counted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nothing_is_lost_or_changes_places, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
