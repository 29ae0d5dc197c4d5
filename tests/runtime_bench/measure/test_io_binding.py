"""Sessions bound to a device: a fake one records the calls, the CPU's memory runs them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from graphs import model_of

from trimtab.core.errors import OptionError, RunError
from trimtab.core.ort.accelerators import CPU, CUDA, TENSORRT
from trimtab.core.ort.session import SessionConfig, available_providers, build_session, run
from trimtab.runtime_bench.machine.placement import Placement
from trimtab.runtime_bench.machine.providers import RECORD
from trimtab.runtime_bench.measure.contenders.in_process import InProcessContender
from trimtab.runtime_bench.measure.workers import caller
from trimtab.runtime_bench.measure.workers import io_binding as device
from trimtab.runtime_bench.measure.workers.io_binding import (
    BoundCaller,
    captures_cuda_graph,
    device_config,
    open_session,
    with_cuda_graph,
)
from trimtab.runtime_bench.measure.workers.worker import Worker

ON_CUDA = SessionConfig(provider=CUDA, provider_options={"device_id": "1"})
FEEDS = {"x": np.zeros((2, 3), "f")}
MODEL = model_of("(float[2,3] x) => (float[2,3] y) { r = Relu(x)  y = Neg(r) }")


@dataclass
class FakeValue:
    """A tensor on a device."""

    log: list[Any]
    name: str
    nbytes: int = 24

    def update_inplace(self, array: np.ndarray) -> None:
        self.log.append(("in", self.name))

    def numpy(self) -> np.ndarray:
        self.log.append(("out", self.name))
        return np.zeros(1)

    def tensor_size_in_bytes(self) -> int:
        return self.nbytes


@dataclass
class FakeSession:
    """A session of a GPU that this machine lacks; it is its own binding."""

    placed: dict[str, list[str]] = field(default_factory=lambda: {CUDA: ["Conv", "Relu"]})
    log: list[Any] = field(default_factory=list)

    def io_binding(self) -> FakeSession:
        return self

    def get_outputs(self) -> list[Any]:
        kinds = {"y": "tensor(float)", "label": "tensor(string)"}
        return [SimpleNamespace(name=n, type=t) for n, t in kinds.items()]

    def bind_ortvalue_input(self, name: str, value: FakeValue) -> None:
        self.log.append(("bind input", name, value.name))

    def bind_output(self, name: str, memory: str, device_id: int) -> None:
        self.log.append(("bind output", name, memory, device_id))

    def bind_ortvalue_output(self, name: str, value: FakeValue) -> None:
        self.log.append(("bind value", name, value.name))

    def get_outputs_of_run(self) -> list[FakeValue]:
        return [FakeValue(self.log, "y"), FakeValue(self.log, "label")]

    def run_with_iobinding(self, binding: object) -> None:
        assert binding is not None
        self.log.append("run")

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return [
            SimpleNamespace(
                ep_name=provider,
                get_nodes=lambda ops=ops: [SimpleNamespace(name="n", op_type=o) for o in ops],
            )
            for provider, ops in self.placed.items()
        ]

    def make(self, array: np.ndarray, memory: str, device_id: int) -> FakeValue:
        return FakeValue(self.log, f"{memory}:{device_id}")


class Binding:
    """The session's log under the binding's names."""

    def __init__(self, session: FakeSession) -> None:
        self.session = session
        self.get_outputs = session.get_outputs_of_run

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)


def bound(session: FakeSession, config: SessionConfig = ON_CUDA) -> BoundCaller:
    session.io_binding = lambda: Binding(session)  # type: ignore[assignment,return-value,method-assign]
    return BoundCaller(session, FEEDS, config, session.make)


def test_tensors_are_bound_on_the_device() -> None:
    session = FakeSession()
    bound(session)
    assert session.log == [
        ("bind input", "x", "cuda:1"),
        ("bind output", "y", "cuda", 1),
        ("bind output", "label", "cpu", 0),
    ]


def test_outputs_stay_where_the_first_run_put_them() -> None:
    session = FakeSession()
    made = bound(session)
    session.log.clear()
    assert len(made.time(3).ns) == 3
    assert session.log == ["run", ("bind value", "y", "y"), "run", "run"]
    made.time(1)
    assert session.log[4:] == ["run"]


def test_copies_are_timed_separately_and_nodes_are_counted() -> None:
    session = FakeSession()
    made = bound(session)
    made.time(1)
    session.log.clear()
    found = made.placement(2, "m")
    assert session.log == [("in", "cuda:1")] * 2 + [("out", "y")] * 2
    assert (len(found.copy_in_ns), len(found.copy_out_ns)) == (2, 2)
    assert (found.in_bytes, found.out_bytes) == (24, 24)
    assert found.nodes == {CUDA: 2}
    assert (found.provider, found.memory, found.elsewhere) == (CUDA, "cuda", ())
    assert Placement.from_json(found.to_json()) == found


def test_nodes_elsewhere_are_named() -> None:
    made = bound(FakeSession({CUDA: ["Conv"], CPU: ["NonZero"]}))
    made.time(1)
    assert made.placement(1, "m").elsewhere == (f"NonZero 'n' on {CPU}",)


def test_a_model_that_fell_back_whole_is_refused() -> None:
    made = bound(FakeSession({CPU: ["NonZero", "Relu"]}))
    made.time(1)
    with pytest.raises(RunError, match=f"m: none of its 2 nodes runs on {CUDA}.*{CPU}"):
        made.placement(1, "m")


def test_a_cuda_graph_is_an_option_of_its_providers() -> None:
    assert with_cuda_graph(ON_CUDA).provider_options["enable_cuda_graph"] == "1"
    on_trt = with_cuda_graph(SessionConfig(provider=TENSORRT))
    assert on_trt.provider_options == {"trt_cuda_graph_enable": "1"}
    assert captures_cuda_graph(on_trt)
    assert not captures_cuda_graph(ON_CUDA)
    with pytest.raises(OptionError, match=f"--cuda-graph: {CPU} cannot capture a.*onnxruntime-gpu"):
        with_cuda_graph(SessionConfig())


def test_nodes_in_the_way_of_a_capture_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fallen = [(f"n{i}", "NonZero") for i in range(7)]

    def placed(model: object, config: SessionConfig) -> dict[str, list[tuple[str, str]]]:
        assert not captures_cuda_graph(config)
        return {CUDA: [("c", "Conv")], CPU: fallen}

    def refuse(model: object, config: SessionConfig) -> None:
        raise RunError("onnxruntime refuses it: graph capture")

    monkeypatch.setattr(device, "nodes_by_provider", placed)
    monkeypatch.setattr(device, "build_session", refuse)
    says = r"m: no CUDA graph .* 7 nodes fall back: NonZero 'n0' .*, \.\.\.\. Drop --cuda-graph"
    with pytest.raises(RunError, match=says):
        open_session(MODEL, with_cuda_graph(ON_CUDA), "m")
    with pytest.raises(RunError, match="onnxruntime refuses it"):
        open_session(MODEL, ON_CUDA, "m")


def test_tensorrt_drops_no_capture_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    session = FakeSession({TENSORRT: ["Conv"], CUDA: ["NonZero"]})
    monkeypatch.setattr(device, "build_session", lambda *_: session)
    config = SessionConfig(provider=TENSORRT)
    assert open_session(MODEL, config, "m") is session
    with pytest.raises(RunError, match=f"1 nodes fall back: NonZero 'n' on {CUDA}"):
        open_session(MODEL, with_cuda_graph(config), "m")


def test_only_sessions_of_a_device_get_a_device_configuration() -> None:
    assert device_config(SessionConfig(), MODEL) == SessionConfig()
    assert device_config(ON_CUDA, MODEL).config == {RECORD: "1"}


def test_the_same_binding_computes_on_the_cpu() -> None:
    rng = np.random.default_rng(0)
    feeds = {"x": rng.standard_normal((2, 3)).astype("f")}
    config = SessionConfig(config={RECORD: "1"})
    session = build_session(MODEL, config)
    made = BoundCaller(session, feeds, config)
    assert len(made.time(3).ns) == 3
    np.testing.assert_array_equal(made.outputs["y"].numpy(), run(session, feeds)["y"])
    to, back = made.time_copies(2)
    assert len(to.ns) == len(back.ns) == 2
    made.host["x"][:] = 1
    made.time_copies(1)
    made.time(1)
    np.testing.assert_array_equal(made.outputs["y"].numpy(), -np.ones((2, 3), "f"))
    found = made.placement(2, "m")
    assert found.nodes == {CPU: 2}
    assert (found.in_bytes, found.out_bytes, found.copy_in_ns) == (24, 24, ())


def test_a_text_input_is_refused_by_its_name() -> None:
    with pytest.raises(RunError, match=r"input 'x': .*this input is text"):
        BoundCaller(FakeSession(), {"x": np.array(["a"])}, ON_CUDA)


def test_the_binding_takes_outputs_without_a_fixed_shape() -> None:
    model = model_of("(float[N] x) => (int64[1,M] y) { y = NonZero(x) }")
    config = SessionConfig()
    feeds = {"x": np.array([0, 1, 2], "f")}
    made = BoundCaller(build_session(model, config), feeds, config)
    made.time(3)
    np.testing.assert_array_equal(made.outputs["y"].numpy(), [[1, 2]])


def test_a_contender_in_this_process_binds_where_its_provider_wants_it(monkeypatch) -> None:
    monkeypatch.setattr(caller, "memory_of", lambda provider: "cpu")
    contender = InProcessContender(MODEL, SessionConfig(config={RECORD: "1"}), "m")
    contender.warm({"x": np.zeros((2, 3), "f")})
    assert contender.placement is not None
    assert contender.placement.nodes == {CPU: 2}
    contender.renew()
    assert len(contender.time(4).ns) == 4


def test_a_worker_binds_and_reports_its_placement(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(caller, "memory_of", lambda provider: "cpu")
    worker, path = Worker(), MODEL.save(tmp_path / "m.onnx")
    np.savez(tmp_path / "f.npz", x=np.zeros((2, 3), "f"))
    config = replace(SessionConfig(), config={RECORD: "1"}).to_json()
    worker.answer({"do": "load", "model": str(path), "config": config, "name": "m"})
    worker.answer({"do": "feed", "path": str(tmp_path / "f.npz")})
    assert len(worker.answer({"do": "time", "runs": 3})["ns"]) == 3
    assert len(worker.answer({"do": "throughput", "runs": 1, "concurrency": 2})["ns"]) == 1
    answer = worker.answer({"do": "place"})
    assert Placement.from_json(answer["placement"]).nodes == {CPU: 2}


@pytest.mark.skipif(
    "AzureExecutionProvider" not in available_providers(), reason="needs a provider for nothing"
)
def test_a_provider_that_takes_no_node_is_found_out() -> None:
    contender = InProcessContender(MODEL, SessionConfig(provider="AzureExecutionProvider"), "m")
    with pytest.raises(RunError, match="m: none of its 2 nodes runs on AzureExecutionProvider"):
        contender.warm({"x": np.zeros((2, 3), "f")})
