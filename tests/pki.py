"""Keys and certificates for tests: made anew each time, on disk as PEM, never those of anybody."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NOW = datetime.now(UTC)


def private(path: Path, curve: Any = ec.SECP256R1, password: bytes | None = None) -> Any:
    """A new private key, written to `path`, and its public key beside it with the ending `.pub`."""
    key = ec.generate_private_key(curve())
    how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    path.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, how))
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    path.with_suffix(".pub").write_bytes(public)
    return key


def certificate(
    key: Any,
    name: str,
    issuer: tuple[Any, x509.Certificate] | None = None,
    *,
    ca: bool = False,
    signs: bool = True,
    uses: tuple[str, ...] = (),
    days: tuple[int, int] = (-1, 1),
) -> x509.Certificate:
    """A certificate of this key; without an issuer it is issued by itself.

    Args:
        ca: Whether it may issue others.
        signs: Whether it is for signing.
        uses: Purposes that it is for alone, in capitals, such as `CODE_SIGNING`.
        days: When it is valid, in days from now.
    """
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    by, of = issuer or (key, None)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign"), False
    )
    usage |= {"encipher_only": False, "decipher_only": False, "key_cert_sign": ca}
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(of.subject if of else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days=days[0]))
        .not_valid_after(NOW + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=signs and not ca, **usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if of is not None:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key())
        builder = builder.add_extension(identifier, critical=False)
    if uses:
        named = x509.ExtendedKeyUsage([getattr(x509.ExtendedKeyUsageOID, one) for one in uses])
        builder = builder.add_extension(named, critical=False)
    return builder.sign(by, hashes.SHA256())


def write(path: Path, *certificates: x509.Certificate) -> Path:
    """These certificates as one PEM file."""
    path.write_bytes(b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates))
    return path


def chain(folder: Path, issuing: tuple[str, ...] = (), **leaf: Any) -> None:
    """`root.pem`; `signer.pem`, of the key `key.pem`, and what is between: a root, an issuer, a signer.

    What the issuer may issue for is `issuing`, if it is for that alone.
    """
    roots, issuers = private(folder / "root-key.pem"), private(folder / "issuer-key.pem")
    root = certificate(roots, "root", ca=True)
    issuer = certificate(issuers, "issuer", (roots, root), ca=True, uses=issuing)
    signer = certificate(private(folder / "key.pem"), "signer", (issuers, issuer), **leaf)
    write(folder / "root.pem", root)
    write(folder / "signer.pem", signer, issuer)
