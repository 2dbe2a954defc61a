/*
 * Which Debian mirror this machine uses.
 */

#ifndef LEMONADE_MIRROR_H
#define LEMONADE_MIRROR_H


/*
 * LEMONADE_DEBIAN_MIRROR, else the first address ending in "/debian" in
 * /etc/apt/sources.list and /etc/apt/sources.list.d, else
 * http://deb.debian.org/debian.  malloc'ed.
 */
char *mirror_find(void);


#endif /* LEMONADE_MIRROR_H */
