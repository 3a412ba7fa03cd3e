"""Tests that miss a system program skip, and fail where nothing may be left out."""

from __future__ import annotations

import shutil

import pytest

from tests.programs import STRICT, program


def test_a_program_that_is_there_is_found() -> None:
    assert program("ls", "coreutils") == shutil.which("ls")


def test_an_absent_program_skips_the_test_and_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STRICT, raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"no-such-program is not installed .*apt install nothing"):
        program("no-such-program", "nothing")


def test_where_nothing_may_be_skipped_an_absent_program_fails_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STRICT, "1")
    with pytest.raises(pytest.fail.Exception, match="no-such-program is not installed"):
        program("no-such-program", "nothing")
