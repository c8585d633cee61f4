"""The bad specs: what is refused, by whom, and how the answer reads."""

from __future__ import annotations

from typing import Final

from keyturn.api.policy import POLICY_KIND
from keyturn.api.rules import ROTATION_KIND
from tests.api.samples import BLOCKS, CLUSTER, GONE, NAMESPACED, Bad

_DURATION = 'must be a duration such as "90s", "15m" or "1h30m"'
_URL = "must be a URL"
_HTTPS = "must begin with https://"
_LABELS = "must have labels as keys"
_WEB = {"kind": "Deployment", "name": "web"}
_WINDOW = {"kind": "allow", "schedule": "0 2 * * *", "duration": "4h"}
_NO_LABELS = ("", "-a", "a-", "a b", "a\n", "a/b/c", "/a", "a/", "Example.com/a", "a" * 64, "größe")

BAD: Final[tuple[Bad, ...]] = (
    Bad(NAMESPACED, "namespaces", ["*"], "must be left out", by_rule=True),
    Bad(CLUSTER, "namespaces", GONE, "is required in a ClusterRotationProvider", by_rule=True),
    Bad(CLUSTER, "namespaces", [], "must not be empty"),
    Bad(CLUSTER, "namespaces", "*", "must be a list"),
    Bad(CLUSTER, "namespaces", ["a*b"], "may hold", field="namespaces[0]"),
    # What the schema refuses.
    Bad(ROTATION_KIND, "providerRef", GONE, "is required"),
    Bad(ROTATION_KIND, "providerRef.name", GONE, "is required"),
    Bad(ROTATION_KIND, "providerRef.name", "Stytch_Live", "may hold lower-case letters"),
    Bad(ROTATION_KIND, "providerRef.name", "a" * 254, "must not be longer than 253 characters"),
    Bad(ROTATION_KIND, "providerRef.kind", "Issuer", 'must be "RotationProvider" or "ClusterRotationProvider"'),
    Bad(ROTATION_KIND, "clientId", GONE, "is required"),
    Bad(ROTATION_KIND, "clientId", None, "is required"),
    Bad(ROTATION_KIND, "clientId", "", "must not be empty"),
    Bad(ROTATION_KIND, "clientId", "  ", "must not be blank"),
    Bad(ROTATION_KIND, "clientId", "id ", "must not be blank"),
    Bad(ROTATION_KIND, "clientId", "id\n", "must not be blank"),
    Bad(ROTATION_KIND, "clientId", "a\x00b", "must not be blank"),
    Bad(ROTATION_KIND, "clientId", 17, "must be text: put it in quotes"),
    Bad(ROTATION_KIND, "secretRef", GONE, "is required"),
    Bad(ROTATION_KIND, "secretRef", "billing", "must be an object"),
    Bad(ROTATION_KIND, "secretRef", [], "must be an object"),
    Bad(ROTATION_KIND, "secretRef.key", GONE, "is required"),
    Bad(ROTATION_KIND, "secretRef.key", "a/b", "may hold only letters"),
    Bad(ROTATION_KIND, "secretRef.key", "key\n", "may hold only letters"),
    Bad(ROTATION_KIND, "secretRef.clientIdKey", "", "must not be empty"),
    Bad(ROTATION_KIND, "secretRef.creationPolicy", "merge", 'must be "Merge" or "Owner"'),
    Bad(ROTATION_KIND, "rotationRequest", 20261101, "must be text: put it in quotes"),
    Bad(ROTATION_KIND, "rotationRequest", "x" * 254, "must not be longer than 253 characters"),
    Bad(ROTATION_KIND, "schedule", "daily", "must be an object"),
    Bad(ROTATION_KIND, "schedule.interval", "30d", _DURATION),
    Bad(ROTATION_KIND, "schedule.stagger", 0, _DURATION),
    Bad(ROTATION_KIND, "schedule.initial", "Now", 'must be "OnSchedule" or "Immediately"'),
    *(
        Bad(ROTATION_KIND, "schedule.cron", value, "must have five fields")
        for value in (
            *("", "@daily", "0 3 * *", "0 0 3 * * 1", "* * * * * * *", "0 3 * * ?", " 0 3 * * 1", "0\t3 * * 1", "\n"),
            "0 3 * * 1\n",
        )
    ),
    Bad(ROTATION_KIND, "schedule.cron", "1," * 50 + "1 3 * * 1", "must not be longer than 100 characters"),
    *(
        Bad(ROTATION_KIND, "schedule.timeZone", value, "must be the name of a time zone")
        for value in ("", "/etc/passwd", "../UTC", "Europe/", "Europe//Berlin", "a/b/c/d", "1", "UTC\n")
    ),
    Bad(ROTATION_KIND, "schedule.timeZone", "a" * 65, "must not be longer than 64 characters"),
    Bad(ROTATION_KIND, "schedule.windows", _WINDOW, "must be a list"),
    Bad(ROTATION_KIND, "schedule.windows", [_WINDOW] * 11, "must not have more than 10 entries"),
    *(
        Bad(ROTATION_KIND, "schedule.windows", [{**_WINDOW, key: value}], words, field=f"schedule.windows[0].{key}")
        for key, value, words in (
            *(("kind", "Allow", 'must be "allow" or "deny"'), ("kind", None, "is required")),
            *(("schedule", "@daily", "must have five fields"), ("schedule", None, "is required")),
            *(("duration", "4 hours", _DURATION), ("duration", None, "is required")),
            ("timeZone", "Europe Berlin", "must be the name of a time zone"),
        )
    ),
    Bad(ROTATION_KIND, "suspend", "true", "must be true or false"),
    Bad(ROTATION_KIND, "rollout.restart", "Sometimes", 'must be "Always", "EnvOnly" or "Never"'),
    Bad(ROTATION_KIND, "rollout.discover", "no", "must be true or false"),
    Bad(ROTATION_KIND, "rollout.unrestartable", "Wait", 'must be "Hold" or "Fail"'),
    Bad(ROTATION_KIND, "rollout.maxConcurrent", 0, "must be at least 1"),
    Bad(ROTATION_KIND, "rollout.maxConcurrent", 1001, "must be at most 1000"),
    Bad(ROTATION_KIND, "rollout.maxConcurrent", "50%", "must be a whole number"),
    Bad(ROTATION_KIND, "rollout.waveSoak", "-1m", _DURATION),
    Bad(ROTATION_KIND, "rollout.volumeRefresh", "2 minutes", _DURATION),
    Bad(ROTATION_KIND, "rollout.targets", {"kind": "Deployment", "name": "web"}, "must be a list"),
    Bad(ROTATION_KIND, "rollout.targets", ["web"], "must be an object", field="rollout.targets[0]"),
    Bad(ROTATION_KIND, "rollout.targets", [_WEB, None], "must be an object", field="rollout.targets[1]"),
    Bad(ROTATION_KIND, "rollout.targets", [_WEB] * 101, "must not have more than 100 entries"),
    Bad(ROTATION_KIND, "rollout.targets", [{"kind": "Deployment"}], "is required", field="rollout.targets[0].name"),
    Bad(
        *(ROTATION_KIND, "rollout.targets", [{"kind": "Job", "name": "web"}]),
        words='must be "Deployment", "StatefulSet", "DaemonSet" or "Rollout"',
        field="rollout.targets[0].kind",
    ),
    Bad(
        *(ROTATION_KIND, "rollout.targets", [{"kind": "Deployment", "name": "Web"}]),
        words="may hold lower-case letters",
        field="rollout.targets[0].name",
    ),
    Bad(ROTATION_KIND, "rollout.selector", "app=web", "must be an object"),
    Bad(ROTATION_KIND, "rollout.selector.matchLabels", ["app"], "must be an object"),
    Bad(ROTATION_KIND, "rollout.selector.matchLabels", {f"a{n}": "" for n in range(101)}, "more than 100 entries"),
    *(
        Bad(ROTATION_KIND, "rollout.selector.matchLabels", {"app": value}, words)
        for value, words in (
            *((1, "must be text: put it in quotes"), (["a"], "must be text"), ("a" * 64, "longer than 63 characters")),
            *((text, "must be the value of a label") for text in ("a b", "-a", "a-", "a/b", "a\n", "größer")),
        )
    ),
    *(
        Bad(
            *(ROTATION_KIND, "rollout.selector.matchExpressions", [{"key": key, "operator": "Exists"}]),
            words=words,
            field="rollout.selector.matchExpressions[0].key",
        )
        for key, words in (
            *((key, "must be a label") for key in _NO_LABELS if key),
            *((None, "is required"), (7, "must be text"), ("a" * 318, "longer than 317 characters")),
        )
    ),
    Bad(
        *(ROTATION_KIND, "rollout.selector.matchExpressions", [{"key": "a", "operator": "Gt", "values": ["1"]}]),
        words='must be "In", "NotIn", "Exists" or "DoesNotExist"',
        field="rollout.selector.matchExpressions[0].operator",
    ),
    Bad(
        *(ROTATION_KIND, "rollout.selector.matchExpressions", [{"key": "a", "operator": "In", "values": ["a", "b c"]}]),
        words="must be the value of a label",
        field="rollout.selector.matchExpressions[0].values[1]",
    ),
    *(
        Bad(ROTATION_KIND, "rollout.timeout", value, _DURATION)
        for value in (
            "",
            "15",
            "15 m",
            "1d",
            "-15m",
            "1.5h",
            "15m\n",
            "1h1h1h1h1h",
            "123456s",
            "h",
            "\u0661m",
            900,
            True,
        )
    ),
    Bad(ROTATION_KIND, "verify.mode", "", 'must be "Required" or "Skip"'),
    Bad(ROTATION_KIND, "onFailure", "Retry", 'must be "Cancel" or "Hold"'),
    Bad(ROTATION_KIND, "deletionPolicy", "Orphan", 'must be "Cancel" or "Finalize"'),
    Bad(NAMESPACED, "stytch", "live", "must be an object"),
    Bad(NAMESPACED, "stytch.projectId", "", "must not be empty"),
    Bad(NAMESPACED, "stytch.projectId", "project/live", "may hold only letters"),
    Bad(NAMESPACED, "stytch.secretRef", GONE, "is required"),
    Bad(CLUSTER, "stytch.secretRef.namespace", "Platform", "may hold lower-case letters"),
    *(
        Bad(NAMESPACED, "stytch.baseUrl", value, _URL)
        for value in (
            *("", "api.stytch.com", "ftp://api.stytch.com", "https://", "https://user:pw@api.stytch.com"),
            *("https://api.stytch.com?x=1", "https://api.stytch.com/#x", "https://api.stytch.com/a b", "https://a\n"),
        )
    ),
    Bad(NAMESPACED, "janrain.baseUrl", GONE, "is required", block="janrain"),
    Bad(NAMESPACED, "janrain.clientId", "a b", "may hold only letters", block="janrain"),
    Bad(NAMESPACED, "janrain.auth", "signed", 'must be "Basic" or "Signed"', block="janrain"),
    Bad(NAMESPACED, "janrain.readBack.appId", GONE, "is required", block="janrain"),
    Bad(NAMESPACED, "janrain.readBack.appId", "app/1", "may hold only letters", block="janrain"),
    Bad(NAMESPACED, "janrain.readBack.baseUrl", "v1.api.us.janrain.com", _URL, block="janrain"),
    Bad(NAMESPACED, "snaptrade.clientId", "", "must not be empty", block="snaptrade"),
    Bad(NAMESPACED, "snaptrade.secretRef.key", GONE, "is required", block="snaptrade"),
    Bad(NAMESPACED, "caBundle", 5, "must be text: put it in quotes"),
    *(Bad(NAMESPACED, "caBundle", value, "base64-encoded") for value in ("-----BEGIN", "AAA", "größe")),
    Bad(NAMESPACED, "timeouts.read", "forever", _DURATION),
    Bad(NAMESPACED, "rateLimit.burst", 0, "must be at least 1"),
    Bad(NAMESPACED, "rateLimit.burst", 1001, "must be at most 1000"),
    Bad(NAMESPACED, "rateLimit.requestsPerSecond", 0, "must be at least 1"),
    Bad(NAMESPACED, "rateLimit.requestsPerSecond", "10", "must be a whole number"),
    Bad(NAMESPACED, "rateLimit.requestsPerSecond", 2.5, "must be a whole number"),
    Bad(POLICY_KIND, "namespaceSelector", "billing", "must be an object"),
    Bad(POLICY_KIND, "namespaceSelector.matchLabels", {"team": "a b"}, "must be the value of a label"),
    Bad(POLICY_KIND, "rotationSelector.matchExpressions", {"key": "a"}, "must be a list"),
    Bad(POLICY_KIND, "maxAge", "90d", _DURATION),
    Bad(POLICY_KIND, "minGap", 60, _DURATION),
    Bad(POLICY_KIND, "timeZone", "Europe Berlin", "must be the name of a time zone"),
    Bad(POLICY_KIND, "windows", [_WINDOW] * 11, "must not have more than 10 entries"),
    Bad(POLICY_KIND, "windows", [{**_WINDOW, "kind": "forbid"}], 'must be "allow" or', field="windows[0].kind"),
    Bad(POLICY_KIND, "freeze", True, "must be an object"),
    Bad(POLICY_KIND, "freeze", {}, "is required", field="freeze.reason"),
    *(Bad(POLICY_KIND, "freeze.reason", value, "must not be") for value in (" ", "a\n", "x" * 257)),
    *(
        Bad(POLICY_KIND, "freeze", {"reason": "x", "until": value}, "must be a time such as", field="freeze.until")
        for value in (
            *("2027-01-07", "2027-01-07T08:00Z", "2027-01-07T08:00:00", "2027-01-07 08:00:00Z", "1799308800", "never"),
            *("2027-02-29T08:00:00Z", "2027-01-07T24:00:00Z", "2027-01-07t08:00:00z", "2027-01-07T08:00:00.5Z", 5),
            *("2027-01-07T08:00:00+24:00", "2027-01-07T08:00:00Z\n", "2027-13-07T08:00:00Z", "9999-12-31T00:00:00Z"),
        )
    ),
    Bad(POLICY_KIND, "concurrency", 5, "must be an object"),
    Bad(POLICY_KIND, "concurrency.cluster", 0, "must be at least 1"),
    Bad(POLICY_KIND, "concurrency.perNamespace", 10_001, "must be at most 10000"),
    Bad(POLICY_KIND, "concurrency.perProvider", "10%", "must be a whole number"),
    # What only a rule refuses.
    Bad(ROTATION_KIND, "secretRef.clientIdKey", "CLIENT_SECRET", "must differ from spec.secretRef.key", by_rule=True),
    Bad(ROTATION_KIND, "secretRef.previousKey", "CLIENT_SECRET", "must differ from spec.secretRef.key", by_rule=True),
    Bad(
        *(ROTATION_KIND, "secretRef", {"name": "s", "key": "A", "clientIdKey": "B", "previousKey": "B"}),
        words="must differ from spec.secretRef.clientIdKey",
        field="secretRef.previousKey",
        by_rule=True,
    ),
    Bad(ROTATION_KIND, "rollout.timeout", "9s999ms", "must be between 10s and 24h", by_rule=True),
    Bad(ROTATION_KIND, "rollout.timeout", "24h1ms", "must be between 10s and 24h", by_rule=True),
    Bad(ROTATION_KIND, "rollout.volumeRefresh", "61m", "must be between 0s and 1h", by_rule=True),
    Bad(
        ROTATION_KIND,
        "rollout.waveSoak",
        "15m",
        "must be longer than spec.rollout.waveSoak",
        field="rollout.timeout",
        by_rule=True,
    ),
    Bad(
        ROTATION_KIND,
        "rollout",
        {"restart": "EnvOnly", "volumeRefresh": "15m"},
        "must be longer than spec.rollout.volumeRefresh",
        field="rollout.timeout",
        by_rule=True,
    ),
    Bad(ROTATION_KIND, "rollout.discover", False, "may be false only with spec.rollout.targets", by_rule=True),
    *(
        Bad(ROTATION_KIND, "rollout.selector.matchLabels", {"app": "web", key: "x"}, _LABELS, by_rule=True)
        for key in _NO_LABELS
    ),
    *(
        Bad(
            *(ROTATION_KIND, "rollout.selector.matchExpressions", [{"key": "a", **rest}]),
            words="must have values for In and NotIn, and none for Exists and DoesNotExist",
            by_rule=True,
        )
        for rest in (
            *({"operator": "In"}, {"operator": "NotIn", "values": []}),
            *({"operator": "Exists", "values": ["a"]}, {"operator": "DoesNotExist", "values": ["a"]}),
        )
    ),
    Bad(ROTATION_KIND, "verify.timeout", "0s", "must be between 1s and 1h", by_rule=True),
    Bad(ROTATION_KIND, "verify.timeout", "61m", "must be between 1s and 1h", by_rule=True),
    Bad(ROTATION_KIND, "overlap", "168h1ms", "must be between 0s and 168h", by_rule=True),
    Bad(ROTATION_KIND, "soak", "169h", "must be between 0s and 168h", by_rule=True),
    Bad(
        *(ROTATION_KIND, "schedule", {"interval": "720h", "cron": "0 3 * * 1"}),
        words="must be left out with spec.schedule.interval",
        field="schedule.cron",
        by_rule=True,
    ),
    Bad(ROTATION_KIND, "schedule.interval", "59s999ms", "must be between 1m and 87600h", by_rule=True),
    Bad(ROTATION_KIND, "schedule.interval", "87600h1ms", "must be between 1m and 87600h", by_rule=True),
    Bad(ROTATION_KIND, "schedule.stagger", "168h1ms", "must be at most 168h", by_rule=True),
    Bad(
        *(ROTATION_KIND, "schedule", {"interval": "10h", "stagger": "5h1ms"}),
        words="not longer than half of spec.schedule.interval",
        field="schedule.stagger",
        by_rule=True,
    ),
    *(
        Bad(
            *(ROTATION_KIND, "schedule.windows", [_WINDOW, {**_WINDOW, "kind": "deny", "duration": duration}]),
            words="must last between 1m and 8760h each",
            by_rule=True,
        )
        for duration in ("59s", "8760h1ms")
    ),
    Bad(
        *(ROTATION_KIND, "schedule.windows", [_WINDOW, {**_WINDOW, "duration": "14m59s"}]),
        words="must not be shorter than spec.rollout.timeout",
        by_rule=True,
    ),
    *(
        Bad(POLICY_KIND, f"{field}.matchLabels", {key: "x"}, _LABELS, by_rule=True)
        for field in ("namespaceSelector", "rotationSelector")
        for key in _NO_LABELS[1:4]
    ),
    *(
        Bad(
            *(POLICY_KIND, f"{field}.matchExpressions", [{"key": "a", "operator": "In"}]),
            words="must have values for In and NotIn",
            by_rule=True,
        )
        for field in ("namespaceSelector", "rotationSelector")
    ),
    Bad(POLICY_KIND, "maxAge", "59s", "must be between 1m and 87600h", by_rule=True),
    Bad(POLICY_KIND, "maxAge", "87601h", "must be between 1m and 87600h", by_rule=True),
    Bad(POLICY_KIND, "minGap", "999ms", "must be between 1s and 168h", by_rule=True),
    Bad(POLICY_KIND, "minGap", "169h", "must be between 1s and 168h", by_rule=True),
    *(
        Bad(POLICY_KIND, "windows", [{**_WINDOW, "duration": duration}], "must last between 1m and", by_rule=True)
        for duration in ("59s", "8761h")
    ),
    Bad(NAMESPACED, "stytch", GONE, "must hold exactly one provider: stytch", field="", by_rule=True),
    Bad(CLUSTER, "stytch", GONE, "must hold exactly one provider: stytch", field="", by_rule=True),
    Bad(NAMESPACED, "stytch.secretRef.namespace", "other", "must be left out", by_rule=True),
    Bad(CLUSTER, "stytch.secretRef.namespace", GONE, "is required in a ClusterRotationProvider", by_rule=True),
    Bad(NAMESPACED, "janrain", BLOCKS["janrain"], "must hold exactly one provider", field="", by_rule=True),
    *(
        Bad(NAMESPACED, f"{block}.secretRef.namespace", "other", "must be left out", by_rule=True, block=block)
        for block in BLOCKS
    ),
    *(
        Bad(CLUSTER, f"{block}.secretRef.namespace", GONE, "is required in a Cluster", by_rule=True, block=block)
        for block in BLOCKS
    ),
    Bad(NAMESPACED, "janrain.baseUrl", "http://my-app.example.com", _HTTPS, by_rule=True, block="janrain"),
    Bad(NAMESPACED, "janrain.readBack.baseUrl", "http://v1.example.com", _HTTPS, by_rule=True, block="janrain"),
    Bad(NAMESPACED, "snaptrade.baseUrl", "http://127.0.0.1.example.com", _HTTPS, by_rule=True, block="snaptrade"),
    *(
        Bad(NAMESPACED, "stytch.baseUrl", value, _HTTPS, by_rule=True)
        for value in (
            *("http://api.stytch.com", "http://localhost.example.com", "http://127.0.0.1.example.com"),
            *("http://10.0.0.1", "http://[::2]", "http://localhost:80x/", "http://example.com/http://localhost"),
        )
    ),
    Bad(NAMESPACED, "timeouts.connect", "99ms", "must be between 100ms and 60s", by_rule=True),
    Bad(NAMESPACED, "timeouts.connect", "61s", "must be between 100ms and 60s", by_rule=True),
    Bad(NAMESPACED, "timeouts.read", "999ms", "must be between 1s and 10m", by_rule=True),
    Bad(NAMESPACED, "timeouts.read", "11m", "must be between 1s and 10m", by_rule=True),
)
