"""A signature: who vouches for the bytes of a directory. OpenSSF Model Signing 1.0, by key or by certificate.

`model.sig` is a Sigstore bundle around a DSSE envelope, whose payload is an in-toto statement that lists
every other file with its SHA-256. What other tools have signed is verified here, and they verify what is
signed here. Where the specification leaves something open the stricter reading is taken: every file has to be
listed, whatever the signer says was left out; a certificate has to be valid now, not when it was made; and
base64 has to be the one way to say its bytes.

Import it where it is needed: `cryptography` comes with the extra `sign`.

Source: https://github.com/ossf/model-signing-spec, spec/v1.0.md, sections 4 to 8 and 11; DSSE 1.0.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.x509 import verification

from explainer_runtime.artifact import strict_json
from explainer_runtime.artifact.directory import SIGNATURE
from explainer_runtime.artifact.strict_json import short
from explainer_runtime.errors import InvalidArtifact, InvalidSpec

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://model_signing/signature/v1.0"
_SERIALIZATION = {
    "method": "files",
    "hash_type": "sha256",
    "allow_symlinks": False,
    "ignore_paths": [".git", ".gitattributes", ".github", ".gitignore", SIGNATURE],
}
_HASHES: dict[str, Callable[[], hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256,
    "secp384r1": hashes.SHA384,
    "secp521r1": hashes.SHA512,
}
"""Hash of a signature, by each curve that there may be."""
_Refuse = Callable[[str], Exception]
_STRANGE = (
    *(ValueError, UnsupportedAlgorithm, x509.InvalidVersion),
    *(x509.DuplicateExtension, x509.UnsupportedGeneralNameType),
)
"""What `cryptography` raises for keys and certificates that it cannot read."""


class Trust(NamedTuple):
    """Whose signatures are believed: those by one key, or by certificates that lead to one of these roots."""

    key: ec.EllipticCurvePublicKey | None
    roots: tuple[x509.Certificate, ...] = ()
    others: tuple[x509.Certificate, ...] = ()


def trusted(path: str | Path, name: str) -> Trust:
    """Whom the PEM file at `path` says to believe.

    Args:
        path: A public key, or certificates of which one at least is a root (issued by itself); the others may
            stand between it and a signer's.
        name: What the file was given as, for messages.

    Raises:
        InvalidSpec: It cannot be read, is neither, or has expired.
    """
    with _reading(path, name) as data:
        if b"PRIVATE KEY" in data:
            raise InvalidSpec(f"{name}: {path} is a private key; whoever verifies needs the public one alone")
        if b"BEGIN CERTIFICATE" not in data:
            if data.count(b"-----BEGIN") > 1:
                raise InvalidSpec(
                    f"{name}: {path} has several keys; expected one, or certificates with a root"
                )
            return Trust(_supported(load_pem_public_key(data)))
        found = x509.load_pem_x509_certificates(data)
    _check_times(found, lambda words: InvalidSpec(f"{name}: {path}: {words}"))
    roots = tuple(one for one in found if one.issuer == one.subject)
    if not roots:
        raise InvalidSpec(f"{name}: {path} has no root, a certificate that is issued by itself")
    return Trust(None, roots, tuple(one for one in found if one not in roots))


def signed(
    name: str,
    digests: Mapping[str, str],
    key: str | Path,
    certificate: str | Path | None,
    password: str | None,
) -> bytes:
    """The bytes of `model.sig`.

    Args:
        name: What the directory is called; for people.
        digests: SHA-256 of every file but the signature, in hexadecimal, by path.
        key: A PEM file with a private key on P-256, P-384 or P-521.
        certificate: A PEM file with the certificate of that key, then those between it and a root, if any.
        password: Of the key, where it is encrypted.

    Raises:
        InvalidSpec: The key or the certificate cannot be used, or they do not belong together.
    """
    with _reading(key, "key") as data:
        private: Any = load_pem_private_key(data, password.encode() if password else None)
        public = _supported(private.public_key())
    material: dict[str, Any] = {"publicKey": {"hint": _hint(public)}}
    if certificate is not None:
        with _reading(certificate, "certificate") as data:
            leaf, *chain = x509.load_pem_x509_certificates(data)
        _check_signer(leaf, [leaf, *chain], lambda words: InvalidSpec(f"certificate: {certificate}: {words}"))
        if leaf.public_key() != public:
            raise InvalidSpec(f"certificate: {certificate}: the first is not of the key {key}")
        # Without the root: whoever verifies has that already, and believes no other.
        sent = [leaf, *(one for one in chain if one.issuer != one.subject)]
        raw = [{"rawBytes": _text(one.public_bytes(Encoding.DER))} for one in sent]
        material = {"x509CertificateChain": {"certificates": raw}}
    resources = [{"name": path, "digest": digests[path], "algorithm": "sha256"} for path in sorted(digests)]
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": _root(resources)}}],
        "predicateType": PREDICATE,
        "predicate": {"resources": resources, "serialization": _SERIALIZATION},
    }
    payload = json.dumps(statement, indent=1).encode()
    signature = private.sign(_encoded(payload), _ecdsa(public))
    envelope = {"payload": _text(payload), "payloadType": PAYLOAD, "signatures": [{"sig": _text(signature)}]}
    document = {
        "mediaType": BUNDLE,
        "verificationMaterial": {**material, "tlogEntries": []},
        "dsseEnvelope": envelope,
    }
    return json.dumps(document, separators=(",", ":")).encode()


def check(bundle: bytes, digests: Mapping[str, str], trust: Trust) -> str:
    """Refuse files that nobody who is believed has signed.

    Args:
        bundle: The bytes of `model.sig`.
        digests: SHA-256 of every other file that is there, in hexadecimal, by path.
        trust: Whom to believe.

    Returns:
        Who signed: `key` and the SHA-256 of the public key as PEM, or `certificate`, its subject and SHA-256.

    Raises:
        InvalidArtifact: The signature is none, not of somebody who is believed, or of other files.
    """
    document = strict_json.parse(bundle, SIGNATURE)
    try:
        _expect(document["mediaType"], BUNDLE)
        envelope, material = document["dsseEnvelope"], document["verificationMaterial"]
        _expect(envelope["payloadType"], PAYLOAD)
        (signature,) = envelope["signatures"]
        payload = _bytes(envelope["payload"])
        public, signer = (_key if trust.key else _certificate)(material, trust)
        public.verify(_bytes(signature["sig"]), _encoded(payload), _ecdsa(public))
        statement = strict_json.parse(payload, SIGNATURE)
        _expect(statement["_type"], STATEMENT)
        _expect(statement["predicateType"], PREDICATE)
        _compare(statement, digests)
    except InvalidSignature:
        raise InvalidArtifact(f"{SIGNATURE}: is not a signature of what it lists by that key") from None
    except (KeyError, TypeError, AttributeError, *_STRANGE) as error:
        why = f"{short(error.args[0])} is missing" if isinstance(error, KeyError) else short(str(error))
        raise InvalidArtifact(f"{SIGNATURE}: is not the bundle it should be: {why}") from None
    return signer


def _compare(statement: Mapping[str, Any], digests: Mapping[str, str]) -> None:
    (subject,), predicate = statement["subject"], statement["predicate"]
    how, resources = predicate["serialization"], predicate["resources"]
    if (how["method"], how["hash_type"]) != ("files", "sha256"):
        was = f"{short(how['method'])} by {short(how['hash_type'])}"
        raise InvalidArtifact(
            f"{SIGNATURE}: expected a signature of files by sha256, got {was}; sign it again"
        )
    listed = {one["name"]: one["digest"] for one in resources if one["algorithm"] == "sha256"}
    if len(listed) != len(resources) or subject["digest"]["sha256"] != _root(resources):
        raise InvalidArtifact(f"{SIGNATURE}: its list of files contradicts itself")
    for path in sorted(digests.keys() | listed.keys()):
        if path not in listed:
            raise InvalidArtifact(f"{path}: is not among the files that were signed; remove it or sign again")
        if path not in digests:
            raise InvalidArtifact(f"{short(path)}: was signed and is missing; copy the artifact again")
        if digests[path] != listed[path]:
            raise InvalidArtifact(f"{path}: is not the file that was signed; copy the artifact again")


def _key(material: Mapping[str, Any], trust: Trust) -> tuple[ec.EllipticCurvePublicKey, str]:
    assert trust.key is not None
    own = _hint(trust.key)
    if "publicKey" not in material:
        raise InvalidArtifact(f"{SIGNATURE}: is not signed by a key alone; verify it by a certificate chain")
    said = material["publicKey"].get("hint")  # before 1.1.0 the reference wrote none
    if said not in (None, own):
        raise InvalidArtifact(
            f"{SIGNATURE}: is signed by another key ({short(said)}) than the one given ({own})"
        )
    return trust.key, f"key {own}"


def _certificate(material: Mapping[str, Any], trust: Trust) -> tuple[ec.EllipticCurvePublicKey, str]:
    if "x509CertificateChain" not in material:
        raise InvalidArtifact(f"{SIGNATURE}: is not signed by a certificate of a chain; verify it by a key")
    raw = [_bytes(one["rawBytes"]) for one in material["x509CertificateChain"]["certificates"]]
    leaf, *between = sent = [x509.load_der_x509_certificate(one) for one in raw]
    _check_signer(leaf, sent, lambda words: InvalidArtifact(f"{SIGNATURE}: {words}"))
    any_ = verification.ExtensionPolicy.permit_all()
    issuers = any_.require_present(x509.BasicConstraints, verification.Criticality.AGNOSTIC, _may_issue)
    builder = (
        verification.PolicyBuilder().store(verification.Store(list(trust.roots))).time(datetime.now(UTC))
    )
    verifier = builder.extension_policies(ee_policy=any_, ca_policy=issuers).build_client_verifier()
    try:
        chain = verifier.verify(leaf, [*between, *trust.others]).chain
    except verification.VerificationError as error:
        raise InvalidArtifact(
            f"{SIGNATURE}: the certificate {_named(leaf)} leads to no trusted root ({short(str(error))})"
        ) from None
    if any(one not in chain for one in sent):
        raise InvalidArtifact(f"{SIGNATURE}: holds certificates that are not of the chain")
    fingerprint = leaf.fingerprint(hashes.SHA256()).hex()
    return _supported(leaf.public_key()), f"certificate {_named(leaf)} {fingerprint}"


def _may_issue(policy: Any, certificate: x509.Certificate, constraints: Any) -> None:
    usage = _extension(certificate, x509.KeyUsage)
    if not constraints.ca or not (usage is None or usage.key_cert_sign) or not _for_code(certificate, True):
        raise ValueError(f"{_named(certificate)} may not issue certificates")


def _check_signer(leaf: x509.Certificate, chain: Sequence[x509.Certificate], refuse: _Refuse) -> None:
    """Refuse a certificate that is not for signing, or of whose chain one is not valid now."""
    _check_times(chain, refuse)
    usage = _extension(leaf, x509.KeyUsage)
    # A server's certificate, of the same authority, may sign as well, but its handshakes only.
    if not _for_code(leaf, usage is not None) or not (usage is None or usage.digital_signature):
        wanted = (
            "its key usage has to have digitalSignature, or its extended key usage codeSigning; if both, both"
        )
        raise refuse(f"the certificate {_named(leaf)} is not for signing: {wanted}")


def _for_code(certificate: x509.Certificate, unsaid: bool) -> bool:
    """Whether the purposes that a certificate has are that of code; `unsaid` where it is of none.

    Source: RFC 5280, section 4.2.1.12.
    """
    uses = _extension(certificate, x509.ExtendedKeyUsage)
    return unsaid if uses is None else x509.ExtendedKeyUsageOID.CODE_SIGNING in uses


def _check_times(chain: Sequence[x509.Certificate], refuse: _Refuse) -> None:
    now = datetime.now(UTC)
    for one in chain:
        if now < one.not_valid_before_utc:
            raise refuse(f"the certificate {_named(one)} is not valid before {one.not_valid_before_utc}")
        if now > one.not_valid_after_utc:
            raise refuse(f"the certificate {_named(one)} has expired on {one.not_valid_after_utc}")


def _extension(certificate: x509.Certificate, kind: Any) -> Any:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _named(certificate: x509.Certificate) -> str:
    return short(certificate.subject.rfc4514_string())


def _root(resources: Any) -> str:
    """The digest of all files together, section 6.5.1."""
    return hashlib.sha256(b"".join(bytes.fromhex(one["digest"]) for one in resources)).hexdigest()


def _encoded(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed says of what type it is, and how long."""
    return b"DSSEv1 %d %b %d %b" % (len(PAYLOAD), PAYLOAD.encode(), len(payload), payload)


