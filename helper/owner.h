/*
 * Who listens on a port?
 */

#ifndef LEMONADE_OWNER_H
#define LEMONADE_OWNER_H

#include <stdbool.h>
#include <sys/types.h>


/*
 * Is every socket that takes connections to 127.0.0.1:port one of this
 * process group's?  True, too, where the system does not let us see it.
 * Source: proc(5), /proc/net/tcp and /proc/PID/fd.
 */
bool owner_is_group(pid_t group, unsigned port);


#endif /* LEMONADE_OWNER_H */
