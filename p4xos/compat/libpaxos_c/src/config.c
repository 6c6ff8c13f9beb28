/* Reads paxos.conf: a line is a word and what belongs to it; what is wrong is told with its place. */
#include "config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "buffer.h"

#define LINE_BYTES 4096
#define PORT_MAX 65535

struct place {
    const char *path;
    int line, column;       /* from 1 */
};

/* A line that is taken apart word by word. */
struct words {
    struct place place;
    char *line, *at;
};

static bool wrong(const struct words *words, const char *complaint)
{
    paxos_log_error("%s:%d:%d: %s", words->place.path, words->place.line, words->place.column,
                    complaint);
    return false;
}

/* The next word, terminated; NULL at the end of the line. */
static char *next_word(struct words *words)
{
    char *word = words->at;
    while (isspace((unsigned char)*word))
        word++;
    words->place.column = (int)(word - words->line) + 1;
    char *end = word;
    while (*end && !isspace((unsigned char)*end))
        end++;
    words->at = *end ? end + 1 : end;
    *end = 0;
    return *word ? word : NULL;
}

static bool parse_number(const char *text, long lowest, long highest, long *value)
{
    char *end;
    errno = 0;
    *value = strtol(text, &end, 10);
    return !errno && end != text && !*end && lowest <= *value && *value <= highest;
}

/* Addresses -------------------------------------------------------------------------------------- */

/* ID IP PORT. The position in the file is the id. */
static bool read_address(struct words *words, struct addresses *const *lists)
{
    long id, port;
    struct sockaddr_in address = {.sin_family = AF_INET};
    const char *word = next_word(words);
    if (!word || !parse_number(word, 0, INT_MAX, &id))
        return wrong(words, "an id has to stand here, a whole number from 0");
    word = next_word(words);
    if (!word || inet_pton(AF_INET, word, &address.sin_addr) != 1)
        return wrong(words, "an IPv4 address has to stand here, as in 127.0.0.1");
    word = next_word(words);
    if (!word || !parse_number(word, 1, PORT_MAX, &port))
        return wrong(words, "a port has to stand here, from 1 to 65535");
    address.sin_port = htons((uint16_t)port);
    for (; *lists; lists++) {
        if ((*lists)->count == MAX_N_OF_PROPOSERS)
            return wrong(words, "there are ten of this kind already; remove some");
        (*lists)->at[(*lists)->count++] = address;
    }
    return true;
}

/* Options ---------------------------------------------------------------------------------------- */

struct choice {
    const char *name;
    int value;
};

static const struct choice booleans[] = {{"yes", 1}, {"no", 0}, {0}};
static const struct choice verbosities[] = {
    {"quiet", PAXOS_LOG_QUIET}, {"error", PAXOS_LOG_ERROR},
    {"info", PAXOS_LOG_INFO}, {"debug", PAXOS_LOG_DEBUG}, {0},
};
static const struct choice backends[] = {
    {"memory", PAXOS_MEM_STORAGE}, {"lmdb", PAXOS_LMDB_STORAGE}, {0},
};

static bool read_choice(struct words *words, const struct choice *choices, int *value)
{
    const char *word = next_word(words);
    for (const struct choice *choice = choices; word && choice->name; choice++)
        if (!strcasecmp(word, choice->name)) {
            *value = choice->value;
            return true;
        }
    return wrong(words, choices == booleans      ? "yes or no has to stand here"
                        : choices == verbosities ? "quiet, error, info or debug has to stand here"
                                                 : "memory or lmdb has to stand here");
}

static bool read_count(struct words *words, int *value)
{
    long number;
    const char *word = next_word(words);
    if (!word || !parse_number(word, 1, INT_MAX, &number))
        return wrong(words, "a whole number above 0 has to stand here");
    *value = (int)number;
    return true;
}

/* A number, and a unit that may be apart from it. */
static bool read_size(struct words *words, size_t *value)
{
    static const struct choice units[] = {{"kb", 10}, {"mb", 20}, {"gb", 30}, {0}};
    const char *word = next_word(words);
    char *end = NULL;
    errno = 0;
    unsigned long long number = word && isdigit((unsigned char)*word) ? strtoull(word, &end, 10) : 0;
    if (!end || errno || !number)
        return wrong(words, "a size has to stand here, as in 10mb");
    const char *unit = *end ? end : next_word(words);
    int shift = 0;
    for (const struct choice *choice = units; unit && choice->name; choice++)
        if (!strcasecmp(unit, choice->name))
            shift = choice->value;
    if ((unit && !shift) || number > SIZE_MAX >> shift)
        return wrong(words, "a size has to stand here, in kb, mb or gb");
    *value = (size_t)number << shift;
    return true;
}

static bool read_path(struct words *words, char **value)
{
    static char path[LINE_BYTES];   /* paxos_config is one for the process too */
    const char *word = next_word(words);
    if (!word)
        return wrong(words, "a path has to stand here");
    snprintf(path, sizeof path, "%s", word);
    *value = path;
    return true;
}

