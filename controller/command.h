/*
 * The daemon's command socket: a Unix socket beside the database (PATH.sock), one line in, one answer out.
 * Requests: "status", "status json", "hold", "resume", "stop". Anything else is refused in a sentence.
 */
#ifndef CONTROLLER_COMMAND_H
#define CONTROLLER_COMMAND_H

#include <stddef.h>

#include "base/err.h"
#include "controller/loop.h"

struct command_server;

/* Serves in a thread of its own. Errors: ERR_SYSTEM (socket cannot be made; path longer than 100 bytes). */
int command_server_start(struct command_server **ret_server, const char *socket_path, struct loop *loop,
                         struct err *err);
void command_server_join(struct command_server *server);

/* The client's side: sends one request, takes the answer. Errors: ERR_LINK (no daemon there), ERR_TIMEOUT. */
int command_ask(const char *socket_path, const char *request, char *ret_answer, size_t size, struct err *err);

#endif
