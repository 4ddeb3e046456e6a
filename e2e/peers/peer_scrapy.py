"""Scrapy with a pipeline into PostgreSQL: a transaction for each page's records.

    peer_scrapy.py PAGES CONCURRENCY URL...    each URL with {} for the number of a page
"""

import os
import sys

import psycopg2
import scrapy
from psycopg2.extras import execute_values
from scrapy.crawler import CrawlerProcess

FIELDS = {"title": "h2 a::text", "price": ".price::text", "text": ".text::text", "link": "h2 a::attr(href)"}


class Stored:
    def open_spider(self):
        self.connection = psycopg2.connect(os.environ["PEER_DATABASE_URL"])
        self.cursor = self.connection.cursor()

    def process_item(self, item):
        rows = [(item["url"], *record.values()) for record in item["records"]]
        execute_values(self.cursor, "INSERT INTO records (url, title, price, text, link) VALUES %s", rows)
        self.connection.commit()
        return item

    def close_spider(self):
        self.connection.close()


class Pages(scrapy.Spider):
    name = "pages"

    async def start(self):
        pages, templates = int(sys.argv[1]), sys.argv[3:]
        for number in range(pages):
            yield scrapy.Request(templates[number % len(templates)].format(number // len(templates) + 1))

    def parse(self, response):
        records = [
            {name: (item.css(css).get() or "").strip() for name, css in FIELDS.items()} for item in response.css("li.item")
        ]
        yield {"url": response.url, "records": records}


if __name__ == "__main__":
    concurrency = int(sys.argv[2])
    settings = {
        "CONCURRENT_REQUESTS": concurrency,
        "CONCURRENT_REQUESTS_PER_DOMAIN": concurrency,
        "DOWNLOAD_DELAY": 0,
        "ITEM_PIPELINES": {Stored: 100},
        "LOG_LEVEL": "ERROR",
        "ROBOTSTXT_OBEY": True,
        "TELNETCONSOLE_ENABLED": False,
    }
    process = CrawlerProcess(settings)
    process.crawl(Pages)
    process.start()
