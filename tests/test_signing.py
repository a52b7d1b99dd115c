"""Signatures: what was signed is what is verified, by whom it was; anything else is refused and says why."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pki
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from toys import CLASSES, SHAPE, rowwise, weights
from typer.testing import CliRunner

from explainer_runtime import artifact, fit
from explainer_runtime.artifact import Fitted, signing
from explainer_runtime.cli import app
from explainer_runtime.errors import InvalidArtifact, InvalidSpec
from explainer_runtime.spec import AnchorImage, CounterfactualProto, Grid, Inputs, Neighbours

HERE = Path(__file__).parent / "signing"
VECTORS, REFERENCE = HERE / "vectors", HERE / "reference"
OTHERS = Path(__file__).parents[1] / ".venv-signing" / "bin" / "python"
INPUTS = Inputs(shape=(4, 4, 1), low=-0.5, high=0.5, classes=3)
FITTED = Fitted(AnchorImage(segmentation=Grid()), INPUTS, {"background": np.arange(6, dtype="float32")})
needs_others = pytest.mark.skipif(
    not OTHERS.exists(), reason="no .venv-signing with the released model-signing; `make test` makes it"
)


@pytest.fixture
def place(tmp_path) -> Path:
    """An artifact with a server's settings beside it, and keys and certificates around it."""
    artifact.save(FITTED, tmp_path / "one")
    (tmp_path / "one" / "model-settings.json").write_text('{"name": "one"}')
    pki.chain(tmp_path)
    pki.private(tmp_path / "other.pem")
    return tmp_path


def verified(place: Path, trust: str) -> artifact.Report:
    return artifact.verify(place / "one", trust=artifact.trusted(place / trust))


