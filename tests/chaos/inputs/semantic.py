"""Input that every schema lets through, or nearly, and that is wrong all the same: by what it means.

One row for each: what is done to which objects, and what the answer must say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tests.chaos.inputs.cast import Cast, Facts, Names, base64_of, workload
from tests.chaos.inputs.mutators import GONE, Edit, edited

CANARY: Final = "canary7f3a"
"""Is part of every secret value here: it must turn up nowhere (I8)."""

Spoil = Callable[[Cast, Names, Facts], Cast]
ALL: Final = ("stytch", "janrain", "snaptrade")


@dataclass(frozen=True, slots=True)
class Semantic:
    """One way to be wrong.

    asks: of which object the answer is expected: "rotation"; "provider", whose rotation says it too when it is looked
    at; "account", whose rotation is well; or "" where nothing is wrong.
    says: at least one of these must be in the answer. recreate: roles that cannot be changed in place.
    providers: for which the row makes sense. refused: by the API server, whatever its version.
    """

    name: str
    spoil: Spoil
    asks: str = "rotation"
    says: tuple[str, ...] = ()
    recreate: tuple[str, ...] = ()
    providers: tuple[str, ...] = ALL
    refused: bool = False


def _edit(role: str, *edits: Edit) -> Spoil:
    def spoil(cast: Cast, names: Names, facts: Facts) -> Cast:
        obj = cast[role]
        assert obj is not None
        return {**cast, role: edited(obj, edits)}

    return spoil


def _both(*spoils: Spoil) -> Spoil:
    def spoil(cast: Cast, names: Names, facts: Facts) -> Cast:
        for one in spoils:
            cast = one(cast, names, facts)
        return cast

    return spoil


def _without(role: str) -> Spoil:
    return lambda cast, names, facts: {**cast, role: None}


def _spec(field: str, value: Any, role: str = "rotation") -> Spoil:
    return _edit(role, Edit(("spec", *field.split(".")), value))


def _block(field: str, value: Any) -> Spoil:
    """A field of the provider's block."""
    return lambda cast, names, facts: _spec(f"{names.provider}.{field}", value, "provider")(cast, names, facts)


def _annotation(name: str, value: object) -> Spoil:
    return _edit("rotation", Edit(("metadata", "annotations", name), value))


# Rotates, were it not for what is wrong besides; and is looked at again where it rests.
_DUE: Final = _spec("rotationRequest", "now")
_TOUCH: Final = _spec("soak", "1s")
_NEVER_OPEN: Final = [{"kind": kind, "schedule": "0 2 * * *", "duration": "4h"} for kind in ("allow", "deny")]


def _value(content: str | bytes, *, role: str = "secret") -> Spoil:
    def spoil(cast: Cast, names: Names, facts: Facts) -> Cast:
        key = names.key if role == "secret" else "secret"
        return _edit(role, Edit(("data", key), base64_of(content)))(cast, names, facts)

    return _both(spoil, _TOUCH)


def _secret(role: str, *edits: Edit, due: bool = False) -> Spoil:
    return _both(_edit(role, *edits), _DUE if due else _TOUCH)


def _rival(client: bool, key: bool) -> Spoil:
    """A second rotation of the same client, or one that writes the same key."""

    def spoil(cast: Cast, names: Names, facts: Facts) -> Cast:
        rotation = cast["rotation"]
        assert rotation is not None
        edits = [Edit(("metadata", "name"), "rival")]
        edits += [] if client else [Edit(("spec", "clientId"), f"{facts.client_id[:100]}-other")]
        edits += [] if key else [Edit(("spec", "secretRef", "key"), "RIVAL")]
        return {**cast, "rival": edited(rotation, tuple(edits))}

    return spoil


def _wave(text: str) -> Spoil:
    def spoil(cast: Cast, names: Names, facts: Facts) -> Cast:
        return {**_DUE(cast, names, facts), "workload": workload(names, facts, {"keyturn.dev/wave": text})}

    return spoil


def _tls(cast: Cast, names: Names, facts: Facts) -> Cast:
    """The value stays where it is, even in a key that such Secrets have anyway."""
    others = [Edit(("data", key), "") for key in ("tls.crt", "tls.key") if key != names.key]
    return _secret("secret", Edit(("type",), "kubernetes.io/tls"), *others)(cast, names, facts)


