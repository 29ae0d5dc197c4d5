"""The templates of the report: HTML in files, with every value escaped."""

from __future__ import annotations

from typing import Any

from trimtab.core.errors import MissingExtraError


def render(name: str, values: dict[str, Any]) -> str:
    """Return a template of this folder with its values, which are text unless they are `Markup`.

    Raises:
        MissingExtraError: the extra `report` is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError("the report's page needs jinja2", extra="report") from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trimtab.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(values).strip() + "\n"