def digests(folder: Path) -> dict[str, str]:
    """Of what a stranger's directory has to hold: not the signature, nor what its test says was left out."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name not in ("model.sig", "ignore-me")
    }


# --- ours -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])
def test_what_a_key_signs_its_public_key_verifies(place, curve):
    pki.private(place / "own.pem", curve)
    artifact.sign(place / "one", place / "own.pem")
    pem = (place / "own.pub").read_bytes()
    assert verified(place, "own.pub").signature == f"key {hashlib.sha256(pem).hexdigest()}"


def test_what_a_certificate_signs_its_root_verifies(place):
    artifact.sign(place / "one", place / "key.pem", place / "signer.pem")
    assert verified(place, "root.pem").signature.startswith("certificate 'CN=signer' ")


def test_an_encrypted_key_signs_with_its_password_and_not_without(place):
    pki.private(place / "own.pem", password=b"open")
    artifact.sign(place / "one", place / "own.pem", password="open")
    assert verified(place, "own.pub").signature.startswith("key ")
    for password in (None, "shut"):
        with pytest.raises(InvalidSpec, match=r"key: .*own\.pem.*password"):
            artifact.sign(place / "one", place / "own.pem", password=password)


def test_a_signature_changes_neither_the_digest_nor_what_is_loaded(place):
    before = artifact.verify(place / "one")
    after = artifact.sign(place / "one", place / "key.pem")
    assert (before.signature, after.signature) == ("unsigned", "not verified")
    assert (before.digest, before.files) == (after.digest, after.files)
    trust = artifact.trusted(place / "key.pub")
    assert artifact.load(place / "one", trust=trust).arrays["background"].tolist() == [*range(6)]


def test_saving_anew_takes_the_signature_away(place):
    artifact.sign(place / "one", place / "key.pem")
    artifact.save(FITTED, place / "one")
    assert artifact.verify(place / "one").signature == "unsigned"


@pytest.mark.parametrize("trust", ["key.pub", "root.pem"])
def test_every_change_of_one_byte_is_refused(place, trust):
    """200 of them, over all files of the artifact, the signature among them."""
    artifact.sign(place / "one", place / "key.pem", place / "signer.pem" if trust == "root.pem" else None)
    believed = artifact.trusted(place / trust)
    assert artifact.verify(place / "one", trust=believed).signature != "unsigned"
    rng = np.random.default_rng(0)
    files = sorted(path for path in (place / "one").rglob("*") if path.is_file())
    assert len(files) == 4
    for turn in range(200):
        path = files[turn % len(files)]
        data = path.read_bytes()
        at, flip = int(rng.integers(len(data))), int(rng.integers(1, 256))
        path.write_bytes(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :])
        with pytest.raises(InvalidArtifact):
            artifact.verify(place / "one", trust=believed)
        path.write_bytes(data)
    assert artifact.verify(place / "one", trust=believed).signature != "unsigned"


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_damage_within_a_certificate_is_refused_in_our_own_words(place):
    artifact.sign(place / "one", place / "key.pem", place / "signer.pem")
    bundle, known = json.loads((place / "one" / "model.sig").read_bytes()), digests(place / "one")
    trust, rng = artifact.trusted(place / "root.pem"), np.random.default_rng(0)
    sent = bundle["verificationMaterial"]["x509CertificateChain"]["certificates"]
    for turn in range(300):
        one = sent[turn % 2]
        kept, der = one["rawBytes"], bytearray(base64.b64decode(one["rawBytes"]))
        der[rng.integers(len(der))] ^= rng.integers(1, 256)
        one["rawBytes"] = base64.b64encode(der).decode()
        with pytest.raises(InvalidArtifact, match=r"model\.sig: "):
            signing.check(json.dumps(bundle).encode(), known, trust)
        one["rawBytes"] = kept
    assert signing.check(json.dumps(bundle).encode(), known, trust).startswith("certificate")


def test_files_that_come_go_or_are_swapped_are_refused(place):
    artifact.sign(place / "one", place / "key.pem")
    (place / "one" / "model-settings.json").unlink()
    with pytest.raises(InvalidArtifact, match=r"model-settings\.json.*was signed and is missing"):
        verified(place, "key.pub")
    artifact.sign(place / "one", place / "key.pem")
    (place / "one" / "model-settings.json").write_text("{}")
    with pytest.raises(InvalidArtifact, match=r"model-settings\.json.*not among the files"):
        verified(place, "key.pub")


def test_another_valid_artifact_under_the_same_signature_is_refused(place):
    artifact.sign(place / "one", place / "key.pem")
    signature = (place / "one" / "model.sig").read_bytes()
    artifact.save(Fitted(AnchorImage(threshold=0.5), INPUTS), place / "one")
    (place / "one" / "model.sig").write_bytes(signature)
    with pytest.raises(InvalidArtifact, match=r"not the file that was signed|was signed and is missing"):
        verified(place, "key.pub")


def test_a_file_that_the_signer_left_out_is_refused_whatever_the_signature_says(place):
    """A signer's `ignore_paths` would let anything be put there."""
    known = digests(place / "one")
    short = {name: value for name, value in known.items() if name != "arrays.safetensors"}
    bundle = signing.signed("one", short, place / "key.pem", None, None)
    with pytest.raises(InvalidArtifact, match=r"arrays\.safetensors: is not among"):
        signing.check(bundle, known, artifact.trusted(place / "key.pub"))


def test_what_is_not_signed_by_whom_it_should_be_says_so(place):
    with pytest.raises(InvalidArtifact, match=r"model\.sig: is missing"):
        verified(place, "key.pub")
    artifact.sign(place / "one", place / "key.pem")
    with pytest.raises(InvalidArtifact, match="by another key"):
        verified(place, "other.pub")
    with pytest.raises(InvalidArtifact, match="verify it by a key"):
        verified(place, "root.pem")
    artifact.sign(place / "one", place / "key.pem", place / "signer.pem")
    with pytest.raises(InvalidArtifact, match="verify it by a certificate chain"):
        verified(place, "key.pub")
    pki.chain(place)  # others of the same names
    with pytest.raises(InvalidArtifact, match="'CN=signer' leads to no trusted root"):
        verified(place, "root.pem")


