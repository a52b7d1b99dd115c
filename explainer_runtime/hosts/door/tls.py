"""Certificates for both protocols, read again when their files change.

cert-manager renews a certificate by replacing files in a mounted directory, and a server that has read them
once answers with an expired one some day. REST's context is given the new chain in place, which new
connections use; gRPC asks for it at each handshake.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from explainer_runtime.errors import InvalidSpec
from explainer_runtime.hosts.door.limits import Guard

_SECONDS = 5.0
"""Between two looks at the files."""


class Tls:
    """The certificates of a server.

    Args:
        guard: Says where they are; `tls_cert` is set.

    Raises:
        InvalidSpec: A file cannot be read, or the key is not that of the certificate.
    """

    def __init__(self, guard: Guard) -> None:
        assert guard.tls_cert is not None
        assert guard.tls_key is not None
        self._cert, self._key, self._ca = guard.tls_cert, guard.tls_key, guard.tls_client_ca
        try:
            self.context = self._context()
            self._state, self._given = self._looked(), self._read()
        except (OSError, ssl.SSLError) as error:
            reason = error.strerror or str(error)
            raise InvalidSpec(f"tls_cert, tls_key, tls_client_ca: cannot be used: {reason}") from None

    def credentials(self) -> Any:
        """Of a gRPC server; asked again at each handshake."""
        first = grpc.ssl_server_certificate_configuration(*self._read())
        seen = [self._given]

        def fetch() -> Any:
            if self._given is seen[0]:
                return None
            seen[0] = self._given
            return grpc.ssl_server_certificate_configuration(*self._given)

        return grpc.dynamic_ssl_server_credentials(first, fetch, require_client_authentication=bool(self._ca))

    async def watch(self, told: Callable[[str], None]) -> None:
        """Look at the files, for as long as the server runs.

        Args:
            told: Called with one sentence when they have changed.
        """
        while True:
            await asyncio.sleep(_SECONDS)
            self.renew(told)

    def renew(self, told: Callable[[str], None]) -> None:
        """Use what is in the files now; where they do not fit each other, what was there before."""
        try:
            state = self._looked()
            if state == self._state:
                return
            self._state = state
            self._context()  # a pair that does not fit is found before it is used
            self.context.load_cert_chain(self._cert, self._key)
            self._given = self._read()
            told("the certificate was replaced")
        except (OSError, ssl.SSLError) as error:
            told(f"the certificate was not replaced: {error.strerror or error}")

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._cert, self._key)
        if self._ca is not None:  # whoever shows none may still ask about health, as probes do
            context.load_verify_locations(self._ca)
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def _read(self) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        ca = self._ca.read_bytes() if self._ca is not None else None
        return [(self._key.read_bytes(), self._cert.read_bytes())], ca

    def _looked(self) -> list[tuple[int, int, int]]:
        files: list[Path] = [file for file in (self._cert, self._key, self._ca) if file is not None]
        stats = [file.stat() for file in files]
        return [(one.st_mtime_ns, one.st_ino, one.st_size) for one in stats]