def _ecdsa(public: ec.EllipticCurvePublicKey) -> ec.ECDSA:
    return ec.ECDSA(_HASHES[public.curve.name]())


def _supported(key: Any) -> ec.EllipticCurvePublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
        raise ValueError("expected a key on P-256, P-384 or P-521")
    return key


def _hint(public: ec.EllipticCurvePublicKey) -> str:
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()


def _expect(value: Any, wanted: str) -> None:
    if value != wanted:
        raise ValueError(f"expected {wanted}, got {short(value)}")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    if _text(data) != text:
        raise ValueError("base64 with bits left over")
    return data


@contextmanager
def _reading(path: str | Path, name: str) -> Iterator[bytes]:
    """The file, for reading it within; what goes wrong is told without a word of its content, a secret."""
    try:
        yield Path(path).read_bytes()
    except OSError as error:
        raise InvalidSpec(f"{name}: {path}: {error.strerror}") from None
    except TypeError:  # how `cryptography` says that a password is missing, or is too many
        raise InvalidSpec(f"{name}: {path}: is encrypted and there is no password, or the reverse") from None
    except _STRANGE:
        raise InvalidSpec(
            f"{name}: {path}: is not what was expected, PEM of a certificate or of a key on P-256, P-384 or "
            "P-521; or its password is another"
        ) from None
