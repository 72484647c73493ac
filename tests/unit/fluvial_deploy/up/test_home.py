"""What a home leaves behind."""

from __future__ import annotations

from pathlib import Path

from fluvial_deploy.up.home import Home


def test_a_short_run_folder_of_its_own_is_removed_at_the_end(tmp_path: Path) -> None:
    home = Home(tmp_path / ("long" * 20))
    home.prepare()
    lock = home.lock()
    assert home.run_dir.parent != home.path
    assert home.run_dir.is_dir()

    home.leave(lock)

    assert not home.run_dir.exists()
    assert home.token_file.exists()


def test_a_home_can_be_locked_again_after_it_was_left(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    home.leave(home.lock())
    home.prepare()
    home.leave(home.lock())

    assert home.state() == {}
