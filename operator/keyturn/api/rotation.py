"""`ClientSecretRotation`: one client whose secret is rotated, the Secret that holds it, and how to do it safely."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from keyturn.api.base import GROUP, Duration, KubeModel, LabelKey, LabelValue, MicroTime, ObjectName, SecretKey, Time
from keyturn.api.conditions import Condition
from keyturn.api.provider import ProviderKind
from keyturn.api.schedule import ScheduleSpec

HISTORY_LIMIT = 5

CANCEL_ANNOTATION = f"{GROUP}/cancel"
"""The user's word that the rotation of this id is to be cancelled."""
RESUME_ANNOTATION = f"{GROUP}/resume"
"""The user's word that the rotation whose id it begins with is to go on, where `onFailure: Hold` stopped it."""

URGENT_ANNOTATION = f"{GROUP}/urgent"
"""The user's word that the secret is to be rotated at once, and why."""
URGENT_LENGTH = 256
"""Of that text, this much counts and is kept."""

# No control characters, and no space at either end.
CLIENT_ID_PATTERN = r"^[^\x00-\x20\x7f]([^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?$"


class CreationPolicy(StrEnum):
    MERGE = "Merge"
    OWNER = "Owner"


class RestartPolicy(StrEnum):
    ALWAYS = "Always"
    ENV_ONLY = "EnvOnly"
    NEVER = "Never"


class UnrestartablePolicy(StrEnum):
    HOLD = "Hold"
    FAIL = "Fail"


class TargetKind(StrEnum):
    """Kinds of workloads that Keyturn can restart."""

    DEPLOYMENT = "Deployment"
    STATEFUL_SET = "StatefulSet"
    DAEMON_SET = "DaemonSet"
    ROLLOUT = "Rollout"


class SelectorOperator(StrEnum):
    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class VerifyMode(StrEnum):
    REQUIRED = "Required"
    SKIP = "Skip"


class FailurePolicy(StrEnum):
    CANCEL = "Cancel"
    HOLD = "Hold"


class DeletionPolicy(StrEnum):
    CANCEL = "Cancel"
    FINALIZE = "Finalize"


class Phase(StrEnum):
    """Where a rotation stands; the order of the forward phases is the order of a rotation's life."""

    IDLE = "Idle"
    PREPARING = "Preparing"
    STARTING = "Starting"
    VERIFYING = "Verifying"
    DISTRIBUTING = "Distributing"
    ROLLING_OUT = "RollingOut"
    SOAKING = "Soaking"
    FINALIZING = "Finalizing"
    COMPLETED = "Completed"
    CANCELLING = "Cancelling"
    CANCELLED = "Cancelled"
    FAILED = "Failed"
    BLOCKED = "Blocked"


class Result(StrEnum):
    """How a rotation ended."""

    COMPLETED = "Completed"
    CANCELLED = "Cancelled"
    FAILED = "Failed"


class TargetState(StrEnum):
    PENDING = "Pending"
    """Found, not restarted yet."""
    ROLLING = "Rolling"
    """Restarted; some of its pods do not run on the wanted value yet, or are not available."""
    WAITING = "Waiting"
    """Not restarted by Keyturn; finalizing waits until it has ended or was replaced."""
    HELD = "Held"
    """Only others can end what it waits for, and `spec.rollout.timeout` does not count meanwhile."""
    READY = "Ready"
    """All of its pods run on the wanted value and are available."""


class ProviderRef(KubeModel):
    """Which provider account issues the secret."""

    kind: ProviderKind = ProviderKind.ROTATION_PROVIDER
    """RotationProvider (same namespace) or ClusterRotationProvider."""
    name: ObjectName
    """Name of the provider object."""


class SecretRef(KubeModel):
    """The Secret that the workloads read. Keyturn owns only the keys named here."""

    name: ObjectName
    """Name of the Secret, in the namespace of the rotation."""
    key: SecretKey
    """Key that holds the client secret."""
    client_id_key: SecretKey | None = None
    """Key to which the client id is written, if wanted."""
    previous_key: SecretKey | None = None
    """Key that holds the previous value while both are valid, for applications that accept two; removed on finalize."""
    creation_policy: CreationPolicy = CreationPolicy.MERGE
    """Merge: the Secret must exist and keeps its other keys.
    Owner: Keyturn creates it, and it is deleted with the rotation."""


class RolloutTarget(KubeModel):
    """A workload in the namespace of the rotation."""

    kind: TargetKind
    """Kind of the workload; a Rollout is that of Argo Rollouts."""
    name: ObjectName
    """Name of the workload."""


class LabelRequirement(KubeModel):
    """A condition on one label, as in all label selectors of Kubernetes."""

    key: LabelKey
    """The label."""
    operator: SelectorOperator
    """In and NotIn compare with `values`; Exists and DoesNotExist ask only for the label."""
    values: Annotated[list[LabelValue], Field(max_length=100)] = []
    """Values to compare with; at least one for In and NotIn, none for the others."""