def _overwriting(cast: Cast, names: Names, facts: Facts) -> Cast:
    return _spec("secretRef.clientIdKey", names.key)(cast, names, facts)


_URLS: Final = (
    *("https://169.254.169.254/latest/meta-data", "http://169.254.169.254/", "http://metadata.google.internal/"),
    *("https://kubernetes.default.svc", "https://10.96.0.1", "https://0.0.0.0:1", "https://localhost:1"),
    *("http://127.0.0.1:1", "http://[::1]:1", "https://[::ffff:127.0.0.1]:1", "https://[fe80::1]:1", "https://[::]:1"),
    *("https://0x7f.1:1", "https://2130706433:1", "https://127.1:1", "https://0177.0.0.1:1", "https://127.0.0.1:0"),
    *("https://127.0.0.1:99999", "https://127.0.0.1:-1", "https://127.0.0.1:x", "https://[::1", "https://:443"),
    *("https://a.invalid", "https://a..b.invalid", "https://.invalid", "https://-.invalid", "https://*.invalid"),
    *("https://a_b.invalid", "https://%zz.invalid", "https://xn--zzzzzzz.invalid", "https://\u0435xample.invalid"),
    *("https://\u2488.invalid", "https://\ufdfa.invalid", "https://\u200b.invalid", "https://名前.invalid"),
    *(f"https://{'a' * 64}.invalid", f"https://{'a.' * 200}invalid", f"https://a.invalid/{'p' * 2000}"),
    *("https://a.invalid/../../x", "https://a.invalid/%0d%0aX: y", "https://a.invalid/\u0661", "https://a.invalid\\@b"),
    *("https://127.0.0.1:1;x", "https://a.invalid,b.invalid", "https://127.0.0.1.nip.invalid", "https://[v1.x]:1"),
)
"""Each is written as somebody would who wants Keyturn to call what he cannot reach, or to fall over."""

_FORBIDDEN_URLS: Final = (
    *("file:///etc/passwd", "gopher://127.0.0.1", "//a.invalid", "https://user:pw@a.invalid", "a.invalid"),
    *("https://a.invalid?x", "https://a.invalid#x", "https://a b", "https://a\r\nX:y", f"https://{'a' * 2048}"),
)
_UNHELPFUL: Final = ("baseUrl", "host", "certificate", "no connection", "no usable answer")
_WAVES: Final = ("", "x", "-", "1.5", "1e3", "\u0661", "9999999999", "0x1", "1 2", "∞", "w" * 1000)
_WORDS: Final = ("", "rubbish", "🔑", "a" * 5000, "{}", "*", "20991231-000000-abcdef", "\n", "${jndi}")
# Blanks at its ends, bytes that no header carries, text in other scripts, and so long that no header holds it.
_VALUES: Final = (
    *(CANARY, f" {CANARY}", f"{CANARY}\n", f"{CANARY}\r\nX-Injected: 1", f"{CANARY}\x00", f"größe-{CANARY}"),
    *(f"{CANARY}🔑", f"{CANARY}:{CANARY}", CANARY * 20, CANARY * 10_000, CANARY * 80_000, f'"{CANARY}', f"%00{CANARY}"),
)
_BINARY: Final = (b"\xff\xfe\x00" + CANARY.encode(), b"\x80", CANARY.encode("utf-16"), bytes(range(256)))


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}…"


