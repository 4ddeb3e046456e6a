//! Reading sitemaps (sitemaps.org): XML, an index of them, or a text with one URL a line; gzip too. Pure and synchronous; hostile input is
//! bounded here.

use std::{
    io::{BufRead, BufReader, Read},
    time::Instant,
};

use flate2::bufread::MultiGzDecoder;
use quick_xml::{
    Reader,
    escape::resolve_predefined_entity,
    events::{BytesRef, Event},
};

/// The most bytes of a sitemap, before and after decompression (sitemaps.org).
pub const MAX_BYTES: usize = 50 << 20;
/// The most URLs of one.
pub const MAX_URLS: usize = 50_000;
/// The longest URL that is taken.
const MAX_URL: usize = selextract_task::MAX_URL;
/// Events between two looks at the clock.
const CLOCK_EVERY: usize = 4_096;

/// What a sitemap names, as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sitemap {
    /// Pages.
    pub pages: Vec<String>,
    /// Further sitemaps.
    pub sitemaps: Vec<String>,
}

/// Reads it as far as its limits allow.
///
/// # Errors
/// One sentence, when it names nothing because it is none.
pub fn parse(bytes: &[u8], deadline: Instant) -> Result<Sitemap, String> {
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let whole = MultiGzDecoder::new(bytes).take(MAX_BYTES as u64);
        return read(BufReader::new(whole), deadline);
    }
    read(bytes, deadline)
}

fn read(mut input: impl BufRead, deadline: Instant) -> Result<Sitemap, String> {
    let start = input
        .fill_buf()
        .map_err(|error| format!("it cannot be unpacked: {error}"))?;
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    match text.first() {
        Some(b'<') => read_xml(input, deadline),
        _ => read_lines(input, deadline),
    }
}

