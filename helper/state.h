/*
 * The shared state file: who serves which model, and who is using it.
 *
 * One small file, mapped by lemonade-helper and by every nginx worker.
 *
 *   header   layout, the helper's pid, a "retired" mark
 *   routes   one per loaded model, written ONLY by the helper
 *   lanes    one per nginx worker, written ONLY by that worker
 *
 * Every field has one writer at a time, so there is no lock that a dead
 * process could leave behind.  Counters of two workers never share a cache
 * line; the pids do, which are written once in a worker's life.  A worker owns its lane through an OFD write lock on
 * one byte of the file; the kernel drops the lock however the worker dies,
 * and the helper then folds the lane's totals and forgets its leases.
 *
 * Lease: the worker adds one to its in-flight counter and only then looks
 * again whether the route is still ready.  The helper marks the route as
 * draining and only then sums the counters.  Both steps are sequentially
 * consistent, so at least one of the two sees the other.
 *
 * Plain C11, no other header of the project: built into all three programs.
 */

#ifndef LEMONADE_STATE_H
#define LEMONADE_STATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>


#define LM_ROUTES       64      /* models loaded at once */
#define LM_REPLICAS     8       /* servers of one model */
#define LM_LANES        256     /* nginx workers alive at once */
#define LM_NAME_MAX     256     /* model name with its NUL */
#define LM_KEY_MAX      65      /* backend's API key with its NUL */
#define LM_LABEL_MAX    64      /* backend's name with its NUL */


/* What a route's state says.  Only READY may be leased. */
enum lm_route_state {
    LM_ROUTE_FREE = 0,
    LM_ROUTE_READY,
    LM_ROUTE_DRAINING,
};


/* One server of a model, as the helper describes it. */
struct lm_replica {
    struct sockaddr_un  address;            /* large enough for inet, inet6 */
    uint32_t            address_len;        /* 0: no such replica */
    char                key[LM_KEY_MAX];    /* bearer key of this server */
    char                label[LM_LABEL_MAX]; /* "llamacpp/cpu 1234" for logs */
};


struct lm_route {
    _Atomic uint32_t    state;              /* enum lm_route_state */
    _Atomic uint32_t    generation;         /* changes with each publish */
    uint32_t            name_len;
    uint32_t            replicas;
    char                name[LM_NAME_MAX];
    struct lm_replica   replica[LM_REPLICAS];
} __attribute__((aligned(64)));


/* Totals of one model as one worker counted them since its lane began. */
struct lm_counters {
    _Atomic uint64_t    leases;             /* leases ever taken */
    _Atomic uint64_t    requests;           /* requests finished */
    _Atomic uint64_t    failures;           /* of these, backend failed */
    _Atomic uint64_t    prompt_tokens;
    _Atomic uint64_t    completion_tokens;
};


struct lm_lane {
    _Atomic uint32_t    inflight[LM_ROUTES][LM_REPLICAS];
    struct lm_counters  counters[LM_ROUTES];
} __attribute__((aligned(64)));


struct lm_state_file {
    uint64_t            magic;
    uint32_t            layout;             /* sizeof(struct lm_state_file) */
    uint32_t            helper_pid;
    _Atomic uint32_t    retired;            /* 1: open the path again */
    _Atomic uint32_t    pid[LM_LANES];      /* lanes' workers, 0: free lane */
    struct lm_route     route[LM_ROUTES];
    struct lm_lane      lane[LM_LANES];
};


struct lm_totals {
    uint64_t  leases;
    uint64_t  requests;
    uint64_t  failures;
    uint64_t  prompt_tokens;
    uint64_t  completion_tokens;
};


/* A mapping of the file in this process. */
struct lm_state {
    struct lm_state_file  *file;
    int                    fd;
    int                    lane;            /* a worker's own, else -1 */

    /* helper only: totals of dead lanes, and what to subtract per slot */
    struct lm_totals       folded[LM_ROUTES];
    struct lm_totals       base[LM_ROUTES];
};


/* The right to send one request to one server. */
struct lm_lease {
    uint32_t            slot;
    uint32_t            replica;
    uint32_t            generation;
};


/*
 * Helper's side.  All return 0, or -1 with errno set.
 */

/*
 * Creates the file at path with the given mode and group ((gid_t) -1: as it
 * falls), retires a file that was there before, and puts the new one in its
 * place by rename.
 */
int lm_state_create(struct lm_state *st, const char *path, mode_t mode,
    gid_t group);

/*
 * Publishes a ready route in a free slot.  name is at most LM_NAME_MAX - 1
 * bytes, count at least 1 and at most LM_REPLICAS.  Returns the slot, or -1
 * when all are taken (ENOSPC) or an argument is out of range (EINVAL).
 */
int lm_route_publish(struct lm_state *st, const char *name,
    const struct lm_replica *replica, unsigned count);

/* No new lease from now on; those taken remain. */
void lm_route_drain(struct lm_state *st, unsigned slot);

/* Makes a draining route ready again, with the same generation. */
void lm_route_resume(struct lm_state *st, unsigned slot);

/*
 * Takes the route out.  The slot is used again only when the last lease on
 * it is back, so counters of two routes never mix.
 */
void lm_route_retire(struct lm_state *st, unsigned slot);

/* Requests in flight on the route, over all living workers. */
unsigned lm_route_inflight(struct lm_state *st, unsigned slot);

/* Totals of a slot over all lanes since it was published. */
void lm_route_totals(struct lm_state *st, unsigned slot,
    struct lm_totals *out);

/* Folds the lanes of workers that died; call it now and then. */
void lm_state_reap(struct lm_state *st);

/* Marks the file as retired, unmaps it and removes the path. */
void lm_state_destroy(struct lm_state *st, const char *path);


/*
 * Worker's side.
 */

/* Maps the file at path and claims a lane.  0, or -1 with errno. */
int lm_state_open(struct lm_state *st, const char *path);

/* Unmaps; the lane's lock goes with the descriptor. */
void lm_state_close(struct lm_state *st);

/* Has a new helper put another file in this one's place? */
static inline bool
lm_state_retired(const struct lm_state *st)
{
    return atomic_load_explicit(&st->file->retired, memory_order_acquire);
}

/*
 * Leases the server of the named model that has the fewest requests of all
 * workers in flight.  On true the lease is the caller's until
 * lm_lease_release; replica receives a copy of the server's description.
 */
bool lm_lease_take(struct lm_state *st, const char *name, size_t len,
    struct lm_lease *lease, struct lm_replica *replica);

/* Gives the lease back; counts one finished request. */
void lm_lease_release(struct lm_state *st, const struct lm_lease *lease,
    bool failed, uint64_t prompt_tokens, uint64_t completion_tokens);


#endif /* LEMONADE_STATE_H */
