import time

import pytest

from llic_jax.errors import ConfigError
from llic_jax.training.phases import Phase
from llic_jax.training.settings import RunSettings
from llic_jax.training.time_schedule import Clock, TimeSchedule, minutes_used, note_minutes


@pytest.fixture
def config(tiny_config):
    config = tiny_config.copy_and_resolve_references()
    config.train.schedule, config.train.minutes = "time", 1.0
    config.train.learning_rate, config.train.decoder_learning_rate = 1.0, 0.5
    config.train.warmup_fraction, config.train.decay_fraction = 0.1, 0.5
    return config


def schedule_of(config):
    return TimeSchedule.of(RunSettings.of(config))


def test_the_rate_rises_stays_and_falls_to_zero(config):
    schedule = schedule_of(config)
    rates = [schedule.at(fraction).rate for fraction in (0.0, 0.05, 0.1, 0.3, 0.5, 0.75, 1.0)]
    assert rates == pytest.approx([0, 0.5, 1, 1, 1, 0.5, 0])
    assert rates[-1] == 0
    assert schedule.programs() == [(Phase.ALL, 0)]


def test_stages_and_crops_are_fractions_of_the_time(config):
    config.train.transforms_from_fraction, config.train.decoder_fraction = 0.2, 0.2
    config.data.crops, config.data.crop_fractions = (64, 128), (0.6,)
    schedule = schedule_of(config)
    expected = [(Phase.ENTROPY_MODEL, 0), (Phase.ALL, 0), (Phase.ALL, 1), (Phase.DECODER, 1)]
    assert [schedule.at(fraction)[:2] for fraction in (0.1, 0.3, 0.7, 0.9)] == expected
    assert schedule.programs() == expected
    assert schedule.at(0.2).rate == 0  # joining in: a new warm-up
    assert schedule.at(0.3).rate == pytest.approx(1)
    assert schedule.at(0.8 - 1e-9).rate == pytest.approx(0, abs=1e-6)
    assert schedule.at(0.8).rate == pytest.approx(0.5) and schedule.at(1.0).rate == 0


def test_fractions_that_do_not_go_together_are_refused(config):
    config.train.decoder_fraction = 1.0
    with pytest.raises(ConfigError, match="leave no time"):
        schedule_of(config)
    config.train.decoder_fraction = 1.5
    with pytest.raises(ConfigError, match=r"train\.decoder_fraction.*from 0 to 1"):
        schedule_of(config)
    config.train.decoder_fraction = 0.0
    config.train.minutes = 0.0
    with pytest.raises(ConfigError, match=r"train\.minutes"):
        schedule_of(config)
    config.train.minutes = 1.0
    config.data.crop_fractions = (0.5,)
    with pytest.raises(ConfigError, match=r"data\.crop_fractions"):
        schedule_of(config)


def test_the_clock_counts_steps_only_and_keeps_to_its_deadline(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Clock(minutes=10.0, used=2.0)
    now[0] += 300  # before the start: compiling
    assert clock.fraction() == pytest.approx(0.2)
    clock.start()
    now[0] += 120
    assert clock.minutes() == pytest.approx(4) and clock.fraction() == pytest.approx(0.4)
    now[0] += 1e6
    assert clock.fraction() == 1

    clock = Clock(minutes=10.0, deadline=now[0] + 100)
    now[0] += 30
    clock.start(reserve=20.0)
    now[0] += 25
    assert clock.fraction() == pytest.approx(0.5)
    now[0] += 25
    assert clock.fraction() == 1


def test_minutes_are_kept_by_step(tmp_path):
    assert minutes_used(tmp_path, 5) == 0
    for step, minutes in ((5, 1.0), (9, 2.0), (5, 1.5)):
        note_minutes(tmp_path, step, minutes)
    with (tmp_path / "clock.jsonl").open("a") as file:
        file.write('{"step": 9, "minu')  # killed
    assert minutes_used(tmp_path, 5) == 1.5 and minutes_used(tmp_path, 9) == 2.0
    assert minutes_used(tmp_path, 7) == 0
