"""The spool: an encrypted file for each new value that the journal does not hold yet.

A provider's answer is written here before the API server is asked to store it, if `KEYTURN_SPOOL_DIR` is set, so that
even a process killed during an outage of the API server loses nothing. At the next start the values go to the journal.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import SecretStr

from keyturn.cluster.answers import keep_answer
from keyturn.cluster.client import Kube
from keyturn.cluster.errors import ClusterError
from keyturn.cluster.secrets import Owner, read_journal

_log = logging.getLogger(__name__)
_SUFFIX: Final = ".pending"
_FIRST_RETRY_SECONDS: Final = 1.0
_LONGEST_RETRY_SECONDS: Final = 30.0


class SpoolError(Exception):
    """The spool cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A value that was issued and is not known to be in its journal. journal_version: of the journal at the call."""

    owner: Owner
    rotation_id: str
    pending: SecretStr
    journal_version: str = ""


class Spool:
    """A folder of encrypted files, one for each rotation."""

    def __init__(self, directory: Path, cipher: MultiFernet) -> None:
        """Use `open`."""
        self._directory = directory
        self._cipher = cipher

    @classmethod
    def open(cls, directory: Path, key_file: Path | None) -> Self:
        """Prepare the folder. `key_file` holds Fernet keys (32 bytes in URL-safe base64), one a line, the newest first.

        Raises SpoolError when the folder cannot be written or the keys cannot be read.
        """
        if key_file is None:
            raise SpoolError(
                "KEYTURN_SPOOL_DIR is set without KEYTURN_SPOOL_KEY_FILE: mount a Secret with a Fernet key"
            )
        try:
            keys = [Fernet(line) for line in key_file.read_text().split()]
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            probe = directory / ".writable"
            probe.touch()
            probe.unlink()
        except ValueError:
            raise SpoolError(f"{key_file} does not hold Fernet keys: 32 bytes in URL-safe base64, one a line") from None
        except OSError as error:
            raise SpoolError(f"the spool cannot be used: {error}") from None
        if not keys:
            raise SpoolError(f"{key_file} is empty: it must hold a Fernet key")
        return cls(directory, MultiFernet(keys))

    def keep(self, entry: Entry) -> None:
        """Write the value to disk, durably, before returning. Raises OSError."""
        owner = entry.owner
        content = {
            "namespace": owner.namespace,
            "name": owner.name,
            "uid": owner.uid,
            "rotation": entry.rotation_id,
            "pending": entry.pending.get_secret_value(),
            "journal": entry.journal_version,
        }
        path = self._path(owner, entry.rotation_id)
        fresh = path.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, self._cipher.encrypt(json.dumps(content).encode()))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fresh.replace(path)
        folder = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def drop(self, owner: Owner, rotation_id: str) -> None:
        """The journal holds the value: its file is not needed any more."""
        self._path(owner, rotation_id).unlink(missing_ok=True)

    def entries(self) -> Iterator[Entry]:
        """What an earlier process left. A file that cannot be read is reported and left alone."""
        for path in sorted(self._directory.glob(f"*{_SUFFIX}")):
            try:
                content = json.loads(self._cipher.decrypt(path.read_bytes()))
            except (InvalidToken, ValueError):
                _log.error("%s cannot be decrypted: add the key it was written with to the key file", path)
                continue
            except FileNotFoundError:
                continue  # another replica with the same folder has brought it home
            except OSError as error:
                _log.error("a spooled value cannot be read: %s", error)
                continue
            owner = Owner(content["namespace"], content["name"], content["uid"])
            yield Entry(owner, content["rotation"], SecretStr(content["pending"]), content.get("journal", ""))

    def _path(self, owner: Owner, rotation_id: str) -> Path:
        return self._directory / f"{owner.uid}-{rotation_id}{_SUFFIX}"


async def replay(spool: Spool, kube: Kube) -> None:
    """Bring what an earlier process left into its journals; waits for the API server as long as it takes.

    A value that the API server refuses keeps its file, for a person to see to, and keeps no other rotation waiting.
    """
    for entry in spool.entries():
        delay = _FIRST_RETRY_SECONDS
        while True:
            try:
                await _settle(spool, kube, entry)
                break
            except ClusterError as error:
                if error.lasting:
                    _log.error("a spooled value cannot be put into its journal: %s", error, extra=_context(entry))
                    break
                _log.warning("a spooled value waits for its journal: %s", error, extra=_context(entry))
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST_RETRY_SECONDS)


async def _settle(spool: Spool, kube: Kube, entry: Entry) -> None:
    journal = await read_journal(kube, entry.owner)
    if journal is None or journal.rotation_id != entry.rotation_id:
        remedy = "the file is kept; decrypt it with the spool's key if the value is needed, else delete it"
        _log.error("a spooled value belongs to a journal that is gone: %s", remedy, extra=_context(entry))
        return
    if journal.pending is None:
        called_with = replace(journal, resource_version=entry.journal_version or journal.resource_version)
        kept = await keep_answer(kube, entry.owner, called_with, entry.pending)
        said = "is in its journal now" if kept is not None else "is dropped: its rotation went on without it"
        _log.info("a spooled value %s", said, extra=_context(entry))
    spool.drop(entry.owner, entry.rotation_id)


def _context(entry: Entry) -> dict[str, str]:
    return {"object": f"{entry.owner.namespace}/{entry.owner.name}", "rotation": entry.rotation_id}
