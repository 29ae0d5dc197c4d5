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
    from trimtab.core.fields import convert
    from trimtab.runtime_bench.fleet.local import LocalFleet

    count = convert(int, args.local, where="--local")
    port = convert(int, args.port, where="--port")
    if count < 1 or not 0 < port < 65536:
        raise OptionError("needs at least one device, and a port", where="fleet up")
    # SIGTERM ends the worker processes as well.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with LocalFleet([f"local-{i}" for i in range(count)], port=port, common="local") as fleet:
        for name in fleet.names:
            print(f"dask://127.0.0.1:{port}?device={name}", flush=True)  # noqa: T201
        fleet.wait()
    return 0
