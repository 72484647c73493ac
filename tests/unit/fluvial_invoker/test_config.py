from pathlib import Path

import pytest

from fluvial.errors import InvalidRequestError
from fluvial_invoker.config import Config


def test_defaults() -> None:
    config = Config.from_environment({"FLUVIAL_HOME": "/h", "FLUVIAL_INVOKER_FD": "7"})

    assert config == Config(home=Path("/h"), run_dir=Path("/h/run"), listener_fd=7)
    assert config.idle_seconds == 300
    assert config.kms_command == ()


def test_the_kms_command_is_split_as_a_shell_would_and_no_more() -> None:
    environment = {"FLUVIAL_INVOKER_FD": "7", "FLUVIAL_KMS_COMMAND": "/opt/kms 'a b' $HOME; x"}

    config = Config.from_environment(environment)

    assert config.kms_command == ("/opt/kms", "a b", "$HOME;", "x")


@pytest.mark.parametrize(("text", "size"), [("", None), ("0", 0), ("64MiB", 64 * 1024 * 1024)])
def test_the_memory_of_snapshots_is_a_size(text: str, size: int | None) -> None:
    environment = {"FLUVIAL_INVOKER_FD": "7", "FLUVIAL_SNAPSHOT_MEMORY": text}

    assert Config.from_environment(environment).snapshot_bytes == size


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FLUVIAL_INVOKER_FD", None),
        ("FLUVIAL_INVOKER_FD", "x"),
        ("FLUVIAL_INVOKER_IDLE", "-1"),
        ("FLUVIAL_INVOKER_IDLE", "nan"),
        ("FLUVIAL_INVOKER_GRACE", "inf"),
        ("FLUVIAL_KMS_COMMAND", "kms 'unbalanced"),
        ("FLUVIAL_SNAPSHOT_MEMORY", "much"),
    ],
)
def test_bad_value_names_its_variable(name: str, value: str | None) -> None:
    environment = {"FLUVIAL_INVOKER_FD": "7", name: value}

    with pytest.raises(InvalidRequestError, match=name):
        Config.from_environment({k: v for k, v in environment.items() if v is not None})
