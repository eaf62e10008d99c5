"""A test certificate authority, which issues certificates with arbitrary dates."""

import datetime
import ipaddress
import os
import socket
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def _name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _san(host):
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def days_from_now(days):
    return datetime.datetime.utcnow().replace(microsecond=0) + datetime.timedelta(days=days)


def replace(path, data, mode=0o644):
    """Replaces a file atomically, like programs that renew certificates."""
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(data)
    beside.chmod(mode)
    os.replace(beside, path)


class Certificate:
    """A certificate and its key, as PEM."""

    def __init__(self, certificate, key):
        self.serial = certificate.serial_number
        self.expires = certificate.not_valid_after.strftime("%Y-%m-%dT%H:%M:%SZ")
        self.expiry = certificate.not_valid_after.replace(tzinfo=datetime.timezone.utc).timestamp()
        self.pem = certificate.public_bytes(serialization.Encoding.PEM)
        self.key = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())

    def write(self, directory, name="tls"):
        """Writes or replaces the files in `directory`; returns their paths (certificate, key)."""
        certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
        replace(certificate, self.pem)
        replace(key, self.key, 0o600)
        return certificate, key


class Authority:
    """A certificate authority. `file` contains its certificate, for SSL_CERT_FILE."""

    def __init__(self, directory):
        self._key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign("test authority", self._key, (-30, 365), [
            (x509.BasicConstraints(ca=True, path_length=None), True)])
        self.file = directory / "authority.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(self, subject, key, days, extensions, issuer="test authority", issuer_key=None):
        builder = x509.CertificateBuilder(
            _name(issuer), _name(subject), key.public_key(), x509.random_serial_number(),
            days_from_now(days[0]), days_from_now(days[1]))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(issuer_key or self._key, hashes.SHA256())

    def issue(self, host="localhost", days=(-1, 90)):
        """Issues a certificate for `host`; `days` are the start and end of its validity, from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(host, key, days, [(x509.SubjectAlternativeName([_san(host)]), False)])
        return Certificate(certificate, key)

    def self_signed(self, host="localhost", days=(-1, 90)):
        """Makes a self-signed certificate with the same properties."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(host, key, days, [(x509.SubjectAlternativeName([_san(host)]), False)],
                                 issuer=host, issuer_key=key)
        return Certificate(certificate, key)


def shown_serial(gateway):
    """The serial number of the certificate that the gateway presents to a new connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["diglett/2"])
    with socket.create_connection((gateway.host, gateway.port), 10) as plain:
        with context.wrap_socket(plain) as tls:
            return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True)).serial_number
