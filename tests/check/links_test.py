# SPDX-License-Identifier: Apache-2.0
"""Every relative link in a page leads to a file, and to a heading where it names one."""
import pathlib
import re
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(text):
    """The anchors of a page's headings, as forges make them."""
    headings = re.findall(r"^#+ +(.+?) *$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(pages):
    found = []
    for page in pages:
        text = page.read_text()
        for link in LINK.findall(re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
                found.append(f"{page.name}: {link}")
    return found


def pages_of(folder):
    return sorted([*folder.glob("*.md"), *folder.glob("docs/**/*.md")])


class LinksTest(unittest.TestCase):
    def test_every_link_leads_somewhere(self):
        self.assertGreater(len(pages_of(ROOT)), 15)
        self.assertEqual(dead_links(pages_of(ROOT)), [])

    def test_dead_links_are_found(self):
        with tempfile.TemporaryDirectory() as folder:
            page = pathlib.Path(folder, "page.md")
            page.write_text("# One, two\n[a](page.md#one-two) [b](#three) [c](gone.md) [d](https://example.org)\n```\n[e](f)\n```\n")
            self.assertEqual(dead_links([page]), ["page.md: #three", "page.md: gone.md"])


if __name__ == "__main__":
    unittest.main()
