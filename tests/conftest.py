"""Options of the suite, and the book-keeping of skips.

A test that silently stops running is worse than one that fails. `--strict-skips` fails the run on
any skip or expected failure whose reason is not in skip_reasons.txt; `--never-skip PATTERN` fails
it on reasons that match the pattern even if they are listed there (the run with torch installed
says `--never-skip '*torch*'`).

    --slow      run the long tests too; without it they are deselected, not skipped
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

REASONS = Path(__file__).with_name("skip_reasons.txt")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options of this suite."""
    group = parser.getgroup("pyconv")
    group.addoption("--slow", action="store_true", help="run the long tests too")
    group.addoption(
        "--strict-skips",
        action="store_true",
        help=f"fail on a skip whose reason is not in {REASONS.name}",
    )
    group.addoption(
        "--never-skip",
        action="append",
        default=[],
        metavar="PATTERN",
        help="with --strict-skips: fail on skips whose reason matches, listed or not",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Switch the book-keeping on where it is asked for."""
    if config.getoption("--strict-skips"):
        never = config.getoption("--never-skip")
        config.pluginmanager.register(SkipBook(read_patterns(REASONS), never), "pyconv-skip-book")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long tests out unless they are asked for."""
    if config.getoption("--slow"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in set(slow)]


def read_patterns(path: Path) -> list[str]:
    """Return the lines that are neither empty nor comments."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


class SkipBook:
    """Collects the reasons of all skips, and fails the session on one that nobody agreed to."""

    def __init__(self, agreed: list[str], never: list[str]) -> None:
        self.agreed = agreed
        self.never = never
        self.seen: list[tuple[str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that was skipped, or failed as expected."""
        self.note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a whole module that was skipped."""
        self.note(report)

    def note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        """Keep the reason of a report that is a skip."""
        if report.skipped:
            reason = getattr(report, "wasxfail", None)
            if reason is None:
                reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            self.seen.append((report.nodeid, reason.removeprefix("Skipped: ")))

    def unagreed(self) -> Iterator[tuple[str, str]]:
        """Yield the skips whose reason is not agreed to."""
        for nodeid, reason in self.seen:
            banned = any(fnmatchcase(reason, pattern) for pattern in self.never)
            if banned or not any(fnmatchcase(reason, pattern) for pattern in self.agreed):
                yield nodeid, reason

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turn a run that passed into one that failed."""
        if session.exitstatus == pytest.ExitCode.OK and any(self.unagreed()):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say which skips failed the run."""
        found = list(self.unagreed())
        if found:
            terminalreporter.section(f"skips whose reason is not agreed to ({REASONS.name})")
            for nodeid, reason in found:
                terminalreporter.line(f"{nodeid}: {reason}")
