"""Start a fleet on this machine, to try: a Dask scheduler, and a worker process for each device.

    trimtab fleet up --local 2                    local-0 and local-1, until Ctrl-C
    trimtab bench a.onnx b.onnx --on 'dask://127.0.0.1:8786?device=local-1'

Every worker also offers `local`: a call for it goes to whichever worker is free. For real boards,
start the same processes there: dask scheduler; dask worker SCHEDULER:8786 --nthreads 1 --no-nanny
--resources "pi5=1".
"""

from __future__ import annotations

import argparse

SUMMARY = "start a fleet of local devices, to try"
EXAMPLE = "trimtab fleet up --local 2"
#: Largest number of a port.
LAST_PORT = 65535


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("action", choices=["up"], metavar="up")
    parser.add_argument(
        "--local", metavar="N", default="2", help="number of devices on this machine (default 2)"
    )
    parser.add_argument(
        "--port", metavar="8786", default="8786", help="port of the scheduler (default 8786)"
    )


def execute(args: argparse.Namespace) -> int:
    """Run the fleet until Ctrl-C."""
    import signal

    from trimtab.core.errors import OptionError
    from trimtab.core.units import count
    from trimtab.runtime_bench.fleet.local import LocalFleet

    local, port = count(args.local, "--local") or 0, count(args.port, "--port") or 0
    if port > LAST_PORT:
        raise OptionError(f"{port} is not a port", where="--port", hint="Give 1 to 65535")
    # SIGTERM ends the worker processes as well.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with LocalFleet([f"local-{i}" for i in range(local)], port=port, common="local") as fleet:
        for name in fleet.names:
            print(f"dask://127.0.0.1:{port}?device={name}", flush=True)  # noqa: T201
        fleet.wait()
    return 0
