"""Session options: tried one by one, kept where faster, written where sessions find them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import onnx
import pytest

from trimtab.core.context import Ratio
from trimtab.core.errors import InputError, RunError
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import SessionConfig
from trimtab.passes.tuning.session_options import (
    Options,
    SettingTrial,
    settings,
    tune_options,
    write_options,
)
from trimtab.session_file import session, session_config, write_session_file


@dataclass
class ConfigCost:
    """Finds a configuration as fast as told by what it has; 1 where nothing is."""

    gains: dict[str, float] = field(default_factory=dict)
    seen: list[SessionConfig] = field(default_factory=list)

    def speed(self, config: SessionConfig) -> float:
        text = json.dumps(config.to_json())
        return float(np.prod([gain for word, gain in self.gains.items() if word in text]))

    def compare_configs(
        self, model: Any, base: SessionConfig, candidate: SessionConfig, *rest: Any
    ) -> Ratio:
        self.seen.append(candidate)
        value = self.speed(candidate) / self.speed(base)
        return Ratio(value, value - 0.01, value + 0.01)


def tuned(clock: Any, threads: int = 2, model: Model | None = None, seconds: float = 60) -> Options:
    model = model or graphs.cnn()
    return tune_options(
        model, SessionConfig(threads=threads), [random_feeds(model)], clock, seconds
    )


def verdicts(options: Options) -> dict[str, str]:
    return {t.setting: t.verdict for t in options.tried}


@pytest.mark.slow
def test_what_is_faster_is_kept_and_built_upon() -> None:
    clock = ConfigCost({'"spinning": true': 1.2, "dynamic_block_base": 1.1})
    found = tuned(clock)
    assert found.config.spinning
    assert found.config.config == {"session.dynamic_block_base": "4"}
    assert list(found.gains) == ["spinning threads", "dynamic block base 4"]
    assert found.gains["dynamic block base 4"].startswith("1.10x")


def test_what_is_not_faster_leaves_the_configuration_as_it_was() -> None:
    found = tuned(ConfigCost())
    assert found.config == SessionConfig(threads=2)
    assert found.gains == {}


def test_fewer_threads_are_tried_and_then_nothing_about_threads() -> None:
    found = tuned(ConfigCost({'"threads": 1,': 1.5}))
    assert found.config.threads == 1
    assert verdicts(found)["spinning threads"] == "has no meaning with one thread"


def test_an_option_that_leaves_the_running_graph_as_it_is_needs_no_clock() -> None:
    clock = ConfigCost()
    found = tuned(clock, model=graphs.relu_only())
    assert verdicts(found)["without SkipLayerNormFusion"] == "changes nothing here"
    assert all(not c.disabled_optimizers for c in clock.seen)


def test_an_optimizer_that_is_a_loss_is_switched_off() -> None:
    found = tuned(ConfigCost({"SkipLayerNormFusion": 1.3}), model=graphs.transformer())
    assert found.config.disabled_optimizers == ("SkipLayerNormFusion",)


def test_what_onnxruntime_refuses_is_dropped() -> None:
    class Refusing(ConfigCost):
        def compare_configs(self, *args: Any) -> Ratio:
            raise RunError("no")

    assert verdicts(tuned(Refusing()))["denormals as zero"] == "dropped: no"


def test_without_time_everything_stays() -> None:
    found = tuned(ConfigCost({"spinning": 2.0}), seconds=0.1)
    assert found.config == SessionConfig(threads=2)
    assert "time was over" in verdicts(found)["spinning threads"]


def test_all_settings_make_sessions() -> None:
    model = graphs.mlp()
    for setting in settings(SessionConfig(threads=2)):
        session(model, setting.change(SessionConfig(threads=2)))


CONFIG = SessionConfig(threads=2, level="extended", config={"session.set_denormal_as_zero": "1"})


def saved(folder: Path, config: SessionConfig | None = None, name: str = "m.onnx") -> Path:
    model = graphs.mlp()
    return (write_options(model, config) if config else model).save(folder / name)


def test_the_options_travel_in_the_metadata(tmp_path: Path) -> None:
    path = saved(tmp_path, CONFIG)
    assert session_config(path) == CONFIG
    assert session_config(Model.load(path)) == CONFIG
    assert session(path).get_session_options().intra_op_num_threads == 2


def test_onnxruntime_reads_its_part_of_them_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime as ort

    monkeypatch.setenv("ORT_LOAD_CONFIG_FROM_MODEL", "1")
    made = ort.InferenceSession(str(saved(tmp_path, CONFIG)), providers=["CPUExecutionProvider"])
    options = made.get_session_options()
    assert options.intra_op_num_threads == 2
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED


def test_a_model_with_options_passes_the_checker(tmp_path: Path) -> None:
    onnx.checker.check_model(str(saved(tmp_path, CONFIG)), full_check=True)


def test_the_file_beside_the_model_comes_before_the_metadata(tmp_path: Path) -> None:
    path = saved(tmp_path, CONFIG)
    other = SessionConfig(threads=1, level="basic")
    written = write_session_file(path, other, {"threads 1": "1.10x"}, "some machine")
    assert written == tmp_path / "session.json"
    assert session_config(path) == other
    assert json.loads(written.read_text())["gains"] == {"threads 1": "1.10x"}


def test_the_file_of_another_model_is_not_taken(tmp_path: Path) -> None:
    write_session_file(saved(tmp_path), CONFIG, {}, "")
    assert session_config(saved(tmp_path, name="other.onnx")) == SessionConfig()


def test_a_broken_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = saved(tmp_path)
    (tmp_path / "session.json").write_text("[")
    with pytest.raises(InputError, match="trimtab tune"):
        session(path)


def test_a_file_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError):
        session(tmp_path / "none.onnx")


def test_a_line_reports_the_ratio_and_the_verdict() -> None:
    assert str(SettingTrial("x", Ratio(1.1, 1.05, 1.15), "kept")) == "1.10x [1.05, 1.15]: kept"