SEMANTIC: Final[tuple[Semantic, ...]] = (
    # The rotation names what is not there, or is not its own.
    Semantic("another provider", _spec("providerRef.name", "nobody"), says=("nobody",)),
    Semantic(
        "a provider in another namespace", _spec("providerRef.name", "other.namespace"), says=("other.namespace",)
    ),
    Semantic("a provider with a long name", _spec("providerRef.name", "a" * 253), says=("aaaa",)),
    Semantic("an unknown kind", _spec("providerRef.kind", "Issuer"), refused=True),
    Semantic("a namespace in providerRef", _spec("providerRef.namespace", "kube-system"), asks=""),
    Semantic("a namespace in secretRef", _spec("secretRef.namespace", "kube-system"), asks=""),
    Semantic("another Secret", _spec("secretRef.name", "nowhere"), says=("Secret nowhere",)),
    Semantic(
        "another Secret, due",
        _both(_DUE, _spec("secretRef.name", "nowhere")),
        says=("Secret nowhere", "acceptDowntime"),
    ),
    Semantic("a Secret with a long name", _spec("secretRef.name", "a" * 253), says=("Secret aaa",)),
    Semantic("another key", _spec("secretRef.key", "NOWHERE"), says=("NOWHERE",)),
    Semantic("a path as key", _spec("secretRef.key", "../../etc"), refused=True),
    Semantic("the key ..", _spec("secretRef.key", ".."), says=("key ..",)),
    Semantic("another client", _spec("clientId", "nobody"), says=("client", "value"), providers=("stytch", "janrain")),
    Semantic(
        "another client, due",
        _both(_DUE, _spec("clientId", "nobody")),
        says=("lient", "alue", "acceptDowntime"),
    ),
    *(
        Semantic(f"client {_short(text)!r}", _spec("clientId", text), says=("lient", "alue", "refuse"))
        for text in ("../../clients", "a/b?c=d#e", "größe", "🔑", "a\u202eb", "%2e%2e", "a b", "a" * 512, "{}", "*")
    ),
    Semantic("keys overwrite each other", _overwriting, says=("spec.secretRef.clientIdKey",)),
    Semantic(
        "two targets that do not exist",
        _both(
            _DUE,
            _spec(
                "rollout.targets", [{"kind": "Deployment", "name": "nowhere"}, {"kind": "Rollout", "name": "nowhere"}]
            ),
        ),
        says=("nowhere", "ollouts", "acceptDowntime"),
    ),
    Semantic("a due rotation without consent", _DUE, says=("acceptDowntime",), providers=("snaptrade",)),
    Semantic("an overlap too short", _both(_DUE, _spec("overlap", "0s")), says=("overlap",), providers=("janrain",)),
    # Nothing wrong at all: it rotates, and what follows comes upon what that has left.
    *(
        Semantic(f"request {_short(text)!r}", _spec("rotationRequest", text), asks="", providers=("stytch", "janrain"))
        for text in ("2026-11-a", "🔑", "r" * 253, "null", "a\nb", "\u202e", "../..", "{}")
    ),
    # Time, as it cannot be meant.
    *(
        Semantic(f"{field} {text}", _spec(field, text), says=(field,), refused=refused)
        for field in ("soak", "overlap", "rollout.timeout", "rollout.waveSoak", "verify.timeout")
        for text, refused in (("-5m", True), ("99999h99999h99999h99999h", False), ("1d", True), ("0", True))
    ),
    Semantic("no time at all", _spec("rollout.timeout", "0s"), says=("rollout.timeout",)),
    *(
        Semantic(f"a schedule {text}", _spec("schedule", {"cron": text}), says=("spec.schedule.cron",), refused=refused)
        for text, refused in (
            *(("0 0 31 2 *", False), ("61 25 32 13 8", False), ("0 0 30 2 *", False)),
            *(("* * * * * * *", True), ("@never", True), ("\n", True)),
        )
    ),
    Semantic("a schedule on Mars", _spec("schedule", {"timeZone": "Mars/Base"}), says=("spec.schedule.timeZone",)),
    Semantic("windows that never open", _spec("schedule", {"windows": _NEVER_OPEN}), says=("spec.schedule.windows",)),
    Semantic("an interval of nothing", _spec("schedule", {"interval": "0s"}), says=("spec.schedule.interval",)),
    Semantic(
        "an age that is no time",
        _both(
            _edit("secret", Edit(("metadata", "annotations", "keyturn.dev/rotated-at"), "yesterday")),
            _spec("schedule", {"interval": "720h"}),
        ),
        says=("keyturn.dev/rotated-at",),
    ),
    # Annotations that only programs should write.
    *(
        Semantic(f"{word} {_short(text)!r}", _annotation(f"keyturn.dev/{word}", text), asks="")
        for word in ("cancel", "resume")
        for text in _WORDS
    ),
    Semantic("a wave that is a number", _annotation("keyturn.dev/wave", 5), refused=True),
    *(
        Semantic(f"wave {_short(text)!r}", _wave(text), says=("keyturn.dev/wave",), providers=("stytch",))
        for text in _WAVES
        if text
    ),
    # Two rotations at once.
    Semantic("two of one client", _rival(client=True, key=False), says=("rival",)),
    Semantic("two into one key", _rival(client=False, key=True), says=("rival",)),
    Semantic("two that are the same", _rival(client=True, key=True), says=("rival",)),
    # The account.
    *(Semantic(f"address {_short(url)!r}", _block("baseUrl", url), "provider", (*_UNHELPFUL, "Url")) for url in _URLS),
    *(
        Semantic(f"address {_short(url)!r}", _block("baseUrl", url), refused=bool(url), asks="")
        for url in _FORBIDDEN_URLS
        if url
    ),
    Semantic("no provider at all", _edit("provider", Edit(("spec",), {})), "provider", ("exactly one provider",)),
    Semantic("an unknown provider", _edit("provider", Edit(("spec",), {"okta": {}})), "provider", ("exactly one",)),
    Semantic(
        "two providers",
        _both(
            *(
                _spec(f"{block}.{field}", value, "provider")
                for block in ("stytch", "snaptrade")
                for field, value in (("secretRef", {"name": "a", "key": "b"}), ("projectId", "p"), ("clientId", "c"))
            )
        ),
        "provider",
        ("exactly one", "namespace"),
    ),
    Semantic("its Secret elsewhere", _block("secretRef.namespace", "kube-system"), "provider", ("namespace",)),
    Semantic("its Secret nowhere", _block("secretRef.name", "nowhere"), "provider", ("nowhere",)),
    Semantic("its key nowhere", _block("secretRef.key", "NOWHERE"), "provider", ("NOWHERE",)),
    Semantic(
        "namespaces of others", _spec("namespaces", ["other", "nobody-*"], "provider"), "rotation", ("namespaces",)
    ),
    *(
        Semantic(f"certificates {_short(text)!r}", _spec("caBundle", text, "provider"), "provider", ("caBundle",))
        for text in (
            base64_of("rubbish"),
            base64_of(b"\xff\x00"),
            "LS0tLS1CRUdJTg==",
            base64_of("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            base64_of("-" * 100_000),
        )
    ),
    Semantic("no provider object", _both(_without("provider"), _TOUCH), says=("RotationProvider", "does not exist")),
    # The Secrets.
    Semantic("no Secret", _both(_without("secret"), _TOUCH), says=("Secret",)),
    Semantic("no credential", _both(_without("credential"), _TOUCH), says=("-project",)),
    Semantic("a Secret without data", _secret("secret", Edit(("data",), GONE)), says=("key",)),
    Semantic("an empty value", _value(""), says=("key",)),
    Semantic("an empty credential", _value("", role="credential"), says=("key secret",)),
    *(Semantic(f"value {_short(text)!r}", _value(text), says=("Secret",)) for text in _VALUES),
    *(Semantic(f"value {content[:8]!r}", _value(content), says=("binary",)) for content in _BINARY),
    *(
        Semantic(
            f"credential {_short(text)!r}", _value(text, role="credential"), "account", ("-project", "redential", "40")
        )
        for text in _VALUES
        if text.strip() != ""
    ),
    *(
        Semantic(f"credential {content[:8]!r}", _value(content, role="credential"), says=("binary",))
        for content in _BINARY
    ),
    Semantic("a Secret too large", _value("x" * 1_100_000), refused=True),
    Semantic("no base64", _secret("secret", Edit(("data", "CLIENT_SECRET"), "=?=")), refused=True),
    Semantic("a key that is none", _secret("secret", Edit(("data", "a/b"), "AAAA")), refused=True),
    Semantic(
        "an immutable Secret",
        _secret("secret", Edit(("immutable",), True), due=True),
        says=("immutable", "acceptDowntime"),
        recreate=("secret",),
    ),
    Semantic(
        "a Secret of type tls",
        _tls,
        asks="",
        recreate=("secret",),
    ),
    Semantic(
        "a tls Secret without tls",
        _secret("secret", Edit(("type",), "kubernetes.io/tls")),
        refused=True,
        recreate=("secret",),
    ),
    Semantic(
        "a Secret of an odd type",
        _secret("secret", Edit(("type",), "keyturn.dev/journal")),
        asks="",
        recreate=("secret",),
    ),
)
