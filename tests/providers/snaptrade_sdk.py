"""The official SnapTrade SDK as a program: a JSON request on each line of the input, a JSON answer on each line out.

It runs in an environment of its own (`tests.providers.oracle`), by file name: nothing of this project is imported.

    {"host": …, "client_id": …, "consumer_key": …, "time": seconds, "operation": …, "arguments": {…}}
    {"body": …}  or  {"status": …, "error": …}
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from snaptrade_client import SnapTrade, SnapTradeAuth  # type: ignore[import-not-found]
from snaptrade_client.exceptions import ApiException  # type: ignore[import-not-found]


def perform(wanted: dict[str, Any]) -> dict[str, Any]:
    """Make one call as a program that uses the SDK would, at the given time."""
    time.time = lambda: wanted["time"]
    auth = SnapTradeAuth.commercial_api_key(client_id=wanted["client_id"], consumer_key=wanted["consumer_key"])
    sdk = SnapTrade(auth=auth, host=wanted["host"])
    operations = {
        "reset": sdk.authentication.reset_snap_trade_user_secret,
        "register": sdk.authentication.register_snap_trade_user,
        "delete": sdk.authentication.delete_snap_trade_user,
        "list": sdk.authentication.list_snap_trade_users,
        "authorizations": sdk.connections.list_brokerage_authorizations,
    }
    try:
        return {"body": operations[wanted["operation"]](**wanted["arguments"]).body}
    except ApiException as error:
        return {"status": error.status, "error": error.body}


def main() -> None:
    """Answer requests until the input ends."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(perform(json.loads(line)), default=str) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
