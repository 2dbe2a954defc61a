/*
 * The shared state file: routes, leases, lanes of dead workers, a second
 * helper.
 *
 * link: helper/state.c
 */

#define _GNU_SOURCE

#include "state.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>


#define CHECK(what)                                                          \
    do {                                                                     \
        if (!(what)) {                                                       \
            fprintf(stderr, "%s:%d: %s\n", __func__, __LINE__, #what);      \
            exit(1);                                                         \
        }                                                                    \
    } while (0)


static char             path[64];
static struct lm_state  helper;


/* A server somewhere. */
static struct lm_replica
replica(const char *label)
{
    struct lm_replica  r;

    memset(&r, 0, sizeof(r));
    r.address.sun_family = AF_UNIX;
    snprintf(r.address.sun_path, sizeof(r.address.sun_path), "/%s", label);
    r.address_len = sizeof(r.address);
    snprintf(r.label, sizeof(r.label), "%s", label);

    return r;
}


/* Publishes a model with one server. */
static unsigned
publish(const char *name)
{
    int                slot;
    struct lm_replica  r = replica(name);

    slot = lm_route_publish(&helper, name, &r, 1);
    CHECK(slot >= 0);

    return (unsigned) slot;
}


/* Leases by name; true when there was a route. */
static bool
take(struct lm_state *st, const char *name, struct lm_lease *lease)
{
    struct lm_replica  r;

    return lm_lease_take(st, name, strlen(name), lease, &r);
}


/* Only a ready route can be leased, and only by its whole name. */
static void
test_routes(void)
{
    unsigned          slot;
    struct lm_state   worker;
    struct lm_lease   lease;
    struct lm_totals  totals;

    CHECK(lm_state_open(&worker, path) == 0);
    CHECK(!take(&worker, "m", &lease));

    slot = publish("m");
    CHECK(!take(&worker, "mm", &lease));
    CHECK(!take(&worker, "", &lease));
    CHECK(take(&worker, "m", &lease));
    CHECK(lm_route_inflight(&helper, slot) == 1);

    lm_route_drain(&helper, slot);
    CHECK(!take(&worker, "m", &lease));
    CHECK(lm_route_inflight(&helper, slot) == 1);

    lm_route_resume(&helper, slot);
    CHECK(take(&worker, "m", &lease));
    CHECK(lm_route_inflight(&helper, slot) == 2);

    lm_lease_release(&worker, &lease, false, 10, 20);
    lm_lease_release(&worker, &lease, true, 1, 2);
    CHECK(lm_route_inflight(&helper, slot) == 0);

    lm_route_totals(&helper, slot, &totals);
    CHECK(totals.leases == 2 && totals.requests == 2);
    CHECK(totals.failures == 1);
    CHECK(totals.prompt_tokens == 11 && totals.completion_tokens == 22);

    lm_route_retire(&helper, slot);
    CHECK(!take(&worker, "m", &lease));

    lm_state_close(&worker);
    lm_state_reap(&helper);
}


/* A slot used again begins with totals of zero, and another generation. */
static void
test_slot_again(void)
{
    unsigned          slot;
    struct lm_state   worker;
    struct lm_lease   first, second;
    struct lm_totals  totals;

    CHECK(lm_state_open(&worker, path) == 0);

    slot = publish("m");
    CHECK(take(&worker, "m", &first));
    lm_route_retire(&helper, slot);

    /* not while somebody still holds a lease on it */
    CHECK(publish("m") != slot);
    lm_route_retire(&helper, slot + 1);

    lm_lease_release(&worker, &first, false, 5, 5);
    CHECK(publish("m") == slot);

    lm_route_totals(&helper, slot, &totals);
    CHECK(totals.leases == 0 && totals.requests == 0);
    CHECK(totals.prompt_tokens == 0 && totals.completion_tokens == 0);

    CHECK(take(&worker, "m", &second));
    CHECK(second.slot == first.slot);
    CHECK(second.generation != first.generation);

    lm_route_totals(&helper, slot, &totals);
    CHECK(totals.leases == 1 && totals.requests == 0);

    lm_lease_release(&worker, &second, false, 0, 0);
    lm_route_retire(&helper, slot);
    lm_state_close(&worker);
    lm_state_reap(&helper);
}


/* The lease goes to the replica with the fewest requests of all workers. */
static void
test_replicas(void)
{
    int                slot;
    unsigned           i, taken[LM_REPLICAS] = { 0 };
    struct lm_state    a, b;
    struct lm_lease    lease[6];
    struct lm_replica  r[3] = { replica("0"), replica("1"), replica("2") };

    slot = lm_route_publish(&helper, "m", r, 3);
    CHECK(slot >= 0);
    CHECK(lm_state_open(&a, path) == 0);
    CHECK(lm_state_open(&b, path) == 0);

    for (i = 0; i < 6; i++) {
        CHECK(take(i % 2 ? &a : &b, "m", &lease[i]));
        taken[lease[i].replica]++;
    }

    CHECK(taken[0] == 2 && taken[1] == 2 && taken[2] == 2);

    for (i = 0; i < 6; i++) {
        lm_lease_release(i % 2 ? &a : &b, &lease[i], false, 0, 0);
    }

    lm_route_retire(&helper, (unsigned) slot);
    lm_state_close(&a);
    lm_state_close(&b);
    lm_state_reap(&helper);
}


/* What a killed worker held is free again, what it counted stays. */
static void
test_killed_worker(void)
{
    int               ready[2];
    char              c;
    pid_t             pid;
    unsigned          slot;
    struct lm_state   worker;
    struct lm_lease   lease;
    struct lm_totals  totals;

    slot = publish("m");
    CHECK(pipe(ready) == 0);

    pid = fork();
    CHECK(pid != -1);

    if (pid == 0) {
        CHECK(lm_state_open(&worker, path) == 0);
        CHECK(take(&worker, "m", &lease));
        lm_lease_release(&worker, &lease, false, 7, 8);
        CHECK(take(&worker, "m", &lease));
        CHECK(write(ready[1], "x", 1) == 1);
        pause();
        _exit(0);
    }

    CHECK(read(ready[0], &c, 1) == 1);

    lm_state_reap(&helper);
    CHECK(lm_route_inflight(&helper, slot) == 1);

    CHECK(kill(pid, SIGKILL) == 0);
    CHECK(waitpid(pid, NULL, 0) == pid);

    lm_state_reap(&helper);
    CHECK(lm_route_inflight(&helper, slot) == 0);

    lm_route_totals(&helper, slot, &totals);
    CHECK(totals.leases == 2 && totals.requests == 1);
    CHECK(totals.prompt_tokens == 7 && totals.completion_tokens == 8);

    close(ready[0]);
    close(ready[1]);
    lm_route_retire(&helper, slot);
}


/* All slots, all lanes, and arguments that make no sense. */
static void
test_limits(void)
{
    char               name[LM_NAME_MAX + 1];
    unsigned           i;
    struct lm_state    worker[LM_LANES + 1];
    struct lm_replica  r = replica("r");

    for (i = 0; i < LM_ROUTES; i++) {
        snprintf(name, sizeof(name), "m%u", i);
        CHECK(lm_route_publish(&helper, name, &r, 1) == (int) i);
    }

    CHECK(lm_route_publish(&helper, "more", &r, 1) == -1 && errno == ENOSPC);

    for (i = 0; i < LM_ROUTES; i++) {
        lm_route_retire(&helper, i);
    }

    memset(name, 'x', LM_NAME_MAX);
    name[LM_NAME_MAX] = '\0';
    CHECK(lm_route_publish(&helper, name, &r, 1) == -1 && errno == EINVAL);
    CHECK(lm_route_publish(&helper, "", &r, 1) == -1 && errno == EINVAL);
    CHECK(lm_route_publish(&helper, "m", &r, 0) == -1 && errno == EINVAL);
    CHECK(lm_route_publish(&helper, "m", &r, LM_REPLICAS + 1) == -1);

    for (i = 0; i < LM_LANES; i++) {
        CHECK(lm_state_open(&worker[i], path) == 0);
        CHECK(worker[i].lane == (int) i);
    }

    CHECK(lm_state_open(&worker[LM_LANES], path) == -1 && errno == EUSERS);

    for (i = 0; i < LM_LANES; i++) {
        lm_state_close(&worker[i]);
    }

    lm_state_reap(&helper);
    CHECK(lm_state_open(&worker[0], path) == 0);
    lm_state_close(&worker[0]);
    lm_state_reap(&helper);
}


/* A second helper takes the path over; workers of the first notice. */
static void
test_second_helper(void)
{
    struct lm_state  worker, second;

    CHECK(lm_state_open(&worker, path) == 0);
    CHECK(!lm_state_retired(&worker));

    CHECK(lm_state_create(&second, path, 0600, (gid_t) -1) == 0);
    CHECK(lm_state_retired(&worker));

    lm_state_close(&worker);
    CHECK(lm_state_open(&worker, path) == 0);
    CHECK(!lm_state_retired(&worker));

    lm_state_close(&helper);
    helper = second;

    lm_state_destroy(&helper, path);
    CHECK(lm_state_retired(&worker));
    CHECK(access(path, F_OK) == -1);
    lm_state_close(&worker);
}


/* What is not a state file of this layout is left alone. */
static void
test_strange_file(void)
{
    FILE             *f;
    struct lm_state   worker;

    f = fopen(path, "w");
    CHECK(f != NULL);
    CHECK(fputs("not a state file\n", f) >= 0);
    CHECK(fclose(f) == 0);

    CHECK(lm_state_open(&worker, path) == -1 && errno == EPROTO);
    CHECK(truncate(path, sizeof(struct lm_state_file)) == 0);
    CHECK(lm_state_open(&worker, path) == -1 && errno == EPROTO);
    CHECK(unlink(path) == 0);
    CHECK(lm_state_open(&worker, path) == -1 && errno == ENOENT);
}


/* A killed helper's temporary file is in nobody's way. */
static void
test_left_over(void)
{
    FILE             *f;
    char              temp[96];
    struct stat       sb;
    struct lm_state   st;

    snprintf(temp, sizeof(temp), "%s.%d", path, (int) getpid());
    f = fopen(temp, "w");
    CHECK(f != NULL && fclose(f) == 0);

    CHECK(lm_state_create(&st, path, 0640, (gid_t) -1) == 0);
    CHECK(access(temp, F_OK) == -1);

    /* every page has its place on the disk from the start */
    CHECK(stat(path, &sb) == 0);
    CHECK((sb.st_mode & 0777) == 0640);
    CHECK(sb.st_blocks * 512 >= (off_t) sizeof(struct lm_state_file));

    lm_state_destroy(&st, path);
}


int
main(void)
{
    snprintf(path, sizeof(path), "/tmp/test_state.%d", (int) getpid());

    CHECK(lm_state_create(&helper, path, 0600, (gid_t) -1) == 0);

    test_routes();
    test_slot_again();
    test_replicas();
    test_killed_worker();
    test_limits();
    test_second_helper();
    test_strange_file();
    test_left_over();

    return 0;
}
