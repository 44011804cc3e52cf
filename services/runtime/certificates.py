"""A process's certificate on disk, which may be replaced while the process runs."""

import logging
import ssl
import time
from dataclasses import dataclass, field

import grpc

from services.runtime.config import TlsSettings
from services.runtime.errors import SetupError

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""Least time between two looks at the files."""

_Stamp = tuple[tuple[int, int, int], ...] | None


@dataclass(frozen=True)
class Certificate:
    """What the files held, PEM."""

    chain: bytes
    key: bytes = field(repr=False)
    authority: bytes

    def server_configuration(self) -> grpc.ServerCertificateConfiguration:
        """As a server shows it and checks its clients by."""
        return grpc.ssl_server_certificate_configuration([(self.key, self.chain)], self.authority)

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """As a client shows it and checks servers by."""
        return grpc.ssl_channel_credentials(self.authority, self.key, self.chain)


class CertificateFiles:
    """Follows the three files. A replacement that is not whole yet, or is wrong, is logged and left alone: the last
    good certificate stays."""

    def __init__(self, settings: TlsSettings) -> None:
        """SetupError when a file is missing or they do not belong together."""
        self._settings = settings
        self._stamp = self._stamp_now()
        self._next_look = time.monotonic() + LOOK_S
        self.current = read_certificate(settings)

    def renewed(self) -> Certificate | None:
        """The certificate, if it was replaced since it was last told; else none. Cheap enough to ask for each call."""
        now = time.monotonic()
        if now < self._next_look:
            return None
        self._next_look = now + LOOK_S
        # Before reading: what is replaced meanwhile is seen the next time.
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        try:
            certificate = read_certificate(self._settings)
        except SetupError as error:
            log.error("certificate not taken", extra={"problem": str(error)})
            return None
        if certificate == self.current:
            return None
        self.current = certificate
        log.info("certificate renewed", extra={"certificate_file": str(self._settings.certificate_file)})
        return certificate

    def _stamp_now(self) -> _Stamp:
        files = (self._settings.certificate_file, self._settings.key_file, self._settings.ca_file)
        try:
            # Of what a link leads to: a mounted secret is replaced by turning one link.
            stats = [file.stat() for file in files]
        except OSError:
            return None
        return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in stats)


def read_certificate(settings: TlsSettings) -> Certificate:
    """The files' content. SetupError when one cannot be read, or the key is not the certificate's."""
    try:
        certificate = Certificate(
            settings.certificate_file.read_bytes(), settings.key_file.read_bytes(), settings.ca_file.read_bytes()
        )
    except OSError as error:
        raise SetupError(f"tls: {error.filename}: cannot be read: {error.strerror}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password function a key that needs one would ask the terminal.
        context.load_cert_chain(settings.certificate_file, settings.key_file, password=lambda: "")
    except (OSError, ValueError) as error:
        raise SetupError(
            f"tls: {settings.certificate_file} and {settings.key_file} are not a certificate and its key: {error}"
        ) from None
    try:
        context.load_verify_locations(cadata=certificate.authority.decode("ascii"))
    except (OSError, ValueError) as error:
        raise SetupError(f"tls: {settings.ca_file} holds no certificate of an authority: {error}") from None
    return certificate


def server_credentials(files: CertificateFiles) -> grpc.ServerCredentials:
    """Mutual TLS that shows each new client the newest certificate; connections that are open stay."""

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        renewed = files.renewed()
        return renewed.server_configuration() if renewed is not None else None

    return grpc.dynamic_ssl_server_credentials(
        files.current.server_configuration(),
        fetch,  # type: ignore[arg-type]  # None says that nothing changed; the stubs do not know it
        require_client_authentication=True,
    )
