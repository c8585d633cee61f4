"""The operator with a clock that is ahead, for overlaps of hours: `python -m tests.e2e.ahead SECONDS run ...`."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, tzinfo

from keyturn.cli.main import app
from keyturn.controller import operator


class _Ahead(datetime):
    by = timedelta(0)

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + cls.by


if __name__ == "__main__":
    _Ahead.by = timedelta(seconds=float(sys.argv.pop(1)))
    operator.datetime = _Ahead  # type: ignore[attr-defined]
    app()