@pytest.mark.parametrize(
    ("leaf", "words"),
    [
        ({"days": (-9, -2)}, "'CN=signer' has expired"),
        ({"days": (2, 9)}, "'CN=signer' is not valid before"),
        ({"signs": False}, "'CN=signer' is not for signing"),
        ({"signs": False, "uses": ("CODE_SIGNING",)}, "'CN=signer' is not for signing"),
        ({"uses": ("SERVER_AUTH", "CLIENT_AUTH")}, "'CN=signer' is not for signing"),
    ],
)
def test_a_certificate_that_may_not_sign_now_neither_signs_nor_is_believed(place, leaf, words, monkeypatch):
    pki.chain(place, **leaf)
    with pytest.raises(InvalidSpec, match=words):
        artifact.sign(place / "one", place / "key.pem", place / "signer.pem")
    with monkeypatch.context() as patch:  # as another tool would, that does not look
        patch.setattr(signing, "_check_signer", lambda *given: None)
        artifact.sign(place / "one", place / "key.pem", place / "signer.pem")
    with pytest.raises(InvalidArtifact, match=words):
        verified(place, "root.pem")


def test_purposes_are_held_to_along_the_chain(place):
    """What issues certificates for servers only vouches for nobody who signs."""
    pki.chain(place, ("CODE_SIGNING",), uses=("CODE_SIGNING", "CLIENT_AUTH"))
    artifact.sign(place / "one", place / "key.pem", place / "signer.pem")
    assert verified(place, "root.pem").signature.startswith("certificate 'CN=signer' ")
    pki.chain(place, ("SERVER_AUTH",))
    artifact.sign(place / "one", place / "key.pem", place / "signer.pem")
    with pytest.raises(InvalidArtifact, match="'CN=signer' leads to no trusted root"):
        verified(place, "root.pem")


def test_a_signer_s_certificate_issues_no_others(place):
    roots = pki.private(place / "root-key.pem")
    root = pki.certificate(roots, "root", ca=True)
    middle = pki.private(place / "middle.pem")
    between = pki.certificate(middle, "signer", (roots, root))
    leaf = pki.certificate(pki.private(place / "key.pem"), "thief", (middle, between))
    pki.write(place / "root.pem", root)
    artifact.sign(place / "one", place / "key.pem", pki.write(place / "thief.pem", leaf, between))
    with pytest.raises(InvalidArtifact, match="'CN=thief' leads to no trusted root"):
        verified(place, "root.pem")


def test_keys_that_cannot_be_used_are_refused_without_a_word_of_them(place, caplog):
    caplog.set_level(logging.DEBUG)
    pki.private(place / "odd.pem", ec.SECP256K1)
    edwards = ed25519.Ed25519PrivateKey.generate()
    (place / "edwards.pem").write_bytes(
        edwards.private_bytes(
            pki.serialization.Encoding.PEM,
            pki.serialization.PrivateFormat.PKCS8,
            pki.serialization.NoEncryption(),
        )
    )
    (place / "torn.pem").write_bytes((place / "key.pem").read_bytes()[:90])
    said = []
    for name in ("odd.pem", "edwards.pem", "torn.pem", "absent.pem", "key.pub"):
        with pytest.raises(InvalidSpec, match=name.replace(".", r"\.")) as refused:
            artifact.sign(place / "one", place / name)
        said.append(str(refused.value))
    with pytest.raises(InvalidSpec, match="is a private key"):
        artifact.trusted(place / "key.pem")
    (place / "both.pub").write_bytes((place / "other.pub").read_bytes() + (place / "key.pub").read_bytes())
    with pytest.raises(InvalidSpec, match="has several keys"):  # the first would be believed, the second not
        artifact.trusted(place / "both.pub")
    with pytest.raises(InvalidSpec, match="has no root"):
        artifact.trusted(
            pki.write(
                place / "x.pem",
                pki.certificate(
                    pki.private(place / "k.pem"),
                    "x",
                    (
                        pki.private(place / "r.pem"),
                        pki.certificate(pki.private(place / "q.pem"), "r", ca=True),
                    ),
                ),
            )
        )
    secrets = [line for path in place.glob("*.pem") for line in path.read_text().splitlines()[1:-1] if line]
    everything = "\n".join([*said, caplog.text])
    assert not [line for line in secrets if line in everything]


def test_another_key_than_the_certificate_s_does_not_sign(place):
    with pytest.raises(InvalidSpec, match=r"certificate: .* not of the key"):
        artifact.sign(place / "one", place / "other.pem", place / "signer.pem")


# --- the command line -----------------------------------------------------------------------------------


