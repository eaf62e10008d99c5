/* OpenSSL 3 for Swift: functions in place of macros that Swift cannot import. */
#ifndef DIGLETT_COPENSSL_SHIM_H
#define DIGLETT_COPENSSL_SHIM_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

_Static_assert(OPENSSL_VERSION_MAJOR >= 3, "OpenSSL 3");

static inline EVP_PKEY *cssl_make_p256_key(void) { return EVP_EC_gen("P-256"); }

static inline int cssl_only_tls13(SSL_CTX *c) {
    return SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) && SSL_CTX_set_max_proto_version(c, TLS1_3_VERSION);
}
static inline void cssl_set_mode(SSL_CTX *c) {
    SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                            SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}
/* Disables tickets: links do not use them to reconnect, and observers could recognise a link by its ticket. The server
   chooses the cipher. */
static inline void cssl_set_options(SSL_CTX *c) {
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(c, 0);
    SSL_CTX_set_options(c, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                               SSL_OP_CIPHER_SERVER_PREFERENCE);
}
/* Whether the CPU has AES instructions; without them ChaCha20 is faster. */
static inline int cssl_has_aes(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_cpu_init();
    return __builtin_cpu_supports("aes");
#else
    return 1;
#endif
}
static inline long cssl_set_server_name(SSL *s, const char *name) { return SSL_set_tlsext_host_name(s, name); }

/* On success (non-zero) the context owns the certificate; otherwise the caller still does. */
static inline long cssl_add_chain_certificate(SSL_CTX *c, X509 *x) { return SSL_CTX_add_extra_chain_cert(c, x); }

/* Calls `f` for each handshake message and record header; its first argument is 0 for received and 1 for sent. */
static inline void cssl_watch_messages(SSL *s,
                                       void (*f)(int, int, int, const void *, size_t, SSL *, void *), void *argument) {
    SSL_set_msg_callback(s, f);
    SSL_set_msg_callback_arg(s, argument);
}
static inline void cssl_set_max_cert_list(SSL_CTX *c, long bytes) { SSL_CTX_set_max_cert_list(c, bytes); }

/* Seconds since 1970, or INT64_MIN if the value is not a valid time. */
static inline int64_t cssl_seconds(const ASN1_TIME *t) {
    struct tm parts;
    return ASN1_TIME_to_tm(t, &parts) == 1 ? (int64_t)timegm(&parts) : INT64_MIN;
}

static inline void cssl_bio_clear_retry(BIO *b) { BIO_clear_retry_flags(b); }
static inline void cssl_bio_retry_read(BIO *b) { BIO_set_retry_read(b); }

#endif
