/*
 * Has isobar-analyze correlate each scan while it is being taken, in a child process of low priority, and posts what it
 * says. The child follows the series' files; its standard input is a pipe, and closing that says that the scan is
 * whole.
 *
 *     analyst_follow --> FOLLOWED --analyst_add--> COMPLETE --> the row of the result, EVENT_RESULT
 *                           '------analyst_drop--> DROPPED ---> child ended, its files removed, a row with the reason
 *
 * One child at a time, in the order of the scans: two would share the processors that the first needs to finish, and
 * the frames of the next scan wait on the disk. Following is a head start, never needed for a result: when the child
 * dies or gives none, EVENT_FOLLOWER_LOST says so and the scan is analysed as a whole after its end. Nothing is
 * reported of a scan before the core has it analysed, and nothing of one that failed but that it did.
 *
 * A crash of the analysis is a sentence in the result row and nothing more. All calls return at once but analyst_join.
 */
#ifndef CONTROLLER_ANALYST_H
#define CONTROLLER_ANALYST_H

#include <stdbool.h>

#include "controller/inbox.h"
#include "db/store.h"

struct analyst;

/* `program`: the path of isobar-analyze. Errors: ERR_SYSTEM (no descriptor to wake the thread with). */
int analyst_start(struct analyst **ret_analyst, struct inbox *inbox, struct store *store, const char *program,
                  const char *results_directory, struct err *err);

/* The scan's acquisition has begun: its files will appear under this master. When 64 scans wait already it is not
 * followed, and analyst_add will tell. */
void analyst_follow(struct analyst *analyst, int64_t scan_number, int64_t attempt, const char *master_path);

/* The scan is whole: its result is wanted, whether it was followed or not. Errors: ERR_FULL (64 scans wait). */
int analyst_add(struct analyst *analyst, int64_t scan_number, int64_t attempt, const char *master_path,
                struct err *err);

/* The attempt has failed or was aborted, in one sentence: no result of it. Does nothing when it is not followed, was
 * dropped before, or is whole. */
void analyst_drop(struct analyst *analyst, int64_t scan_number, int64_t attempt, const char *reason);

/* No result is outstanding; a scan that is still being taken does not count. */
bool analyst_is_idle(struct analyst *analyst);

/* Waits for the present analysis, or ends it when its scan is not whole; drops the rest. */
void analyst_join(struct analyst *analyst);

#endif