def test_the_commands_sign_show_and_verify(place):
    one = str(place / "one")
    say = CliRunner().invoke
    done = say(app, ["sign", one, "--key", str(place / "key.pem"), "--json"])
    assert json.loads(done.stdout)["signature"] == "not verified"
    done = say(app, ["verify", one, "--key", str(place / "key.pub"), "--json"])
    assert json.loads(done.stdout)["signature"].startswith("key ")
    wrong = (["--key", "other.pub"], ["--certificate-chain", "root.pem"], ["--key", "absent.pem"])
    for words in (*wrong, ["--key", "root.pem"], ["--certificate-chain", "key.pub"]):
        done = say(app, ["verify", one, words[0], str(place / words[1])])
        assert done.exit_code == 2
        assert done.stdout == ""
        assert done.stderr.startswith("error: ")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("other.pub", "is signed by another key"),
        ("absent.pub", "require-signature: .*absent.pub: No such file"),
        ("old.pem", "require-signature: .*old.pem: the certificate 'CN=old' has expired"),
        ("key.pem", "require-signature: .*is a private key"),
        (None, "model.sig: is missing, and a signature is asked for"),
    ],
)
def test_a_server_starts_with_no_artifact_that_is_not_signed_as_required(place, key, words):
    if key:
        artifact.sign(place / "one", place / "key.pem")
    old = pki.certificate(pki.private(place / "old-key.pem"), "old", ca=True, days=(-9, -2))
    pki.write(place / "old.pem", old)
    line = [sys.executable, "-m", "explainer_runtime.cli", "serve", str(place / "one")]
    line += ["--predictor", "grpc://127.0.0.1:1/x", "--require-signature", str(place / (key or "key.pub"))]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert re.search(words, done.stderr), done.stderr


def test_what_loads_later_in_the_process_has_to_be_signed_as_well(place, monkeypatch):
    """A repository's models never pass the command line; the variable holds for all that is loaded."""
    from explainer_runtime.hosts.service.service import Service
    from explainer_runtime.hosts.service.settings import REQUIRED, parse_settings

    monkeypatch.setenv(REQUIRED, str(place / "key.pub"))
    extra = {"predictor": "grpc://127.0.0.1:1/x"}
    service = Service(parse_settings(str(place / "one"), extra), "one")
    with pytest.raises(InvalidArtifact, match=r"model\.sig: is missing"):
        service.load()
    artifact.sign(place / "one", place / "key.pem")
    service.load()
    service.close()


def test_nothing_that_is_put_there_after_it_was_verified_is_loaded(place, monkeypatch):
    from explainer_runtime.hosts.service.service import Service
    from explainer_runtime.hosts.service.settings import REQUIRED, parse_settings

    monkeypatch.setenv(REQUIRED, str(place / "key.pub"))
    made = {"buildDefinition": {}, "runDetails": {}}
    artifact.save(dataclasses.replace(FITTED, made=made), place / "one")
    artifact.sign(place / "one", place / "key.pem")
    service = Service(parse_settings(str(place / "one"), {"predictor": "grpc://127.0.0.1:1/x"}), "one")
    verify = artifact.verify

    def and_then(path, **words):
        report = verify(path, **words)
        forged = (
            (place / "one" / "provenance.json").read_bytes().replace(b'"runDetails": {}', b'"runDetails": 0')
        )
        (place / "one" / "provenance.json").write_bytes(forged)
        return report

    monkeypatch.setattr(artifact, "verify", and_then)
    with pytest.raises(InvalidArtifact, match=r"provenance\.json: is not the file that was signed"):
        service.load()


# --- strangers' -----------------------------------------------------------------------------------------


def schema(name: str):
    """A validator of the specification's own schema."""
    import jsonschema
    import referencing

    known = [json.loads(path.read_text()) for path in (HERE / "schemas").iterdir()]
    contents = [referencing.Resource.from_contents(one) for one in known]
    registry = referencing.Registry().with_resources((one.id(), one) for one in contents)
    (wanted,) = (one for one in known if one["$id"].endswith(f"/{name}/v1.0/schema"))
    return jsonschema.Draft202012Validator(wanted, registry=registry)


