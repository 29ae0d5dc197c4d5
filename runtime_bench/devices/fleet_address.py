"""Address of a device of a fleet: dask://scheduler:8786?device=orin-nano."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.core.errors import InputError, MissingExtraError, OptionError

from .addresses import options, split

_FORM = "Write it as dask://scheduler:8786?device=NAME"
_TLS = ("tls_ca", "tls_cert", "tls_key")


@dataclass(frozen=True)
class FleetAddress:
    """Device of a fleet.

    Attributes:
        scheduler: host:port.
        device: Dask resource; a worker offers one token of it for each device.
        tls_ca: certificate that signed those of the scheduler and the workers. With it and this
            client's `tls_cert` and `tls_key`, traffic is encrypted and both ends authenticated.
        tls_cert: certificate of this client.
        tls_key: key of this client.
    """

    scheduler: str
    device: str
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""

    @classmethod
    def parse(cls, address: str) -> FleetAddress:
        """Parse dask://host:port?device=NAME[&tls_ca=FILE&tls_cert=FILE&tls_key=FILE].

        Raises:
            OptionError: the address is not valid.
            InputError: a certificate is missing.
        """
        parts = split(address, _FORM)
        fields = options(address, ("device", *_TLS), _FORM)
        if parts.scheme != "dask" or not parts.hostname or "device" not in fields:
            raise OptionError(f"{address!r} names no device of a fleet", hint=_FORM)
        files = {name: fields[name] for name in _TLS if name in fields}
        if files and len(files) < len(_TLS):
            raise OptionError(f"needs all of {', '.join(_TLS)}", where=address)
        for file in files.values():
            if not Path(file).is_file():
                raise InputError("no such file", where=file, hint="Check the path")
        return cls(f"{parts.hostname}:{parts.port or 8786}", fields["device"], **files)

    def __str__(self) -> str:
        return f"{self.device} at dask://{self.scheduler}"

    def client(self, seconds: float) -> Any:
        """Return a client of the scheduler, connected within some seconds.

        Raises:
            MissingExtraError: Dask is not installed.
            OSError: the scheduler does not answer.
        """
        try:
            import distributed
        except ImportError as error:
            raise MissingExtraError("a fleet needs Dask", extra="fleet") from error
        options: dict[str, Any] = {"timeout": seconds, "set_as_default": False}
        if not self.tls_ca:
            return distributed.Client(f"tcp://{self.scheduler}", **options)
        security = distributed.Security(
            tls_ca_file=self.tls_ca,
            tls_client_cert=self.tls_cert,
            tls_client_key=self.tls_key,
            require_encryption=True,
        )
        return distributed.Client(f"tls://{self.scheduler}", security=security, **options)
