/*
 * A streaming JSON scanner that finds the few top-level members the router
 * needs, without building a document.
 *
 * Plain C, no nginx types: fed chunk by chunk, unit-tested and fuzzed alone.
 * The whole text is checked against RFC 8259, except that strings which are
 * not captured are not checked for valid UTF-8 or paired surrogates (the
 * backend does).  A repeated member counts with its last value, as in
 * nlohmann::json and jansson.  Memory is constant and nothing recurses.
 */

#ifndef NGX_HTTP_LEMONADE_SCAN_H
#define NGX_HTTP_LEMONADE_SCAN_H

#include <stddef.h>
#include <stdint.h>


#define LM_SCAN_DEPTH       1000
#define LM_SCAN_KEY_MAX     32
#define LM_SCAN_MODEL_MAX   256
#define LM_SCAN_NUMBER_MAX  24


/* What kind of value a wanted member has. */
typedef enum {
    LM_SCAN_ABSENT = 0,
    LM_SCAN_STRING,
    LM_SCAN_NUMBER,
    LM_SCAN_TRUE,
    LM_SCAN_FALSE,
    LM_SCAN_NULL,
    LM_SCAN_OTHER
} lm_scan_type_t;


/* The wanted members. */
typedef enum {
    LM_SCAN_MODEL = 0,
    LM_SCAN_STREAM,
    LM_SCAN_MAX_TOKENS,
    LM_SCAN_MAX_COMPLETION_TOKENS,
    LM_SCAN_MEMBERS
} lm_scan_member_t;


/* A wanted member: its string, or its number as it is written. */
typedef struct {
    uint8_t         type;               /* lm_scan_type_t */
    uint8_t         too_long;           /* the value did not fit */
    uint16_t        len;                /* of the value, which has no NUL */
    char           *value;
} lm_scan_value_t;


typedef enum {
    LM_SCAN_OK = 0,
    LM_SCAN_EMPTY,                      /* nothing but white space */
    LM_SCAN_NOT_OBJECT,                 /* JSON, but not an object */
    LM_SCAN_INVALID,                    /* not JSON */
    LM_SCAN_TRUNCATED,                  /* ends in the middle */
    LM_SCAN_TOO_DEEP
} lm_scan_result_t;


typedef struct {
    /* the result */
    lm_scan_value_t   member[LM_SCAN_MEMBERS];
    uint64_t          offset;           /* bytes read; where it went wrong */

    /* the machine */
    uint8_t           state;
    uint8_t           result;           /* lm_scan_result_t so far */
    uint8_t           in_key;           /* the string is a member's name */
    uint8_t           hex_digits;
    uint16_t          hex;
    uint16_t          surrogate;        /* high half waiting for the low */
    uint16_t          depth;
    int16_t           wanted;           /* member being read, or -1 */
    const char       *literal;          /* what is left of true, false, null */
    uint16_t          key_len;          /* LM_SCAN_KEY_MAX + 1: too long */
    char              key[LM_SCAN_KEY_MAX];
    char              model[LM_SCAN_MODEL_MAX];
    char              numbers[LM_SCAN_MEMBERS - 1][LM_SCAN_NUMBER_MAX];
    uint8_t           arrays[(LM_SCAN_DEPTH + 7) / 8];  /* 1: array */
} lm_scan_t;


/* Makes the scanner ready for a new text.  It must not be moved afterwards. */
void lm_scan_init(lm_scan_t *s);

/* Reads the next n bytes.  LM_SCAN_OK, or what is wrong (and stays so). */
lm_scan_result_t lm_scan_feed(lm_scan_t *s, const unsigned char *p, size_t n);

/* Says what the text as a whole was. */
lm_scan_result_t lm_scan_finish(lm_scan_t *s);


#endif /* NGX_HTTP_LEMONADE_SCAN_H */
