"""Packages that bring onnxruntime: two of them overwrite each other's files, which pip allows."""

from __future__ import annotations

from importlib import metadata

#: Packages that all install the same folder `onnxruntime`: the last one overwrites the others.
BUILDS = (
    *("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml"),
    *("onnxruntime-qnn", "onnxruntime-migraphx", "onnxruntime-rocm", "onnxruntime-cann"),
    *("onnxruntime-training", "onnxruntime-windowsml", "ort-nightly", "ort-nightly-gpu"),
)
#: Packages of such a name that in newer versions bring a provider alone, in this folder.
_PLUGIN_OF = {"onnxruntime-qnn": "onnxruntime_qnn/"}


def installed_builds() -> list[str]:
    """Return the packages that bring onnxruntime itself, with versions; two are one too many."""
    found = []
    for name in BUILDS:
        try:
            known = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        own = _PLUGIN_OF.get(name)
        if own is None or not any(str(file).startswith(own) for file in known.files or ()):
            found.append(f"{name} {known.version}")
    return found


def two_builds() -> str | None:
    """Return a warning where two packages have written the same folder; None where not."""
    found = installed_builds()
    if len(found) < 2:
        return None
    names = [text.split()[0] for text in found]
    keep = next((name for name in names if name != "onnxruntime"), names[0])
    return (
        f"{' and '.join(found)} are both installed and overwrite each other's files: run "
        f"`pip uninstall -y {' '.join(names)}`, then `pip install {keep}`"
    )