@pytest.mark.parametrize("certificate", [None, "signer.pem"])
def test_what_is_signed_here_is_what_the_specification_s_schemas_describe(place, certificate):
    artifact.sign(place / "one", place / "key.pem", certificate and place / certificate)
    bundle = json.loads((place / "one" / "model.sig").read_bytes())
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    schema("bundle").validate(bundle)
    schema("statement").validate(statement)
    names = [one["name"] for one in statement["predicate"]["resources"]]
    assert names == sorted(names)
    assert "model.sig" not in names


@pytest.mark.parametrize(
    ("vector", "trust"), [("key", "signing-key-pub.pem"), ("certificate", "ca-cert.pem")]
)
def test_the_valid_vectors_of_the_specification_verify(vector, trust):
    bundle = (VECTORS / f"{vector}.bundle.json").read_bytes()
    known = digests(REFERENCE / "v1.1.0-elliptic-key")
    assert signing.check(bundle, known, artifact.trusted(REFERENCE / trust)).startswith(vector)
    with pytest.raises(InvalidArtifact, match="signme-2: is not the file"):
        signing.check(bundle, {**known, "signme-2": "0" * 64}, artifact.trusted(REFERENCE / trust))


@pytest.mark.parametrize("trust", ["signing-key-pub.pem", "ca-cert.pem"])
@pytest.mark.parametrize("path", sorted(VECTORS.iterdir()), ids=lambda path: path.name)
def test_the_invalid_vectors_of_the_specification_are_refused_and_so_are_keyless_ones(path, trust):
    if path.name.startswith(("key", "certificate")):
        return
    known = digests(REFERENCE / ("v1.1.0-sigstore" if "sigstore" in path.name else "v1.1.0-elliptic-key"))
    with pytest.raises(InvalidArtifact, match=r"model\.sig"):
        signing.check(path.read_bytes(), known, artifact.trusted(REFERENCE / trust))


@pytest.mark.parametrize("path", sorted(REFERENCE.glob("v*")), ids=lambda path: path.name)
def test_what_releases_of_the_reference_signed_verifies_from_0_3_1_on(path):
    version, method = path.name.split("-", 1)
    trust = artifact.trusted(
        REFERENCE / ("ca-cert.pem" if method == "certificate" else "signing-key-pub.pem")
    )
    known = digests(path)
    if method == "elliptic-key" and version in ("v0.3.1", "v1.0.0"):
        known = {".": known["signme-1"]}  # those two signed the one file
    bundle = (path / "model.sig").read_bytes()
    if method == "sigstore" or version == "v0.2.0":  # keyless, and the format before the specification
        with pytest.raises(InvalidArtifact, match=r"model\.sig"):
            signing.check(bundle, known, trust)
        return
    assert signing.check(bundle, known, trust).startswith("key" if method == "elliptic-key" else method)
    with pytest.raises(InvalidArtifact, match="is not the file that was signed"):
        signing.check(bundle, dict.fromkeys(known, "0" * 64), trust)


@needs_others
@pytest.mark.parametrize("method", ["key", "certificate"])
def test_the_released_tool_and_this_one_verify_each_other(place, method):
    def other(*words: str) -> int:
        line = [OTHERS, "-m", "model_signing", *words, place / "one"]
        return subprocess.run(line, capture_output=True, timeout=120).returncode

    pki.chain(place)
    signature = ["--signature", place / "one" / "model.sig"]
    trust = {"key": "key.pub", "certificate": "root.pem"}[method]
    belief = ["--public_key" if method == "key" else "--certificate_chain", place / trust]
    artifact.sign(place / "one", place / "key.pem", None if method == "key" else place / "signer.pem")
    assert other("verify", method, *signature, *belief) == 0
    (place / "one" / "model-settings.json").write_text("{}")
    assert other("verify", method, *signature, *belief) != 0

    (place / "one" / "model.sig").unlink()
    chain = ["--signing_certificate", place / "leaf.pem", "--certificate_chain", place / "between.pem"]
    if method == "certificate":
        leaf, between = pki.x509.load_pem_x509_certificates((place / "signer.pem").read_bytes())
        pki.write(place / "leaf.pem", leaf)
        pki.write(place / "between.pem", between)
    own = ["--private_key", place / "key.pem"]
    assert other("sign", method, *own, *(chain if method == "certificate" else []), *signature) == 0
    assert verified(place, trust).signature.startswith(method)


