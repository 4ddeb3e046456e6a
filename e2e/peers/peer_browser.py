"""Playwright: loads lists of pages in Chromium and reads 20 records from each. Nothing is stored.

    peer_browser.py TASKS PAGES CONCURRENCY URL...    each URL, of one task's pages, with {} for the number of a page

As in the guide: one browser with its flags, a new context and page for each task; the task's pages are loaded one after another in
its page. CHROMIUM names the program. Prints pages and records.
"""

import asyncio
import os
import sys

from playwright.async_api import async_playwright

# "Playwright Optimization".
ARGS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
]

READ = """items => items.map(item => ({
    title: item.querySelector('h2 a').innerText,
    price: item.querySelector('.price').innerText,
    text: item.querySelector('.text').innerText,
    link: item.querySelector('h2 a').href,
}))"""


async def task(browser, template, pages, found):
    context = await browser.new_context()
    page = await context.new_page()
    for number in range(1, pages + 1):
        await page.goto(template.format(number))
        await page.wait_for_selector("li.item")
        records = await page.eval_on_selector_all("li.item", READ)
        found[0] += 1
        found[1] += len(records)
    await context.close()


async def worker(browser, templates, pages, found):
    for template in templates:
        await task(browser, template, pages, found)


async def main(tasks, pages, concurrency, templates):
    rest = iter([templates[n % len(templates)] for n in range(tasks)])
    found = [0, 0]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], headless=True, args=ARGS)
        await asyncio.gather(*(worker(browser, rest, pages, found) for _ in range(concurrency)))
        await browser.close()
    print(*found)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]))
