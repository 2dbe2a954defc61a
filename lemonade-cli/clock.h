/*
 * Time that passes while we wait for something.
 */

#ifndef LEMONADE_CLI_CLOCK_H
#define LEMONADE_CLI_CLOCK_H


/* Milliseconds on a clock that nobody sets. */
long clock_now(void);

/* Sleeps; a signal may cut it short. */
void clock_pause(int ms);


#endif /* LEMONADE_CLI_CLOCK_H */
