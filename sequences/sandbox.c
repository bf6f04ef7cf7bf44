#include "sequences/sandbox.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

/* Enough that an endless recursion meets the end of the stack, which names its line, before the end of the memory. */
#define LUA_BYTES_MAX ((size_t)96 << 20)
#define ADDRESS_SPACE_BYTES_MORE ((rlim_t)256 << 20)
#define PROCESSOR_S_MAX 2
#define WALL_S_MAX 5
#define HOOK_INSTRUCTIONS 10000 /* a tenth of a millisecond: the processor time is looked at this often */

/* What the child sends: this, then n_items items. */
struct reply {
    int32_t code; /* 0 or a negative ERR_* */
    int32_t n_items;
    char message[600];
};

struct child {
    const struct sandbox_rules *rules;
    const char *path;
    struct record_list *list;
    struct reply reply;
    size_t lua_bytes;
    int n_calls;
};

/* ---- in the child: Lua --------------------------------------------------------------------------------------- */

/* Returns the table of globals that a text sees. A list of what is allowed, so that a newer Lua adds nothing. */
static const char PRELUDE[] =
    "local next, sort, type, error, plain, format = next, table.sort, type, error, tostring, string.format\n"
    "local globals = { string = string, table = table, math = math }\n"
    "for word in ('assert error ipairs select tonumber type'):gmatch('%a+') do globals[word] = _G[word] end\n"
    "string.dump, math.random, math.randomseed = nil, nil, nil\n"
    "local address = { table = true, ['function'] = true }\n"
    "function globals.pairs(t)\n"
    "  local keys, i = {}, 0\n"
    "  for key in next, t do keys[#keys + 1] = key end\n"
    "  sort(keys, function(a, b)\n"
    "    if type(a) ~= type(b) then return type(a) < type(b) end\n"
    "    return a < b\n"
    "  end)\n"
    "  return function() i = i + 1; if keys[i] ~= nil then return keys[i], t[keys[i]] end end\n"
    "end\n"
    "function globals.tostring(v) return address[type(v)] and type(v) or plain(v) end\n"
    "function string.format(pattern, ...)\n"
    "  if plain(pattern):find('%%[^%a%%]*p') then error('%p is not available here', 2) end\n"
    "  for i = 1, select('#', ...) do\n"
    "    local kind = type((select(i, ...)))\n"
    "    if address[kind] then error('a ' .. kind .. ' cannot be formatted', 2) end\n"
    "  end\n"
    "  return format(pattern, ...)\n"
    "end\n"
    "return globals\n";

static void *lua_allocate(void *context, void *old, size_t n_old, size_t n_new)
{
    struct child *child = context;
    size_t n_held = old ? n_old : 0; /* Lua passes a type in n_old when there is no block */
    if (n_new == 0) {
        free(old);
        child->lua_bytes -= n_held;
        return NULL;
    }
    if (n_new > n_held && n_new - n_held > LUA_BYTES_MAX - child->lua_bytes)
        return NULL;
    void *block = realloc(old, n_new);
    if (block)
        child->lua_bytes += n_new - n_held;
    return block;
}

static struct child *lua_child(lua_State *lua)
{
    void *context;
    lua_getallocf(lua, &context);
    return context;
}

static int lua_line(lua_State *lua, int level)
{
    lua_Debug where;
    bool known = lua_getstack(lua, level, &where) && lua_getinfo(lua, "l", &where) && where.currentline > 0;
    return known ? where.currentline : 0; /* a tail call leaves no line */
}

static void lua_count_hook(lua_State *lua, lua_Debug *activation)
{
    (void)activation;
    struct child *child = lua_child(lua);
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    if (used.tv_sec < PROCESSOR_S_MAX)
        return;
    child->reply.code = ERR_LIMIT;
    lua_pushfstring(lua, "%s %s ran longer than %d s and was ended at line %d (an endless loop?)", child->rules->what,
                    child->path, PROCESSOR_S_MAX, lua_line(lua, 0));
    lua_error(lua);
}

