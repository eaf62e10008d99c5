"""A TLS 1.3 client that uses OpenSSL's functions directly, for features that Python's ssl lacks.

It can update keys at any time, and send malformed certificates. A `Connection` has the methods of an ssl.SSLSocket
that v2peer.Peer needs.
"""

import ctypes
import ctypes.util
import socket
import struct
import unittest

import harness
import v2peer

_P, _I = ctypes.c_void_p, ctypes.c_int

FILETYPE_PEM = 1
CTRL_MODE, MODE_AUTO_RETRY = 33, 4
CTRL_SET_MIN_PROTO_VERSION, TLS1_3 = 123, 0x0304
ERROR_ZERO_RETURN = 6


def _load():
    name = ctypes.util.find_library("ssl")
    library = name and ctypes.CDLL(name)
    if not library or not hasattr(library, "SSL_key_update"):
        raise unittest.SkipTest("OpenSSL's shared library is not here")
    crypto = ctypes.CDLL(ctypes.util.find_library("crypto"))
    for owner, function, result, arguments in (
            (library, "TLS_client_method", _P, []), (library, "SSL_CTX_new", _P, [_P]),
            (library, "SSL_CTX_ctrl", ctypes.c_long, [_P, _I, ctypes.c_long, _P]),
            (library, "SSL_CTX_set_alpn_protos", _I, [_P, ctypes.c_char_p, ctypes.c_uint]),
            (library, "SSL_CTX_use_certificate_chain_file", _I, [_P, ctypes.c_char_p]),
            (library, "SSL_CTX_use_PrivateKey_file", _I, [_P, ctypes.c_char_p, _I]),
            (library, "SSL_CTX_get0_certificate", _P, [_P]), (library, "SSL_CTX_free", None, [_P]),
            (library, "SSL_new", _P, [_P]), (library, "SSL_free", None, [_P]), (library, "SSL_set_fd", _I, [_P, _I]),
            (library, "SSL_connect", _I, [_P]), (library, "SSL_do_handshake", _I, [_P]),
            (library, "SSL_write", _I, [_P, ctypes.c_char_p, _I]), (library, "SSL_read", _I, [_P, _P, _I]),
            (library, "SSL_get_error", _I, [_P, _I]), (library, "SSL_pending", _I, [_P]),
            (library, "SSL_key_update", _I, [_P, _I]),
            (library, "SSL_export_keying_material", _I,
             [_P, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t, _P, ctypes.c_size_t, _I]),
            (crypto, "ERR_clear_error", None, []),
            (crypto, "X509_get0_pubkey_bitstr", _P, [_P]), (crypto, "X509_getm_notBefore", _P, [_P]),
            (crypto, "X509_getm_notAfter", _P, [_P]), (crypto, "X509_gmtime_adj", _P, [_P, ctypes.c_long]),
            (crypto, "X509_get_ext_count", _I, [_P]), (crypto, "X509_get_ext", _P, [_P, _I]),
            (crypto, "X509_EXTENSION_get_data", _P, [_P]), (crypto, "i2d_re_X509_tbs", _I, [_P, _P])):
        getattr(owner, function).restype = result
        getattr(owner, function).argtypes = arguments
    return library, crypto


_ssl, _crypto = _load()


class _String(ctypes.Structure):
    """asn1_string_st."""

    _fields_ = [("length", _I), ("type", _I), ("data", _P), ("flags", ctypes.c_long)]


def _string(pointer):
    return ctypes.cast(pointer, ctypes.POINTER(_String)).contents


def break_time(certificate):
    """Makes notBefore an integer instead of a time."""
    _string(_crypto.X509_getm_notBefore(certificate)).type = 2


def break_key(certificate):
    """Makes the public key a point that is not on its curve."""
    key = _string(_crypto.X509_get0_pubkey_bitstr(certificate))
    ctypes.memset(key.data + 1, 0xFF, key.length - 1)


