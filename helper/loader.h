/*
 * Which model is loaded next, and which must leave for it.
 */

#ifndef LEMONADE_LOADER_H
#define LEMONADE_LOADER_H

#include "model.h"


void loader_init(void);
void loader_free(void);

/* Puts a model at the end of the queue, if it is not in it. */
void loader_enqueue(struct model *m);
void loader_dequeue(struct model *m);

/* Something changed: decide again, from the loop. */
void loader_wake(void);


#endif /* LEMONADE_LOADER_H */