static struct record_item *child_append(lua_State *lua, struct child *child, const char *key, int32_t owner, int line)
{
    if (child->list->n_items == RECORD_ITEMS_MAX)
        luaL_error(lua, "more than %d values in one file", RECORD_ITEMS_MAX);
    struct record_item *item = &child->list->items[child->list->n_items++];
    if (strlen(key) >= sizeof item->key)
        luaL_error(lua, "key '%s' is longer than %d bytes", key, (int)sizeof item->key - 1);
    *item = (struct record_item){.line = line, .owner = owner};
    memcpy(item->key, key, strlen(key));
    return item;
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The keys of the table on top of the stack, sorted; the texts belong to the table. */
static int lua_sorted_keys(lua_State *lua, const char *name, const char **ret_keys)
{
    int n = 0;
    lua_pushnil(lua);
    for (; lua_next(lua, -2); lua_pop(lua, 1)) {
        if (lua_type(lua, -2) != LUA_TSTRING)
            luaL_error(lua, "%s: a value without a key: expected %s { key = value, ... }", name, name);
        if (n == RECORD_FIELDS_MAX)
            luaL_error(lua, "%s: more than %d keys", name, RECORD_FIELDS_MAX);
        ret_keys[n++] = lua_tostring(lua, -2);
    }
    qsort(ret_keys, (size_t)n, sizeof *ret_keys, compare_keys);
    return n;
}

/* Appends an item per key of the table on top of the stack. */
static void child_append_table(lua_State *lua, struct child *child, const char *name, int32_t owner, int line,
                               int depth)
{
    const char *keys[RECORD_FIELDS_MAX];
    int n_keys = lua_sorted_keys(lua, name, keys);
    luaL_checkstack(lua, 8, NULL);
    for (int i = 0; i < n_keys; i++, lua_pop(lua, 1)) {
        int32_t index = child->list->n_items;
        struct record_item *item = child_append(lua, child, keys[i], owner, line);
        int type = lua_getfield(lua, -1, keys[i]);
        size_t n_bytes = 0;
        const char *text = type == LUA_TSTRING ? lua_tolstring(lua, -1, &n_bytes) : "";
        if (n_bytes >= sizeof item->text || strlen(text) != n_bytes)
            luaL_error(lua, "%s: %s: expected a text of at most %d bytes without NUL", name, keys[i],
                       (int)sizeof item->text - 1);
        memcpy(item->text, text, n_bytes);
        item->number = type == LUA_TNUMBER ? lua_tonumber(lua, -1) : lua_toboolean(lua, -1);
        item->type = type == LUA_TSTRING    ? RECORD_TEXT
                     : type == LUA_TNUMBER  ? RECORD_NUMBER
                     : type == LUA_TBOOLEAN ? RECORD_BOOLEAN
                                            : RECORD_TABLE;
        if (item->type != RECORD_TABLE)
            continue;
        if (type != LUA_TTABLE || depth == RECORD_DEPTH_MAX)
            luaL_error(lua, "%s: %s: a %s is not expected here", name, keys[i], lua_typename(lua, type));
        child_append_table(lua, child, keys[i], index, line, depth + 1);
    }
}

static int lua_constructor(lua_State *lua)
{
    struct child *child = lua_child(lua);
    const char *name = child->rules->constructors[lua_tointeger(lua, lua_upvalueindex(1))];
    if (lua_gettop(lua) != 1 || !lua_istable(lua, 1))
        luaL_error(lua, "%s: expected one table: %s { key = value, ... }", name, name);
    if (child->n_calls++ == child->rules->n_calls_max)
        luaL_error(lua, "%s: more than %d steps or sections in one %s", name, child->rules->n_calls_max,
                   child->rules->what);
    int line = lua_line(lua, 1);
    int32_t index = child->list->n_items;
    child_append(lua, child, name, -1, line)->type = RECORD_CALL;
    child_append_table(lua, child, name, index, line, 1);
    return 0;
}

/* __index of the globals: a name that nobody defined. */
static int lua_unknown_name(lua_State *lua)
{
    struct child *child = lua_child(lua);
    char suggestion[400];
    const char *name = luaL_checkstring(lua, 2);
    return luaL_error(
        lua, "unknown name '%s'%s", name,
        record_suggest(suggestion, sizeof suggestion, name, child->rules->constructors, child->rules->n_constructors));
}

static int lua_build(lua_State *lua)
{
    struct child *child = lua_child(lua);
    const char *text = lua_touserdata(lua, 1);
    static const luaL_Reg LIBRARIES[] = {{LUA_GNAME, luaopen_base},
                                         {LUA_STRLIBNAME, luaopen_string},
                                         {LUA_TABLIBNAME, luaopen_table},
                                         {LUA_MATHLIBNAME, luaopen_math}};
    for (size_t i = 0; i < sizeof LIBRARIES / sizeof LIBRARIES[0]; i++) {
        luaL_requiref(lua, LIBRARIES[i].name, LIBRARIES[i].func, 1);
        lua_pop(lua, 1);
    }
    if (luaL_loadbufferx(lua, PRELUDE, sizeof PRELUDE - 1, "=prelude", "t") != LUA_OK)
        lua_error(lua);
    lua_call(lua, 0, 1);
    for (int i = 0; i < child->rules->n_constructors; i++) {
        lua_pushinteger(lua, i);
        lua_pushcclosure(lua, lua_constructor, 1);
        lua_setfield(lua, -2, child->rules->constructors[i]);
    }
    lua_createtable(lua, 0, 1);
    lua_pushcfunction(lua, lua_unknown_name);
    lua_setfield(lua, -2, "__index");
    lua_setmetatable(lua, -2);
    lua_rawseti(lua, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);

    lua_pushfstring(lua, "@%s", child->path);
    if (luaL_loadbufferx(lua, text, strlen(text), lua_tostring(lua, -1), "t") != LUA_OK)
        lua_error(lua);
    lua_sethook(lua, lua_count_hook, LUA_MASKCOUNT, HOOK_INSTRUCTIONS);
    lua_call(lua, 0, 0);
    return 0;
}

static void child_evaluate(struct child *child, const char *text)
{
    lua_State *lua = lua_newstate(lua_allocate, child);
    int status = LUA_ERRMEM;
    if (lua) {
        lua_pushcfunction(lua, lua_build);
        lua_pushlightuserdata(lua, (void *)(uintptr_t)text);
        status = lua_pcall(lua, 1, 0, 0);
    }
    if (status == LUA_ERRMEM) {
        child->reply.code = ERR_LIMIT;
        snprintf(child->reply.message, sizeof child->reply.message, "%s %s needs more than %zu MB of memory",
                 child->rules->what, child->path, LUA_BYTES_MAX >> 20);
    } else if (status != LUA_OK) {
        const char *complaint = lua_tostring(lua, -1);
        if (child->reply.code == 0)
            child->reply.code = ERR_CONFIG;
        snprintf(child->reply.message, sizeof child->reply.message, "%s",
                 complaint ? complaint : "the file raised an error that is not a text");
    }
    child->reply.n_items = child->reply.code == 0 ? child->list->n_items : 0;
}

/* ---- in the child: the process ------------------------------------------------------------------------------- */

static bool write_all(int fd, const void *bytes, size_t n_bytes)
{
    for (const char *p = bytes; n_bytes > 0;) {
        ssize_t n = write(fd, p, n_bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        p += n;
        n_bytes -= (size_t)n;
    }
    return true;
}

static rlim_t address_space_bytes(void)
{
    char text[64] = "";
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n <= 0 ? 0 : (rlim_t)strtoull(text, NULL, 10) * (rlim_t)sysconf(_SC_PAGESIZE);
}

static bool limit(__rlimit_resource_t resource, rlim_t soft, rlim_t hard)
{
    return setrlimit(resource, &(struct rlimit){.rlim_cur = soft, .rlim_max = hard}) == 0;
}

/* Leaves the pipe as descriptor 0 and nothing else; false when a fence could not be put up. */
static bool child_confine(int pipe_fd)
{
    /* Relative to what the process has already: an address sanitizer reserves terabytes. */
    rlim_t space = address_space_bytes();
    if (space == 0 || dup2(pipe_fd, 0) != 0 || close_range(1, ~0u, 0) < 0)
        return false;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* One second more than Lua's own limit: it ends what no hook sees, such as one endless pattern match. */
    return limit(RLIMIT_AS, space + ADDRESS_SPACE_BYTES_MORE, space + ADDRESS_SPACE_BYTES_MORE) &&
           limit(RLIMIT_CPU, PROCESSOR_S_MAX + 1, PROCESSOR_S_MAX + 2) && limit(RLIMIT_CORE, 0, 0) &&
           limit(RLIMIT_FSIZE, 0, 0) && limit(RLIMIT_NOFILE, 0, 0);
}

static _Noreturn void child_run(struct child *child, const char *text, int pipe_fd)
{
    signal(SIGXCPU, SIG_DFL);
    signal(SIGPIPE, SIG_DFL);
    if (!child_confine(pipe_fd))
        _exit(2);
    child_evaluate(child, text);
    bool sent = write_all(0, &child->reply, sizeof child->reply) &&
                write_all(0, child->list->items, (size_t)child->reply.n_items * sizeof child->list->items[0]);
    _exit(sent ? 0 : 3);
}

/* ---- in the parent
 * --------------------------------------------------------------------------------------------------- */

/* Reads until end of file. Returns the bytes read, or -1 when the deadline passed first or too much came. */
static ssize_t read_until_end(int fd, char *buffer, size_t size, int64_t deadline_ns)
{
    size_t n_read = 0;
    for (;;) {
        int64_t left_ns = deadline_ns - clock_wall_ns();
        if (left_ns <= 0 || n_read == size)
            return -1;
        struct pollfd readable = {.fd = fd, .events = POLLIN};
        if (poll(&readable, 1, (int)(left_ns / NS_PER_MS) + 1) <= 0)
            continue;
        ssize_t n = read(fd, buffer + n_read, size - n_read);
        if (n == 0)
            return (ssize_t)n_read;
        if (n > 0)
            n_read += (size_t)n;
        else if (errno != EINTR)
            return -1;
    }
}

static bool item_is_sound(const struct record_list *list, int32_t index)
{
    const struct record_item *item = &list->items[index];
    if (item->type < 0 || item->type >= RECORD_TYPE_COUNT || item->line < 0 || item->owner < -1 || item->owner >= index)
        return false;
    if (!memchr(item->key, 0, sizeof item->key) || !memchr(item->text, 0, sizeof item->text))
        return false;
    if ((item->type == RECORD_CALL) != (item->owner < 0))
        return false;
    return item->owner < 0 || list->items[item->owner].type == RECORD_CALL ||
           list->items[item->owner].type == RECORD_TABLE;
}

static int reply_accept(const char *bytes, ssize_t n_bytes, struct record_list *list, struct err *err)
{
    struct reply reply;
    if (n_bytes < (ssize_t)sizeof reply)
        return err_set(err, ERR_SYSTEM, "the evaluation of %s ended without an answer", list->file);
    memcpy(&reply, bytes, sizeof reply);
    reply.message[sizeof reply.message - 1] = '\0';
    for (char *c = reply.message; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127)
            *c = ' ';
    if (reply.code < 0)
        return err_set(err, reply.code, "%s", reply.message);
    size_t n_items_bytes = (size_t)n_bytes - sizeof reply;
    if (reply.n_items < 0 || reply.n_items > RECORD_ITEMS_MAX ||
        n_items_bytes != (size_t)reply.n_items * sizeof list->items[0])
        return err_set(err, ERR_SYSTEM, "the evaluation of %s gave a broken answer", list->file);
    memcpy(list->items, bytes + sizeof reply, n_items_bytes);
    list->n_items = reply.n_items;
    for (int32_t i = 0; i < list->n_items; i++)
        if (!item_is_sound(list, i))
            return err_set(err, ERR_SYSTEM, "the evaluation of %s gave a broken answer (item %d)", list->file, i);
    return 0;
}

/* Collects the child's answer and the child. */
static int parent_collect(pid_t pid, int pipe_fd, struct record_list *list, const struct sandbox_rules *rules,
                          struct err *err)
{
    size_t size = sizeof(struct reply) + sizeof list->items + 1;
    char *bytes = malloc(size);
    ssize_t n_bytes = -1;
    if (bytes)
        n_bytes = read_until_end(pipe_fd, bytes, size, clock_wall_ns() + WALL_S_MAX * NS_PER_S);
    if (n_bytes < 0)
        kill(pid, SIGKILL);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    int code;
    if (!bytes)
        code = err_set(err, ERR_SYSTEM, "no memory for the answer of %s", list->file);
    else if (n_bytes < 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU))
        code = err_set(err, ERR_LIMIT, "%s %s ran longer than %d s and was ended (an endless loop?)", rules->what,
                       list->file, n_bytes < 0 ? WALL_S_MAX : PROCESSOR_S_MAX + 1);
    else if (WIFSIGNALED(status))
        code = err_set(err, ERR_SYSTEM, "the evaluation of %s was ended by signal %d", list->file, WTERMSIG(status));
    else
        code = reply_accept(bytes, n_bytes, list, err);
    free(bytes);
    return code;
}

int sandbox_evaluate(struct record_list **ret_list, const char *text, const char *path,
                     const struct sandbox_rules *rules, struct err *err)
{
    struct record_list *list = calloc(1, sizeof *list);
    int ends[2];
    if (!list || pipe2(ends, O_CLOEXEC) < 0) {
        free(list);
        return err_set(err, ERR_SYSTEM, "no memory or pipe to evaluate %s: %s", path, strerror(errno));
    }
    list->file = path;
    struct child child = {.rules = rules, .path = path, .list = list};
    pid_t pid = fork();
    if (pid == 0)
        child_run(&child, text, ends[1]);
    close(ends[1]);
    int code = pid < 0 ? err_set(err, ERR_SYSTEM, "no process to evaluate %s: %s", path, strerror(errno))
                       : parent_collect(pid, ends[0], list, rules, err);
    close(ends[0]);
    if (code < 0) {
        free(list);
        return code;
    }
    *ret_list = list;
    return 0;
}

int sandbox_read_file(char *ret_text, size_t size, const char *path, struct err *err)
{
    assert(size > 0);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not make us wait */
    struct stat about;
    if (fd < 0)
        return err_set(err, ERR_IO, "%s cannot be read: %s", path, strerror(errno));
    char *text = malloc(size);
    size_t n_bytes = 0;
    int code = 0;
    if (!text)
        code = err_set(err, ERR_SYSTEM, "no memory to read %s", path);
    else if (fstat(fd, &about) < 0 || !S_ISREG(about.st_mode))
        code = err_set(err, ERR_IO, "%s cannot be read: not a regular file", path);
    while (code == 0 && n_bytes < size) {
        ssize_t n = read(fd, text + n_bytes, size - n_bytes);
        if (n < 0 && errno != EINTR)
            code = err_set(err, ERR_IO, "%s cannot be read: %s", path, strerror(errno));
        if (n == 0)
            break;
        if (n > 0)
            n_bytes += (size_t)n;
    }
    if (code == 0 && n_bytes == size)
        code = err_set(err, ERR_CONFIG, "%s is longer than %zu bytes", path, size - 1);
    if (code == 0 && memchr(text, 0, n_bytes))
        code = err_set(err, ERR_CONFIG, "%s is not a text: it holds a NUL byte", path);
    if (code == 0) {
        memcpy(ret_text, text, n_bytes);
        ret_text[n_bytes] = '\0';
    }
    free(text);
    close(fd);
    return code;
}
