//! A site to scrape: lists of 20 records in 7 KB of HTML, by a server that costs little. It belongs to no contestant.

use std::{fmt::Write as _, net::SocketAddr, sync::Arc};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Records of a page.
pub const RECORDS: usize = 20;

/// A server on every address of loopback, until it is dropped.
pub struct Site {
    /// Where.
    pub port: u16,
    serving: JoinHandle<()>,
}

impl Site {
    /// Listens. Pages are `/p/1` and so on, each with a link to the next one.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], 0))).await?;
        let port = listener.local_addr()?.port();
        let items = Arc::new(items());
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A connection that breaks is its client's loss.
                tokio::spawn(serve(stream, Arc::clone(&items)));
            }
        });
        Ok(Self { port, serving })
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(mut stream: TcpStream, items: Arc<String>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut request = Vec::new();
    loop {
        request.clear();
        while !request.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        let head = String::from_utf8_lossy(&request);
        let path = head.split(' ').nth(1).unwrap_or_default();
        stream.write_all(&answer(path, &items)).await?;
    }
}

/// Pages under `/p/` are whole as they come, those under `/d/` are filled by a script.
fn answer(path: &str, items: &str) -> Vec<u8> {
    let number = |prefix| path.strip_prefix(prefix).and_then(|number| number.parse::<u64>().ok());
    if let Some(number) = number("/p/") {
        return page(number, "p", items);
    }
    if let Some(number) = number("/d/") {
        return page(number, "d", "");
    }
    match path {
        "/s.css" => found("text/css", STYLE.as_bytes()),
        "/x.js" => found("text/javascript", SCRIPT.as_bytes()),
        "/items" => found("text/plain; charset=utf-8", items.as_bytes()),
        _ if path.starts_with("/i/") => found("image/gif", &DOT),
        _ => b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(),
    }
}

const STYLE: &str = "body{font:16px sans-serif;margin:0 auto;max-width:60em}.results{display:grid;grid-template-columns:1fr 1fr}\
                     .item{border:1px solid #ccc;padding:1em;box-shadow:0 1px 3px #999}.price{color:#060;font-weight:bold}";
/// Fills a list that came empty.
const SCRIPT: &str = "const list = document.querySelector('.results');
    if (!list.firstChild) fetch('/items').then(answer => answer.text()).then(items => { list.innerHTML = items });";
/// The smallest image that there is.
const DOT: [u8; 43] = *b"GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\xff\xff\x00\x00\x00!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;";

fn page(number: u64, kind: &str, items: &str) -> Vec<u8> {
    let next = number + 1;
    let body = format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>Page {number}</title><link rel=stylesheet href=/s.css>\
         <script src=/x.js defer></script></head><body>\
         <header><a href=/>Home</a><nav><a href=/a>Things</a><a href=/b>Others</a></nav></header><h1>Page {number}</h1>\
         <ul class=results>{items}</ul><footer><a rel=next href=/{kind}/{next}>Next</a></footer></body></html>"
    );
    found("text/html; charset=utf-8", body.as_bytes())
}

fn found(content_type: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut answer =
        format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n").into_bytes();
    answer.extend_from_slice(body);
    answer
}

fn items() -> String {
    let mut text = String::new();
    for number in 1..=RECORDS {
        // Writing to a text cannot fail.
        let _ = write!(
            text,
            "<li class=\"item\" data-id=\"{number}\"><img src=\"/i/{number}.png\" alt=\"\" width=120 height=80><h2><a href=\"/thing/{number}\">Thing \
             number {number} with a <em>long</em> name</a></h2><p class=\"price\">{number}9.90 EUR</p><p class=\"text\">It is made of several \
             parts, comes in three colours, and is delivered within two days, in a \
             box of its own.</p></li>"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_seven_kilobytes_and_twenty_records() {
        let page = String::from_utf8(answer("/p/1", &items())).unwrap();
        assert!((6_500..8_000).contains(&page.len()), "{}", page.len());
        assert_eq!(page.matches("<li class=\"item\"").count(), RECORDS);
        assert!(page.contains("rel=next href=/p/2"));
    }
}
