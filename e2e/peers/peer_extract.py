"""selectolax and lxml: the links of a page, as often as they are asked for.

A line on standard input is JSON: {"library", "page", "times"}. The answer is one line of JSON: the CPU seconds of this process and the records.
"""

import json
import sys
import time

import lxml.html
from selectolax.lexbor import LexborHTMLParser


def with_selectolax(page: bytes) -> list:
    tree = LexborHTMLParser(page)
    return [
        {"text": " ".join(link.text().split()), "href": link.attributes["href"], "title": link.attributes.get("title")}
        for link in tree.css("a[href]")
    ]


def with_lxml(page: bytes) -> list:
    tree = lxml.html.document_fromstring(page)
    return [
        {"text": " ".join(link.text_content().split()), "href": link.get("href"), "title": link.get("title")}
        for link in tree.iterfind(".//a[@href]")
    ]


LIBRARIES = {"selectolax": with_selectolax, "lxml": with_lxml}

for line in sys.stdin:
    asked = json.loads(line)
    extract = LIBRARIES[asked["library"]]
    with open(asked["page"], "rb") as file:
        page = file.read()
    before = time.process_time()
    for _ in range(asked["times"]):
        records = extract(page)
    spent = time.process_time() - before
    print(json.dumps({"cpu": spent, "records": records}), flush=True)