fn read_lines(input: impl BufRead, deadline: Instant) -> Result<Sitemap, String> {
    let mut sitemap = Sitemap::default();
    let mut input = input;
    let mut line = Vec::new();
    for count in 0_usize.. {
        line.clear();
        let ended = input.read_until(b'\n', &mut line).unwrap_or_default() == 0;
        if ended || sitemap.pages.len() >= MAX_URLS || (count.is_multiple_of(CLOCK_EVERY) && Instant::now() > deadline)
        {
            break;
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.len() <= MAX_URL && (text.starts_with("http://") || text.starts_with("https://")) {
            sitemap.pages.push(text.to_owned());
        }
    }
    if sitemap.pages.is_empty() {
        return Err("it is neither XML nor a list of URLs".to_owned());
    }
    Ok(sitemap)
}

/// Where the reader is.
#[derive(Default)]
struct Place {
    /// Names of the open elements that matter, without prefix: `url` or `sitemap`.
    entry: Option<Entry>,
    /// Within the `loc` of that entry.
    in_loc: bool,
    loc: String,
    depth: usize,
    entry_depth: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    Page,
    Sitemap,
}

fn read_xml(input: impl BufRead, deadline: Instant) -> Result<Sitemap, String> {
    let mut reader = Reader::from_reader(input);
    let config = reader.config_mut();
    config.check_end_names = false;
    config.allow_unmatched_ends = true;
    config.allow_dangling_amp = true;
    let (mut sitemap, mut place, mut buffer) = (Sitemap::default(), Place::default(), Vec::new());
    let mut failure = None;
    for count in 0_usize.. {
        buffer.clear();
        if sitemap.pages.len() + sitemap.sitemaps.len() >= MAX_URLS {
            break;
        }
        if count.is_multiple_of(CLOCK_EVERY) && Instant::now() > deadline {
            failure = Some("reading it took too long".to_owned());
            break;
        }
        match reader.read_event_into(&mut buffer) {
            Ok(Event::Eof) => break,
            Ok(event) => place.see(&event, &mut sitemap),
            Err(error) => {
                failure = Some(format!("it is no XML: {error}"));
                break;
            }
        }
    }
    // One that was cut off is read as far as it goes.
    let empty = sitemap.pages.is_empty() && sitemap.sitemaps.is_empty();
    match failure.filter(|_| empty) {
        Some(failure) => Err(failure.chars().take(200).collect()),
        None if empty && !place.saw_entry() => Err("it names no URL".to_owned()),
        None => Ok(sitemap),
    }
}

impl Place {
    const fn saw_entry(&self) -> bool {
        self.entry_depth > 0
    }

    fn see(&mut self, event: &Event<'_>, sitemap: &mut Sitemap) {
        match event {
            Event::Start(start) => {
                self.depth += 1;
                match start.local_name().as_ref() {
                    b"url" | b"sitemap" if self.entry.is_none() => {
                        let page = start.local_name().as_ref() == b"url";
                        self.entry = Some(if page { Entry::Page } else { Entry::Sitemap });
                        self.entry_depth = self.depth;
                    }
                    // Those of images and videos lie deeper.
                    b"loc" if self.entry.is_some() && self.depth == self.entry_depth + 1 => {
                        self.in_loc = true;
                        self.loc.clear();
                    }
                    _ => {}
                }
            }
            Event::End(_) => self.leave(sitemap),
            Event::Text(text) if self.in_loc => self.push(&text.decode().unwrap_or_default()),
            Event::CData(text) if self.in_loc => self.push(&text.decode().unwrap_or_default()),
            Event::GeneralRef(reference) if self.in_loc => self.refer(reference),
            _ => {}
        }
    }

    fn leave(&mut self, sitemap: &mut Sitemap) {
        if self.in_loc {
            self.in_loc = false;
            let loc = self.loc.trim();
            if !loc.is_empty() && loc.len() <= MAX_URL {
                match self.entry {
                    Some(Entry::Sitemap) => sitemap.sitemaps.push(loc.to_owned()),
                    _ => sitemap.pages.push(loc.to_owned()),
                }
            }
        }
        if self.depth <= self.entry_depth {
            self.entry = None;
        }
        self.depth = self.depth.saturating_sub(1);
    }

    fn push(&mut self, text: &str) {
        if self.loc.len() <= MAX_URL {
            self.loc.push_str(text);
        }
    }

    fn refer(&mut self, reference: &BytesRef<'_>) {
        if let Ok(Some(c)) = reference.resolve_char_ref() {
            self.loc.push(c);
        } else {
            let name = reference.decode().unwrap_or_default();
            self.loc.push_str(resolve_predefined_entity(&name).unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, time::Duration};

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn read(bytes: &[u8]) -> Result<Sitemap, String> {
        parse(bytes, Instant::now() + Duration::from_secs(20))
    }

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    const SET: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
        <urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:image="http://www.google.com/schemas/sitemap-image/1.1">
          <url><loc> http://site.test/a?x=1&amp;y=2 </loc><lastmod>2026-11-25</lastmod>
               <image:image><image:loc>http://site.test/a.png</image:loc></image:image></url>
          <url><loc><![CDATA[http://site.test/b]]></loc></url><url><lastmod>none</lastmod></url>
        </urlset>"#;

    #[test]
    fn a_sitemap_gives_its_pages_and_not_their_images() {
        let expected = Sitemap {
            pages: vec!["http://site.test/a?x=1&y=2".to_owned(), "http://site.test/b".to_owned()],
            sitemaps: Vec::new(),
        };
        assert_eq!(read(SET.as_bytes()).unwrap(), expected);
        assert_eq!(read(&packed(SET.as_bytes())).unwrap(), expected);
    }

    #[test]
    fn an_index_gives_sitemaps_and_a_text_its_lines() {
        let index = "<sitemapindex><sitemap><loc>http://site.test/1.xml</loc></sitemap><sitemap><loc>http://site.test/2.xml.gz</loc></sitemap></sitemapindex>";
        assert_eq!(read(index.as_bytes()).unwrap().sitemaps.len(), 2);
        let text = "\u{feff}http://site.test/1\r\n\nnonsense\nhttps://site.test/2";
        assert_eq!(
            read(text.as_bytes()).unwrap().pages,
            ["http://site.test/1", "https://site.test/2"]
        );
    }

    #[test]
    fn what_is_no_sitemap_says_so_and_what_is_cut_off_is_read_as_far_as_it_goes() {
        assert!(read(b"<html><p>not found").is_err());
        assert!(read(b"").is_err());
        assert!(read(b"\x1f\x8bnonsense").is_err());
        let torn = &SET.as_bytes()[..SET.find("<url><lastmod>").unwrap()];
        assert_eq!(read(torn).unwrap().pages.len(), 2);
        let gz = packed(SET.as_bytes());
        assert!(
            read(&gz[..gz.len() - 30]).is_ok_and(|sitemap| !sitemap.pages.is_empty())
                || read(&gz[..gz.len() - 30]).is_err()
        );
    }

    #[test]
    fn very_many_urls_and_a_bomb_are_bounded() {
        let many = (0..60_000).map(|n| format!("<url><loc>http://site.test/{n}</loc></url>"));
        let many = many.collect::<Vec<_>>().concat();
        assert_eq!(
            read(format!("<urlset>{many}").as_bytes()).unwrap().pages.len(),
            MAX_URLS
        );
        let bomb = packed(&vec![b'<'; 200 << 20]);
        assert!(read(&bomb).is_err());
        let deep = packed("<a>".repeat(10_000_000).as_bytes());
        assert!(read(&deep).is_err());
        let long = format!(
            "<urlset><url><loc>http://site.test/{}</loc></url></urlset>",
            "x".repeat(5_000)
        );
        assert!(read(long.as_bytes()).unwrap().pages.is_empty());
    }
}