def expire(certificate):
    """Makes the certificate expire a day ago."""
    _crypto.X509_gmtime_adj(_crypto.X509_getm_notAfter(certificate), -86_400)


def break_extensions(certificate):
    """Makes the values of all extensions invalid DER. Only checks that parse the extensions notice."""
    for number in range(_crypto.X509_get_ext_count(certificate)):
        value = _string(_crypto.X509_EXTENSION_get_data(_crypto.X509_get_ext(certificate, number)))
        ctypes.memset(value.data, 0xFF, value.length)


class Connection:
    def __init__(self, plain, certificate=None, damage=None):
        self._plain = plain
        context = _ssl.SSL_CTX_new(_ssl.TLS_client_method())
        _ssl.SSL_CTX_ctrl(context, CTRL_SET_MIN_PROTO_VERSION, TLS1_3, None)
        _ssl.SSL_CTX_ctrl(context, CTRL_MODE, MODE_AUTO_RETRY, None)
        alpn = v2peer.ALPN.encode()
        _ssl.SSL_CTX_set_alpn_protos(context, bytes([len(alpn)]) + alpn, len(alpn) + 1)
        if certificate:
            path = str(certificate).encode()
            if (_ssl.SSL_CTX_use_certificate_chain_file(context, path) != 1
                    or _ssl.SSL_CTX_use_PrivateKey_file(context, path, FILETYPE_PEM) != 1):
                raise harness.Failure(f"OpenSSL does not take {certificate}")
        if damage:
            raw = _ssl.SSL_CTX_get0_certificate(context)
            damage(raw)
            # Encodes the certificate again from its parts. The signature becomes invalid, which does not matter.
            _crypto.i2d_re_X509_tbs(raw, None)
        self._raw = _ssl.SSL_new(context)
        _ssl.SSL_CTX_free(context)
        # Blocking, with the kernel's timeouts, because OpenSSL has none.
        plain.setblocking(True)
        self.settimeout(harness.PATIENCE)
        _ssl.SSL_set_fd(self._raw, plain.fileno())
        self._check(_ssl.SSL_connect(self._raw))

    def _check(self, code):
        if code <= 0:
            error = _ssl.SSL_get_error(self._raw, code)
            _crypto.ERR_clear_error()
            raise ConnectionError(f"TLS error {error}")
        return code

    def settimeout(self, seconds):
        value = struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000) or 1)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._plain.setsockopt(socket.SOL_SOCKET, option, value)

    def setsockopt(self, *arguments):
        self._plain.setsockopt(*arguments)

    def fileno(self):
        return self._plain.fileno()

    def pending(self):
        return _ssl.SSL_pending(self._raw)

    def sendall(self, data):
        if data:
            self._check(_ssl.SSL_write(self._raw, bytes(data), len(data)))

    def recv(self, size):
        buffer = ctypes.create_string_buffer(size)
        code = _ssl.SSL_read(self._raw, buffer, size)
        if code <= 0 and _ssl.SSL_get_error(self._raw, code) == ERROR_ZERO_RETURN:
            return b""
        return buffer.raw[:self._check(code)]

    def update_key(self, requests_answer=False):
        _ssl.SSL_key_update(self._raw, 1 if requests_answer else 0)
        self._check(_ssl.SSL_do_handshake(self._raw))

    def export(self, label, size):
        """Bytes of the TLS exporter (RFC 8446, 7.5), without a context."""
        buffer = ctypes.create_string_buffer(size)
        self._check(_ssl.SSL_export_keying_material(self._raw, buffer, size, label, len(label), None, 0, 0))
        return buffer.raw

    def close(self):
        if self._raw:
            _ssl.SSL_free(self._raw)
            self._raw = None
        self._plain.close()


def connect(gateway, certificate=None, damage=None):
    """Connects to a gateway, (HOST, PORT); `damage` modifies the client certificate before it is sent."""
    plain = socket.create_connection(gateway, harness.PATIENCE)
    try:
        return Connection(plain, certificate, damage)
    except ConnectionError:
        plain.close()
        raise
