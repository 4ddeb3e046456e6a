-- Crawls that are compared with the crawl before, and whose pages are asked whether they have changed.

-- What a crawl ends with that is compared: a row that is claimed like a page, and fetches nothing.
ALTER TABLE crawl_pages DROP CONSTRAINT crawl_pages_kind_check;
ALTER TABLE crawl_pages ADD CONSTRAINT crawl_pages_kind_check CHECK (kind IN ('page', 'sitemap', 'robots', 'report'));
-- It failed since its site says that there is no such page: that is an answer.
ALTER TABLE crawl_pages ADD COLUMN absent boolean NOT NULL DEFAULT false;
-- The crawl ends with a report.
ALTER TABLE tasks ADD COLUMN crawl_reports boolean NOT NULL DEFAULT false;

-- The links of a crawl's page, packed, where its site can say that it is as it was: they are followed then without it.
ALTER TABLE pages ADD COLUMN links bytea;

-- Of a crawl: the page that the record stands on, whatever run reads it.
ALTER TABLE watch_records ADD COLUMN source uuid;
-- kind 4, unseen: its page could not be read, so that nobody knows whether the record is there. In how many runs in a row, and the run in
-- which it was seen last, where before_page and before_place find it. Its own page is 0, and its place a number among those.
ALTER TABLE watch_records ADD COLUMN unseen smallint NOT NULL DEFAULT 0;
ALTER TABLE watch_records ADD COLUMN seen_in uuid;
ALTER TABLE run_reports ADD COLUMN unseen bigint NOT NULL DEFAULT 0;

-- What a page is known by, whatever run reads it.
CREATE FUNCTION page_source(url text) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURNS NULL ON NULL INPUT
RETURN encode(substring(sha256(convert_to(url, 'UTF8')) FOR 16), 'hex')::uuid;