static bool read_backend(struct words *words)
{
    int backend = PAXOS_MEM_STORAGE;
    bool good = read_choice(words, backends, &backend);
    paxos_config.storage_backend = (paxos_storage_backend)backend;
    return good;
}

static bool read_verbosity(struct words *words)
{
    int verbosity = PAXOS_LOG_INFO;
    bool good = read_choice(words, verbosities, &verbosity);
    paxos_config.verbosity = (paxos_log_level)verbosity;
    return good;
}

static bool read_option(struct words *words, const char *name)
{
    struct paxos_config *to = &paxos_config;
    if (!strcasecmp(name, "verbosity"))
        return read_verbosity(words);
    if (!strcasecmp(name, "tcp-nodelay"))
        return read_choice(words, booleans, &to->tcp_nodelay);
    if (!strcasecmp(name, "learner-catch-up"))
        return read_choice(words, booleans, &to->learner_catch_up);
    if (!strcasecmp(name, "proposer-timeout"))
        return read_count(words, &to->proposer_timeout);
    if (!strcasecmp(name, "proposer-preexec-window"))
        return read_count(words, &to->proposer_preexec_window);
    if (!strcasecmp(name, "storage-backend"))
        return read_backend(words);
    if (!strcasecmp(name, "acceptor-trash-files"))
        return read_choice(words, booleans, &to->trash_files);
    if (!strcasecmp(name, "lmdb-sync"))
        return read_choice(words, booleans, &to->lmdb_sync);
    if (!strcasecmp(name, "lmdb-env-path"))
        return read_path(words, &to->lmdb_env_path);
    if (!strcasecmp(name, "lmdb-mapsize"))
        return read_size(words, &to->lmdb_mapsize);
    return wrong(words, "this is neither a role nor an option of libpaxos");
}

/* The file --------------------------------------------------------------------------------------- */

static bool is_one_of(const char *word, const char *name)
{
    return !strcasecmp(word, name) || (strlen(word) == 1 && tolower((unsigned char)*word) == *name);
}

static bool read_line(struct evpaxos_config *config, struct words *words)
{
    const char *word = next_word(words);
    bool good;
    if (!word || *word == '#')
        return true;
    struct addresses *proposer[] = {&config->proposers, NULL};
    struct addresses *acceptor[] = {&config->acceptors, NULL};
    struct addresses *replica[] = {
        &config->replicas, &config->proposers, &config->acceptors, NULL,
    };
    if (is_one_of(word, "acceptor"))
        good = read_address(words, acceptor);
    else if (is_one_of(word, "proposer"))
        good = read_address(words, proposer);
    else if (is_one_of(word, "replica"))
        good = read_address(words, replica);
    else
        good = read_option(words, word);
    if (!good)
        return false;
    word = next_word(words);
    return !word || *word == '#' || wrong(words, "nothing more belongs on this line");
}

static bool read_lines(struct evpaxos_config *config, FILE *file, const char *path)
{
    char line[LINE_BYTES];
    for (int number = 1; fgets(line, sizeof line, file); number++) {
        struct words words = {{path, number, 1}, line, line};
        if (strlen(line) == sizeof line - 1)
            return wrong(&words, "this line is longer than 4,094 bytes");
        line[strcspn(line, "\n")] = 0;
        if (!read_line(config, &words))
            return false;
    }
    if (ferror(file)) {
        paxos_log_error("%s: %s", path, strerror(errno));
        return false;
    }
    if (!config->acceptors.count) {
        paxos_log_error("%s: no acceptor and no replica is named; name one at least", path);
        return false;
    }
    return true;
}

struct evpaxos_config *evpaxos_config_read(const char *path)
{
    FILE *file = fopen(path, "re");
    if (!file) {
        paxos_log_error("%s: %s", path, strerror(errno));
        return NULL;
    }
    struct evpaxos_config *config = must_allocate(sizeof *config);
    *config = (struct evpaxos_config){0};
    bool good = read_lines(config, file, path);
    fclose(file);
    if (good)
        return config;
    free(config);
    return NULL;
}

void evpaxos_config_free(struct evpaxos_config *config)
{
    free(config);
}

static struct sockaddr_in address_of(const struct addresses *addresses, int i, const char *role)
{
    if (i >= 0 && i < addresses->count)
        return addresses->at[i];
    paxos_log_error("there is no %s %d: paxos.conf names %d", role, i, addresses->count);
    return (struct sockaddr_in){.sin_family = AF_INET};
}

struct sockaddr_in evpaxos_proposer_address(struct evpaxos_config *config, int i)
{
    return address_of(&config->proposers, i, "proposer");
}

int evpaxos_proposer_listen_port(struct evpaxos_config *config, int i)
{
    return ntohs(evpaxos_proposer_address(config, i).sin_port);
}

int evpaxos_acceptor_count(struct evpaxos_config *config)
{
    return config->acceptors.count;
}

struct sockaddr_in evpaxos_acceptor_address(struct evpaxos_config *config, int i)
{
    return address_of(&config->acceptors, i, "acceptor");
}

int evpaxos_acceptor_listen_port(struct evpaxos_config *config, int i)
{
    return ntohs(evpaxos_acceptor_address(config, i).sin_port);
}
