/*
 * The shared state file; the protocol is described in state.h.
 */

#define _GNU_SOURCE

#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>


#define LM_STATE_MAGIC  0x3174732d6e6f6d6cULL      /* "lmon-st1" */


/* Locks, unlocks or probes the byte that stands for a lane. */
static int
lane_lock(int fd, int cmd, short type, unsigned lane)
{
    struct flock  lock = {
        .l_type = type,
        .l_whence = SEEK_SET,
        .l_start = lane,
        .l_len = 1,
    };

    return fcntl(fd, cmd, &lock);
}


/* Maps an open state file whose size and header have been found right. */
static int
state_map(struct lm_state *st, int fd)
{
    void  *map;

    map = mmap(NULL, sizeof(struct lm_state_file), PROT_READ | PROT_WRITE,
               MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        return -1;
    }

    memset(st, 0, sizeof(*st));
    st->file = map;
    st->fd = fd;
    st->lane = -1;

    return 0;
}


/* Maps the file at path if it is one of this layout. */
static int
state_attach(struct lm_state *st, const char *path)
{
    int          fd, err;
    struct stat  sb;

    fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd == -1) {
        return -1;
    }

    if (fstat(fd, &sb) == -1) {
        goto failed;
    }

    if (!S_ISREG(sb.st_mode)
        || sb.st_size != (off_t) sizeof(struct lm_state_file))
    {
        errno = EPROTO;
        goto failed;
    }

    if (state_map(st, fd) == -1) {
        goto failed;
    }

    if (st->file->magic != LM_STATE_MAGIC
        || st->file->layout != sizeof(struct lm_state_file))
    {
        lm_state_close(st);
        errno = EPROTO;
        return -1;
    }

    return 0;

failed:

    err = errno;
    close(fd);
    errno = err;
    return -1;
}


int
lm_state_create(struct lm_state *st, const char *path, mode_t mode,
    gid_t group)
{
    int              fd, err;
    bool             replaces;
    char             temp[4096];
    struct lm_state  old;

    if (snprintf(temp, sizeof(temp), "%s.%d", path, (int) getpid())
        >= (int) sizeof(temp))
    {
        errno = ENAMETOOLONG;
        return -1;
    }

    /* of a helper with our pid that was killed; in containers pids repeat */

    (void) unlink(temp);

    fd = open(temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd == -1) {
        return -1;
    }

    /* all of it now: a page that a full disk refuses later is a SIGBUS */

    err = posix_fallocate(fd, 0, sizeof(struct lm_state_file));
    if (err != 0) {
        errno = err;
        goto failed;
    }

    if ((group != (gid_t) -1 && fchown(fd, (uid_t) -1, group) == -1)
        || fchmod(fd, mode) == -1
        || state_map(st, fd) == -1)
    {
        goto failed;
    }

    st->file->magic = LM_STATE_MAGIC;
    st->file->layout = sizeof(struct lm_state_file);
    st->file->helper_pid = (uint32_t) getpid();

    replaces = state_attach(&old, path) == 0;

    if (rename(temp, path) == -1) {
        err = errno;
        munmap(st->file, sizeof(struct lm_state_file));

        if (replaces) {
            lm_state_close(&old);
        }

        errno = err;
        goto failed;
    }

    /* workers of the old file find the new one already in its place */

    if (replaces) {
        atomic_store(&old.file->retired, 1);
        lm_state_close(&old);
    }

    return 0;

failed:

    err = errno;
    close(fd);
    unlink(temp);
    errno = err;
    return -1;
}


