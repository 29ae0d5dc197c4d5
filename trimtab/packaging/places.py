"""Places that a model is packaged for: what their runtime runs, and which samples they get."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trimtab.core.errors import unknown
from trimtab.core.ort.session import INT8_ALLOWED


@dataclass(frozen=True)
class Destination:
    """Destination that a model runs in.

    Attributes:
        name: mobile, web or server.
        runtime: package of onnxruntime there.
        without: optimizers of this machine that its runtime does not have.
        config: session entries with which this machine fuses what that one does.
        samples: samples of code by path, each with the language and how it is run.
        runtime_bytes: sizes of its runtime's files as published, by name.
        published: version of the package that these sizes are of.
    """

    name: str
    runtime: str
    without: tuple[str, ...]
    config: Mapping[str, str]
    samples: Mapping[str, str]
    runtime_bytes: Mapping[str, int]
    published: str = ""


_PYTHON = {"python/run.py": "python python/run.py"}
_JAVA = {
    "java/Run.java": "javac -cp onnxruntime.jar -d . java/Run.java && "
    "java -cp onnxruntime.jar:. Run"
}
_CPP = {
    "cpp/run.cc": "cmake -S cpp -B build -DONNXRUNTIME=FOLDER && cmake --build build && build/run",
    "cpp/CMakeLists.txt": "",
}
_WEB = {
    "web/run.mjs": "npm install onnxruntime-web && node web/run.mjs",
    "web/index.html": "npm install onnxruntime-web && npx serve, then open /web/index.html",
}
#: Layouts and fusions that x64 alone has: onnxruntime's own converter leaves the first out for ARM.
_NCHWC = ("NchwcTransformer",)
PLACES: Mapping[str, Destination] = {
    place.name: place
    for place in (
        Destination(
            "mobile",
            "com.microsoft.onnxruntime:onnxruntime-android, or onnxruntime-objc of CocoaPods",
            _NCHWC,
            {INT8_ALLOWED: "1"},
            {
                **_PYTHON,
                **_JAVA,
                "kotlin/Run.kt": "a class of an Android app; call Run(assets).check()",
                "swift/Run.swift": "a file of an iOS app; call Run(folder).check()",
                **_CPP,
            },
            {},
        ),
        Destination(
            "web",
            "onnxruntime-web of npm",
            _NCHWC,
            {},
            {**_PYTHON, **_WEB},
            {
                "ort-wasm-simd-threaded.wasm": 14_239_897,
                "ort.wasm.min.mjs": 50_126,
                "ort-wasm-simd-threaded.jsep.wasm (with WebGPU and WebNN)": 28_312_028,
            },
            "onnxruntime-web 1.30.0",
        ),
        Destination("server", "onnxruntime of PyPI", (), {}, {**_PYTHON, **_JAVA, **_CPP}, {}),
    )
}


def place_of(name: str) -> Destination:
    """Return a place by name.

    Raises:
        OptionError: there is none of that name.
    """
    if name not in PLACES:
        raise unknown("place", name, PLACES, where="--for")
    return PLACES[name]