class LabelSelector(KubeModel):
    """Chooses objects by their labels. All conditions must hold; without any, everything is chosen."""

    # As in Kubernetes: conditions of two field managers must not be joined to one that neither of them has written.
    model_config = ConfigDict(json_schema_extra={"x-kubernetes-map-type": "atomic"})

    match_labels: Annotated[dict[str, LabelValue], Field(max_length=100)] = {}
    """Labels, each with the value that it must have."""
    match_expressions: Annotated[list[LabelRequirement], Field(max_length=100)] = []
    """Further conditions."""


class RolloutSpec(KubeModel):
    """How the workloads that read the Secret are brought to the new value."""

    restart: RestartPolicy = RestartPolicy.ALWAYS
    """Always: restart every workload that reads the Secret, once.
    EnvOnly: leave those alone that read it only from volumes without subPath, which show a new value by themselves.
    Never: only wait until their pods have been replaced."""
    discover: bool = True
    """Find everything in the namespace that reads the Secret. False: only `targets` and `selector` say what does."""
    targets: Annotated[list[RolloutTarget], Field(max_length=100)] = []
    """Workloads that use the value in a way that cannot be found in their pods; their pods count as reading it."""
    selector: LabelSelector | None = None
    """Further such workloads, by their own labels."""
    timeout: Annotated[Duration, Field(validate_default=True)] = timedelta(minutes=15)
    """How long the rollout may take before `onFailure` applies."""
    max_concurrent: Annotated[int | None, Field(ge=1, le=1000)] = None
    """How many workloads may be restarting at the same time; without it, all. Not where the provider drops the old
    value at once."""
    wave_soak: Annotated[Duration, Field(validate_default=True)] = timedelta(0)
    """How long a wave (annotation keyturn.dev/wave of a workload, a number, 0 without it) must have been ready before
    the next one is restarted. It counts towards `timeout`."""
    unrestartable: UnrestartablePolicy = UnrestartablePolicy.HOLD
    """Running Jobs, bare pods, and whatever else only others can replace. Hold: the old value is kept until they have
    ended, however long. Fail: they count as a rollout that must end within `timeout`."""
    volume_refresh: Annotated[Duration, Field(validate_default=True)] = timedelta(minutes=2)
    """After which time every kubelet shows a new value in volumes; only for `restart: EnvOnly`."""


class VerifySpec(KubeModel):
    """Whether the new value is tried out at the provider before the workloads get it."""

    mode: VerifyMode = VerifyMode.REQUIRED
    """Required: a value that the provider does not accept is never handed out. Skip: trust the provider's answer."""
    timeout: Annotated[Duration, Field(validate_default=True)] = timedelta(minutes=2)
    """How long the provider may take until it accepts the new value."""


class RotationSpec(KubeModel):
    """What to rotate, where the value goes, and what must hold on the way."""

    provider_ref: ProviderRef
    """The account at the provider."""
    client_id: Annotated[str, Field(min_length=1, max_length=512, pattern=CLIENT_ID_PATTERN)]
    """The client whose secret is rotated, as the provider names it."""
    secret_ref: SecretRef
    """Where the value goes."""
    schedule: ScheduleSpec | None = None
    """When to rotate without being asked, and at which times at all. Without it only `rotationRequest` rotates."""
    rotation_request: Annotated[str | None, Field(max_length=253)] = None
    """Rotate now, or as soon as a window of `schedule` is open: a value that was not handled before rotates exactly
    once. Any text; a date or a ticket reads well."""
    suspend: bool = False
    """Start no rotation. One that is running goes on to its end."""
    overlap: Annotated[Duration, Field(validate_default=True)] = timedelta(hours=24)
    """How long the old value is to live on, at providers that let the caller choose (Timed); in full hours there."""
    accept_downtime: bool = False
    """Rotate even where calls will be refused: at providers without overlap, or when the overlap is too short."""
    take_over: bool = False
    """Withdraw a rotation that somebody else has started at the provider, instead of waiting for its end."""
    rollout: RolloutSpec = RolloutSpec()
    """The restart of the workloads."""
    verify: VerifySpec = VerifySpec()
    """The trial of the new value."""
    soak: Annotated[Duration, Field(validate_default=True)] = timedelta(minutes=5)
    """How long everything must have run on the new value before the old one is dropped."""
    on_failure: FailurePolicy = FailurePolicy.CANCEL
    """When the new value or the rollout fails. Cancel: put the previous value back and withdraw the new one.
    Hold: stop with both values alive until this field or the timeout is changed, or annotation keyturn.dev/resume or
    keyturn.dev/cancel names the rotation."""
    deletion_policy: DeletionPolicy = DeletionPolicy.CANCEL
    """What deleting this object in the middle of a rotation does.
    Cancel: withdraw the new value. Finalize: finish the rotation first."""


class Subject(KubeModel):
    """Whose secret is rotated, and where it goes."""

    provider_ref: ProviderRef
    """The account at the provider."""
    client_id: str
    """The client, as the provider names it."""
    secret_ref: SecretRef
    """Where the value goes."""