int
lm_route_publish(struct lm_state *st, const char *name,
    const struct lm_replica *replica, unsigned count)
{
    size_t            len;
    unsigned          slot;
    struct lm_route  *route;
    struct lm_totals  before;

    len = strlen(name);

    if (len == 0 || len >= LM_NAME_MAX || count == 0 || count > LM_REPLICAS) {
        errno = EINVAL;
        return -1;
    }

    for (slot = 0; slot < LM_ROUTES; slot++) {
        route = &st->file->route[slot];

        if (atomic_load(&route->state) == LM_ROUTE_FREE
            && lm_route_inflight(st, slot) == 0)
        {
            break;
        }
    }

    if (slot == LM_ROUTES) {
        errno = ENOSPC;
        return -1;
    }

    memcpy(route->name, name, len + 1);
    route->name_len = (uint32_t) len;
    memset(route->replica, 0, sizeof(route->replica));
    memcpy(route->replica, replica, count * sizeof(*replica));
    route->replicas = count;

    memset(&st->base[slot], 0, sizeof(st->base[slot]));
    lm_route_totals(st, slot, &before);
    st->base[slot] = before;

    atomic_fetch_add(&route->generation, 1);
    atomic_store(&route->state, LM_ROUTE_READY);

    return (int) slot;
}


void
lm_route_drain(struct lm_state *st, unsigned slot)
{
    atomic_store(&st->file->route[slot].state, LM_ROUTE_DRAINING);
}


void
lm_route_resume(struct lm_state *st, unsigned slot)
{
    atomic_store(&st->file->route[slot].state, LM_ROUTE_READY);
}


void
lm_route_retire(struct lm_state *st, unsigned slot)
{
    struct lm_route  *route = &st->file->route[slot];

    atomic_store(&route->state, LM_ROUTE_FREE);

    /* a reader that copied half of it sees the change */
    atomic_fetch_add(&route->generation, 1);
}


unsigned
lm_route_inflight(struct lm_state *st, unsigned slot)
{
    unsigned         i, r, sum;
    struct lm_lane  *lane;

    sum = 0;

    for (i = 0; i < LM_LANES; i++) {
        if (atomic_load(&st->file->pid[i]) == 0) {
            continue;
        }

        lane = &st->file->lane[i];

        for (r = 0; r < LM_REPLICAS; r++) {
            sum += atomic_load(&lane->inflight[slot][r]);
        }
    }

    return sum;
}


/* Adds one lane's counters of a slot to a sum. */
static void
totals_add(struct lm_totals *sum, struct lm_counters *c)
{
    sum->leases += atomic_load(&c->leases);
    sum->requests += atomic_load(&c->requests);
    sum->failures += atomic_load(&c->failures);
    sum->prompt_tokens += atomic_load(&c->prompt_tokens);
    sum->completion_tokens += atomic_load(&c->completion_tokens);
}


void
lm_route_totals(struct lm_state *st, unsigned slot, struct lm_totals *out)
{
    unsigned                 i;
    const struct lm_totals  *base = &st->base[slot];

    *out = st->folded[slot];

    for (i = 0; i < LM_LANES; i++) {
        if (atomic_load(&st->file->pid[i]) != 0) {
            totals_add(out, &st->file->lane[i].counters[slot]);
        }
    }

    out->leases -= base->leases;
    out->requests -= base->requests;
    out->failures -= base->failures;
    out->prompt_tokens -= base->prompt_tokens;
    out->completion_tokens -= base->completion_tokens;
}


void
lm_state_reap(struct lm_state *st)
{
    unsigned         i, slot;
    struct lm_lane  *lane;

    for (i = 0; i < LM_LANES; i++) {
        if (atomic_load(&st->file->pid[i]) == 0
            || lane_lock(st->fd, F_OFD_SETLK, F_WRLCK, i) == -1)
        {
            continue;
        }

        lane = &st->file->lane[i];

        /* the lock is ours, so its worker is gone */

        for (slot = 0; slot < LM_ROUTES; slot++) {
            totals_add(&st->folded[slot], &lane->counters[slot]);
        }

        memset(lane, 0, sizeof(*lane));
        atomic_store(&st->file->pid[i], 0);

        lane_lock(st->fd, F_OFD_SETLK, F_UNLCK, i);
    }
}


void
lm_state_destroy(struct lm_state *st, const char *path)
{
    atomic_store(&st->file->retired, 1);
    unlink(path);
    lm_state_close(st);
}


