"""The report in a real browser: wide and narrow, light and dark.

Skipped where there is none, unless `AOT_BROWSER` names one or is "required": continuous integration must not pass by
looking away.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from aot_core.contracts.promotion import Decision, GateSettings
from aot_core.contracts.summary import CampaignSummary
from aot_core.evaluation.gate import decide
from aot_core.evaluation.report import write_report
from tests.evaluation.test_gate import CHAMPION, exam
from tests.evaluation.test_report import summary as summary

WANTED = os.environ.get("AOT_BROWSER", "")
NAMES = ("chromium", "chromium-browser", "google-chrome") if WANTED in ("", "required") else (WANTED,)
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None and not WANTED, reason="no Chromium here: apt-get install chromium, or AOT_BROWSER=/path/to/one"
)
WIDTHS = {"wide": 1400, "narrow": 420}
# Asked of the page itself: does it hold what it should, is nothing wider than the window, are all pictures decoded?
PROBE = """<script>addEventListener("load", () => {
for (const d of document.querySelectorAll("details")) d.open = true;
for (const i of document.images) i.loading = "eager";
setTimeout(() => { document.title = [document.documentElement.scrollWidth - innerWidth,
[...document.images].filter(i => i.complete && !i.naturalWidth).length, document.querySelectorAll("table").length,
getComputedStyle(document.body).backgroundColor].join("|") }, 500) })</script>"""


def browse(page: Path, width: int, dark: bool, *arguments: str) -> str:
    assert BROWSER is not None, f"AOT_BROWSER is {WANTED!r}, and no browser is found: apt-get install chromium"
    command = [
        BROWSER,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--disable-dev-shm-usage",
    ]
    command += [f"--window-size={width},2400", f"--user-data-dir={page.parent / f'profile-{width}-{dark}'}"]
    command += ["--virtual-time-budget=8000", *(["--blink-settings=preferredColorScheme=0"] if dark else [])]
    done = subprocess.run(
        [*command, *arguments, page.as_uri()], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def page(summary: CampaignSummary, tmp_path: Path) -> Path:
    settings = GateSettings(resamples=300)
    outcome = decide(exam(clean=380, semantic=340, attacker_1=350), CHAMPION, settings)
    decision = Decision(
        model="aot-defender", challenger="2", challenger_sha256="2" * 64, champion="1", champion_sha256="1" * 64,
        promote=outcome.promote, reason=outcome.reason, alpha=outcome.alpha, settings=settings, tests=outcome.tests,
    )  # fmt: skip
    path = write_report(summary.model_copy(update={"decision": decision}), tmp_path / "report.html")
    path.write_text(path.read_text().replace("</body>", PROBE + "</body>"))
    return path


@pytest.mark.parametrize("window", WIDTHS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_report_in_a_browser(page: Path, window: str, dark: bool) -> None:
    picture = page.with_name("shot.png")
    title = re.search(r"<title>(.*?)</title>", browse(page, WIDTHS[window], dark, "--dump-dom"))
    assert title is not None
    too_wide, broken, tables, ground = title[1].split("|")
    assert int(too_wide) <= 0, f"{too_wide} pixels wider than the window"
    assert int(broken) == 0 and int(tables) >= 6
    assert ground == ("rgb(21, 24, 28)" if dark else "rgb(255, 255, 255)")
    browse(page, WIDTHS[window], dark, f"--screenshot={picture}")
    assert picture.stat().st_size > 20_000
