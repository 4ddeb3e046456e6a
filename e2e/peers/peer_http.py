"""aiohttp and selectolax: fetches lists of pages and reads 20 records from each. Nothing is stored.

    peer_http.py PAGES CONCURRENCY URL...    each URL with {} for the number of a page; prints pages and records
"""

import asyncio
import sys

import aiohttp
import uvloop
from selectolax.lexbor import LexborHTMLParser

FIELDS = {"title": "h2 a", "price": ".price", "text": ".text"}


def read(html):
    records = []
    for item in LexborHTMLParser(html).css("li.item"):
        record = {name: " ".join(item.css_first(css).text().split()) for name, css in FIELDS.items()}
        record["link"] = item.css_first("h2 a").attributes["href"]
        records.append(record)
    return records


async def worker(session, urls, found):
    for url in urls:
        async with session.get(url) as answer:
            answer.raise_for_status()
            records = read(await answer.text())
            found[0] += 1
            found[1] += len(records)


async def main(pages, concurrency, templates):
    urls = iter([templates[n % len(templates)].format(n // len(templates) + 1) for n in range(pages)])
    found = [0, 0]
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency)) as session:
        await asyncio.gather(*(worker(session, urls, found) for _ in range(concurrency)))
    print(*found)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