int
lm_state_open(struct lm_state *st, const char *path)
{
    unsigned  i;

    if (state_attach(st, path) == -1) {
        return -1;
    }

    for (i = 0; i < LM_LANES; i++) {
        if (atomic_load(&st->file->pid[i]) != 0
            || lane_lock(st->fd, F_OFD_SETLK, F_WRLCK, i) == -1)
        {
            continue;
        }

        /* between the look and the lock another worker may have died here */

        if (atomic_load(&st->file->pid[i]) != 0) {
            lane_lock(st->fd, F_OFD_SETLK, F_UNLCK, i);
            continue;
        }

        st->lane = (int) i;
        atomic_store(&st->file->pid[i], (uint32_t) getpid());
        return 0;
    }

    lm_state_close(st);
    errno = EUSERS;
    return -1;
}


void
lm_state_close(struct lm_state *st)
{
    munmap(st->file, sizeof(struct lm_state_file));
    close(st->fd);
    st->file = NULL;
    st->fd = -1;
}


/* Requests in flight at one replica, over all lanes. */
static uint32_t
replica_inflight(struct lm_state_file *file, unsigned slot, unsigned replica)
{
    unsigned  i;
    uint32_t  sum;

    sum = 0;

    for (i = 0; i < LM_LANES; i++) {
        if (atomic_load_explicit(&file->pid[i], memory_order_relaxed)) {
            sum += atomic_load_explicit(&file->lane[i].inflight[slot][replica],
                                        memory_order_relaxed);
        }
    }

    return sum;
}


/* The replica of a route with the fewest requests in flight. */
static unsigned
replica_choose(struct lm_state_file *file, unsigned slot)
{
    unsigned  r, best;
    uint32_t  n, least;

    best = 0;
    least = UINT32_MAX;

    for (r = 0; r < file->route[slot].replicas && r < LM_REPLICAS; r++) {
        n = replica_inflight(file, slot, r);

        if (n < least) {
            least = n;
            best = r;
        }
    }

    return best;
}


bool
lm_lease_take(struct lm_state *st, const char *name, size_t len,
    struct lm_lease *lease, struct lm_replica *replica)
{
    uint32_t           generation;
    unsigned           slot, r;
    struct lm_lane    *lane;
    struct lm_route   *route;
    _Atomic uint32_t  *inflight;

    lane = &st->file->lane[st->lane];

    for (slot = 0; slot < LM_ROUTES; slot++) {
        route = &st->file->route[slot];

        if (atomic_load_explicit(&route->state, memory_order_acquire)
            != LM_ROUTE_READY)
        {
            continue;
        }

        generation = atomic_load(&route->generation);

        if (route->name_len != len || memcmp(route->name, name, len) != 0) {
            continue;
        }

        r = route->replicas > 1 ? replica_choose(st->file, slot) : 0;
        inflight = &lane->inflight[slot][r];

        /* announce, then look again */

        atomic_fetch_add(inflight, 1);

        *replica = route->replica[r];

        if (atomic_load(&route->state) != LM_ROUTE_READY
            || atomic_load(&route->generation) != generation
            || replica->address_len == 0)
        {
            atomic_fetch_sub(inflight, 1);
            return false;
        }

        atomic_fetch_add_explicit(&lane->counters[slot].leases, 1,
                                  memory_order_relaxed);

        lease->slot = slot;
        lease->replica = r;
        lease->generation = generation;

        return true;
    }

    return false;
}


void
lm_lease_release(struct lm_state *st, const struct lm_lease *lease,
    bool failed, uint64_t prompt_tokens, uint64_t completion_tokens)
{
    struct lm_lane      *lane = &st->file->lane[st->lane];
    struct lm_counters  *c = &lane->counters[lease->slot];

    atomic_fetch_add_explicit(&c->requests, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->failures, failed, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->prompt_tokens, prompt_tokens,
                              memory_order_relaxed);
    atomic_fetch_add_explicit(&c->completion_tokens, completion_tokens,
                              memory_order_relaxed);

    atomic_fetch_sub(&lane->inflight[lease->slot][lease->replica], 1);
}
