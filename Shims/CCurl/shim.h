/* libcurl for Swift, which can neither call variadic functions nor import complex macros: one wrapper for each
   argument type, and the macros as constants. */
#ifndef DIGLETT_CCURL_SHIM_H
#define DIGLETT_CCURL_SHIM_H

#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>

/* For CURLOPT_QUICK_EXIT and CURLOPT_CA_CACHE_TIMEOUT. */
_Static_assert(LIBCURL_VERSION_NUM >= 0x075700, "libcurl 7.87 or later");

typedef size_t (*ccurl_write_callback)(char *bytes, size_t size, size_t count, void *context);

static inline CURLcode ccurl_set_long(CURL *c, CURLoption o, long value) { return curl_easy_setopt(c, o, value); }
static inline CURLcode ccurl_set_offset(CURL *c, CURLoption o, curl_off_t value) {
    return curl_easy_setopt(c, o, value);
}
static inline CURLcode ccurl_set_string(CURL *c, CURLoption o, const char *value) {
    return curl_easy_setopt(c, o, value);
}
static inline CURLcode ccurl_set_pointer(CURL *c, CURLoption o, void *value) { return curl_easy_setopt(c, o, value); }
static inline CURLcode ccurl_set_list(CURL *c, CURLoption o, struct curl_slist *value) {
    return curl_easy_setopt(c, o, value);
}
static inline CURLcode ccurl_set_write(CURL *c, ccurl_write_callback callback, void *context) {
    CURLcode code = curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, callback);
    return code != CURLE_OK ? code : curl_easy_setopt(c, CURLOPT_WRITEDATA, context);
}
static inline long ccurl_status(CURL *c) {
    long status = 0;
    return curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status) == CURLE_OK ? status : 0;
}

static inline CURLMcode ccurl_multi_set_long(CURLM *m, CURLMoption o, long value) {
    return curl_multi_setopt(m, o, value);
}
static inline void ccurl_multi_set_callbacks(CURLM *m, curl_socket_callback socket, curl_multi_timer_callback timer,
                                             void *context) {
    curl_multi_setopt(m, CURLMOPT_SOCKETFUNCTION, socket);
    curl_multi_setopt(m, CURLMOPT_SOCKETDATA, context);
    curl_multi_setopt(m, CURLMOPT_TIMERFUNCTION, timer);
    curl_multi_setopt(m, CURLMOPT_TIMERDATA, context);
}
/* Returns the next finished transfer and stores its result; NULL if none has finished. */
static inline CURL *ccurl_next_done(CURLM *m, CURLcode *result) {
    CURLMsg *message;
    int rest;
    while ((message = curl_multi_info_read(m, &rest))) {
        if (message->msg != CURLMSG_DONE) continue;
        *result = message->data.result;
        return message->easy_handle;
    }
    return NULL;
}

static const curl_socket_t ccurl_socket_timeout = CURL_SOCKET_TIMEOUT;
static const long ccurl_global_default = CURL_GLOBAL_DEFAULT;

#endif