# --- what it was made of --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        AnchorImage(segmentation=Grid(rows=2, columns=2), fill="background"),
        CounterfactualProto(gradient="surrogate"),
        Neighbours(),
    ],
    ids=lambda spec: spec.kind,
)
def test_two_fits_have_one_digest_and_one_provenance(tmp_path, spec):
    x = np.random.default_rng(0).uniform(-1, 1, (60, *SHAPE)).astype(np.float32)
    files = []
    for turn in range(2):
        fitted = fit(spec, x, predictor=rowwise(weights()), classes=CLASSES)
        path = artifact.save(fitted, tmp_path / f"fit-{turn}")
        files.append({one.name: one.read_bytes() for one in path.rglob("*") if one.is_file()})
    assert files[0] == files[1]
    assert "provenance.json" in files[0]


def test_provenance_names_what_was_given_and_the_artifact_by_its_digest(tmp_path):
    x = np.random.default_rng(0).uniform(-1, 1, (40, *SHAPE)).astype(np.float32)
    path = artifact.save(fit(AnchorImage(segmentation=Grid()), x, classes=CLASSES), tmp_path / "one")
    said = json.loads((path / "provenance.json").read_bytes())
    report = artifact.verify(path)
    assert said["subject"] == [{"name": "explainer.json", "digest": {"sha256": report.digest}}]
    assert said["predicateType"] == "https://slsa.dev/provenance/v1"
    sources = {one["name"]: one for one in said["predicate"]["buildDefinition"]["resolvedDependencies"]}
    line = f"float32 [40, {', '.join(map(str, SHAPE))}]\n".encode()
    assert sources["rows"]["digest"]["sha256"] == hashlib.sha256(line + x.tobytes()).hexdigest()
    spec = json.dumps(report.manifest["spec"], sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    assert sources["spec"]["digest"]["sha256"] == hashlib.sha256(spec.encode()).hexdigest()
    assert sources["explainer-runtime"]["uri"].startswith("pkg:pypi/explainer-runtime@")
    assert report.made == said["predicate"]


def test_provenance_lasts_through_load_and_save_and_is_of_no_other_artifact(tmp_path):
    x = np.eye(16, dtype=np.float32).reshape(16, *SHAPE)
    one = artifact.save(fit(AnchorImage(segmentation=Grid()), x, classes=CLASSES), tmp_path / "one")
    two = artifact.save(artifact.load(one), tmp_path / "two")
    assert (one / "provenance.json").read_bytes() == (two / "provenance.json").read_bytes()
    artifact.save(fit(AnchorImage(threshold=0.5), x, classes=CLASSES), two)
    (two / "provenance.json").write_bytes((one / "provenance.json").read_bytes())
    with pytest.raises(InvalidArtifact, match=r"provenance\.json: is not of this artifact"):
        artifact.load(two)


def test_inspect_shows_what_an_artifact_was_made_of(tmp_path):
    x = np.random.default_rng(0).uniform(-1, 1, (40, *SHAPE)).astype(np.float32)
    path = artifact.save(fit(AnchorImage(segmentation=Grid()), x, classes=CLASSES), tmp_path / "one")
    sources = artifact.verify(path).made["buildDefinition"]["resolvedDependencies"]
    done = CliRunner().invoke(app, ["inspect", str(path)], env={"COLUMNS": "200"})
    for one in sources:
        assert f"made of {one['name']}" in done.stdout
    done = CliRunner().invoke(app, ["inspect", str(path), "--json"])
    assert json.loads(done.stdout)["provenance"] == artifact.verify(path).made
    strange = json.loads((path / "provenance.json").read_bytes())
    for value in (3, {"resolvedDependencies": 3}, {"resolvedDependencies": [3, {"digest": 3}]}):
        strange["predicate"]["buildDefinition"] = value
        (path / "provenance.json").write_text(json.dumps(strange))
        assert CliRunner().invoke(app, ["inspect", str(path)]).exit_code == 0
