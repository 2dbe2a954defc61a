/*
 * One helper per run dir: the lock, the question to another one, and
 * server.json for those who look for us.
 */

#ifndef LEMONADE_INSTANCE_H
#define LEMONADE_INSTANCE_H


/*
 * Takes RUNDIR/lock, and over from a helper that runs on demand.  Returns
 * -1 to go on, else the exit code after the message was printed.  May wait:
 * called before the loop runs.
 */
int instance_lock(const char *run_dir);

/* Port in a server.json that a dead helper left behind, or 0. */
unsigned instance_stale_port(const char *run_dir);

/* Writes {"pid","port","host","version","mode"}; errors go to the log. */
void instance_announce(void);

/* Removes server.json. */
void instance_retract(void);


#endif /* LEMONADE_INSTANCE_H */
