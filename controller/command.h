/*
 * The daemon's command socket: a Unix socket beside the database (PATH.sock), one line in, one answer out.
 * controller/request.h lists the requests; anything else is refused in a sentence. An answer of several lines is
 * ended by the connection.
 */
#ifndef CONTROLLER_COMMAND_H
#define CONTROLLER_COMMAND_H

#include <stddef.h>

#include "base/err.h"
#include "controller/loop.h"

#define COMMAND_ANSWER_MAX 16384

struct command_server;

/* Serves DB_PATH.sock in a thread of its own. Errors: ERR_SYSTEM (socket cannot be made; path longer than 100 bytes).
 */
int command_server_start(struct command_server **ret_server, const char *db_path, struct loop *loop, struct err *err);
void command_server_join(struct command_server *server);

/* The client's side: sends one request, takes the answer. Errors: ERR_LINK (no daemon there), ERR_TIMEOUT. */
int command_ask(const char *socket_path, const char *request, char *ret_answer, size_t size, struct err *err);

#endif
