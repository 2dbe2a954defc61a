/*
 * The JSON scanner against jansson: what jansson takes for a JSON object the
 * scanner must take too, with the same model and the same stream, however
 * the text is cut; what the scanner refuses jansson must refuse.
 *
 * link: ngx_lemonade_module/ngx_http_lemonade_scan.c
 */

#include "ngx_http_lemonade_scan.h"

#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


/* jansson's view of a member as the scanner names it. */
static lm_scan_type_t
type_of(const json_t *value)
{
    if (value == NULL) {
        return LM_SCAN_ABSENT;
    }

    switch (json_typeof(value)) {
    case JSON_STRING:
        return LM_SCAN_STRING;
    case JSON_INTEGER:
    case JSON_REAL:
        return LM_SCAN_NUMBER;
    case JSON_TRUE:
        return LM_SCAN_TRUE;
    case JSON_FALSE:
        return LM_SCAN_FALSE;
    case JSON_NULL:
        return LM_SCAN_NULL;
    default:
        return LM_SCAN_OTHER;
    }
}


/* Compares both views of a text that jansson has taken for an object. */
static void
compare(const json_t *object, const lm_scan_t *s)
{
    const json_t           *model, *stream;
    const lm_scan_value_t  *found;

    model = json_object_get(object, "model");
    stream = json_object_get(object, "stream");
    found = &s->member[LM_SCAN_MODEL];

    if (type_of(model) != found->type
        || type_of(stream) != s->member[LM_SCAN_STREAM].type)
    {
        abort();
    }

    if (json_is_string(model) && !found->too_long
        && (json_string_length(model) != found->len
            || memcmp(json_string_value(model), found->value, found->len)))
    {
        abort();
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t             i, n, piece;
    json_t            *root;
    lm_scan_t          s;
    lm_scan_result_t   result;

    /* jansson takes a NUL behind a number for white space; JSON does not */

    if (size < 1 || memchr(data, '\0', size) != NULL) {
        return 0;
    }

    piece = data[0] + 1u;
    data++;
    size--;

    lm_scan_init(&s);

    for (i = 0; i < size; i += n) {
        n = size - i < piece ? size - i : piece;
        (void) lm_scan_feed(&s, data + i, n);
    }

    result = lm_scan_finish(&s);

    root = json_loadb((const char *) data, size,
                      JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);

    if (json_is_object(root)) {
        if (result == LM_SCAN_OK) {
            compare(root, &s);

        } else if (result != LM_SCAN_TOO_DEEP) {
            abort();
        }

    } else if (root != NULL
               && result != LM_SCAN_NOT_OBJECT && result != LM_SCAN_INVALID)
    {
        abort();
    }

    json_decref(root);

    return 0;
}
