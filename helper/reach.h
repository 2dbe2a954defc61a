/*
 * What another user may open.  Told from owners, groups and modes, without
 * becoming that user: a change of identity would make the kernel forget
 * that we want to die with our parent.  ACLs are not looked at.
 */

#ifndef LEMONADE_REACH_H
#define LEMONADE_REACH_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>


struct reach;

/*
 * The user of that name, with gid as the group and the user's further ones,
 * as nginx's workers have them.  NULL: no such user.
 */
struct reach *reach_new(const char *user, gid_t gid);
void reach_free(struct reach *who);

/*
 * May the user get to path, through every folder and symbolic link on the
 * way?  want is what is needed at its end: R_OK, X_OK, both.  If not,
 * blocker (may be NULL) is the first place that does not let the user on.
 */
bool reach_path(const struct reach *who, const char *path, int want,
    char *blocker, size_t size);


#endif /* LEMONADE_REACH_H */
