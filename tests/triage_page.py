#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The page of a report in a browser, as wide as a phone and as a desk's screen: nothing sticks out to
the side, the console is silent, nothing is loaded, no name of an image does anything, and it is all
there without JavaScript. IMGFSCK_SCREENSHOTS names a folder for pictures to look at."""
import os
import pathlib

from imglib import hostile
from imglib.chromium import Chromium
from imglib.guests import CLUSTER, ext, fill, lose
from imglib.make import Recipe
from imglib.programs import BIN, imgfsck, qemu_img, run
from imglib.testing import ImageTest, main

RULES = pathlib.Path(__file__).resolve().parent.parent / "rules"
EVIL = "<script>document.title='x'</script><img src=x onerror=\"document.title='x'\">"
LONG = "a-name-without-a-place-to-break-" * 6
WIDTHS = (320, 360, 1280)
# Elements and texts of which a part is to the right of the page, unless they lie in an element that
# can be scrolled.
STICKING_OUT = """(() => {
  const width = %d, out = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode, range = document.createRange();
    range.selectNode(node);
    const box = node.nodeType === 1 ? node : range;
    if (box.getBoundingClientRect().right <= width + 0.5) continue;
    let inside = node.parentElement;
    while (inside && !['auto', 'scroll', 'hidden'].includes(getComputedStyle(inside).overflowX)) {
      inside = inside.parentElement;
    }
    if (!inside || inside === document.body) out.push(node.nodeName + ' ' + node.textContent);
  }
  return out.slice(0, 5).map(text => text.slice(0, 80));
})()"""


class InABrowser(ImageTest):
    def store(self):
        """Of everything that has a place on the page."""
        store = self.folder / "store"
        store.mkdir()
        for name, recipe in ((LONG + ".qcow2", Recipe("snapshots")), ("bitmaps", Recipe("bitmaps"))):
            os.rename(self.sound(recipe), store / name)
        for name in ("rt-unaligned", "leak-content", "l2-data-crosslink"):
            os.rename(self.damaged(name, fresh=False)[0], store / name)
        qemu_img("snapshot", "-c", EVIL, store / "bitmaps")
        qemu_img("create", "-q", "-f", "qcow2", "-b", "bitmaps", "-F", "qcow2", store / "child")
        for case in hostile.CASES:
            if case.name in ("backing-json", "vm-state", "vmdk-grain-on-text", "vhd-share"):
                case.attack(store / case.name)
        raw, tree = self.folder / "raw", self.folder / "tree"
        fill(tree, {"etc/passwd": 300_000, EVIL.replace("/", "|"): 300_000, LONG: 300_000})
        ext(raw, "32M", tree=tree)
        place = raw.read_bytes().index((tree / "etc/passwd").read_bytes()[:512]) // CLUSTER
        lose(raw, store / EVIL.replace("/", "|"), range(place + 1, place + 4))
        qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", LONG, "-F", "raw", store / "lost", "40T")
        return store

    def look_at(self, browser, name, page, *shown):
        for width in WIDTHS:
            with self.subTest(page=name, width=width):
                wrong, asked = browser.open(page, width)
                self.assertEqual(wrong, [])
                self.assertEqual([url for url in asked if not url.startswith("data:")],
                                 [f"file://{page}"])
                browser.value("document.querySelectorAll('details').forEach(d => d.open = true)")
                self.assertEqual(browser.value(STICKING_OUT % width), [])
                self.assertLessEqual(browser.value("document.scrollingElement.scrollWidth"), width)
                self.assertEqual(browser.value("innerWidth"), width)
                self.assertNotEqual(browser.value("document.title"), "x")
                self.assertEqual(browser.value(
                    "document.querySelectorAll('script,img,iframe,object,link').length"), 0)
                text = browser.value("document.body.innerText")
                for words in shown:
                    self.assertIn(words, text)
                # Pictures are decoded, and no text is too small to read.
                self.assertGreater(browser.value("document.querySelectorAll('svg image').length"), 0)
                self.assertEqual(browser.value(
                    "[...document.querySelectorAll('p,td,th,li,h1,h2,h3,h4')].filter(e => "
                    "parseFloat(getComputedStyle(e).fontSize) < 10).length"), 0)
                if "IMGFSCK_SCREENSHOTS" in os.environ:
                    browser.screenshot(f"{os.environ['IMGFSCK_SCREENSHOTS']}/{name}-{width}.png")

    def test_pages_fit_and_do_nothing(self):
        store, page, one = self.store(), self.folder / "page.html", self.folder / "one.html"
        done = run(BIN / "imgtriage", "--report", page, "--hash", "md5,sha256", "--content",
                   "--entropy", "--names", "--policy", "strict", "--rules", RULES, store)
        self.assertEqual(done.code, 4, done.err)
        long = self.folder / LONG
        long.mkdir()
        os.rename(store / "l2-data-crosslink", long / "l2-data-crosslink")
        self.assertEqual(imgfsck("--report", one, long / "l2-data-crosslink").code, 4)
        with Chromium() as browser:
            self.look_at(browser, "imgtriage", page, EVIL, LONG, "ref-pseudo", "/etc/passwd",
                         "What to look at first")
            self.look_at(browser, "imgfsck", one, "qcow2-l2-data-crosslink")
            browser.ask("Emulation.setScriptExecutionDisabled", value=True)
            wrong, _ = browser.open(page, WIDTHS[0])
            self.assertEqual(wrong, [])
            document = browser.ask("DOM.getDocument", depth=0)["root"]["nodeId"]
            self.assertIn("What to look at first",
                          browser.ask("DOM.getOuterHTML", nodeId=document)["outerHTML"])


if __name__ == "__main__":
    main()