class Target(KubeModel):
    """One workload that reads the Secret."""

    kind: str
    """Kind of the workload."""
    name: str
    """Name of the workload."""
    state: TargetState
    """Where it stands."""
    updated: int = 0
    """Pods that run on the wanted value and are available."""
    desired: int = 0
    """Pods that it should have."""
    restarted: bool = False
    """Whether Keyturn has restarted it in the direction in which the rotation goes."""
    message: str | None = None
    """What it waits for."""


class RotationRecord(KubeModel):
    """The rotation that is running. Without it, no rotation runs."""

    id: str
    """Sortable, unique: also the value of the pod template annotation keyturn.dev/rotation."""
    phase: Phase
    """The phase it is in, also while status.phase says Blocked."""
    reason: str
    """What caused it."""
    request: str | None = None
    """The spec.rotationRequest that it answers."""
    urgent: str | None = None
    """The annotation keyturn.dev/urgent that it answers."""
    subject: Subject
    """What is being rotated; an edit of the spec in the middle waits for the next rotation."""
    account: str | None = None
    """The account at the provider, by what its provider object said of it when the rotation began."""
    started_time: MicroTime
    """When it became due and was taken up."""
    phase_started_time: MicroTime
    """When it entered its phase."""
    deadline: MicroTime | None = None
    """When the phase is given up."""
    start_sent: bool = False
    """Whether a start call may have reached the provider without its answer being known."""
    distributed_time: Time | None = None
    """When the new value was written to the Secret, by the API server's clock."""
    restored_time: Time | None = None
    """When the previous value was put back into the Secret, by the API server's clock."""
    previous_valid_until: MicroTime | None = None
    """When the provider stops accepting the previous value, if that is known."""
    cancel_reason: str | None = None
    """Why it is being cancelled."""
    resumed: str | None = None
    """The annotation keyturn.dev/resume that was followed last."""
    rollout: RolloutSpec | None = None
    """How workloads are restarted: `spec.rollout`, as it was when the spec was valid last."""
    held_since: MicroTime | None = None
    """Since when the rollout waits only for what others must end; this time does not count towards its timeout."""
    wave: int | None = None
    """The wave that waits for those before it."""
    wave_ready_time: MicroTime | None = None
    """Since when all workloads of the waves before it have been ready."""
    targets: list[Target] = []
    """The workloads that read the Secret, and how far each is."""


class RotationSummary(KubeModel):
    """A rotation that has ended."""

    id: str
    """Its id."""
    reason: str
    """What caused it."""
    request: str | None = None
    """The spec.rotationRequest that it answered."""
    urgent: str | None = None
    """The annotation keyturn.dev/urgent that it answered."""
    result: Result
    """How it ended."""
    started_time: MicroTime
    """When it was taken up."""
    finished_time: MicroTime
    """When it ended."""
    previous_refused: bool | None = None
    """Whether the provider was seen to refuse the previous value; not set where that could not be asked."""
    previous_valid_until: MicroTime | None = None
    """When the provider stops accepting the previous value, where it lives on by itself."""
    message: str
    """What happened, in a sentence."""


class CronInForce(KubeModel):
    """The cron expression that is followed. Its times before it was seen are not made up for."""

    cron: str
    """The expression."""
    time_zone: str
    """Its time zone."""
    since: Time
    """When it was seen first."""


class RotationStatus(KubeModel):
    """What Keyturn observed and did."""

    phase: Phase = Phase.IDLE
    """Phase of the newest rotation."""
    conditions: list[Condition] = []
    """Ready: the Secret holds a usable credential; stays True while a rotation runs. Rotating: a rotation runs."""
    observed_generation: int | None = None
    """The generation of the spec that this status speaks of."""
    rotation: RotationRecord | None = None
    """The rotation that is running."""
    last_rotation: RotationSummary | None = None
    """The rotation that ended last."""
    last_rotation_time: MicroTime | None = None
    """When a rotation was completed last."""
    last_rotation_subject: Subject | None = None
    """What that rotation rotated: the age of anything else counts from its own beginning."""
    next_rotation_time: Time | None = None
    """When the next rotation begins; in the past, since when it is due. Not set while one runs or none can begin."""
    last_handled_rotation_request: str | None = None
    """The newest spec.rotationRequest that was taken up."""
    last_handled_urgent: str | None = None
    """The annotation keyturn.dev/urgent that was taken up last; forgotten when the annotation is removed."""
    failures: int | None = None
    """Rotations that have ended since one was completed. With each, the schedule waits longer for the next."""
    cron_in_force: CronInForce | None = None
    """What `nextRotationTime` follows, where that is a cron expression."""
    secret_since: Time | None = None
    """Since when the value in the Secret counts as being in use, until Keyturn has rotated it."""
    secret_fingerprint: str | None = None
    """Salted fingerprint of the value in the Secret: tells values apart and reveals none."""
    history: list[RotationSummary] = []
    """The newest rotations that ended, newest first."""
