"""The built site: every public name has a page, nothing is fetched from elsewhere.

Reads the folder named by SKEBM_SITE (``make docs`` builds it), and is skipped without one. With a
Chromium at hand pages are opened in it too.
"""

import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

import skebm
from skebm import USPDensity
from skebm.impute import DensityImputer
from skebm.ood import NoveltyDetector

SITE = Path(os.environ.get("SKEBM_SITE", "docs/_build/html"))
pytestmark = pytest.mark.skipif(
    not os.environ.get("SKEBM_SITE"), reason="SKEBM_SITE names no built site"
)
FETCHED = re.compile(
    r"<(?:script|img|iframe|source)[^>]+src=\"(https?:)?//"
    r"|<link[^>]+rel=\"(?:stylesheet|preload|icon)\"[^>]+href=\"(https?:)?//"
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


def pages():
    return [p for p in sorted(SITE.rglob("*.html")) if p.relative_to(SITE).parts[0] != "_static"]


def documented():
    """The names in the inventory that other sites link by."""
    data = (SITE / "objects.inv").read_bytes()
    lines = zlib.decompress(data.split(b"\n", 4)[4]).decode().splitlines()
    return {line.split(" ")[0] for line in lines}


def packages():
    yield skebm
    for found in pkgutil.iter_modules(skebm.__path__):
        if not found.name.startswith("_"):
            yield importlib.import_module(f"skebm.{found.name}")


@pytest.mark.parametrize("package", [*packages()], ids=lambda p: p.__name__)
def test_every_public_name_has_a_page(package):
    known = {name.rsplit(".", 1)[-1] for name in documented()}
    assert {n for n in package.__all__ if not n.startswith("__")} - known == set()


@pytest.mark.parametrize("estimator", [USPDensity(), NoveltyDetector(), DensityImputer()], ids=str)
def test_pictures_of_estimators_lead_to_their_pages(estimator):
    (link,) = set(re.findall(r'href="(https://skebm[^"#]+)', estimator._repr_html_()))
    assert (SITE / link.split("/skebm/", 1)[1]).exists()


def test_pages_fetch_nothing():
    fetching = {p.name for p in pages() if FETCHED.search(p.read_text(encoding="utf-8"))}
    assert fetching == set()


def test_links_and_pictures_lead_somewhere():
    broken = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"<(?:img|a|script)[^>]+(?:src|href)=\"([^\"#?]+)", text):
            if ":" in target or target.startswith("//"):
                continue
            if not (page.parent / target).exists():
                broken.append((page.name, target))
    assert broken == []


def test_formulas_are_drawn_without_a_script():
    text = (SITE / "notation.html").read_text(encoding="utf-8")
    assert "<math" in text and "MathJax" not in text


def test_the_site_is_small_and_can_be_searched():
    assert sum(p.stat().st_size for p in SITE.rglob("*") if p.is_file()) < 30e6
    assert "conformal" in (SITE / "searchindex.js").read_text(encoding="utf-8")
    assert len(list((SITE / "gallery").glob("plot_*.html"))) >= 14


BROWSED = ["index", "tour", "notation", "benchmarks", "results/papers", "gallery/index"]
BROWSED += ["gallery/plot_08_compare_estimators", "reference/generated/skebm.USPDensity"]
OFFLINE = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
OFFLINE += ["--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND"]
OFFLINE += ["--allow-file-access-from-files", "--enable-logging=stderr"]
browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: pages are read as text")


def browse(url, folder):
    """Return a page as Chromium leaves it after its scripts, and what it complained of."""
    command = [CHROMIUM, *OFFLINE, f"--user-data-dir={folder}", "--virtual-time-budget=20000"]
    done = subprocess.run(
        [*command, "--dump-dom", url], capture_output=True, text=True, timeout=120, check=True
    )
    said = [line for line in done.stderr.splitlines() if ":CONSOLE:" in line]
    return done.stdout, [line for line in said if re.search(r"Uncaught|Failed|ERR_|Error", line)]


@browser
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("page", BROWSED)
def test_a_page_fits_and_is_whole_without_a_network(page, width, tmp_path):
    probe = tmp_path / "probe.html"
    probe.write_text(
        f'<iframe id="f" src="file://{(SITE / page).resolve()}.html" width="{width}" height="900">'
        "</iframe><script>onload = () => { const page = f.contentDocument;"
        "const broken = [...page.images].filter(i => !i.complete || !i.naturalWidth).length;"
        "const d = page.documentElement;"
        "document.title = [d.scrollWidth, d.clientWidth, broken].join(' ') }</script>"
    )
    dom, complaints = browse(f"file://{probe}", tmp_path / "profile")
    wide, shown, broken = map(int, re.search(r"<title>(\d+) (\d+) (\d+)<", dom).groups())
    assert wide <= shown
    assert broken == 0 and complaints == []


@browser
def test_the_search_finds_words(tmp_path):
    url = f"file://{(SITE / 'search.html').resolve()}?q=conformal"
    dom, complaints = browse(url, tmp_path / "profile")
    found = re.findall(r'href="([^"]+)"', dom.split('id="search-results"', 1)[1])
    assert any("ConformalNoveltyDetector" in link for link in found)
    assert any("novelty.html" in link for link in found) and complaints == []
